"""A process with arrays and without torch: its session and its end."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import PoolError, UsageError
from xpool_protocol.records import Fence, Statistics

from xpool.cupy.install import install_alone
from xpool.lease_pipe import LeaseOver
from xpool.session import open_session
from xpool.torch.leaving import Leaving
from xpool.torch.python_log import PythonLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.lease_pipe import Later, LeasePipe
    from xpool.session import Session

TORCH_VARIABLE: Final = "XPOOL_TORCH"


def is_wanted() -> bool:
    """Whether this process goes without torch: it has none, or ``XPOOL_TORCH=off``.

    Raises:
        UsageError: an unknown value.
    """
    chosen = os.environ.get(TORCH_VARIABLE) or "on"
    if chosen not in ("on", "off"):
        raise UsageError(f"{TORCH_VARIABLE} is {chosen!r}: write on or off")
    return chosen == "off" or importlib.util.find_spec("torch") is None


class LoneRemote:
    """What a process asks of its session; the part of ``torch.remote.Remote``."""

    def __init__(self, session: Session, log: PythonLog) -> None:
        self.session, self.library = session, LoneLibrary(log)

    def statistics(self) -> dict[str, int]:
        """The server's counters for this session."""
        return self.session.statistics(self.library.request("statistics"))


class LoneLibrary:
    """The log as the device library of a process without torch."""

    def __init__(self, log: PythonLog) -> None:
        self.log = log
        os.register_at_fork(after_in_child=log.close_copy)

    def request(self, what: str) -> int:
        """Record a ``fence`` or ``statistics``; the id to wait for."""
        request = self.log.next_request()
        is_fence = what == "fence"
        self.log.append(Fence(request) if is_fence else Statistics(request))
        return request

    def hold_other_threads(self) -> None:
        """Nothing: they meet a closed log."""

    def close(self) -> None:
        """Record nothing any more."""
        self.log.close()


def install_leased_alone(
    pipe: LeasePipe, let_go: Callable[[], None] | None = None
) -> list[Any]:
    """Open the session of a keeper's lease for ``import cupy`` alone.

    Args:
        pipe: to the keeper.
        let_go: called at the interpreter's end, while the device still works.

    Raises:
        PoolError: no lease, or the session can't be opened.
    """
    leaving = Leaving()
    leases = pipe.latest(pipe.wait_for_leases(None))
    if len(leases) > 1:
        raise UsageError("arrays have one device: leave out --devices")
    log = PythonLog()
    session = open_session(leases[0], log, "arrays")
    remote: Any = LoneRemote(session, log)

    def later(what: Later) -> None:
        if isinstance(what, PoolError):
            session.link.end_with(what)
        elif isinstance(what, LeaseOver):
            session.link.end_with(what.error)

    pipe.watch(later)
    leaving.remotes, leaving.let_go = [remote], let_go
    leaving.on_statistics = pipe.send_statistics if pipe.wants_statistics else None
    install_alone(session, log)
    return [remote]
