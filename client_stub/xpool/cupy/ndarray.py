"""``cupy.ndarray`` on the client: a number, and what is known of the array.

What the client can predict is queued, everything else is asked for. Operators are added
by ``ufunc``, the remaining methods by ``methods``.
"""

from __future__ import annotations

import math
import operator
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import numpy as np
from xpool_protocol.arrays.values import (
    LAYOUT_C,
    LAYOUT_F,
    LAYOUT_OWN,
    ArrayMeta,
    NamedTuple,
    ObjectMeta,
)
from xpool_protocol.values import DType, HostTensor

from xpool.cupy import described, transfer
from xpool.cupy.device import (
    FREED_AT_ONCE_NBYTES,
    ArrayDevice,
    device,
    encode_arguments,
)
from xpool.cupy.encoding import ENCODERS, device_of, encode, new_number, uvarint
from xpool.cupy.geometry import (
    DTYPE_OF_CODE,
    Geometry,
    check_dtype,
    dtype_of_meta,
    geometry,
)
from xpool.cupy.indexing import (
    NoRule,
    assignment_fits,
    is_mask,
    picked_shape,
    view_shape,
)
from xpool.cupy.known_calls import KnownCalls, key_of

Layout = tuple[tuple[int, ...], int]
"""Strides in bytes, and the bits of ``ArrayMeta.layout``."""


