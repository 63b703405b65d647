"""A session's loop in C++ and the rest of it in Python, taking turns.

C++ serves while the client sends what the native executor knows. It stops at everything
else, with all that it has executed acknowledged; Python deals with that one message, or
with the rest of that one batch, and C++ goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xpool_protocol.errors import BrokenError
from xpool_protocol.transport import Listener

from xpool_server.executor import Executor
from xpool_server.native.serving import NativeServing, Why
from xpool_server.native_executor import NativeExecutor
from xpool_server.session import Session


class NativeLoop:
    """Drives one owned session."""

    def __init__(
        self, session: Session, executor: NativeExecutor, serving: NativeServing
    ) -> None:
        self._session = session
        self._executor = executor
        self._serving = serving

    def serve(self, timeout_s: float) -> bool:
        """Serve until a watched descriptor is readable, for about so long at most.

        Returns:
            False if something is under way that Python has to go on with.

        Raises:
            BrokenError: the socket has failed.
        """
        place = self._session.place
        if place is None:
            return False
        served = self._serving.serve(place, timeout_s)
        session, executor = self._session, self._executor
        session.advance(served.place, served.refused_messages)
        executor.received_nbytes += served.received_nbytes
        executor.sent_nbytes += served.sent_nbytes
        executor.backend.add_busy(served.busy_ns)
        match served.why:
            case Why.MESSAGE:
                session.receive(served.peer, served.frames)
            case Why.RECORD:
                session.resume(
                    served.frames,
                    lambda records: executor.run_rest(records, served.outcome),
                )
            case Why.BROKEN:
                raise BrokenError("the socket of the worker has failed")
            case Why.QUIET:
                pass
        return True


def native_loop(
    session: Session, executor: Executor, listener: Listener, watched: Sequence[int]
) -> NativeLoop | None:
    """The loop of a session that has an owner; None where it has to be Python's.

    Args:
        session: has an owner.
        executor: the session's.
        listener: where the owner is connected.
        watched: descriptors that Python looks after.
    """
    sockets = listener.lend()
    if sockets is None or not isinstance(executor, NativeExecutor):
        return None
    backend = executor.backend
    note_work: Callable[[bool], None] | None = None
    if not backend.is_thread_time:

        def note_work(begins: bool) -> None:
            executor.begin_work() if begins else executor.end_work()

    serving = NativeServing(
        *(executor.native, sockets, session.owner, watched),
        version=session.version,
        window_nbytes=session.window_nbytes,
        note_work=note_work,
        is_settled=executor.is_settled,
    )
    return NativeLoop(session, executor, serving)
