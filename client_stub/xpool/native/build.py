"""Builds the native library for the torch that is installed, once, and finds it again.

The library lies in a cache folder under a name made of everything it depends on: its
sources, the flags and torch's version. A changed source or another torch is another
file; nothing is ever overwritten in place. So is each compiled source, so that a change
compiles only what it touches.

    python -m xpool.native.build        builds if need be and prints the path
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from xpool_protocol.errors import PoolError, UsageError

HERE: Final = Path(__file__).parent
SOURCES: Final = tuple(sorted(path.name for path in HERE.glob("*.cpp")))
HEADERS: Final = tuple(sorted(path.name for path in HERE.glob("*.h")))
FLAGS: Final = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-w")

OBJECTS_KEPT: Final = 200
"""Compiled sources in the cache, the last used ones; some 2 MB each."""


_INCLUDE: Final = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


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
def _only_builder(path: Path) -> Iterator[None]:
    """Builders of one library take turns; those of others do not wait for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[:12])
        raise BuildFailed(f"the native library could not be built ({what}):\n{lines}")


def included(source: str) -> tuple[str, ...]:
    """A source and the headers of this folder that it includes, directly or not."""
    found: dict[str, None] = {}
    waiting = [source]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += _INCLUDE.findall((HERE / name).read_text())
    return tuple(sorted(found))


def object_path(source: str, cxx: str) -> Path:
    """The file that holds a compiled source for this torch and this compiler."""
    digest = hashlib.sha256()
    for name in included(source):
        digest.update((HERE / name).read_bytes())
    version = torch_version(torch_folder())
    digest.update(repr((FLAGS, cxx, os.stat(cxx).st_mtime_ns, version)).encode())
    return cache_folder() / "objects" / f"{source}-{digest.hexdigest()[:16]}.o"


def _compile(source: str, cxx: str, torch: Path) -> Path:
    """The object file of a source, compiled unless it is there."""
    made = object_path(source, cxx)
    if made.exists():
        made.touch()
        return made
    include = torch / "include"
    includes = [f"-isystem{include}", f"-isystem{include}/torch/csrc/api/include"]
    unfinished = made.with_suffix(f".{os.getpid()}")
    try:
        _run(
            [cxx, *FLAGS, *includes, "-c", str(HERE / source), "-o", str(unfinished)],
            source,
        )
        unfinished.rename(made)
    finally:
        unfinished.unlink(missing_ok=True)
    return made


def _forget_old_objects(folder: Path) -> None:
    by_age = sorted(folder.glob("*.o"), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-OBJECTS_KEPT]:
        path.unlink(missing_ok=True)


def build() -> Path:
    """Builds the library unless it is there; about a minute of two cores.

    Raises:
        UsageError: no torch, or no C++ compiler.
        BuildFailed: the compiler refused.
    """
    path = library_path()
    if path.exists():
        return path
    with _only_builder(path):
        if path.exists():
            return path
        cxx = compiler()
        if cxx is None:
            raise UsageError(
                "no C++ compiler was found, so device 'cuda' is not available:"
                " apt-get install g++ (device 'xpool' works without)"
            )
        torch = torch_folder()
        folder = path.parent / "objects"
        folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            jobs = [pool.submit(_compile, name, cxx, torch) for name in SOURCES]
            objects = [str(job.result()) for job in jobs]
        _link(objects, path, cxx, torch)
        _forget_old_objects(folder)
    return path


def _link(objects: list[str], path: Path, cxx: str, torch: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        library = Path(folder) / "library.so"
        _run(
            [
                *(cxx, "-shared", *objects, "-o", str(library)),
                *(f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", "-lpthread"),
            ],
            "linking",
        )
        library.rename(path)


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