class ndarray:  # noqa: N801  CuPy's name
    """Multi-dimensional array on a CUDA device."""

    __slots__ = (
        "__weakref__",
        "_base",
        "_charge",
        "_geo",
        "_layout",
        "_number",
        "_ref",
    )
    __array_priority__ = 100
    __class_getitem__: Any = classmethod(types.GenericAlias)
    __hash__: None  # type: ignore[assignment]

    _number: int
    _ref: bytes
    """Tag and number, as arguments carry them."""
    _geo: Geometry
    _base: ndarray | None
    """The array whose memory this one views, where the client knows it."""
    _layout: Layout | None
    """None: not asked for yet."""
    _charge: int

    def __new__(
        cls,
        shape: Any,
        dtype: Any = float,
        memptr: Any = None,
        strides: Any = None,
        order: str = "C",
        _obj: Any = None,
        **kwargs: Any,
    ) -> ndarray:
        """An array of undefined items."""
        if memptr is not None:
            raise NotImplementedError(
                "xpool: memory of the device has no address here; cupy.ndarray takes"
                " no memptr"
            )
        if order not in (None, ""):
            order = str(order)[:1].upper()
        if order not in ("C", "F", None, ""):
            raise ValueError("order not understood. order=%s" % order)  # noqa: UP031
        keywords = {} if strides is None else {"strides": tuple(strides)}
        found = device().call(
            "cupy.ndarray",
            (as_shape(shape), check_dtype(float if dtype is None else dtype)),
            {"order": order or "C", **keywords},
        )
        assert isinstance(found, ndarray)
        return found if cls is ndarray else in_class(found, cls, _obj)

    def __init_subclass__(cls, is_ours: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not is_ours:
            from xpool.cupy.subclassing import prepare

            prepare(cls)

    def __array_finalize__(self, obj: Any) -> None:
        """Called on a new object of a derived class, with what it was made from."""

    def __del__(self) -> None:
        where = _device
        if where is None:
            return
        if self._charge < FREED_AT_ONCE_NBYTES:
            where.dead.append((self._number, self._charge))
            if not self._charge and self._base is None:
                # A view of what an object holds: only the server knows how much.
                where._dead_limit = 1
        else:
            where.free_large(self._number, self._charge)

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._geo.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        new = reshaped(self._geo.size, as_shape(shape))
        where = device()
        where.call("xpool.set_attribute", (self, "shape", new), {})
        self._geo, self._layout = geometry(new, self._geo.dtype), None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype object of element type."""
        return self._geo.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._geo.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._geo.size

    @property
    def itemsize(self) -> int:
        """Size of each element in bytes."""
        return self._geo.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Size of all elements in bytes."""
        return self._geo.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of axes in bytes."""
        return self._known_layout()[0]

    @property
    def flags(self) -> Flags:
        """Memory layout."""
        bits = self._known_layout()[1]
        return Flags(
            bool(bits & LAYOUT_C), bool(bits & LAYOUT_F), bool(bits & LAYOUT_OWN)
        )

    @property
    def base(self) -> ndarray | None:
        """The array whose memory this one views."""
        if self._known_layout()[1] & LAYOUT_OWN:
            return None
        if self._base is None:
            self._base = attribute(self, "base")
        return self._base

    @property
    def device(self) -> Any:
        """The device on which the array lies."""
        from xpool.cupy.cuda import Device

        return Device(device_of(self._number))

    @property
    def T(self) -> ndarray:  # noqa: N802  NumPy's name
        """Shape-reversed view."""
        return self.transpose()

    @property
    def mT(self) -> ndarray:  # noqa: N802  NumPy's name
        """View with the last two axes swapped."""
        if self._geo.ndim < 2:
            raise ValueError("matrix transpose with ndim < 2 is undefined")
        return self.swapaxes(-1, -2)

    @property
    def real(self) -> ndarray:
        """The real part: a view."""
        return self if self._geo.dtype.kind != "c" else attribute(self, "real")

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> ndarray:
        """The imaginary part: a view of a complex array, or new zeros."""
        if self._geo.dtype.kind != "c":
            return posted("cupy.zeros", self._geo, (self._geo.shape, self._geo.dtype))
        return attribute(self, "imag")

    @imag.setter
    def imag(self, value: Any) -> None:
        if self._geo.dtype.kind != "c":
            raise TypeError("cannot set imag of a real array")
        self.imag[...] = value

    @property
    def flat(self) -> Any:
        """An iterator over the items in row-major order."""
        found = attribute(self, "flat")
        found._owner = self
        return found

    @flat.setter
    def flat(self, value: Any) -> None:
        self.flat[:] = value

    def _known_layout(self) -> Layout:
        if self._layout is None:
            record = b"\x01\x20\x01" + self._ref + b"\x00"
            (meta,), _ = device().request("xpool.describe", record)
            self._layout = (meta.strides, meta.layout)
        return self._layout

    @property
    def data(self) -> NoReturn:
        """Refused: memory of the device has no address in this process."""
        raise NotImplementedError("xpool: memory of the device has no address here")

    @property
    def cstruct(self) -> NoReturn:
        """Refused, as ``data``."""
        raise NotImplementedError("xpool: memory of the device has no address here")

    # ---- to and from the host

    def get(
        self,
        stream: Any = None,
        order: str = "C",
        out: Any = None,
        blocking: bool = True,
    ) -> np.ndarray[Any, Any]:
        """A copy of the array in host memory.

        Raises:
            TypeError: ``out`` has another dtype, or is no NumPy array.
            ValueError: ``out`` has another shape.
        """
        check_synchronize()
        if order not in ("C", "F", "A"):
            raise ValueError(f"unsupported order: {order}")
        wanted = order
        if order == "A":
            flags = self._known_layout()[1]
            wanted = "F" if flags & LAYOUT_F and not flags & LAYOUT_C else "C"
        if out is not None:
            if not isinstance(out, np.ndarray):
                raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
            if out.dtype != self._geo.dtype:
                raise TypeError(
                    f"{out.dtype} array cannot be obtained from {self.dtype}"
                )
            if out.shape != self._geo.shape:
                raise ValueError(
                    f"Shape mismatch. Expected shape: {self.shape}, actual: {out.shape}"
                )
            if not (out.flags.c_contiguous or out.flags.f_contiguous):
                raise RuntimeError("`out` has gaps: only a contiguous array is filled")
        if out is not None and out.flags.c_contiguous:
            return transfer.download(self, out)
        host = transfer.download(self)
        if out is not None:
            out[...] = host
            return out
        return host if wanted == "C" else np.asfortranarray(host)

    def set(self, arr: Any, stream: Any = None) -> None:
        """Copy an array in host memory to this one."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(
                f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}"
            )
        self[...] = transfer.upload(arr)

    def item(self, *args: Any) -> Any:
        """One element as a Python scalar."""
        return self.get().item(*args)

    def tolist(self) -> Any:
        """The array as a nested list."""
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        """The items as bytes."""
        return self.get().tobytes(order)  # type: ignore[arg-type]

    def __bytes__(self) -> bytes:
        return bytes(self.get())

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:  # noqa: A002
        """Write the array to a file."""
        self.get().tofile(fid, sep, format)

    def dump(self, file: Any) -> None:
        """Write a pickle of the array to a file."""
        self.get().dump(file)

    def dumps(self) -> bytes:
        """A pickle of the array."""
        return self.get().dumps()

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed."
            " Please use `.get()` to construct a NumPy array explicitly."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return transfer.upload, (self.get(order="A"),)

    def __bool__(self) -> bool:
        if self._geo.size == 0:
            import warnings

            warnings.warn(
                "The truth value of an empty array is ambiguous. Returning False, but"
                " in future this will result in an error. Use `array.size > 0` to check"
                " that an array is not empty.",
                DeprecationWarning,
                stacklevel=2,
            )
            return False
        if self._geo.size != 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous."
                " Use a.any() or a.all()"
            )
        return bool(self.get().item())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get() if self._geo.shape else self.item(), spec)

    # ---- a sequence

    def __len__(self) -> int:
        if not self._geo.shape:
            raise TypeError("len() of unsized object")
        return self._geo.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self._geo.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self._geo.shape[0]))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __getitem__(self, key: Any) -> Any:
        geo = self._geo
        try:
            shape = view_shape(geo.shape, key)
        except NoRule:
            if geo.dtype.names is not None and described.is_field_key(key):
                return field_of(self, key)
            return self._picked(index_of(key))
        return posted_view(self, "ndarray.__getitem__", shape, (self, key))

    def _picked(self, key: Any) -> Any:
        """``a[key]`` of a key that holds arrays, or what no array takes."""
        try:
            shape = picked_shape(self._geo.shape, _geometries(key))
        except NoRule:
            return device().call("ndarray.__getitem__", (self, key), {})
        geo = geometry(shape, self._geo.dtype)
        return posted("ndarray.__getitem__", geo, (self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        kind = type(value)
        if kind is not ndarray and kind not in _NUMBERS:
            if kind is np.ndarray and type(key) is slice and key == slice(None):
                check_same(self, value)
            value = as_operand(value)
        if self._geo.dtype.char == "V":
            set_described(self, key, value)
            return
        where = device()
        given = value._geo.shape if type(value) is ndarray else ()
        try:
            try:
                shape = view_shape(self._geo.shape, key)
            except NoRule:
                key = index_of(key)
                shape = self._assigned_shape(key)
            if not assignment_fits(self._geo.dtype, shape, value, given):
                raise NoRule
        except NoRule:
            where.call("ndarray.__setitem__", (self, index_of(key), value), {})
            return
        where.post(
            where.head("ndarray.__setitem__", 0)
            + b"\x03"
            + self._ref
            + encode(key)
            + encode(value)
            + b"\x00"
        )

    def _assigned_shape(self, key: Any) -> tuple[int, ...]:
        """What is assigned to items that arrays pick is broadcast to this.

        How many a mask picks is not known: one value is as good as any number.
        """
        parts = _geometries(key)
        if len(parts) == 1 and is_mask(self._geo.shape, parts[0]):
            return ()
        return picked_shape(self._geo.shape, parts)

    # ---- copies and views

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def copy(self, order: str | None = "C") -> ndarray:
        """A copy of the array."""
        if order not in ("C", "F", "A", "K", None):
            raise TypeError("order not understood. order=%s" % order)  # noqa: UP031
        return posted("ndarray.copy", self._geo, (self, order or "K"))

    def astype(
        self,
        dtype: Any,
        order: str = "K",
        casting: Any = None,
        subok: Any = None,
        copy: bool = True,
    ) -> ndarray:
        """A copy of another dtype."""
        if subok is not None:
            raise TypeError("subok is not supported yet")
        wanted = check_dtype(float if dtype is None else dtype)
        if order not in ("C", "F", "A", "K", None):
            raise TypeError("order not understood. order=%s" % order)  # noqa: UP031
        if casting is not None and not np.can_cast(self.dtype, wanted, casting):
            raise TypeError(
                f"Cannot cast array data from {self.dtype!r} to {wanted!r} according to"
                f" the rule '{casting}'"
            )
        if not copy and wanted == self.dtype:
            if order in ("K", "A", None):
                return self
            flags = self._known_layout()[1]
            if flags & (LAYOUT_C if order == "C" else LAYOUT_F):
                return self
        if self.dtype.kind == "c" and wanted.kind not in "bc":
            import warnings

            warnings.warn(
                "Casting complex values to real discards the imaginary part",
                np.exceptions.ComplexWarning,
                stacklevel=2,
            )
        if "V" in (self.dtype.char, wanted.char):
            described.check_computed(self.dtype)
            described.check_computed(wanted)
            given = (self, wanted, order or "K", "unsafe")
            found = device().call("ndarray.astype", given, {})
            assert isinstance(found, ndarray)
            return found
        return posted(
            "ndarray.astype",
            geometry(self._geo.shape, wanted),
            (self, wanted, order or "K", "unsafe"),
        )

    def transpose(self, *axes: Any) -> ndarray:
        """A view with permuted axes."""
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], tuple | list)):
            axes = tuple(axes[0] or ())
            if not axes and self._geo.ndim:
                axes = ()
        ndim = self._geo.ndim
        shape = self._geo.shape
        if not axes:
            return posted_view(self, "ndarray.transpose", shape[::-1], (self,))
        if len(axes) != ndim:
            raise ValueError("axes don't match array")
        order = normalized_axes(axes, ndim)
        new = tuple([shape[axis] for axis in order])
        return posted_view(self, "ndarray.transpose", new, (self, tuple(order)))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        """A view with two axes swapped."""
        first, second = (normalized_axis(one, self._geo.ndim) for one in (axis1, axis2))
        shape = list(self._geo.shape)
        shape[first], shape[second] = shape[second], shape[first]
        return posted_view(
            self, "ndarray.swapaxes", tuple(shape), (self, first, second)
        )

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        """An array of another shape with the same items."""
        if order == "C" and copy is None:
            is_tuple = len(shape) == 1 and type(shape[0]) is tuple
            key = key_of(self._geo, shape[0] if is_tuple else shape, {})
            known = _reshapes.repeat(key, self)
            if known is None:
                new = as_shape(shape[0] if len(shape) == 1 else shape)
                new = reshaped(self._geo.size, new)
                known = posted_view(self, "ndarray.reshape", new, (self, new))
                _reshapes.keep(key, known._geo, (new,), {})
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

    def squeeze(self, axis: Any = None) -> ndarray:
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

    def flatten(self, order: str = "C") -> ndarray:
        """A copy with one dimension."""
        if order not in ("C", "F", "A", "K"):
            raise ValueError(f"order not understood. order={order}")
        geo = geometry((self._geo.size,), self._geo.dtype)
        return posted("ndarray.flatten", geo, (self, order))

    def ravel(self, order: str = "C") -> ndarray:
        """One dimension; a view where that is possible."""
        if order not in ("C", "F", "A", "K"):
            raise ValueError(f"order not understood. order={order}")
        return posted_view(self, "ndarray.ravel", (self._geo.size,), (self, order))

    def fill(self, value: Any) -> None:
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

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:  # noqa: A002
        """A view of the same memory, of another dtype or a derived class if given.

        Raises:
            ValueError: a class that is not derived from this one, or two.
        """
        if isinstance(dtype, _type) and issubclass(dtype, ndarray):
            if type is not None:
                raise ValueError("Cannot specify output type twice.")
            dtype, type = None, dtype  # noqa: A001
        if type is not None and not (
            isinstance(type, _type) and issubclass(type, ndarray)
        ):
            raise ValueError("Type must be a sub-type of ndarray type")
        found = self._viewed(dtype)
        kind = self.__class__ if type is None else type
        return found if kind is ndarray else in_class(found, kind, self)

    def _viewed(self, dtype: Any) -> ndarray:
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

    # ---- protocols

    def __array_namespace__(self, *, api_version: Any = None) -> Any:
        import cupy  # type: ignore[import-not-found,unused-ignore]

        return cupy

    def to_device(self, device: Any, /, *, stream: Any = None) -> ndarray:
        """The array on a device: itself, or a copy if it is on another one."""
        return on_device(self, device)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, device_of(self._number)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Any:
        """A capsule of a remote tensor over the same memory.

        Raises:
            BufferError: torch is not beside the arrays, so that nobody can take it, or
                the device is another.
            ValueError: no such stream, or the host without a copy.
        """
        from xpool.cupy.dlpack import capsule

        return capsule(self, stream, max_version, dl_device, copy)

    def toDlpack(self) -> Any:  # noqa: N802  CuPy's name
        """As ``__dlpack__``; deprecated."""
        from xpool.cupy.dlpack import warn_of_capsules

        warn_of_capsules("cupy.ndarray.toDlpack")
        return self.__dlpack__()

    def __array_ufunc__(
        self, function: Any, method: str, *args: Any, **kwargs: Any
    ) -> Any:
        from xpool.cupy.dispatch import by_numpy_ufunc

        return by_numpy_ufunc(function, method, args, kwargs)

    def __array_function__(
        self, function: Any, types: Any, args: Any, kwargs: Any
    ) -> Any:
        from xpool.cupy.dispatch import by_numpy_function

        return by_numpy_function(function, args, kwargs)


