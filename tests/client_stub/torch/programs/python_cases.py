"""What the pure-Python device promises, in one process that holds a lease.

    python_cases.py

Prints ``CASE {"name": …, "error": …}`` for each case.
"""

from __future__ import annotations

import copy
import gc
import io
import json
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset
from xpool.lease_pipe import Lease
from xpool.session import reach
from xpool.torch.leaving import Leaving
from xpool.torch.python_autocast import FLOAT32, LOWER_PRECISION, PROMOTED
from xpool.torch.python_install import install_python

TOLERANCE = 1e-5


def raised(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The text of the exception that a call raises."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def ramp(*sizes: int) -> torch.Tensor:
    count = 1
    for size in sizes:
        count *= size
    return torch.linspace(-1, 2, count).view(*sizes)


def losses(
    make_model: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor, device: str
) -> list[float]:
    torch.manual_seed(0)
    model = make_model().to(device)
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y = x.to(device), y.to(device)
    found = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def same_curve(
    make_model: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor
) -> None:
    local, remote = (losses(make_model, x, y, where) for where in ("cpu", "xpool"))
    worst = max(abs(a - b) for a, b in zip(local, remote, strict=True))
    assert worst <= TOLERANCE, (local, remote)
    assert local[0] != local[-1]


class Last(nn.Module):
    """The first of a recurrent layer's results."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)[0]


def case_cnn() -> None:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 9, 5),
        )

    same_curve(model, ramp(6, 1, 8, 8).sin(), torch.arange(6) % 5)


def case_transformer_encoder() -> None:
    def model() -> nn.Module:
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True)
        return nn.Sequential(
            nn.Embedding(20, 16),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.Linear(16, 20),
        )

    x = torch.arange(48).view(4, 12) % 20
    same_curve(model, x, x.roll(1, 1))


def case_recurrent_layers() -> None:
    x = torch.arange(48).view(4, 12) % 20
    for kind in (nn.LSTM, nn.GRU):
        same_curve(
            lambda kind=kind: nn.Sequential(
                nn.Embedding(20, 8),
                Last(kind(8, 16, batch_first=True)),
                nn.Linear(16, 20),
            ),
            x,
            x.roll(1, 1),
        )


def case_optimizers_in_lists() -> None:
    def curve(device: str) -> list[float]:
        torch.manual_seed(0)
        model = nn.Linear(6, 3).to(device)
        optimizer = optim.Adam(model.parameters(), 0.05, foreach=True)
        x = ramp(5, 6).to(device)
        found = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            found.append(loss.item())
        return found

    local, remote = curve("cpu"), curve("xpool")
    assert max(abs(a - b) for a, b in zip(local, remote, strict=True)) <= TOLERANCE


def case_autocast_lists() -> None:
    x, w = ramp(4, 4).to("xpool"), ramp(4, 4).to("xpool")
    with torch.autocast("xpool", dtype=torch.bfloat16):
        assert (x @ w).dtype is torch.bfloat16
        assert F.linear(x, w).dtype is torch.bfloat16
        assert (x @ w).exp().dtype is torch.float32
        assert (x @ w).softmax(1).dtype is torch.float32
        assert (x @ w).sum(dtype=torch.float64).dtype is torch.float64
        assert (x @ w).norm(2).dtype is torch.float32
        assert (x @ w).norm(2, 1).dtype is torch.float32
        assert torch.atan2(x @ w, w).dtype is torch.float32
        assert (x @ w).relu().dtype is torch.bfloat16
        assert (x.double() @ w.double()).dtype is torch.float64
        text = raised(
            RuntimeError, lambda: F.binary_cross_entropy(x.sigmoid(), w.sigmoid())
        )
        assert "unsafe to autocast" in text
        with torch.autocast("xpool", enabled=False):
            assert (x @ w).dtype is torch.float32
    assert (x @ w).dtype is torch.float32
    # The same names as the in-tree devices have.
    for name in (*LOWER_PRECISION, *FLOAT32, *PROMOTED):
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        assert has(f"aten::{name}", "AutocastXPU"), name


def case_training_with_autocast_and_scaler() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)).to("xpool")
    scaler = torch.amp.GradScaler("xpool", init_scale=1024.0)
    optimizer = optim.SGD(model.parameters(), 0.05)
    x = ramp(32, 8).to("xpool")
    y = x.sum(1, keepdim=True).to("xpool")
    found = []
    for _ in range(15):
        optimizer.zero_grad()
        with torch.autocast("xpool", dtype=torch.float16):
            loss = F.mse_loss(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(loss.item())
    assert found[-1] < found[0] / 2, found
    scaler.scale(model(x).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0


def case_softmax_out_of_half() -> None:
    gradients = []
    for device in ("cpu", "xpool"):
        x = ramp(3, 4).half().to(device).requires_grad_()
        F.softmax(x, 1, dtype=torch.float32).square().sum().backward()
        F.log_softmax(x, 1, dtype=torch.float32).sum().backward()
        assert x.grad is not None
        assert x.grad.dtype is torch.float16
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients)


def case_save_and_load() -> None:
    model = nn.Linear(3, 2).to("xpool")
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    for where, expected in ((None, "xpool"), ("cpu", "cpu"), ("xpool", "xpool")):
        file.seek(0)
        loaded = torch.load(file, map_location=where, weights_only=True)
        assert loaded["weight"].device.type == expected
        assert torch.equal(loaded["weight"].cpu(), model.weight.cpu())
    base = torch.arange(6.0, device="xpool")
    file = io.BytesIO()
    torch.save([base, base[2:4]], file)
    file.seek(0)
    first, second = torch.load(file, weights_only=True)
    first[2] = -1
    assert second[0].item() == -1, "what shared a storage shares one again"


def case_deepcopy_and_storages() -> None:
    model = nn.Linear(3, 2).to("xpool")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.weight.zero_()
    assert model.weight.abs().sum().item() > 0
    storage = torch.UntypedStorage(16, device="xpool")
    assert storage.nbytes() == 16
    x = torch.empty(0, device="xpool").set_(storage, 0, (4,), (1,))
    x.fill_(2)
    assert torch.equal(
        torch.empty(0).set_(storage.cpu(), 0, (4,), (1,)), torch.full((4,), 2.0)
    )
    assert torch.UntypedStorage([1, 2], device="xpool").cpu().tolist() == [1, 2]
    raised(NotImplementedError, lambda: storage.resize_(32))


def case_views_share_storage() -> None:
    x = torch.zeros(4, 6, device="xpool")
    x[:, 2].fill_(5)
    x.t()[0, 0] = 9
    x.view(torch.int32)[3, 5] = 0
    assert x.sum().item() == 29
    assert x[1:].data_ptr() == x.data_ptr() + 24
    assert x[1:].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    pair = torch.view_as_real(torch.ones(2, dtype=torch.complex64, device="xpool"))
    pair[0, 1] = 4
    assert torch.view_as_complex(pair).conj()[0].item() == 1 - 4j


def case_growing_keeps_views() -> None:
    x = torch.arange(4.0, device="xpool")
    old = x.view(2, 2)
    x.resize_(100)
    x[0] = 50
    old += 1
    assert x[:4].tolist() == [51, 2, 3, 4]
    assert old.tolist() == [[51, 2], [3, 4]]
    assert not x.is_set_to(old)
    y = torch.empty(0, device="xpool").set_(x)
    assert y.is_set_to(x)
    y.resize_(1000)
    y[1] = -1
    assert x[1].item() == -1


def case_frees_reach_the_server() -> None:
    gc.collect()
    before = remote.statistics()
    x = torch.ones(1 << 16, device="xpool")
    y = x.view(256, 256)[3:]
    held = remote.statistics()
    assert held["storage_count"] == before["storage_count"] + 1
    assert held["allocated_nbytes"] == torch.xpool.memory_allocated()
    del x
    assert remote.statistics()["storage_count"] == held["storage_count"]
    del y
    assert remote.statistics()["storage_count"] == before["storage_count"]
    assert remote.statistics()["allocated_nbytes"] == torch.xpool.memory_allocated()
    for _ in range(50):
        torch.ones(3, device="xpool").add(1)
    assert remote.statistics()["storage_count"] == before["storage_count"]


def case_both_ledgers_agree() -> None:
    kept = [torch.ones(n, device="xpool") * 2 for n in (0, 1, 128, 129, 5000)]
    kept[0].resize_(700)
    torch.cumsum(kept[1], 0, out=kept[2])
    kept += torch.unique(kept[4], return_counts=True)
    assert remote.statistics()["allocated_nbytes"] == torch.xpool.memory_allocated()
    assert torch.xpool.max_memory_allocated() >= torch.xpool.memory_allocated()
    torch.xpool.reset_peak_memory_stats()
    assert torch.xpool.max_memory_allocated() == torch.xpool.memory_allocated()


def case_out_of_memory() -> None:
    free, total = torch.xpool.mem_get_info()
    text = raised(
        torch.OutOfMemoryError,
        lambda: torch.empty(free + 513, dtype=torch.uint8, device="xpool"),
    )
    assert str(total) in text
    assert "--memory" in text
    quarter = free // 4 // 512 * 512
    x = torch.empty(quarter, dtype=torch.uint8, device="xpool")
    raised(torch.OutOfMemoryError, x.float)
    # The first of two results had room; the server never hears of it.
    raised(torch.OutOfMemoryError, lambda: x.half().sort())
    torch.xpool.synchronize()
    assert torch.ones(3, device="xpool").sum().item() == 3


def case_late_errors() -> None:
    bad = F.embedding(
        torch.tensor([5], device="xpool"), torch.zeros(3, 2, device="xpool")
    )
    good = torch.ones(2, device="xpool")
    text = raised(IndexError, lambda: (bad + 1).sum().item())
    assert "aten::" in text
    assert "operation" in text
    raised(IndexError, lambda: bad.cpu())
    assert good.sum().item() == 2
    raised(RuntimeError, lambda: good @ torch.ones(3, device="xpool"))
    assert good.sum().item() == 2


def case_wrong_devices() -> None:
    x = torch.ones(2, 3, device="xpool")
    text = raised(RuntimeError, lambda: x + torch.ones(2, 3))
    assert text.startswith("Expected all tensors to be on the same device")
    raised(RuntimeError, lambda: x.mul_(torch.ones(2, 3)))
    raised(RuntimeError, lambda: torch.cat([x, x.cpu()]))
    raised(RuntimeError, lambda: torch.zeros(1, device="xpool:1"))
    raised(RuntimeError, lambda: x.normal_(generator=torch.Generator()))
    raised(NotImplementedError, lambda: x.to_sparse())
    assert (x + torch.tensor(2.0)).sum().item() == 18


def case_generators() -> None:
    first = torch.Generator(device="xpool")
    assert isinstance(first, torch.Generator)
    assert first.device == torch.device("xpool", 0)
    first.manual_seed(3)
    a = torch.rand(5, device="xpool", generator=first)
    b = torch.rand(5, device="xpool", generator=first)
    state = first.get_state()
    c = torch.randint(100, (5,), device="xpool", generator=first)
    first.set_state(state)
    assert torch.equal(c, torch.randint(100, (5,), device="xpool", generator=first))
    second = torch.Generator("xpool").manual_seed(3)
    assert torch.equal(a, torch.rand(5, device="xpool", generator=second))
    assert not torch.equal(a, b)
    assert second.clone_state().initial_seed() == 3
    assert torch.Generator().device.type == "cpu"
    assert torch.rand(2, generator=torch.Generator().manual_seed(1)).shape == (2,)
    torch.manual_seed(5)
    d = torch.randn(5, device="xpool")
    state = torch.xpool.get_rng_state()
    e = F.dropout(torch.ones(50, device="xpool"))
    torch.xpool.set_rng_state(state)
    assert torch.equal(e, F.dropout(torch.ones(50, device="xpool")))
    torch.xpool.manual_seed(5)
    assert torch.equal(d, torch.randn(5, device="xpool"))
    with torch.random.fork_rng(device_type="xpool"):
        torch.manual_seed(9)
    assert torch.xpool.initial_seed() == 9
    draws = torch.multinomial(
        torch.tensor([0.0, 1, 1], device="xpool"), 2, generator=first
    )
    assert sorted(draws.tolist()) == [1, 2]


def case_pinned_memory() -> None:
    x = torch.arange(4.0).pin_memory()
    assert x.is_pinned()
    assert not torch.arange(4.0).is_pinned()
    assert x.to("xpool", non_blocking=True).sum().item() == 6
    data = TensorDataset(torch.arange(32.0).view(16, 2))
    loader = DataLoader(data, batch_size=4, num_workers=1, pin_memory=True)
    total = sum(batch.to("xpool").sum().item() for (batch,) in loader)
    assert total == sum(range(32))


def case_module() -> None:
    module = torch.xpool
    assert module.is_available()
    assert module.is_initialized()
    assert module.device_count() == 1
    assert module.current_device() == 0
    module.set_device("xpool:0")
    raised(RuntimeError, lambda: module.set_device(1))
    assert module.get_device_name().startswith("xpool ")
    assert module.get_device_properties().total_memory == module.mem_get_info()[1]
    with module.device(0), torch.device("xpool"):
        assert torch.ones(2).is_xpool
    assert torch.ones(2).xpool().is_xpool
    begin, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    with module.stream(module.Stream()):
        begin.record()
        torch.ones(3, device="xpool")
        end.record()
    end.synchronize()
    assert begin.elapsed_time(end) >= 0
    module.current_stream().synchronize()
    module.synchronize()


def case_meta_kernels_run_once() -> None:
    x = torch.ones(3, 4, device="xpool")
    (x * 2).exp()
    before = remote.library.plan_counters()
    for n in range(20):
        (x * n).exp()
    after = remote.library.plan_counters()
    assert after["misses"] == before["misses"]
    assert after["requests"] == before["requests"]
    assert after["hits"] == before["hits"] + 40


def case_numbers_take_part_in_promotion() -> None:
    i, x = torch.arange(3), ramp(3)
    for function in (
        lambda a: a + 1.5,
        lambda a: torch.copysign(a, -2),
        lambda a: a % 2,
        lambda a: a.remainder(2.5),
        lambda a: a // 2,
        lambda a: torch.true_divide(a, 2),
        lambda a: torch.where(a > 0, a, 2.5),
        lambda a: a * True,
        lambda a: a * 1j,
        lambda a: torch.maximum(a, torch.tensor(1.5)),
    ):
        for tensor in (i, x, x.half(), x.double(), i[1], x[1]):
            want, have = function(tensor), function(tensor.to("xpool"))
            assert want.dtype is have.dtype, (want, have)
            torch.testing.assert_close(have.cpu(), want)


def case_threads() -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            x = ramp(16, 16) + seed
            y = x.to("xpool")
            for _ in range(30):
                x, y = (x * 0.5).tanh(), (y * 0.5).tanh()
            torch.testing.assert_close(y.cpu(), x)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def case_forked_child_may_not_use_it() -> None:
    x = torch.ones(2, device="xpool")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            x.add_(1)
            text = "no error"
        except RuntimeError as error:
            text = str(error)
        del x
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "'spawn' start method" in pipe.read()
    os.waitpid(child, 0)
    assert x.sum().item() == 2


def case_large_transfers() -> None:
    big = torch.arange(5_000_000, dtype=torch.int32)
    there = big.to("xpool")
    assert torch.equal(there.cpu(), big)
    assert torch.equal(there[4_999_000:].cpu(), big[4_999_000:])
    assert torch.equal(there.view(5000, 1000).t()[:2].cpu(), big.view(5000, -1).t()[:2])


def case_compiled_functions() -> None:
    compiled = torch.compile(lambda a: (a * 2).relu().sum(), backend="aot_eager")
    x = ramp(3, 4).to("xpool").requires_grad_()
    compiled(x).backward()
    assert x.grad is not None
    assert torch.equal(x.grad.cpu(), (ramp(3, 4) > 0) * 2.0)


def main() -> None:
    for name, case in list(globals().items()):
        if not name.startswith("case_"):
            continue
        try:
            case()
            error = None
        except Exception:
            error = traceback.format_exc()
        print("CASE " + json.dumps({"name": name[5:], "error": error}), flush=True)


if __name__ == "__main__":
    lease = msgspec.json.decode(os.environ["LEASE"], type=Lease)
    leaving = Leaving()
    remote = install_python(reach(lease, f"torch {torch.__version__}"))
    leaving.remotes = [remote]
    main()
