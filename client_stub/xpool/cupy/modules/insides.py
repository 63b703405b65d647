"""Modules of ``cupyx`` that the table does not list and programs still import."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, NoReturn

from xpool.cupy.finder import module


def _sort_indices(x: Any) -> None:
    """Sort the indices of a sparse matrix in place."""
    x.sort_indices()


@module("cupyx.cusparse")
def fill_cusparse(m: ModuleType) -> None:
    """Sorting: of what cuSPARSE does, the part that has no method of its own."""
    m.csrsort = m.cscsort = _sort_indices  # type: ignore[attr-defined]
    m.check_availability = lambda name: name in ("csrsort", "cscsort")  # type: ignore[attr-defined]


@module("cupyx")
def fill_cupyx(m: ModuleType) -> None:
    """Its modules are there without an import of their own."""
    m.cusparse = importlib.import_module("cupyx.cusparse")  # type: ignore[attr-defined]
    m.optimizing = importlib.import_module("cupyx.optimizing")  # type: ignore[attr-defined]
    m.signal = importlib.import_module("cupyx.signal")  # type: ignore[attr-defined]
    m.jit = importlib.import_module("cupyx.jit")  # type: ignore[attr-defined]
    m.cutensor = importlib.import_module("cupyx.cutensor")  # type: ignore[attr-defined]


@module("cupyx.optimizing")
def fill_optimizing(m: ModuleType) -> None:
    """What would tune kernels: it runs what is in its block."""

    @contextlib.contextmanager
    def optimize(**_: Any) -> Iterator[None]:
        """Nothing is tuned: the parameters of kernels are the server's."""
        yield

    m.optimize = optimize  # type: ignore[attr-defined]


def _refuse_jit(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(
        "xpool: cupyx.jit, which makes CUDA source of Python functions, is not"
        " available in the pool; use cupy.RawKernel on a CUDA device, or"
        " cupy.ElementwiseKernel"
    )


class JitRawKernel:
    """A function that was to be a kernel: it may be there, and says so when it runs."""

    __module__ = "cupyx.jit"

    def __init__(self, function: Callable[..., Any], mode: str, device: bool) -> None:
        self._function, self._mode, self._device = function, mode, device
        functools.update_wrapper(self, function)

    __call__ = __getitem__ = _refuse_jit

    @property
    def cached_codes(self) -> dict[Any, Any]:
        """No source was ever made."""
        return {}

    cached_code: Any = property(_refuse_jit)


def _rawkernel(*, mode: str = "cuda", device: bool = False) -> Any:
    """Decorates a function, which is refused when it is launched."""
    return lambda function: JitRawKernel(function, mode, device)


_ONLY_IN_KERNELS: Final = (
    *("threadIdx", "blockDim", "blockIdx", "gridDim", "warpsize", "range"),
    *("syncthreads", "syncwarp", "shared_memory", "grid", "gridsize", "laneid"),
    *(f"atomic_{name}" for name in ("add", "sub", "exch", "min", "max", "inc")),
    *(f"atomic_{name}" for name in ("dec", "cas", "and", "or", "xor")),
    *("shfl_sync", "shfl_up_sync", "shfl_down_sync", "shfl_xor_sync"),
    *("cg", "cub", "thrust"),
)


class _OnlyInKernels:
    """A name of ``cupyx.jit``: it means something in a kernel's source alone."""

    def __init__(self, name: str) -> None:
        self._name = name

    __call__ = _refuse_jit

    def __repr__(self) -> str:
        return f"<cupyx.jit.{self._name}>"


@module("cupyx.jit")
def fill_jit(m: ModuleType) -> None:
    """Kernels can be written with these names; launching one says what is missing."""
    m.rawkernel, m.JitRawKernel = _rawkernel, JitRawKernel  # type: ignore[attr-defined]
    for name in _ONLY_IN_KERNELS:
        setattr(m, name, _OnlyInKernels(name))


@module("cupyx.cutensor")
def fill_cutensor(m: ModuleType) -> None:
    """Names that say what to use instead."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            "xpool: cuTENSOR is not available in the pool; use cupy.einsum or"
            " cupy.tensordot, and ufuncs"
        )

    for name in ("contraction", "elementwise_binary", "elementwise_trinary"):
        setattr(m, name, refuse)
    m.reduction = refuse  # type: ignore[attr-defined]


@module("cupyx.time")
def fill_time(m: ModuleType) -> None:
    """The old name of ``cupyx.profiler.benchmark``."""
    profiler = importlib.import_module("cupyx.profiler")
    m.repeat = profiler.benchmark  # type: ignore[attr-defined]
