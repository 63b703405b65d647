"""Codes of the wire and what torch calls them. SPEC.md section 4."""

from __future__ import annotations

from typing import Final

import torch

DTYPES: Final[dict[int, torch.dtype]] = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    8: torch.complex32,
    9: torch.complex64,
    10: torch.complex128,
    11: torch.bool,
    15: torch.bfloat16,
    23: torch.float8_e5m2,
    24: torch.float8_e4m3fn,
    25: torch.float8_e5m2fnuz,
    26: torch.float8_e4m3fnuz,
    27: torch.uint16,
    28: torch.uint32,
    29: torch.uint64,
}
DTYPE_CODES: Final = {dtype: code for code, dtype in DTYPES.items()}

MEMORY_FORMATS: Final[dict[int, torch.memory_format]] = {
    0: torch.contiguous_format,
    1: torch.preserve_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
}
