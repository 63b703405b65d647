"""What ``recording.py`` has written down: batches of records, made comparable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from xpool_protocol import limits
from xpool_protocol.records import (
    Call,
    DefineOperation,
    Record,
    RequestCall,
    Write,
    read_records,
    write_record,
)
from xpool_protocol.values import Tensor
from xpool_protocol.wire import Writer

Batch = tuple[bytes, int, list[tuple[int, str]]]
Recorded = dict[str, list[Batch]]


def loaded(file: Path, ended: Any) -> Recorded:
    assert ended.returncode == 0, ended.stderr[-3000:]
    return msgspec.msgpack.decode(file.read_bytes(), type=Recorded)


def records_of(batches: list[Batch]) -> Iterator[Record]:
    for data, count, _ in batches:
        records = list(read_records(data))
        assert len(records) == count
        yield from records


def encoded(record: Record) -> bytes:
    writer = Writer()
    write_record(writer, record)
    return bytes(writer.buffer)


def comparable(batches: list[Batch]) -> list[tuple[Any, ...]]:
    """Records as bytes; of a write's payload what it holds, not where it lies.

    Where a batch is cut depends on when the link has time.
    """
    found: list[tuple[Any, ...]] = []
    for data, _, payloads in batches:
        for record in read_records(data):
            if isinstance(record, Write) and record.payload:
                count = -(-record.nbytes // limits.CHUNK_NBYTES)
                first = record.payload - 1
                held = payloads[first : first + count]
                assert sum(length for length, _ in held) == record.nbytes
                found.append((record.storage, record.offset, *held))
            else:
                found.append((encoded(record),))
    return found


def explained(found: list[tuple[Any, ...]]) -> list[str]:
    """For a failing assertion: what the bytes say."""
    return [
        str(next(read_records(one[0]))) if isinstance(one[0], bytes) else str(one)
        for one in found
    ]


def named_calls(recorded: Recorded, program: str) -> list[tuple[str, Any]]:
    """Calls of a program with their names, storages numbered from its own first."""
    names: dict[int, str] = {}
    found: list[tuple[str, Any]] = []
    first: list[int] = []

    def renumbered(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [renumbered(one) for one in value]
        if isinstance(value, Tensor):
            first.append(value.storage)
            return msgspec.structs.replace(value, storage=value.storage - first[0])
        return value

    for name, batches in recorded.items():
        for record in records_of(batches):
            if isinstance(record, DefineOperation):
                names[record.operation] = record.name
            elif isinstance(record, Call | RequestCall) and name == program:
                outputs = record.outputs if isinstance(record, Call) else None
                found.append(
                    (
                        names[record.operation],
                        renumbered((record.arguments, outputs)),
                    )
                )
    return found
