"""Functions of the program that a stream calls when its work is done.

A thread of this process calls them, one after the other, each when the news of its
mark has come. Who synchronizes waits for those that were given before.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xpool.cupy.cuda import Event

Call = Callable[[int], None]
"""Takes CUDA's status: 0, or what stands for a failure."""

FAILED: Final = 999
"""``cudaErrorUnknown``: what ran before has failed."""

_waiting: Final[queue.SimpleQueue[tuple[Event, Call, threading.Event]]] = (
    queue.SimpleQueue()
)
_lock: Final = threading.Lock()
_threads: Final[list[threading.Thread]] = []
_last: Final[list[threading.Event]] = []


def after(mark: Event, call: Call) -> None:
    """Call a function once what was before the mark has run."""
    with _lock:
        if not _threads:
            thread = threading.Thread(
                target=_serve, name="xpool-stream-callbacks", daemon=True
            )
            _threads.append(thread)
            thread.start()
        done = threading.Event()
        _last[:] = [done]
        _waiting.put((mark, call, done))


def wait() -> None:
    """Wait until those that were given so far have been called."""
    if threading.current_thread() in _threads:
        return  # a callback that synchronizes would wait for itself
    for done in _last[:]:
        done.wait()


def _serve() -> None:
    while True:
        mark, call, done = _waiting.get()
        try:
            status = 0
            try:
                mark.synchronize()
            except Exception:  # noqa: BLE001  it is the status, and raised at the next read
                status = FAILED
            call(status)
        except Exception:  # noqa: BLE001  the thread goes on, as CUDA's does
            traceback.print_exc()
        finally:
            done.set()
