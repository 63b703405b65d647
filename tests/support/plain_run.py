"""``xpool run`` with ``plain_program.py`` in place of ``xpool.bootstrap``.

The command line is the real one; only what runs the program differs, so that a test
of the launcher does not import torch.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import xpool.run
from xpool.cli import main

CHILD = (sys.executable, str(Path(__file__).with_name("plain_program.py")))

if __name__ == "__main__":
    xpool.run.run_job = functools.partial(xpool.run.run_job, child_command=CHILD)
    main()
