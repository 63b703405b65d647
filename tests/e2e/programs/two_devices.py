"""What a program does with ``cuda:0`` and ``cuda:1``."""

from __future__ import annotations

import threading

import torch
from torch import nn

BOTH = ("cuda:0", "cuda:1")


def refused(words: str, *calls: object) -> None:
    for call in calls:
        try:
            call()  # type: ignore[operator]
        except RuntimeError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"{call} was not refused")


def case_presence(device: str) -> None:
    assert torch.cuda.device_count() == 2
    assert torch.cuda.current_device() == 0
    for name in BOTH:
        assert torch.cuda.get_device_name(name).startswith("xpool ")
        assert torch.zeros(2, device=name).device == torch.device(name)
    uuids = {torch.cuda.get_device_properties(i).uuid for i in range(2)}
    assert len(uuids) == 2
    assert torch.cuda.can_device_access_peer(0, 1)
    refused(
        "invalid device ordinal",
        lambda: torch.zeros(1, device="cuda:2"),
        lambda: torch.cuda.set_device(2),
        lambda: torch.cuda.get_device_properties(2),
    )


def case_the_current_device(device: str) -> None:
    with torch.cuda.device(1):
        assert torch.cuda.current_device() == 1
        assert torch.zeros(1, device="cuda").device.index == 1
        assert torch.zeros(1).cuda().device.index == 1
        assert torch.Generator(device="cuda").device.index == 1
    assert torch.cuda.current_device() == 0
    torch.cuda.set_device("cuda:1")
    try:
        assert torch.ones(1, device="cuda").device.index == 1
        seen: list[int] = []
        thread = threading.Thread(
            target=lambda: seen.append(torch.cuda.current_device())
        )
        thread.start()
        thread.join()
        assert seen == [0], "a thread begins on the first device"
    finally:
        torch.cuda.set_device(0)
    x = torch.ones(3, device="cuda:1")
    assert torch.zeros_like(x).device == x.device
    assert x.new_zeros(2).device == x.device
    with torch.cuda.device_of(x):
        assert torch.cuda.current_device() == 1


def case_mixed_arguments_are_refused(device: str) -> None:
    x, y = (torch.ones(3, device=name) for name in BOTH)
    refused(
        "Expected all tensors to be on the same device",
        lambda: x + y,
        lambda: x.add_(y),
        lambda: torch.cat([x, y]),
        lambda: torch.mm(x[None], y[:, None]),
        lambda: nn.functional.linear(x[None], y[None]),
        lambda: torch._foreach_add([x], [y]),
    )
    wanted = torch.Generator(device="cuda:1")
    refused("cuda:1", lambda: torch.empty(2, device="cuda:0").normal_(generator=wanted))
    assert (x + 1).sum().item() == 6, "nothing is harmed"
    assert (y + 1).sum().item() == 6


def case_copies(device: str) -> None:
    host = torch.randn(33, 7)
    x = host.to("cuda:0")
    y = x.to("cuda:1")
    assert y.device.index == 1
    assert torch.equal(y.cpu(), host)
    assert torch.equal(x.t().to("cuda:1").cpu(), host.t())
    assert torch.equal(x[:, ::2].to("cuda:1").cpu(), host[:, ::2])
    assert torch.equal(x.to("cuda:1", torch.float64).cpu(), host.double())
    target = torch.zeros(7, 33, device="cuda:1", dtype=torch.float64)
    target.t().copy_(x)
    assert torch.equal(target.cpu(), host.double().t())
    target.copy_(x[0, :, None])
    assert torch.equal(target.cpu(), host[0, :, None].double().expand(7, 33))
    wave = torch.randn(5, dtype=torch.complex64)
    assert torch.equal(wave.to("cuda:0").conj().to("cuda:1").cpu(), wave.conj())
    assert torch.empty(0, 3, device="cuda:0").to("cuda:1").shape == (0, 3)
    number = torch.tensor(2.5, device="cuda:0").to("cuda:1")
    assert number.item() == 2.5


def case_a_copy_is_of_that_moment(device: str) -> None:
    x = torch.zeros(1000, device="cuda:0")
    copies = []
    for i in range(20):
        x.fill_(i)
        copies.append(x.to("cuda:1"))
    x.fill_(-1)
    assert [copy.sum().item() for copy in copies] == [1000.0 * i for i in range(20)]


def case_devices_that_send_to_each_other(device: str) -> None:
    host = torch.randn(300_000)
    x, y = host.to("cuda:0"), (2 * host).to("cuda:1")
    for _ in range(4):
        x, y = y.to("cuda:0") + 1, x.to("cuda:1") + 1
    assert torch.allclose(x.cpu(), host + 4)
    assert torch.allclose(y.cpu(), 2 * host + 4)


def case_gradients_cross(device: str) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 2)
    x = torch.randn(16, 8)
    loss = second(first(x).relu()).square().mean()
    wanted = torch.autograd.grad(loss, [first.weight, second.weight])
    first, second = first.to("cuda:0"), second.to("cuda:1")
    hidden = first(x.to("cuda:0")).relu()
    loss = second(hidden.to("cuda:1")).square().mean()
    loss.backward()
    for layer, gradient in zip((first, second), wanted, strict=True):
        assert layer.weight.grad.device == layer.weight.device
        assert torch.allclose(layer.weight.grad.cpu(), gradient, atol=1e-6)


