"""``xpool admin usage``."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from xpool_registry.admin_cli import connected
from xpool_registry.cli import (
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    admin_app,
    one_sentence,
)


class By(StrEnum):
    """By what usage is summed."""

    TENANT = "tenant"
    LEASE = "lease"
    NODE = "node"
    DEVICE = "device"
    HOUR = "hour"
    DAY = "day"


@admin_app.command()
def usage(
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    since: Annotated[
        str,
        typer.Option(metavar="24h|7d|DATE", help="Where the period begins."),
    ] = "24h",
    until: Annotated[
        str, typer.Option(metavar="DATE|now", help="Where it ends.")
    ] = "now",
    by: Annotated[By, typer.Option(help="What each line is of.")] = By.TENANT,
    as_json: JsonOption = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="A sheet with all figures, no table.")
    ] = False,
) -> None:
    """Show who has used how much device time, by the servers' own measurement.

    Whole hours (UTC) are summed. "booked" is what the shares promised for as long as
    sessions lived, "waited" is when there was work and others had the device.
    """
    with one_sentence():
        from xpool_registry.admin import text_of
        from xpool_registry.usage_tables import (
            csv_from_listing,
            moment_from_text,
            usage_listing,
        )

        now_s = time.time_ns() / 1e9
        begin_s, end_s = (moment_from_text(text, now_s) for text in (since, until))
    with connected(registry_address) as client:
        listing = usage_listing(client, begin_s, end_s, by.value)
    is_sheet = as_csv and not as_json
    typer.echo(
        csv_from_listing(listing) if is_sheet else text_of(listing, as_json=as_json)
    )
