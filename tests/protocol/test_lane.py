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


def test_a_greeting_says_whether_memory_comes_with_it() -> None:
    token = bytes(lane.TOKEN_NBYTES)
    shared = lane.greeting(token, is_shared=True)
    assert lane.token_of(shared) == token
    assert lane.is_shared_greeting(shared)
    assert not lane.is_shared_greeting(lane.greeting(token))


@given(st.integers(1, lane.SLOT_NBYTES))
def test_counts_of_slots_go_round(nbytes: int) -> None:
    assert lane.count_from(lane.count_bytes(nbytes)) == nbytes


@pytest.mark.parametrize("data", [bytes(4), b"\x01\x00\x10\x00", b"\xff" * 4])
def test_a_slot_holds_something_and_no_more_than_fits(data: bytes) -> None:
    with pytest.raises(PeerError, match="slot"):
        lane.count_from(data)


@given(st.binary(max_size=64))
def test_what_is_no_greeting_is_refused(data: bytes) -> None:
    is_magic = data.startswith((lane.MAGIC, lane.SHARED_MAGIC))
    if is_magic and len(data) == lane.GREETING_NBYTES:
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
