"""Whether arrays share memory: known here, or asked for once for each view."""

from __future__ import annotations

from typing import Any, Final

from xpool.cupy.device import device
from xpool.cupy.encoding import device_of, is_predicted
from xpool.cupy.functions import own
from xpool.cupy.ndarray import ndarray

MAX_KNOWN: Final = 1 << 14

Bounds = tuple[int, int]
"""Where an array's items begin and end, in bytes of its owner's memory."""

_known: Final[dict[int, Bounds | None]] = {}
"""By number; None: its memory is not that of the array that it was made from."""


@own("cupy.may_share_memory")
def may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Whether the bounds of two arrays' memory overlap.

    Raises:
        NotImplementedError: ``max_work`` is given.
        TypeError: one is no array.
    """
    if max_work is not None:
        raise NotImplementedError("Only supported for `max_work` is `None`")
    return _overlap(a, b)


@own("cupy.shares_memory")
def shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Whether two arrays have a byte in common.

    Raises:
        NotImplementedError: ``max_work`` is a number.
        TypeError: one is no array.
    """
    if max_work not in (None, "MAY_SHARE_BOUNDS", "MAY_SHARE_EXACT"):
        raise NotImplementedError("Not supported for integer `max_work`.")
    if not _overlap(a, b):
        return False
    if max_work == "MAY_SHARE_BOUNDS" or a is b:
        return True
    if _home(a) is _home(b) and any(
        _home(one) is one and _is_owner(one) for one in (a, b)
    ):
        return True  # new memory is items without gaps
    return _ask("cupy.shares_memory", a, b)


def _overlap(a: Any, b: Any) -> bool:
    for one in (a, b):
        if not isinstance(one, ndarray):
            raise TypeError(f"Unsupported type {type(one)}")
    if not a._geo.size or not b._geo.size:
        return False
    if a is b:
        return True
    if device_of(a._number) != device_of(b._number):
        return False
    home, other = _home(a), _home(b)
    if home is other:
        first, second = _bounds(a, home), _bounds(b, home)
        if first is not None and second is not None:
            return first[0] < second[1] and second[0] < first[1]
    elif _is_owner(home) and _is_owner(other):
        return False
    return _ask("cupy.may_share_memory", a, b)


def _ask(name: str, a: ndarray, b: ndarray) -> bool:
    where = device()
    with where.on(device_of(a._number)):
        return bool(where.call(name, (a, b), {}))


def _home(array: ndarray) -> ndarray:
    """The array whose memory it was made from, at the least: reshaping may copy."""
    return array if array._base is None else array._base


def _is_owner(array: ndarray) -> bool:
    """Whether it has memory that is no other array's, but for its views.

    What the server has numbered may lie in memory that an array here has: it may be
    the base of a view, or a part of an object.
    """
    return bool(array._charge) and is_predicted(array._number)


def _bounds(array: ndarray, home: ndarray) -> Bounds | None:
    """In the memory of ``home``; None if that is not the array's."""
    if array is home and _is_owner(home):
        return 0, home._geo.nbytes
    number = array._number
    if number not in _known:
        where = device()
        with where.on(device_of(number)):
            (found,) = where.call("xpool.bounds", (home, (array,)), {})
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[number] = found
        return found
    return _known[number]
