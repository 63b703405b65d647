"""What a node believes of a stranger's bytes."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.codec import encode
from xpool_protocol.control.token import LeaseClaims, sign
from xpool_protocol.errors import (
    PeerError,
    PoolError,
    TokenInvalid,
    VersionUnsupported,
)
from xpool_protocol.messages import Bye, Hello, Inquiry, Message
from xpool_protocol.transport.base import PeerId
from xpool_server.front_door import LEEWAY_S, FrontDoor
from xpool_server.node_facts import SessionAsked, SessionInquired

KEY = Ed25519PrivateKey.generate()
DOOR = FrontDoor(KEY.public_key().public_bytes_raw())
PEER = PeerId(b"peer")
CLAIMS = LeaseClaims(
    lease_id="L",
    epoch=1,
    tenant="t",
    node_name="n",
    device_index=0,
    share_percent=30,
    memory_nbytes=1 << 30,
    mode="elastic",
    issued_at_s=100,
    expires_at_s=115,
)
TOKEN = sign(CLAIMS, KEY.sign)


def fact(message: Message, now_s: float = 110.0) -> Any:
    return DOOR.fact_from_frames(PEER, encode(message), now_s)


def test_a_hello_asks_for_a_session() -> None:
    assert fact(Hello(1, 1, TOKEN)) == SessionAsked(PEER, CLAIMS)


def test_an_inquiry_is_heard_after_the_lease() -> None:
    asked = fact(Inquiry(TOKEN, "key"), now_s=1e9)
    assert asked == SessionInquired(PEER, CLAIMS, "key")


def test_a_token_is_good_until_its_last_second_and_our_clock_may_err() -> None:
    fact(Hello(1, 1, TOKEN), now_s=115 + LEEWAY_S - 0.01)
    with pytest.raises(TokenInvalid, match="expired 2 s ago"):
        fact(Hello(1, 1, TOKEN), now_s=115 + LEEWAY_S)


def test_another_key_is_another_registry() -> None:
    other = sign(CLAIMS, Ed25519PrivateKey.generate().sign)
    for message in (Hello(1, 1, other), Inquiry(other, "key")):
        with pytest.raises(TokenInvalid, match="not the registry's"):
            fact(message)


def test_other_messages_are_not_for_a_node() -> None:
    with pytest.raises(PeerError, match="not Bye"):
        fact(Bye("x"))


def test_versions_must_meet() -> None:
    with pytest.raises(VersionUnsupported):
        fact(Hello(9, 9, TOKEN))


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(PeerError, match="not an Ed25519 key"):
        FrontDoor(b"short")


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage_is_a_pool_error(frames: list[bytes]) -> None:
    with pytest.raises(PoolError):
        DOOR.fact_from_frames(PEER, frames, 110.0)


@given(st.data())
def test_every_flipped_bit_is_refused_or_changes_only_text(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from([Hello(1, 1, TOKEN), Inquiry(TOKEN, "key")]))
    frame = bytearray(encode(message)[0])
    at = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[at // 8] ^= 1 << (at % 8)
    try:
        seen = DOOR.fact_from_frames(PEER, [bytes(frame)], 110.0)
    except PoolError:
        return
    assert seen.claims == CLAIMS


@given(st.text(max_size=80))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(TokenInvalid):
        fact(Hello(1, 1, text))