ndarray.__module__ = "cupy"
_type = type
_device: ArrayDevice | None = None
"""As ``device()``, for finalizers and for speed."""


class Flags:
    """``ndarray.flags``: any other attribute may be set, and means nothing."""

    def __init__(self, c_contiguous: Any, f_contiguous: Any, owndata: Any) -> None:
        self._values = (c_contiguous, f_contiguous, owndata)

    @property
    def c_contiguous(self) -> Any:
        """In row-major order without gaps."""
        return self._values[0]

    @property
    def f_contiguous(self) -> Any:
        """In column-major order without gaps."""
        return self._values[1]

    @property
    def owndata(self) -> Any:
        """No view of another array."""
        return self._values[2]

    @property
    def forc(self) -> bool:
        """Contiguous in either order."""
        return bool(self.c_contiguous or self.f_contiguous)

    @property
    def fnc(self) -> bool:
        """Contiguous in Fortran's order alone."""
        return bool(self.f_contiguous and not self.c_contiguous)

    def __getitem__(self, name: str) -> Any:
        found = getattr(self, name.lower(), None)
        if found is None or not isinstance(name, str):
            raise KeyError(f"{name} is not defined for cupy.ndarray.flags")
        return found

    def __repr__(self) -> str:
        return (
            f"  C_CONTIGUOUS : {self.c_contiguous}\n"
            f"  F_CONTIGUOUS : {self.f_contiguous}\n"
            f"  OWNDATA : {self.owndata}"
        )


