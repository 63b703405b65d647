"""Names that NumPy has given up and CuPy still has, and ``require``."""

from __future__ import annotations

import warnings
from typing import Any

from xpool.cupy import transfer
from xpool.cupy.functions import call, own
from xpool.cupy.geometry import check_dtype
from xpool.cupy.ndarray import ndarray

ALIASES = {
    "alltrue": "all",
    "cumproduct": "cumprod",
    "product": "prod",
    "round_": "around",
    "row_stack": "vstack",
    "sometrue": "any",
    "trapz": "trapezoid",
}
WARNED = frozenset(
    {"alltrue", "cumproduct", "product", "row_stack", "sometrue", "trapz"}
)


def _alias(old: str, new: str) -> Any:
    def alias(*args: Any, **kwargs: Any) -> Any:
        if old in WARNED:
            warnings.warn(
                f"`{old}` is deprecated; use `{new}` instead",
                DeprecationWarning,
                stacklevel=3,
            )
        return call(f"cupy.{new}", args, kwargs)

    alias.__doc__ = f"As ``{new}``."
    return alias


for _old, _new in ALIASES.items():
    own(f"cupy.{_old}")(_alias(_old, _new))


@own("cupy.msort")
def msort(a: Any) -> Any:
    """Sorted along the first axis."""
    return call("cupy.sort", (a,), {"axis": 0})


@own("cupy.in1d")
def in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """Whether each item of one array is in the other."""
    keywords = {"assume_unique": assume_unique, "invert": invert}
    return call("cupy.isin", (transfer.as_array(ar1).ravel(), ar2), keywords)


@own("cupy.require")
def require(a: Any, dtype: Any = None, requirements: Any = None) -> Any:
    """An array that is contiguous as asked, or owns its memory."""
    flags = {str(one).upper() for one in requirements or ()}
    names = {"C_CONTIGUOUS": "C", "CONTIGUOUS": "C", "F_CONTIGUOUS": "F"}
    names |= {"FORTRAN": "F", "OWNDATA": "O"}
    wanted = {names.get(one, one) for one in flags}
    for one in wanted - {"C", "F", "O"}:
        raise ValueError(f'Incorrect flag "{one}" in requirements')
    if {"C", "F"} <= wanted:
        raise ValueError('Cannot specify both "C" and "F" order')
    try:
        found = None if dtype is None else check_dtype(dtype)
    except TypeError as error:
        raise ValueError(f"Incorrect dtype {dtype!r}") from error
    order = "F" if "F" in wanted else "C" if "C" in wanted else "A"
    made = transfer.as_array(a, found, None, order)
    assert isinstance(made, ndarray)
    return made.copy() if "O" in wanted and not made.flags.owndata else made
