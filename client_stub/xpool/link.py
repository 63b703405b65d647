"""The session's I/O thread: takes batches from the outbox, sends, receives, answers.

One thread owns the transport link and the sans-IO connection. The program's threads
touch it only through ``wait_for_answer``, ``wait_for_room`` and ``add_mark``, which
share one lock. When the session ends for whatever reason, ``over`` holds the error
and everybody who waits, or asks later, gets it.

``native/pump.py`` does the same without Python's lock, where it can.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from xpool_protocol import limits
from xpool_protocol.connection import ClientConnection, State
from xpool_protocol.errors import BrokenError, ClosedError, PeerError, PoolError
from xpool_protocol.messages import (
    Failure,
    Fault,
    Goodbye,
    Message,
    Reply,
    Resized,
    Welcome,
)
from xpool_protocol.transport import Link

from xpool.contradicted import is_contradiction
from xpool.outbox import Outbox
from xpool.pace import PACE_NBYTES, Pace
from xpool.stall import Stall

MAX_REMEMBERED_FAULTS: Final = 64
"""Late failures kept for the report at the end; one error often causes many."""


class Interrupted(Exception):  # noqa: N818  a state
    """The main thread's wait was ended by ``interrupt``."""


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Mark:
    """A point of the log; set when the server has executed up to it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.at_ns = 0
        """Arrival of the server's answer, on this host's monotonic clock."""
        self.error: PoolError | None = None


MOST_NS: Final = 4_000_000
"""Between the messages of an old stream. Each, and its Ack, takes Python's lock from
the program several times: this link spaces them out more than the native one."""

LOOK_AGAIN_S: Final = 0.5
"""How often a wait for room looks whether anything is taken."""


class SessionLink:
    """Drives one open connection until the session is over."""

    def __init__(
        self,
        link: Link,
        connection: ClientConnection,
        outbox: Outbox,
        diagnose: Callable[[PoolError], PoolError],
    ) -> None:
        self._link = link
        self._connection = connection
        self._outbox = outbox
        self._diagnose = diagnose
        self._changed = threading.Condition()
        self._answers: dict[int, Reply | Failure] = {}
        self._marks: dict[int, Mark] = {}
        self.over: PoolError | None = None
        """Why the session has ended; None while it lives."""
        self.faults: dict[int, Fault] = {}
        """Failures by operation number that nobody has been told of yet."""
        self.on_contradicted: Callable[[str], None] | None = None
        """Is told the operation whose results were not as predicted."""
        self.on_resized: Callable[[Resized], None] | None = None
        """Is told the slice when an administrator has changed it."""
        self._resized: Resized | None = None
        """The last one, should nobody have been there yet."""
        self._sent_nbytes = 0
        self._is_held = False
        self._is_awaited = False
        self._pace = Pace(MOST_NS)
        self._leaving: str | None = None
        self._last_word: str | None = None
        """Said to the server if the session is ended from outside."""
        self._is_interrupted = False
        self._tell_over: Callable[[PoolError], None] | None = None
        self._thread = threading.Thread(
            target=self._run, name="xpool-link", daemon=True
        )
        link.watch(outbox.wake_fileno)

    @property
    def host(self) -> str:
        """The server's host as it was connected to; empty for other transports."""
        uri = self._link.uri
        if not uri.startswith("tcp://"):
            return ""
        return uri.removeprefix("tcp://").rpartition(":")[0].strip("[]")

    def start(self) -> None:
        """Begin to send and receive."""
        self._thread.start()

    @property
    def sent_nbytes(self) -> int:
        """Bytes of all frames sent so far."""
        return self._sent_nbytes

    # ---- for the program's threads

    def wait_for_answer(self, request: int) -> Reply | Failure:
        """Block until the server has answered a request.

        Raises:
            PoolError: the session is over and the answer will not come.
        """
        with self._changed:
            if request not in self._answers and self._outbox.queued_nbytes():
                self._is_awaited = True
                with contextlib.suppress(BlockingIOError):  # it is awake already
                    os.eventfd_write(self._outbox.wake_fileno, 1)
            while request not in self._answers:
                if self.over is not None:
                    raise self.over
                if self._is_interrupted and _is_main_thread():
                    self._is_interrupted = False
                    raise Interrupted
                self._changed.wait()
            answer = self._answers.pop(request)
            if isinstance(answer, Failure):
                self.faults.pop(answer.fault.operation, None)
            return answer

    def wait_for_room(self) -> None:
        """Block while more is queued than one transfer: the network is behind."""
        stall = Stall(self._sent_nbytes, time.monotonic_ns())
        while True:
            with self._changed:
                queued = self._outbox.queued_nbytes()
                if self.over is not None or queued <= limits.TRANSFER_NBYTES:
                    return
                self._changed.wait(LOOK_AGAIN_S)
            stall.tell(self._sent_nbytes, queued, time.monotonic_ns())

    def interrupt(self) -> None:
        """End the main thread's wait with ``Interrupted``; for its signal handlers."""
        self._is_interrupted = True
        with self._changed:
            self._changed.notify_all()

    def add_mark(self, request: int) -> Mark:
        """A mark for a FENCE record that carries this request id."""
        mark = Mark()
        with self._changed:
            answer = self._answers.pop(request, None)
            if answer is None and self.over is None:
                self._marks[request] = mark
                return mark
        if answer is not None:
            self._reach(mark, answer)
        else:
            mark.error = self.over
            mark.reached.set()
        return mark

    def on_over(self, tell: Callable[[PoolError], None]) -> None:
        """Call ``tell`` once when the session is over, or now if it is."""
        with self._changed:
            self._tell_over = tell
            error = self.over
        if error is not None:
            tell(error)

    def hold(self, is_held: bool) -> None:
        """Send nothing until let go, whatever is queued; for measurements."""
        self._is_held = is_held
        self._link.wake()

    def end_with(self, error: PoolError) -> None:
        """End the session from outside: the keeper says that the lease is over."""
        self._last_word = str(error)
        self._finish(error)
        with contextlib.suppress(ClosedError):  # the thread has closed it already
            self._link.wake()

    def leave(self, reason: str, timeout_s: float) -> None:
        """Say goodbye and stop the thread; idempotent."""
        self._leaving = reason
        with contextlib.suppress(ClosedError):  # the thread has closed it already
            self._link.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # ---- the thread

    def _run(self) -> None:
        try:
            while self.over is None:
                self._is_awaited = self._is_awaited or self._leaving is not None
                patience_s = self._send_queued()
                if self._leaving is not None:
                    self._link.send(self._connection.bye(self._leaving))
                    self._finish(ClosedError("the session was closed by this program"))
                    break
                frames = self._link.receive(patience_s)
                while frames is not None:
                    self._take_in(self._connection.receive(frames))
                    frames = self._link.receive(0)
                self._quiet_wake()
            self._say_last_word()
        except BrokenError as error:
            self._finish(self._diagnose(error))
        except PoolError as error:
            self._finish(error)
        finally:
            self._link.close()

    def _say_last_word(self) -> None:
        """The worker need not wait for the end of the lease."""
        if self._last_word is not None and self._connection.state is State.OPEN:
            with contextlib.suppress(BrokenError):  # then nobody hears it
                self._link.send(self._connection.bye(self._last_word))

    def _quiet_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._outbox.wake_fileno)

    def _send_queued(self) -> float | None:
        """Send what may leave; seconds until more may, None if something will tell."""
        took, patience_s = False, None
        # Whoever waits has recorded what for: it is taken below.
        is_awaited, self._is_awaited = self._is_awaited, False
        while (
            not self._is_held
            and self._connection.state is State.OPEN
            and self._connection.room_nbytes > 0
        ):
            now_ns, queued_nbytes = time.monotonic_ns(), self._outbox.queued_nbytes()
            delay_ns = self._pace.delay_ns(now_ns, queued_nbytes, is_awaited=is_awaited)
            if delay_ns:
                patience_s = delay_ns / 1e9
                if self._outbox.ring_at(PACE_NBYTES) >= PACE_NBYTES:
                    continue
                break
            batch = self._outbox.take()
            if batch is None:
                if self._outbox.ring_at(1):
                    continue
                break
            self._pace.note_sent(now_ns, is_awaited=is_awaited)
            frames = self._connection.batch(*batch)
            self._sent_nbytes += sum(len(frame) for frame in frames)
            self._link.send(frames)
            took = True
        if is_awaited and self._outbox.queued_nbytes():
            self._is_awaited = True  # for want of credit
        if took:
            with self._changed:
                self._changed.notify_all()
        return patience_s

    def _take_in(self, message: Message) -> None:
        match message:
            case Reply():
                self._answer(message.request, message)
            case Failure() if message.request:
                self._answer(message.request, message)
            case Failure():
                self._note(message.fault)
            case Resized():
                self._resize(message)
            case Goodbye():
                self._finish(PoolError.from_wire(message.code, message.text))
            case _:
                pass  # Ack and Pong: the connection has taken note

    def tell_resized(self, tell: Callable[[Resized], None]) -> None:
        """Call ``tell`` whenever the slice changes, and now if it has."""
        with self._changed:
            self.on_resized, last = tell, self._resized
        if last is not None:
            tell(last)

    def _resize(self, message: Resized) -> None:
        with self._changed:
            self._resized, tell = message, self.on_resized
        if tell is not None:
            tell(message)

    def _answer(self, request: int, answer: Reply | Failure) -> None:
        with self._changed:
            mark = self._marks.pop(request, None)
            if mark is None:
                self._answers[request] = answer
                self._changed.notify_all()
        if mark is not None:
            self._reach(mark, answer)

    def _reach(self, mark: Mark, answer: Reply | Failure) -> None:
        mark.at_ns = time.monotonic_ns()
        if isinstance(answer, Failure):
            self._note(answer.fault)
        mark.reached.set()

    def _note(self, fault: Fault) -> None:
        if self.on_contradicted is not None and is_contradiction(fault):
            self.on_contradicted(fault.name)
        with self._changed:
            if len(self.faults) < MAX_REMEMBERED_FAULTS:
                self.faults[fault.operation] = fault

    def _finish(self, error: PoolError) -> None:
        with self._changed:
            if self.over is None:
                self.over = error
            tell, self._tell_over = self._tell_over, None
            marks = list(self._marks.values())
            self._marks.clear()
            self._changed.notify_all()
        if tell is not None:
            tell(error)
        for mark in marks:
            mark.error = self.over
            mark.reached.set()


def greet(
    link: Link,
    connection: ClientConnection,
    hello: tuple[str, str, str, str],
    timeout_s: float,
) -> Message:
    """Send Hello and wait for what the peer makes of it: Welcome or Redirect.

    Raises:
        PoolError: a Goodbye, translated; or no answer in time.
    """
    link.send(connection.hello(*hello))
    deadline = time.monotonic() + timeout_s
    frames = None
    while frames is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise BrokenError(
                f"the server at {link.uri} took the connection but did not answer"
                f" within {timeout_s:.0f} s"
            )
        frames = link.receive(left)
    message = connection.receive(frames)
    if isinstance(message, Goodbye):
        raise PoolError.from_wire(message.code, message.text)
    if not isinstance(message, Welcome) and message.kind != 0x42:
        raise PeerError(f"the server answered Hello with {type(message).__name__}")
    return message