class RemoteObject:
    """What an operation returned that is neither an array nor a plain value."""

    _number: int = -1

    def __init__(self, meta: ObjectMeta) -> None:
        self._number = meta.number
        self._ref = b"\x21" + uvarint(meta.number)
        self._type_name = meta.type_name
        if _device is not None:
            _device.has_other_objects = True

    def __del__(self) -> None:
        where = _device
        if where is not None and self._number >= 0:
            where.has_other_objects = True
            # With the next record: it may hold much, which only the server counts.
            where.dead.append((self._number, 0))
            where._dead_limit = 1

    def __repr__(self) -> str:
        return f"<remote {self._type_name}>"


REMOTE_CLASSES: dict[str, Callable[[ObjectMeta], Any]] = {}
"""What a remote object becomes, by the name of its type on the server."""


def _ref_of(value: Any) -> bytes:
    ref: bytes = value._ref
    return ref


ENCODERS[ndarray] = _ref_of
ENCODERS[RemoteObject] = _ref_of
_NUMBERS: Final = frozenset({int, float, bool, complex})


# ---- making arrays


def made(geo: Geometry, charge: int) -> ndarray:
    """An array of the client's numbering that a record is about to make."""
    where = _device
    assert where is not None
    if charge:
        where.charge(charge)
    if not geo.wire:
        raise ValueError("array is too big: its items can't be counted")
    array = object.__new__(ndarray)
    number, wire = new_number()
    array._number, array._ref, array._geo = number, b"\x21" + wire, geo
    array._base, array._layout, array._charge = None, None, charge
    if geo.recent is not None:
        geo.recent.append(number)
    return array


