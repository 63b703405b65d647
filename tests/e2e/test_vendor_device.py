"""An accelerator that a vendor's extension brings to torch, served by its name.

``support/abacus`` is such an extension: C++ kernels, an allocator, streams and events
under PrivateUse1, with everything else computed by torch's fallback. It knows nothing
of xpool, and xpool nothing of it: the operator names it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.abacus.abacus_build import LIBRARY
from support.jobs import Job, used_ns
from support.pool import Pool
from support.waiting import eventually
from xpool_protocol.native_build import compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler"),
]
ABACUS = Path(__file__).parents[1] / "support" / "abacus"
PROGRAM = Path(__file__).parent / "programs" / "vendor_job.py"
KERNEL_NS = 500_000
"""As ``abacus.cpp`` says: what each kernel takes of the device."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with (
        Pool(tmp_path_factory.mktemp("vendor"), ttl="5s") as pool,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PYTHONPATH", str(ABACUS))
        patch.setenv("ABACUS_QUEUES", str(pool.folder / "queues"))
        LIBRARY.build()  # now: a server's start is waited for a minute only
        pool.start_registry()
        pool.start_server(
            *("one", "--accelerator", "abacus", "--devices", "abacus:1"),
            *("--accelerator-module", "abacus_for_torch", "--threads", "1"),
            light=False,
        )
        yield pool


def ran(pool: Pool, *command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "xpool", *command],
        env=pool.environment({"XPOOL_REGISTRY": pool.registry}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr + pool.members["one"].logged()
    return run.stdout


def top(pool: Pool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(
        ran(pool, "admin", "top", "--once", "--json", "--registry", pool.registry)
    )
    return rows


def test_it_is_offered_as_the_vendor_describes_it(pool: Pool) -> None:
    (device,) = json.loads(
        ran(pool, "admin", "devices", "--json", "--registry", pool.registry)
    )
    assert (device["kind"], device["name"]) == ("abacus", "Abacus 910")
    assert device["memory_nbytes"] == 256 << 20


def test_a_training_job_runs_within_its_quota(pool: Pool) -> None:
    """Its losses are those of plain torch on this machine; its quota is 16 MiB."""
    quota = ("--slice", "60%", "--memory", "16MiB")
    report = json.loads(ran(pool, "run", *quota, str(PROGRAM)).splitlines()[-1])
    assert "Abacus 910" in report["name"]
    local = subprocess.run(
        [sys.executable, "-c", LOCAL.format(program=str(PROGRAM))],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert report["losses"] == pytest.approx(json.loads(local.stdout), abs=1e-5)
    first, second, third = report["draws"]
    assert first == second == third
    assert 1300 < first < 1700
    assert report["sorted"] == [1, 2, 3]
    assert report["half"] == [0.25] * 4
    count, why = report["filled"]
    assert 8 <= count <= 16
    assert "its quota is 16777216 bytes" in why


LOCAL = """
import ast, json, torch
source = open({program!r}).read().replace('"cuda"', '"cpu"')
tree = ast.parse(source)
tree.body = [one for one in tree.body if isinstance(one, ast.FunctionDef)]
exec(compile(tree, "job", "exec"))
print(json.dumps(losses()))
"""


def test_time_is_the_devices_own(pool: Pool) -> None:
    """Measured by the vendor's events: so much for each kernel, whatever ours takes."""
    small = ("--memory", "16MiB", "--slice", "50%")
    with Job(pool, "compute", *small) as job:
        job.await_line("computed")
        first = eventually(lambda: job.info.session.device_ns and job.info, "its use")
        job.await_line("computed", len(job.lines()) + 5)

        def grown() -> bool:
            now = job.info.session
            return now.executed_ops >= first.session.executed_ops + 500

        eventually(grown, "five hundred operations", 60)
        now = job.info.session
        operations = now.executed_ops - first.session.executed_ops
        used_ns = now.device_ns - first.session.device_ns
        assert used_ns > 0.8 * operations * KERNEL_NS
        (row,) = [
            one for one in top(pool) if one["lease_id"] == job.info.lease.lease_id
        ]
        assert row["promised_percent"] == 50
        assert isinstance(row["got_percent"], float)
        assert 10 < row["got_percent"] <= 100
        assert row["device"] == "one/0"


def test_two_tenants_have_their_shares_of_it(pool: Pool) -> None:
    small = ("--memory", "16MiB")
    with (
        Job(pool, "quick", "--slice", "70%", *small),
        Job(pool, "quick", "--slice", "30%", *small),
    ):
        before = eventually(
            lambda: all(now := used_ns(pool, 70, 30)) and now, "both at work", 90
        )

        def spent() -> list[int]:
            return [
                now - was
                for now, was in zip(used_ns(pool, 70, 30), before, strict=True)
            ]

        got = eventually(
            lambda: sum(spent()) > 5_000_000_000 and spent(), "five seconds of it", 90
        )
        assert abs(100 * got[0] / sum(got) - 70) < 5
