"""``xpool admin resize`` and ``xpool admin top``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from xpool_protocol.errors import NoCapacity, PoolError, UsageError

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
    from xpool_protocol.control import registry_pb2 as pb
    from xpool_protocol.control.rpc import RegistryClient

RESIZE_TIMEOUT_S = 10.0
"""A server that is silent for longer is as good as dead."""

LOOK_S = 0.05


@admin_app.command()
def resize(
    lease: Annotated[
        str,
        typer.Argument(
            metavar="LEASE",
            help="As xpool admin leases names it.",
            autocompletion=completing.leases,
        ),
    ],
    slice_: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="PERCENT",
            help="Share of the device's compute, 1% to 100%.",
            show_default="as it is",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Quota, for instance 12GiB; not less than is in use.",
            show_default="as it is",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="elastic|capped", show_default="as it is"),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(metavar="low|normal|high", show_default="as it is"),
    ] = None,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonOption = False,
) -> None:
    """Change the slice of a running job; it goes on without a pause.

    Acts within a second, up or down, and returns when the server has followed. What
    does not fit, or is less than the job has in use, is refused with the figure.
    """
    with one_sentence():
        if slice_ is memory is mode is priority is None:
            raise UsageError(
                "nothing is to change: name --slice, --memory, --mode or --priority"
            )
        quiet_grpc()
        from xpool_protocol.control.rpc import RegistryClient
        from xpool_protocol.quantities import (
            nbytes_from_text,
            share_from_text,
            text_from_nbytes,
        )

        with RegistryClient(registry_address) as client:
            began_s = time.monotonic()
            reply = client.resize(
                lease,
                share_percent=share_from_text(slice_) if slice_ is not None else 0,
                memory_nbytes=nbytes_from_text(memory) if memory is not None else 0,
                mode=mode or "",
                priority=priority or "",
            )
            wait_until_followed(client, lease, reply.number)
            took_ms = 1000 * (time.monotonic() - began_s)
    now = reply.lease
    if as_json:
        figures = {
            "lease_id": lease,
            "share_percent": now.share_percent,
            "memory_nbytes": now.memory_nbytes,
            "mode": now.mode,
            "priority": now.priority or "normal",
            "resize_ms": took_ms,
        }
        typer.echo(json.dumps(figures))
        return
    typer.echo(
        f"lease {lease} has {now.share_percent}% {now.mode},"
        f" {text_from_nbytes(now.memory_nbytes)}, priority {now.priority or 'normal'}"
        f" since {took_ms:.0f} ms after it was asked"
    )


def wait_until_followed(client: RegistryClient, lease_id: str, number: int) -> None:
    """Return when the lease's server has followed a change of its slice.

    Raises:
        NoCapacity: it could not; the text says why.
        PoolError: the job has ended meanwhile, or its server does not answer.
    """
    deadline_s = time.monotonic() + RESIZE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        info = _lease(client, lease_id)
        if info is None:
            raise PoolError(f"lease {lease_id} has ended meanwhile")
        session = info.session
        if info.HasField("session") and session.slice_number >= number:
            if session.refusal:
                raise NoCapacity(session.refusal)
            return
        if not info.HasField("session"):
            return  # nothing runs there yet: the job starts with the new slice
        time.sleep(LOOK_S)
    raise PoolError(
        f"the server of lease {lease_id} did not answer within"
        f" {RESIZE_TIMEOUT_S:.0f} s; it follows when it is back"
    )


def _lease(client: RegistryClient, lease_id: str) -> pb.LeaseInfo | None:
    found = (one for one in client.list_leases() if one.lease.lease_id == lease_id)
    return next(found, None)


@admin_app.command()
def top(
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    once: Annotated[
        bool, typer.Option("--once", help="Print one table and end.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, metavar="SECONDS", help="Between looks.")
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Watch who uses what: shares promised and got, memory, waiting; Ctrl-C ends it.

    With --json one JSON list for each look, a line each; with --once just one.
    """
    with one_sentence():
        quiet_grpc()
        from xpool_protocol.control.rpc import RegistryClient

        from xpool_registry.top import watch

        with RegistryClient(registry_address) as client:
            watch(client, once=once, as_json=as_json, interval_s=interval)
