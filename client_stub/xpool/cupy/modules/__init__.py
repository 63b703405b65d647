"""What is special in each of CuPy's modules; one file for a module or a few."""

from xpool.cupy import interop, rules
from xpool.cupy.modules import (
    aliases,
    callables,
    composed,
    cuda,
    extras,
    fft,
    files,
    grids,
    kernels,
    poly,
    profiler,
    random,
    scipy,
    testing,
    toplevel,
)

__all__ = [
    "aliases",
    "callables",
    "composed",
    "cuda",
    "extras",
    "fft",
    "files",
    "grids",
    "interop",
    "kernels",
    "poly",
    "profiler",
    "random",
    "rules",
    "scipy",
    "testing",
    "toplevel",
]
