"""How a worker on a CPU device gets memory from the kernel: rarely, and in large pages.

Tensors and arrays come and go by the megabyte. glibc gives each back to the kernel at
once, and each new one is then filled with zeros, 4 KiB at a time, when it is first
written: that can take longer than the operation. So freed memory is kept for the next
one, up to a bound, and large memory asks for large pages. The slice's ledger counts
storages and not pages, so nothing changes for the tenant.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

KEPT_NBYTES: Final = 256 << 20
"""Of freed memory at the end of the heap, and as much again of larger blocks
(``native/kept_memory.cpp``); well within what a worker may have beside its quota
(``devices/cpu.py``)."""

MAPPED_NBYTES: Final = 32 << 20
"""From here on an allocation is a mapping of its own: glibc's largest threshold. Such
blocks of torch's are kept by an allocator of ours."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_memory() -> None:
    """Set both for this process; to be called before torch is imported."""
    # torch asks for large pages for whatever has 2 MiB or more.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library: it has its own ways
        return
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    mallopt(_M_MMAP_THRESHOLD, MAPPED_NBYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_NBYTES)
