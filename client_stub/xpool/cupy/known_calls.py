"""Calls that have been made before: what their record holds, but for its numbers.

A call of arrays and plain values is looked up under the arrays' geometries and all the
values with their types: everything that a rule can look at.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Final

from xpool.cupy.device import device
from xpool.cupy.encoding import encode, uvarint
from xpool.cupy.geometry import DTYPE_OF_CODE, Geometry
from xpool.cupy.ndarray import made, ndarray

MAX_KNOWN: Final = 1 << 12
"""Of one operation. If so many come that are not made again, none is kept any more."""

MAX_DEPTH: Final = 3
"""Of lists within lists."""

_PLAIN: Final = frozenset(
    {
        *(int, float, bool, str, type(None), type(...)),
        *(type(one) for one in DTYPE_OF_CODE.values()),
    }
)
_QUICK: Final = _PLAIN - {float}  # equal floats need not be the same
_SCALAR_TYPES: Final = frozenset(
    {bool, int, float, complex, *(one.type for one in DTYPE_OF_CODE.values())}
)
_LISTS: Final[dict[type, bytes]] = {tuple: b"\x20", list: b"\x07"}
NO_KEYWORDS: Final[Mapping[str, Any]] = types.MappingProxyType({})
_KEYWORDS: Final = object()
"""Stands in a key before keywords."""

Key = tuple[Any, ...]
_Known = tuple[bytes, Geometry, bytes, tuple[bytes, ...]]


def key_of(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Key, Sequence[ndarray]] | None:
    """What a call is known by, and its arrays in order; None if it can't be known."""
    values = (*args, *kwargs.values()) if kwargs else args
    kinds = tuple(map(type, values))
    if args and kinds[0] is ndarray and _QUICK.issuperset(kinds[1:]):
        return (args[0]._geo, *values[1:], *kinds, *kwargs), args[:1]
    key: list[Any] = []
    found: list[ndarray] = []
    for one in args:
        kind = type(one)
        if kind is ndarray:
            found.append(one)
            key.append(one._geo)
        elif not _add(one, kind, key, found):
            return None
    if kwargs:
        key.append(_KEYWORDS)
        for name, one in kwargs.items():
            key.append(name)
            if not _add(one, type(one), key, found):
                return None
    return tuple(key), found


def _add(
    one: Any, kind: type, key: list[Any], found: list[ndarray], depth: int = 0
) -> bool:
    """Add an argument; whether a call with it can be known."""
    if kind in _PLAIN:
        # Of the floats that are equal, two differ.
        key += (kind, one if kind is not float or one else str(one))
        return True
    if kind is ndarray:
        found.append(one)
        key.append(one._geo)
        return True
    if kind is type and one in _SCALAR_TYPES:
        key += (kind, one)
        return True
    if kind is slice:
        one, length = (one.start, one.stop, one.step), None
    elif kind in _LISTS and depth < MAX_DEPTH:
        length = len(one)
    else:
        return False
    key += (kind, length)
    return all(_add(item, type(item), key, found, depth + 1) for item in one)


class KnownCalls:
    """Of one operation."""

    def __init__(self, name: str, *, is_view: bool) -> None:
        """None yet.

        Args:
            name: of the operation.
            is_view: its results take no memory of their own, or may take none.
        """
        self._name, self._is_view = name, is_view
        self._known: dict[Key, _Known] = {}
        self._seen: dict[Key, object] = {}
        """While all is audited: what would be known."""
        self._repeated = 0
        self._is_worth = True

    def repeat(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] = NO_KEYWORDS
    ) -> ndarray | None:
        """Queue a call once more; None if it has not been made before."""
        looked_up = key_of(args, kwargs) if self._known else None
        if looked_up is None:
            return None
        key, given = looked_up
        found = self._known.get(key)
        if found is None:
            return None
        self._repeated += 1
        head, geo, before, pieces = found
        array = made(geo, 0 if self._is_view else geo.charge_nbytes)
        if self._is_view and given:
            source = given[0]
            array._base = source if source._base is None else source._base
        if len(given) == 1:
            record: tuple[bytes, ...] = (
                head,
                array._ref[1:],
                before,
                given[0]._ref,
                pieces[0],
            )
        else:
            parts = [head, array._ref[1:], before]
            for one, behind in zip(given, pieces, strict=True):
                parts += (one._ref, behind)
            record = tuple(parts)
        device().post_new(b"".join(record))
        return array

    def keep(
        self,
        given: tuple[Sequence[Any], Mapping[str, Any]],
        geo: Geometry,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] = NO_KEYWORDS,
    ) -> None:
        """Remember a call.

        Args:
            given: its arguments and keywords, as ``repeat`` gets them.
            geo: of its result, which follows from what ``given`` is known by.
            args: as they are sent.
            kwargs: likewise.
        """
        where = device()
        audit = where.audit
        if not self._is_worth or (audit is not None and not audit.sees_repeats):
            return
        looked_up = key_of(*given)
        if looked_up is None:
            return
        key, found = looked_up
        if max(len(self._known), len(self._seen)) >= MAX_KNOWN:
            self._known.clear()
            self._seen.clear()
            self._is_worth = self._repeated > MAX_KNOWN or audit is not None
            self._repeated = 0
        pieces = [geo.wire + uvarint(len(args))]
        for one in args:
            _split(one, pieces)
        pieces[-1] += uvarint(len(kwargs))
        for name, one in kwargs.items():
            text = name.encode()
            pieces[-1] += uvarint(len(text)) + text
            _split(one, pieces)
        if len(pieces) != len(found) + 1:
            return  # an array was sent as the number that it held
        known = where.head(self._name, 1), geo, pieces[0], tuple(pieces[1:])
        if audit is None:
            self._known[key] = known
        else:
            # Each call is made the long way, and compared with what would be repeated.
            made_of = known[0], geo.shape, geo.dtype, *known[2:]
            before = self._seen.setdefault(key, made_of)
            audit.compare(self._name, before, made_of)


def _split(value: Any, pieces: list[bytes]) -> None:
    """Encode an argument, in pieces between the arrays."""
    if type(value) is ndarray:
        pieces.append(b"")
    elif type(value) in _LISTS:
        pieces[-1] += _LISTS[type(value)] + uvarint(len(value))
        for one in value:
            _split(one, pieces)
    else:
        pieces[-1] += encode(value)
