"""NVIDIA's Multi-Process Service as what keeps slices apart, beneath the arbiter.

With it the workers of a GPU run at the same time, each on a part of the processors and
with a part of the memory that the driver bounds. Both are read when a process makes its
context: a worker opens its device when it knows its slice, and a slice keeps its share.
Source: "Multi-Process Service", NVIDIA, release 580: sections "Environment variables"
and "MPS control".
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from xpool_protocol.errors import PoolError, UsageError

CONTROL: Final = "nvidia-cuda-mps-control"
PIPE_VARIABLE: Final = "CUDA_MPS_PIPE_DIRECTORY"
LOG_VARIABLE: Final = "CUDA_MPS_LOG_DIRECTORY"
SHARE_VARIABLE: Final = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MEMORY_VARIABLE: Final = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
COMMAND_TIMEOUT_S: Final = 30.0
QUIT_S: Final = 5
"""Clients that are still there have so long; by then our workers have ended."""


class CudaSharing(StrEnum):
    """What ``--cuda-sharing`` takes."""

    TIME = "time"
    MPS = "mps"


def worker_environment(
    pipe: Path, device_index: int, share_percent: int, memory_nbytes: int
) -> dict[str, str]:
    """What a worker's process needs before it makes its context.

    Args:
        pipe: folder of the control daemon.
        device_index: of the device, as this process sees it.
        share_percent: of the device's processors.
        memory_nbytes: of its memory; rounded down to MiB, at least one.

    >>> worker_environment(Path("/run/mps"), 0, 30, 5 << 30)[MEMORY_VARIABLE]
    '0=5120M'
    """
    mebibytes = max(1, memory_nbytes >> 20)
    return {
        PIPE_VARIABLE: str(pipe),
        SHARE_VARIABLE: str(share_percent),
        MEMORY_VARIABLE: f"{device_index}={mebibytes}M",
    }


class MpsControl:
    """The control daemon of this server, for as long as the block lasts."""

    def __init__(self, program: str = CONTROL) -> None:
        """Nothing is started before the block.

        Args:
            program: name or path of NVIDIA's control program.
        """
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="xpool-mps-")
        self.pipe = Path(self._folder.name) / "pipe"
        """For ``worker_environment``."""

    def __enter__(self) -> Self:
        if shutil.which(self._program) is None:
            self._folder.cleanup()
            raise UsageError(
                f"--cuda-sharing mps needs {self._program}, which is not here: it"
                " comes with NVIDIA's driver; or use --cuda-sharing time"
            )
        self.pipe.mkdir()
        self._log.mkdir()
        try:
            self._call(["-d"], "")
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._call([], f"quit -t {QUIT_S}\n")
        finally:
            self._folder.cleanup()

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log"

    def _call(self, arguments: list[str], commands: str) -> str:
        """Run the control program; what it said.

        Raises:
            PoolError: it failed, or did not end.
        """
        own = {PIPE_VARIABLE: str(self.pipe), LOG_VARIABLE: str(self._log)}
        try:
            # To a file: the daemon that it leaves behind would keep a pipe open.
            with tempfile.TemporaryFile("w+") as said:
                status = subprocess.run(
                    [self._program, *arguments],
                    input=commands,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **own},
                    text=True,
                    timeout=COMMAND_TIMEOUT_S,
                    check=False,
                ).returncode
                said.seek(0)
                text = said.read(4096).strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PoolError(f"{self._program} did not run: {error}") from error
        if status != 0:
            words = text or "it said nothing"
            raise PoolError(f"{self._program} ended with status {status}: {words}")
        return text
