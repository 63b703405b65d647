"""SciPy's own functions over arrays of the drop-in: backends, and its ufuncs' names.

``scipy.fft.set_backend(cupyx.scipy.fft)`` sends SciPy's functions here; the protocol is
uarray's, which SciPy documents under "Backend control".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.finder import module
from xpool.cupy.ndarray import ndarray


def _convert(dispatchables: Iterable[Any], coerce: bool) -> Any:
    """The arrays among a call's arguments, or ``NotImplemented``: none of ours."""
    found = []
    for one in dispatchables:
        value = one.value
        if one.type is np.ndarray and not isinstance(value, ndarray):
            if not (coerce and one.coercible):
                return NotImplemented
            value = transfer.as_array(value)
        found.append(value)
    return found


def _dispatcher(where: ModuleType) -> Callable[..., Any]:
    def dispatch(method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        name = method.__name__
        function = None if name.startswith("_") else getattr(where, name, None)
        return NotImplemented if function is None else function(*args, **kwargs)

    return dispatch


@module("cupyx.scipy.fft", "cupyx.scipy.linalg")
def fill(m: ModuleType) -> None:
    """What makes a module a backend of SciPy's module of the same name."""
    m.__ua_domain__ = f"numpy.{m.__name__.removeprefix('cupyx.')}"  # type: ignore[attr-defined]
    m.__ua_convert__ = _convert  # type: ignore[attr-defined]
    m.__ua_function__ = _dispatcher(m)  # type: ignore[attr-defined]
