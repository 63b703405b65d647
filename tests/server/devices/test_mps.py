"""MPS beneath a slice: NVIDIA's control program is played by a real process."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from xpool_protocol.errors import PoolError, UsageError
from xpool_server.devices.mps import (
    MEMORY_VARIABLE,
    PIPE_VARIABLE,
    SHARE_VARIABLE,
    MpsControl,
    worker_environment,
)

RECORDER = """\
#!/bin/sh
# What the real one answers: nothing, and status 0; with -d a daemon stays behind.
{
  echo "argv=$*"
  echo "pipe=$CUDA_MPS_PIPE_DIRECTORY log=$CUDA_MPS_LOG_DIRECTORY"
  if [ "$1" = -d ]; then
    (trap 'exit 0' TERM; while [ -d "$CUDA_MPS_PIPE_DIRECTORY" ]; do sleep 0.05; done) &
  else
    sed 's/^/stdin=/'
  fi
} >> "$RECORD"
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


def program(folder: Path, text: str = RECORDER) -> str:
    path = folder / "nvidia-cuda-mps-control"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_daemon_starts_and_quits(tmp_path: Path, record: Path) -> None:
    with MpsControl(program(tmp_path)) as control:
        pipe = control.pipe
        assert pipe.is_dir()
        begun = record.read_text().splitlines()
        assert begun == ["argv=-d", f"pipe={pipe} log={pipe.with_name('log')}"]
        assert pipe.parent.stat().st_mode & 0o077 == 0
    assert not pipe.exists()
    assert record.read_text().splitlines()[2:] == [
        "argv=",
        f"pipe={pipe} log={pipe.with_name('log')}",
        "stdin=quit -t 5",
    ]


def test_no_driver_here() -> None:
    with (
        pytest.raises(UsageError, match="--cuda-sharing time"),
        MpsControl("no-such-program-here"),
    ):
        pytest.fail("it cannot have started")


def test_a_daemon_that_does_not_start(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho An instance of this daemon is already running; exit 1\n"
    with (
        pytest.raises(PoolError, match="status 1: An instance of this daemon"),
        MpsControl(program(tmp_path, text)),
    ):
        pytest.fail("it cannot have started")


def test_what_a_worker_is_told() -> None:
    told = worker_environment(Path("/run/mps/pipe"), 2, 25, (3 << 30) + 1)
    assert told == {
        PIPE_VARIABLE: "/run/mps/pipe",
        SHARE_VARIABLE: "25",
        MEMORY_VARIABLE: "2=3072M",
    }
    assert worker_environment(Path("/x"), 0, 1, 5)[MEMORY_VARIABLE] == "0=1M"
    assert os.environ.get(SHARE_VARIABLE) is None
