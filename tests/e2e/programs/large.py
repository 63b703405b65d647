"""Large tensors there and back: over the bulk lane, or without it."""

from __future__ import annotations

import json
import sys
import threading

import torch
import xpool

MIB = 1 << 20


def bytes_like(nbytes: int, start: int) -> torch.Tensor:
    """Bytes that no other part of the stream has at this place."""
    return (torch.arange(nbytes, dtype=torch.int64) * 7919 + start).to(torch.uint8)


def round_trips() -> None:
    for nbytes in (MIB - 1, MIB, 5 * MIB + 3):
        there = bytes_like(nbytes, nbytes).to("cuda")
        assert torch.equal(there.cpu(), bytes_like(nbytes, nbytes))


def views_and_dtypes() -> None:
    whole = torch.zeros(3 * MIB, dtype=torch.uint8, device="cuda")
    part = bytes_like(2 * MIB, 5)
    whole[MIB // 2 : MIB // 2 + 2 * MIB].copy_(part)
    back = whole.cpu()
    assert torch.equal(back[MIB // 2 : MIB // 2 + 2 * MIB], part)
    assert int(back[: MIB // 2].sum()) == 0
    matrix = torch.randn(700, 900)
    there = matrix.t().to("cuda", torch.float64)
    assert torch.equal(there.cpu(), matrix.t().double())
    assert torch.equal(there.t().float().cpu(), matrix)


def the_host_tensor_is_free_again() -> None:
    host = bytes_like(4 * MIB, 1)
    there = host.to("cuda", non_blocking=True)
    host.zero_()
    assert torch.equal(there.cpu(), bytes_like(4 * MIB, 1))


def order_with_operations() -> None:
    there = torch.zeros(2 * MIB, dtype=torch.uint8, device="cuda")
    total = 0
    for step in range(4):
        there.copy_(torch.full((2 * MIB,), step + 1, dtype=torch.uint8))
        total += int((there + 1).sum(dtype=torch.int64).item())
        there.fill_(9)
    assert total == sum((step + 2) * 2 * MIB for step in range(4))


def threads_at_once() -> None:
    failures = []

    def work(number: int) -> None:
        try:
            for turn in range(3):
                data = bytes_like(3 * MIB + number, number + turn)
                assert torch.equal(data.to("cuda").cpu(), data)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def a_poisoned_tensor_says_its_own_error() -> None:
    index = torch.full((MIB,), 10, device="cuda")
    spoiled = torch.zeros(4, device="cuda")[index]
    try:
        spoiled.cpu()
    except IndexError as error:
        assert "index" in str(error)
    else:
        raise AssertionError("the poisoned tensor could be read")
    round_trips()  # and the lane goes on


def main() -> None:
    for case in (
        round_trips,
        views_and_dtypes,
        the_host_tensor_is_free_again,
        order_with_operations,
        threads_at_once,
        a_poisoned_tensor_says_its_own_error,
    ):
        case()
    print(json.dumps(xpool.current_remote().library.lane_counters()))


if __name__ == "__main__":
    sys.exit(main())
