"""Imports point downwards, and the contract stays free of what would tie it down."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT: dict[str, set[str]] = {
    "xpool_protocol": set(),
    "xpool": {"xpool_protocol"},
    "xpool_server": {"xpool_protocol"},
    "xpool_registry": {"xpool_protocol"},
    "xpool_perf": {"xpool_protocol", "xpool", "xpool_server", "xpool_registry"},
}

# Third parties that xpool_protocol may import, by folder; everything else there is
# the standard library, so that a client installs little (docs/architecture.md).
PROTOCOL_THIRD_PARTIES: dict[str, set[str]] = {
    "": {"msgspec"},
    "transport": {"msgspec", "zmq"},
    "control": {"msgspec", "grpc", "google"},
    # generate.py, which only developers run
    "arrays": {"msgspec", "cupy"},
}

SOURCES = [
    path for name in MAY_IMPORT for path in sorted(ROOT.glob(f"*/{name}/**/*.py"))
]
PROTOCOL = [path for path in SOURCES if path.is_relative_to(ROOT / "protocol")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_names(path: Path) -> set[str]:
    """Top-level names of every import, wherever it stands in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_every_package_is_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[1] for path in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_downwards(path: Path) -> None:
    home = path.relative_to(ROOT).parts[1]
    ours = imported_names(path) & MAY_IMPORT.keys()
    assert ours - {home} <= MAY_IMPORT[home]


@pytest.mark.parametrize("path", PROTOCOL, ids=relative)
def test_protocol_imports_little(path: Path) -> None:
    parts = path.relative_to(ROOT / "protocol" / "xpool_protocol").parts
    folder = parts[0] if len(parts) > 1 else ""
    allowed = PROTOCOL_THIRD_PARTIES.get(folder, PROTOCOL_THIRD_PARTIES[""])
    foreign = imported_names(path) - sys.stdlib_module_names - {"xpool_protocol"}
    assert foreign <= allowed
