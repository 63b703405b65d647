"""Several devices of one array job: ``with cupy.cuda.Device(1)``.

Each device is a session with a log of its own, and an array's number tells which one it
is on. ``Devices`` stands where a process with one device has its ``ArrayDevice``: what
it is asked goes to the thread's current one. Operations and described dtypes have the
same numbers everywhere, so that what is remembered of a call is good on every device.

Views of an array, and copies to the host, are made where it is. Copies from device to
device go through this process. Everything else wants its arrays on the current device:
``encode`` sees to it, so no call may go around it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from xpool.cupy import array_items, array_views, transfer
from xpool.cupy.answers import RemoteObject
from xpool.cupy.device import DEAD_AT_ONCE, ArrayDevice, Audit
from xpool.cupy.encoding import ENCODERS, device_of, number_by_device
from xpool.cupy.faults import invalid_device
from xpool.cupy.ndarray import ndarray

if TYPE_CHECKING:
    from xpool_protocol.values import HostTensor

    from xpool.cupy.geometry import Geometry
    from xpool.cupy.log import ArrayLog
    from xpool.session import Session

ANYWHERE: Final = (
    *("__getitem__", "__dlpack__", "_known_layout", "diagonal", "fill", "get"),
    *("ravel", "reshape", "set", "squeeze", "swapaxes", "toDlpack", "transpose"),
    *("view", "__reduce__"),
)
"""Methods that work whatever the current device is."""

ATTRIBUTES: Final = ("base", "flat", "imag", "real", "shape")
"""Likewise."""


class Current(Protocol):
    """The index of each thread's current device."""

    def index(self) -> int:
        """This thread's."""

    def use(self, index: int) -> None:
        """Make a device, which there is, this thread's."""


class CurrentHere(threading.local):
    """That of a process without torch."""

    _index = 0

    def index(self) -> int:
        """This thread's."""
        return self._index

    def use(self, index: int) -> None:
        """Make a device, which there is, this thread's."""
        self._index = index


class Member(ArrayDevice):
    """One of several."""

    def __init__(self, group: Devices, session: Session, log: ArrayLog) -> None:
        super().__init__(session, log)
        self._group = group

    def operation(self, name: str) -> bytes:
        """The bytes of an operation's number, which is the same on all devices."""
        return self._group.operation(name)

    def free_dead(self) -> None:
        """Free what finalizers have left here."""
        self._group.sort_dead()
        super().free_dead()

    def request(self, name: str, arguments: bytes) -> Any:
        """Send a request; its answer's value."""
        self._group.sort_dead()
        return super().request(name, arguments)


class _EachCall(Audit):
    """Wants to see each call, so that none goes by what is remembered."""

    sees_repeats = False

    def __init__(self, group: Devices) -> None:
        self._group = group

    def check(self, name: str, results: Sequence[tuple[bytes, Geometry]]) -> None:
        """Let the current device's own audit, if there is one, look."""
        found = self._group.here.audit
        if found is not None:
            found.check(name, results)


