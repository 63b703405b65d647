"""Whether what needs a CUDA device can run here: ``python -m xpool_perf.gpu_host``.

Names the device, or says in one sentence what is missing and exits with status 69. Asks
without what it asks for: nothing beyond the standard library is needed to be told.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

MISSING: Final = os.EX_UNAVAILABLE
"""Exit status 69: a thing is missing on this machine; nothing has run, or failed."""

PACKAGES: Final = {
    "torch": "torch",
    "numpy": "numpy",
    "msgspec": "msgspec",
    "zmq": "pyzmq",
    "grpc": "grpcio",
    "google.protobuf": "protobuf",
    "typer": "typer",
    "rich": "rich",
    "cryptography": "cryptography",
    "structlog": "structlog",
    "psutil": "psutil",
    "blake3": "blake3",
    "prometheus_client": "prometheus_client",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
"""What client, server, registry and tests import, and what brings it."""

PROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"
"""Says which releases will do; absent where the packages are installed without it."""

_AT_LEAST: Final = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")

ASK_TORCH: Final = """
import torch
if torch.version.cuda is None:
    print(f"torch {torch.__version__} is a build without CUDA")
elif not torch.cuda.is_available():
    print(f"torch {torch.__version__} sees no CUDA device on this machine")
else:
    print("=" + torch.cuda.get_device_name(0))
"""


class Missing(Exception):  # noqa: N818  a state, as the project's errors are
    """One sentence: what this machine lacks."""


def absent(modules: Iterable[str]) -> list[str]:
    """Those that can't be imported here."""
    return [one for one in modules if not _is_there(one)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is a part of
        return False


def least_releases(project: Path = PROJECT) -> dict[str, str]:
    """The oldest release of each package that will do, by its name."""
    if not project.exists():
        return {}
    told = tomllib.loads(project.read_text())["project"]
    groups = [told["dependencies"], *told["optional-dependencies"].values()]
    found = (_AT_LEAST.match(one) for group in groups for one in group)
    return {one[1]: one[2] for one in found if one}


def outdated(least: Mapping[str, str]) -> list[str]:
    """Packages of ours that are here in an older release than will do.

    Code that is made for a release (gRPC's) refuses older ones when it is imported.
    """
    found = []
    for name in PACKAGES.values():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:  # it has no record of where it is from
            continue
        if name in least and _numbers(here) < _numbers(least[name]):
            found.append(f"{name} {here} (needed: {least[name]} or newer)")
    return found


def _numbers(release: str) -> tuple[int, ...]:
    """Of ``2.13.0+cpu``: 2, 13, 0."""
    match = re.match(r"\d+(\.\d+)*", release)
    return tuple(map(int, match[0].split("."))) if match else ()


def device_name() -> str:
    """The first CUDA device's name.

    Asked in a process of its own: in ours the driver would stay mapped.

    Raises:
        Missing: there is none, or it can't be used.
    """
    lacking = absent(PACKAGES)
    if lacking:
        names = ", ".join(PACKAGES[one] for one in lacking)
        raise Missing(f"{sys.executable} lacks {names}: no CUDA device was looked for")
    old = outdated(least_releases())
    if old:
        raise Missing(f"{sys.executable} has {', '.join(old)}")
    from xpool.native import build

    if build.compiler() is None:
        raise Missing("no C++ compiler was found, so device 'cuda' is not available")
    asked = subprocess.run(
        [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, check=False
    )
    answer = (asked.stdout.strip().splitlines() or [""])[-1]
    if not answer.startswith("="):
        reason = answer or (asked.stderr.strip().splitlines() or ["torch failed"])[-1]
        raise Missing(f"no CUDA device can be used here: {reason}")
    return answer[1:]


def main() -> int:
    """Say what there is, or what is missing."""
    try:
        print(device_name())
    except Missing as what:
        print(f"xpool_perf: {what}", file=sys.stderr)
        return MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
