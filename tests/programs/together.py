"""Runs several programs in one process, one after the other, as if each were alone.

    xpool run together.py ONE.py TWO.py …

Importing torch and opening a session costs more than most programs. Prints a line of
JSON for each: its name, its output, and its traceback if it failed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import runpy
import sys
import time
import traceback
import warnings
from pathlib import Path


def run(path: str) -> dict[str, object]:
    output, error = io.StringIO(), None
    started = time.perf_counter()
    sys.argv = [path]
    try:
        with contextlib.redirect_stdout(output), warnings.catch_warnings():
            runpy.run_path(path, run_name="__main__")
    except BaseException:
        error = traceback.format_exc(limit=-8)
    gc.collect()
    return {
        "name": Path(path).stem,
        "output": output.getvalue(),
        "error": error,
        "seconds": round(time.perf_counter() - started, 2),
    }


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print("PROGRAM " + json.dumps(run(path)), flush=True)
