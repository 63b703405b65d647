"""``poly1d`` and ``flatiter``: objects on the server, with what is asked for here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.device import device
from xpool.cupy.dispatch import by_numpy_ufunc
from xpool.cupy.ndarray import ndarray
from xpool.cupy.remote_classes import RemoteClass, remote_class


class _Poly(RemoteClass):
    """To functions and ufuncs it is the array of its coefficients."""

    __array_priority__ = 0

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        first = args[0] if args else kwargs.get("c_or_r")
        is_named = kwargs.get("variable") is not None or len(args) > 2
        if isinstance(first, np.poly1d) and not is_named:
            args, kwargs = args[:2], {**kwargs, "variable": first.variable}
        named = {name: _plain(value) for name, value in kwargs.items()}
        return tuple(map(_plain, args)), named

    def __cupy_get_ndarray__(self) -> Any:
        return self._attribute("coeffs")

    def __array_ufunc__(
        self, function: Any, method: str, *args: Any, **kwargs: Any
    ) -> Any:
        return by_numpy_ufunc(function, method, transfer.unwrapped(args), kwargs)

    def get(self, stream: Any = None, order: str = "C", out: Any = None) -> Any:
        """A copy as NumPy's class."""
        if out is not None:
            raise NotImplementedError("xpool: poly1d.get takes no out")
        return np.poly1d(self._attribute("coeffs").get(), variable=self.variable)  # type: ignore[attr-defined]

    def set(self, polyin: Any, stream: Any = None) -> None:
        """Take the coefficients of NumPy's class."""
        if not isinstance(polyin, np.poly1d):
            raise TypeError("Only numpy.poly1d can be set to cupy.poly1d")
        made = type(self)(polyin)
        self._number, made._number = made._number, self._number
        self._ref, made._ref = made._ref, self._ref

    def __reduce__(self) -> Any:
        variable = self.variable  # type: ignore[attr-defined]
        return type(self), (self._attribute("coeffs"), False, variable)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._attribute("coeffs"))

    def __str__(self) -> str:
        return str(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed."
            " Please use `.get()` to construct a NumPy array explicitly."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, np.poly1d):
        return transfer.upload(np.ascontiguousarray(value.coeffs))
    if isinstance(value, np.ndarray) and value.ndim:
        return transfer.upload(value)
    return value


class _Flat(RemoteClass):
    """Iterates over an array's items in row-major order."""

    _owner: Any = None
    _at: int = 0

    @property
    def base(self) -> Any:
        """The array."""
        return self._owner

    def __new__(cls, a: Any) -> Any:
        """Of an array."""
        if not isinstance(a, ndarray):
            raise TypeError("flatiter is made of an array")
        return a.flat

    def __getitem__(self, index: Any) -> Any:
        return device().call("cupy.flatiter.__getitem__", (self, _flat(index)), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        device().call("cupy.flatiter.__setitem__", (self, _flat(index), value), {})

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._at >= self._owner.size:
            raise StopIteration
        self._at += 1
        return self[self._at - 1]


def _flat(index: Any) -> Any:
    if isinstance(index, bool) or not (
        index is Ellipsis or isinstance(index, slice | int | np.integer)
    ):
        raise IndexError("unsupported iterator index")
    return index


remote_class("cupy.poly1d", _Poly)
remote_class("cupy.flatiter", _Flat)
