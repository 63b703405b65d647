"""Builds a native library for the torch that is installed, once, and finds it again.

A library lies in a cache folder under a name made of everything it depends on: its
sources, the flags and torch's version. A changed source or another torch is another
file; nothing is ever overwritten in place. So is each compiled source, so that a change
compiles only what it touches. Client and server each build one of their own with this.
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
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from xpool_protocol.errors import PoolError, UsageError

FLAGS: Final = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-w")

SHARED: Final = Path(__file__).parent / "native"
"""Headers that the sources of every library may include."""

OBJECTS_KEPT: Final = 600
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


def version_fields(folder: Path) -> dict[str, str]:
    """``__version__`` and ``cuda`` of torch's ``version.py``, without importing it."""
    fields: dict[str, str] = {}
    for line in (folder / "version.py").read_text().splitlines():
        if line.startswith(("__version__ =", "cuda:", "cuda =")):
            name = line.split(":")[0].split("=")[0].strip()
            fields[name] = line.rsplit("=", 1)[1].strip().strip("'\"")
    return fields


def torch_version(folder: Path) -> str:
    """The version in torch's ``version.py``, read without importing torch."""
    return version_fields(folder).get("__version__", "unknown")


def compiler() -> str | None:
    """The C++ compiler: ``$CXX``, g++ or clang++; None if there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    return None


def required_compiler(without: str) -> str:
    """The C++ compiler.

    Args:
        without: what there is not without one, for the error's text.

    Raises:
        UsageError: there is none.
    """
    cxx = compiler()
    if cxx is None:
        raise UsageError(
            f"no C++ compiler was found, so {without}: apt-get install g++"
        )
    return cxx


def digest(files: Iterable[Path], *others: object) -> str:
    """Sixteen hexadecimal digits of what the files hold and of the other values."""
    found = hashlib.sha256()
    for path in files:
        found.update(path.read_bytes())
    found.update(repr(others).encode())
    return found.hexdigest()[:16]


def cache_folder() -> Path:
    """Where built libraries are kept: ``$XPOOL_CACHE`` or the user's cache folder."""
    chosen = os.environ.get("XPOOL_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "xpool"


def run(command: list[str], what: str) -> None:
    """Run a compiler.

    Raises:
        BuildFailed: it refused.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[:12])
        raise BuildFailed(f"the native library could not be built ({what}):\n{lines}")


@contextlib.contextmanager
def only_builder(made: Path) -> Iterator[None]:
    """Builders of one library take turns; those of others do not wait for them."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, kw_only=True)
class Library:
    """A folder of C++ sources, and what they are linked with."""

    name: str
    """The file's name begins with it."""

    folder: Path
    links: tuple[str, ...]
    """Linker options for torch's libraries, whose folder is searched."""

    without: str
    """What there is not without a compiler, for an error's text."""

    flags: tuple[str, ...] = FLAGS

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the C++ sources."""
        return tuple(sorted(path.name for path in self.folder.glob("*.cpp")))

    def path(self) -> Path:
        """The file that holds the library for this torch and these sources."""
        sources = (self.folder / name for name in self.sources)
        headers = (sorted(one.glob("*.h")) for one in (self.folder, SHARED))
        found = digest(chain(sources, *headers), self.flags, self.links)
        version = torch_version(torch_folder())
        return cache_folder() / f"{self.name}-{version}-{found}.so"

    def built(self) -> Path | None:
        """The library if it is built already."""
        path = self.path()
        return path if path.exists() else None

    def included(self, source: str) -> tuple[Path, ...]:
        """A source and the headers of ours that it includes, directly or not."""
        found: dict[str, Path] = {}
        waiting = [source]
        while waiting:
            name = waiting.pop()
            if name not in found:
                own = self.folder / name
                found[name] = own if own.exists() else SHARED / name
                waiting += _INCLUDE.findall(found[name].read_text())
        return tuple(found[name] for name in sorted(found))

    def object_path(self, source: str, cxx: str) -> Path:
        """The file that holds a compiled source for this torch and this compiler."""
        version = torch_version(torch_folder())
        files = self.included(source)
        made = digest(files, self.flags, cxx, os.stat(cxx).st_mtime_ns, version)
        return cache_folder() / "objects" / f"{source}-{made}.o"

    def build(self) -> Path:
        """Build the library unless it is there; about a minute of two cores.

        Raises:
            UsageError: no torch, or no C++ compiler.
            BuildFailed: the compiler refused.
        """
        path = self.path()
        if path.exists():
            return path
        with only_builder(path):
            if path.exists():
                return path
            cxx = required_compiler(self.without)
            torch = torch_folder()
            folder = path.parent / "objects"
            folder.mkdir(exist_ok=True)
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                jobs = [
                    pool.submit(self._compile, name, cxx, torch)
                    for name in self.sources
                ]
                objects = [str(job.result()) for job in jobs]
            self._link(objects, path, cxx, torch)
            _forget_old_objects(folder)
        return path

    def _compile(self, source: str, cxx: str, torch: Path) -> Path:
        """The object file of a source, compiled unless it is there."""
        made = self.object_path(source, cxx)
        if made.exists():
            made.touch()
            return made
        include = torch / "include"
        includes = [f"-iquote{SHARED}", f"-isystem{include}"]
        includes += [f"-isystem{include}/torch/csrc/api/include"]
        unfinished = made.with_suffix(f".{os.getpid()}")
        compile_one = [cxx, *self.flags, *includes, "-c", str(self.folder / source)]
        try:
            run([*compile_one, "-o", str(unfinished)], source)
            unfinished.rename(made)
        finally:
            unfinished.unlink(missing_ok=True)
        return made

    def _link(self, objects: list[str], path: Path, cxx: str, torch: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            library = Path(folder) / "library.so"
            run(
                [
                    *(cxx, "-shared", *objects, "-o", str(library)),
                    *(f"-L{torch / 'lib'}", *self.links),
                ],
                "linking",
            )
            library.rename(path)


def _forget_old_objects(folder: Path) -> None:
    by_age = sorted(folder.glob("*.o"), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-OBJECTS_KEPT]:
        path.unlink(missing_ok=True)


def main(library: Library) -> int:
    """Build and print the path; one sentence on stderr if that fails."""
    if library.built() is None:
        print(f"building {library.name} for this torch, once…", file=sys.stderr)  # noqa: T201  the command's output
    try:
        print(library.build())  # noqa: T201  the command's output
    except PoolError as error:
        print(f"xpool: {error}", file=sys.stderr)  # noqa: T201  the command's output
        return 1
    return 0
