"""The user's process under ``xpool run``: ``python -m xpool.bootstrap`` and a program.

Loads the native library, imports torch while the lease is on its way, opens the
session, and then runs the program as ``python`` would have: same ``sys.argv``, same
``__main__``, same exit code.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from xpool_protocol.errors import PoolError, UsageError

import xpool
from xpool import main_module, signals
from xpool.lease_pipe import LeasePipe
from xpool.native.library import INTERRUPTED
from xpool.waits import EXPLAIN_VARIABLE

if TYPE_CHECKING:
    from xpool.torch.remote import Remote

Hook: TypeAlias = Callable[
    [type[BaseException], BaseException, TracebackType | None], None
]

EXIT_REFUSED = 1


def main(arguments: list[str]) -> NoReturn:
    """Run ``SCRIPT ARGS…``, ``-m MODULE ARGS…`` or ``-c CODE ARGS…``."""
    signals.install()
    if not arguments:
        _fail(UsageError("no program was named: xpool run SCRIPT [ARGS…]"))
    try:
        remotes = _prepare(LeasePipe.from_environment())
    except PoolError as error:
        _fail(error)
    sys.excepthook = _hook(remotes)
    try:
        _run_interruptibly(arguments)
    except _Interrupted as interrupted:
        print(interrupted, file=sys.stderr)  # noqa: T201
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)


class _Interrupted(Exception):  # noqa: N818  a state
    """Ctrl-C while the program waited for the server; the text names the line."""


def _run_interruptibly(arguments: list[str]) -> None:
    """Run the program; see to it that a deferred signal takes effect here at last."""
    try:
        main_module.begin(arguments)
    except RuntimeError as error:
        if INTERRUPTED not in str(error):
            raise
        place = _innermost_line(error.__traceback__)
        try:
            time.sleep(1)  # the deferred signal is delivered here
        except KeyboardInterrupt:
            raise _Interrupted(f"KeyboardInterrupt{place}") from None
        raise


def _prepare(pipe: LeasePipe) -> list[Remote]:
    from xpool.cupy import alone
    from xpool.cupy.alone import install_leased_alone
    from xpool.cupy.install import install_beside_torch
    from xpool.torch.install import install_leased, load_library

    if alone.is_wanted():
        remotes = install_leased_alone(pipe, main_module.let_go)
        xpool.remember(remotes)
        return remotes
    report = os.environ.pop(EXPLAIN_VARIABLE, None)
    remotes = install_leased(load_library(), pipe, main_module.let_go)
    xpool.remember(remotes)
    install_beside_torch(remotes)
    if report is not None:
        from xpool.explaining import Watcher

        Watcher(remotes, Path(report))
    return remotes


def _hook(remotes: list[Remote]) -> Hook:
    """What becomes of the program's uncaught exceptions."""

    def hook(
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        for remote in remotes:
            over = remote.session.link.over
            if over is not None and str(over) in str(error):
                where = _innermost_line(trace)
                print(f"xpool: {over}{where}", file=sys.stderr)  # noqa: T201
                return
        shown = _without_ours(trace)
        # A script that does not compile has no frames, only ours.
        if shown is None and not isinstance(error, SyntaxError):
            shown = trace
        traceback.print_exception(kind, error, shown)

    return hook


def _innermost_line(trace: TracebackType | None) -> str:
    """The program's own line that met the end of the session."""
    place = ""
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if "site-packages" not in filename and not _is_ours(filename):
            place = f" (at {filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's first frame on; None if there is none."""
    kept = trace
    while kept is not None and _is_ours(kept.tb_frame.f_code.co_filename):
        kept = kept.tb_next
    return kept


def _is_ours(filename: str) -> bool:
    folder = os.path.dirname(os.path.abspath(__file__))
    return filename.startswith((folder, "<frozen runpy>"))


def _fail(error: PoolError) -> NoReturn:
    print(f"xpool: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