_reshapes: Final = KnownCalls("ndarray.reshape", made, is_view=True)


def posted(
    name: str,
    geo: Geometry,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    charge: int | None = None,
) -> ndarray:
    """Queue a call whose one result is predicted."""
    arguments = encode_arguments(args, kwargs or {})
    array = made(geo, geo.charge_nbytes if charge is None else charge)
    where = _device
    assert where is not None
    where.post_new(where.head(name, 1) + array._ref[1:] + geo.wire + arguments)
    if where.audit is not None:
        where.audit.check(name, [(array._ref, geo)])
    return array


def posted_many(
    name: str,
    geos: Sequence[Geometry],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    is_view: bool = False,
) -> list[ndarray]:
    """Queue a call that returns several predicted results."""
    arguments = encode_arguments(args, kwargs)
    arrays = [made(geo, 0 if is_view else geo.charge_nbytes) for geo in geos]
    where = _device
    assert where is not None
    results = b"".join(
        [one._ref[1:] + geo.wire for one, geo in zip(arrays, geos, strict=True)]
    )
    # A kernel of the program's own may write into what it is given.
    post = where.post if name.startswith("xpool.") else where.post_new
    post(where.head(name, len(geos)) + results + arguments)
    if where.audit is not None:
        where.audit.check(name, [(one._ref, one._geo) for one in arrays])
    return arrays


