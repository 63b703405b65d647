"""The native library seen from Python: loaded before torch, spoken to by ctypes."""

from __future__ import annotations

import _thread
import ctypes
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import ClosedError, PoolError, UsageError
from xpool_protocol.group_records import OPEN_MEETING
from xpool_protocol.lane_records import (
    DIGEST_NBYTES,
    LIST_KNOWN,
    OPEN_LANE,
    payload_of_known,
)
from xpool_protocol.records import FENCE, STATISTICS

from xpool import lane
from xpool.lacking import device_text
from xpool.link import Interrupted
from xpool.native import pump
from xpool.outbox import QueuedBatch
from xpool.session import RemoteFault

if TYPE_CHECKING:
    from xpool_protocol.connection import ClientConnection
    from xpool_protocol.transport import Link

    from xpool.link import SessionLink
    from xpool.native.cuda_build import StandIn
    from xpool.outbox import Diagnose
    from xpool.session import Session

ABI: Final = 9
INTERRUPTED: Final = "interrupted while waiting for the server"
_ANSWERED, _FAILED, _OVER, _INTERRUPTED = range(4)
_SYNCHRONOUS: Final = {
    "fence": FENCE,
    "statistics": STATISTICS,
    "open_meeting": OPEN_MEETING,
}


class _Answer(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int32),
        ("signal", ctypes.c_int32),
        ("value", ctypes.c_void_p),
        ("value_nbytes", ctypes.c_uint64),
        ("payloads", ctypes.c_void_p),
        ("payload_nbytes", ctypes.c_void_p),
        ("payload_count", ctypes.c_uint64),
        ("exception", ctypes.c_char_p),
        ("text", ctypes.c_char_p),
    )


class _TakenBatch(ctypes.Structure):
    _fields_ = (
        ("records", ctypes.c_void_p),
        ("nbytes", ctypes.c_uint64),
        ("record_count", ctypes.c_uint64),
        ("payloads", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_uint64)),
        ("payload_count", ctypes.c_uint64),
    )


class _Counters(ctypes.Structure):
    _fields_ = (
        ("allocated", ctypes.c_uint64),
        ("peak", ctypes.c_uint64),
        ("quota", ctypes.c_uint64),
        ("allocation_count", ctypes.c_uint64),
        ("allocated_total", ctypes.c_uint64),
        ("released_count", ctypes.c_uint64),
        ("peak_count", ctypes.c_uint64),
        ("refused_count", ctypes.c_uint64),
    )


class _PlanCounters(ctypes.Structure):
    _fields_ = (
        ("hits", ctypes.c_uint64),
        ("misses", ctypes.c_uint64),
        ("requests", ctypes.c_uint64),
    )


class _ReplayCounters(ctypes.Structure):
    _fields_ = (
        ("records", ctypes.c_uint64),
        ("replayed", ctypes.c_uint64),
        ("parts", ctypes.c_uint64),
        ("plans", ctypes.c_uint64),
        ("early_answers", ctypes.c_uint64),
    )


class _LaneCounters(ctypes.Structure):
    _fields_ = (
        ("uploads", ctypes.c_uint64),
        ("downloads", ctypes.c_uint64),
        ("known", ctypes.c_uint64),
    )


class _PyBuffer(ctypes.Structure):
    """CPython's ``Py_buffer``, to learn the address of a read-only buffer."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address(view: object) -> int:
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(
        ctypes.py_object(view), ctypes.byref(buffer), ctypes.c_int(0)
    )
    address = int(buffer.buf or 0)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address


def _write_digest(data: int, nbytes: int, to: int) -> bool:
    """Called by the library with a tensor's memory; must not raise."""
    try:
        memory = (ctypes.c_ubyte * nbytes).from_address(data)
        view = memoryview(memory).cast("B")
        ctypes.memmove(to, lane.digest_of(view), DIGEST_NBYTES)
    except (MemoryError, RuntimeError):
        return False  # it is uploaded as if nobody knew it
    return True


