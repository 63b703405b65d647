"""Records of automatic plans: what repeats itself in a log is sent once.

SPEC.md section 5, "Plans", is the authority. ``plans.py`` reads what a definition holds
and makes records of a run.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.wire import Reader, Writer

DEFINE_PLAN: Final = 28
RUN_PLAN: Final = 29
FREE_PLAN: Final = 30

_CHECK: Final = struct.Struct("<I")


class DefinePlan(msgspec.Struct, frozen=True, gc=False):
    """Records that will come again, and which of their numbers will differ."""

    plan: int
    records: bytes
    """As they came the last time."""
    layout: bytes
    """Variables, where they stand, and reads that may be answered early."""


class RunPlan(msgspec.Struct, frozen=True, gc=False):
    """Stands for some of a plan's records, with values of this time."""

    plan: int
    first: int
    count: int
    check: int
    """CRC-32 of the records that are meant."""
    values: bytes
    """Of variables that are not as predicted."""


class FreePlan(msgspec.Struct, frozen=True, gc=False):
    """The client will not run this plan again."""

    plan: int


PlanRecord: TypeAlias = DefinePlan | RunPlan | FreePlan


def write_plan_record(writer: Writer, record: PlanRecord) -> None:
    """Append one record in its canonical form."""
    match record:
        case DefinePlan():
            writer.uint8(DEFINE_PLAN)
            writer.uvarint(record.plan)
            writer.sized(record.records)
            writer.sized(record.layout)
        case RunPlan():
            writer.uint8(RUN_PLAN)
            writer.uvarint(record.plan)
            writer.uvarint(record.first)
            writer.uvarint(record.count)
            writer.raw(_CHECK.pack(record.check))
            writer.sized(record.values)
        case FreePlan():
            writer.uint8(FREE_PLAN)
            writer.uvarint(record.plan)


def _plan(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "plan id")


def read_define_plan(reader: Reader) -> DefinePlan:
    """The fields of a ``DefinePlan``, or ``PeerError``."""
    return DefinePlan(
        _plan(reader),
        reader.sized(limits.MAX_PLAN_NBYTES, "plan"),
        reader.sized(limits.MAX_PLAN_LAYOUT_NBYTES, "layout of a plan"),
    )


def read_run_plan(reader: Reader) -> RunPlan:
    """The fields of a ``RunPlan``, or ``PeerError``."""
    return RunPlan(
        _plan(reader),
        reader.uvarint(limits.MAX_PLAN_RECORDS, "first record of a run"),
        reader.uvarint(limits.MAX_PLAN_RECORDS, "number of records of a run"),
        _CHECK.unpack(reader.raw(_CHECK.size, "check of a run"))[0],
        reader.sized(limits.MAX_PLAN_VALUES_NBYTES, "values of a run"),
    )


def read_free_plan(reader: Reader) -> FreePlan:
    """The fields of a ``FreePlan``, or ``PeerError``."""
    return FreePlan(_plan(reader))
