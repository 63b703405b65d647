"""What torch's launcher is told, and what its ranks see."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from xpool.config import JobSettings, job_settings
from xpool.launched import environment_of, launcher_arguments, own_host


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (["torchrun", "a.py"], ["-m", "torch.distributed.run", "a.py"]),
        (
            ["-m", "torch.distributed.run", "--nnodes", "1", "a.py"],
            ["-m", "torch.distributed.run", "--nnodes", "1", "a.py"],
        ),
        (["-m", "torch.distributed.launch"], ["-m", "torch.distributed.launch"]),
        (["a.py", "torchrun"], None),
        (["-m", "torch.distributed.runner"], None),
        (["-c", "torchrun"], None),
        (["-m"], None),
        ([], None),
    ],
)
def test_launchers_are_known(program: list[str], arguments: list[str] | None) -> None:
    assert launcher_arguments(program) == arguments


def test_a_script_of_that_name_is_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torchrun").write_text("print('mine')")
    assert launcher_arguments(["torchrun"]) is None


def test_ranks_resolve_the_same_settings(tmp_path: Path) -> None:
    settings = JobSettings(
        registry="127.0.0.1:7",
        share_percent=30,
        memory_nbytes=123_456_789,
        device_count=2,
        mode="capped",
        tenant="ada",
        priority="low",
        wait_ms=90_000,
        limit_ms=60_500,
        place="pack",
        same_server=True,
        wanted={"memory": "1024", "label.zone": "b"},
    )
    found = job_settings({}, environment_of(settings), tmp_path)
    assert found.device_count == 1
    assert (found.share_percent, found.memory_nbytes) == (30, 123_456_789)
    assert (found.mode, found.tenant, found.registry) == (
        "capped",
        "ada",
        "127.0.0.1:7",
    )
    assert found == dataclasses.replace(settings, device_count=1)
    plain = JobSettings(registry="127.0.0.1:7", tenant="ada")
    assert job_settings({}, environment_of(plain), tmp_path) == plain


def test_a_rank_stands_on_a_host_of_its_own() -> None:
    rank = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert own_host(rank) == {
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": "3",
        "GROUP_WORLD_SIZE": "4",
    }
