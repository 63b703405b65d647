"""Ordinary array programs: in the pool they give what they give with NumPy."""

from __future__ import annotations

import cupy
import numpy as np
from xpool_perf.programs.array_programs import programs

for name, program in programs().items():
    for _ in range(2):  # the second time every operation is known
        there, here = program.run(cupy, program.data), program.run(np, program.data)
        np.testing.assert_allclose(there, here, rtol=1e-9)
    print(name)
