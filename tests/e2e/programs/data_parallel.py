"""``nn.DataParallel`` and the functions beneath it."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn.parallel import comm, parallel_apply, replicate

warnings.simplefilter("error")


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))


def trained(model: nn.Module, place: str) -> list[float]:
    """Losses of six steps with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(1)
    losses = []
    for _ in range(6):
        x, labels = torch.randn(18, 6).to(place), torch.randint(3, (18,)).to(place)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def case_training_equals_one_device(device: str) -> None:
    both = trained(nn.DataParallel(small_net().to("cuda:0")), "cuda:0")
    one = trained(small_net().to("cuda:0"), "cuda:0")
    assert torch.allclose(torch.tensor(both), torch.tensor(one), atol=1e-5), (both, one)
    chosen = nn.DataParallel(small_net().to("cuda:1"), device_ids=[1, 0])
    turned = trained(chosen, "cuda:1")
    assert torch.allclose(torch.tensor(turned), torch.tensor(one), atol=1e-5)


def case_buffers_and_uneven_batches(device: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).to("cuda:0")
    model = nn.DataParallel(net)
    for count in (5, 1, 2):
        if count > 1:
            model.train()
            model(torch.randn(2 * count, 4)).sum().backward()
        model.eval()
        assert model(torch.randn(count, 4)).shape == (count, 4)
    assert net[1].num_batches_tracked.item() == 2
    assert model(torch.randn(3, 4, device="cuda:0")).device.index == 0


def case_nested_inputs(device: str) -> None:
    class Sum(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor], scale: float) -> object:
            return {"sum": (batch["x"] + batch["y"]) * scale}

    x = torch.arange(8.0).reshape(4, 2)
    out = nn.DataParallel(Sum().to("cuda:0"))({"x": x, "y": x}, 0.5)
    assert torch.equal(out["sum"].cpu(), x)


def case_the_functions_beneath(device: str) -> None:
    x = torch.arange(12.0).reshape(6, 2)
    pieces = comm.scatter(x, [0, 1], chunk_sizes=[2, 4])
    assert [piece.device.index for piece in pieces] == [0, 1]
    assert [len(piece) for piece in pieces] == [2, 4]
    assert torch.equal(comm.gather(pieces, destination=1).cpu(), x)
    assert torch.equal(comm.gather(pieces, destination="cpu"), x)
    copies = comm.broadcast(x.cuda(), [0, 1])
    assert [copy.device.index for copy in copies] == [0, 1]
    total = comm.reduce_add(copies, destination=1)
    assert torch.equal(total.cpu(), 2 * x)
    mixed = [torch.ones(3), torch.arange(4), torch.full((2, 2), 2.0)]
    sent = comm.broadcast_coalesced([one.cuda() for one in mixed], [0, 1], 8)
    for group, index in zip(sent, (0, 1), strict=True):
        for copy, original in zip(group, mixed, strict=True):
            assert copy.device.index == index
            assert copy.dtype == original.dtype
            assert torch.equal(copy.cpu(), original)
    summed = comm.reduce_add_coalesced(sent, destination=0)
    assert torch.equal(summed[2].cpu(), 2 * mixed[2])
    outs = [torch.empty(3, 2, device=f"cuda:{i}") for i in range(2)]
    comm.scatter(x, out=outs)
    assert torch.equal(comm.gather(outs, out=torch.empty(6, 2, device="cuda")).cpu(), x)


def case_replicas_in_threads(device: str) -> None:
    net = nn.Linear(3, 3).to("cuda:0")
    replicas = replicate(net, [0, 1])
    inputs = [torch.ones(2, 3, device=f"cuda:{i}") for i in range(2)]
    outputs = parallel_apply(replicas, [(x,) for x in inputs])
    assert [out.device.index for out in outputs] == [0, 1]
    assert torch.allclose(outputs[0].cpu(), outputs[1].cpu())
    (outputs[0].sum() + outputs[1].sum().to("cuda:0")).backward()
    assert torch.allclose(net.weight.grad.cpu(), torch.full((3, 3), 4.0))


def case_an_error_in_a_replica_is_the_programs(device: str) -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.device.index == 1:
                raise ValueError("only on the second device")
            return x

    try:
        nn.DataParallel(Wrong().to("cuda:0"))(torch.ones(4, 2))
    except ValueError as error:
        assert "only on the second device" in str(error)
        assert "replica 1 on device 1" in str(error)
    else:
        raise AssertionError("the error was lost")
