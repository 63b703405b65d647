"""``cupy.cuda.MemoryHook`` and its kin: told of each array's memory as it is counted.

The server allocates; what a hook hears of is the charge against the slice's quota, at
the call that makes an array, and the record that frees one. Sizes are multiples of
512 bytes; addresses and ids, which nobody here knows, are 0. As the pool holds nothing
back, each ``malloc`` is an ``alloc`` too. Nobody pays for hooks where there are none:
the device's methods are replaced while one is in use.
"""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from xpool.cupy.device import ArrayDevice, device

_PACKAGE: Final = str(Path(__file__).parent)
_active = threading.local()
_lock: Final = threading.Lock()
_users: Final[list[MemoryHook]] = []


class MemoryHook:
    """Base class of hooks for memory; use it with ``with``."""

    name = "MemoryHook"

    def __enter__(self) -> MemoryHook:
        hooks = _hooks()
        if self.name in hooks:
            raise KeyError(f"memory hook {self.name} already exists")
        hooks[self.name] = self
        with _lock:
            _users.append(self)
            if len(_users) == 1:
                for index, where in enumerate(device().members):
                    _watch(where, index)
        return self

    def __exit__(self, *_: object) -> None:
        device().free_dead()
        del _hooks()[self.name]
        with _lock:
            _users.remove(self)
            if not _users:
                for where in device().members:
                    _leave_alone(where)

    def alloc_preprocess(self, **kwargs: Any) -> None:
        """Before the device's memory is taken: ``device_id``, ``mem_size``."""

    def alloc_postprocess(self, **kwargs: Any) -> None:
        """After it: ``mem_ptr``, too."""

    def malloc_preprocess(self, **kwargs: Any) -> None:
        """Before an array's memory: ``device_id``, ``size``, ``mem_size``."""

    def malloc_postprocess(self, **kwargs: Any) -> None:
        """After it: ``mem_ptr`` and ``pmem_id``, too."""

    def free_preprocess(self, **kwargs: Any) -> None:
        """Before memory is freed: ``device_id``, ``mem_size``, ``mem_ptr``."""

    def free_postprocess(self, **kwargs: Any) -> None:
        """After it."""


def _hooks() -> dict[str, MemoryHook]:
    """This thread's hooks, by name."""
    found: dict[str, MemoryHook] | None = getattr(_active, "hooks", None)
    if found is None:
        found = _active.hooks = {}
    return found


def _watch(where: ArrayDevice, index: int) -> None:
    free_dead, free_large = where.free_dead, where.free_large

    def watched(charge: Callable[[int], None]) -> Callable[[int], None]:
        def charged(nbytes: int) -> None:
            size = {"device_id": index, "mem_size": nbytes}
            _tell("malloc_preprocess", **size, size=nbytes)
            _tell("alloc_preprocess", **size)
            charge(nbytes)
            _tell("alloc_postprocess", **size, mem_ptr=0)
            _tell("malloc_postprocess", **size, size=nbytes, mem_ptr=0, pmem_id=0)

        return charged

    def freed(sizes: list[int], free: Callable[[], None]) -> None:
        told = [
            {"device_id": index, "mem_size": one, "mem_ptr": 0, "pmem_id": 0}
            for one in sizes
        ]
        for one in told:
            _tell("free_preprocess", **one)
        free()
        for one in told:
            _tell("free_postprocess", **one)

    def free_all() -> None:
        device().sort_dead()
        freed([charge for _, charge in list(where.dead) if charge], free_dead)

    def free_one(number: int, nbytes: int) -> None:
        freed([nbytes], lambda: free_large(number, nbytes))

    vars(where).update(
        charge=watched(where.charge),
        charge_made=watched(where.charge_made),
        free_dead=free_all,
        free_large=free_one,
    )


def _leave_alone(where: ArrayDevice) -> None:
    for name in ("charge", "charge_made", "free_dead", "free_large"):
        vars(where).pop(name, None)


def _tell(what: str, **facts: Any) -> None:
    for hook in list(_hooks().values()):
        getattr(hook, what)(**facts)


class DebugPrintHook(MemoryHook):
    """Prints a line of JSON for each allocation and each free."""

    name = "DebugPrintHook"

    def __init__(self, file: IO[str] | None = None, flush: bool = True) -> None:
        """A hook that writes to ``file``, the standard output unless it is given."""
        self.file, self.flush = file or sys.stdout, flush

    def _print(self, what: str, facts: dict[str, Any]) -> None:
        shown = {"hook": what}
        for name in ("device_id", "size", "mem_size", "mem_ptr", "pmem_id"):
            if name in facts:
                is_id = name == "pmem_id"
                shown[name] = hex(facts[name]) if is_id else facts[name]
        self.file.write(json.dumps(shown, separators=(",", ":")) + "\n")
        if self.flush:
            self.file.flush()

    def alloc_postprocess(self, **kwargs: Any) -> None:
        """Print it."""
        self._print("alloc", kwargs)

    def malloc_postprocess(self, **kwargs: Any) -> None:
        """Print it."""
        self._print("malloc", kwargs)

    def free_postprocess(self, **kwargs: Any) -> None:
        """Print it."""
        self._print("free", kwargs)


class _Line:
    """A line of source in a call's stack, and what it and its callees took."""

    def __init__(self, shown: str) -> None:
        self.shown, self.nbytes = shown, 0
        self.callees: dict[str, _Line] = {}


class LineProfileHook(MemoryHook):
    """Counts memory by lines of source; ``print_report`` shows it."""

    name = "LineProfileHook"

    def __init__(self, max_depth: int = 0) -> None:
        """A hook that looks ``max_depth`` calls deep; 0: all of them."""
        self._max_depth, self._root = max_depth, _Line("_root")

    def malloc_preprocess(self, **kwargs: Any) -> None:
        """Count it at each line of the stack."""
        nbytes = kwargs["mem_size"]
        line = self._root
        line.nbytes += nbytes
        frames = [
            one
            for one in traceback.extract_stack()
            if not one.filename.startswith(_PACKAGE)
        ]
        if self._max_depth:
            frames = frames[: self._max_depth - 1]
        for frame in frames:
            shown = f"{frame.filename}:{frame.lineno}:{frame.name}"
            line = line.callees.setdefault(shown, _Line(shown))
            line.nbytes += nbytes

    def print_report(self, file: IO[str] | None = None) -> None:
        """Write lines and what they took, callees indented below their callers."""
        _write(self._root, 0, file or sys.stdout)


def _write(line: _Line, depth: int, file: IO[str]) -> None:
    shown = _shown(line.nbytes)
    file.write(f"{'  ' * depth}{line.shown} ({shown}, {shown})\n")
    for callee in line.callees.values():
        _write(callee, depth + 1, file)


def _shown(nbytes: float) -> str:
    for unit in ("", "K", "M", "G", "T"):
        if nbytes < 1024:
            return f"{nbytes:.2f}{unit}B"
        nbytes /= 1024
    return f"{nbytes:.2f}PB"


for _one in (MemoryHook, DebugPrintHook, LineProfileHook):
    _one.__module__ = "cupy.cuda" if _one is MemoryHook else "cupy.cuda.memory_hooks"
