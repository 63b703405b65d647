"""From descriptions to NumPy's dtypes and back, for both ends of a session.

``numpy.dtype`` is an argument: the protocol needs no NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpool_protocol.arrays.described import Description, DtypeField, FieldsDtype


def describe(dtype: Any) -> Description:
    """What a dtype without objects looks like.

    Raises:
        ValueError: it has no place on the wire.
    """
    if dtype.hasobject:
        raise ValueError(f"dtype {dtype} holds Python objects")
    fields, names = dtype.fields, dtype.names
    if fields is None or names is None:
        return str(dtype.str)
    described = []
    for name in names:
        inner, offset, *rest = fields[name]
        title = rest[0] if rest else None
        if title is not None and (not isinstance(title, str) or not title):
            raise ValueError(f"the title {title!r} of a field is no text")
        described.append(
            DtypeField(name, title or "", offset, inner.shape, describe(inner.base))
        )
    return FieldsDtype(dtype.itemsize, dtype.isalignedstruct, tuple(described))


def dtype_of(description: Description, make: Callable[..., Any]) -> Any:
    """The dtype that a description means.

    Args:
        description: of it.
        make: ``numpy.dtype``.

    Raises:
        ValueError: NumPy has no such dtype.
    """
    found = _dtype_of(description, make)
    if describe(found) != description:
        raise ValueError(f"dtype {found} was described in another way")
    return found


def _dtype_of(description: Description, make: Callable[..., Any]) -> Any:
    try:
        if isinstance(description, str):
            return make(description)
        fields = description.fields
        spec: dict[str, Any] = {
            "names": [one.name for one in fields],
            "formats": [(_dtype_of(one.dtype, make), one.sizes) for one in fields],
            "offsets": [one.offset for one in fields],
            "itemsize": description.itemsize,
        }
        if any(one.title for one in fields):
            spec["titles"] = [one.title or None for one in fields]
        return make(spec, align=description.is_aligned)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"no dtype: {error}") from error