def posted_view(
    source: ndarray,
    name: str,
    shape: tuple[int, ...],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
) -> ndarray:
    """Queue a call whose result is a view of ``source``, or may be one."""
    array = posted(name, geometry(shape, source._geo.dtype), args, kwargs, charge=0)
    array._base = source if source._base is None else source._base
    if type(source) is not ndarray:
        return in_class(array, type(source), source)
    return array


def in_class(array: ndarray, kind: type[ndarray], source: Any) -> ndarray:
    """A new array as an object of a class that the program has derived."""
    from xpool.cupy.subclassing import reseated

    return reseated(array, kind, source)


def adopted(meta: ArrayMeta) -> ndarray:
    """An array that the server has numbered."""
    where = _device
    assert where is not None
    array = object.__new__(ndarray)
    array._number, array._ref = meta.number, b"\x21" + uvarint(meta.number)
    array._geo = geometry(meta.sizes, dtype_of_meta(meta))
    array._layout, array._base = (meta.strides, meta.layout), None
    array._charge = array._geo.charge_nbytes if meta.layout & LAYOUT_OWN else 0
    if array._charge:
        where.charge_made(array._charge)
    return array


def revived(  # noqa: C901  a case each
    value: Any, known: Mapping[int, Any]
) -> Any:
    """What an answer describes, as the program sees it.

    Args:
        value: from ``read_array_value``.
        known: the arguments of the call, by number: one may have been returned.
    """
    kind = type(value)
    if kind is ArrayMeta:
        found = known.get(value.number)
        if found is None:
            made = adopted(value)
            source = known.get(value.base)
            if source is not None:
                made._base = source if source._base is None else source._base
            return made
        if isinstance(found, ndarray):
            found._layout = (value.strides, value.layout)
        return found
    if kind is tuple:
        return tuple([revived(one, known) for one in value])
    if kind is list:
        return [revived(one, known) for one in value]
    if kind is dict:
        return {name: revived(one, known) for name, one in value.items()}
    if kind is DType:
        return DTYPE_OF_CODE[value.code]
    if kind is HostTensor:
        flat = np.frombuffer(bytearray(value.data), DTYPE_OF_CODE[value.dtype])
        return flat.reshape(value.sizes)
    if kind is NamedTuple:
        items = [revived(one, known) for one in value.items]
        return transfer.named_tuple(value.type_name, value.fields)(*items)
    if kind is ObjectMeta:
        found = known.get(value.number)
        if found is not None:
            return found
        return REMOTE_CLASSES.get(value.type_name, RemoteObject)(value)
    return value


