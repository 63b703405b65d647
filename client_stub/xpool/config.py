"""What a user may choose: flags over XPOOL_* over xpool.toml over defaults.

``docs/configuration.md`` shows the same table.
"""

from __future__ import annotations

import getpass
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xpool_protocol.errors import UsageError
from xpool_protocol.quantities import nbytes_from_text, share_from_text

CONFIG_VARIABLE: Final = "XPOOL_CONFIG"
CONFIG_FILE: Final = "xpool.toml"
MODES: Final = ("elastic", "capped")
MAX_DEVICES: Final = 64
"""Of one job; the registry has the same bound, and the native library room for it."""

_REGISTRY: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})", re.ASCII)


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
        Setting("devices", "XPOOL_DEVICES", "1"),
        Setting("mode", "XPOOL_MODE", "elastic"),
        Setting("tenant", "XPOOL_TENANT", ""),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """A job's wish, checked."""

    registry: str
    """``HOST:PORT``."""

    share_percent: int = 100
    memory_nbytes: int = 0
    """0: the same share of the device's memory."""

    device_count: int = 1
    """Different devices, each with such a slice."""

    mode: str = "elastic"
    tenant: str = "anonymous"


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
        memory_nbytes=nbytes_from_text(memory) if memory else 0,
        device_count=_device_count(texts["devices"]),
        mode=_mode(texts["mode"]),
        tenant=texts["tenant"] or _user(),
    )


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
    named = environment.get(CONFIG_VARIABLE)
    path = Path(named).expanduser() if named else (folder or Path()) / CONFIG_FILE
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        if not named:
            return {}
        raise UsageError(f"{CONFIG_VARIABLE} names {path}, which is missing") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the settings in {path}: {error}") from error
    for key, value in values.items():
        if key not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise UsageError(f"{path} sets {key!r}; it may set {known}")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UsageError(f"{path} sets {key} to {value!r}: write a text in quotes")
    return {key: str(value) for key, value in values.items()}


def _registry(text: str) -> str:
    match = _REGISTRY.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        raise UsageError(
            f"{text!r} is not a registry's address: write HOST:PORT, for instance"
            " 127.0.0.1:7700"
        )
    return text


def _device_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:4]) <= MAX_DEVICES or len(text) > 4:
        raise UsageError(
            f"devices is {text[:40]!r}: write how many, from 1 to {MAX_DEVICES}"
        )
    return int(text)


def _mode(text: str) -> str:
    if text not in MODES:
        raise UsageError(f"mode {text!r} is unknown: write {' or '.join(MODES)}")
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid-{os.getuid()}"
