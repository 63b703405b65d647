"""What the programs of arrays ask of calls and of their device."""

from __future__ import annotations

import contextlib
import sys

import cupy as cp
from xpool.cupy.device import device


def is_real_gpu():
    """Whether a CUDA device executes, and so CuPy itself."""
    return bool(cp.cuda.runtime.getDeviceProperties(0)["major"])


def refused(kind, run, text=""):
    """A call that ends in an error of this class, with this in its text."""
    try:
        run()
    except kind as error:
        assert text in str(error), str(error)
        return
    raise AssertionError(f"{kind} was expected")


@contextlib.contextmanager
def no_round_trip():
    where, real = device(), device().request

    def refuse(name, arguments):
        if name == "xpool.describe" and where.audit is not None:
            return real(name, arguments)
        raise AssertionError(f"{name} waits")

    where.request = refuse
    try:
        yield
    finally:
        del where.request


def run_cases(names):
    """Run a program's functions called ``case_*``, or the one that is its argument.

    Each one's name is printed once it and all that it has sent have ended.
    """
    for name, case in list(names.items()):
        if name.startswith("case_") and sys.argv[1:] in ([], [name]):
            case()
            cp.cuda.Device().synchronize()
            print(name.removeprefix("case_"), flush=True)
