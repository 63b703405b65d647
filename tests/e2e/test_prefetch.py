"""Batches of a DataLoader go ahead over the network, and nobody sees a difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parent / "programs" / "loading.py")
STEPS = 12


def test_batches_go_ahead_over_the_network(xpool_run):
    done = xpool_run("--memory", "64MiB", PROGRAM, env={"XPOOL_LANE": "tcp"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # The slice has room for four batches of two mebibytes ahead; a batch finds none
    # where all four still wait to be asked for.
    assert STEPS // 2 <= found["plain"] <= STEPS
    assert found["changed"] <= STEPS - 2
    assert found["changed"] >= STEPS // 2 - 2
    assert STEPS // 2 <= found["twice"] <= STEPS
    assert 0 < found["unasked"] < 6 * STEPS, "it goes on although nobody asks"


def test_a_wrong_word_is_one_sentence(xpool_run):
    done = xpool_run("-c", "pass", env={"XPOOL_PREFETCH": "maybe"})
    assert done.returncode == 1
    assert done.stderr == "xpool: XPOOL_PREFETCH is 'maybe': write on or off\n"


@pytest.mark.parametrize(
    "env", [{}, {"XPOOL_LANE": "tcp", "XPOOL_PREFETCH": "off"}], ids=["local", "off"]
)
def test_it_is_left_where_it_would_not_pay_or_is_not_wanted(xpool_run, env):
    done = xpool_run("--memory", "64MiB", PROGRAM, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"plain": 0, "changed": 0, "twice": 0, "unasked": 0}
