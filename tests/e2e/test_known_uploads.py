"""A tenant's second job with the same weights does not send them again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pool import Pool

PROGRAM = """
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(600, 700), torch.nn.Linear(700, 600))
expected = [(p.sum().item(), p[..., -3:].tolist()) for p in model.parameters()]
model.to("cuda")
found = [(p.cpu().sum().item(), p[..., -3:].tolist()) for p in model.parameters()]
assert found == expected
batch = torch.full((600, 600), 2.0)
assert batch.to("cuda").sum().item() == 720_000
"""

WEIGHTS_NBYTES = 2 * 600 * 700 * 4
BATCH_NBYTES = 600 * 600 * 4


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("known")
    with Pool(folder, ttl="5s") as pool:
        pool.start_registry()
        pool.start_server(
            "one",
            *("--threads", "1", "--devices", "cpu,memory=2GiB"),
            *("--upload-cache", "64MiB", "--upload-cache-folder", str(folder / "kept")),
            light=False,
        )
        yield pool


def known_nbytes(pool: Pool, path: Path, lane: str, tenant: str) -> int:
    script = path / "job.py"
    script.write_text(PROGRAM)
    statistics = path / "statistics.json"
    options = ("--registry", pool.registry, "--stats-json", str(statistics))
    ended = subprocess.run(
        [sys.executable, "-m", "xpool", "run", *options, str(script)],
        env=pool.environment({"XPOOL_LANE": lane, "XPOOL_TENANT": tenant}),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(statistics.read_text())["known_nbytes"])


def test_the_second_job_uploads_nothing(pool: Pool, tmp_path: Path) -> None:
    assert known_nbytes(pool, tmp_path, "tcp", "anna") == 0
    for _ in range(2):
        again = known_nbytes(pool, tmp_path, "tcp", "anna")
        assert again == WEIGHTS_NBYTES + BATCH_NBYTES
    assert known_nbytes(pool, tmp_path, "tcp", "bert") == 0
    # On one host a socket is as quick as a hash.
    assert known_nbytes(pool, tmp_path, "auto", "anna") == 0
