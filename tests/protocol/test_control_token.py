"""The token's form and expiry; the signature here is an HMAC, for speed."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.control.token import (
    MAX_TOKEN_CHARS,
    LeaseClaims,
    sign,
    verify,
)
from xpool_protocol.errors import TokenInvalid

CLAIMS = LeaseClaims(
    lease_id="a1b2c3d4e5f60718",
    epoch=7,
    tenant="ada",
    node_name="node-a",
    device_index=1,
    share_percent=30,
    memory_nbytes=8 << 30,
    mode="elastic",
    issued_at_s=1_000,
    expires_at_s=1_015,
)


def signer(message: bytes, key: bytes = b"k" * 32) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def verifier(signature: bytes, message: bytes) -> None:
    if not hmac.compare_digest(signature, signer(message)):
        raise ValueError("no")


TOKEN = sign(CLAIMS, signer)


def test_a_token_gives_back_its_claims() -> None:
    assert verify(TOKEN, verifier, 1_014.9) == CLAIMS


def test_signing_is_canonical() -> None:
    assert sign(CLAIMS, signer) == TOKEN


@pytest.mark.parametrize("tenant", ["", "ä ö ü", '"quoted"', "\x00", "x" * 128])
def test_any_text_survives(tenant: str) -> None:
    fields = {name: getattr(CLAIMS, name) for name in CLAIMS.__struct_fields__}
    claims = LeaseClaims(**{**fields, "tenant": tenant})
    assert verify(sign(claims, signer), verifier, 1_000) == claims


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "no lease token"),
        ("x" * (MAX_TOKEN_CHARS + 1), "longer than 4096"),
        ("abcd", "two parts"),
        (TOKEN + ".abcd", "two parts"),
        ("!!!." + TOKEN.split(".")[1], "not base64url"),
        (TOKEN + "=", "not base64url"),
        (TOKEN.split(".")[0] + ".", "not base64url"),
        ("." + TOKEN.split(".")[1], "not base64url"),
        (TOKEN.split(".")[0] + ".AAAA", "not the registry's"),
        ("ä" + TOKEN[1:], "not base64url"),
    ],
)
def test_each_refusal_says_which(token: str, reason: str) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        verify(token, verifier, 1_000)


@pytest.mark.parametrize("now_s", [1_015.0, 1_016.0, 9e9])
def test_expiry_is_exclusive(now_s: float) -> None:
    with pytest.raises(TokenInvalid, match=r"expired \d+ s ago"):
        verify(TOKEN, verifier, now_s)


def test_leeway_forgives_a_fast_clock() -> None:
    assert verify(TOKEN, verifier, 1_020, leeway_s=10) == CLAIMS
    with pytest.raises(TokenInvalid, match="expired"):
        verify(TOKEN, verifier, 1_025, leeway_s=10)


def test_another_key_is_a_forgery() -> None:
    forged = sign(CLAIMS, lambda message: signer(message, b"other"))
    with pytest.raises(TokenInvalid, match="not the registry's"):
        verify(forged, verifier, 1_000)


def test_a_signature_for_something_else_is_no_token() -> None:
    """The body alone, signed by the same key, must not pass: context is signed too."""

    def signer_without_context(message: bytes) -> bytes:
        return signer(message.split(b"\n", 1)[1])

    with pytest.raises(TokenInvalid, match="not the registry's"):
        verify(sign(CLAIMS, signer_without_context), verifier, 1_000)


def test_signed_nonsense_is_not_claims() -> None:
    def accepts_all(signature: bytes, message: bytes) -> None:
        del signature, message

    with pytest.raises(TokenInvalid, match="claims are unreadable"):
        verify("e30.e30", accepts_all, 0)


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_every_changed_character_is_refused(position: int) -> None:
    for bit in range(7):
        changed = chr(ord(TOKEN[position]) ^ (1 << bit))
        with pytest.raises(TokenInvalid):
            verify(TOKEN[:position] + changed + TOKEN[position + 1 :], verifier, 1_000)


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"))
def test_garbage_is_refused_and_nothing_else(token: str) -> None:
    with pytest.raises(TokenInvalid):
        verify(token, verifier, 1_000)
