"""The interpreter's end: report late failures, say goodbye, record no more.

Register before torch and the program register exit handlers of their own: the first
that is registered is the last to run, and the others may still use the device.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import xpool_protocol.transport.zmq  # noqa: F401  its exit handlers must run after ours
from xpool_protocol.errors import PoolError

from xpool.session import RemoteFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xpool.torch.remote import Remote


LAST_WORD_S: Final = 10.0
"""How long failures are waited for that nobody has read; a thread of the program's may
have queued more work than anybody wants to wait for."""


class Leaving:
    """The exit handler; what it needs becomes known after it is registered."""

    def __init__(self) -> None:
        self.remotes: Sequence[Remote] = ()
        self.let_go: Callable[[], None] | None = None
        """Called first, while the devices still work."""
        self.on_statistics: Callable[[dict[str, int], str], None] | None = None
        """Is given a server's counters and the id of the lease."""
        self._owner_pid = os.getpid()
        atexit.register(self)

    def __call__(self) -> None:
        """Leave the sessions, if there are any and this process has opened them."""
        if not self.remotes or os.getpid() != self._owner_pid:
            return  # a forked child has no session to leave
        # Whoever wants this process to end has got it; a second Ctrl-C does it now.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            if self.let_go is not None:
                self.let_go()
            self.remotes[0].library.hold_other_threads()
            for remote in self.remotes:
                self._settle(remote)
        finally:
            self.remotes[0].library.close()
            for remote in self.remotes:
                remote.session.leave("the program ended")

    def _settle(self, remote: Remote) -> None:
        """Hear the last of a session: counters, and failures nobody was told of."""
        session = remote.session
        try:
            if not session.is_over and self.on_statistics is not None:
                self.on_statistics(remote.statistics(), session.lease.lease_id)
            elif not session.is_over:
                # Not the device's own mark, which a graph's capture refuses.
                mark = session.mark(remote.library.request("fence"))
                mark.reached.wait(LAST_WORD_S)
                if mark.error is not None:
                    raise mark.error
            for text in session.take_faults():
                print(  # noqa: T201  nobody else is left to tell
                    f"xpool: an operation failed and nothing read its result: {text}",
                    file=sys.stderr,
                )
        except (PoolError, RemoteFault) as error:
            print(f"xpool: {error}", file=sys.stderr)  # noqa: T201
