"""``import cupy`` through real processes, beside torch and without it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
Runner = Callable[..., subprocess.CompletedProcess[str]]

MODES = {
    "beside": {},
    "python": {"XPOOL_DEVICE": "python"},
    "alone": {"XPOOL_TORCH": "off"},
}


@pytest.mark.parametrize("mode", MODES)
def test_an_ordinary_program(xpool_run: Runner, mode: str) -> None:
    ended = xpool_run(
        *("--memory", "256MiB"),
        *(str(PROGRAMS / "arrays_basic.py"), "beside" if mode != "alone" else "alone"),
        env=MODES[mode],
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "arrays are as they should be\n"
    assert ended.stderr == ""


def test_predictions_are_the_servers_truth(xpool_run: Runner) -> None:
    ended = xpool_run(
        *("--memory", "256MiB", str(PROGRAMS / "arrays_basic.py"), "beside"),
        env={"XPOOL_AUDIT": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "0 mismatches" in ended.stderr


def test_a_poisoned_array_keeps_the_first_error(xpool_run: Runner) -> None:
    program = (
        "import cupy as cp\n"
        "from xpool.cupy import ndarray\n"
        "from xpool.cupy.geometry import geometry\n"
        "import numpy as np\n"
        "a = cp.zeros(3)\n"
        # A prediction that is wrong: the server contradicts it.
        "b = ndarray.posted('cupy.add', geometry((4,), np.dtype('d')), (a, 1.0))\n"
        "c = (b + 1).sum()\n"
        "for wrong in (b, c):\n"
        "    try: wrong.get()\n"
        "    except RuntimeError as error: print(str(error)[:50])\n"
        "print(a.get())\n"
    )
    ended = xpool_run("-c", program)
    lines = ended.stdout.splitlines()
    assert lines[0] == lines[1], ended.stderr
    assert lines[0].startswith("predicted shape (4,)")
    assert lines[2] == "[0. 0. 0.]"
