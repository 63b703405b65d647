"""Small C++ programs that lend native code to a test, compiled with all warnings."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from xpool_protocol.native_build import SHARED, Library, compiler

FLAGS = (
    *("-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"),
    "-Wno-missing-field-initializers",
)
BUILD_S = 240


def built_probe(
    library: Library, probe: Path, folder: Path, *sources: str
) -> ctypes.CDLL:
    """The functions of a probe and of some of a library's sources.

    Args:
        library: whose sources and headers.
        probe: the C++ file of the test.
        folder: for what is made.
        sources: names of the library's files that belong to it.
    """
    cxx = compiler()
    if cxx is None:
        pytest.skip("no native code without a C++ compiler")
    made = folder / "probe.so"
    files = (probe, *(library.folder / name for name in sources))
    subprocess.run(
        [
            cxx,
            *FLAGS,
            f"-I{library.folder}",
            f"-iquote{SHARED}",
            *map(str, files),
            "-o",
            str(made),
        ],
        check=True,
        timeout=BUILD_S,
    )
    return ctypes.CDLL(str(made))
