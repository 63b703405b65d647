"""Modules of ``cupyx`` that the table does not list and programs still import."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, NoReturn

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
    m.jit = importlib.import_module("cupyx.jit")  # type: ignore[attr-defined]
    m.cutensor = importlib.import_module("cupyx.cutensor")  # type: ignore[attr-defined]


@module("cupyx.jit")
def fill_jit(m: ModuleType) -> None:
    """Names that say what is missing when they are used."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            "xpool: cupyx.jit, which makes CUDA source of Python functions, is not"
            " available in the pool; use cupy.RawKernel on a CUDA device, or"
            " cupy.ElementwiseKernel"
        )

    m.rawkernel = m.JitRawKernel = refuse  # type: ignore[attr-defined]


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
