"""Ranks under ``torchrun``: each is a job of its own with one device.

``xpool run -m torch.distributed.run …`` (or ``torchrun``) runs torch's launcher as it
is; the launcher starts ``python -m xpool.launched`` in place of python for each rank,
and that is ``xpool run`` for the rank's program. To the program it looks as if every
rank stood on a host of its own with one device, ``cuda:0``: ``LOCAL_RANK`` is 0.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from xpool_protocol.errors import PoolError

from xpool.config import SETTINGS, JobSettings, job_settings
from xpool.run import exit_like, forwarding, run_job

MODULES: Final = ("torch.distributed.run", "torch.distributed.launch")
COMMAND: Final = "torchrun"


def launcher_arguments(program: Sequence[str]) -> list[str] | None:
    """For python, if a program is torch's launcher; otherwise None.

    >>> launcher_arguments(["torchrun", "--nproc-per-node", "2", "train.py"])
    ['-m', 'torch.distributed.run', '--nproc-per-node', '2', 'train.py']
    """
    if len(program) > 1 and program[0] == "-m" and program[1] in MODULES:
        return list(program)
    if program and program[0] == COMMAND and not Path(COMMAND).exists():
        return ["-m", MODULES[0], *program[1:]]
    return None


def run_launcher(settings: JobSettings, arguments: Sequence[str]) -> int:
    """Run the launcher without a device; its exit status, negative for a signal.

    Args:
        settings: of every rank, but for the number of devices, which is one.
        arguments: as ``launcher_arguments`` gives them.
    """
    with tempfile.TemporaryDirectory(prefix="xpool-") as folder, forwarding() as taker:
        python = Path(folder) / "python"
        command = shlex.join([sys.executable, "-m", "xpool.launched"])
        python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        python.chmod(0o700)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **environment_of(settings), "PYTHON_EXEC": str(python)},
        )
        taker.child = process
        return process.wait()


def environment_of(settings: JobSettings) -> dict[str, str]:
    """The variables that say the same as these settings, for one device."""
    texts = {
        "registry": settings.registry,
        "slice": f"{settings.share_percent}%",
        "at_least": f"{settings.min_share_percent}%"
        if settings.min_share_percent
        else "",
        "memory": str(settings.memory_nbytes or ""),
        "devices": "1",
        "mode": settings.mode,
        "tenant": settings.tenant,
        "priority": settings.priority,
        "queue": f"{settings.wait_ms / 1000:.3f}s" if settings.wait_ms else "no",
        "time_limit": f"{settings.limit_ms / 1000:.3f}s" if settings.limit_ms else "",
        "place": settings.place,
        "same_server": "yes" if settings.same_server else "no",
        "near": "yes" if settings.near else "no",
        "max_rtt": f"{settings.max_rtt_us}us" if settings.max_rtt_us else "",
        "close_by": settings.close_by,
        "on_oom": settings.on_oom,
        "require": ",".join(f"{key}={value}" for key, value in settings.wanted.items()),
    }
    return {SETTINGS[key].variable: text for key, text in texts.items()}


def own_host(rank: Mapping[str, str]) -> dict[str, str]:
    """A rank's environment as if it were alone on its host."""
    changed = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for group, one in (("GROUP_RANK", "RANK"), ("GROUP_WORLD_SIZE", "WORLD_SIZE")):
        if one in rank:
            changed[group] = rank[one]
    return changed


def main(arguments: Sequence[str]) -> None:
    """``python -m xpool.launched [-u] PROGRAM …``, as torch's launcher calls python."""
    program = list(arguments)
    while program[:1] == ["-u"]:
        del program[0]
        os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ.update(own_host(os.environ))
    try:
        settings = dataclasses.replace(job_settings({}), device_count=1)
        status = run_job(settings, program)
    except PoolError as error:
        rank = os.environ.get("RANK", "?")
        sys.exit(f"xpool: rank {rank}: {error}")
    exit_like(status)


if __name__ == "__main__":
    main(sys.argv[1:])
