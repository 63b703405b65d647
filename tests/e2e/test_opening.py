"""A session opens while the process imports its framework."""

from __future__ import annotations

import subprocess
import sys

from support.pool import Pool
from support.waiting import eventually

OPENS = """
import os, sys
from pathlib import Path
from xpool.config import job_settings
from xpool.keeper import start_keeper
from xpool.torch.install import Reaching

reaching = Reaching(start_keeper(job_settings({}, os.environ, Path.cwd())))
try:
    (one,) = reaching.result()
except Exception as error:
    print(type(error).__name__, error)
else:
    print(one.welcome.server, one.welcome.framework.split()[0])
    one.link.close()
print("torch" in sys.modules)
"""


def opened(pool: Pool, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPENS],
        env=pool.environment({"XPOOL_REGISTRY": pool.registry, **env}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_framework_is_needed_to_open(pool: Pool) -> None:
    ended = opened(pool)
    assert ended.stdout == "one torch\nFalse\n", ended.stderr
    eventually(lambda: not pool.leases(), "the lease is released", 15)


def test_why_it_did_not_open_is_told_where_it_is_waited_for(pool: Pool) -> None:
    ended = opened(pool, XPOOL_SLICE="100%", XPOOL_MEMORY="100GiB")
    kind, _, text = ended.stdout.partition(" ")
    assert kind == "NoCapacity", ended
    assert "100 GiB" in text
    assert text.endswith("\nFalse\n")
