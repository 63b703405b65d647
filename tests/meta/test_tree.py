"""What must not be in the tree: unsafe decoding, and paths of somebody's machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *("client_stub", "server", "protocol", "pool_registry", "perf"),
    *("tests", "docs", "examples", ".ci"),
)
TEXT = {".py", ".md", ".toml", ".txt", ".cpp", ".h", ".hpp", ".proto", ".json", ""}
SKIPPED = {"__pycache__", "build", ".hypothesis"}

# Each of these runs what the bytes say; none may stand where a peer's bytes come in
# (docs/adr/0002). They are not needed elsewhere in the packages either.
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}
UNSAFE_CALLS = {"eval", "exec"}

# `xpool run -c CODE` runs the user's own text, as python -c does.
USER_PROGRAMS = {"client_stub/xpool/main_module.py": {"exec"}}

HOME = re.compile(
    r"(?<![\w.])/(?:home|Users)/[a-z]\w*/|(?<![\w.])/r[o]ot/|[A-Z]:\\Users"
)


def files() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file()]
    deep = [path for one in FOLDERS for path in (ROOT / one).rglob("*")]
    return sorted(
        path
        for path in (*top, *deep)
        if path.is_file()
        and path.suffix in TEXT
        and not SKIPPED.intersection(path.relative_to(ROOT).parts)
    )


PACKAGE_SOURCES = [
    path
    for path in files()
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in FOLDERS[:5]
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unsafe_uses(text: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & UNSAFE_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0]} & UNSAFE_MODULES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & UNSAFE_CALLS
    return found


def own_paths(text: str) -> list[str]:
    """Paths that exist on one machine only: homes, and this checkout's place."""
    found = HOME.findall(text)
    # A checkout directly under / has a name too short to mean anything.
    if len(ROOT.parts) > 2 and re.search(rf"{re.escape(str(ROOT))}\b", text):
        found.append(str(ROOT))
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", {"pickle"}),
        ("def f():\n    from cloudpickle import loads", {"cloudpickle"}),
        ("eval('1')", {"eval"}),
        ("model.eval()", set()),
        ("import json", set()),
    ],
)
def test_unsafe_uses_are_seen(text: str, found: set[str]) -> None:
    assert unsafe_uses(text) == found


@pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=relative)
def test_nothing_decodes_by_running(path: Path) -> None:
    assert unsafe_uses(path.read_text()) == USER_PROGRAMS.get(relative(path), set())


def test_own_paths_are_seen() -> None:
    assert own_paths("see /home" + "/ann/notes")
    assert own_paths("in /ro" + "ot/x")
    assert own_paths(f"cd {ROOT}")
    assert not own_paths("https://example.org/home/ann/x and ./home/ann/ and /etc/x")


@pytest.mark.parametrize("path", files(), ids=relative)
def test_no_path_of_one_machine(path: Path) -> None:
    assert not own_paths(path.read_text())