class Devices(ArrayDevice):
    """All of them; what is asked goes to the thread's current one."""

    def __init__(
        self, opened: Sequence[tuple[Session, ArrayLog]], current: Current
    ) -> None:
        """Take over the process's arrays.

        Args:
            opened: session and log of each device, in order.
            current: which is each thread's.
        """
        # Not the base's: there is no session that all of this belongs to.
        self._members = tuple(Member(self, *one) for one in opened)
        self._current = current
        self.dead: deque[tuple[int, int]] = deque()
        self._dead_limit = DEAD_AT_ONCE
        self._operations: dict[str, bytes] = {}
        self._heads: dict[tuple[str, int], bytes] = {}
        self._define_lock = threading.RLock()
        self.audit: Audit | None = _EachCall(self)
        number_by_device(current.index)
        for kind in (ndarray, RemoteObject):
            ENCODERS[kind] = self._checked_ref

    def __getattr__(self, name: str) -> Any:
        return getattr(self.here, name)

    # ---- which one

    @property
    def here(self) -> ArrayDevice:
        """The current one."""
        return self._members[self._current.index()]

    @property
    def members(self) -> Sequence[ArrayDevice]:
        """All of them, by index."""
        return self._members

    def current_index(self) -> int:
        """The index of the thread's current one."""
        return self._current.index()

    def use(self, index: int) -> None:
        """Make one the thread's current one.

        Raises:
            CUDARuntimeError: there is no such device.
        """
        if not 0 <= index < len(self._members):
            raise invalid_device()
        self._current.use(index)

    @contextlib.contextmanager
    def on(self, index: int) -> Iterator[None]:
        """A device, for a block."""
        before = self._current.index()
        self._current.use(index)
        try:
            yield
        finally:
            self._current.use(before)

    def brought(self, array: ndarray) -> ndarray:
        """An array that is on another device as one on the current device."""
        home = device_of(array._number)
        if home == self._current.index():
            return array
        with self.on(home):
            host = array.get(order="A")
        return transfer.upload(host)

    def _checked_ref(self, value: Any) -> bytes:
        home, index = device_of(value._number), self._current.index()
        if home != index:
            raise ValueError(
                "Array device must be same as the current device: array device ="
                f" {home} while current = {index}"
            )
        ref: bytes = value._ref
        return ref

    def complete(self) -> None:
        """Let arrays do where they are what CuPy lets them do from anywhere."""
        for name in ANYWHERE:
            method = vars(ndarray).get(name)
            if method is not None:
                setattr(ndarray, name, self._at_home(method))
        for name in ATTRIBUTES:
            found = vars(ndarray)[name]
            put = None if found.fset is None else self._at_home(found.fset)
            made = property(self._at_home(found.fget), put, doc=found.__doc__)
            setattr(ndarray, name, made)
        assign, copy = array_items.set_items, array_views.copied

        @functools.wraps(assign)
        def assign_at_home(array: ndarray, key: Any, value: Any) -> None:
            with self.on(device_of(array._number)):
                if isinstance(value, ndarray):
                    value = self.brought(value)
                assign(array, key, value)

        @functools.wraps(copy)
        def copy_here(array: ndarray, order: str | None = "C") -> ndarray:
            return copy(self.brought(array), order)

        for name, method in (("__setitem__", assign_at_home), ("copy", copy_here)):
            setattr(ndarray, name, method)

    def _at_home(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(array: ndarray, *args: Any, **kwargs: Any) -> Any:
            home = device_of(array._number)
            if home == self._current.index():
                return method(array, *args, **kwargs)
            with self.on(home):
                return method(array, *args, **kwargs)

        return run

    # ---- records

    def define(self, record: bytes) -> None:
        """Append a definition to all logs."""
        for one in self._members:
            one.define(record)

    def post(self, record: bytes) -> None:
        """Queue a record on the current device."""
        self._look_at_dead()
        self.here.post(record)

    def post_new(self, record: bytes) -> None:
        """``post`` for a record that only makes arrays."""
        self._look_at_dead()
        self.here.post_new(record)

    def post_filled(
        self, storage: int, data: memoryview, before: bytes, after: bytes
    ) -> None:
        """Fill a storage on the current device."""
        self._look_at_dead()
        self.here.post_filled(storage, data, before, after)

    def _look_at_dead(self) -> None:
        if len(self.dead) >= self._dead_limit:
            self.free_dead()

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation on the current device and wait for what it returns."""
        return self.here.call(name, args, kwargs)

    def request(self, name: str, arguments: bytes) -> Any:
        """Send a request to the current device; its answer's value."""
        return self.here.request(name, arguments)

    def items(self, array: ndarray) -> HostTensor:
        """The items of an array on the current device."""
        return self.here.items(array)

    def synchronize(self) -> None:
        """Wait until everything has run on the current device."""
        self.here.synchronize()

    # ---- memory

    def sort_dead(self) -> None:
        """Give what finalizers have left to the devices that it was on."""
        self._dead_limit = DEAD_AT_ONCE
        while self.dead:
            number, charge = self.dead.popleft()
            self._members[device_of(number)].dead.append((number, charge))

    def free_dead(self) -> None:
        """Free what finalizers have left, everywhere."""
        for one in self._members:
            one.free_dead()

    def free_large(self, number: int, charge: int) -> None:
        """Free one at once, from a finalizer; with the next record if that must be."""
        self._members[device_of(number)].free_large(number, charge)

    def charge(self, nbytes: int) -> None:
        """Count memory that a result takes on the current device."""
        self.here.charge(nbytes)

    def charge_made(self, nbytes: int) -> None:
        """Count memory that the current device's server has found room for."""
        self.here.charge_made(nbytes)

    def limit_memory(self, nbytes: int) -> None:
        """Allow no more than this on the current device."""
        self.here.limit_memory(nbytes)

    @property
    def allocated_nbytes(self) -> int:
        """Charged for arrays on the current device."""
        return self.here.allocated_nbytes

    @allocated_nbytes.setter
    def allocated_nbytes(self, nbytes: int) -> None:
        self.here.allocated_nbytes = nbytes

    def used_nbytes(self) -> int:
        """What arrays and other objects take on the current device."""
        return self.here.used_nbytes()

    @property
    def has_other_objects(self) -> bool:
        """Objects that are no arrays have come or gone, somewhere."""
        return self.here.has_other_objects

    @has_other_objects.setter
    def has_other_objects(self, value: bool) -> None:
        for one in self._members:
            one.has_other_objects = value

    @property
    def is_shared(self) -> bool:
        """Torch has seen an array's memory on the current device."""
        return self.here.is_shared

    @is_shared.setter
    def is_shared(self, value: bool) -> None:
        self.here.is_shared = value

    @property
    def revive(self) -> Callable[[Any, Mapping[int, Any]], Any]:
        """Makes arrays of what an answer describes."""
        return self.here.revive

    @revive.setter
    def revive(self, value: Callable[[Any, Mapping[int, Any]], Any]) -> None:
        for one in self._members:
            one.revive = value
