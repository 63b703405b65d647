"""Frozen bytes: what version 1 looks like, and what becomes of damaged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from golden.vectors import (
    ARRAY_VALUES,
    FOLDER,
    MESSAGES,
    RECORDS,
    VALUES,
    path_of,
    read_lines,
)
from xpool_protocol import records, values
from xpool_protocol.arrays.values import read_array_value, write_array_value
from xpool_protocol.codec import decode, encode
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Message
from xpool_protocol.records import read_record, write_record
from xpool_protocol.values import read_value, write_value
from xpool_protocol.wire import Reader, Writer

Frames = list[bytes]
GROUPS: dict[str, dict[str, Any]] = {
    "value": VALUES,
    "array_value": ARRAY_VALUES,
    "record": RECORDS,
    "message": MESSAGES,
}
ALL = [(group, name) for group, table in GROUPS.items() for name in table]


def whole(read: Callable[[Reader], object], frames: Frames) -> object:
    """One encoding and nothing after it."""
    assert len(frames) == 1
    reader = Reader(frames[0])
    found = read(reader)
    if not reader.is_exhausted:
        raise PeerError("bytes are left over")
    return found


def written(write: Callable[[Writer, Any], None], what: object) -> Frames:
    writer = Writer()
    write(writer, what)
    return [bytes(writer.buffer)]


READ: dict[str, Callable[[Frames], object]] = {
    "value": lambda frames: whole(read_value, frames),
    "array_value": lambda frames: whole(read_array_value, frames),
    "record": lambda frames: whole(read_record, frames),
    "message": decode,
}
WRITE: dict[str, Callable[[Any], Frames]] = {
    "value": lambda value: written(write_value, value),
    "array_value": lambda value: written(write_array_value, value),
    "record": lambda record: written(write_record, record),
    "message": lambda message: [bytes(frame) for frame in encode(message, 1)],
}


@pytest.mark.parametrize(("group", "name"), ALL)
def test_a_vector_is_its_object(group: str, name: str) -> None:
    expected = GROUPS[group][name]
    frames = read_lines(path_of(group, name))
    found = READ[group](frames)
    assert found == expected
    assert type(found) is type(expected)
    assert WRITE[group](found) == frames


def test_every_kind_has_a_vector() -> None:
    tags = {written(write_value, value)[0][0] for value in VALUES.values()}
    assert tags == {
        value for name, value in vars(values).items() if name.startswith("TAG_")
    }
    kinds = {written(write_record, record)[0][0] for record in RECORDS.values()}
    assert kinds == set(records._READERS)
    assert {type(message) for message in MESSAGES.values()} == set(get_args(Message))


def test_no_vector_lies_about_without_its_object() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        path_of(group, name).name for group, name in ALL
    }


def damaged(frames: Frames) -> Iterator[Frames]:
    """Every one-bit flip and every truncation of the first frame, and frames lost."""
    head, *rest = frames
    for at in range(len(head)):
        yield [head[:at], *rest]
        for bit in range(8):
            flipped = bytearray(head)
            flipped[at] ^= 1 << bit
            yield [bytes(flipped), *rest]
    for count in range(len(frames)):
        yield frames[:count]


@pytest.mark.parametrize(("group", "name"), ALL)
def test_damage_is_a_peer_error_or_another_object(group: str, name: str) -> None:
    frames = read_lines(path_of(group, name))
    for broken in damaged(frames):
        if group != "message" and not broken:
            continue  # a record is bytes, not frames: there is no frame to lose
        try:
            found = READ[group](broken)
        except PeerError:
            continue
        # A packed message may hold what we don't know; the rest is canonical.
        if group != "message":
            assert WRITE[group](found) == broken


@pytest.mark.parametrize("name", VALUES)
def test_a_truncated_value_is_refused(name: str) -> None:
    data = read_lines(path_of("value", name))[0]
    for end in range(len(data)):
        with pytest.raises(PeerError):
            read_value(Reader(data[:end]))


@pytest.mark.parametrize("name", RECORDS)
def test_a_truncated_record_is_refused(name: str) -> None:
    data = read_lines(path_of("record", name))[0]
    for end in range(len(data)):
        with pytest.raises(PeerError):
            read_record(Reader(data[:end]))
