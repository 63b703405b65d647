"""Who may use an endpoint: the process that opened it, until it closes it."""

from __future__ import annotations

import os
import threading

from xpool_protocol.errors import ClosedError


class Guard:
    """Refuses use after ``close`` and in a forked child.

    A child inherits the memory of sockets, queues and locks, but not the threads
    that serve them: using one would hang, or write into the parent's connection.
    """

    __slots__ = ("_closed", "_pid", "uri")

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._closed = False
        self._pid = os.getpid()

    def check(self) -> None:
        """Raise ``ClosedError`` unless the endpoint may be used here and now."""
        self.check_process()
        if self._closed:
            raise ClosedError(f"the connection at {self.uri} is closed")

    def check_process(self) -> None:
        """Raise ``ClosedError`` in a forked child."""
        if os.getpid() != self._pid:
            raise ClosedError(
                f"the connection at {self.uri} belongs to process {self._pid} and does"
                " not survive a fork: open a new one in the child, or start the child"
                " with the 'spawn' method"
            )

    def close(self) -> bool:
        """Refuse from now on; True if there is something left for us to release.

        False the second time, and in a forked child, where the sockets are the
        parent's.
        """
        ours = not self._closed and os.getpid() == self._pid
        self._closed = True
        return ours


class Doorbell:
    """A descriptor that any thread can make readable, and that stays so."""

    __slots__ = ("_fd", "_lock")

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Ringing races with closing, and the number of a closed descriptor is
        # given to the next file that anybody opens.
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._fd

    def ring(self) -> None:
        """Make it readable; without effect once closed."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def silence(self) -> None:
        """Make it unreadable until the next ring. Call it only when it has rung."""
        os.eventfd_read(self._fd)

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
