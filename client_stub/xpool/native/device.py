"""One device of the native library, as its session's link and torch see it."""

from __future__ import annotations

import ctypes
import os
import signal
import weakref
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import UsageError
from xpool_protocol.group_records import OPEN_MEETING
from xpool_protocol.messages import Resized
from xpool_protocol.records import FENCE, STATISTICS

from xpool.lacking import device_text
from xpool.native import pump
from xpool.native.signatures import (
    AheadCounters,
    Counters,
    LaneCounters,
    ReplayCounters,
    TakenBatch,
)
from xpool.outbox import QueuedBatch

if TYPE_CHECKING:
    from xpool_protocol.connection import ClientConnection
    from xpool_protocol.transport import Link

    from xpool.link import SessionLink
    from xpool.native.library import NativeLibrary
    from xpool.outbox import Diagnose
    from xpool.session import Session

_SYNCHRONOUS: Final = {
    "fence": FENCE,
    "statistics": STATISTICS,
    "open_meeting": OPEN_MEETING,
}


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
        if _is_on("XPOOL_PLANS") and isinstance(self.session.link, pump.NativeLink):
            # A read on the server's CPU is a copy; on a GPU it would hold up the work.
            self._library.xpool_use_plans(self.index, int(welcome.device_kind == "cpu"))
        self.session.link.on_contradicted = self._learn
        self.session.link.tell_resized(self._resize)
        self.session.link.on_over(lambda error: self.process.end(self.index, error))
        os.eventfd_write(self.wake_fileno, 1)

    def _resize(self, slice_: Resized) -> None:
        self._library.xpool_set_quota(self.index, slice_.memory_nbytes)
        self.process.room.changed()

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
        taken = TakenBatch()
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
        """How many transfers went over the bulk lane, and how many needed not to."""
        counters = LaneCounters()
        self._library.xpool_lane_counters(self.index, ctypes.byref(counters))
        return {
            "uploads": counters.uploads,
            "downloads": counters.downloads,
            "known": counters.known,
        }

    def send_ahead(self, tensor: int) -> None:
        """Send a host tensor's bytes now if they are likely to be asked for soon.

        Args:
            tensor: address of a ``TensorImpl`` (``Tensor._cdata``), alive for the call.
        """
        self._library.xpool_send_ahead(self.index, tensor)

    def ahead_counters(self) -> dict[str, int]:
        """How many batches have gone ahead, and how many of them were asked for."""
        counters = AheadCounters()
        self._library.xpool_ahead_counters(self.index, ctypes.byref(counters))
        return {"sent": counters.sent, "used": counters.used}

    def replay_counters(self) -> dict[str, int]:
        """Of the automatic plans: see ``ReplayCounters`` in ``replay.h``."""
        counters = ReplayCounters()
        self._library.xpool_replay_counters(self.index, ctypes.byref(counters))
        return {
            name: int(getattr(counters, name)) for name, _ in ReplayCounters._fields_
        }

    def queued_nbytes(self) -> int:
        """Bytes that wait to be taken."""
        return int(self._library.xpool_queued_bytes(self.index))

    def ring_at(self, nbytes: int) -> int:
        """What waits; a link in Python is told of each first record."""
        return self.queued_nbytes()

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
        counters = Counters()
        self._library.xpool_memory(self.index, ctypes.byref(counters))
        return {name: int(getattr(counters, name)) for name, _ in Counters._fields_}

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


def is_prefetch_wanted() -> bool:
    """By XPOOL_PREFETCH.

    Raises:
        UsageError: an unknown value.
    """
    return _is_on("XPOOL_PREFETCH")


def _is_on(variable: str) -> bool:
    chosen = os.environ.get(variable) or "on"
    if chosen not in ("on", "off"):
        raise UsageError(f"{variable} is {chosen!r}: write on or off")
    return chosen == "on"


def signal_behind(error: BaseException) -> int:
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


_SIGNAL_BEHIND: Final = pump.SIGNAL_BEHIND(signal_behind)


class _Owner:
    """Its end releases a batch whose payloads the transport still reads."""

    __slots__ = ("__weakref__",)
