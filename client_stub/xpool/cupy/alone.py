"""A process with arrays and without torch: its sessions and its end."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import PoolError, UsageError
from xpool_protocol.records import Fence, Statistics

from xpool.cupy.install import install_alone
from xpool.lease_pipe import LeaseOver
from xpool.session import reach_all
from xpool.torch.leaving import Leaving
from xpool.torch.python_log import PythonLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    """What a process asks of a session; the part of ``torch.remote.Remote``."""

    def __init__(self, session: Session, library: LoneLibrary) -> None:
        self.session, self.library = session, library

    def statistics(self) -> dict[str, int]:
        """The server's counters for this session."""
        return self.session.statistics(self.library.request("statistics"))


class LoneLibrary:
    """A device's log as the device library of a process without torch."""

    def __init__(self, log: PythonLog, logs: Sequence[PythonLog]) -> None:
        """A library.

        Args:
            log: of this device.
            logs: of all devices; they are closed together.
        """
        self.log, self._logs = log, logs
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
        """Record nothing any more, on no device."""
        for log in self._logs:
            log.close()


def install_leased_alone(
    pipe: LeasePipe, let_go: Callable[[], None] | None = None
) -> list[Any]:
    """Open the sessions of a keeper's leases for ``import cupy`` alone.

    Args:
        pipe: to the keeper.
        let_go: called at the interpreter's end, while the device still works.

    Raises:
        PoolError: no lease, or the session can't be opened.
    """
    leaving = Leaving()
    leases = pipe.latest(pipe.wait_for_leases(None))
    reached = reach_all(leases, "arrays")
    logs = [PythonLog() for _ in reached]
    opened = [(one.begin(log), log) for one, log in zip(reached, logs, strict=True)]
    remotes: list[Any] = [
        LoneRemote(session, LoneLibrary(log, logs)) for session, log in opened
    ]
    by_lease = {session.lease.lease_id: session for session, _ in opened}

    def later(what: Later) -> None:
        if isinstance(what, PoolError):
            for session in by_lease.values():
                session.link.end_with(what)
        elif isinstance(what, LeaseOver) and what.lease_id in by_lease:
            by_lease[what.lease_id].link.end_with(what.error)

    pipe.watch(later)
    leaving.remotes, leaving.let_go = remotes, let_go
    leaving.on_statistics = pipe.send_statistics if pipe.wants_statistics else None
    install_alone(opened)
    return remotes
