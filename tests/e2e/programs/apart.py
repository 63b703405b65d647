"""A comparison whose local side is a process of its own, as with a CUDA device."""

from __future__ import annotations

import json
import os

import torch
from xpool_perf.programs.alternating import alternate_sides, samples_of
from xpool_perf.programs.local_side import (
    is_local_side,
    local_side,
    remote_side,
    serve,
)


def where() -> list[object]:
    """What the local side sees of this host's devices, and of the pool."""
    return [
        torch.ones(3).sum().item(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        sorted(name for name in os.environ if name.startswith("XPOOL_")),
    ]


def fail() -> None:
    raise ZeroDivisionError


BLOCKS = {"where": where, "fail": fail}


def main() -> None:
    remote = remote_side(lambda: torch.ones(3, device="cuda").sum().item(), "cpu")
    with local_side("cpu", lambda: BLOCKS, is_apart=True) as local:
        theirs, ours = alternate_sides(remote, local.side("where"), 3, 1)
        try:
            local.side("fail")()
        except EOFError as error:
            said = str(error)
    samples = samples_of(theirs, ours, 1)
    print(json.dumps([theirs[0].result, ours[0].result, said, samples]))


if __name__ == "__main__":
    if is_local_side():
        serve(BLOCKS, "cpu")
    else:
        main()
