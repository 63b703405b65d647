"""Calls that have been made before: what their record holds, but for its numbers.

A call of one array and plain values is looked up under the array's geometry and all the
values with their types: everything that a rule can look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from xpool.cupy.device import device, encode_arguments

if TYPE_CHECKING:
    from xpool.cupy.geometry import Geometry
    from xpool.cupy.ndarray import ndarray

MAX_KNOWN: Final = 1 << 14

_PLAIN: Final = frozenset({int, float, bool, str, type(None)})

Key = tuple[Any, ...]


def key_of(geo: Geometry, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
    """What a call is known by; empty if it can't be."""
    if kwargs:
        values = (*args, *kwargs.values())
        kinds = tuple(map(type, values))
        if not _PLAIN.issuperset(kinds):
            return ()
        return (geo, *values, *kinds, *kwargs)
    kinds = tuple(map(type, args))
    return (geo, *args, *kinds) if _PLAIN.issuperset(kinds) else ()


class KnownCalls:
    """Of one operation."""

    def __init__(
        self, name: str, make: Callable[[Geometry, int], ndarray], *, is_view: bool
    ) -> None:
        """None yet.

        Args:
            name: of the operation.
            make: a new array from its geometry and its charge.
            is_view: its results take no memory of their own, or may take none.
        """
        self._name, self._make, self._is_view = name, make, is_view
        self._known: dict[Key, tuple[bytes, Geometry, bytes, bytes]] = {}

    def keep(
        self, key: Key, geo: Geometry, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Remember a call that has been queued.

        Args:
            key: from ``key_of``.
            geo: of its result.
            args: those behind the array, as they were sent.
            kwargs: likewise.
        """
        where = device()
        if not key or where.audit is not None:
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        # None takes one byte, which the array's reference will stand for.
        count, rest = encode_arguments((None, *args), kwargs).split(b"\x00", 1)
        head = where.head(self._name, 1)
        self._known[key] = head, geo, geo.wire + count, rest

    def repeat(self, key: Key, source: ndarray) -> ndarray | None:
        """Queue a call once more; None if it has not been made before."""
        found = self._known.get(key)
        if found is None:
            return None
        head, geo, before, behind = found
        array = self._make(geo, 0 if self._is_view else geo.charge_nbytes)
        if self._is_view:
            array._base = source if source._base is None else source._base
        device().post_new(head + array._ref[1:] + before + source._ref + behind)
        return array
