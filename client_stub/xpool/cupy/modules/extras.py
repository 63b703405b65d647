"""Small parts of ``cupyx``, and modules that hold others."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

from xpool.cupy.filling import CLASSES
from xpool.cupy.functions import call, linalg_errors, own
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import result_shape

_state = threading.local()


class broadcast:  # noqa: N801  CuPy's name
    """Arrays broadcast against one another."""

    def __init__(self, *arrays: Any) -> None:
        shapes = [one.shape if isinstance(one, ndarray) else () for one in arrays]
        self.shape = result_shape(shapes)
        self.values = tuple(
            call("cupy.broadcast_to", (one, self.shape), {})
            if isinstance(one, ndarray)
            else one
            for one in arrays
        )
        self.nd = len(self.shape)
        self.size = math.prod(self.shape)


broadcast.__module__ = "cupy"
CLASSES["cupy.broadcast"] = broadcast


@own("cupy.isfortran")
def isfortran(a: Any) -> bool:
    """Whether an array, of the host or not, lies in Fortran's order and not in C's."""
    return bool(a.flags.fnc)


@own("cupyx.geterr")
def geterr() -> dict[str, Any]:
    """What is done about errors; only ``linalg`` can be set."""
    return {
        "divide": None,
        "over": None,
        "under": None,
        "invalid": None,
        "linalg": getattr(_state, "linalg", "ignore"),
    }


@own("cupyx.seterr")
def seterr(
    *,
    divide: Any = None,
    over: Any = None,
    under: Any = None,
    invalid: Any = None,
    linalg: Any = None,
) -> dict[str, Any]:
    """Say what is done about matrices that can't be inverted or decomposed."""
    before = geterr()
    if any(one is not None for one in (divide, over, under, invalid)):
        raise NotImplementedError
    if linalg not in (None, "ignore", "raise"):
        raise NotImplementedError
    if linalg is not None:
        _set_linalg(linalg)
    return before


@own("cupyx.errstate")
@contextlib.contextmanager
def errstate(**states: Any) -> Iterator[None]:
    """``seterr`` for a block."""
    before = seterr(**states)
    try:
        yield
    finally:
        _set_linalg(before["linalg"])


def _set_linalg(value: Any) -> None:
    _state.linalg = value
    linalg_errors.is_raised = value == "raise"
