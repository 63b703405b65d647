"""An event of the pool as one line for people, or as JSON for programs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from xpool_protocol.control import admin_pb2 as pb

MAX_LISTED: Final = 8
"""Of a list: a job may have 64 devices, and a node a thousand."""


def event_text(event: pb.EventInfo, *, as_json: bool) -> str:
    """One line: time, kind, what matters; or the whole event."""
    fields: dict[str, Any] = json.loads(event.json)
    if as_json:
        return json.dumps({"sequence": event.sequence, **fields})
    at_s = float(fields.pop("at_s", 0.0))
    kind = str(fields.pop("event"))
    said = (
        f"{key}={_value_text(key, value)}"
        for key, value in fields.items()
        if value not in ("", 0, [], None)
    )
    return " ".join([_clock_text(at_s), kind, *said])


def _value_text(key: str, value: object) -> str:
    """A value without a space in it, or in quotes."""
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, float) and key.endswith("_at_s"):
        return _quoted(_clock_text(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        parts = [_part_text(one) for one in value[:MAX_LISTED]]
        more = [f"and {len(value) - MAX_LISTED} more"] * (len(value) > MAX_LISTED)
        return _quoted(",".join(parts + more))
    if isinstance(value, dict):
        return _quoted(_part_text(value))
    return _quoted(str(value))


def _part_text(part: object) -> str:
    """One of a list: a device of a node, a label, or what its name is."""
    if isinstance(part, list):
        return "/".join(map(str, part))
    if isinstance(part, dict):
        return str(part.get("name") or part.get("index", "…"))
    return str(part)


def _quoted(text: str) -> str:
    if not text.isprintable():
        return json.dumps(text)  # no line breaks, and nothing that steers a terminal
    return json.dumps(text, ensure_ascii=False) if set(text) & {" ", '"'} else text


def _clock_text(at_s: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at_s))