def case_a_pipeline_trains_as_one_device(device: str) -> None:
    def model() -> list[nn.Module]:
        torch.manual_seed(3)
        parts = [nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Linear(32, 3)]
        return [nn.Sequential(*parts[:2]), nn.Sequential(*parts[2:])]

    def losses(places: list[str]) -> list[float]:
        parts = [part.to(place) for part, place in zip(model(), places, strict=True)]
        parameters = [p for part in parts for p in part.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        found = []
        torch.manual_seed(4)
        for _ in range(5):
            x, labels = torch.randn(32, 6), torch.randint(3, (32,))
            optimizer.zero_grad()
            total = 0.0
            for piece, wanted in zip(x.chunk(4), labels.chunk(4), strict=True):
                hidden = parts[0](piece.to(places[0])).to(places[1])
                loss = nn.functional.cross_entropy(
                    parts[1](hidden), wanted.to(places[1])
                )
                (loss / 4).backward()
                total += loss.item()
            optimizer.step()
            found.append(total)
        return found

    both, one = losses(["cuda:0", "cuda:1"]), losses(["cpu", "cpu"])
    assert torch.allclose(torch.tensor(both), torch.tensor(one), atol=1e-4)


def case_memory_is_counted_apart(device: str) -> None:
    before = [torch.cuda.memory_allocated(i) for i in range(2)]
    x = torch.empty(1 << 20, dtype=torch.uint8, device="cuda:1")
    assert torch.cuda.memory_allocated(1) - before[1] == 1 << 20
    assert torch.cuda.memory_allocated(0) == before[0]
    torch.cuda.reset_peak_memory_stats(0)
    del x
    assert torch.cuda.max_memory_allocated(1) >= before[1] + (1 << 20)
    assert torch.cuda.max_memory_allocated(0) == before[0]
    free, total = torch.cuda.mem_get_info(1)
    try:
        torch.empty(free + 1024, dtype=torch.uint8, device="cuda:1")
    except torch.OutOfMemoryError:
        pass
    else:
        raise AssertionError(f"more than {total} bytes were to be had")
    assert torch.cuda.mem_get_info("cuda:0")[1] == total


def case_random_numbers(device: str) -> None:
    torch.manual_seed(5)
    x, y = (torch.rand(4, device=name).cpu() for name in BOTH)
    assert torch.equal(x, y), "each device has the seed"
    torch.cuda.manual_seed(6)
    assert torch.cuda.initial_seed() == 6
    states = torch.cuda.get_rng_state_all()
    assert len(states) == 2
    first = [torch.rand(4, device=name).cpu() for name in BOTH]
    assert not torch.equal(first[0], first[1])
    torch.cuda.set_rng_state_all(states)
    again = [torch.rand(4, device=name).cpu() for name in BOTH]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with torch.cuda.device(1):
        torch.cuda.manual_seed(7)
    assert torch.equal(torch.cuda.get_rng_state(0), torch.cuda.get_rng_state("cuda:0"))


def case_streams_and_events(device: str) -> None:
    stream = torch.cuda.Stream(device=1)
    assert stream.device == torch.device("cuda:1")
    with torch.cuda.stream(stream):
        assert torch.cuda.current_device() == 1
        assert torch.cuda.current_stream() == stream
        x = torch.ones(4, device="cuda") * 2
        event = stream.record_event()
    assert torch.cuda.current_device() == 0
    assert torch.cuda.current_stream(1) != stream
    torch.cuda.current_stream(0).wait_event(event)
    event.synchronize()
    assert event.query()
    assert event.device == torch.device("cuda:1")
    torch.cuda.synchronize(1)
    assert x.sum().item() == 8


def case_saved_tensors_come_back_to_their_device(device: str) -> None:
    import io

    kept = io.BytesIO()
    torch.save({"x": torch.arange(3.0, device="cuda:1")}, kept)
    kept.seek(0)
    assert torch.load(kept)["x"].device == torch.device("cuda:1")
    kept.seek(0)
    moved = torch.load(kept, map_location={"cuda:1": "cuda:0"})["x"]
    assert moved.device == torch.device("cuda:0")
    assert moved.tolist() == [0, 1, 2]


def case_threads_on_two_devices(device: str) -> None:
    sums: dict[str, float] = {}

    def work(name: str) -> None:
        x = torch.zeros(64, device=name)
        for _ in range(50):
            x = x + torch.ones(64, device=name)
        sums[name] = x.sum().item()

    threads = [threading.Thread(target=work, args=(name,)) for name in BOTH]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == dict.fromkeys(BOTH, 50.0 * 64)


def case_a_captured_graph_is_one_devices(device: str) -> None:
    here, there = torch.ones(3, device="cuda:0"), torch.zeros(3, device="cuda:1")
    for copy in (
        lambda: there.copy_(here),
        lambda: here.to("cuda:1"),
        lambda: here.copy_(there),
    ):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.capture_begin()
            refused("operation not permitted when stream is capturing", copy)
            refused("previous error during capture", graph.capture_end)
    assert there.copy_(here).tolist() == [1.0] * 3
