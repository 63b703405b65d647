"""A job of one operation: ``startup.py BEGAN_NS``; prints how long that took.

``BEGAN_NS`` is CLOCK_MONOTONIC, which all processes of one host share, at the moment
when the job's command was started.
"""

from __future__ import annotations

import json
import sys
import time

import torch


def main(began_ns: int) -> None:
    """Issue one operation, then read its result."""
    reached_ns = time.monotonic_ns()
    one = torch.ones(1, device="cuda")
    value = one.item()
    read_ns = time.monotonic_ns()
    if value != 1:
        raise ValueError(f"the first result is {value}, not 1")
    figures = {
        "first_op_s": (reached_ns - began_ns) / 1e9,
        "first_result_s": (read_ns - began_ns) / 1e9,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
