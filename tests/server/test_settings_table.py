"""``[server]`` of ``xpool.toml``: below flags and variables, and nothing unknown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from xpool.config import job_settings
from xpool_server.cli import server_app

TABLE = """
slice = "20%"

[server]
cuda_sharing = "mps"
quantum_ms = 5
starvation_ms = 250
accelerator = "npu"
accelerator_module = "torch_npu"
spares = 3
label = ["zone=b", "rack=7"]
"""


def settings(*arguments: str) -> dict[str, Any]:
    """What the command would work with."""
    command = typer.main.get_command(server_app)
    return command.make_context("server", list(arguments)).params


def test_the_table_is_below_flags_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings()["cuda_sharing"] == "time"
    (tmp_path / "xpool.toml").write_text(TABLE)
    found = settings()
    assert (found["cuda_sharing"], found["quantum_ms"]) == ("mps", 5.0)
    assert found["starvation_ms"] == 250
    assert (found["accelerator"], found["accelerator_module"]) == ("npu", ["torch_npu"])
    assert (found["spares"], found["label"]) == (3, ["zone=b", "rack=7"])
    monkeypatch.setenv("XPOOL_CUDA_SHARING", "time")
    assert settings("--spares", "2")["cuda_sharing"] == "time"
    assert settings("--spares", "2")["spares"] == 2
    assert job_settings({}, {}, tmp_path).share_percent == 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server]\ncuda_shoring = 'mps'\n", "sets 'cuda_shoring' in [server]"),
        ("[server]\ncuda_sharing = 'both'\n", "both"),
        ("[server]\nlabel = [[1]]\n", "sets label in [server] to [[1]]"),
        ("[server.devices]\nx = 1\n", "sets devices in [server]"),
        ("server = 3\n", "write a table [server]"),
        ("[server\n", "cannot read the settings"),
        ("[server]\ncuda_sharing = 'mps'\ndevices = 'cpu'\n", "--cuda-sharing mps"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "xpool.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "xpool_server"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert says in done.stderr
