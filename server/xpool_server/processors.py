"""Which processors of a CPU server are its devices', and who keeps off them.

A device with ``cores=N`` has these processors to itself: operations run there, and
what a server does besides (its node, workers that start, threads that move bytes) runs
on the others, as long as there are others. A worker of the lowest class runs there only
when nobody else would; not so when it is to end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
"""Where the libraries beneath NumPy and SciPy read how many threads to start, once."""

_elsewhere: set[int] = set()
"""Of this worker; empty: its device has no processors of its own."""


def leave_to_devices(cores: Iterable[int]) -> None:
    """Keep this thread, and what it starts, off the devices' processors."""
    rest = os.sched_getaffinity(0) - set(cores)
    if rest:
        os.sched_setaffinity(0, rest)


def run_on(cores: Iterable[int]) -> None:
    """Hold this thread, which runs operations, to its device's processors."""
    _elsewhere.clear()
    _elsewhere.update(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores))


def limit_libraries(threads: int) -> None:
    """Let libraries that are not loaded yet compute with so many threads.

    What the administrator has set for one of them stays.
    """
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, str(threads))


def leave_lowest_class(pid: int) -> None:
    """Let a process that is to end run as any other does; nothing if it is gone.

    Its end takes processor time. Of the class that runs only when nobody else would
    (``SCHED_IDLE``), it would keep its memory for as long as a neighbour is busy; and
    Linux 6.18 lets who waits for such a process spin until its last thread has run
    (``shrink_dcache_parent`` in ``release_task``): that would be the node.
    """
    with suppress(OSError):  # it is gone, or this is not everybody's right
        if os.sched_getscheduler(pid) != os.SCHED_IDLE:
            return
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))


def start_helper(run: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread that moves bytes: not on the device's processors."""

    def go() -> None:
        if _elsewhere:
            os.sched_setaffinity(0, _elsewhere)
        run()

    thread = threading.Thread(target=go, name=name, daemon=True)
    thread.start()
    return thread
