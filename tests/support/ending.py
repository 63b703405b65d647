"""SIGTERM, as from ``timeout``, ends what tests have started, too."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


def end_in_order(kind: type[BaseException] = SystemExit) -> None:
    """Make SIGTERM an exception, so that blocks are left; unless it is ignored."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # leaving takes a while
        raise kind(128 + number)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, leave)
