"""Which executor a server gives its workers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from xpool_protocol import limits
from xpool_protocol.errors import UsageError
from xpool_protocol.native_build import BuildFailed, Library, compiler
from xpool_server import executors, storages
from xpool_server.executors import ExecutorKind, executor_library
from xpool_server.native.build import LIBRARY


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XPOOL_CACHE", str(tmp_path))


def test_python_is_python() -> None:
    assert executor_library(ExecutorKind.PYTHON) is None


def test_without_a_compiler_it_is_python(no_compiler: None) -> None:
    assert executor_library(None) is None


def test_who_asks_for_native_is_told_why_not(no_compiler: None) -> None:
    with pytest.raises(UsageError, match="no C\\+\\+ compiler was found"):
        executor_library(ExecutorKind.NATIVE)


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_a_source_that_does_not_compile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.cpp").write_text("int main( {")
    broken = Library(name="broken", folder=tmp_path, links=(), without="nothing")
    monkeypatch.setattr(executors, "LIBRARY", broken)
    monkeypatch.setenv("XPOOL_CACHE", str(tmp_path / "cache"))
    assert executor_library(None) is None
    with pytest.raises(BuildFailed, match=r"broken\.cpp"):
        executor_library(ExecutorKind.NATIVE)


def test_what_is_built_is_found() -> None:
    if LIBRARY.built() is None:
        pytest.skip("make native builds it")
    assert executor_library(None) == LIBRARY.built()


def test_the_bounds_are_those_of_the_protocol() -> None:
    files = ("limits.h", "array_values.h")
    text = "".join((LIBRARY.folder / name).read_text() for name in files)
    found = re.findall(r"constexpr uint64_t (\w+) = ([^;]+);", text)
    assert len(found) > 10
    for name, value in found:
        python = getattr(limits, name, None) or getattr(storages, name)
        digits = value.replace("ull", "")
        if "<<" in digits:
            shifted = re.fullmatch(r"\(?(\d+) << (\d+)\)?( - 1)?", digits)
            assert shifted, value
            number = (int(shifted[1]) << int(shifted[2])) - bool(shifted[3])
        else:
            number = int(digits)
        assert number == python, name
