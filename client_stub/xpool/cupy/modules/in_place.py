"""Functions that write into an array: queued where they can't fail on the server."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpool.cupy.functions import call, own
from xpool.cupy.host_arguments import places_of, taken, without_host
from xpool.cupy.indexing import assignment_fits
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import result_shape
from xpool.cupy.writing import post_put, post_write


@own("cupy.fill_diagonal")
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Write one value, or values in turn, to a diagonal."""
    given = without_host(a), without_host(val)
    if _takes_diagonal(*given) and type(wrap) is bool:
        post_write("cupy.fill_diagonal", given, {"wrap": wrap})
    else:
        call("cupy.fill_diagonal", given, {"wrap": wrap})


def _takes_diagonal(a: Any, val: Any) -> bool:
    if type(a) is not ndarray or a._geo.ndim < 2 or not a._geo.size:
        return False
    if a._geo.ndim > 2 and len(set(a._geo.shape)) != 1:
        return False
    if type(val) is ndarray:
        return not val._geo.shape and val._geo.dtype == a._geo.dtype
    return _is_number(val) and assignment_fits(a._geo.dtype, (), val, ())


def _is_number(value: Any) -> bool:
    return type(value) in (bool, int, float, complex)


@own("cupy.copyto")
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """Write one array to another; a host array of one item is a scalar."""
    if isinstance(src, np.ndarray):
        if src.size != 1:
            raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
        src = src.reshape(())[()]
    keywords = {"casting": casting, "where": where}
    if _is_copied(dst, src, casting, where):
        post_write("cupy.copyto", (dst, src), keywords)
    else:
        call("cupy.copyto", (dst, src), keywords)


def _is_copied(dst: Any, src: Any, casting: Any, where: Any) -> bool:
    if type(dst) is not ndarray or type(src) is not ndarray:
        return False
    given, kinds = [src], (src._geo.dtype, dst._geo.dtype)
    if where is not None:
        if type(where) is not ndarray or where._geo.dtype.kind != "b":
            return False
        given.append(where)
    if casting not in ("no", "equiv", "safe", "same_kind", "unsafe"):
        return False
    if "V" in (kinds[0].char, kinds[1].char) or not np.can_cast(*kinds, casting):
        return False
    if kinds[0].kind == "c" and kinds[1].kind != "c":
        return False  # NumPy warns
    shape = dst._geo.shape
    try:
        return all(result_shape([one._geo.shape, shape]) == shape for one in given)
    except ValueError:
        return False


_PUT_PLACES = places_of("cupy.put")


@own("cupy.put")
def put(a: Any, ind: Any, v: Any, mode: Any = "wrap") -> None:
    """Write values to the items of these numbers."""
    a, ind, v = taken(_PUT_PLACES, (a, ind, v))
    if not post_put("cupy.put", a, ind, v, mode):
        call("cupy.put", (a, ind, v), {"mode": mode})


def _scatter(name: str) -> None:
    def scatter(a: Any, slices: Any, value: Any) -> None:
        """Compute in place with items that may stand at one place many times."""
        if isinstance(a, ndarray):
            getattr(a, name)(slices, value)
        else:
            call(f"cupyx.{name}", [without_host(one) for one in (a, slices, value)], {})

    own(f"cupyx.{name}")(scatter)


for _name in ("scatter_add", "scatter_max", "scatter_min"):
    _scatter(_name)
