"""The device that arrays live on: numbers, records, answers. One in a process.

``post`` is for calls whose results are known, ``call`` for the others. A finalizer runs
anywhere: it only appends to ``dead``, and what it leaves goes with a later record.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from xpool_protocol import limits
from xpool_protocol.arrays.records import (
    ARRAY_CALL,
    ARRAY_REQUEST,
    DEFINE_ARRAY_OPERATION,
    FREE_ARRAYS,
)
from xpool_protocol.arrays.values import read_array_value
from xpool_protocol.errors import PeerError, PoolError, UsageError
from xpool_protocol.records import STATISTICS
from xpool_protocol.wire import Reader

from xpool.cupy.encoding import encode, new_block, number_bytes, uvarint
from xpool.cupy.faults import OutOfMemoryError, invalid_device, raise_local
from xpool.cupy.geometry import dtype_of_meta
from xpool.cupy.mask_counts import MaskCounts
from xpool.session import RemoteFault

if TYPE_CHECKING:
    from xpool_protocol.values import HostTensor

    from xpool.cupy.geometry import Geometry
    from xpool.cupy.log import ArrayLog
    from xpool.cupy.ndarray import ndarray
    from xpool.session import Session

DEAD_AT_ONCE: Final = 64
"""Numbers that one record frees."""

LARGE_NBYTES: Final = 1 << 20
"""An array of this size asks what torch has allocated."""

FREED_AT_ONCE_NBYTES: Final = 64 << 10
"""An array of this size is freed at once: what comes next may use its memory, which is
in the processor's caches still."""

ROOM_EVERY: Final = 256
"""Records between two looks at the queue's length."""

MAX_AHEAD: Final = 4096
"""Items that are kept until somebody asks for them."""

ONLY_READ: Final = frozenset({"xpool.get", "xpool.describe", "ndarray.__getitem__"})
"""Requests that change no array."""

_CALL: Final = bytes((ARRAY_CALL,))
_REQUEST: Final = bytes((ARRAY_REQUEST,))

WARNINGS: Final[dict[str, type[Warning]]] = {
    kind.__name__: kind
    for kind in (
        UserWarning,
        DeprecationWarning,
        FutureWarning,
        RuntimeWarning,
        np.exceptions.ComplexWarning,
        np.exceptions.RankWarning,
        np.exceptions.VisibleDeprecationWarning,
    )
}
"""What the server's warnings become; any other is a ``UserWarning``. Classes of
CuPy's own are added where they are made."""


