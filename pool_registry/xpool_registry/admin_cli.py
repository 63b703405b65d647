"""``xpool admin``: the queue, tenants, and what is decided on them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from xpool_protocol.errors import UsageError

from xpool_registry import completing
from xpool_registry.cli import (
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    admin_app,
    one_sentence,
    quiet_grpc,
)

if TYPE_CHECKING:
    from xpool_protocol.control.admin_rpc import AdminClient

    from xpool_registry.admin import Listing

tenant_app = typer.Typer(no_args_is_help=True, help="Decide on tenants and groups.")
admin_app.add_typer(tenant_app, name="tenant")

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it without asking; for scripts.")
]
DoneOption = Annotated[
    bool, typer.Option("--json", help="One JSON object in place of the sentence.")
]
TenantArgument = Annotated[
    str,
    typer.Argument(
        metavar="TENANT",
        help="A tenant's name, or a group's.",
        autocompletion=completing.tenants,
    ),
]


@contextmanager
def connected(address: str) -> Iterator[AdminClient]:
    """A connection to the registry; refusals become one sentence and a status."""
    with one_sentence():
        quiet_grpc()
        from xpool_protocol.control.admin_rpc import AdminClient

        with AdminClient(address) as client:
            yield client


def show(
    address: str, listing_of: Callable[[AdminClient], Listing], *, as_json: bool
) -> None:
    """Print one listing."""
    from xpool_registry.admin import text_of

    with connected(address) as client:
        text = text_of(listing_of(client), as_json=as_json)
    typer.echo(text)


def done(text: str, *, as_json: bool, **figures: object) -> None:
    """Say what was done, as a sentence or for scripts."""
    typer.echo(json.dumps(figures) if as_json else text)


def sure(question: str, *, yes: bool) -> None:
    """Ask before something is taken from somebody; ends the command unless sure."""
    if yes:
        return
    if not sys.stdin.isatty():
        with one_sentence():
            raise UsageError(f"{question} Nobody is here to ask: pass --yes")
    typer.confirm(question, abort=True)


@admin_app.command()
def queue(
    registry_address: RegistryOption = DEFAULT_REGISTRY, as_json: JsonOption = False
) -> None:
    """List the requests that wait, in the order in which they are served."""
    from xpool_registry.admin_tables import queue_listing

    now_s = time.time_ns() / 1e9
    show(registry_address, lambda client: queue_listing(client, now_s), as_json=as_json)


@admin_app.command()
def tenants(
    registry_address: RegistryOption = DEFAULT_REGISTRY, as_json: JsonOption = False
) -> None:
    """List the tenants: what they hold, and what they have a right to."""
    from xpool_registry.admin_tables import tenants_listing

    show(registry_address, tenants_listing, as_json=as_json)


@tenant_app.command("set")
def tenant_set(
    name: TenantArgument,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    group: Annotated[
        str | None, typer.Option(help="Group that it belongs to; '' for none.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Its share against its siblings' weights.")
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(metavar="DEVICES", help="Guaranteed devices: 2.5, or 250%."),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="DEVICES", help="Never more at once; 0: no limit."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Never more device memory; 0: no limit."),
    ] = None,
    preemptions: Annotated[
        int | None,
        typer.Option(metavar="N", help="Leases that it may end per hour."),
    ] = None,
    as_json: DoneOption = False,
) -> None:
    """Decide on a tenant or a group; what is not named stays as it is."""
    from xpool_protocol.control import admin_pb2 as pb
    from xpool_protocol.quantities import nbytes_from_text

    with connected(registry_address) as client:
        known = {info.tenant.name: info.tenant for info in client.list_tenants()}
        tenant = known.get(name) or pb.Tenant(name=name, weight=1.0)
        if not tenant.preemptions_per_hour and name not in known:
            tenant.preemptions_per_hour = 60
        if group is not None:
            tenant.parent = group
        if weight is not None:
            tenant.weight = weight
        if quota is not None:
            tenant.quota_percent = percent_from_text(quota)
        if limit is not None:
            tenant.limit_percent = percent_from_text(limit)
        if memory_limit is not None:
            is_none = memory_limit == "0"
            tenant.limit_nbytes = 0 if is_none else nbytes_from_text(memory_limit)
        if preemptions is not None:
            tenant.preemptions_per_hour = preemptions
        client.set_tenant(tenant)
    done(
        f"tenant {name} is set",
        as_json=as_json,
        name=name,
        parent=tenant.parent,
        weight=tenant.weight,
        quota_percent=tenant.quota_percent,
        limit_percent=tenant.limit_percent,
        limit_nbytes=tenant.limit_nbytes,
        preemptions_per_hour=tenant.preemptions_per_hour,
    )


@tenant_app.command("remove")
def tenant_remove(
    name: TenantArgument,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    yes: YesOption = False,
    as_json: DoneOption = False,
) -> None:
    """Forget what was decided on a tenant; its leases and requests stay."""
    sure(f"Forget the weight, quota and limits of {name}?", yes=yes)
    with connected(registry_address) as client:
        was_known = client.remove_tenant(name)
    word = "forgotten" if was_known else "unknown"
    done(f"tenant {name} is {word}", as_json=as_json, name=name, was_known=was_known)


@admin_app.command()
def quota(
    name: TenantArgument,
    devices: Annotated[
        str, typer.Argument(metavar="DEVICES", help="Guaranteed: 2.5, or 250%.")
    ],
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    as_json: DoneOption = False,
) -> None:
    """Guarantee a tenant so many devices: short for "tenant set --quota"."""
    tenant_set(name, registry_address, quota=devices, as_json=as_json)


def percent_from_text(text: str) -> int:
    """Percent of one device, from a number of devices or a percentage.

    Raises:
        UsageError: neither.

    >>> percent_from_text("2.5"), percent_from_text("30%")
    (250, 30)
    """
    number, factor = (text[:-1], 1) if text.endswith("%") else (text, 100)
    try:
        percent = round(float(number) * factor)
    except (ValueError, OverflowError):
        percent = -1
    if not 0 <= percent <= 100_000_000:
        raise UsageError(
            f"{text!r} is no number of devices: write 2.5, or 250% of one device"
        )
    return percent
