"""Dtypes with fields, and of plain bytes: what CuPy takes of them, and their codes.

A dtype is described to the server once, and has a code from then on. Which dtypes can
be used for what is CuPy's rule: any can be stored and viewed, but a computation wants
its fields aligned as a GPU does.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
from xpool_protocol import limits
from xpool_protocol.arrays.described import count_fields, write_description
from xpool_protocol.arrays.numpy_dtypes import describe
from xpool_protocol.arrays.records import DefineArrayDtype, write_array_record
from xpool_protocol.errors import PeerError
from xpool_protocol.wire import Writer

ALIGNMENTS: Final = {"F": 8, "D": 16}
"""Of dtypes whose alignment on a GPU is not that of their parts on the host."""


class UnsupportedDtype(ValueError):  # noqa: N818  CuPy's is a plain ValueError
    """No array can have this dtype, wherever it is asked for."""


_codes: dict[tuple[np.dtype[Any], bool], int] = {}
_lock = threading.RLock()
_fields = [0]


def code_of(dtype: np.dtype[Any]) -> int:
    """The code of a dtype with fields, or of plain bytes; described at its first use.

    Raises:
        ValueError: it can't be described, or the session has too many.
    """
    key = (dtype, dtype.isalignedstruct)
    found = _codes.get(key)
    if found is not None:
        return found
    with _lock:
        if key not in _codes:
            _codes[key] = _define(dtype)
        return _codes[key]


def _define(dtype: np.dtype[Any]) -> int:
    from xpool.cupy.device import device

    description = describe(dtype)
    _fields[0] += count_fields(description)
    if len(_codes) >= limits.MAX_ARRAY_DTYPES or _fields[0] > limits.MAX_SESSION_FIELDS:
        raise ValueError("xpool: a program can't use as many structured dtypes")
    code = limits.FIRST_ARRAY_DTYPE + len(_codes)
    writer = Writer()
    try:
        write_description(writer, description)
        writer = Writer()
        write_array_record(writer, DefineArrayDtype(code, description))
    except PeerError as error:
        raise ValueError(f"Unsupported dtype {dtype}: {error}") from error
    device().define(bytes(writer.buffer))
    return code


def check_stored(dtype: np.dtype[Any]) -> None:
    """Refuse a void dtype that no array can have.

    Raises:
        ValueError: it holds objects, is an array itself, or has no bytes.
    """
    if dtype.hasobject:
        raise UnsupportedDtype(
            f"Unsupported dtype {dtype} because it contains references which cannot be"
            " supported by CuPy.\nThis may happen even if a dtype only contains basic"
            " types if the original array contained e.g. object dtype."
        )
    if dtype.subdtype is not None or not dtype.itemsize:
        raise UnsupportedDtype(f"Unsupported dtype {dtype}")


def alignment(dtype: np.dtype[Any]) -> int:
    """What a GPU wants an item without fields to be aligned to, in bytes.

    Raises:
        ValueError: it is an array of items with fields, or nothing that a GPU has.
    """
    if dtype.subdtype is not None:
        if dtype.base.names is not None:
            raise ValueError("CuPy does not yet support subarray dtypes.")
        return alignment(dtype.base)
    if dtype.kind == "V":
        return 1
    if dtype.kind not in "?biufc" or dtype.itemsize > 16 or not dtype.isnative:
        raise ValueError(f"Unsupported dtype {dtype}")
    return ALIGNMENTS.get(dtype.char, dtype.itemsize)


def check_computed(dtype: np.dtype[Any]) -> int:
    """Refuse a dtype with which no kernel can be launched; its alignment.

    Raises:
        ValueError: a field is not aligned, or the itemsize is none of an aligned item.
    """
    if dtype.names is None or dtype.fields is None:
        if dtype.subdtype is not None:
            raise ValueError(f"Unsupported dtype {dtype}")
        return alignment(dtype)
    whole = _wished(dtype) or dtype.alignment
    for name in dtype.names:
        inner, offset, *_ = dtype.fields[name]
        own = _wished(inner) or check_computed(inner)
        whole = max(whole, own)
        if offset % own:
            raise ValueError(
                f"Field {name} with offset {offset} is not aligned to {own} in dtype"
                f" {dtype}. This is not supported by CuPy please ensure the structure"
                " is aligned. You can do so with the `make_aligned_dtype()` helper."
            )
    if dtype.itemsize % whole:
        raise ValueError(
            f"Itemsize {dtype.itemsize} is not a multiple of alignment {whole} for"
            f" dtype {dtype} and kernel launches are not supported. You can ensure"
            " compatibility with the `make_aligned_dtype()` helper (or try"
            " `align=True`)."
        )
    return whole


def _wished(dtype: np.dtype[Any]) -> int:
    """An alignment that ``make_aligned_dtype`` was asked for; 0: none."""
    metadata: Any = dtype.metadata
    return int(metadata.get("__cuda_alignment__", 0)) if metadata else 0


def make_aligned(dtype: Any, *, alignment: int = -1, recurse: bool = True) -> Any:
    """The dtype with its fields laid out as a GPU wants them.

    Raises:
        ValueError: it has no fields, or they do not lie one behind the other.
    """
    found = np.dtype(dtype, align=True)
    if found.names is None:
        raise ValueError("make_aligned_dtype() only supports structured dtypes.")
    if alignment != -1 and (alignment <= 0 or alignment & (alignment - 1)):
        raise ValueError("Reasonable alignments must be >0 and a power of 2.")
    return _aligned(found, alignment, recurse)[0]


def _aligned(dtype: np.dtype[Any], wanted: int, recurse: bool) -> tuple[Any, int]:
    assert dtype.fields is not None
    assert dtype.names is not None
    formats: list[np.dtype[Any]] = []
    offsets: list[int] = []
    end, whole, least = 0, 1, 0
    for name in dtype.names:
        inner, offset, *_ = dtype.fields[name]
        if offset < least:
            raise ValueError(
                "make_aligned_dtype() only supports well behaved in-order fields as it"
                " ignores field offsets."
            )
        least = offset + inner.itemsize
        own = _wished(inner)
        if not own and inner.names is None:
            own = alignment(inner)
        elif not own and not recurse:
            own = inner.alignment
        elif not own:
            inner, own = _aligned(inner, -1, recurse)
        end += -end % own
        whole = max(whole, own)
        formats.append(inner)
        offsets.append(end)
        end += inner.itemsize
    metadata: dict[str, Any] = {}
    if wanted != -1:
        if wanted < whole:
            raise ValueError(
                f"make_aligned_dtype(): given alignment={wanted} smaller than minimum"
                f" alignment {whole}"
            )
        whole, metadata = wanted, {"metadata": {"__cuda_alignment__": wanted}}
    itemsize = end + -end % whole
    if dtype.itemsize > itemsize:
        raise ValueError("Input descriptor had larger itemsize than inferred.")
    layout: Any = {
        "names": list(dtype.names),
        "formats": formats,
        "offsets": offsets,
        "itemsize": itemsize,
    }
    return np.dtype(layout, align=True, **metadata), whole


def is_field_key(key: Any) -> bool:
    """Whether an index names fields: a text, or a list of them."""
    return isinstance(key, str) or (
        isinstance(key, list) and all(isinstance(one, str) for one in key)
    )


def field_dtype(dtype: np.dtype[Any], key: Any) -> tuple[np.dtype[Any], int]:
    """Dtype and offset of a field, or of an item with the named fields alone.

    Raises:
        ValueError: there is no such field, or it is an array of items.
        KeyError: the same, of a list.
    """
    if isinstance(key, list):
        return dtype[key], 0
    assert dtype.fields is not None
    if key not in dtype.fields:
        raise ValueError(f"no field name of {key}")
    inner, offset, *_ = dtype.fields[key]
    if inner.shape:
        raise ValueError(
            "CuPy does not yet support accessing nested subarrays, please open an issue"
            " if you need this support."
        )
    return inner, offset


def check_field_aligned(
    dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Refuse a field whose items a GPU could not read.

    Raises:
        ValueError: they are not aligned.
    """
    if dtype.kind == "V" or 0 in shape:
        return
    if any(one % dtype.itemsize for one in (offset, *strides)):
        raise ValueError(
            f"result array with dtype {dtype} would not be sufficiently aligned for GPU"
            " operations: align the dtype, as with `make_aligned_dtype()`"
        )


def comparable(a: Any, b: Any) -> None:
    """Refuse operands of ``==`` that have no common dtype.

    Raises:
        TypeError: they have none.
        ValueError: it can't be aligned.
    """
    if a.names is None and b.names is None:
        if a.kind != b.kind or a.itemsize != b.itemsize:
            raise TypeError(
                f"cannot compare unstructured voids of different size ({a.itemsize} vs"
                f" {b.itemsize})"
            )
        return
    if a.names is None or b.names is None:
        raise TypeError("Cannot compare structured and non-structured dtypes")
    try:
        common = np.promote_types(a, b)
    except TypeError:
        raise TypeError(
            "Cannot compare structured arrays unless they have a common dtype.  I.e."
            " `np.result_type(arr1, arr2)` must be defined."
        ) from None
    make_aligned(common)
