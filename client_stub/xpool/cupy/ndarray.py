"""``cupy.ndarray`` on the client: a number, and what is known of the array.

What the client can predict is queued, everything else is asked for. Here is what an
array is, and how a record makes one. What it can do is added: by ``array_items``,
``array_views``, ``array_host`` and ``array_protocols``, when they are imported;
operators by ``operators``, the remaining methods by ``methods``.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
from xpool_protocol.arrays.values import LAYOUT_C, LAYOUT_F, LAYOUT_OWN

from xpool.cupy.axes import reshaped
from xpool.cupy.device import (
    FREED_AT_ONCE_NBYTES,
    ArrayDevice,
    device,
    encode_arguments,
)
from xpool.cupy.encoding import ENCODERS, device_of, new_number
from xpool.cupy.flags import Flags
from xpool.cupy.geometry import Geometry, check_dtype, geometry

F = TypeVar("F", bound=Callable[..., Any])

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
            (as_size(shape), check_dtype(float if dtype is None else dtype)),
            {"order": order or "C", **keywords},
        )
        assert isinstance(found, ndarray)
        return found if cls is ndarray else in_class(found, cls, _obj)

    if TYPE_CHECKING:  # what other modules add

        def __getattr__(self, name: str) -> Any: ...

        def __getitem__(self, key: Any) -> Any: ...

        def __setitem__(self, key: Any, value: Any) -> None: ...

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
        return self if self._geo.dtype.kind != "c" else _half(self, "real")

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> ndarray:
        """The imaginary part: a view of a complex array, or new zeros."""
        if self._geo.dtype.kind != "c":
            return posted("cupy.zeros", self._geo, (self._geo.shape, self._geo.dtype))
        return _half(self, "imag")

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

    # ---- a sequence

    def __len__(self) -> int:
        if not self._geo.shape:
            raise TypeError("len() of unsized object")
        return self._geo.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self._geo.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self._geo.shape[0]))


ndarray.__module__ = "cupy"


def method(name: str) -> Callable[[F], F]:
    """Make a function the method of arrays with this name."""

    def add(function: F) -> F:
        function.__name__, function.__qualname__ = name, f"ndarray.{name}"
        setattr(ndarray, name, function)
        return function

    return add


def connect(where: ArrayDevice) -> None:
    """Let arrays use a device."""
    global _device
    _device = where


_type = type
_device: ArrayDevice | None = None


def ref_of(value: Any) -> bytes:
    """Tag and number of an array or a remote object, as arguments carry them."""
    ref: bytes = value._ref
    return ref


ENCODERS[ndarray] = ref_of

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


def posted(
    name: str,
    geo: Geometry,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    charge: int | None = None,
) -> ndarray:
    """Queue a call whose one result is predicted."""
    arguments = encode_arguments(args, kwargs or {})
    return queued(name, geo, arguments, geo.charge_nbytes if charge is None else charge)


def queued(name: str, geo: Geometry, arguments: bytes, charge: int) -> ndarray:
    """``posted`` for arguments that are encoded."""
    array = made(geo, charge)
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
    return queued_view(source, name, shape, encode_arguments(args, kwargs or {}))


def queued_view(
    source: ndarray, name: str, shape: tuple[int, ...], arguments: bytes
) -> ndarray:
    """``posted_view`` for arguments that are encoded."""
    array = queued(name, geometry(shape, source._geo.dtype), arguments, 0)
    array._base = source if source._base is None else source._base
    if type(source) is not ndarray:
        return in_class(array, type(source), source)
    return array


def in_class(array: ndarray, kind: type[ndarray], source: Any) -> ndarray:
    """A new array as an object of a class that the program has derived."""
    from xpool.cupy.subclassing import reseated

    return reseated(array, kind, source)


def _half(array: ndarray, name: str) -> ndarray:
    """The real or the imaginary part of a complex array: a view."""
    dtype = np.dtype(array._geo.dtype.char.lower())
    arguments = encode_arguments((array, name), {})
    found = queued("xpool.attribute", geometry(array._geo.shape, dtype), arguments, 0)
    found._base = array if array._base is None else array._base
    return found if type(array) is ndarray else in_class(found, type(array), array)


def attribute(array: ndarray, name: str) -> Any:
    """An attribute that is an array, from the server."""
    return device().call("xpool.attribute", (array, name), {})


def as_size(shape: Any) -> tuple[int, ...]:
    """The shape of a new array: ``as_shape``, but truth values are no lengths.

    Raises:
        TypeError: it is none.
    """
    if shape is None:
        raise TypeError("Use () not None as shape arguments")
    lengths = shape if isinstance(shape, tuple | list) else (shape,)
    if any(getattr(one, "dtype", type(one)) in _TRUTHS for one in lengths):
        raise TypeError("an integer is required")
    return as_shape(shape)


_TRUTHS = (bool, np.dtype(np.bool))


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
