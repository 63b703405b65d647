"""What a job says of the devices that will do, as people write it."""

from __future__ import annotations

import re
from typing import Final

from xpool_protocol.errors import UsageError
from xpool_protocol.quantities import nbytes_from_text

REQUIREMENTS: Final = ("kind", "model", "arch", "memory", "server", "apart")

_UNITS_US: Final = {"us": 1, "ms": 1000, "s": 1_000_000}
_ROUND_TRIP: Final = re.compile(r"(\d{1,8}(?:\.\d{1,3})?)\s*(us|ms|s)", re.ASCII)


def rtt_us_from_text(text: str) -> int:
    """Microseconds named by a text like ``500us``, ``2ms`` or ``0.1s``.

    Raises:
        UsageError: not of that form, or out of range: up to a minute.

    >>> rtt_us_from_text("1.5ms")
    1500
    """
    match = _ROUND_TRIP.fullmatch(text)
    us = round(float(match[1]) * _UNITS_US[match[2]]) if match else 0
    if not 0 < us <= 60_000_000:
        raise UsageError(
            f"{text!r} is no round trip: write a number and a unit, for instance 500us"
            " or 2ms"
        )
    return us


def require_from_text(text: str) -> dict[str, str]:
    """Which devices will do: ``model=a100,memory=40GiB,label.zone=b``.

    Keys are ``kind``, ``model``, ``arch``, ``memory`` (of the whole device, at
    least), ``server``, ``apart`` and ``label.NAME``; memory is given back in bytes.

    Raises:
        UsageError: another key, or no value.

    >>> require_from_text("kind=cuda, memory=1KiB")
    {'kind': 'cuda', 'memory': '1024'}
    """
    wanted = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        key, _, value = part.partition("=")
        is_label = key.startswith("label.") and len(key) > len("label.")
        if not value or not (is_label or key in REQUIREMENTS):
            raise UsageError(
                f"require {part!r} makes no sense: write KEY=VALUE with a key of"
                f" {', '.join(REQUIREMENTS)} or label.NAME"
            )
        wanted[key] = str(nbytes_from_text(value)) if key == "memory" else value
    return wanted
