"""The pure-Python device against a real worker: cases of ``python_cases.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.leased_script import run_leased

SCRIPT = Path(__file__).parent / "programs" / "python_cases.py"
NAMES = [
    line[9:].split("(")[0]
    for line in SCRIPT.read_text().splitlines()
    if line.startswith("def case_")
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    """Each case's error, or None; ``*`` for the process itself."""
    ended = run_leased(SCRIPT)
    lines = [line[5:] for line in ended.stdout.splitlines() if line[:5] == "CASE "]
    found = {one["name"]: one["error"] for one in map(json.loads, lines)}
    # A late error that a case has caused on purpose was read there, not at the end.
    is_well = ended.returncode == 0 and "xpool: " not in ended.stderr
    return {**found, "*": None if is_well else ended.stderr[-3000:] or "it failed"}


@pytest.mark.parametrize("name", [*NAMES, "*"])
def test_case(name: str, outcomes: dict[str, str | None]) -> None:
    assert name in outcomes, f"it never ran: {outcomes['*']}"
    assert outcomes[name] is None, outcomes[name]
