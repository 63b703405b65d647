"""Signals that end the registry, held back until it waits for them.

A thread that was started before they are blocked would take one and end the process
at once, and already the import of numpy may start threads: so that nothing is
imported here that is not needed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Block them for this thread and for every thread that is started inside."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
