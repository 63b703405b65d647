"""Stands in for ``xpool.bootstrap``: takes the lease, runs the program, no torch.

The program finds ``lease``, ``pipe`` and ``open_session`` among its builtins.
"""

from __future__ import annotations

import builtins
import runpy
import sys
from pathlib import Path

from xpool.lease_pipe import LeasePipe
from xpool_protocol.errors import PoolError

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.door import Session


def main() -> None:
    arguments = sys.argv[1:]
    pipe = LeasePipe.from_environment()
    try:
        (lease, *_) = pipe.wait_for_leases(30)
    except PoolError as error:
        sys.exit(f"plain: {error}")
    given = {
        "lease": lease,
        "pipe": pipe,
        "open_session": lambda: Session(lease.address, lease.token),
    }
    vars(builtins).update(given)
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
