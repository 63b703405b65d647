"""Dtypes of arrays by their code on the wire (SPEC.md section 4)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

DTYPE_OF: Final[dict[int, np.dtype[Any]]] = {
    0: np.dtype("uint8"),
    1: np.dtype("int8"),
    2: np.dtype("int16"),
    3: np.dtype("int32"),
    4: np.dtype("int64"),
    5: np.dtype("float16"),
    6: np.dtype("float32"),
    7: np.dtype("float64"),
    9: np.dtype("complex64"),
    10: np.dtype("complex128"),
    11: np.dtype("bool"),
    27: np.dtype("uint16"),
    28: np.dtype("uint32"),
    29: np.dtype("uint64"),
}
CODE_OF: Final[dict[np.dtype[Any], int]] = {
    dtype: code for code, dtype in DTYPE_OF.items()
}
