"""What a program does with ``torch.distributed``, as one rank of two.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… xpool run collectives.py

Prints ``PASSED NAME`` for each part; the first error ends it, as in any such program.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

warnings.simplefilter("error")
warnings.simplefilter("ignore", FutureWarning)  # names that torch has changed
DEVICE = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def filled(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape or (3,), value, device=DEVICE)


def part_names(rank: int, size: int) -> None:
    assert dist.is_nccl_available()
    assert dist.get_backend() == os.environ.get("BACKEND", "nccl")
    assert (dist.get_rank(), dist.get_world_size()) == (rank, size) == (rank, 2)


def part_collectives(rank: int, size: int) -> None:
    x = filled(rank + 1.0)
    dist.all_reduce(x)
    assert x.tolist() == [3, 3, 3]
    x = filled(rank + 1.0)
    dist.all_reduce(x, op=dist.ReduceOp.MAX)
    assert x.tolist() == [2, 2, 2]
    x = filled(float(rank))
    dist.broadcast(x, src=1)
    assert x.tolist() == [1, 1, 1]
    outs = [filled(9.0) for _ in range(size)]
    dist.all_gather(outs, filled(float(rank)))
    assert [out[0].item() for out in outs] == [0, 1]
    whole = filled(9.0, 4)
    dist.all_gather_into_tensor(whole, filled(float(rank), 2))
    assert whole.tolist() == [0, 0, 1, 1]
    part = filled(9.0, 2)
    dist.reduce_scatter_tensor(part, torch.arange(4.0, device=DEVICE))
    assert part.tolist() == [[0, 2], [4, 6]][rank]
    outs = [filled(0.0) for _ in range(size)]
    dist.all_to_all(outs, [filled(10.0 * rank + i) for i in range(size)])
    assert [out[0].item() for out in outs] == [rank, 10 + rank]
    gathered = [filled(0.0) for _ in range(size)] if rank == 0 else None
    dist.gather(filled(rank + 5.0), gathered, dst=0)
    if gathered:
        assert [out[0].item() for out in gathered] == [5, 6]
    part = filled(0.0)
    pieces = [filled(7.0), filled(8.0)] if rank == 0 else None
    dist.scatter(part, pieces, src=0)
    assert part[0].item() == 7 + rank


def part_asynchronous(rank: int, size: int) -> None:
    x = filled(1.0)
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    assert work.is_completed()
    assert (x * 2).tolist() == [4, 4, 4]
    work = dist.all_reduce(x, async_op=True)
    (value,) = work.get_future().wait()
    assert value.tolist() == [4, 4, 4]


def part_point_to_point(rank: int, size: int) -> None:
    got = filled(0.0)
    if rank == 0:
        dist.send(filled(4.0), dst=1)
        dist.recv(got, src=1, tag=3)
    else:
        dist.recv(got, src=0)
        dist.send(got + 1, dst=0, tag=3)
    assert got[0].item() == 5 - rank
    mine, theirs = filled(float(rank), 50_000), filled(9.0, 50_000)
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, mine, 1 - rank),
            dist.P2POp(dist.irecv, theirs, 1 - rank),
        ]
    )
    for work in works:
        work.wait()
    assert theirs[0].item() == 1 - rank


def part_objects_and_barriers(rank: int, size: int) -> None:
    objects: list[object] = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": 0}, {"rank": 1}]
    shared = [f"from {rank}"]
    dist.broadcast_object_list(shared, src=1)
    assert shared == ["from 1"]
    dist.barrier()
    host = torch.ones(2)
    dist.all_reduce(host)
    assert host.tolist() == [2, 2]


def part_subgroups(rank: int, size: int) -> None:
    alone = [dist.new_group([one]) for one in range(size)]
    x = filled(float(rank))
    dist.all_reduce(x, group=alone[rank])
    assert x[0].item() == rank
    everyone = dist.new_group([0, 1], backend="gloo")
    dist.all_reduce(x, group=everyone)
    assert x[0].item() == 1


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 16), nn.Linear(16, 3)
    )


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(5)]


def alone() -> list[float]:
    """The losses of one process on the whole batches, on its own CPU."""
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for x, labels in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def together(rank: int, size: int, **options: object) -> list[float]:
    """The same, by DDP on a share of each batch."""
    # Ranks that begin otherwise get rank 0's parameters.
    model = small_net().to(DEVICE)
    if rank:
        for parameter in model.parameters():
            parameter.data.zero_()
    place = torch.device(DEVICE).index
    ddp = DistributedDataParallel(model, device_ids=[place], **options)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=1e-2)
    losses = []
    for x, labels in batches():
        mine, wanted = (
            x.chunk(size)[rank].to(DEVICE),
            labels.chunk(size)[rank].to(DEVICE),
        )
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(ddp(mine), wanted)
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean, op=dist.ReduceOp.AVG)
        losses.append(mean.item())
    return losses


def part_ddp_equals_one_process(rank: int, size: int) -> None:
    wanted = torch.tensor(alone())
    for options in (
        {},
        {"gradient_as_bucket_view": True},
        {"bucket_cap_mb": 0.0005, "static_graph": True},
        {"find_unused_parameters": False, "broadcast_buffers": False},
    ):
        got = torch.tensor(together(rank, size, **options))
        assert torch.allclose(got, wanted, atol=1e-5), (options, got, wanted)


def part_ddp_accumulates(rank: int, size: int) -> None:
    model = DistributedDataParallel(small_net().to(DEVICE))
    halves = [torch.randn(4, 6, device=DEVICE) for _ in range(2)]
    with model.no_sync():
        model(halves[0]).square().mean().backward()
    model(halves[1]).square().mean().backward()
    sums = [p.grad.sum() for p in model.parameters()]
    for one in sums:
        both = [torch.zeros_like(one) for _ in range(size)]
        dist.all_gather(both, one)
        assert both[0].item() == both[1].item(), "the ranks' gradients agree"


def part_unused_parameters(rank: int, size: int) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, left: bool) -> torch.Tensor:
            return (self.left if left else self.right)(x)

    model = Branches().to(DEVICE)
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    ddp(torch.ones(1, 2, device=DEVICE), left=rank == 0).sum().backward()
    assert model.left.weight.grad.tolist() == [[0.5, 0.5]]
    assert model.right.weight.grad.tolist() == [[0.5, 0.5]]


PARTS: dict[str, Callable[[int, int], None]] = {
    name.removeprefix("part_"): part
    for name, part in list(globals().items())
    if name.startswith("part_")
}


def main() -> None:
    torch.cuda.set_device(DEVICE)
    dist.init_process_group(os.environ.get("BACKEND", "nccl"))
    rank, size = dist.get_rank(), dist.get_world_size()
    for name, part in PARTS.items():
        part(rank, size)
        # One write: ranks share the pipe, and print() may send the line's end apart.
        sys.stdout.write(f"PASSED {name}\n")
        sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
