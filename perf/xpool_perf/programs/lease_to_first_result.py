"""From Acquire to the first result: ``lease_to_first_result.py REGISTRY``.

Plays ``xpool run`` for ``first_result.py``, with the product's own keeper, but asks
for the lease only when the other process has imported torch and waits for it.  Both
clocks are CLOCK_MONOTONIC, which all processes of one host share.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from xpool.config import JobSettings
from xpool.keeper import LeaseKeeper, client_text
from xpool.lease_pipe import LEASE_FD_VARIABLE

CHILD = Path(__file__).with_name("first_result.py")


def measure(keeper: LeaseKeeper, pid: int, output: IO[str]) -> dict[str, float]:
    """Milliseconds after Acquire was sent, of what happened since.

    Raises:
        PoolError: no lease.
        ValueError: the other process did not come to its end.
    """
    if output.readline() != "waiting\n":
        raise ValueError("the process that waits for the lease ended early")
    sent_ns = time.monotonic_ns()
    keeper.acquire(client_text(pid, CHILD.name))
    acquired_ns = time.monotonic_ns()
    keeper.keep()
    moments = json.loads(output.readline())
    return {
        "lease_acquired_ms": (acquired_ns - sent_ns) / 1e6,
        "lease_to_session_ms": (moments["installed_ns"] - sent_ns) / 1e6,
        "lease_to_first_result_ms": (moments["first_result_ns"] - sent_ns) / 1e6,
    }


def main(registry: str) -> int:
    """Measure once."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, str(CHILD)],
                env={**os.environ, LEASE_FD_VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                text=True,
            )
        # As under `xpool run`, gRPC is imported while the child imports torch.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import xpool_protocol.control.rpc  # noqa: F401

        settings = JobSettings(registry=registry, tenant="perf")
        keeper = LeaseKeeper(settings, ours, wants_statistics=False)
        assert child.stdout is not None
        try:
            figures = measure(keeper, child.pid, child.stdout)
            status = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            keeper.release()
    print(json.dumps(figures))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
