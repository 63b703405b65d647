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


def test_an_audit_sees_calls_that_are_known_by_too_little(xpool_run: Runner) -> None:
    program = (
        "import cupy as cp\n"
        "from xpool.cupy import known_calls\n"
        "whole = known_calls.key_of\n"
        # Of a tuple its length is all that counts.
        "def part(args, kwargs):\n"
        "    key, arrays = whole(args, kwargs)\n"
        "    return tuple(one for one in key if one not in (3, 4)), arrays\n"
        "a = cp.arange(12.0)\n"
        "known_calls.key_of = part\n"
        "a.reshape((3, 4)); a.reshape((4, 3)); a.reshape((3, 4))\n"
    )
    ended = xpool_run("-c", program, env={"XPOOL_AUDIT": "1"})
    assert ended.returncode == 0, ended.stderr
    assert "1 mismatches" in ended.stderr
    assert "mismatch: ndarray.reshape: made of" in ended.stderr


def test_an_audit_sees_operators(xpool_run: Runner) -> None:
    program = (
        "import cupy as cp\n"
        "from xpool.cupy import ufunc\n"
        "a = cp.zeros(3)\n"
        "a + 1; 2 * a; a == a; cp.add(a, a)\n"
        # A prediction that is wrong.
        "ufunc.result_shape = lambda shapes: (4,)\n"
        "a - a\n"
    )
    ended = xpool_run("-c", program, env={"XPOOL_AUDIT": "1"})
    assert ended.returncode == 0, ended.stderr
    assert "audit: 6 predictions, 1 mismatches" in ended.stderr
    assert "mismatch: cupy.subtract: " in ended.stderr


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


def test_what_is_refused_is_refused_at_the_call(xpool_run: Runner) -> None:
    ended = xpool_run("--memory", "256MiB", str(PROGRAMS / "arrays_hostile.py"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "refused what has to be\n"


def test_torch_and_arrays_share_one_quota(xpool_run: Runner) -> None:
    program = (
        "import torch, cupy as cp\n"
        "kept = torch.empty(160 << 20, dtype=torch.uint8, device='cuda')\n"
        "try: cp.zeros(160 << 20, dtype=cp.uint8)\n"
        "except cp.cuda.memory.OutOfMemoryError: print('arrays are refused')\n"
        "del kept\n"
        "held = cp.zeros(160 << 20, dtype=cp.uint8)\n"
        "try:\n"
        "    torch.empty(160 << 20, dtype=torch.uint8, device='cuda').fill_(1)\n"
        "    torch.cuda.synchronize()\n"
        "except torch.OutOfMemoryError: print('tensors are refused')\n"
        "print(int(held.sum()))\n"
    )
    ended = xpool_run("--memory", "256MiB", "-c", program)
    lines = ended.stdout.splitlines()
    assert lines == ["arrays are refused", "tensors are refused", "0"], ended.stderr


def test_sparse_matrices_share_it_and_give_back(xpool_run: Runner) -> None:
    program = (
        "import cupy as cp, cupyx.scipy.sparse as sparse\n"
        "pool = cp.get_default_memory_pool()\n"
        "before = pool.used_bytes()\n"
        "held = sparse.eye(20 << 20)\n"  # 160 MiB of float64
        "print((pool.used_bytes() - before) >> 20)\n"
        "try: sparse.eye(20 << 20)\n"
        "except cp.cuda.memory.OutOfMemoryError: print('a second one is refused')\n"
        "del held\n"
        "print(pool.used_bytes() - before)\n"
        "held = sparse.eye(20 << 20)\n"
        "try: cp.zeros(160 << 20, dtype=cp.uint8)\n"
        "except cp.cuda.memory.OutOfMemoryError: print('an array, too')\n"
        "data = held.data\n"  # the matrix's own memory, charged once
        "del held\n"
        "print(data.shape, float(data.sum()))\n"
        "del data\n"
        "print(int(cp.zeros(160 << 20, dtype=cp.uint8).sum()))\n"
    )
    ended = xpool_run("--memory", "256MiB", "-c", program)
    assert ended.stdout.splitlines() == [
        *("160", "a second one is refused", "0", "an array, too"),
        *("(1, 20971520) 20971520.0", "0"),
    ], ended.stderr


def test_a_foreign_record_ends_only_that_session(xpool_run: Runner) -> None:
    program = (
        "import cupy as cp\n"
        "from xpool.cupy.device import device\n"
        "a = cp.zeros(3)\n"
        "names = 'os.system', 'numpy.load', 'cupy.__dict__', 'ndarray.__class__'\n"
        "for name in names:\n"
        "    try: device().call(name, (a,), {})\n"
        "    except NotImplementedError as error: print('no', name)\n"
        "try: device().request('cupy.negative', bytes.fromhex('0121ff7f00'))\n"
        "except RuntimeError as error: print('does not exist' in str(error))\n"
        "try: device().request('cupy.negative', bytes.fromhex('01ff00'))\n"
        "except RuntimeError as error: print('array value tag 255' in str(error))\n"
    )
    ended = xpool_run("-c", program)
    assert ended.stdout.splitlines() == [
        *("no os.system", "no numpy.load", "no cupy.__dict__", "no ndarray.__class__"),
        *("True", "True"),
    ], ended.stderr