_REQUEST = ctypes.CFUNCTYPE(
    None, ctypes.c_int32, ctypes.c_uint64, ctypes.POINTER(_Answer)
)
_WAIT = ctypes.CFUNCTYPE(None, ctypes.c_int32)
_TRACE = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_uint64)
_OPEN_LANE = ctypes.CFUNCTYPE(None, ctypes.c_int32)
_DIGEST = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64
)
_WAITED = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64)


class NativeLibrary:
    """Owns the loaded library; what belongs to one device is a ``NativeDevice``'s."""

    def __init__(
        self, path: Path, torch_folder: Path, stand_in: StandIn | None = None
    ) -> None:
        """Load the library; torch must not be imported by now.

        Args:
            path: the library.
            torch_folder: the torch that it was built for.
            stand_in: what stands for the CUDA runtime, if torch is a CUDA build.

        Raises:
            UsageError: torch is imported, or the library is not of these sources.
        """
        if "torch" in sys.modules:
            raise UsageError(
                "torch is imported already: call xpool.init() before `import torch`"
            )
        if stand_in is not None:
            stand_in.load_torch(torch_folder)
        for name in ("libgomp.so.1", "libc10.so", "libtorch_cpu.so"):
            found = torch_folder / "lib" / name
            if found.exists():
                ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
        self._path, self._stand_in = path, stand_in
        self._library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self._declare()
        if self._library.xpool_abi() != ABI:
            raise UsageError(f"{path} was built from other sources: remove it")
        self._sessions: dict[int, Session] = {}
        self._is_closed = False
        self._pending_signal = 0
        self._kept = threading.local()
        self._callbacks: tuple[Any, ...] = ()

    def _declare(self) -> None:
        library = self._library
        library.xpool_register.argtypes = [ctypes.c_int32]
        library.xpool_register.restype = ctypes.c_char_p
        library.xpool_take_over.restype = ctypes.c_char_p
        library.xpool_take.argtypes = [ctypes.c_int32, ctypes.POINTER(_TakenBatch)]
        library.xpool_take.restype = ctypes.c_void_p
        library.xpool_release.argtypes = [ctypes.c_void_p]
        library.xpool_queued_bytes.restype = ctypes.c_uint64
        library.xpool_request.argtypes = [ctypes.c_int32, ctypes.c_uint8]
        library.xpool_request.restype = ctypes.c_uint64
        library.xpool_position.argtypes = [ctypes.c_int32]
        library.xpool_position.restype = ctypes.c_uint64
        library.xpool_set_callbacks.argtypes = [_REQUEST, _WAIT, _TRACE]
        library.xpool_watch_waits.argtypes = [_WAITED]
        library.xpool_set_lane_opener.argtypes = [_OPEN_LANE, _DIGEST]
        library.xpool_set_known.argtypes = [
            ctypes.c_int32,
            ctypes.c_char_p,
            ctypes.c_uint64,
        ]
        library.xpool_connect.argtypes = [
            ctypes.c_int32,
            ctypes.c_int32,
            ctypes.c_uint64,
            ctypes.c_int32,
        ]
        library.xpool_set_peer.argtypes = [ctypes.c_int32, *[ctypes.c_char_p] * 3]
        library.xpool_set_server_text.argtypes = [ctypes.c_int32, ctypes.c_char_p]
        library.xpool_set_lacking.argtypes = [ctypes.c_int32, ctypes.c_char_p]
        library.xpool_learn.argtypes = [ctypes.c_char_p]
        library.xpool_end.argtypes = [ctypes.c_int32, ctypes.c_char_p]
        library.xpool_current_stream.restype = ctypes.c_int64
        library.xpool_set_current_stream.argtypes = [ctypes.c_int32, ctypes.c_int64]
        for name in ("xpool_export_storage", "xpool_import_tensor"):
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
        library.xpool_resize_storage.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        library.xpool_resize_storage.restype = ctypes.c_char_p
        pump.declare(library)

    def register(self) -> None:
        """Take the CUDA key; torch must be imported by now.

        Raises:
            UsageError: torch refused, or would use a device of this host.
        """
        if self._stand_in is not None:
            self._stand_in.check()
        error = self._library.xpool_register(int(self._stand_in is not None))
        if error:
            raise UsageError(f"the remote device can't be registered: {error.decode()}")

    @property
    def is_cuda_build(self) -> bool:
        """Whether torch is a build for CUDA, whose own kernels are in the way."""
        return self._stand_in is not None

    @property
    def path(self) -> Path:
        """The library's file."""
        return self._path

    def take_over(self) -> None:
        """Replace kernels that were registered for the device since ``register``.

        Raises:
            RuntimeError: torch refused.
        """
        error = self._library.xpool_take_over()
        if error:
            raise RuntimeError(f"xpool: kernels can't be replaced: {error.decode()}")

    def escaped_launches(self) -> int:
        """Launches, copies and allocations that reached this host's CUDA runtime.

        Each has failed there, and is a mistake of ours. None on a CPU build of torch.
        """
        return self._stand_in.escapes() if self._stand_in is not None else 0

    def last_escape(self) -> str:
        """The CUDA function that was called last of them; empty if there was none."""
        return self._stand_in.last_escape() if self._stand_in is not None else ""

    def device(self, index: int) -> NativeDevice:
        """What belongs to one device; not connected yet."""
        return NativeDevice(self, self._library, index)

    def connect(self, devices: Sequence[NativeDevice]) -> None:
        """Route the library's requests to the devices' sessions.

        Args:
            devices: with their sessions; ``devices[i]`` is ``cuda:i``.
        """
        sessions = [device.session for device in devices]
        self._sessions = dict(enumerate(sessions))
        self._callbacks = (
            _REQUEST(self._on_request),
            _WAIT(self._wait),
            _TRACE(self._trace) if sessions[0].is_traced else _TRACE(),
        )
        self._library.xpool_set_callbacks(*self._callbacks)
        self._lane_opener = _OPEN_LANE(self._open_lane)
        self._digest = _DIGEST(_write_digest)
        self._library.xpool_set_lane_opener(self._lane_opener, self._digest)
        self._library.xpool_set_device_count(len(sessions))
        if sys.version_info < (3, 14):
            self._library.xpool_let_late_threads_wait()
        for device in devices:
            device.connect()
        if self._stand_in is not None:
            self._stand_in.describe(
                max(session.welcome.memory_nbytes for session in sessions)
            )

    def watch_waits(self, note: Callable[[str, int, int], None]) -> None:
        """Tell of every wait from now on; in the thread that has waited.

        Args:
            note: takes what was waited for, nanoseconds, and bytes that came back.
        """

        def waited(what: bytes, waited_ns: int, nbytes: int) -> None:
            note(what.decode(), waited_ns, nbytes)

        self._watch = _WAITED(waited)
        self._library.xpool_watch_waits(self._watch)

    def end(self, device: int, error: PoolError) -> None:
        """A device's session is over."""
        # Not at our own exit: other exit handlers may still drop tensors.
        if not isinstance(error, ClosedError):
            self._library.xpool_end(device, f"xpool: {error}".encode())

    def _open_lane(self, device: int) -> None:
        """Called by the library before the first large transfer; must not raise."""
        session = self._sessions[device]
        if not lane.is_wanted():
            return
        try:
            opened, listed = [
                int(self._library.xpool_request(device, kind))
                for kind in (OPEN_LANE, LIST_KNOWN)
            ]
            end = session.open_lane(opened)
            known = session.list_known(listed)
        except (PoolError, RemoteFault):
            return  # the next operation meets the session's end by itself
        except Interrupted:
            number, self._pending_signal = self._pending_signal, 0
            _thread.interrupt_main(signal.Signals(number or signal.SIGINT))
            return
        if end is not None:
            if not end.is_local:
                contents = payload_of_known(known)
                self._library.xpool_set_known(device, contents, len(contents))
            shared = end.shared
            self._library.xpool_lane(
                device,
                end.stream.detach(),
                -1 if shared is None else shared.memory,
                -1 if shared is None else shared.freed.detach(),
            )

    def _trace(self, device: int, operation: int) -> None:
        self._sessions[device].trace(operation)

    def _wait(self, device: int) -> None:
        """Called by the library: wait for room, or for ever if all is over."""
        if not self._is_closed:
            self._sessions[device].link.wait_for_room()
        elif threading.current_thread() is not threading.main_thread():
            threading.Event().wait()

    def _on_request(self, device: int, request: int, answer: Any) -> None:
        """Called by the library; must not raise, so every end is a status."""
        try:
            self._answer(self._sessions[device], request, answer)
        except PoolError as error:
            if self._is_closed:
                self._wait(device)
            self._refuse(answer, _OVER, "RuntimeError", f"xpool: {error}")
        except Interrupted:
            self._refuse(answer, _INTERRUPTED, "RuntimeError", INTERRUPTED)
            answer.contents.signal, self._pending_signal = self._pending_signal, 0
        except BaseException as error:  # noqa: BLE001  raised again below
            # A signal handler of the program's own. ctypes would print and drop it,
            # so the signal is delivered again behind the error that ends the call.
            self._refuse(answer, _INTERRUPTED, "RuntimeError", INTERRUPTED)
            answer.contents.signal = _signal_behind(error)
        if isinstance(self._sessions[device].link, pump.NativeLink):
            # It does not wait here, so what was deferred meanwhile is still pending.
            deferred, self._pending_signal = self._pending_signal, 0
            answer.contents.signal = deferred or answer.contents.signal

    def _answer(self, session: Session, request: int, answer: Any) -> None:
        try:
            reply = session.wait(request)
        except RemoteFault as fault:
            self._refuse(answer, _FAILED, fault.fault.exception, str(fault))
            return
        views = [memoryview(payload) for payload in reply.payloads]
        addresses = (ctypes.c_void_p * len(views))(*map(_address, views))
        sizes = (ctypes.c_uint64 * len(views))(*(view.nbytes for view in views))
        self._kept.value = (reply, views, addresses, sizes)
        answer.contents.value = _address(reply.value)
        answer.contents.value_nbytes = len(reply.value)
        answer.contents.payloads = ctypes.addressof(addresses)
        answer.contents.payload_nbytes = ctypes.addressof(sizes)
        answer.contents.payload_count = len(views)

    def defer_signal(self, number: int, frame: FrameType | None) -> bool:
        """For a signal handler: whether it must not raise here, and is called again.

        Inside a callback from the library nothing can be raised. The wait is ended
        instead, and the signal is delivered again when the call has failed.
        """
        if self._library.xpool_defer_signal(number):
            return True
        while frame is not None:
            if frame.f_code in _CALLBACKS:
                if self._sessions and not self._is_closed:
                    self._pending_signal = number
                    waiting = frame.f_locals.get("device", 0)
                    self._sessions[waiting].link.interrupt()
                return True
            frame = frame.f_back
        return False

    def _refuse(self, answer: Any, status: int, exception: str, text: str) -> None:
        kept = (exception.encode(), text.encode())
        self._kept.value = kept
        answer.contents.status = status
        answer.contents.exception, answer.contents.text = kept

    # ---- for the torch stub: what belongs to the process

    def plan_counters(self) -> dict[str, int]:
        """How results' shapes were found: from a plan, by inference, by asking."""
        counters = _PlanCounters()
        self._library.xpool_plans(ctypes.byref(counters))
        return {
            name: int(getattr(counters, name)) for name, _ in _PlanCounters._fields_
        }

    def expect_default_generator(self) -> None:
        """Makes this thread's next ``torch.Generator("cuda")`` the default one."""
        self._library.xpool_expect_default_generator()

    def current_device(self) -> int:
        """This thread's device index."""
        return int(self._library.xpool_current_device())

    def set_current_device(self, index: int) -> bool:
        """Make a device this thread's current one; false if there is no such device."""
        return bool(self._library.xpool_set_current_device(index))

    def export_storage(self, storage: int) -> None:
        """Remember a storage, by its C address, whose data's address is given away.

        Raises:
            RuntimeError: it is no storage of the pool.
        """
        _raise(self._library.xpool_export_storage(storage))

    def import_tensor(self, tensor: int) -> None:
        """Seat a tensor, by its C address, on the storage that its address names.

        Raises:
            RuntimeError: no storage that lives was given away under it.
        """
        _raise(self._library.xpool_import_tensor(tensor))

    def resize_storage(self, storage: int, nbytes: int) -> None:
        """Give a storage, by its C address, another size; views stay valid.

        Raises:
            RuntimeError: it is no storage of the pool.
        """
        _raise(self._library.xpool_resize_storage(storage, nbytes))

    def hold_other_threads(self) -> None:
        """Let them wait at their next remote operation: this one ends the process."""
        self._library.xpool_begin_ending()

    def close(self) -> None:
        """Record nothing any more: the interpreter ends."""
        self._is_closed = True
        self._library.xpool_close()


