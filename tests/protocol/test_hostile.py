"""Small messages that claim to be large are refused fast, and cost no memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import MESSAGE_KINDS
from xpool_protocol import limits, records, values
from xpool_protocol.codec import HEADER, MAGIC, decode
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Failure, Hello, Welcome
from xpool_protocol.records import read_records
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader, Writer

ALLOWANCE_NBYTES = 256 << 10
ALLOWANCE_S = 2.0
"""Far above the milliseconds that it takes, for a machine that is busy."""


@contextmanager
def little() -> Iterator[None]:
    """What runs inside may take little memory and little time."""
    began_s = time.monotonic()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ALLOWANCE_NBYTES
    assert time.monotonic() - began_s < ALLOWANCE_S


def varints(*numbers: int) -> bytes:
    writer = Writer()
    for number in numbers:
        writer.uvarint(number)
    return bytes(writer.buffer)


def message(kind: int, body: bytes) -> list[bytes]:
    return [HEADER.pack(MAGIC, 1, kind, 0, 1, 0) + body]


LIST = bytes([values.TAG_LIST]) + varints(limits.MAX_LIST)
CLAIMS: dict[str, Callable[[], object]] = {
    "list": lambda: read_value(Reader(LIST + bytes(7))),
    "nested lists": lambda: read_value(Reader(LIST * 4)),
    "integers": lambda: read_value(
        Reader(bytes([values.TAG_INTS]) + varints(limits.MAX_LIST) + bytes(7))
    ),
    "text": lambda: read_value(
        Reader(bytes([values.TAG_TEXT]) + varints(limits.MAX_STRING_NBYTES))
    ),
    "host tensor": lambda: read_value(
        Reader(bytes([values.TAG_HOST_TENSOR, 0, 0, 1]) + varints(4 << 20))
    ),
    "tensor": lambda: read_value(
        Reader(bytes([values.TAG_TENSOR, 1, 6, 0, 0, 64]) + varints(*[1 << 46] * 63))
    ),
    "outputs": lambda: list(
        read_records(bytes([records.CALL, 0, 0]) + varints(limits.MAX_OUTPUTS))
    ),
    "written bytes": lambda: list(
        read_records(bytes([records.WRITE, 1, 0]) + varints(64 << 10, 0))
    ),
    "generator state": lambda: list(
        read_records(bytes([records.WRITE_GENERATOR, 1]) + varints(16 << 10))
    ),
    "packed text": lambda: decode(
        message(Hello.kind, b"\x93\x01\x01\xdb\xff\xff\xff\xff")
    ),
    "packed array": lambda: decode(message(Hello.kind, b"\xdd\xff\xff\xff\xff")),
    "packed rest": lambda: decode(
        message(Failure.kind, b"\x96\x01\xa0\xa0\x00\xa0\xdd\xff\xff\xff\xff")
    ),
    "packed map": lambda: decode(
        message(
            Welcome.kind,
            b"\x9c\x01\xa0\x01\xa0\xa0\xa0\xa0\x01\x01\x01\x00\xdf\xff\xff\xff\xff",
        )
    ),
    "packed names": lambda: decode(
        message(
            Welcome.kind,
            b"\x9d\x01\xa0\x01\xa0\xa0\xa0\xa0\x01\x01\x01\x00\x80\xdd\xff\xff\xff\xff",
        )
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_without_the_bytes_is_cheap_to_refuse(name: str) -> None:
    with little(), pytest.raises(PeerError):
        CLAIMS[name]()


@pytest.mark.parametrize(
    "tag", [value for name, value in vars(values).items() if name.startswith("TAG_")]
)
def test_the_largest_number_is_no_length(tag: int) -> None:
    data = bytes([tag]) + b"\xff" * 9 + b"\x01" + bytes(30)
    with little():
        try:
            read_value(Reader(data))
        except PeerError:
            return


@settings(max_examples=200)
@given(
    st.sampled_from([kind.kind for kind in MESSAGE_KINDS]),
    st.binary(max_size=60) | st.binary(max_size=20).map(lambda part: part * 100),
)
def test_garbage_is_cheap(kind: int, body: bytes) -> None:
    with little():
        with suppress(PeerError):
            decode(message(kind, body))
        with suppress(PeerError):
            list(read_records(body))