class ArrayDevice:
    """One session's arrays."""

    def __init__(self, session: Session, log: ArrayLog) -> None:
        self.session, self.log = session, log
        self.dead: deque[tuple[int, int]] = deque()
        """Numbers that finalizers have left, and what they are charged."""
        self.allocated_nbytes = 0
        """Charged for arrays, as far as the client knows."""
        self.revive: Callable[[Any, Mapping[int, Any]], Any] = lambda value, known: (
            value
        )
        """Makes arrays of what an answer describes; ``ndarray`` sets it."""
        self.limit_nbytes = session.welcome.memory_nbytes
        """What arrays and tensors together may take: the quota, or less by wish."""
        self._soft_limit_nbytes = self.limit_nbytes
        self.has_other_objects = False
        """Objects that are no arrays have come or gone; only the server counts them."""
        self._objects_nbytes = 0
        """What they hold, as far as it is known."""
        self._operations: dict[str, bytes] = {}
        self._heads: dict[tuple[str, int], bytes] = {}
        self._define_lock = threading.RLock()
        self._until_room = ROOM_EVERY
        self._dead_limit = DEAD_AT_ONCE
        self._append = log.append
        self._is_traced = session.is_traced
        self._writes = 0
        """Changes with each record that may write into an array that there is."""
        self.mask_counts = MaskCounts()
        self._ahead: tuple[int, dict[int, HostTensor]] = (0, {})
        """Items that came beside others, and what ``_writes`` was before they did."""
        self.asked = 0
        """How often something that only the server knows has been asked for."""
        self.is_shared = False
        """Torch has seen an array's memory: its records may write there, too."""
        self.audit = Audit(self) if is_audited() else None
        self._owner_pid = os.getpid()

    # ---- which one; ``several.Devices`` knows more of them

    @property
    def members(self) -> Sequence[ArrayDevice]:
        """All devices of the job, by index."""
        return (self,)

    def current_index(self) -> int:
        """The index of the thread's current device."""
        return 0

    def use(self, index: int) -> None:
        """Make a device the thread's current one.

        Raises:
            CUDARuntimeError: there is no such device.
        """
        if index:
            raise invalid_device()

    def on(self, index: int) -> AbstractContextManager[None]:
        """A device, which there is, for a block."""
        return nullcontext()

    def brought(self, array: ndarray) -> ndarray:
        """An array that is on another device as one on the current device."""
        return array

    def complete(self) -> None:
        """Called once ``ndarray`` has all its methods."""

    # ---- records

    def operation(self, name: str) -> bytes:
        """The bytes of an operation's number; defined if this is its first use."""
        found = self._operations.get(name)
        if found is not None:
            return found
        with self._define_lock:
            if name not in self._operations:
                number = uvarint(len(self._operations))
                self.define(define_operation(number, name))
                self._operations[name] = number
            return self._operations[name]

    def define(self, record: bytes) -> None:
        """Append a definition, which is the same for all devices of a job."""
        self._append(record)

    def head(self, name: str, result_count: int) -> bytes:
        """The first bytes of a call's record."""
        found = self._heads.get((name, result_count))
        if found is None:
            found = _CALL + self.operation(name) + uvarint(result_count)
            self._heads[name, result_count] = found
        return found

    def post(self, record: bytes) -> None:
        """Queue a record that nobody waits for."""
        self.post_new(record)
        self._writes += 1  # not before: what is read in between has not seen it

    @property
    def epoch(self) -> int:
        """How many records have been sent that may have written into an array."""
        return self._writes

    def post_new(self, record: bytes) -> None:
        """``post`` for a record that only makes arrays, and writes into none."""
        if len(self.dead) >= self._dead_limit:
            self.free_dead()
        self._until_room -= 1
        if self._until_room <= 0:
            self._look_at_queue()
        number = self._append(record)
        if self._is_traced:
            self.session.trace(number)

    def post_filled(
        self, storage: int, data: memoryview, before: bytes, after: bytes
    ) -> None:
        """Fill a storage, between the record that makes it and one of new arrays.

        Args:
            storage: which.
            data: its bytes; may change as soon as this returns.
            before: makes the storage.
            after: makes arrays over it.
        """
        if len(self.dead) >= self._dead_limit:
            self.free_dead()
        self._look_at_queue()
        numbers = self.log.write(storage, data, before, after)
        if self._is_traced:
            for number in numbers:
                self.session.trace(number)

    def _look_at_queue(self) -> None:
        self._until_room = ROOM_EVERY
        if os.getpid() != self._owner_pid:
            raise RuntimeError("xpool: a forked process has no session")
        self.log.leave_room()

    def sort_dead(self) -> None:
        """Give what finalizers have left to the device that it was on: this one."""

    def free_dead(self) -> None:
        """Free what finalizers have left."""
        self._dead_limit = DEAD_AT_ONCE
        while self.dead:
            numbers: list[bytes] = []
            charges = 0
            while self.dead and len(numbers) < 1024:
                number, charge = self.dead.popleft()
                numbers.append(number_bytes(number))
                charges += charge
            self._append(
                bytes((FREE_ARRAYS,)) + uvarint(len(numbers)) + b"".join(numbers)
            )
            # Not before: the server has it until the record comes.
            self.allocated_nbytes -= charges

    def free_large(self, number: int, charge: int) -> None:
        """Free one at once, from a finalizer; with the next record if that must be."""
        if self.log.takes_from_finalizers:
            self._append(bytes((FREE_ARRAYS, 1)) + uvarint(number))
            self.allocated_nbytes -= charge
        else:
            self.dead.append((number, charge))
            self._dead_limit = 1

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation and wait for what it returns.

        Raises:
            Exception: whatever the operation raised, as CuPy would have.
        """
        arguments = encode_arguments(args, kwargs)
        value = self.request(name, arguments)
        result, said = value
        for category, text in said:
            warnings.warn(text, WARNINGS.get(category, UserWarning), stacklevel=4)
        return self.revive(result, _named(args, kwargs))

    def request(self, name: str, arguments: bytes) -> Any:
        """Send a request; its answer's value: the result and warnings."""
        self.asked += 1
        self._look_at_queue()
        if self.dead:
            self.free_dead()
        operation = self.operation(name)
        request = self.log.next_request()
        record = _REQUEST + uvarint(request) + uvarint(new_block()) + operation
        number = self._append(record + arguments)
        if name not in ONLY_READ:
            self._writes += 1
        if self._is_traced:
            self.session.trace(number)
        session = self.session
        try:
            reply = session.noted(name, lambda: session.wait(request))
        except (RemoteFault, PoolError) as error:
            raise_local(error)
        value = read_array_value(Reader(reply.value))
        if not isinstance(value, tuple) or len(value) != 2:
            raise PeerError("the server's answer is malformed")
        return value

    def items(self, array: ndarray) -> HostTensor:
        """The items of an array; of a small one with those of others like it.

        A program that keeps numbers and reads them at its end waits once, not once for
        each. What came beside is good until a record may have written into an array.
        """
        self.asked += 1
        recent, number = array._geo.recent, array._number
        epoch, known = self._ahead
        if epoch == self._writes and number in known:
            return known[number]
        others: list[int] = []
        if recent is not None and not self.is_shared:
            others = [one for one in list(recent) if one != number]
            recent.clear()
        if not others:
            value, _ = self.request("xpool.get", b"\x01" + array._ref + b"\x00")
            return _checked_items(value)
        before = self._writes
        wanted = b"\x02" + array._ref + encode(others) + b"\x00"
        value, _ = self.request("xpool.get", wanted)
        if type(value) is not tuple or len(value) != 2 or len(value[1]) != len(others):
            raise PeerError("the server's answer is malformed")
        found = {
            one: _checked_items(items)
            for one, items in zip(others, value[1], strict=True)
            if items is not None
        }
        if epoch == before and len(known) < MAX_AHEAD:
            found = {**known, **found}
        self._ahead = before, found
        return _checked_items(value[0])

    def synchronize(self) -> None:
        """Wait until everything has run; raises the first error nobody was told of."""
        from xpool_protocol.records import FENCE

        self._look_at_queue()
        request = self.log.next_request()
        self._append(bytes((FENCE,)) + uvarint(request))
        session = self.session
        try:
            session.noted("synchronize", lambda: session.wait(request))
        except (RemoteFault, PoolError) as error:
            raise_local(error)

    # ---- memory

    def charge(self, nbytes: int) -> None:
        """Count memory that a result takes.

        Raises:
            OutOfMemoryError: the quota does not hold it.
        """
        self.allocated_nbytes += nbytes
        # What torch has allocated meanwhile is looked at for large arrays alone.
        if nbytes >= LARGE_NBYTES or self.allocated_nbytes > self._soft_limit_nbytes:
            self._check_quota(nbytes)

    def charge_made(self, nbytes: int) -> None:
        """Count memory that the server has found room for already."""
        self.allocated_nbytes += nbytes

    def limit_memory(self, nbytes: int) -> None:
        """Allow no more than this, and no more than the quota."""
        self.limit_nbytes = min(nbytes, self.session.welcome.memory_nbytes)
        self._soft_limit_nbytes = self._room_for_arrays()

    def used_nbytes(self) -> int:
        """What arrays and other objects take; the server is asked about the latter."""
        self.free_dead()
        self._count_objects(0)
        return self.allocated_nbytes + self._objects_nbytes

    def _room_for_arrays(self) -> int:
        return self.limit_nbytes - self.log.allocated_nbytes() - self._objects_nbytes

    def _count_objects(self, coming_nbytes: int) -> None:
        """Ask what objects hold, if some have come or gone.

        Args:
            coming_nbytes: of what is counted here, and not there yet.
        """
        if not self.has_other_objects:
            return
        self.has_other_objects = False
        request = self.log.next_request()
        self._append(bytes((STATISTICS,)) + uvarint(request))
        total = self.session.statistics(request)["allocated_nbytes"]
        here = self.allocated_nbytes - coming_nbytes + self.log.allocated_nbytes()
        self._objects_nbytes = total - here

    def _check_quota(self, nbytes: int) -> None:
        self.free_dead()
        quota = self.limit_nbytes
        self._count_objects(nbytes)
        self._soft_limit_nbytes = self._room_for_arrays()
        if self.allocated_nbytes > self._soft_limit_nbytes:
            self.allocated_nbytes -= nbytes
            raise OutOfMemoryError(
                f"Out of memory allocating {nbytes:,} bytes (allocated so far:"
                f" {self.allocated_nbytes:,} bytes, limit set to: {quota:,} bytes)."
                " Ask for more with `xpool run --memory`"
            )


