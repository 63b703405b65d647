"""What the code can say or read, the documents explain, and the other way round."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from xpool_protocol import errors

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "protocol" / "SPEC.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"

VARIABLE = re.compile(r"XPOOL_[A-Z0-9_]*[A-Z0-9]")
NATIVE_VARIABLE = re.compile(rf'"({VARIABLE.pattern})"')
PACKAGES = ("client_stub", "server", "protocol", "pool_registry", "perf")


def table_rows(path: Path) -> list[list[str]]:
    """Cells of every table row, without the marks that only set type."""
    lines = path.read_text().splitlines()
    rows = [line.strip().strip("|").split("|") for line in lines if line[:1] == "|"]
    return [[cell.strip(" `*") for cell in row] for row in rows]


def all_errors() -> list[type[errors.PoolError]]:
    found: list[type[errors.PoolError]] = []
    waiting = list(errors.PoolError.__subclasses__())
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    ours = [kind for kind in found if kind.__module__ == errors.__name__]
    return sorted(ours, key=lambda kind: kind.code)


def python_variables(text: str) -> set[str]:
    """String literals that are a variable's whole name."""
    nodes = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)
    )
    values = {node.value for node in nodes if isinstance(node.value, str)}
    return {value for value in values if VARIABLE.fullmatch(value)}


def variables_used() -> dict[str, str]:
    """Each variable's name and one file that names it."""
    used: dict[str, str] = {}
    for folder in PACKAGES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix == ".py":
                names = python_variables(path.read_text())
            elif path.suffix in {".cpp", ".h", ".hpp"}:
                names = set(NATIVE_VARIABLE.findall(path.read_text()))
            else:
                continue
            used.update(dict.fromkeys(names, str(path.relative_to(ROOT))))
    return used


def test_variables_are_found_in_literals_only() -> None:
    text = '"""Say XPOOL_A=1."""\nos.environ["XPOOL_B"]\nXPOOL_C = f("XPOOL_D_")\n'
    assert python_variables(text) == {"XPOOL_B"}


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_code_is_a_row_of_the_specification(
    kind: type[errors.PoolError],
) -> None:
    rows = [row for row in table_rows(SPEC) if str(kind.code) in row]
    assert any(kind.__name__ in row for row in rows), (
        f"{SPEC.name} has no table row with {kind.code} and {kind.__name__}"
    )


def test_the_specification_names_no_error_that_does_not_exist() -> None:
    known = {(str(kind.code), kind.__name__) for kind in all_errors()}
    names = {name for _, name in known}
    for row in table_rows(SPEC):
        named = names.intersection(row)
        codes = {cell for cell in row if re.fullmatch(r"[1-5]\d\d", cell)}
        if named and codes:
            assert {(code, name) for code in codes for name in named} <= known


def test_every_environment_variable_is_documented() -> None:
    documented = set(VARIABLE.findall(CONFIGURATION.read_text()))
    missing = {
        name: at for name, at in variables_used().items() if name not in documented
    }
    assert not missing, f"not in {CONFIGURATION.name}: {missing}"


def test_every_documented_variable_is_read_somewhere() -> None:
    rows = table_rows(CONFIGURATION)
    documented = {name for row in rows for name in VARIABLE.findall(row[0])}
    assert documented, f"{CONFIGURATION.name} has no table of variables"
    assert documented <= variables_used().keys()


def test_the_makefile_installs_the_torch_that_is_pinned() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = re.search(r"^torch==\S+", constraints, re.MULTILINE)
    assert pinned is not None
    assert f"TORCH    := {pinned[0]}\n" in (ROOT / "Makefile").read_text()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # Locust is the load harness's own and heavy; nothing in the tests needs it.
    wanted = [
        *project["dependencies"],
        *(one for extra in extras.values() for one in extra),
    ]
    names = {re.split(r"[<>=~!\[ ]", one)[0].lower() for one in wanted} - {"locust"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert names <= pins


def test_every_decision_that_is_cited_exists() -> None:
    decisions = {path.name[:4] for path in (ROOT / "docs" / "adr").glob("*.md")}
    cited: dict[str, str] = {}
    for folder in (*PACKAGES, "docs", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".cpp", ".h"}:
                found = re.findall(r"\badr/(\d{4})", path.read_text())
                cited.update(dict.fromkeys(found, str(path.relative_to(ROOT))))
    missing = {number: at for number, at in cited.items() if number not in decisions}
    assert not missing
