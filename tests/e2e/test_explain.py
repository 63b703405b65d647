"""``xpool explain``: where a program waited, and what it would be elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pool import Pool
from xpool_perf.children import Children
from xpool_perf.far import start_far_pool
from xpool_perf.pool import own_environment

READS = 40
EXPLAIN = (sys.executable, "-m", "xpool", "explain")

PROGRAM = f"""\
import torch

weights = torch.zeros(1 << 20, device="cuda")
total = 0.0
for step in range({READS}):
    weights.add_(1)
    total += weights[0].item()  # the line that waits
chosen = torch.nonzero(weights > 0)
torch.cuda.synchronize()
print("total", total)
raise SystemExit(3)
"""

READ_LINE = 1 + PROGRAM.splitlines().index(
    "    total += weights[0].item()  # the line that waits"
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "reads.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def explain(
    pool: Pool, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(
        *arguments: str, registry: str = pool.registry
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*EXPLAIN, "--registry", registry, *arguments],
            env=pool.environment({"COLUMNS": "200"}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return run


def place(report: dict[str, Any], what: str) -> dict[str, Any]:
    [found] = [line for line in report["lines"] if line["what"] == what]
    return found


def test_the_json_names_lines_counts_bytes_and_other_distances(explain, script):
    done = explain("--json", str(script))
    assert done.returncode == 3, done.stderr  # as the program ended
    report = json.loads(done.stdout)
    assert "total 820.0" in done.stderr

    read = place(report, "read")
    assert (read["file"], read["line"]) == (str(script), READ_LINE)
    assert read["text"].startswith("total += weights[0].item()")
    assert (read["count"], read["nbytes"]) == (READS, 4 * READS)
    assert 0 < read["shortest_s"] <= read["seconds"] / READS
    assert place(report, "aten::nonzero")["count"] == 1
    assert place(report, "synchronize")["count"] == 1

    assert report["round_trips"] == READS + 2
    assert report["waited_s"] <= report["total_s"]
    assert report["sent_nbytes"] > 0
    projected = report["projected_s"]
    assert list(projected) == ["0.1", "1", "10", "30"]
    added = projected["30"] - projected["10"]
    assert added == pytest.approx(report["round_trips"] * 0.020, rel=1e-6)


def test_the_table_is_for_people_and_the_picture_too(explain, script, tmp_path):
    picture = tmp_path / "out.png"
    done = explain("--plot", str(picture), str(script))
    assert done.returncode == 3, done.stderr
    assert "total 820.0" in done.stdout
    [line] = [one for one in done.stdout.splitlines() if "reads.py:7" in one]
    assert line.split()[:3] == ["reads.py:7", "read", str(READS)]
    assert "the same run would take" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_program_that_is_killed_leaves_no_report(explain):
    done = explain("-c", "import os; os.kill(os.getpid(), 9)")
    assert done.returncode == 1
    assert "before it could say where it waited" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_that_cannot_be_written_is_said_before_anything_runs(explain):
    done = explain("--plot", "/no/such/folder/out.png", "-c", "print('ran')")
    assert done.returncode == 2
    assert "its folder does not exist" in done.stderr
    assert "ran" not in done.stdout


def test_the_projection_is_what_the_same_run_takes_there(explain, script, tmp_path):
    """Behind a real 30 ms, the run takes what explain says from close by."""
    near = json.loads(explain("--json", str(script)).stdout)
    with Children(lambda _name, _line: None) as children:
        far = start_far_pool(
            children, tmp_path, own_environment(1), one_way_ms=15, threads=1
        )
        done = explain("--json", str(script), registry=far.pool.registry)
        for child in far.children:
            children.end(child)
    there = json.loads(done.stdout)
    assert there["round_trips"] == near["round_trips"]
    assert there["round_trip_s"] >= 0.030
    gap = there["round_trips"] * (there["round_trip_s"] - near["round_trip_s"])
    # What is left is how much faster or slower the machine was this time.
    assert there["total_s"] - near["total_s"] == pytest.approx(gap, rel=0.5)
    assert there["total_s"] >= there["round_trips"] * 0.030
