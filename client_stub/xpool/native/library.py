"""The native library seen from Python: loaded before torch, spoken to by ctypes."""

from __future__ import annotations

import _thread
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import ClosedError, PoolError, UsageError
from xpool_protocol.lane_records import (
    DIGEST_NBYTES,
    LIST_KNOWN,
    OPEN_LANE,
    payload_of_known,
)

from xpool import lane
from xpool.link import Interrupted
from xpool.native import pump
from xpool.native.device import NativeDevice, is_prefetch_wanted, signal_behind
from xpool.native.signatures import (
    DIGEST_CALLBACK,
    OPEN_LANE_CALLBACK,
    REQUEST_CALLBACK,
    ROOM_CALLBACK,
    TRACE_CALLBACK,
    WAIT_CALLBACK,
    WAITED_CALLBACK,
    PlanCounters,
    address_of,
    declare,
)
from xpool.room import Room, wait_from_environment
from xpool.session import RemoteFault

if TYPE_CHECKING:
    from xpool.native.cuda_build import StandIn
    from xpool.session import Session

ABI: Final = 12
INTERRUPTED: Final = "interrupted while waiting for the server"
_ANSWERED, _FAILED, _OVER, _INTERRUPTED = range(4)


def _write_digest(data: int, nbytes: int, to: int) -> bool:
    """Called by the library with a tensor's memory; must not raise."""
    try:
        memory = (ctypes.c_ubyte * nbytes).from_address(data)
        view = memoryview(memory).cast("B")
        ctypes.memmove(to, lane.digest_of(view), DIGEST_NBYTES)
    except (MemoryError, RuntimeError):
        return False  # it is uploaded as if nobody knew it
    return True


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
        declare(self._library)
        if self._library.xpool_abi() != ABI:
            raise UsageError(f"{path} was built from other sources: remove it")
        self._sessions: dict[int, Session] = {}
        self._is_closed = False
        self._pending_signal = 0
        self._kept = threading.local()
        self._callbacks: tuple[Any, ...] = ()
        self.room = Room(wait_from_environment())
        """Who waits for room in a quota."""

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

    def settle(self) -> None:
        """Leave alone, from now on, what is registered for the device.

        Raises:
            RuntimeError: torch refused.
        """
        error = self._library.xpool_settle()
        if error:
            raise RuntimeError(f"xpool: kernels can't be listed: {error.decode()}")

    def take_over(self) -> None:
        """Replace kernels that were registered for the device since ``settle``.

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
        # Now, where it can be said: a callback of the library must not raise.
        self._is_prefetch_wanted = is_prefetch_wanted()
        self._is_lane_wanted = lane.is_wanted()
        sessions = [device.session for device in devices]
        self._sessions = dict(enumerate(sessions))
        self._callbacks = (
            REQUEST_CALLBACK(self._on_request),
            WAIT_CALLBACK(self._wait),
            TRACE_CALLBACK(self._trace) if sessions[0].is_traced else TRACE_CALLBACK(),
        )
        self._library.xpool_set_callbacks(*self._callbacks)
        self._lane_opener = OPEN_LANE_CALLBACK(self._open_lane)
        self._digest = DIGEST_CALLBACK(_write_digest)
        if self.room.bound_s > 0:
            self._on_no_room = ROOM_CALLBACK(self._wait_for_room)
            self._library.xpool_wait_for_room(self._on_no_room)
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

        self._watch = WAITED_CALLBACK(waited)
        self._library.xpool_watch_waits(self._watch)

    def end(self, device: int, error: PoolError) -> None:
        """A device's session is over."""
        # Not at our own exit: other exit handlers may still drop tensors.
        if not isinstance(error, ClosedError):
            self._library.xpool_end(device, f"xpool: {error}".encode())

    def _open_lane(self, device: int) -> None:
        """Called by the library before the first large transfer; must not raise."""
        session = self._sessions[device]
        if not self._is_lane_wanted:
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
                if self._is_prefetch_wanted:
                    self._library.xpool_enable_ahead(device)
                contents = payload_of_known(known)
                self._library.xpool_set_known(device, contents, len(contents))
            shared = end.shared
            self._library.xpool_lane(
                device,
                end.stream.detach(),
                -1 if shared is None else shared.memory,
                -1 if shared is None else shared.freed.detach(),
            )

    def _wait_for_room(self, device: int, nbytes: int, attempt: int) -> int:
        del nbytes
        if self._is_closed or self._sessions[device].link.over is not None:
            return 0
        return int(self.room.wait(attempt))

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
            answer.contents.signal = signal_behind(error)
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
        addresses = (ctypes.c_void_p * len(views))(*map(address_of, views))
        sizes = (ctypes.c_uint64 * len(views))(*(view.nbytes for view in views))
        self._kept.value = (reply, views, addresses, sizes)
        answer.contents.value = address_of(reply.value)
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
        counters = PlanCounters()
        self._library.xpool_plans(ctypes.byref(counters))
        return {name: int(getattr(counters, name)) for name, _ in PlanCounters._fields_}

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


def _raise(error: bytes | None) -> None:
    if error is not None:
        raise RuntimeError(error.decode())


_CALLBACKS: Final = frozenset(
    method.__code__ for method in (NativeLibrary._on_request, NativeLibrary._wait)
)
