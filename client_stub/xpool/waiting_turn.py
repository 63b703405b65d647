"""Asks the registry for leases until there are some, and says how it stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from xpool_protocol.errors import ClosedError, NoCapacity, RegistryUnreachable

from xpool.config import JobSettings

if TYPE_CHECKING:
    from xpool_protocol.control import registry_pb2 as pb

PATIENCE_S: Final = 60.0
"""A registry that is away while we wait is asked again for so long."""

RETRY_S: Final = 0.5
LINE_EVERY_S: Final = 30.0
"""Without a terminal: a new line when something has changed, at most so often."""

QUIET_S: Final = 1.0
"""Shorter waits are not worth a line."""


class Asking(Protocol):
    """What is needed of ``RegistryClient``."""

    def ask(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        """See ``RegistryClient.ask``."""

    def cancel(self, ticket: str) -> bool:
        """See ``RegistryClient.cancel``."""


class Progress:
    """One line on stderr that changes in place, or a few lines where there is none."""

    def __init__(self, out: TextIO, now_s: Callable[[], float]) -> None:
        self._out, self._now_s = out, now_s
        self._is_terminal = out.isatty()
        self._began_s = now_s()
        self._said = ""
        self._said_s = -LINE_EVERY_S
        self._width = 0

    def show(self, place: pb.QueuePlace, wall_s: float) -> None:
        """Say where the request stands."""
        now_s = self._now_s()
        if now_s - self._began_s < QUIET_S:
            return
        what = text_of(place, wall_s)
        if self._is_terminal:
            waited = f"{now_s - self._began_s:.0f} s"
            line = f"xpool: {what} (for {waited})"
            self._out.write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif what != self._said and now_s - self._said_s >= LINE_EVERY_S:
            self._out.write(f"xpool: {what}\n")
            self._said, self._said_s = what, now_s
        self._out.flush()

    def close(self) -> None:
        """Leave the line as it is."""
        if self._width:
            self._out.write("\n")
            self._out.flush()


def text_of(place: pb.QueuePlace, wall_s: float) -> str:
    """Place, reason and start, for a person."""
    text = f"waiting, place {place.place} of {max(place.place, place.waiting_count)}"
    if place.reason:
        text += f": {place.reason}"
    if place.starts_at_s:
        text += f"; starts in {duration(place.starts_at_s - wall_s)} at the latest"
    return f"{text} [request {place.request_id}]"


def duration(seconds: float) -> str:
    """In one or two units.

    >>> duration(42), duration(600), duration(5000), duration(200_000)
    ('42 s', '10 min', '1 h 23 min', '2 d 7 h')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def leases_when_granted(
    client: Asking,
    request: pb.AcquireGroupRequest,
    *,
    is_wanted: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
    now_s: Callable[[], float] = time.monotonic,
    out: TextIO | None = None,
) -> list[pb.Lease]:
    """Ask, and ask again until there are leases.

    Args:
        client: of the registry.
        request: with a ticket, so that an answer that was lost costs nothing.
        is_wanted: false once nobody wants the leases any more.
        sleep: waits so many seconds.
        now_s: a clock.
        out: where progress is shown; None: stderr.

    Raises:
        ClosedError: nobody wants them any more; the request has left the queue.
        PoolError: why there are none.
    """
    progress = Progress(out or sys.stderr, now_s)
    heard_s: float | None = None
    try:
        while True:
            try:
                group = client.ask(request)
            except RegistryUnreachable:
                # Until it has taken the request, an absent registry is the user's news.
                if heard_s is None or now_s() - heard_s > PATIENCE_S:
                    raise
                pause_s = RETRY_S
            else:
                heard_s = now_s()
                if group.leases:
                    return list(group.leases)
                if not group.HasField("queue"):
                    raise NoCapacity("the registry gave neither leases nor a place")
                progress.show(group.queue, time.time_ns() / 1e9)
                pause_s = max(0.05, group.queue.ask_again_ms / 1000)
            sleep(pause_s)
            if not is_wanted():
                client.cancel(request.ticket)
                raise ClosedError("the program ended before it had a device")
    finally:
        progress.close()


def request_from(
    settings: JobSettings, ticket: str, client_text: str
) -> pb.AcquireGroupRequest:
    """A job's wish as it is asked."""
    from xpool_protocol.control import registry_pb2 as pb
    from xpool_protocol.control.wanted import wanted_from

    wanted = settings.wanted
    return pb.AcquireGroupRequest(
        slice=pb.AcquireRequest(
            tenant=settings.tenant,
            share_percent=settings.share_percent,
            memory_nbytes=settings.memory_nbytes,
            mode=settings.mode,
            client=client_text,
            priority=settings.priority,
            min_share_percent=settings.min_share_percent,
        ),
        device_count=settings.device_count,
        ticket=ticket,
        wait_ms=settings.wait_ms,
        limit_ms=settings.limit_ms,
        policy=settings.place,
        same_node=settings.same_server,
        apart=wanted.get("apart", ""),
        near=settings.near,
        max_rtt_us=settings.max_rtt_us,
        close_by=settings.close_by,
        wanted=wanted_from(wanted),
    )
