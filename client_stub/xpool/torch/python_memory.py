"""What the pure-Python device has allocated, by the server's own rule.

Counting here too makes running out of memory an error at the line that does it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

import torch

from xpool.room import Room, wait_from_environment

GRANULE_NBYTES: Final = 512
"""A storage takes whole granules of the quota, an empty one takes one."""


def charged_nbytes(nbytes: int) -> int:
    """What a storage of ``nbytes`` takes from the quota.

    >>> charged_nbytes(0), charged_nbytes(512), charged_nbytes(513)
    (512, 512, 1024)
    """
    return -(-max(nbytes, 1) // GRANULE_NBYTES) * GRANULE_NBYTES


class MemoryLedger:
    """Bytes allocated under a quota. For any thread, and for finalizers."""

    def __init__(self, quota_nbytes: int, room: Room | None = None) -> None:
        self._quota = quota_nbytes
        self._room = room or Room(wait_from_environment())
        self._allocated = self._peak = self._count = 0
        self._lock = threading.RLock()
        self._released: deque[int] = deque()

    def charge(self, nbytes: int) -> None:
        """Take ``nbytes``, rounded already, from the quota.

        Raises:
            torch.OutOfMemoryError: the quota does not hold them.
        """
        attempt = 0
        while not self._has_room(nbytes) and self._room.wait(attempt):
            attempt += 1
        with self._lock:
            self._settle()
            if self._allocated + nbytes > self._quota:
                raise torch.OutOfMemoryError(
                    f"xpool out of memory. Tried to allocate {nbytes} bytes on the"
                    f" slice; its quota is {self._quota} bytes, of which"
                    f" {self._allocated} are allocated. Ask for more with"
                    " `xpool run --memory`"
                )
            self._allocated += nbytes
            self._peak = max(self._peak, self._allocated)
            self._count += 1

    def resize(self, quota_nbytes: int) -> None:
        """The slice has another quota."""
        with self._lock:
            self._quota = quota_nbytes
        self._room.changed()

    def _has_room(self, nbytes: int) -> bool:
        with self._lock:
            self._settle()
            return self._allocated + nbytes <= self._quota

    def release(self, nbytes: int) -> None:
        """Give ``nbytes`` back; takes no lock."""
        self._released.append(nbytes)

    def reset_peak(self) -> None:
        """Let the peak begin again at what is allocated now."""
        with self._lock:
            self._settle()
            self._peak = self._allocated

    def counters(self) -> dict[str, int]:
        """Bytes allocated now, at most, allowed, and the count of allocations."""
        with self._lock:
            self._settle()
            return {
                "allocated": self._allocated,
                "peak": self._peak,
                "quota": self._quota,
                "allocation_count": self._count,
            }

    def _settle(self) -> None:
        while self._released:
            self._allocated -= self._released.popleft()
