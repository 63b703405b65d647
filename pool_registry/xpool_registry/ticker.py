"""Lets time pass for a registry, in a thread of its own."""

from __future__ import annotations

import threading

import structlog
from xpool_protocol.errors import PoolError

from xpool_registry.registry import Registry

_log = structlog.get_logger(__name__)


class Ticker:
    """Calls ``Registry.tick`` in a thread of its own until it is stopped."""

    # A lease ends at most this late, and a silent node is noted so.
    INTERVAL_S = 0.2
    PAUSE_S = 0.01

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="registry-ticker", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has."""
        self._stopping.set()
        self._registry.freed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._registry.freed.wait(self.INTERVAL_S)
            self._registry.freed.clear()
            # Many leases that end together are one look at the queue.
            if self._stopping.wait(self.PAUSE_S):
                return
            try:
                self._registry.tick()
            except PoolError as error:  # the store: try again, nothing was applied
                _log.error("tick failed", error=str(error))
