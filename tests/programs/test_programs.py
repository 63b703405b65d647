"""Every program of this folder gives the same figures in a pool as beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from programs import Program, all_programs, differences, figures_in

PROGRAMS = [one for one in all_programs() if not one.slow]
GROUPS = 2
SHARED = [one for one in PROGRAMS if not one.alone and one.lacks() is None]


def group_of(program: Program) -> list[str]:
    """The programs that share a process with this one."""
    return [str(one.path) for one in SHARED[SHARED.index(program) % GROUPS :: GROUPS]]


def skip_if_it_lacks(program: Program) -> None:
    lacks = program.lacks()
    if lacks is not None:
        pytest.skip(f"{lacks} is not installed")


def assert_same(program: Program, remote: str, local: str) -> None:
    mine, theirs = figures_in(remote), figures_in(local)
    assert mine is not None
    assert not differences(mine, theirs, program.tolerance)


@pytest.mark.parametrize(
    "program", [one for one in PROGRAMS if not one.alone], ids=lambda one: one.name
)
def test_program(program, together):
    skip_if_it_lacks(program)
    in_pool, here = together(group_of(program))
    assert program.name in here, here["*"]
    assert here[program.name]["error"] is None, here[program.name]["error"]
    assert program.name in in_pool, in_pool["*"]
    assert in_pool[program.name]["error"] is None, in_pool[program.name]["error"]
    assert_same(program, in_pool[program.name]["output"], here[program.name]["output"])


@pytest.mark.parametrize(
    "program", [one for one in PROGRAMS if one.alone], ids=lambda one: one.name
)
def test_program_alone(program, run_both):
    skip_if_it_lacks(program)
    in_pool, here = run_both([str(program.path)])
    assert here.returncode == 0, here.stderr
    assert in_pool.returncode == 0, in_pool.stderr
    assert_same(program, in_pool.stdout, here.stdout)


@pytest.mark.parametrize("group", range(GROUPS))
def test_the_process_ends_well(group, together):
    in_pool, _ = together([str(one.path) for one in SHARED[group::GROUPS]])
    assert in_pool["*"] is None, in_pool["*"]


def test_differences_are_seen():
    same = {"a": [1.0, {"b": "x"}], "c": 3}
    assert not differences(same, {"a": [1.0005, {"b": "x"}], "c": 3}, 1e-3)
    assert differences(same, {"a": [1.1, {"b": "x"}], "c": 3}, 1e-3)
    assert differences(same, {"a": [1.0, {"b": "y"}], "c": 3}, 1e-3)
    assert differences(same, {"a": [1.0], "c": 3}, 1e-3)
    assert differences(same, {"a": [1.0, {"b": "x"}]}, 1e-3)
    assert differences({"a": float("nan")}, {"a": 1.0}, 1e-3)
