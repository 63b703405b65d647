"""``cupy.cuda.MemoryPool`` and its kin: they tell of the slice, and allocate nothing.

The server allocates. A pool here answers with what arrays take from the quota, has the
quota as its limit, and holds nothing back that it could free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from xpool.cupy.device import device


class MemoryPool:
    """Statistics and limits of the slice."""

    def __init__(self, allocator: Any = None) -> None:
        """A view of the one memory there is.

        Raises:
            NotImplementedError: an allocator of the program's own.
        """
        if allocator is not None:
            check_allocator(allocator, f"cupy.cuda.{type(self).__name__}")

    def malloc(self, size: int) -> NoReturn:
        """Refused: memory of the device has no address here."""
        refuse_memory(size)

    def used_bytes(self) -> int:
        """What arrays and other objects, such as sparse matrices, take of the quota."""
        return device().used_nbytes()

    def total_bytes(self) -> int:
        """As ``used_bytes``: nothing is held back."""
        return self.used_bytes()

    def free_bytes(self) -> int:
        """Held back by the pool: nothing."""
        return 0

    def n_free_blocks(self) -> int:
        """Held back by the pool: none."""
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        """Have what programs have dropped freed now."""
        device().free_dead()

    def free_all_free(self) -> None:
        """As ``free_all_blocks``."""
        self.free_all_blocks()

    def get_limit(self) -> int:
        """The slice's quota, in bytes."""
        return device().limit_nbytes

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Refuse more than this much to arrays; 0: as much as the quota holds.

        Raises:
            ValueError: a negative size, or a fraction that is none.
            TypeError: both, or neither.
        """
        if (size is None) == (fraction is None):
            raise ValueError("size and fraction cannot be specified at one time")
        quota = device().session.welcome.memory_nbytes
        if fraction is not None:
            if not 0 <= fraction <= 1:
                raise ValueError(f"memory limit fraction out of range: {fraction}")
            size = int(fraction * quota)
        assert size is not None
        if size < 0:
            raise ValueError(f"memory limit size out of range: {size}")
        device().limit_memory(size or quota)


class PinnedMemoryPool:
    """Pinned memory is the server's business: nothing is held here."""

    def __init__(self, allocator: Any = None) -> None:
        """A pool of nothing."""

    def malloc(self, size: int) -> PinnedMemoryPointer:
        """Memory of this host."""
        return alloc_pinned_memory(size)

    def n_free_blocks(self) -> int:
        """Held back by the pool: none."""
        return 0

    def free_all_blocks(self) -> None:
        """Nothing is held."""


class MemoryAsyncPool(MemoryPool):
    """As ``MemoryPool``."""

    def __init__(self, pool_handles: Any = "current") -> None:
        """CUDA's pools are the server's business."""
        super().__init__()


def refuse_memory(*_: Any, **__: Any) -> NoReturn:
    """Say that there is no raw memory."""
    raise NotImplementedError(
        "xpool: memory of the device has no address here; use cupy.empty"
    )


class PinnedMemoryPointer(bytearray):
    """Memory of this host, for ``numpy.frombuffer``; nothing here is pinned."""

    def size(self) -> int:
        """How many bytes there are."""
        return len(self)


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    """Memory that a program fills and then uploads."""
    return PinnedMemoryPointer(size)


_pool = MemoryPool()
_pinned = PinnedMemoryPool()
_allocator: list[Any] = [_pool.malloc]


def get_default_memory_pool() -> MemoryPool:
    """The one pool."""
    return _pool


def get_default_pinned_memory_pool() -> PinnedMemoryPool:
    """The one pool of pinned memory."""
    return _pinned


def set_allocator(allocator: Any = None) -> None:
    """Keep an allocator for ``get_allocator``; the server's is used all the same.

    Raises:
        NotImplementedError: one of the program's own, which could not be honoured.
        TypeError: it can't be called.
    """
    if allocator is not None:
        check_allocator(allocator, "cupy.cuda.set_allocator")
    _allocator[0] = allocator or _pool.malloc


def check_allocator(allocator: Any, feature: str) -> None:
    """Refuse an allocator that the program has written.

    Raises:
        TypeError: it can't be called.
        NotImplementedError: it is the program's own.
    """
    if not callable(allocator):
        raise TypeError(f"{feature} takes a function, not {allocator!r}")
    found = getattr(allocator, "__wrapped__", allocator)
    owner = getattr(found, "__self__", None)
    if found is not refuse_memory and not isinstance(owner, MemoryPool):
        refuse_allocator(feature)


def refuse_allocator(feature: str) -> NoReturn:
    """Say that only the server allocates."""
    raise NotImplementedError(
        f"xpool: {feature}: the server allocates; an allocator of the program's own"
        " can't be called there"
    )


class _ProgramsAllocator:
    """Allocates by functions of the program."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Refused."""
        refuse_allocator(f"cupy.cuda.{type(self).__name__}")


class PythonFunctionAllocator(_ProgramsAllocator):
    """Allocates by two Python functions."""


class CFunctionAllocator(_ProgramsAllocator):
    """Allocates by two functions in C."""


def get_allocator() -> Any:
    """What ``set_allocator`` was given."""
    return _allocator[0]


def set_pinned_memory_allocator(allocator: Any = None) -> None:
    """Pinned memory is the server's business."""


@contextlib.contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """``set_allocator`` for a block."""
    before = get_allocator()
    set_allocator(allocator)
    try:
        yield
    finally:
        _allocator[0] = before


_OURS = (
    *(MemoryPool, PinnedMemoryPool, PinnedMemoryPointer, MemoryAsyncPool),
    *(PythonFunctionAllocator, CFunctionAllocator),
)
for _one in _OURS:
    _one.__module__ = "cupy.cuda"
