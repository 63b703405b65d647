"""Kernels for test_driver.py; Triton reads their source from a file."""

import triton
import triton.language as tl


@triton.jit
def scale_and_shift(out, x, factor, shift, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(x + at, mask=inside) * factor + shift, mask=inside)
