"""``python -m xpool_server.leash PARENT MODULE ARGS``: run a module on a leash.

The kernel kills this process when the thread that started it ends. Asking for that
before exec, in the forked child, would run Python code between fork and exec of a
process with gRPC's threads; so the child asks for it itself, first thing.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Get SIGKILL when the parent ends; exit if it has ended already.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")
    if os.getppid() != parent:
        sys.exit(0)


if __name__ == "__main__":
    _, parent_pid, module, *_rest = sys.argv
    die_with_parent(int(parent_pid))
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
