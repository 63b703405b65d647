"""Where and with what figures were taken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import msgspec

# What keeping a result changes does not make the measured code another one.
_RESULTS = (":(exclude)perf/results", ":(exclude)perf/RESULTS.md")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the versions that matter to a figure."""

    cpu_model: str
    cores: int
    """That this process may use."""
    memory_nbytes: int
    kernel: str
    python: str
    torch: str
    device: str = ""
    """The accelerator's name; empty: the CPU computes."""

    @property
    def slug(self) -> str:
        """For file names.

        >>> Machine(cpu_model="AMD EPYC 7B13", cores=2, memory_nbytes=1, kernel="6.1",
        ...         python="3.11.2", torch="2.13.0").slug
        'amd-epyc-7b13-2-cores'
        """
        text = f"{self.cpu_model} {self.cores} cores {self.device}".lower()
        return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def this_machine(device: str = "") -> Machine:
    """The machine that this process runs on, with this accelerator, if any.

    torch is not imported.
    """
    return Machine(
        cpu_model=_cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_nbytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        python=platform.python_version(),
        torch=_torch_version(),
        device=device,
    )


def commit_of(folder: Path) -> str:
    """The checked-out commit, with ``-dirty`` if files differ; else ``unknown``."""
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return "unknown"
    changed = _git(folder, "status", "--porcelain", "--", ".", *_RESULTS)
    return commit if changed == "" else f"{commit}-dirty"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers; None if there is no git or no repository."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _cpu_model(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "none"
