"""When to start a worker again after one that did not start, and when to give up."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Final

NS_PER_S: Final = 1_000_000_000

START_FAILURES: Final = 3
"""Failed starts in a row after which a node that never had a worker gives up."""

MAX_BACKOFF_NS: Final = 30 * NS_PER_S


class StartBackoff:
    """Doubles the pause from 1 s to 30 s while starts of a device's workers fail."""

    def __init__(self, device_indexes: Iterable[int]) -> None:
        self._not_before_ns = dict.fromkeys(device_indexes, 0)
        self._failures = dict.fromkeys(self._not_before_ns, 0)
        self._has_succeeded = False

    def not_before_ns(self, device_index: int) -> int:
        """When the next worker of a device may be started."""
        return self._not_before_ns[device_index]

    def succeeded(self, device_index: int) -> None:
        """A worker of the device is ready."""
        self._failures[device_index] = 0
        self._has_succeeded = True

    def failed(self, device_index: int, now_ns: int) -> bool:
        """A worker ended before it was ready; whether to give up."""
        self._failures[device_index] += 1
        failures = self._failures[device_index]
        backoff_ns = min(NS_PER_S << min(failures - 1, 10), MAX_BACKOFF_NS)
        self._not_before_ns[device_index] = now_ns + backoff_ns
        return failures >= START_FAILURES and not self._has_succeeded


def how_it_ended(status: int) -> str:
    """How a process ended, for a sentence.

    >>> how_it_ended(-9), how_it_ended(1)
    ('by signal 9 (SIGKILL)', 'with exit status 1')
    """
    if status >= 0:
        return f"with exit status {status}"
    try:
        return f"by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:  # a real-time signal has no name
        return f"by signal {-status}"
