"""Host arrays among a function's arguments: where CuPy takes them, and as what.

Most of CuPy's functions refuse NumPy arrays. Some make arrays of the device of them,
some read them as plain numbers (a shape, percentiles), and some only call the method of
their name, so that a NumPy array's answer is NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import check_operands

TAKES_HOST_ARRAYS: Final = (
    "cupy.random.",
    "cupy.testing.",
    "cupyx.scipy.",
    "cupyx.signal.complex_cepstrum",
    "cupyx.signal.firfilter2",
    "cupyx.signal.freq_shift",
    "cupyx.signal.inverse_complex_cepstrum",
    "cupyx.signal.minimum_phase",
    "cupyx.signal.real_cepstrum",
    "cupy.average",
    "cupy.einsum",
    "cupy.histogram",
    "cupy.append",
    "cupy.delete",
    "cupy.unwrap",
    "cupy.place",
    "cupy.searchsorted",
    "cupy.asarray_chkfinite",
    "cupy.require",
    "cupy.gradient",
)
"""Beginnings of functions that take NumPy arrays, as CuPy's do."""

BY_METHOD: Final = frozenset(
    f"cupy.{name}"
    for name in (
        *("sum", "prod", "max", "min", "amax", "amin", "mean", "std", "var", "ptp"),
        *("argmax", "argmin", "argsort", "argpartition", "partition", "sort"),
        *("reshape", "ravel", "squeeze", "transpose", "swapaxes", "fliplr", "flipud"),
        *("clip", "copy", "diagonal", "dot", "repeat", "take", "trace"),
    )
)
"""Functions that only call their argument's method: a NumPy array's gives NumPy's."""

_REFUSED, _UPLOADED, _BY_VALUE = "-", "a", "n"
_PLACES: Final = {
    f"cupy.{name}": places
    for places, names in {
        _UPLOADED: (
            *("allclose", "apply_over_axes", "around", "corrcoef", "cov", "cross"),
            *("diag", "diagflat", "diff", "fft.fftshift", "fft.ifftshift", "imag"),
            *("isclose", "linalg.cond", "linspace", "real", "resize", "round"),
            *("isreal", "iscomplex", "tril", "triu", "vander"),
            *("lib.stride_tricks.sliding_window_view", "polynomial.polynomial.polyval"),
            *("atleast_1d", "atleast_2d", "atleast_3d"),
        ),
        _BY_VALUE: ("empty", "full", "ones", "zeros"),
        _REFUSED + _BY_VALUE: (
            *("array_split", "broadcast_to", "dsplit", "hsplit", "percentile"),
            "moveaxis",
            *("quantile", "roll", "split", "unravel_index", "vsplit"),
        ),
        _UPLOADED + _BY_VALUE: ("tile",),
        _REFUSED + _UPLOADED: ("polyval", "put", "take"),
        _UPLOADED + _REFUSED: ("compress", "extract"),
    }.items()
    for name in names
}
"""By function, what becomes of a host array at each place; the last is for the rest."""

ALL_REMOTE: Final = frozenset(
    f"cupy.{name}" for name in ("column_stack", "concat", "concatenate", "stack")
)
"""Functions of a sequence of arrays, none of which may be on the host."""


def without_host(value: Any) -> Any:
    """An argument of a function that takes no host arrays: those of no dimension do.

    Raises:
        TypeError: it is a host array with dimensions.
    """
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim:
        raise TypeError(f"Unsupported type {type(value)}")
    return value[()]


def _placed(value: Any, place: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if place == _REFUSED or not value.ndim:
        return without_host(value)
    if place == _UPLOADED or value.nbytes > transfer.INLINE_NBYTES:
        return transfer.upload(value)
    return value


def places_of(full: str) -> str:
    """What becomes of host arrays at a function's places; the last is for the rest."""
    takes_host = full.startswith(TAKES_HOST_ARRAYS)
    return _PLACES.get(full, _BY_VALUE if takes_host else _REFUSED)


def taken(places: str, args: Sequence[Any]) -> tuple[Any, ...]:
    """A call's arguments by place as the function takes them.

    Raises:
        TypeError: a host array is where it takes none.
    """
    last = len(places) - 1
    return tuple([_placed(one, places[min(last, at)]) for at, one in enumerate(args)])


def named(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name: large host arrays are uploaded."""
    return {name: _placed(one, _BY_VALUE) for name, one in kwargs.items()}


def check_remote(items: Any) -> None:
    """Refuse host arrays in a list of arrays.

    Raises:
        TypeError: one is among them.
    """
    if isinstance(items, list | tuple):
        check_operands(items)


def by_method(full: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What NumPy answers where CuPy would ask a host array's own method.

    Returns:
        ``NotImplemented``: the first argument is no host array, or the function asks
        no method.
    """
    if full not in BY_METHOD or not args or not isinstance(args[0], np.ndarray):
        return NotImplemented
    if any(isinstance(one, ndarray) for one in args):
        return NotImplemented
    return getattr(np, full.removeprefix("cupy."))(*args, **kwargs)
