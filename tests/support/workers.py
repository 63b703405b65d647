"""Which worker process of a pool serves a program."""

from __future__ import annotations

import psutil
from support.pool import Pool


def worker_serving(pool: Pool, program: psutil.Process, server: str) -> int:
    """The worker of a server whose listening port a program is connected to."""
    peers = {c.raddr for c in program.net_connections() if c.raddr}
    for pid in pool.workers(server):
        listening = (
            c.laddr
            for c in psutil.Process(pid).net_connections()
            if c.status == psutil.CONN_LISTEN
        )
        if any(one in peers for one in listening):
            return pid
    raise AssertionError(f"no worker of {server} serves the program")
