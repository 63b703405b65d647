"""SIGTERM and SIGINT in the user's process: the session is closed in good order.

Both become exceptions, which unwind the program as ``sys.exit`` does. Two things must
not come of that. A forked child has the signals of a plain program, from its first
moment on: its parent may end it by SIGTERM at any time, and waits for it. And an
exception that Python drops, as it does in ``__del__`` or in a hook around a fork, is
not the end of the signal.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final, TypeAlias

import xpool
from xpool.native.device import NativeDevice

Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None

HANDLED: Final = (signal.SIGTERM, signal.SIGINT)
_SOON_S: Final = 0.01
"""Too early is no harm: the exception is dropped, and the signal comes once more."""


def install() -> None:
    """Take over the signals, except those that are ignored, as under ``nohup``.

    Once, in the main thread, before the program begins.
    """
    _PlainChildren(
        {
            number: signal.signal(number, _on_signal)
            for number in HANDLED
            if signal.getsignal(number) is not signal.SIG_IGN
        }
    )
    sys.unraisablehook = _Dropped(sys.unraisablehook)


def _on_signal(number: int, frame: FrameType | None) -> None:
    for remote in xpool.current_remotes()[:1]:
        device = remote.library
        if isinstance(device, NativeDevice) and device.process.defer_signal(
            number, frame
        ):
            return
    raised: Any = KeyboardInterrupt()
    if number != signal.SIGINT:
        raised = SystemExit(128 + number)
    raised.xpool_signal = number
    raise raised


class _Dropped:
    """The hook for exceptions that Python drops: a signal's is delivered again."""

    def __init__(self, others: Callable[[sys.UnraisableHookArgs], Any]) -> None:
        self._others = others

    def __call__(self, dropped: sys.UnraisableHookArgs, /) -> None:
        number = getattr(dropped.exc_value, "xpool_signal", None)
        if number is None:
            self._others(dropped)
        else:
            # Not from here, where the next exception would be dropped as well.
            _thread.start_new_thread(_deliver, (number,))


def _deliver(number: int) -> None:
    time.sleep(_SOON_S)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


class _PlainChildren:
    """Around each fork: no signal comes before the child has a plain program's."""

    def __init__(self, plain: Mapping[int, Handler]) -> None:
        """Args: plain: what children have in place of our handler, by signal."""
        self._plain = plain
        self._kept = threading.local()
        os.register_at_fork(
            before=self._hold,
            after_in_parent=self._let_come,
            after_in_child=self._make_plain,
        )

    def _hold(self) -> None:
        # CPython drops what has come to a child before its hooks run.
        self._kept.mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    def _let_come(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._kept.mask)

    def _make_plain(self) -> None:
        for number, plain in self._plain.items():
            if signal.getsignal(number) is _on_signal:  # not the program's own
                signal.signal(number, plain)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._kept.mask)
