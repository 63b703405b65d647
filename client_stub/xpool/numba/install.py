"""Puts the pool's device under ``numba.cuda`` as soon as the program imports it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from xpool.import_hook import when_imported

MODULE: Final = "numba.cuda"

ARRAYS: Final = (
    *("to_device", "device_array", "device_array_like", "pinned_array"),
    *("as_cuda_array", "is_cuda_array"),
)
REFUSED: Final = (
    *("mapped_array", "mapped_array_like", "managed_array", "open_ipc_array"),
    *("mapped", "from_cuda_array_interface", "current_context", "external_stream"),
    *("vectorize", "guvectorize"),
)
"""What speaks to a driver that is not here."""


def install_numba() -> None:
    """Let ``import numba.cuda`` find the pool's device."""
    when_imported(MODULE, patch)


def patch(cuda: Any) -> None:
    """Replace what would look for a local driver."""
    if getattr(cuda.config, "ENABLE_CUDASIM", False):
        return  # the program wants Numba's simulator
    from xpool.numba import arguments

    for name in ARRAYS:
        setattr(cuda, name, _later("xpool.numba.arrays", name))
    cuda.pinned_array_like = lambda ary: cuda.pinned_array(ary.shape, ary.dtype)
    for name in REFUSED:
        if hasattr(cuda, name):
            setattr(cuda, name, _refused(name))
    cuda.jit = _later_jit(cuda.jit)
    for hint in (arguments.In, arguments.Out, arguments.InOut):
        setattr(cuda, hint.__name__, hint)
    cuda.is_available = is_available
    cuda.synchronize = _synchronize
    cuda.pinned = _pinned
    cuda.stream = cuda.default_stream = _stream
    cuda.event = _event
    cuda.event_elapsed_time = lambda begin, end: begin.elapsed_time(end)
    cuda.close = lambda: None
    cuda.select_device = _select_device
    _replace_everywhere(cuda.get_current_device, _current_device)


def is_available() -> bool:
    """Whether the slice's device runs CUDA kernels."""
    from xpool.numba.where import current, is_cuda

    return is_cuda(current())


def _later(module: str, name: str) -> Callable[..., Any]:
    """A function whose module opens the arrays when it is imported."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__name__ = name
    return call


def _later_jit(original: Callable[..., Any]) -> Callable[..., Any]:
    def jit(*args: Any, **kwargs: Any) -> Any:
        importlib.import_module("cupy")
        from xpool.numba.kernels import make_jit

        return make_jit(original)(*args, **kwargs)

    return jit


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            f"xpool: numba.cuda.{name} is not available in the pool"
        )

    return refuse


def _replace_everywhere(original: Any, new: Any) -> None:
    """Replace a function of Numba's in all of its modules that have imported it."""
    modules: list[ModuleType] = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(MODULE)[1] and module is not None
    ]
    for module in modules:
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, new)


def _current_device() -> Any:
    """What compiling asks of a device."""
    from xpool.numba.where import architecture, current

    where = current()
    compute = architecture(where, "numba.cuda")
    return SimpleNamespace(
        id=where.current_index(),
        compute_capability=compute,
        name=where.session.welcome.device_name.encode(),
        **{
            name.upper(): value
            for name, value in where.session.welcome.properties.items()
        },
    )


def _select_device(index: int) -> Any:
    importlib.import_module("cupy")
    from xpool.cupy.device import device

    device().use(index)
    return SimpleNamespace(id=index)


def _synchronize() -> None:
    from xpool.numba.where import current

    current().synchronize()


@contextlib.contextmanager
def _pinned(*_: Any) -> Iterator[None]:
    yield


def _stream() -> Any:
    importlib.import_module("cupy")
    from xpool.cupy.cuda import Stream

    class NumbaStream(Stream):
        """A stream as Numba has it; there is one order."""

        @contextlib.contextmanager
        def auto_synchronize(self) -> Iterator[NumbaStream]:
            """Wait at the end of a block."""
            yield self
            self.synchronize()

    return NumbaStream()


def _event(timing: bool = True) -> Any:
    importlib.import_module("cupy")
    from xpool.cupy.cuda import Event, get_elapsed_time

    class NumbaEvent(Event):
        """An event as Numba has it."""

        def elapsed_time(self, end: Event) -> float:
            """Milliseconds from this one to another."""
            return get_elapsed_time(self, end)

        def query(self) -> bool:
            """Whether what was before the mark has run."""
            return self.done

        def wait(self, stream: Any = 0) -> None:
            """One order: the event's work comes first anyway."""

    return NumbaEvent(disable_timing=not timing)
