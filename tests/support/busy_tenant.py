"""A process that takes turns at a device and burns processor time in them. No torch.

``busy_tenant.py FD SLOT OPERATION_MS [PAUSE_MS [BETWEEN_MS]]``; prints one line when it
begins, and works until it is ended. BETWEEN_MS are burned after each turn.
"""

from __future__ import annotations

import sys
import time

from xpool_server.arbiter.page import Page
from xpool_server.arbiter.turn import PythonTurn


def burn(duration_ns: int) -> None:
    until_ns = time.thread_time_ns() + duration_ns
    while time.thread_time_ns() < until_ns:
        pass


def main() -> None:
    fileno, slot, *times = sys.argv[1:]
    turn = PythonTurn(Page(int(fileno)), int(slot))
    operation_ns = round(float(times[0]) * 1e6)
    pause_s = float(times[1]) / 1e3 if len(times) > 1 else 0
    between_ns = round(float(times[2]) * 1e6) if len(times) > 2 else 0
    print("begun", flush=True)
    while True:
        turn.begin()
        for _ in range(50):
            turn.check()
            burn(operation_ns)
        turn.end()
        burn(between_ns)
        if pause_s:
            time.sleep(pause_s)


if __name__ == "__main__":
    main()
