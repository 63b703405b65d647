"""Batches of a DataLoader, sent ahead, are never other than they are now."""

from __future__ import annotations

import json

import torch
import xpool
from torch.utils.data import DataLoader, Dataset

MIB = 1 << 20
BATCH = 4
STEPS = 12


class Pictures(Dataset[torch.Tensor]):
    """Each of half a mebibyte, so that a batch is two."""

    def __len__(self) -> int:
        return BATCH * STEPS

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.arange(MIB // 8, dtype=torch.float32) * (index + 1)


def loader(pin: bool = True) -> DataLoader[torch.Tensor]:
    return DataLoader(
        Pictures(), BATCH, num_workers=1, pin_memory=pin, prefetch_factor=3
    )


def library():
    return xpool.current_remote().library


def used() -> int:
    return library().ahead_counters()["used"]


def every_batch_is_what_it_was() -> int:
    before = used()
    for there, plain in zip(loader(), loader(pin=False), strict=True):
        moved = there.to("cuda", non_blocking=True)
        assert torch.equal(moved.cpu(), plain)
        assert torch.equal((moved * 2).cpu(), plain * 2)
    return used() - before


def a_batch_that_was_changed_comes_as_it_is_now() -> int:
    before = used()
    for turn, batch in enumerate(loader()):
        if turn == 1:
            batch.add_(1)
        elif turn == 2:
            batch.numpy()[3, 77] = -1.0  # torch cannot see this one
        assert torch.equal(batch.cuda().cpu(), batch)
    return used() - before


def a_batch_may_be_moved_twice_and_into_its_place() -> int:
    before = used()
    place = torch.zeros(BATCH, MIB // 8, device="cuda")
    for batch in loader():
        place.copy_(batch, non_blocking=True)
        assert torch.equal(place.cpu(), batch)
        assert torch.equal(batch.to("cuda", torch.float64).cpu(), batch.double())
        assert torch.equal(batch[1:3].cuda().cpu(), batch[1:3])
    return used() - before


def what_went_ahead_makes_room() -> None:
    for batch in loader():
        free, _ = torch.cuda.mem_get_info()
        filling = torch.empty(free + MIB, dtype=torch.uint8, device="cuda")
        del filling
        assert torch.equal(batch.cuda().cpu(), batch)
        break
    torch.cuda.synchronize()


def batches_that_stay_on_the_host_stop_it() -> int:
    before = library().ahead_counters()["sent"]
    for _ in range(6):
        for batch in loader():
            assert batch.is_pinned()
    return library().ahead_counters()["sent"] - before


if __name__ == "__main__":
    torch.zeros(2 * MIB, dtype=torch.uint8).cuda()  # opens the lane
    found = {
        "plain": every_batch_is_what_it_was(),
        "changed": a_batch_that_was_changed_comes_as_it_is_now(),
        "twice": a_batch_may_be_moved_twice_and_into_its_place(),
    }
    if found["plain"]:
        what_went_ahead_makes_room()
    found["unasked"] = batches_that_stay_on_the_host_stop_it()
    print(json.dumps(found))
