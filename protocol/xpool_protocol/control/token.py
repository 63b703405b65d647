"""The lease token: what a registry signs and a node checks on its own.

A token is two base64url parts joined by a dot: the claims as JSON and the
signature over them. This file knows the form and the expiry; it does no
cryptography: signing and checking a signature are callables given to it, so that
whoever only reads tokens need not load a crypto library.

Tokens come from strangers: ``verify`` returns claims or raises ``TokenInvalid``,
nothing else, and believes no byte of the claims before the signature holds.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec

from xpool_protocol.errors import TokenInvalid

Signer = Callable[[bytes], bytes]
"""Signs a message."""

Verifier = Callable[[bytes, bytes], None]
"""Takes a signature and a message; raises ``ValueError`` if they do not match."""

# Claims are about 300 characters with the longest names in common use; the rest is
# room for later fields, small enough to refuse before decoding anything.
MAX_TOKEN_CHARS = 4096

# Signed in front of the claims, so that a signature made for anything else by the
# same key can never pass for a lease.
_CONTEXT = b"xpool-lease-token-1\n"


class LeaseClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry vouches for: who may use which slice, and until when."""

    lease_id: str
    epoch: int
    tenant: str
    node_name: str
    """The one node that may honour this token."""

    device_index: int
    share_percent: int
    memory_nbytes: int
    mode: str
    """``elastic`` or ``capped``."""

    priority: str = "normal"
    """``low``, ``normal`` or ``high``."""

    issued_at_s: int
    """Wall clock, seconds since 1970."""

    expires_at_s: int
    """Wall clock; the token is good before this second, not in it."""


def sign(claims: LeaseClaims, signer: Signer) -> str:
    """The token for ``claims``; the same claims and key give the same token."""
    body = msgspec.json.encode(claims)  # fields in the order of their declaration
    return f"{_base64_from_bytes(body)}.{_base64_from_bytes(signer(_CONTEXT + body))}"


def verify(
    token: str, verifier: Verifier, now_s: float, *, leeway_s: float = 0.0
) -> LeaseClaims:
    """The claims of a token that is genuine and not expired.

    The caller still has to compare ``node_name`` and ``epoch`` with its own.

    Args:
        token: as the client presented it.
        verifier: checks the registry's signature.
        now_s: wall clock, seconds since 1970.
        leeway_s: how far this host's clock may run ahead of the registry's.

    Raises:
        TokenInvalid: too long, not two base64url parts, not signed by the
            registry, not claims, or expired; the text says which.
    """
    body, signature = _parts_of(token)
    try:
        verifier(signature, _CONTEXT + body)
    except ValueError as error:
        raise TokenInvalid(
            "the lease token's signature is not the registry's:"
            " it was changed on the way, or another registry gave it"
        ) from error
    try:
        claims = msgspec.json.decode(body, type=LeaseClaims)
    except msgspec.MsgspecError as error:
        raise TokenInvalid(
            f"the lease token's claims are unreadable: {error}"
        ) from None
    if now_s >= claims.expires_at_s + leeway_s:
        raise TokenInvalid(
            f"the lease token expired {now_s - claims.expires_at_s:.0f} s ago:"
            " renew the lease to get a fresh one, and check that the clocks agree"
        )
    return claims


def _parts_of(token: str) -> tuple[bytes, bytes]:
    if not token:
        raise TokenInvalid("there is no lease token: acquire a lease first")
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenInvalid(
            f"the lease token is longer than {MAX_TOKEN_CHARS} characters"
        )
    parts = token.split(".")
    if len(parts) != 2:
        raise TokenInvalid("the lease token is not two parts joined by a dot")
    return _bytes_from_base64(parts[0]), _bytes_from_base64(parts[1])


def _base64_from_bytes(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bytes_from_base64(text: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    # The decoder skips strangers and spare bits; only one spelling is a token.
    if not raw or _base64_from_bytes(raw) != text:
        raise TokenInvalid("the lease token is not base64url")
    return raw
