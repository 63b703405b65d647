"""The store of a session's arrays in C++, where rows of records are executed."""

# ruff: noqa: D102  the interface in arrays/store.py documents the methods

from __future__ import annotations

import ctypes
import weakref
from typing import Any, Final

from xpool_server.arrays.store import ABSENT
from xpool_server.native.library import NativeLibrary

_STILL_HELD: Final = -1
_UNKNOWN: Final = -2


class NativeArrayStore:
    """As ``DictStore``; ``pointer`` is what C++ works on."""

    def __init__(self, library: NativeLibrary, array_type: type) -> None:
        """Empty.

        Args:
            library: with the functions.
            array_type: of plain arrays: C++ looks at no others.
        """
        library.declare_locked(*_FUNCTIONS)
        self._call = library.functions
        self._array_type = array_type
        self.pointer: int | None = self._call["xs_array_store_new"]()
        if self.pointer is None:
            raise MemoryError
        weakref.finalize(self, self._call["xs_array_store_delete"], self.pointer)

    def __contains__(self, number: int) -> bool:
        return self.find(number) is not ABSENT

    def __len__(self) -> int:
        return int(self._call["xs_array_store_size"](self.pointer))

    def find(self, number: int) -> Any:
        return self._call["xs_array_store_find"](self.pointer, number, ABSENT)

    def set(self, number: int, found: Any, owner: Any = None) -> None:
        is_plain = owner is not None and type(found) is self._array_type
        owned = id(owner) if is_plain else None
        if not self._call["xs_array_store_set"](self.pointer, number, found, owned):
            raise MemoryError

    def remove(self, number: int) -> Any:
        return self._call["xs_array_store_remove"](self.pointer, number, ABSENT)

    def items(self) -> list[tuple[int, Any]]:
        return _pairs(self._call["xs_array_store_items"](self.pointer))

    def hold(self, owner: Any) -> bool:
        return bool(self._call["xs_array_store_hold"](self.pointer, owner))

    def add_owner(self, owner: Any, charge: int) -> None:
        if not self._call["xs_array_store_add_owner"](self.pointer, owner, charge):
            raise MemoryError

    def release(self, owner: Any) -> int | None:
        charge = int(self._call["xs_array_store_release"](self.pointer, owner))
        if charge == _UNKNOWN:
            raise KeyError(id(owner))
        return None if charge == _STILL_HELD else charge

    def holds(self) -> dict[int, int]:
        return dict(_pairs(self._call["xs_array_store_holds"](self.pointer)))


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


_POINTER: Final = ctypes.c_void_p
_ID: Final = ctypes.c_uint64
_OBJECT: Final = ctypes.py_object
_DONE: Final = ctypes.c_int32
_FUNCTIONS: Final[tuple[tuple[str, tuple[Any, ...], Any], ...]] = (
    ("xs_array_store_new", (), _POINTER),
    ("xs_array_store_delete", (_POINTER,), None),
    ("xs_array_store_size", (_POINTER,), _ID),
    ("xs_array_store_find", (_POINTER, _ID, _OBJECT), _OBJECT),
    ("xs_array_store_set", (_POINTER, _ID, _OBJECT, _POINTER), _DONE),
    ("xs_array_store_remove", (_POINTER, _ID, _OBJECT), _OBJECT),
    ("xs_array_store_items", (_POINTER,), _OBJECT),
    ("xs_array_store_hold", (_POINTER, _OBJECT), _DONE),
    ("xs_array_store_add_owner", (_POINTER, _OBJECT, _ID), _DONE),
    ("xs_array_store_release", (_POINTER, _OBJECT), ctypes.c_int64),
    ("xs_array_store_holds", (_POINTER,), _OBJECT),
)
