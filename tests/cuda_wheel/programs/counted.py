"""Runs a program and tells how many of its calls reached this host's CUDA runtime.

xpool run counted.py PROGRAM ARGS…
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import xpool

sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
print("ESCAPED", xpool.current_remote().library.escaped_launches(), flush=True)
