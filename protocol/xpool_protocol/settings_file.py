"""``xpool.toml``: where it is, and what it holds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from xpool_protocol.errors import UsageError

CONFIG_VARIABLE: Final = "XPOOL_CONFIG"
CONFIG_FILE: Final = "xpool.toml"
SERVER_TABLE: Final = "server"
"""What ``xpool server`` reads; jobs do not."""


def settings_file(
    environment: Mapping[str, str], folder: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """The file of settings and what it says; nothing if there is none.

    Args:
        environment: variables; ``XPOOL_CONFIG`` names another file.
        folder: where it is looked for otherwise; None: where this process stands.

    Raises:
        UsageError: the one that is named is missing, or it cannot be read.
    """
    named = environment.get(CONFIG_VARIABLE)
    path = Path(named).expanduser() if named else (folder or Path()) / CONFIG_FILE
    try:
        return path, tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        if not named:
            return path, {}
        raise UsageError(f"{CONFIG_VARIABLE} names {path}, which is missing") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the settings in {path}: {error}") from error
