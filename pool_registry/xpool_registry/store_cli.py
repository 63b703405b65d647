"""``xpool admin``: backup, restore."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from xpool_registry.admin_cli import DoneOption, YesOption, done, sure
from xpool_registry.cli import admin_app, one_sentence

StoreOption = Annotated[
    Path,
    typer.Option(envvar="XPOOL_STORE", help="The registry's file.", dir_okay=False),
]
DEFAULT_STORE = Path("~/.local/state/xpool/registry.db")


@admin_app.command()
def backup(
    copy: Annotated[
        Path, typer.Argument(metavar="FILE", help="A new file; its key beside it.")
    ],
    store: StoreOption = DEFAULT_STORE,
    as_json: DoneOption = False,
) -> None:
    """Copy the registry's file and its key, also while the registry runs."""
    with one_sentence():
        from xpool_registry import keeping_copies

        count = keeping_copies.backup(store.expanduser(), copy)
    done(
        f"{count} events are in {copy}; its key is {copy}.key: keep it secret",
        as_json=as_json,
        copy=str(copy),
        key=f"{copy}.key",
        event_count=count,
    )


@admin_app.command()
def restore(
    copy: Annotated[Path, typer.Argument(metavar="FILE", help="As backup made it.")],
    store: StoreOption = DEFAULT_STORE,
    yes: YesOption = False,
    as_json: DoneOption = False,
) -> None:
    """Put a copy in place of a stopped registry's file, which is moved aside."""
    place = store.expanduser()
    if place.exists():
        sure(f"Move {place} aside and take {copy} in its place?", yes=yes)
    now_s = time.time_ns() / 1e9
    with one_sentence():
        from xpool_registry import keeping_copies

        count = keeping_copies.restore(
            copy, place, now_s, lambda: f"before-{int(now_s)}"
        )
    done(
        f"{place} has {count} events again: start the registry",
        as_json=as_json,
        store=str(place),
        event_count=count,
    )
