"""What stands on the bulk lane: greetings and headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol import lane
from xpool_protocol.errors import PeerError

NUMBERS = st.integers(0, (1 << 64) - 1)


@given(st.binary(min_size=lane.TOKEN_NBYTES, max_size=lane.TOKEN_NBYTES))
def test_a_greeting_shows_its_token(token: bytes) -> None:
    greeting = lane.greeting(token)
    assert len(greeting) == lane.GREETING_NBYTES
    assert lane.token_of(greeting) == token


@given(st.binary(max_size=64))
def test_what_is_no_greeting_is_refused(data: bytes) -> None:
    if data.startswith(lane.MAGIC) and len(data) == lane.GREETING_NBYTES:
        return
    with pytest.raises(PeerError):
        lane.token_of(data)


@given(st.binary(max_size=64))
def test_tokens_have_one_length(token: bytes) -> None:
    if len(token) == lane.TOKEN_NBYTES:
        return
    with pytest.raises(PeerError, match="token"):
        lane.greeting(token)


@given(NUMBERS, NUMBERS)
def test_headers_go_round(number: int, nbytes: int) -> None:
    data = lane.header_bytes(lane.Header(number, nbytes))
    assert len(data) == lane.HEADER_NBYTES
    assert lane.header_from(data) == lane.Header(number, nbytes)


def test_a_header_is_little_endian() -> None:
    data = lane.header_bytes(lane.Header(1, 2))
    assert data == b"\x01" + bytes(7) + b"\x02" + bytes(7)
