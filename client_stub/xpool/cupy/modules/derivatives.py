"""Filters made of derivatives that a function of the program takes: it runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpool.cupy.axes import normalized_axes
from xpool.cupy.functions import call, own
from xpool.cupy.geometry import check_dtype
from xpool.cupy.ndarray import ndarray

_MODES = frozenset(
    (
        *("reflect", "constant", "nearest", "mirror", "wrap"),
        *("grid-mirror", "grid-wrap", "grid-constant"),
    )
)


def output_of(output: Any, given: ndarray) -> Any:
    """Where the result goes: a new array, unless there is one.

    Raises:
        RuntimeError: it has another shape.
    """
    if isinstance(output, ndarray):
        if output.shape != given.shape:
            raise RuntimeError("output shape not correct")
        return output
    dtype = given.dtype if output is None else check_dtype(output)
    return call("cupy.empty", (given.shape, dtype), {})


def _axes_and_modes(given: ndarray, axes: Any, mode: Any) -> list[tuple[int, str]]:
    chosen = range(given.ndim) if axes is None else axes
    over = normalized_axes(chosen if np.ndim(chosen) else (chosen,), given.ndim)
    modes = [mode] * len(over) if isinstance(mode, str) else list(mode)
    if len(modes) != len(over):
        raise RuntimeError("mode must have a length that equals the number of axes")
    for one in modes:
        if one not in _MODES:
            raise RuntimeError(f"boundary mode not supported (actual: {one})")
    return list(zip(over, modes, strict=True))


def _parts(
    given: ndarray,
    derivative: Callable[..., Any],
    output: Any,
    over: list[tuple[int, str]],
    cval: float,
    extra_arguments: Any,
    extra_keywords: Any,
) -> Iterator[Any]:
    """The derivatives, axis by axis: the first one stands in the output."""
    rest, keywords = (cval, *extra_arguments), dict(extra_keywords or {})
    (first, mode), *others = over
    derivative(given, first, output, mode, *rest, **keywords)
    yield output
    for axis, mode in others:
        yield derivative(given, axis, output.dtype, mode, *rest, **keywords)


@own("cupyx.scipy.ndimage.generic_laplace")
def generic_laplace(
    input: Any,  # noqa: A002  CuPy's name
    derivative2: Callable[..., Any],
    output: Any = None,
    mode: Any = "reflect",
    cval: float = 0.0,
    extra_arguments: Any = (),
    extra_keywords: Any = None,
    *,
    axes: Any = None,
) -> Any:
    """The sum of second derivatives, which ``derivative2`` takes."""
    over, found = _axes_and_modes(input, axes, mode), output_of(output, input)
    if not over:
        found[...] = input
        return found
    extras = (cval, extra_arguments, extra_keywords)
    parts = _parts(input, derivative2, found, over, *extras)
    next(parts)
    for one in parts:
        found += one
    return found


@own("cupyx.scipy.ndimage.generic_gradient_magnitude")
def generic_gradient_magnitude(
    input: Any,  # noqa: A002  CuPy's name
    derivative: Callable[..., Any],
    output: Any = None,
    mode: Any = "reflect",
    cval: float = 0.0,
    extra_arguments: Any = (),
    extra_keywords: Any = None,
    *,
    axes: Any = None,
) -> Any:
    """The length of the gradient, whose parts ``derivative`` takes."""
    over, found = _axes_and_modes(input, axes, mode), output_of(output, input)
    if not over:
        found[...] = input
        return found
    extras = (cval, extra_arguments, extra_keywords)
    parts = _parts(input, derivative, found, over, *extras)
    next(parts)
    found *= found
    for one in parts:
        one *= one
        found += one
    import cupy

    cupy.sqrt(found, found, casting="unsafe")
    return found
