"""torch's dtypes, layouts and memory formats as the wire's codes, and back.

The codes are torch's own (``c10::ScalarType`` and the like); SPEC.md section 4 freezes
them. A dtype that is not here can't cross the wire.
"""

from __future__ import annotations

from typing import Final

import torch

DTYPE_CODES: Final[dict[torch.dtype, int]] = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.complex32: 8,
    torch.complex64: 9,
    torch.complex128: 10,
    torch.bool: 11,
    torch.bfloat16: 15,
    torch.float8_e5m2: 23,
    torch.float8_e4m3fn: 24,
    torch.float8_e5m2fnuz: 25,
    torch.float8_e4m3fnuz: 26,
    torch.uint16: 27,
    torch.uint32: 28,
    torch.uint64: 29,
}
DTYPES: Final = {code: dtype for dtype, code in DTYPE_CODES.items()}

LAYOUT_CODES: Final[dict[torch.layout, int]] = {
    torch.strided: 0,
    torch.sparse_coo: 1,
    torch.sparse_csr: 2,
    torch.sparse_csc: 4,
    torch.sparse_bsr: 5,
    torch.sparse_bsc: 6,
}
MEMORY_FORMAT_CODES: Final[dict[torch.memory_format, int]] = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.channels_last_3d: 3,
}


def dtype_code(dtype: torch.dtype) -> int:
    """The code of a dtype.

    Raises:
        NotImplementedError: it can't cross the wire.
    """
    code = DTYPE_CODES.get(dtype)
    if code is None:
        raise NotImplementedError(
            f"xpool: {dtype} tensors are not supported on the remote device"
        )
    return code
