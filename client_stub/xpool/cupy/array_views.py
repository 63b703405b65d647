"""Copies and views of arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.values import LAYOUT_C, LAYOUT_F

from xpool.cupy import described
from xpool.cupy.axes import normalized_axes, normalized_axis, reshaped
from xpool.cupy.device import device
from xpool.cupy.geometry import check_dtype, geometry
from xpool.cupy.known_calls import NO_KEYWORDS, KnownCalls
from xpool.cupy.ndarray import (
    as_shape,
    in_class,
    method,
    ndarray,
    posted,
    posted_view,
)

_type = type
_reshapes: Final = KnownCalls("ndarray.reshape", is_view=True)
_transposes: Final = KnownCalls("ndarray.transpose", is_view=True)
_ravels: Final = KnownCalls("ndarray.ravel", is_view=True)
_casts: Final = KnownCalls("ndarray.astype", is_view=False)
_copies: Final = KnownCalls("ndarray.copy", is_view=False)


@method("__copy__")
def copy_of(self: ndarray) -> ndarray:
    """``copy.copy``: the items are copied, too."""
    return self.copy()


@method("__deepcopy__")
def deep_copy_of(self: ndarray, memo: Any) -> ndarray:
    """``copy.deepcopy``."""
    return self.copy()


def _checked_order(order: str | None) -> str:
    """One of C, F, A and K, which may be written small, or as the words they begin.

    Raises:
        ValueError: there is no such order.
    """
    first = "K" if order is None else (str(order) or "C")[0].upper()
    if first not in ("C", "F", "A", "K"):
        raise ValueError(f"order not understood. order={order}")
    return first


@method("copy")
def copied(self: ndarray, order: str | None = "C") -> ndarray:
    """A copy of the array."""
    given = (self, order)
    known = _copies.repeat(given)
    if known is not None:
        return known
    sent = (self, _checked_order(order))
    _copies.keep((given, NO_KEYWORDS), self._geo, sent)
    return posted("ndarray.copy", self._geo, sent)


@method("astype")
def astype(
    self: ndarray,
    dtype: Any,
    order: str | None = "K",
    casting: Any = None,
    subok: Any = None,
    copy: bool = True,
) -> ndarray:
    """A copy of another dtype."""
    given = (self, dtype, order, casting, subok, copy)
    known = _casts.repeat(given)
    if known is not None:
        return known
    if subok is not None:
        raise TypeError("subok is not supported yet")
    wanted = check_dtype(float if dtype is None else dtype)
    order = _checked_order(order)
    if casting is not None and not np.can_cast(self.dtype, wanted, casting):
        raise TypeError(
            f"Cannot cast array data from {self.dtype!r} to {wanted!r} according to"
            f" the rule '{casting}'"
        )
    if not copy and wanted == self.dtype:
        if order in ("K", "A"):
            return self
        flags = self._known_layout()[1]
        if flags & (LAYOUT_C if order == "C" else LAYOUT_F):
            return self
    is_warned = self.dtype.kind == "c" and wanted.kind not in "bc"
    if is_warned:
        import warnings

        warnings.warn(
            "Casting complex values to real discards the imaginary part",
            np.exceptions.ComplexWarning,
            stacklevel=2,
        )
    sent = (self, wanted, order, "unsafe")
    if "V" in (self.dtype.char, wanted.char):
        described.check_computed(self.dtype)
        described.check_computed(wanted)
        found = device().call("ndarray.astype", sent, {})
        assert isinstance(found, ndarray)
        return found
    geo = geometry(self._geo.shape, wanted)
    if not is_warned:
        _casts.keep((given, NO_KEYWORDS), geo, sent)
    return posted("ndarray.astype", geo, sent)


@method("transpose")
def transpose(self: ndarray, *axes: Any) -> ndarray:
    """A view with permuted axes."""
    found = _transposes.repeat((self, *axes))
    if found is not None:
        return found
    given = ((self, *axes), NO_KEYWORDS)
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], tuple | list)):
        axes = tuple(axes[0] or ())
    ndim, shape = self._geo.ndim, self._geo.shape
    sent: tuple[Any, ...] = (self,)
    new = shape[::-1]
    if axes:
        if len(axes) != ndim:
            raise ValueError("axes don't match array")
        order = normalized_axes(axes, ndim)
        new = tuple([shape[axis] for axis in order])
        sent = (self, tuple(order))
    found = posted_view(self, "ndarray.transpose", new, sent)
    _transposes.keep(given, found._geo, sent)
    return found


@method("swapaxes")
def swapaxes(self: ndarray, axis1: int, axis2: int) -> ndarray:
    """A view with two axes swapped."""
    first, second = (normalized_axis(one, self._geo.ndim) for one in (axis1, axis2))
    shape = list(self._geo.shape)
    shape[first], shape[second] = shape[second], shape[first]
    return posted_view(self, "ndarray.swapaxes", tuple(shape), (self, first, second))


@method("reshape")
def reshape(self: ndarray, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
    """An array of another shape with the same items."""
    if order == "C" and copy is None:
        known = _reshapes.repeat((self, *shape))
        if known is None:
            new = as_shape(shape[0] if len(shape) == 1 else shape)
            new = reshaped(self._geo.size, new)
            known = posted_view(self, "ndarray.reshape", new, (self, new))
            _reshapes.keep(((self, *shape), NO_KEYWORDS), known._geo, (self, new))
        return known
    shape = as_shape(shape[0] if len(shape) == 1 else shape)
    if order not in ("C", "F", "A", "c", "f", "a"):
        raise ValueError(f"order {order!r} is not permitted for reshaping")
    new = reshaped(self._geo.size, shape)
    if copy is not None:
        found = device().call(
            "ndarray.reshape", (self, new), {"order": order, "copy": copy}
        )
        assert isinstance(found, ndarray)
        return found
    if order == "C":
        return posted_view(self, "ndarray.reshape", new, (self, new))
    return posted_view(
        self, "ndarray.reshape", new, (self, new), {"order": order.upper()}
    )


@method("squeeze")
def squeeze(self: ndarray, axis: Any = None) -> ndarray:
    """A view without axes of length one."""
    shape = self._geo.shape
    if axis is None or (not shape and axis in (0, -1)):
        new = tuple([size for size in shape if size != 1])
        return posted_view(self, "ndarray.squeeze", new, (self,))
    axes = normalized_axes(axis if isinstance(axis, tuple) else (axis,), len(shape))
    if any(shape[one] != 1 for one in axes):
        raise ValueError(
            "cannot select an axis to squeeze out which has size not equal to one"
        )
    new = tuple([size for at, size in enumerate(shape) if at not in axes])
    return posted_view(self, "ndarray.squeeze", new, (self, tuple(axes)))


@method("flatten")
def flatten(self: ndarray, order: str = "C") -> ndarray:
    """A copy with one dimension."""
    geo = geometry((self._geo.size,), self._geo.dtype)
    return posted("ndarray.flatten", geo, (self, _checked_order(order)))


@method("ravel")
def ravel(self: ndarray, order: str = "C") -> ndarray:
    """One dimension; a view where that is possible."""
    given = (self, order)
    known = _ravels.repeat(given)
    if known is None:
        sent = (self, _checked_order(order))
        known = posted_view(self, "ndarray.ravel", (self._geo.size,), sent)
        _ravels.keep((given, NO_KEYWORDS), known._geo, sent)
    return known


@method("fill")
def fill(self: ndarray, value: Any) -> None:
    """Set all items to a value.

    Raises:
        ValueError: it is an array with dimensions.
    """
    if isinstance(value, ndarray | np.ndarray) and value.ndim:
        raise ValueError("fill takes one value, not an array with dimensions")
    if self._geo.dtype.char == "V" and not isinstance(value, ndarray):
        value = np.asarray(value, self._geo.dtype)
        if value.ndim:
            raise ValueError("fill takes one value, not an array with dimensions")
        value = value[()]
    self[...] = value


@method("view")
def view(self: ndarray, dtype: Any = None, type: Any = None) -> ndarray:  # noqa: A002
    """A view of the same memory, of another dtype or a derived class if given.

    Raises:
        ValueError: a class that is not derived from this one, or two.
    """
    if isinstance(dtype, _type) and issubclass(dtype, ndarray):
        if type is not None:
            raise ValueError("Cannot specify output type twice.")
        dtype, type = None, dtype  # noqa: A001
    if type is not None and not (isinstance(type, _type) and issubclass(type, ndarray)):
        raise ValueError("Type must be a sub-type of ndarray type")
    found = _viewed(self, dtype)
    kind = self.__class__ if type is None else type
    return found if kind is ndarray else in_class(found, kind, self)


def _viewed(self: ndarray, dtype: Any) -> ndarray:
    wanted = self._geo.dtype if dtype is None else check_dtype(dtype)
    arguments = (self,) if dtype is None else (self, wanted)
    if wanted.itemsize == self._geo.dtype.itemsize:
        geo = geometry(self._geo.shape, wanted)
        made = posted("ndarray.view", geo, arguments, charge=0)
        made._base = self if self._base is None else self._base
        return made
    found = device().call("ndarray.view", arguments, {})
    assert isinstance(found, ndarray)
    return found
