"""Records by which a device takes part in collectives with other jobs' devices.

The workers carry them out among themselves: each rank's client records the same
collective in its own log. SPEC.md section 5 is the authority.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.values import Tensor, read_tensor, write_tensor
from xpool_protocol.wire import Reader, Writer

OPEN_MEETING: Final = 18
DEFINE_GROUP: Final = 19
COLLECTIVE: Final = 20
FREE_GROUP: Final = 21

COLLECTIVES: Final = (
    "all_reduce",
    "broadcast",
    "reduce",
    "all_gather",
    "all_gather_into_tensor",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "gather",
    "scatter",
    "all_to_all",
    "all_to_all_single",
    "send",
    "recv",
)
"""``Collective.what`` is a position here."""

REDUCTIONS: Final = ("sum", "avg", "product", "min", "max", "band", "bor", "bxor")
"""``Collective.reduction`` is a position here, as in torch's own enumeration."""


class OpenMeeting(msgspec.Struct, frozen=True, gc=False):
    """Open a place where the workers of a group find one another; tell its port."""

    request: int


class DefineGroup(msgspec.Struct, frozen=True, gc=False):
    """Join the other ranks; later records wait until all are there."""

    group: int
    rank: int
    size: int
    address: str
    """``HOST:PORT`` of the first rank's meeting."""
    secret: str
    """What the ranks of this group share, and nobody else knows."""
    timeout_ms: int


class Collective(msgspec.Struct, frozen=True, gc=False):
    """Take part in one collective; later records wait for its end."""

    group: int
    what: int
    reduction: int
    root: int
    """The rank that sends to all, or gets from all; the other one of send and recv."""
    tag: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    """What is written, and poisoned if the collective fails."""
    input_splits: tuple[int, ...] = ()
    output_splits: tuple[int, ...] = ()


class FreeGroup(msgspec.Struct, frozen=True, gc=False):
    """Leave a group."""

    group: int


GroupRecord: TypeAlias = OpenMeeting | DefineGroup | Collective | FreeGroup


def write_group_record(writer: Writer, record: GroupRecord) -> None:
    """Append one record in its canonical form."""
    match record:
        case OpenMeeting():
            writer.uint8(OPEN_MEETING)
            writer.uvarint(record.request)
        case DefineGroup():
            writer.uint8(DEFINE_GROUP)
            writer.uvarint(record.group)
            writer.uvarint(record.rank)
            writer.uvarint(record.size)
            writer.text(record.address)
            writer.text(record.secret)
            writer.uvarint(record.timeout_ms)
        case Collective():
            writer.uint8(COLLECTIVE)
            writer.uvarint(record.group)
            writer.uint8(record.what)
            writer.uint8(record.reduction)
            writer.uvarint(record.root)
            writer.uvarint(record.tag)
            for tensors in (record.inputs, record.outputs):
                writer.uvarint(len(tensors))
                for tensor in tensors:
                    write_tensor(writer, tensor)
            for splits in (record.input_splits, record.output_splits):
                writer.uvarint(len(splits))
                for split in splits:
                    writer.uvarint(split)
        case FreeGroup():
            writer.uint8(FREE_GROUP)
            writer.uvarint(record.group)


def read_open_meeting(reader: Reader) -> OpenMeeting:
    """The fields of an ``OpenMeeting``, or ``PeerError``."""
    request = reader.uvarint(limits.MAX_STORAGE_ID, "request id")
    if request == 0:
        raise PeerError("request id 0 means that nobody waits")
    return OpenMeeting(request)


def read_define_group(reader: Reader) -> DefineGroup:
    """The fields of a ``DefineGroup``, or ``PeerError``."""
    group = _group(reader)
    rank = reader.uvarint(limits.MAX_RANKS - 1, "rank")
    size = reader.uvarint(limits.MAX_RANKS, "number of ranks")
    if rank >= size:
        raise PeerError(f"rank {rank} is none of {size}")
    return DefineGroup(
        group,
        rank,
        size,
        reader.text(limits.MAX_NAME_NBYTES, "meeting's address"),
        reader.text(limits.MAX_NAME_NBYTES, "group's secret"),
        reader.uvarint(limits.MAX_GROUP_TIMEOUT_MS, "timeout"),
    )


def read_collective(reader: Reader) -> Collective:
    """The fields of a ``Collective``, or ``PeerError``."""
    group = _group(reader)
    what, reduction = reader.uint8(), reader.uint8()
    if what >= len(COLLECTIVES):
        raise PeerError(f"collective {what} is unknown")
    if reduction >= len(REDUCTIONS):
        raise PeerError(f"reduction {reduction} is unknown")
    return Collective(
        group,
        what,
        reduction,
        reader.uvarint(limits.MAX_RANKS - 1, "root"),
        reader.uvarint(limits.MAX_TAG, "tag"),
        _tensors(reader),
        _tensors(reader),
        _splits(reader),
        _splits(reader),
    )


def read_free_group(reader: Reader) -> FreeGroup:
    """The fields of a ``FreeGroup``, or ``PeerError``."""
    return FreeGroup(_group(reader))


def _group(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "group id")


def _tensors(reader: Reader) -> tuple[Tensor, ...]:
    count = reader.uvarint(limits.MAX_LIST, "number of tensors")
    return tuple([read_tensor(reader) for _ in range(count)])


def _splits(reader: Reader) -> tuple[int, ...]:
    count = reader.uvarint(limits.MAX_RANKS, "number of splits")
    return tuple([reader.uvarint(limits.MAX_EXTENT, "split") for _ in range(count)])
