"""Help texts of commands, from docstrings."""

from __future__ import annotations

import inspect

import typer


def let_flow(app: typer.Typer) -> None:
    """Let the paragraphs of all commands' help fill the terminal's lines.

    Typer keeps a docstring's line breaks in all paragraphs but the first.
    """
    for command in app.registered_commands:
        if command.callback is not None and command.help is None:
            command.help = flowing(inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            let_flow(group.typer_instance)


def flowing(text: str) -> str:
    r"""Without the line breaks inside paragraphs.

    >>> flowing("One.\n\nTwo and\nthree.")
    'One.\n\nTwo and three.'
    """
    return "\n\n".join(part.replace("\n", " ") for part in text.split("\n\n"))
