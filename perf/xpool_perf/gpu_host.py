"""Whether what needs a CUDA device can run here: ``python -m xpool_perf.gpu_host``.

Names the device, or says in one sentence what is missing and exits with status 69. Asks
without what it asks for: nothing beyond the standard library is needed to be told.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
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
