"""``xpool registry`` and ``xpool admin``: options in, exit codes out.

Loaded whenever ``xpool`` starts, so gRPC and rich are imported inside the commands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from xpool_protocol.errors import PoolError, UsageError

if TYPE_CHECKING:
    from xpool_protocol.control.rpc import RegistryClient

    from xpool_registry.admin import Listing

registry_app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="",
    add_completion=False,
    help="Serve a pool's registry: which devices there are, and who has a lease.",
)
admin_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Look into a pool: its nodes, its devices, its leases.",
)


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


@registry_app.callback()
def registry(
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to serve on; port 0 takes any free one.")
    ] = "127.0.0.1:7700",
    store: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_STORE",
            metavar="FILE|etcd://HOST:PORT",
            help="File that keeps the leases over a restart, its key beside it; or an"
            " etcd cluster that several registries share, one of which leads.",
        ),
    ] = "~/.local/state/xpool/registry.db",
    advertise: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="With etcd: where clients reach this registry, if it is not where it"
            " listens.",
        ),
    ] = "",
    default_ttl: Annotated[
        str,
        typer.Option(
            help="How long a lease lives without renewal, if its client names no"
            " TTL: 1s to 24h."
        ),
    ] = "15s",
    compact_after: Annotated[
        int,
        typer.Option(
            envvar="XPOOL_COMPACT_AFTER",
            min=10,
            help="Put the log into short when so many writes have come since the last"
            " time: with etcd meanwhile, with a file at the start.",
        ),
    ] = 10_000,
    usage_days: Annotated[
        int,
        typer.Option(
            envvar="XPOOL_USAGE_DAYS",
            min=0,
            max=10_000,
            help="Keep hourly rows of usage for so many days; 0: for ever.",
        ),
    ] = 400,
    forget_after: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_FORGET_AFTER",
            metavar="DURATION",
            help="A server that is silent so long, has no lease and is not cordoned is"
            " listed no more: 1m or longer; 0s: never.",
        ),
    ] = "7d",
    half_life: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_HALF_LIFE",
            metavar="DURATION",
            help="After so long, what a tenant has used counts half as much for whose"
            " turn it is: 1m to 366d.",
        ),
    ] = "7d",
    metrics: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_REGISTRY_METRICS",
            metavar="HOST:PORT",
            help="Answer Prometheus at http://HOST:PORT/metrics.",
            show_default="no metrics",
        ),
    ] = "",
    log_format: Annotated[
        LogFormat, typer.Option(help="How log lines on stderr look.")
    ] = LogFormat.TEXT,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM; encrypts all calls.", show_default=False
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM, of that one.", show_default=False),
    ] = None,
    token_file: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Gets the first admin's token when the registry listens beyond this"
            " machine and there is no token yet.",
        ),
    ] = Path("~/.local/state/xpool/admin-token"),
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen beyond this machine, unencrypted: only on a trusted network.",
        ),
    ] = False,
) -> None:
    """Serve a pool's registry: which devices there are, and who has a lease.

    Prints one line when it is ready, logs to stderr, and ends cleanly on Ctrl-C.
    Leases survive a restart; running jobs do not notice a short one.
    """
    from xpool_registry.stop_signals import held_back

    # One core decides; BLAS would start a thread for each of the others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with one_sentence(), held_back():
        quiet_grpc()
        from xpool_registry.daemon import configure_logging, serve, tls_from_files
        from xpool_registry.settings import (
            Settings,
            forget_after_ms_checked,
            half_life_s_checked,
            ms_from_text,
            ttl_ms_checked,
        )

        configure_logging(as_json=log_format is LogFormat.JSON)
        serve(
            listen,
            store,
            Settings(
                default_ttl_ms=ttl_ms_checked(ms_from_text(default_ttl)),
                compact_after=compact_after,
                usage_days=usage_days,
                forget_after_ms=forget_after_ms_checked(ms_from_text(forget_after)),
                half_life_s=half_life_s_checked(ms_from_text(half_life)),
            ),
            is_insecure=insecure,
            advertise=advertise,
            tls=tls_from_files(tls_certificate, tls_key),
            token_file=token_file,
            metrics=metrics,
            on_ready=lambda address: typer.echo(f"registry ready on {address}"),
        )


RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry", envvar="XPOOL_REGISTRY", help="HOST:PORT of the registry."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="A JSON list with all figures, no table.")
]
DEFAULT_REGISTRY = "127.0.0.1:7700"


@admin_app.command()
def nodes(
    registry_address: RegistryOption = DEFAULT_REGISTRY, as_json: JsonOption = False
) -> None:
    """List the servers that joined, and whether they are alive."""
    from xpool_registry.admin import nodes_listing

    _show(registry_address, nodes_listing, as_json=as_json)


@admin_app.command()
def devices(
    registry_address: RegistryOption = DEFAULT_REGISTRY, as_json: JsonOption = False
) -> None:
    """List the devices, what is free on them, and how busy they are."""
    from xpool_registry.admin import devices_listing

    _show(registry_address, devices_listing, as_json=as_json)


@admin_app.command()
def leases(
    registry_address: RegistryOption = DEFAULT_REGISTRY, as_json: JsonOption = False
) -> None:
    """List the live leases: who holds which slice, and what runs there."""
    from xpool_registry.admin import leases_listing

    _show(registry_address, leases_listing, as_json=as_json)


def _show(
    address: str, listing_of: Callable[[RegistryClient], Listing], *, as_json: bool
) -> None:
    with one_sentence():
        quiet_grpc()
        from xpool_protocol.control.rpc import RegistryClient

        from xpool_registry.admin import text_of

        with RegistryClient(address) as client:
            listing = listing_of(client)
        typer.echo(text_of(listing, as_json=as_json))


@contextmanager
def one_sentence() -> Iterator[None]:
    """A refusal goes to stderr; 2 if the call was wrong, 1 if the pool refused."""
    try:
        yield
    except PoolError as error:
        typer.echo(f"xpool: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error


def quiet_grpc() -> None:
    """Our sentence says it; gRPC's own lines on stderr would bury it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


# Further commands of ``admin_app``, which must exist first.
from xpool_registry import admin_cli as admin_cli  # noqa: E402
from xpool_registry import slices_cli as slices_cli  # noqa: E402
from xpool_registry import store_cli as store_cli  # noqa: E402
from xpool_registry import token_cli as token_cli  # noqa: E402
from xpool_registry import upkeep_cli as upkeep_cli  # noqa: E402
from xpool_registry import usage_cli as usage_cli  # noqa: E402
from xpool_registry.help_texts import let_flow  # noqa: E402

let_flow(admin_app)
