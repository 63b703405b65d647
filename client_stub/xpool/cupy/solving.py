"""Where a solver runs: on the server, or here if it calls the program's functions.

CuPy's table has each solver's signature. With matrices alone the call goes to the
server as it is; otherwise what ``@solver`` registers runs here, over arrays of the
device, with every argument that the signature has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from xpool_protocol.arrays.api import api

from xpool.cupy.answers import RemoteObject
from xpool.cupy.functions import call, own, signature_of
from xpool.cupy.linear_operators import LinearOperator, MatrixOperator
from xpool.cupy.ndarray import ndarray

_MODULE = "cupyx.scipy.sparse.linalg"
F = TypeVar("F", bound=Callable[..., Any])


def solver(
    name: str, begin: Callable[[dict[str, Any]], bool] = lambda given: False
) -> Callable[[F], F]:
    """Register what stands in for a solver where functions of the program take part.

    Args:
        name: of the solver.
        begin: what happens first, wherever it runs, with what the program gives;
            whether it runs here in any case.

    What is registered is called with the signature's first two arguments, and ``x0`` if
    that is the third, by place; with all others by name.
    """
    full = f"{_MODULE}.{name}"
    signature = signature_of(api()[_MODULE][name][1])
    assert signature is not None
    first = list(signature.parameters)[:3]
    by_place = first if first[-1] == "x0" else first[:2]

    def register(run: F) -> F:
        def solve(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            given = {key: _plain(value) for key, value in bound.arguments.items()}
            is_here = begin(given) or given.get("callback") is not None
            if not is_here and not any(map(_calls, given.values())):
                places = [given.pop(key) for key in first[:2] if key in given]
                return call(full, places, given)
            bound.arguments.update(given)
            bound.apply_defaults()
            every = dict(bound.arguments)
            return run(*[every.pop(key) for key in by_place], **every)

        solve.__doc__ = f"``{name}``, here if the program's functions take part."
        own(full)(solve)
        return run

    return register


def _plain(value: Any) -> Any:
    """An operator of a matrix as the matrix."""
    return value.A if isinstance(value, MatrixOperator) else value


def _calls(value: Any) -> bool:
    """Whether it is an operator of the program's functions, or what looks like one."""
    if isinstance(value, ndarray | RemoteObject):
        return False
    return isinstance(value, LinearOperator) or callable(getattr(value, "matvec", None))


def dot(a: ndarray, b: ndarray) -> Any:
    """The product of two vectors, the first one conjugated; it is not read."""
    return call("cupy.vdot", (a, b), {})


def norm(a: ndarray) -> float:
    """A vector's length; waits for it."""
    return math.sqrt(abs(float(dot(a, a).real)))
