"""What a user may choose: flags over XPOOL_* over xpool.toml over defaults.

``docs/configuration.md`` shows the same table.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from xpool_protocol.control.routing import addresses_from_text
from xpool_protocol.errors import UsageError
from xpool_protocol.quantities import nbytes_from_text, share_from_text
from xpool_protocol.settings_file import SERVER_TABLE, settings_file
from xpool_protocol.wishes import require_from_text, rtt_us_from_text

from xpool import room

MODES: Final = ("elastic", "capped")
PRIORITIES: Final = ("high", "normal", "low")
PLACES: Final = ("auto", "pack", "spread")
SWITCH: Final = ("yes", "no")
FOREVER_MS: Final = 30 * 24 * 3600 * 1000
"""The registry keeps nobody in its queue for longer than a month."""

MAX_DEVICES: Final = 64
"""Of one job; the registry has the same bound, and the native library room for it."""

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d{1,8}(?:\.\d{1,3})?)\s*([smhd])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    key: str
    """In ``xpool.toml``, and the name of the flag."""

    variable: str
    default: str


SETTINGS: Final = {
    setting.key: setting
    for setting in (
        Setting("registry", "XPOOL_REGISTRY", "127.0.0.1:7700"),
        Setting("slice", "XPOOL_SLICE", "100%"),
        Setting("memory", "XPOOL_MEMORY", ""),
        Setting("at_least", "XPOOL_AT_LEAST", ""),
        Setting("devices", "XPOOL_DEVICES", "1"),
        Setting("mode", "XPOOL_MODE", "elastic"),
        Setting("tenant", "XPOOL_TENANT", ""),
        Setting("priority", "XPOOL_PRIORITY", "normal"),
        Setting("queue", "XPOOL_QUEUE", "forever"),
        Setting("time_limit", "XPOOL_TIME_LIMIT", ""),
        Setting("place", "XPOOL_PLACE", "auto"),
        Setting("same_server", "XPOOL_SAME_SERVER", "no"),
        Setting("require", "XPOOL_REQUIRE", ""),
        Setting("near", "XPOOL_NEAR", "no"),
        Setting("max_rtt", "XPOOL_MAX_RTT", ""),
        Setting("close_by", "XPOOL_CLOSE_BY", ""),
        Setting("on_oom", room.VARIABLE, "fail"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """A job's wish, checked."""

    registry: str
    """``HOST:PORT``."""

    share_percent: int = 100
    min_share_percent: int = 0
    """So little will do, and it may be shrunk to that; 0: all of it."""

    memory_nbytes: int = 0
    """0: the same share of the device's memory."""

    device_count: int = 1
    """Different devices, each with such a slice."""

    mode: str = "elastic"
    tenant: str = "anonymous"
    priority: str = "normal"
    wait_ms: int = 0
    """How long it may stand in the queue; 0: now or never."""

    limit_ms: int = 0
    """How long it takes at most; 0: nobody knows."""

    place: str = "auto"
    same_server: bool = False
    wanted: dict[str, str] = field(default_factory=dict)
    """Which devices will do; see ``wishes.require_from_text``."""

    near: bool = False
    """The nearest of what has room."""

    max_rtt_us: int = 0
    """Only servers with a round trip of at most so much; 0: any."""

    close_by: str = ""
    """All devices on servers with one value of this label."""

    on_oom: str = "fail"
    """What an allocation does that the quota does not hold; see ``room.py``."""


def job_settings(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> JobSettings:
    """Resolve every setting.

    Args:
        flags: by key, as the command line gave them; None or missing: not given.
        environment: variables; None: this process's.
        folder: where ``xpool.toml`` is looked for, unless XPOOL_CONFIG names one;
            None: where this process stands.

    Raises:
        UsageError: a value that makes no sense, or an unreadable file.
    """
    environment = os.environ if environment is None else environment
    texts = resolve(flags, environment, _texts_of_file(environment, folder))
    memory = texts["memory"]
    return JobSettings(
        registry=_registry(texts["registry"]),
        share_percent=share_from_text(texts["slice"]),
        min_share_percent=_at_least(texts["at_least"], texts["slice"]),
        memory_nbytes=nbytes_from_text(memory) if memory else 0,
        device_count=_device_count(texts["devices"]),
        mode=_one_of("mode", texts["mode"], MODES),
        tenant=texts["tenant"] or _user(),
        priority=_one_of("priority", texts["priority"], PRIORITIES),
        wait_ms=_wait_ms(texts["queue"]),
        limit_ms=ms_from_text(texts["time_limit"]) if texts["time_limit"] else 0,
        place=_one_of("place", texts["place"], PLACES),
        same_server=_one_of("same_server", texts["same_server"], SWITCH) == "yes",
        wanted=require_from_text(texts["require"]),
        near=_one_of("near", texts["near"], SWITCH) == "yes",
        max_rtt_us=rtt_us_from_text(texts["max_rtt"]) if texts["max_rtt"] else 0,
        close_by=texts["close_by"],
        on_oom=_on_oom(texts["on_oom"]),
    )


def _at_least(text: str, slice_text: str) -> int:
    if not text:
        return 0
    least, share = share_from_text(text), share_from_text(slice_text)
    if least > share:
        raise UsageError(f"at least {least}% of a slice of {share}% makes no sense")
    return least


def _on_oom(text: str) -> str:
    room.wait_from_text(text)
    return text


def resolve(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Mapping[str, str],
) -> dict[str, str]:
    """The text that wins for every setting; an empty variable counts as unset."""
    texts = {}
    for key, setting in SETTINGS.items():
        flag = flags.get(key)
        if flag is not None:
            texts[key] = flag
        else:
            texts[key] = (
                environment.get(setting.variable) or file.get(key) or setting.default
            )
    return texts


def _texts_of_file(
    environment: Mapping[str, str], folder: Path | None
) -> dict[str, str]:
    path, values = settings_file(environment, folder)
    values.pop(SERVER_TABLE, None)
    for key, value in values.items():
        if key not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise UsageError(f"{path} sets {key!r}; it may set {known}")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UsageError(f"{path} sets {key} to {value!r}: write a text in quotes")
    return {key: str(value) for key, value in values.items()}


def _registry(text: str) -> str:
    return ",".join(addresses_from_text(text))


def _device_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:4]) <= MAX_DEVICES or len(text) > 4:
        raise UsageError(
            f"devices is {text[:40]!r}: write how many, from 1 to {MAX_DEVICES}"
        )
    return int(text)


def _one_of(key: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise UsageError(f"{key} {text!r} is unknown: write {' or '.join(known)}")
    return text


def _wait_ms(text: str) -> int:
    if text in ("no", "0"):
        return 0
    return FOREVER_MS if text == "forever" else min(ms_from_text(text), FOREVER_MS)


def ms_from_text(text: str) -> int:
    """Milliseconds named by a text like ``90s``, ``10m``, ``2h`` or ``1.5d``.

    Raises:
        UsageError: not a duration, or none of a positive length.

    >>> ms_from_text("10m"), ms_from_text("1.5h")
    (600000, 5400000)
    """
    match = _DURATION.fullmatch(text)
    ms = round(float(match[1]) * _UNITS_MS[match[2]]) if match else 0
    if not ms:
        raise UsageError(
            f"{text!r} is not a duration: write a number and a unit,"
            " for instance 90s, 10m, 2h or 1d"
        )
    return ms


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid-{os.getuid()}"
