"""NumPy's protocols: what ``numpy.add(cupy_array, 1)`` and ``numpy.sum`` become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def by_numpy_ufunc(
    function: Any, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """CuPy's ufunc of the same name; ``NotImplemented`` where host arrays take part."""
    import cupy  # type: ignore[import-not-found,unused-ignore]

    remote = getattr(cupy, function.__name__, None) or _of_scipy(function)
    if remote is None or any(isinstance(one, np.ndarray) and one.ndim for one in args):
        return NotImplemented
    keywords = dict(kwargs)
    out = keywords.pop("out", None)
    if out is not None:
        if any(isinstance(one, np.ndarray) for one in out):
            return NotImplemented
        keywords["out"] = out[0] if len(out) == 1 else out
    given = [one[()] if isinstance(one, np.ndarray) else one for one in args]
    called = remote if method == "__call__" else getattr(remote, method)
    return called(*given, **keywords)


def _of_scipy(function: Any) -> Any:
    """CuPy's twin of a ufunc of ``scipy.special``; None if there is none."""
    import cupyx.scipy.special  # type: ignore[import-not-found,unused-ignore]

    return getattr(cupyx.scipy.special, function.__name__, None)


def by_numpy_function(function: Any, args: Sequence[Any], kwargs: Any) -> Any:
    """CuPy's function of the same name."""
    import cupy

    module: Any = cupy
    for part in function.__module__.split(".")[1:]:
        module = getattr(module, part, module)
    remote = getattr(module, function.__name__, None) or getattr(
        cupy, function.__name__, None
    )
    if remote is None or remote is function:
        return NotImplemented
    return remote(*args, **kwargs)
