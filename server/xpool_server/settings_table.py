"""The table ``[server]`` of ``xpool.toml``: what flags and variables do not say."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from xpool_protocol.errors import UsageError
from xpool_protocol.settings_file import SERVER_TABLE, settings_file


def server_table(
    known: Collection[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> dict[str, Any]:
    """Defaults of the flags of ``xpool server``, by their names.

    Args:
        known: names that there are.
        environment: variables; ``XPOOL_CONFIG`` names the file.
        folder: where it is otherwise; None: where this process stands.

    Raises:
        UsageError: the file cannot be read, or sets something that is not known.
    """
    path, values = settings_file(environment, folder)
    table = values.get(SERVER_TABLE, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path} sets {SERVER_TABLE}: write a table [{SERVER_TABLE}]")
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"{path} sets {key!r} in [{SERVER_TABLE}]; it may set"
                f" {', '.join(sorted(known))}"
            )
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float) for one in parts):
            raise UsageError(f"{path} sets {key} in [{SERVER_TABLE}] to {value!r}")
    return table


class WithTable(TyperGroup):
    """A command whose defaults are in the file."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """As the base's, with the file's values below flags and variables."""
        known = {one.name for one in self.params if one.name and one.name != "help"}
        try:
            table = server_table(known, os.environ)
        except UsageError as error:
            typer.echo(f"xpool: {error}", err=True)
            raise typer.Exit(2) from error
        several = {one.name for one in self.params if getattr(one, "multiple", False)}
        for key, value in table.items():
            is_list = isinstance(value, list)
            table[key] = [value] if key in several and not is_list else value
        extra.setdefault("default_map", table)
        return super().make_context(info_name, args, parent, **extra)