def define_operation(number: bytes, name: str) -> bytes:
    """The record that gives an operation its number."""
    text = name.encode()
    return bytes((DEFINE_ARRAY_OPERATION,)) + number + uvarint(len(text)) + text


def encode_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Arguments and keywords as they stand in a record."""
    if len(args) > limits.MAX_ARGUMENTS:
        raise ValueError(f"xpool: {len(args)} arguments are too many for one call")
    parts = [uvarint(len(args))]
    parts += [encode(one) for one in args]
    parts.append(uvarint(len(kwargs)))
    for name, value in kwargs.items():
        text = name.encode()
        parts += (uvarint(len(text)), text, encode(value))
    return b"".join(parts)


def _checked_items(value: Any) -> HostTensor:
    from xpool_protocol.values import HostTensor

    if type(value) is not HostTensor:
        raise PeerError("the server's answer is malformed")
    return value


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[int, Any]:
    """Remote objects among arguments, by number."""
    found: dict[int, Any] = {}
    _note_named((*args, *kwargs.values()), found)
    return found


def _note_named(values: Sequence[Any], found: dict[int, Any]) -> None:
    # No function within a function: that is a cycle, which would keep arguments alive.
    for value in values:
        if getattr(type(value), "_number", None) is not None:
            found[value._number] = value
        elif type(value) in (tuple, list):
            _note_named(value, found)


# ---- audit


def is_audited() -> bool:
    """Whether predictions are to be compared one by one: ``XPOOL_AUDIT=1``."""
    return os.environ.get("XPOOL_AUDIT", "") not in ("", "0")


class Audit:
    """Compares each prediction with the server's truth, and counts."""

    sees_repeats = True
    """Calls may go by plans and what is known of them: these are looked at, too."""

    def __init__(self, device: ArrayDevice) -> None:
        self._device = device
        self.predictions = 0
        self.mismatches: list[str] = []
        self.late_errors: list[str] = []
        """Calls that failed on the server where CuPy raises at the call."""
        atexit.register(self.report)

    def report(self) -> None:
        """Say on the standard error what was found."""
        lines = [
            f"xpool: audit: {self.predictions} predictions,"
            f" {len(self.mismatches)} mismatches, {len(self.late_errors)} late errors"
        ]
        lines += [f"  mismatch: {one}" for one in self.mismatches]
        lines += [f"  late error: {one}" for one in self.late_errors]
        print("\n".join(lines), file=sys.stderr)  # noqa: T201  asked for

    def compare(self, name: str, before: object, now: object) -> None:
        """Note a call that is not made as it was before, with the same arguments.

        Args:
            name: the operation.
            before: what the call's record was made of.
            now: what it is made of now.
        """
        if before != now:
            self.mismatches.append(f"{name}: made of {now}, and before of {before}")

    def check(self, name: str, results: Sequence[tuple[bytes, Geometry]]) -> None:
        """Ask what some results really are.

        Args:
            name: the operation.
            results: the bytes of each one's reference, and its prediction.
        """
        refs = b"\x20" + uvarint(len(results)) + b"".join(ref for ref, _ in results)
        self.predictions += len(results)
        try:
            found, _ = self._device.request("xpool.describe", b"\x01" + refs + b"\x00")
        except Exception as error:  # noqa: BLE001  noted: the audit changes nothing
            text = f"{name}: {type(error).__name__}: {error}"
            wrong = self.mismatches if "predicted" in text else self.late_errors
            wrong.append(text)
            return
        for meta, (_, predicted) in zip(found, results, strict=True):
            dtype = dtype_of_meta(meta)
            if meta.sizes != predicted.shape or dtype != predicted.dtype:
                self.mismatches.append(
                    f"{name}: {meta.sizes} {dtype}, not {predicted.shape}"
                    f" {predicted.dtype}"
                )


# ---- the process's device

_devices: list[ArrayDevice] = []
_opener: list[Callable[[], ArrayDevice]] = []


def set_opener(opener: Callable[[], ArrayDevice]) -> None:
    """Say how the device is made when ``cupy`` is imported."""
    _opener[:] = [opener]


def device() -> ArrayDevice:
    """The process's device.

    Raises:
        UsageError: there is no session.
    """
    if not _devices:
        if not _opener:
            raise UsageError(
                "no session is open: start the program with `xpool run`, or call"
                " xpool.init()"
            )
        _devices.append(_opener[0]())
    return _devices[0]
