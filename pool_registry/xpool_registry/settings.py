"""How long things last, and how large what others send may be.

Every bound gives its reason; ``decide.py`` applies them before it believes
anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xpool_protocol.errors import UsageError

# Shorter, and a busy client's renewal would come too late; longer, and a slice
# would stay taken for days after its holder vanished.
MIN_TTL_MS = 1_000
MAX_TTL_MS = 24 * 3600 * 1000

MAX_NAME_CHARS = 128
"""Nodes, tenants and devices: twice what DNS allows for a label."""

MAX_TEXT_CHARS = 256
"""Addresses, clients, reasons: one line for a person."""

MAX_GROUP_DEVICES = 64
"""Devices of one job: as many as a client can number."""

MAX_DEVICES = 1024
"""Per node; the largest machines hold a few dozen."""

MAX_NODES = 4096
"""Per pool; a stranger who invents names must not fill the memory."""

MAX_SESSIONS = 16_384
"""Per heartbeat, live or ended; keeps one message below its 4 MiB."""

MAX_WAIT_MS = 30 * 24 * 3600 * 1000
"""In the queue: a month."""

MAX_LIMIT_MS = 366 * 24 * 3600 * 1000

MAX_WAITING = 20_000
"""Requests in the queue; a client that asks in a loop must not fill the memory."""

MAX_WAITING_OF_TENANT = 5_000

MAX_TENANTS = 10_000

MAX_ENDED_LEASES = 10_000
"""Remembered after their end, so that a node that was cut off can be told.

A lease past this is one that "this registry never saw": its session is left alone.
"""

MIN_FORGET_AFTER_MS = 60_000
MIN_HALF_LIFE_MS = 60_000
MAX_HALF_LIFE_MS = 366 * 24 * 3600 * 1000

_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|d)\s*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may choose."""

    heartbeat_interval_ms: int = 1000
    """Told to every node that joins."""

    dead_after_ms: int = 5000
    """Silence after which a node gets no new leases; five heartbeats."""

    default_ttl_ms: int = 15_000
    """For clients that name none: outlives a short network fault."""

    request_ttl_ms: int = 30_000
    """A waiting request whose client has not asked for so long is dropped."""

    grace_ms: int = 30_000
    """Between asking a lease to leave and ending it."""

    min_run_ms: int = 60_000
    """So long a lease is left in peace."""

    half_life_s: float = 7 * 24 * 3600.0
    """After so long, past use counts half as much for whose turn it is.

    With a day, a morning of one's own was half forgiven before the day was over
    (ADR 0083)."""

    compact_after: int = 10_000
    """A log is put into short when so many appends have come since the last time;
    reading it at a start then takes half a second."""

    forget_after_ms: int = 7 * 24 * 3600 * 1000
    """A node that is silent so long is listed no more; 0: for ever. Counted from the
    registry's start at the earliest, which no more knows of silence before it."""

    usage_days: int = 400
    """So long rows of usage are kept: a year, and a month to look back at it; 0: for
    ever. A lease's row of an hour is some 60 bytes in a file."""

    hold_after_ms: int = 120_000
    """A request that heads the queue so long, with no end of those before it known,
    has devices kept free for it."""


def ms_from_text(text: str) -> int:
    """Milliseconds named by a text like ``15s``, ``500ms``, ``2m``, ``1.5h`` or ``7d``.

    Raises:
        UsageError: not a duration; a bare number has no unit and is refused.

    >>> ms_from_text("15s"), ms_from_text("1.5m")
    (15000, 90000)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not a duration: write a number and a unit,"
            " for instance 500ms, 15s, 2m, 1h or 7d"
        )
    return round(float(match[1]) * _MS[match[2]])


def ttl_ms_checked(ttl_ms: int) -> int:
    """``ttl_ms`` if it may be a lease's time to live.

    Raises:
        UsageError: below 1 s or above 24 h.
    """
    if not MIN_TTL_MS <= ttl_ms <= MAX_TTL_MS:
        raise UsageError(f"a TTL of {ttl_ms} ms is out of range: 1 s to 24 h")
    return ttl_ms


def forget_after_ms_checked(silence_ms: int) -> int:
    """``silence_ms`` if a node may be forgotten after so much of it; 0: never.

    Raises:
        UsageError: shorter than a minute, in which a server may restart.
    """
    if silence_ms and silence_ms < MIN_FORGET_AFTER_MS:
        raise UsageError(
            f"forgetting servers after {silence_ms / 1000:g} s is too early: 1m or"
            " longer, or 0s for never"
        )
    return silence_ms


def half_life_s_checked(half_life_ms: int) -> float:
    """``half_life_ms`` in seconds if past use may fade so fast or slowly.

    Raises:
        UsageError: below a minute or above a year.
    """
    if not MIN_HALF_LIFE_MS <= half_life_ms <= MAX_HALF_LIFE_MS:
        raise UsageError(
            f"a half-life of {half_life_ms / 1000:g} s is out of range: 1m to 366d"
        )
    return half_life_ms / 1000
