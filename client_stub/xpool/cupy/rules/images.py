"""Filters of images: the result looks like the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from xpool.cupy.functions import RULES
from xpool.cupy.geometry import Geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray

_MODES: Final = ("reflect", "constant", "nearest", "mirror", "wrap")
_KINDS: Final = "fd"
_NUMBERS: Final = "bhilBHILfd"
"""Of images whose items only count: their filters' results are of the same dtype."""


def _image(
    image: Any, output: Any, mode: Any, cval: Any, kinds: str = _KINDS
) -> Geometry:
    """The geometry of an image that nothing converts.

    Raises:
        NoRule: it is another thing, or what is to be done at its edges is unusual.
    """
    if type(image) is not ndarray or output is not None or mode not in _MODES:
        raise NoRule
    geo = image._geo
    if geo.dtype.char not in kinds or not geo.ndim or not geo.size:
        raise NoRule
    if type(cval) not in (int, float):
        raise NoRule
    return geo


def _is_within(value: Any, low: float, high: float, count: int) -> bool:
    """Whether a number, or one for each axis, is plain and in bounds."""
    several = value if type(value) in (tuple, list) else (value,) * count
    return len(several) == count and all(
        type(one) in (int, float) and low <= one <= high for one in several
    )


def _check_window(size: Any, origin: Any) -> None:
    """A plain size, in the middle.

    Raises:
        NoRule: it is not.
    """
    if origin != 0 or type(size) is not int or not 1 <= size <= 1000:
        raise NoRule


def gaussian_filter(
    input: Any,  # noqa: A002  CuPy's name
    sigma: Any,
    order: Any = 0,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    truncate: Any = 4.0,
) -> Geometry:
    """Each item a mean of those around it."""
    geo = _image(input, output, mode, cval)
    if order != 0 or not _is_within(sigma, 0.1, 1000, geo.ndim):
        raise NoRule
    if not _is_within(truncate, 1, 10, 1):
        raise NoRule
    return geo


def uniform_filter(
    input: Any,  # noqa: A002  CuPy's name
    size: Any = 3,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
) -> Geometry:
    """Each item the mean of those around it."""
    geo = _image(input, output, mode, cval)
    _check_window(size, origin)
    return geo


def _by_rank(
    input: Any,  # noqa: A002  CuPy's name
    size: Any = None,
    footprint: Any = None,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
) -> Geometry:
    """Each item one of those around it."""
    geo = _image(input, output, mode, cval)
    if footprint is not None:
        raise NoRule
    _check_window(size, origin)
    return geo


def _by_weights(
    input: Any,  # noqa: A002  CuPy's name
    weights: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
) -> Geometry:
    geo = _image(input, output, mode, cval, _NUMBERS)
    if type(weights) is not ndarray or origin != 0:
        raise NoRule
    kernel = weights._geo
    if kernel.ndim != geo.ndim or not kernel.size or kernel.dtype.kind not in "iuf":
        raise NoRule
    return geo


def _by_neighbours(axis_first: bool) -> Callable[..., Geometry]:
    """Differences of neighbours; of some filters along one axis."""

    def along(
        input: Any,  # noqa: A002  CuPy's name
        axis: Any = -1,
        output: Any = None,
        mode: Any = "reflect",
        cval: Any = 0.0,
    ) -> Geometry:
        geo = _image(input, output, mode, cval)
        if type(axis) is not int or not -geo.ndim <= axis < geo.ndim:
            raise NoRule
        return geo

    def everywhere(
        input: Any,  # noqa: A002  CuPy's name
        output: Any = None,
        mode: Any = "reflect",
        cval: Any = 0.0,
    ) -> Geometry:
        return _image(input, output, mode, cval)

    return along if axis_first else everywhere


_WHERE: Final = "cupyx.scipy.ndimage"
RULES[f"{_WHERE}.gaussian_filter"] = gaussian_filter
RULES[f"{_WHERE}.uniform_filter"] = uniform_filter
for _name in ("median_filter", "minimum_filter", "maximum_filter"):
    RULES[f"{_WHERE}.{_name}"] = _by_rank
for _name in ("convolve", "correlate"):
    RULES[f"{_WHERE}.{_name}"] = _by_weights
for _name in ("sobel", "prewitt"):
    RULES[f"{_WHERE}.{_name}"] = _by_neighbours(axis_first=True)
RULES[f"{_WHERE}.laplace"] = _by_neighbours(axis_first=False)
