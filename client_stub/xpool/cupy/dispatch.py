"""NumPy's protocols: what ``numpy.add(cupy_array, 1)`` and ``numpy.sum`` become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from xpool.cupy.ndarray import ndarray

_OPERANDS: Final = (ndarray, np.ndarray, np.generic, int, float, complex)


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
    outs = [one for one in out or () if one is not None]
    if not all(map(_is_known, (*_operands(method, args), *outs))):
        return NotImplemented
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


def _operands(method: str, args: Sequence[Any]) -> Sequence[Any]:
    """What a method of a ufunc computes with: indices and axes are not among it."""
    if method == "at":
        return (args[0], *args[2:])
    return args[:1] if method in ("reduce", "accumulate", "reduceat") else args


def _is_known(value: Any) -> bool:
    """Whether CuPy's ufuncs take it; others may know what to do with the array."""
    if isinstance(value, _OPERANDS):
        return True
    kind = type(value)
    return hasattr(kind, "__cupy_get_ndarray__") or hasattr(
        kind, "__cuda_array_interface__"
    )


def by_numpy_function(
    function: Any, types: Iterable[type], args: Sequence[Any], kwargs: Any
) -> Any:
    """CuPy's function of the same name; ``NotImplemented`` beside foreign arrays."""
    import cupy

    if not all(issubclass(one, ndarray | np.ndarray) for one in types):
        return NotImplemented
    module: Any = cupy
    for part in function.__module__.split(".")[1:]:
        module = getattr(module, part, module)
    remote = getattr(module, function.__name__, None) or getattr(
        cupy, function.__name__, None
    )
    if remote is None or remote is function:
        return NotImplemented
    return remote(*args, **kwargs)