def connect(where: ArrayDevice) -> None:
    """Let arrays use a device."""
    global _device
    _device = where
    where.revive = revived


def field_of(array: ndarray, key: Any) -> ndarray:
    """A view of a field, or of the named fields, of each item.

    Raises:
        ValueError: there is no such field, or a GPU could not read its items.
    """
    geo = array._geo
    dtype, offset = described.field_dtype(geo.dtype, key)
    if dtype.char != "V":
        is_whole = array._base is None
        strides = (geo.dtype.itemsize,) * geo.ndim if is_whole else array.strides
        described.check_field_aligned(dtype, offset, geo.shape, strides)
    view = geometry(geo.shape, dtype)
    made = posted("ndarray.__getitem__", view, (array, key), charge=0)
    made._base = array if array._base is None else array._base
    return made


def set_described(array: ndarray, key: Any, value: Any) -> None:
    """Assign to an array whose dtype has fields, or is plain bytes.

    Raises:
        ValueError: no kernel can be launched with its dtype.
    """
    if array._geo.dtype.names is not None and described.is_field_key(key):
        array, key = field_of(array, key), ...
        if array._geo.dtype.char != "V":
            array[...] = value
            return
    described.check_computed(array._geo.dtype)
    device().call("ndarray.__setitem__", (array, index_of(key), value), {})


def on_device(array: ndarray, wanted: Any) -> ndarray:
    """The array on a device: itself, or a copy if it is on another one.

    Raises:
        ValueError: there is no such device.
    """
    index = getattr(wanted, "id", wanted)
    where = device()
    if type(index) is not int or not 0 <= index < len(where.members):
        raise ValueError(f"Unsupported device {wanted!r}")
    with where.on(index):
        return where.brought(array)


def attribute(array: ndarray, name: str) -> Any:
    """An attribute that is an array, from the server."""
    return device().call("xpool.attribute", (array, name), {})


# ---- arguments


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape given as an integer or a sequence.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(shape, ndarray):
        shape = shape.get().tolist()
    if isinstance(shape, tuple | list | np.ndarray):
        return tuple([operator.index(one) for one in shape])
    try:
        return (operator.index(shape),)
    except TypeError:
        return tuple([operator.index(one) for one in shape])


