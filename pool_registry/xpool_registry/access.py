"""Who may do what: tokens and their roles. Pure.

A pool is *open* until its first token is made: whoever reaches it may do everything,
which is for loopback. From then on every call needs a token, for ever: taking the
last one away must not open the pool.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from xpool_protocol.errors import LeaseUnknown, TokenInvalid, UsageError

from xpool_registry.bounds import check_number, check_text
from xpool_registry.commands import Moment
from xpool_registry.events import TokenCreated, TokenRevoked
from xpool_registry.settings import MAX_NAME_CHARS, MAX_TEXT_CHARS
from xpool_registry.state import State

ADMIN, TENANT, SERVER = "admin", "tenant", "server"
ROLES: Final = (ADMIN, TENANT, SERVER)

MAX_TOKENS: Final = 10_000
MAX_LIFE_MS: Final = 10 * 366 * 24 * 3600 * 1000
PREFIX: Final = "xpt"

ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    TENANT: frozenset(
        {
            *("Acquire", "AcquireGroup", "Cancel", "Renew", "Release"),
            *("ListNodes", "ListDevices", "WhatIf"),
        }
    ),
    SERVER: frozenset({"Join", "Heartbeat"}),
}
"""What a role may call; an admin may everything."""


class Caller(NamedTuple):
    """Who makes a call."""

    role: str
    name: str
    """The tenant, or the server; empty: any."""

    token_id: str = ""


EVERYBODY: Final = Caller(ADMIN, "")
"""Of an open pool."""


def caller_of(state: State, token: str, at: Moment) -> Caller:
    """Who shows that token.

    Raises:
        TokenInvalid: none, unknown, revoked or expired.
    """
    if not state.has_had_tokens:
        return EVERYBODY
    if not token:
        raise TokenInvalid(
            "this pool wants a token: set XPOOL_TOKEN or XPOOL_TOKEN_FILE to the one"
            ' that an admin made for you with "xpool admin token create"'
        )
    parts = token.split("_")
    known = state.tokens.get(parts[1]) if len(parts) == 3 else None
    digest = hash_of(token)
    # Compared even if there is none, so that the time tells nothing.
    matches = hmac.compare_digest(digest, known.hash_hex if known else "0" * 64)
    if known is None or not matches:
        raise TokenInvalid("the registry does not know this token, or it was revoked")
    if known.expires_at_s and at.wall_s >= known.expires_at_s:
        raise TokenInvalid(
            f"the token {known.token_id} expired {at.wall_s - known.expires_at_s:.0f} s"
            " ago: ask an admin for a new one"
        )
    return Caller(known.role, known.name, known.token_id)


def check_call(state: State, caller: Caller, method: str, request: Any) -> Any:
    """The request as that caller may make it: a tenant asks as itself.

    Raises:
        TokenInvalid: the role may not do that, or not for that name.
        LeaseUnknown: the lease is another tenant's.
    """
    if caller.role == ADMIN:
        return request
    if method not in ALLOWED[caller.role]:
        raise TokenInvalid(
            f"a token of role {caller.role} may not call {method}: use one of role"
            " admin"
        )
    if caller.role == SERVER:
        if caller.name and request.node_name != caller.name:
            raise TokenInvalid(
                f"this token is of the server {caller.name}, not of"
                f" {request.node_name[:40]!r}"
            )
        return request
    if method in ("Renew", "Release"):
        lease = state.leases.get(request.lease_id)
        if lease is not None and lease.tenant != caller.name:
            raise LeaseUnknown(f"{caller.name} has no lease {request.lease_id[:40]!r}")
    elif method == "Acquire":
        request.tenant = caller.name
    elif method in ("AcquireGroup", "WhatIf"):
        request.slice.tenant = caller.name
    return request


def create(
    state: State,
    *,
    role: str,
    name: str,
    life_ms: int,
    comment: str,
    token_id: str,
    secret: str,
    at: Moment,
) -> tuple[TokenCreated, str]:
    """A token: what is stored, and what its holder gets, which nobody can see again.

    Raises:
        UsageError: a value out of bounds, or the first token is not an admin's.
    """
    if role not in ROLES:
        raise UsageError(f"role is {role[:40]!r}; it must be {', '.join(ROLES)}")
    check_text("name", name, MAX_NAME_CHARS, may_be_empty=role != TENANT)
    check_text("comment", comment, MAX_TEXT_CHARS, may_be_empty=True)
    check_number("expires_in_ms", life_ms, 0, MAX_LIFE_MS)
    if role != ADMIN and not _admins(state):
        raise UsageError(
            "the first token must be an admin's: from then on every call needs one, and"
            ' nobody could make another ("xpool admin token create --role admin")'
        )
    if len(state.tokens) >= MAX_TOKENS:
        raise UsageError(f"{MAX_TOKENS} tokens are known: revoke some first")
    token = f"{PREFIX}_{token_id}_{secret}"
    created = TokenCreated(
        token_id=token_id,
        hash_hex=hash_of(token),
        role=role,
        name=name,
        comment=comment,
        expires_at_s=at.wall_s + life_ms / 1000 if life_ms else 0.0,
        at_s=at.wall_s,
    )
    return created, token


def revoke(state: State, token_id: str, at: Moment) -> TokenRevoked:
    """A token is good for nothing from now on.

    Raises:
        UsageError: there is none, or it is the last admin's.
    """
    known = state.tokens.get(token_id)
    if known is None:
        raise UsageError(f"there is no token {token_id[:40]!r}")
    if known.role == ADMIN and _admins(state) == [token_id]:
        raise UsageError(
            f"{token_id} is the last token of an admin: make another one first"
        )
    return TokenRevoked(token_id=token_id, at_s=at.wall_s)


def hash_of(token: str) -> str:
    """What is stored: a token is 192 random bits, so that one round is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def _admins(state: State) -> list[str]:
    return [one.token_id for one in state.tokens.values() if one.role == ADMIN]
