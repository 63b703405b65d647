"""Whole training loops on the device, each compared with the same on the local CPU."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

TOLERANCE = 1e-5
GENERATOR = torch.Generator().manual_seed(1)
PICTURES = torch.randn(48, 1, 14, 14, generator=GENERATOR)
LABELS = torch.randint(0, 10, (48,), generator=GENERATOR)
TOKENS = torch.randint(0, 50, (48, 12), generator=GENERATOR)

Batches = list[tuple[torch.Tensor, torch.Tensor]]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # Without a bias, whose gradient before a norm is what was rounded off.
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv2, self.out = nn.Conv2d(8, 16, 3), nn.Linear(16 * 2 * 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.out(x.flatten(1))


class Transformer(nn.Module):
    def __init__(self, dropout: float = 0.0, checkpointed: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=dropout, batch_first=True)
        self.embed, self.out = nn.Embedding(50, 32), nn.Linear(32, 50)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.checkpointed = checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.encoder.layers:
            x = (
                checkpoint(layer, x, use_reentrant=False)
                if self.checkpointed
                else layer(x)
            )
        return self.out(x)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(50, 16), kind(16, 24, 2, batch_first=True)
        self.out = nn.Linear(24, 50)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.embed(x))[0])


def batches_of(x: torch.Tensor, y: torch.Tensor) -> Batches:
    return list(DataLoader(TensorDataset(x, y), batch_size=16))


PICTURE_BATCHES = batches_of(PICTURES, LABELS)
TOKEN_BATCHES = batches_of(TOKENS, TOKENS.roll(1, 1))


def train(
    make_model: Callable[[], nn.Module],
    batches: Batches,
    make_optimizer: Callable[[Iterator[Any]], optim.Optimizer],
    device: str,
    amp: torch.dtype | None = None,
    steps: int = 6,
) -> tuple[list[float], nn.Module]:
    torch.manual_seed(0)
    model = make_model().to(device)
    optimizer = make_optimizer(model.parameters())
    losses = []
    for x, y in (batches * steps)[:steps]:
        optimizer.zero_grad()
        with torch.autocast(
            device, dtype=amp or torch.bfloat16, enabled=amp is not None
        ):
            out = model(x.to(device))
            loss = F.cross_entropy(out.flatten(0, -2), y.to(device).flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def assert_same(
    make_model: Callable[[], nn.Module],
    batches: Batches,
    make_optimizer: Callable[[Iterator[Any]], optim.Optimizer],
    device: str,
    amp: torch.dtype | None = None,
    tolerance: float = TOLERANCE,
    weights: bool = True,
) -> None:
    local, here = train(make_model, batches, make_optimizer, "cpu", amp)
    remote, there = train(make_model, batches, make_optimizer, device, amp)
    worst = max(abs(a - b) for a, b in zip(local, remote, strict=True))
    assert worst <= tolerance, (worst, local, remote)
    for name, value in there.state_dict().items():
        assert value.device.type == device, name
        if not weights:
            continue
        expected = here.state_dict()[name]
        torch.testing.assert_close(value.cpu(), expected, atol=1e-4, rtol=1e-3)


def case_cnn_sgd_one_by_one(device: str) -> None:
    assert_same(
        Convolutional,
        PICTURE_BATCHES,
        lambda p: optim.SGD(p, 0.1, momentum=0.9, foreach=False),
        device,
    )


def case_cnn_sgd_foreach(device: str) -> None:
    assert_same(
        Convolutional,
        PICTURE_BATCHES,
        lambda p: optim.SGD(p, 0.1, momentum=0.9, foreach=True),
        device,
    )


def case_cnn_adam_foreach(device: str) -> None:
    assert_same(
        Convolutional,
        PICTURE_BATCHES,
        lambda p: optim.Adam(p, 1e-2, foreach=True),
        device,
    )


def case_cnn_adamw_fused(device: str) -> None:
    assert_same(
        Convolutional,
        PICTURE_BATCHES,
        lambda p: optim.AdamW(p, 1e-2, fused=True),
        device,
    )


def case_transformer_sgd(device: str) -> None:
    assert_same(Transformer, TOKEN_BATCHES, lambda p: optim.SGD(p, 0.1), device)


# Attention is computed in another order here than on the local CPU (1e-7), and Adam
# divides by the gradient's size: weights whose gradient is near zero then differ.


def case_transformer_adamw(device: str) -> None:
    assert_same(
        Transformer,
        TOKEN_BATCHES,
        lambda p: optim.AdamW(p, 1e-3),
        device,
        weights=False,
    )


def case_transformer_checkpointed(device: str) -> None:
    assert_same(
        lambda: Transformer(checkpointed=True),
        TOKEN_BATCHES,
        lambda p: optim.SGD(p, 0.1),
        device,
    )


def case_transformer_autocast_bf16(device: str) -> None:
    # bfloat16 has 8 bits: the lists of what is cast differ a little by device type.
    assert_same(
        Transformer,
        TOKEN_BATCHES,
        lambda p: optim.AdamW(p, 1e-3),
        device,
        torch.bfloat16,
        5e-3,
        weights=False,
    )


def case_lstm(device: str) -> None:
    assert_same(Recurrent, TOKEN_BATCHES, lambda p: optim.SGD(p, 0.5), device)


def case_gru(device: str) -> None:
    assert_same(
        lambda: Recurrent(nn.GRU), TOKEN_BATCHES, lambda p: optim.SGD(p, 0.5), device
    )


def case_grad_scaler_fp16(device: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)).to(device)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    optimizer = optim.SGD(model.parameters(), 0.05)
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(3)).to(device)
    y = x.sum(1, keepdim=True)
    losses = []
    for _ in range(20):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.float16):
            loss = F.mse_loss(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2, losses
    assert scaler.get_scale() == 2.0**10
    # An overflow must be seen, skipped, and halve the scale.
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(model(x).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**9
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)


def case_dropout_repeats_under_a_seed(device: str) -> None:
    def run() -> list[float]:
        return train(
            lambda: Transformer(0.3),
            TOKEN_BATCHES,
            lambda p: optim.AdamW(p, 1e-3),
            device,
        )[0]

    first, second = run(), run()
    assert first == second
    torch.manual_seed(1)
    layer = nn.Dropout(0.5)
    x = torch.ones(1000, device=device)
    assert not torch.equal(layer(x), layer(x))


def case_state_dict_round_trip(device: str) -> None:
    import io

    _, model = train(
        Convolutional, PICTURE_BATCHES, lambda p: optim.SGD(p, 0.1), device, steps=2
    )
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    file.seek(0)
    on_host = torch.load(file, map_location="cpu", weights_only=True)
    other = Convolutional().to(device)
    other.load_state_dict(loaded)
    for name, value in model.state_dict().items():
        assert loaded[name].device.type == device
        assert on_host[name].device.type == "cpu"
        assert torch.equal(on_host[name], value.cpu())
        assert torch.equal(other.state_dict()[name].cpu(), value.cpu())


def case_optimizer_state_round_trip(device: str) -> None:
    import io

    model = nn.Linear(4, 4).to(device)
    optimizer = optim.AdamW(model.parameters(), 1e-2)
    model(torch.ones(2, 4, device=device)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = optim.AdamW(model.parameters(), 1e-2)
    other.load_state_dict(torch.load(file, weights_only=True))
    for a, b in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert torch.equal(a["exp_avg"].cpu(), b["exp_avg"].cpu())


def case_deepcopy_of_a_module(device: str) -> None:
    model = Convolutional().to(device)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.out.weight.zero_()
    assert model.out.weight.abs().sum().item() > 0
    assert twin.out.weight.device.type == device
    assert twin.out.weight.requires_grad


def case_data_loader_with_worker(device: str) -> None:
    data = TensorDataset(torch.arange(64.0).view(32, 2), torch.arange(32))
    loader = DataLoader(data, batch_size=8, num_workers=1)
    total = torch.zeros((), device=device)
    for x, y in loader:
        total += x.to(device, non_blocking=True).sum() + y.to(device).sum()
    assert total.item() == sum(range(64)) + sum(range(32))


def case_several_python_threads(device: str) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(32, 32, generator=generator)
            a, b = x, x.to(device)
            for _ in range(30):  # a map that does not amplify what is rounded
                a = torch.tanh(a @ x / 8) + x
                b = torch.tanh(b @ x.to(device) / 8) + x.to(device)
            torch.testing.assert_close(b.cpu(), a)
            w = torch.ones(32, 32, device=device, requires_grad=True)
            (x.to(device) * w).sum().backward()
            assert w.grad is not None
            torch.testing.assert_close(w.grad.cpu(), x)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def case_learning_rate_schedule(device: str) -> None:
    def run(where: str) -> list[float]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1).to(where)
        optimizer = optim.AdamW(model.parameters(), 0.1)
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
        x = torch.linspace(0, 1, 32).view(8, 4).to(where)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return losses

    local, remote = run("cpu"), run(device)
    assert max(abs(a - b) for a, b in zip(local, remote, strict=True)) <= TOLERANCE