def reshaped(size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with its -1 filled in.

    Raises:
        ValueError: it has another number of items.
    """
    unknown = [at for at, one in enumerate(shape) if one < 0]
    if len(unknown) > 1:
        raise ValueError("can only specify one unknown dimension")
    if unknown:
        rest = math.prod([one for one in shape if one >= 0])
        if rest == 0 or size % rest:
            raise ValueError(f"cannot reshape array of size {size} into shape {shape}")
        at = unknown[0]
        return (*shape[:at], size // rest, *shape[at + 1 :])
    if math.prod(shape) != size:
        raise ValueError(f"cannot reshape array of size {size} into shape {shape}")
    return shape


def normalized_axis(axis: Any, ndim: int) -> int:
    """An axis counted from the front.

    Raises:
        AxisError: there is no such axis.
    """
    at = operator.index(axis)
    if not -ndim <= at < ndim:
        raise np.exceptions.AxisError(at, ndim)
    return at % ndim


def normalized_axes(axes: Sequence[Any], ndim: int) -> list[int]:
    """Axes counted from the front, none twice.

    Raises:
        AxisError: there is no such axis.
        ValueError: one stands twice.
    """
    found = [normalized_axis(one, ndim) for one in axes]
    if len(set(found)) != len(found):
        raise ValueError("repeated axis")
    return found


def as_operand(value: Any) -> Any:
    """A value of an assignment: host arrays and lists are uploaded.

    Raises:
        ValueError: arrays can't have its dtype.
    """
    if isinstance(value, ndarray | np.generic | int | float | complex):
        return value
    return transfer.as_array(value)


def check_same(array: ndarray, host: np.ndarray[Any, Any]) -> None:
    """``array[:] = host`` copies bytes, in CuPy: nothing is cast or broadcast.

    Raises:
        ValueError: dtypes or shapes differ, or the array has gaps.
    """
    if (
        host.dtype != array.dtype
        or host.shape != array.shape
        or not array._known_layout()[1] & (LAYOUT_C | LAYOUT_F)
    ):
        raise ValueError(
            "a host array assigned to a[:] must have the same shape and dtype, and `a`"
            " no gaps; upload it with cupy.asarray"
        )


class DeviceSynchronized(RuntimeError):  # noqa: N818  CuPy's name
    """A call would wait for the device where ``cupyx.allow_synchronize`` forbids it."""


DeviceSynchronized.__module__ = "cupyx"
waiting = threading.local()
"""``is_forbidden`` says whether this thread may wait for the device."""


def check_synchronize() -> None:
    """Refuse to wait where the program has said so.

    Raises:
        DeviceSynchronized: it has.
    """
    if getattr(waiting, "is_forbidden", False):
        raise DeviceSynchronized("the program does not allow to wait for the device")


def _geometries(key: Any) -> tuple[Any, ...]:
    """An index as ``picked_shape`` takes it."""
    parts = key if type(key) is tuple else (key,)
    return tuple([one._geo if type(one) is ndarray else one for one in parts])


def index_of(key: Any) -> Any:
    """An index as the server takes it: lists become arrays, as in CuPy.

    Raises:
        IndexError: an index that arrays don't have.
    """
    if isinstance(key, tuple):
        return tuple([index_of(one) for one in key])
    if isinstance(key, list):
        key = transfer.unwrapped(key)
        if transfer.has_remote(key):
            return transfer.as_array(key)
        array = transfer.host_array(key)
        if array.size == 0:
            array = array.astype(np.intp)
        return transfer.upload(array)
    if isinstance(key, np.ndarray):
        if key.dtype.kind not in "biu":
            raise IndexError(
                "arrays used as indices must be of integer (or boolean) type"
            )
        return transfer.upload(key) if key.ndim else key[()]
    if not isinstance(key, ndarray | str):
        key = transfer.unwrapped(key)
    if isinstance(key, str | float | complex):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and"
            " integer or boolean arrays are valid indices"
        )
    return key
