"""Builds the native library for the torch that is installed, once, and finds it again.

The library lies in a cache folder under a name made of everything it depends on:
its sources, the compiler's version, torch's version and Python's. A changed source or
another torch is another file; nothing is ever overwritten in place.

    python -m xpool.native.build        builds if need be and prints the path
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from xpool_protocol.errors import PoolError, UsageError

SOURCES: Final = ("log.cpp", "device.cpp", "dispatch.cpp", "kernels.cpp", "api.cpp")
HEADERS: Final = ("bytes.h", "log.h", "remote.h", "dispatch.h")
FLAGS: Final = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-w")
HERE: Final = Path(__file__).parent


class BuildFailed(UsageError):  # noqa: N818  a state, as the error tree names them
    """The compiler refused; the text holds its first lines."""

    code = 110


def torch_folder() -> Path:
    """Where torch is installed; does not import it.

    Raises:
        UsageError: it is not.
    """
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        raise UsageError("torch is not installed: pip install torch")
    return Path(found.origin).parent


def torch_version(folder: Path) -> str:
    """The version in torch's ``version.py``, read without importing torch."""
    scope: dict[str, str] = {}
    for line in (folder / "version.py").read_text().splitlines():
        if line.startswith(("__version__ =", "cuda:", "cuda =")):
            name = line.split(":")[0].split("=")[0].strip()
            scope[name] = line.rsplit("=", 1)[1].strip().strip("'\"")
    return scope.get("__version__", "unknown")


def compiler() -> str | None:
    """The C++ compiler: ``$CXX``, g++ or clang++; None if there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    return None


def cache_folder() -> Path:
    """Where built libraries are kept: ``$XPOOL_CACHE`` or the user's cache folder."""
    chosen = os.environ.get("XPOOL_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "xpool"


def library_path() -> Path:
    """The file that holds the library for this torch and these sources."""
    digest = hashlib.sha256()
    for name in (*SOURCES, *HEADERS):
        digest.update((HERE / name).read_bytes())
    digest.update(repr(FLAGS).encode())
    version = torch_version(torch_folder())
    return cache_folder() / f"xpool-torch-{version}-{digest.hexdigest()[:16]}.so"


def built_library() -> Path | None:
    """The library if it is built already."""
    path = library_path()
    return path if path.exists() else None


@contextlib.contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[:12])
        raise BuildFailed(f"the native library could not be built ({what}):\n{lines}")


def build() -> Path:
    """Builds the library unless it is there; about half a minute of two cores.

    Raises:
        UsageError: no torch, or no C++ compiler.
        BuildFailed: the compiler refused.
    """
    path = library_path()
    with _only_builder(path.parent):
        if path.exists():
            return path
        cxx = compiler()
        if cxx is None:
            raise UsageError(
                "no C++ compiler was found, so device 'cuda' is not available:"
                " apt-get install g++ (device 'xpool' works without)"
            )
        torch = torch_folder()
        include = torch / "include"
        includes = [
            f"-isystem{include}",
            f"-isystem{include}/torch/csrc/api/include",
        ]
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            objects = [str(Path(folder) / f"{name}.o") for name in SOURCES]
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                jobs = [
                    pool.submit(
                        _run,
                        [cxx, *FLAGS, *includes, "-c", str(HERE / name), "-o", made],
                        name,
                    )
                    for name, made in zip(SOURCES, objects, strict=True)
                ]
                for job in jobs:
                    job.result()
            library = Path(folder) / "library.so"
            libraries = f"-L{torch / 'lib'}"
            _run(
                [
                    cxx,
                    "-shared",
                    *objects,
                    "-o",
                    str(library),
                    libraries,
                    "-lc10",
                    "-ltorch_cpu",
                    "-lpthread",
                ],
                "linking",
            )
            library.rename(path)
    return path


def main() -> int:
    """Builds and prints the path; one sentence on stderr if that fails."""
    if built_library() is None:
        print("building the native library for this torch, once…", file=sys.stderr)  # noqa: T201  the command's output
    try:
        print(build())  # noqa: T201  the command's output
    except PoolError as error:
        print(f"xpool: {error}", file=sys.stderr)  # noqa: T201  the command's output
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
