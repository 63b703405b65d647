"""MPS beneath slices: NVIDIA's own daemon, two tenants at once, nothing left behind."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.pool import Member, Pool
from support.waiting import eventually
from xpool_server.devices.mps import CONTROL, PIPE_VARIABLE, MpsControl

TENANT = """
import sys, torch
torch.manual_seed(1)
print("processors", torch.cuda.get_device_properties(0).multi_processor_count)
a = torch.rand(1024, 1024, device="cuda")
expected = (a.cpu().double() @ a.cpu().double()).sum().item()
for i in range(10**6):
    got = sum((a @ a).double().sum().item() for _ in range(20)) / 20
    assert abs(got / expected - 1) < 1e-3, (got, expected)
    print("computed", i, flush=True)
"""
SHARES = {"small": 25, "large": 60}
RUN_S = 120.0

pytestmark = pytest.mark.skipif(
    shutil.which(CONTROL) is None,
    reason=f"{CONTROL} is not here: it comes with NVIDIA's driver",
)


@pytest.fixture
def mps_pool(tmp_path: Path) -> Iterator[Pool]:
    """Leaving it fails if a process is left: the daemon has the pool's mark, too."""
    with Pool(tmp_path, ttl="15s") as pool:
        pool.start_registry()
        options = ("--threads", "1", "--devices", "cuda:0", "--cuda-sharing", "mps")
        pool.start_server("one", *options, light=False)
        yield pool


def run_tenant(pool: Pool, name: str, share: int) -> Member:
    command = [sys.executable, "-m", "xpool", "run", "--registry", pool.registry]
    command += ["--slice", f"{share}%", "--memory", "8GiB", "-c", TENANT]
    return pool.start(name, command)


def computed(member: Member) -> int:
    assert member.process.poll() is None, member.logged()
    return member.said().count("computed")


def daemons(pipe: Path | None = None) -> list[psutil.Process]:
    """Living processes of MPS: with this pipe folder; None: with any."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            folder = one.environ().get(PIPE_VARIABLE)
            is_control = one.name().startswith(CONTROL[:15])
            if is_control and one.status() != psutil.STATUS_ZOMBIE:
                found += [one] if pipe is None or folder == str(pipe) else []
    return found


def pipe_of(pool: Pool) -> Path:
    """Of the one daemon that belongs to a pool."""
    mine = {one.pid for one in pool.processes()}
    (pipe,) = {one.environ()[PIPE_VARIABLE] for one in daemons() if one.pid in mine}
    return Path(pipe)


def test_two_tenants_compute_at_once_each_on_its_part(mps_pool: Pool) -> None:
    pipe = pipe_of(mps_pool)
    assert pipe.is_dir()
    tenants = {
        name: run_tenant(mps_pool, name, share) for name, share in SHARES.items()
    }
    for member in tenants.values():
        eventually(lambda one=member: computed(one) > 0, "a first result", RUN_S)
    before = {name: computed(one) for name, one in tenants.items()}
    for name, member in tenants.items():
        eventually(
            lambda one=member, count=before[name]: computed(one) > count + 5,
            "results of both at the same time",
            RUN_S,
        )
    leases = {one.lease.share_percent: one for one in mps_pool.leases()}
    assert set(leases) == set(SHARES.values())
    seen = {
        name: int(re.findall(r"processors (\d+)", one.said())[0])
        for name, one in tenants.items()
    }
    assert seen["small"] < seen["large"], seen
    assert abs(seen["small"] / seen["large"] / (25 / 60) - 1) < 0.15, seen

    for member in tenants.values():
        member.process.terminate()
        member.process.wait(30)
    eventually(lambda: not mps_pool.leases(), "the leases to end", 30)
    server = mps_pool.members["one"].process
    server.terminate()
    assert server.wait(60) == 0, mps_pool.members["one"].logged()
    eventually(lambda: not daemons(pipe), "the daemon's end", 30)
    assert not pipe.exists()


def test_the_daemon_alone_starts_and_ends() -> None:
    with MpsControl() as control:
        folder = control.pipe.parent
        assert daemons(control.pipe)
        assert folder.stat().st_mode & 0o077 == 0
    eventually(lambda: not daemons(control.pipe), "the daemon's end", 30)
    assert not folder.exists()
