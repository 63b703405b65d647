"""Subcommands that other packages bring, loaded only when they are named.

A package offers a Typer app as an entry point of group ``xpool.commands``. Whoever
has installed only the client is told what to install instead.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any, Final

import typer
from typer.core import TyperGroup
from xpool_protocol.errors import UsageError

GROUP: Final = "xpool.commands"

KNOWN: Final = {
    "admin": ("registry", "Look into a pool: its nodes, its devices, its leases."),
    "registry": ("registry", "Serve a pool's registry."),
    "server": ("server", "Offer this machine's devices to a pool."),
}
"""Commands of our own packages: the extra that brings each, and its one line."""


class LazyGroup(TyperGroup):
    """Its own commands first, then those of ``KNOWN`` and of the entry points."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help."""
        own = super().list_commands(ctx)
        others = KNOWN.keys() | {one.name for one in _entry_points()}
        return [*own, *sorted(others - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, loaded now; None if nobody offers it."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry_point in _entry_points():
            if entry_point.name == cmd_name:
                return _loaded(entry_point)
        return _missing(cmd_name, None) if cmd_name in KNOWN else None


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=GROUP))


def _loaded(entry_point: importlib.metadata.EntryPoint) -> Any:
    try:
        app = entry_point.load()
    except ModuleNotFoundError as error:
        return _missing(entry_point.name, error)
    command = typer.main.get_command(app)
    command.name = entry_point.name
    return command


def _missing(name: str, error: ModuleNotFoundError | None) -> Any:
    """A command that shows in the help, and says what to do when it is called."""
    extra, summary = KNOWN.get(name, (name, ""))
    hint = f"not installed: pip install 'xpool[{extra}]'"
    lacks = f" (Python has no module {error.name!r})" if error is not None else ""

    def refuse() -> None:
        raise UsageError(f"the {extra} part is {hint}{lacks}")

    app = typer.Typer(add_completion=False)
    app.command(
        name,
        help=f"{summary} ({hint})".strip(),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(refuse)
    return typer.main.get_command(app)
