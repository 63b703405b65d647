"""Indexing by hand-written rules: the shape of ``a[key]``, without the server."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpool.cupy.encoding import encode, encode_int, encode_slice, uvarint
from xpool.cupy.geometry import Geometry

INDEX_TYPES = frozenset({int, slice, type(None), type(...)})


class NoRule(Exception):  # noqa: N818  a state
    """The client can't tell what comes out, or what error: ask the server."""


def view_shape(shape: tuple[int, ...], key: Any) -> tuple[int, ...]:
    """Shape of ``a[key]`` where the key is basic.

    Raises:
        NoRule: it is not.
        IndexError: out of bounds, or too many indices.
    """
    return basic_index(shape, key)[0]


def basic_index(shape: tuple[int, ...], key: Any) -> tuple[tuple[int, ...], bytes]:
    """Shape of ``a[key]`` where the key is basic, and the key as ``encode`` has it.

    Raises:
        NoRule: it is not.
        IndexError: out of bounds, or too many indices.
    """
    kind = type(key)
    if kind is tuple:
        return _tuple_index(shape, key)
    if kind is slice and shape:
        length, wire = _slice_index(key, shape[0])
        return (length, *shape[1:]), wire
    if kind is int:
        if not shape:
            raise IndexError(
                "too many indices for array: array is 0-dimensional, but 1 were indexed"
            )
        if not -shape[0] <= key < shape[0]:
            raise IndexError(
                f"Index {key} is out of bounds for axis 0 with size {shape[0]}"
            )
        return shape[1:], encode_int(key)
    return _tuple_index(shape, (key,))[0], encode(key)


def _tuple_index(
    shape: tuple[int, ...], key: tuple[Any, ...]
) -> tuple[tuple[int, ...], bytes]:
    consumed, has_ellipsis = 0, False
    for one in key:
        kind = type(one)
        if kind is int or kind is slice:
            consumed += 1
        elif one is Ellipsis:
            if has_ellipsis:
                raise IndexError("an index can only have a single ellipsis ('...')")
            has_ellipsis = True
        elif one is not None:
            raise NoRule
    if consumed > len(shape):
        raise IndexError(
            f"too many indices for array: array is {len(shape)}-dimensional, but"
            f" {consumed} were indexed"
        )
    out: list[int] = []
    wire = [b"\x20", uvarint(len(key))]
    at = 0
    for one in key:
        if type(one) is int:
            size = shape[at]
            if not -size <= one < size:
                raise IndexError(
                    f"Index {one} is out of bounds for axis {at} with size {size}"
                )
            wire.append(encode_int(one))
            at += 1
        elif one is None:
            out.append(1)
            wire.append(b"\x00")
        elif one is Ellipsis:
            skipped = len(shape) - consumed
            out += shape[at : at + skipped]
            at += skipped
            wire.append(b"\x23")
        else:
            length, part = _slice_index(one, shape[at])
            out.append(length)
            wire.append(part)
            at += 1
    out += shape[at:]
    return tuple(out), b"".join(wire)


def picked_shape(shape: tuple[int, ...], key: tuple[Any, ...]) -> tuple[int, ...]:
    """Shape of ``a[key]`` where arrays of integers pick items: that can't fail.

    Args:
        shape: of ``a``.
        key: arrays in it are their ``Geometry``.

    Raises:
        NoRule: something else is in the key, or NumPy and CuPy may differ.
    """
    # Integers beside arrays are arrays to NumPy; apart from them they may be not.
    at = [place for place, one in enumerate(key) if type(one) in (Geometry, int)]
    if not at or at[-1] - at[0] >= len(at):
        raise NoRule
    picking = key[at[0] : at[-1] + 1]
    arrays = [one for one in picking if type(one) is Geometry]
    if not arrays or not all(
        one.dtype.kind in "iu" and one.dtype.char not in "LQ" for one in arrays
    ):
        raise NoRule
    others = [one for one in key if type(one) not in (Geometry, int)]
    if others.count(...) > 1:
        raise NoRule
    consumed = sum(one is not None and one is not Ellipsis for one in key)
    if consumed > len(shape):
        raise NoRule
    before, behind = key[: at[0]], key[at[-1] + 1 :]
    first = sum(type(one) is slice for one in before)
    if Ellipsis in before:
        first = len(shape) - sum(type(one) is slice for one in behind) - len(picking)
    last = first + len(picking)
    if 0 in shape[first:last]:
        raise NoRule
    for one, size in zip(picking, shape[first:last], strict=True):
        if type(one) is int and not -size <= one < size:
            raise NoRule
    picked = broadcast_shape([one.shape for one in arrays])
    return (
        *view_shape(shape[:first], before),
        *picked,
        *view_shape(shape[last:], behind),
    )


def broadcast_shape(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that all of these are broadcast to.

    Raises:
        NoRule: there is none.
    """
    if len(shapes) == 1:
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise NoRule from None


def is_mask(shape: tuple[int, ...], key: Any) -> bool:
    """Whether a key is one array of Booleans that fits the first axes."""
    return (
        type(key) is Geometry
        and key.dtype.kind == "b"
        and key.ndim > 0
        and key.shape == shape[: key.ndim]
    )


def _slice_index(key: slice, size: int) -> tuple[int, bytes]:
    """How many items a slice of an axis has, and the slice as ``encode`` has it."""
    start, stop, step = key.start, key.stop, key.step
    for part in (start, stop, step):
        if part is not None and type(part) is not int:
            raise NoRule
    if start is None and stop is None and (step is None or step == 1):
        return size, encode_slice(None, None, step)
    if step is None and start is not None and stop is not None:
        length = min(size, stop) - start
        if start >= 0 and stop >= 0:
            return max(0, length), encode_slice(start, stop, None)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    return len(range(*key.indices(size))), encode_slice(start, stop, step)


def assignment_fits(
    dtype: np.dtype[Any], shape: tuple[int, ...], value: Any, given: tuple[int, ...]
) -> bool:
    """Whether an assignment to a basic view can't fail on the server."""
    kind = type(value)
    if kind is int:
        if dtype.kind in "iu":
            info = _INFO[dtype.char]
            return info.min <= value <= info.max
        return -(1 << 63) <= value < 1 << 64
    is_complex = kind is complex or getattr(value, "dtype", dtype).kind == "c"
    if is_complex and dtype.kind != "c":
        return False
    if given == shape or not given:
        return True
    if len(given) > len(shape):
        return False
    return all(
        one in (1, size)
        for one, size in zip(reversed(given), reversed(shape), strict=False)
    )


_INFO = {char: np.iinfo(char) for char in "bBhHiIlLqQ"}
