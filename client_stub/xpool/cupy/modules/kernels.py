"""Kernels of the program's own, and the error of source that does not compile."""

from __future__ import annotations

from types import ModuleType

from xpool.cupy.array_kernels import ElementwiseKernel, ReductionKernel, fuse
from xpool.cupy.faults import EXCEPTIONS
from xpool.cupy.filling import CLASSES
from xpool.cupy.finder import module
from xpool.cupy.functions import own
from xpool.cupy.raw_kernels import RawKernel, RawModule


class CompileException(Exception):  # noqa: N818  CuPy's name
    """The compiler refused; its log is the text."""

    def get_message(self) -> str:
        """The compiler's log."""
        return str(self)


CompileException.__module__ = "cupy.cuda.compiler"
EXCEPTIONS["CompileException"] = CompileException
CLASSES["cupy.RawKernel"] = RawKernel
CLASSES["cupy.RawModule"] = RawModule
CLASSES["cupy.ElementwiseKernel"] = ElementwiseKernel
CLASSES["cupy.ReductionKernel"] = ReductionKernel
own("cupy.fuse")(fuse)


@module("cupy.cuda.compiler")
def fill(m: ModuleType) -> None:
    """The error alone: the compiler is the server's."""
    m.CompileException = CompileException  # type: ignore[attr-defined]