def _plans_are_wanted() -> bool:
    """By XPOOL_PLANS.

    Raises:
        UsageError: an unknown value.
    """
    chosen = os.environ.get("XPOOL_PLANS") or "on"
    if chosen not in ("on", "off"):
        raise UsageError(f"XPOOL_PLANS is {chosen!r}: write on or off")
    return chosen == "on"


def _raise(error: bytes | None) -> None:
    if error is not None:
        raise RuntimeError(error.decode())


class NativeDevice:
    """One device of the library: its log is the ``Outbox`` of a session's link."""

    def __init__(self, process: NativeLibrary, library: Any, index: int) -> None:
        self.process = process
        self.index = index
        self.wake_fileno = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._library = library
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The device's session, once ``attach`` has brought it."""
        assert self._session is not None
        return self._session

    def attach(self, session: Session) -> None:
        """Take note of the session that takes from this outbox."""
        self._session = session

    def connect(self) -> None:
        """Let the library know the slice, and wake the link."""
        welcome = self.session.welcome
        self._library.xpool_connect(
            self.index,
            self.wake_fileno,
            welcome.memory_nbytes,
            int(welcome.device_kind == "cpu"),
        )
        address, key = self.session.peer
        if address:
            name = f"cuda:{self.index} on {welcome.server}"
            self._library.xpool_set_peer(
                self.index, address.encode(), key.encode(), name.encode()
            )
        text = device_text(welcome)
        self._library.xpool_set_server_text(self.index, text.encode())
        for what in welcome.lacking:
            if "\0" not in what:  # C would see another, shorter name
                self._library.xpool_set_lacking(self.index, what.encode())
        if _plans_are_wanted() and isinstance(self.session.link, pump.NativeLink):
            # A read on the server's CPU is a copy; on a GPU it would hold up the work.
            self._library.xpool_use_plans(self.index, int(welcome.device_kind == "cpu"))
        self.session.link.on_contradicted = self._learn
        self.session.link.on_over(lambda error: self.process.end(self.index, error))
        os.eventfd_write(self.wake_fileno, 1)

    def _learn(self, name: str) -> None:
        """Ask for an operation's results from now on; what was known is forgotten."""
        if "\0" not in name:
            self._library.xpool_learn(name.encode())

    def escaped_launches(self) -> int:
        """As ``NativeLibrary.escaped_launches``: the process has one CUDA runtime."""
        return self.process.escaped_launches()

    def last_escape(self) -> str:
        """As ``NativeLibrary.last_escape``."""
        return self.process.last_escape()

    # ---- the link's outbox

    def take(self) -> QueuedBatch | None:
        """The oldest batch; its payload memory lives as long as its views."""
        taken = _TakenBatch()
        batch = self._library.xpool_take(self.index, ctypes.byref(taken))
        if not batch:
            return None
        records = ctypes.string_at(taken.records, taken.nbytes)
        if not taken.payload_count:
            self._library.xpool_release(batch)
            return QueuedBatch(records, taken.record_count, ())
        owner = _Owner()
        # Not at exit: the transport may still be reading.
        weakref.finalize(owner, self._library.xpool_release, batch).atexit = False
        payloads = []
        for i in range(taken.payload_count):
            chunk = (ctypes.c_char * taken.sizes[i]).from_address(taken.payloads[i])
            chunk._owner = owner
            payloads.append(memoryview(chunk).cast("B"))
        return QueuedBatch(records, taken.record_count, payloads)

    def lane_counters(self) -> dict[str, int]:
        """How many transfers have gone over the bulk lane."""
        counters = _LaneCounters()
        self._library.xpool_lane_counters(self.index, ctypes.byref(counters))
        return {"uploads": counters.uploads, "downloads": counters.downloads}

    def replay_counters(self) -> dict[str, int]:
        """Of the automatic plans: see ``ReplayCounters`` in ``replay.h``."""
        counters = _ReplayCounters()
        self._library.xpool_replay_counters(self.index, ctypes.byref(counters))
        return {
            name: int(getattr(counters, name)) for name, _ in _ReplayCounters._fields_
        }

    def queued_nbytes(self) -> int:
        """Bytes that wait to be taken."""
        return int(self._library.xpool_queued_bytes(self.index))

    def native_link(
        self, link: Link, connection: ClientConnection, diagnose: Diagnose
    ) -> SessionLink | None:
        """A pump for this connection; None where it can't be, or is not wanted.

        Raises:
            UsageError: an unknown XPOOL_LINK.
        """
        chosen = os.environ.get("XPOOL_LINK") or "native"
        if chosen not in ("native", "python"):
            raise UsageError(f"XPOOL_LINK is {chosen!r}: write native or python")
        sockets = link.hand_over() if chosen == "native" else None
        if sockets is None:
            return None
        native = pump.NativeEnd(self._library, self.index, _SIGNAL_BEHIND, sockets)
        return pump.NativeLink(native, link, connection, self, diagnose)

    # ---- for the torch stub

    def request(self, what: str) -> int:
        """Record a ``fence`` or ``statistics``; the id to wait for."""
        return int(self._library.xpool_request(self.index, _SYNCHRONOUS[what]))

    def position(self) -> int:
        """How many records the log has."""
        return int(self._library.xpool_position(self.index))

    def memory(self) -> dict[str, int]:
        """Bytes allocated now, at most, allowed, and the count of allocations."""
        counters = _Counters()
        self._library.xpool_memory(self.index, ctypes.byref(counters))
        return {name: int(getattr(counters, name)) for name, _ in _Counters._fields_}

    def reset_peak_memory(self) -> None:
        """Let the peak begin again at what is allocated now."""
        self._library.xpool_reset_peak_memory(self.index)

    def current_stream(self) -> int:
        """The id of this thread's stream on the device."""
        return int(self._library.xpool_current_stream(self.index))

    def set_current_stream(self, stream: int) -> None:
        """Make a stream this thread's current one on the device."""
        self._library.xpool_set_current_stream(self.index, stream)

    def plan_counters(self) -> dict[str, int]:
        """Those of the process."""
        return self.process.plan_counters()

    def hold_other_threads(self) -> None:
        """Those of the process."""
        self.process.hold_other_threads()

    def close(self) -> None:
        """Record nothing any more, on any device: the interpreter ends."""
        self.process.close()


def _signal_behind(error: BaseException) -> int:
    """The signal whose handler raised; read from the handler's own first argument."""
    trace = error.__traceback__
    handlers = {
        getattr(handler, "__code__", None): number
        for number in signal.valid_signals()
        if callable(handler := signal.getsignal(number))
    }
    while trace is not None:
        code = trace.tb_frame.f_code
        if code in handlers:
            arguments = trace.tb_frame.f_locals
            first = arguments.get(code.co_varnames[0]) if code.co_argcount else None
            return first if isinstance(first, int) else handlers[code]
        trace = trace.tb_next
    return int(signal.SIGINT)


_SIGNAL_BEHIND: Final = pump.SIGNAL_BEHIND(_signal_behind)

_CALLBACKS: Final = frozenset(
    method.__code__ for method in (NativeLibrary._on_request, NativeLibrary._wait)
)


class _Owner:
    """Its end releases a batch whose payloads the transport still reads."""

    __slots__ = ("__weakref__",)
