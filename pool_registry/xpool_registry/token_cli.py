"""``xpool admin token``: who may call the registry."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from xpool_protocol.errors import UsageError

from xpool_registry import completing
from xpool_registry.admin_cli import DoneOption, YesOption, connected, done, show, sure
from xpool_registry.cli import (
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    admin_app,
    one_sentence,
)

if TYPE_CHECKING:
    from xpool_protocol.control.admin_rpc import AdminClient

    from xpool_registry.admin import Listing

token_app = typer.Typer(
    no_args_is_help=True, help="Say who may call the registry, by tokens with roles."
)
admin_app.add_typer(token_app, name="token")


@token_app.command("create")
def token_create(
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    role: Annotated[
        str, typer.Option(metavar="admin|tenant|server", help="What it may do.")
    ] = "tenant",
    name: Annotated[
        str,
        typer.Option(help="Of the tenant; of the server, or any server without it."),
    ] = "",
    expires: Annotated[
        str,
        typer.Option(metavar="DURATION", help="For instance 720h; 0: never."),
    ] = "0",
    comment: Annotated[str, typer.Option(help="For people: who has it.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this once.

    The first must be an admin's. From then on every call needs one.
    """
    from xpool_registry.settings import ms_from_text

    with one_sentence():
        life_ms = 0 if expires == "0" else ms_from_text(expires)
        if role == "tenant" and not name:
            raise UsageError("whose is it? Name the tenant with --name")
    with connected(registry_address) as client:
        is_first = not client.list_tokens()
        made = client.create_token(role, name, expires_in_ms=life_ms, comment=comment)
    if is_first:
        typer.echo(
            "xpool: from now on every call to this registry needs a token: give each"
            " server and each tenant its own, and keep this one (XPOOL_TOKEN_FILE)",
            err=True,
        )
    figures = {
        "token": made.token,
        "token_id": made.token_id,
        "expires_at_s": made.expires_at_s or None,
    }
    typer.echo(json.dumps(figures, indent=2) if as_json else made.token)


@token_app.command("list")
def token_list(
    registry_address: RegistryOption = DEFAULT_REGISTRY, as_json: JsonOption = False
) -> None:
    """List the tokens that are not revoked; not what they are."""
    show(registry_address, _tokens_listing, as_json=as_json)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="From the list.", autocompletion=completing.tokens
        ),
    ],
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    yes: YesOption = False,
    as_json: DoneOption = False,
) -> None:
    """Make a token good for nothing; leases that were got with it go on."""
    sure(f"Revoke the token {token_id}?", yes=yes)
    with connected(registry_address) as client:
        client.revoke_token(token_id)
    done(f"token {token_id} is revoked", as_json=as_json, token_id=token_id)


def _tokens_listing(client: AdminClient) -> Listing:
    from xpool_registry.admin import Listing
    from xpool_registry.ages import age

    tokens = client.list_tokens()
    now_s = time.time_ns() / 1e9

    def left(expires_at_s: float) -> str:
        if not expires_at_s:
            return "never"
        seconds = expires_at_s - now_s
        return f"in {age(seconds)}" if seconds > 0 else "expired"

    return Listing(
        columns=("token", "role", "name", ">age", "expires", "comment"),
        rows=[
            (
                one.token_id,
                one.role,
                one.name or "any",
                age(now_s - one.created_at_s),
                left(one.expires_at_s),
                one.comment,
            )
            for one in tokens
        ],
        figures=[
            {
                "token_id": one.token_id,
                "role": one.role,
                "name": one.name or None,
                "comment": one.comment,
                "created_at_s": one.created_at_s,
                "expires_at_s": one.expires_at_s or None,
            }
            for one in tokens
        ],
        empty="no token has been made: whoever reaches the registry may do everything",
    )
