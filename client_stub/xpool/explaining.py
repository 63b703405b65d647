"""In the program's process under ``xpool explain``: watches waits, leaves a report."""

from __future__ import annotations

import atexit
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import msgspec

from xpool.native.device import NativeDevice
from xpool.waits import NS_PER_S, Report, WaitBook, place_of

if TYPE_CHECKING:
    from xpool.torch.remote import Remote

PROBES: Final = 5
"""Fences that measure the round trip; behind 30 ms they take 0.15 s."""


class Watcher:
    """Takes notes of this process's waits until it ends."""

    def __init__(self, remotes: Sequence[Remote], path: Path) -> None:
        """Begin to watch; the program has not begun.

        Args:
            remotes: every device of the process.
            path: where the report is left.
        """
        import torch

        self._remotes = remotes
        self._path = path
        self._owner = os.getpid()
        self._book = WaitBook()
        self._inner = tuple(
            str(Path(file).parent) + os.sep for file in (torch.__file__, __file__)
        )
        self._round_trip_s = max(_round_trip_s(remote) for remote in remotes)
        for remote in remotes:
            remote.session.on_wait = self._note
        device = remotes[0].library
        if isinstance(device, NativeDevice):
            device.process.watch_waits(self._note)
        self._begun_ns = time.monotonic_ns()
        atexit.register(self._leave)

    def _note(self, what: str, waited_ns: int, nbytes: int) -> None:
        place = place_of(_frames(sys._getframe(1)), self._inner)
        self._book.note(place, what, waited_ns, nbytes)

    def _leave(self) -> None:
        """At the end: what this process's forked children do is theirs."""
        if os.getpid() != self._owner:
            return
        total_ns = time.monotonic_ns() - self._begun_ns
        first = self._remotes[0]
        report = Report(
            server=first.session.welcome.server,
            device=first.properties.name,
            total_s=total_ns / NS_PER_S,
            round_trip_s=self._round_trip_s,
            sent_nbytes=sum(one.session.link.sent_nbytes for one in self._remotes),
            waits=self._book.waits(),
        )
        self._path.write_bytes(msgspec.json.encode(report))


def _round_trip_s(remote: Remote) -> float:
    """Of a fence on an idle server, the median."""
    taken = []
    for _ in range(PROBES):
        began = time.perf_counter()
        remote.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _frames(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    """File and line, the innermost first."""
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
