"""A plan as its definition says, and the records that its runs stand for.

``read_plan`` checks a whole definition before anything is kept because of it.
``Plan.expand`` gives bytes of ordinary records, which whoever executes them decodes and
checks as if they had come themselves: a plan can say nothing that a client could not
have said without it. SPEC.md section 5, "Plans".
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.plan_records import DefinePlan, RunPlan
from xpool_protocol.records import ALLOCATE, CALL, FREE, READ, read_record
from xpool_protocol.wire import UINT64_MAX, Reader, Writer

ALLOWED: Final = frozenset({CALL, ALLOCATE, FREE, READ})
"""Kinds of records that may stand in a plan: no plan in a plan, no definition, nothing
with payload frames."""


class Rule(IntEnum):
    """What a variable is expected to be where it is bound."""

    KEEP = 0
    """What it was, plus ``number``."""
    NEXT = 1
    """What the last variable of this rule was bound to, plus ``number``."""
    CARRY = 2
    """What variable ``number`` was in the run before."""
    RAW = 3
    """The same ``number`` of bytes as before."""


@dataclass(slots=True)
class Variable:
    """A number, or some bytes, that may differ from run to run."""

    rule: Rule
    number: int
    bound_at: int = -1
    """The record that gives it its value in a run."""
    now: int = 0
    before: int = 0
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Hole:
    """Where a variable stands in the records."""

    at: int
    nbytes: int
    variable: int
    binds: bool


@dataclass(frozen=True, slots=True)
class Early:
    """A read that may be answered before its turn, once record ``after`` has run."""

    after: int
    read: int
    request: int
    """The variable that names its answer."""


@dataclass(slots=True)
class Expansion:
    """Records that a run stands for."""

    records: bytearray = field(default_factory=bytearray)
    requests: dict[int, int] = field(default_factory=dict)
    """By index of the record within the run: the request that ``early`` may answer
    after it."""
    reads: dict[int, bytes] = field(default_factory=dict)
    """With each of these, the read's own bytes."""


class Plan:
    """A plan, and what its variables were last."""

    def __init__(self, record: DefinePlan) -> None:
        """Read a definition; see ``read_plan``."""
        self.id = record.plan
        self.nbytes = len(record.records) + len(record.layout)
        self.records = record.records
        self.ends: list[int] = []
        """Where each record ends."""
        self.variables: list[Variable] = []
        self.holes: list[list[Hole]] = []
        """Of each record."""
        self.early: list[Early] = []
        self._early_after: dict[int, Early] = {}
        self._last_next = 0

    def start(self, index: int) -> int:
        """Where a record begins."""
        return self.ends[index - 1] if index else 0

    def expand(self, run: RunPlan) -> Expansion:
        """The records that a run stands for; the variables are now as they say.

        Raises:
            PeerError: no such records, values that do not fit, or other records than
                the client has meant.
        """
        given = self.check(run)
        first, end = run.first, run.first + run.count
        for number in [one for one in given if self.variables[one].bound_at < first]:
            self._assign(number, given.pop(number))
        made = Expansion()
        for index in range(first, end):
            self._put_record(index, given, made.records)
            early = self._early_after.get(index)
            if early is not None:
                request = self._bind(early.request, given)
                made.requests[index - first] = int(request)
                made.reads[index - first] = self._read_of(early)
        if zlib.crc32(made.records) != run.check:
            raise self.other_records()
        return made

    def other_records(self) -> PeerError:
        """What is wrong where nothing else is."""
        return PeerError(f"a run of plan {self.id} does not make what was meant")

    def check(self, run: RunPlan) -> dict[int, int | bytes]:
        """A run's values, by variable; the plan stays as it is.

        Raises:
            PeerError: no such records, or values that do not fit.
        """
        end = run.first + run.count
        if run.count == 0 or end > len(self.ends):
            raise PeerError(
                f"plan {self.id} has {len(self.ends)} records:"
                f" {run.count} from {run.first} on are not there"
            )
        reader = Reader(run.values)
        given: dict[int, int | bytes] = {}
        least = 0
        count = reader.uvarint(limits.MAX_PLAN_VARIABLES, "number of values")
        for _ in range(count):
            gap = reader.uvarint(limits.MAX_PLAN_VARIABLES, "number of a variable")
            number = least + gap
            least = number + 1
            if number >= len(self.variables):
                raise PeerError(
                    f"plan {self.id} has {len(self.variables)} variables, no number"
                    f" {number}"
                )
            variable = self.variables[number]
            if variable.rule is Rule.RAW:
                given[number] = reader.raw(variable.number, "value")
            else:
                given[number] = reader.uvarint(what="value")
        if not reader.is_exhausted:
            raise PeerError(f"a run of plan {self.id} has bytes behind its values")
        if any(self.variables[number].bound_at >= end for number in given):
            raise PeerError(f"a run of plan {self.id} has values that it does not use")
        return given

    def _put_record(
        self, index: int, given: dict[int, int | bytes], to: bytearray
    ) -> None:
        at = self.start(index)
        for hole in self.holes[index]:
            to += self.records[at : hole.at]
            at = hole.at + hole.nbytes
            variable = self.variables[hole.variable]
            if hole.binds:
                self._bind(hole.variable, given)
            to += variable.raw if variable.rule is Rule.RAW else _uvarint(variable.now)
        to += self.records[at : self.ends[index]]

    def _bind(self, number: int, given: dict[int, int | bytes]) -> int | bytes:
        value = given.pop(number, None)
        if value is None:
            value = self._expected(number)
        self._assign(number, value)
        if self.variables[number].rule is Rule.NEXT:
            self._last_next = int(value)
        return value

    def _expected(self, number: int) -> int | bytes:
        variable = self.variables[number]
        match variable.rule:
            case Rule.RAW:
                return variable.raw
            case Rule.CARRY:
                # One that is bound before this one in a run has been bound by now.
                other = self.variables[variable.number]
                return other.before if variable.number < number else other.now
            case Rule.NEXT:
                return self._last_next + variable.number & UINT64_MAX
            case Rule.KEEP:
                return variable.now + variable.number & UINT64_MAX

    def _assign(self, number: int, value: int | bytes) -> None:
        variable = self.variables[number]
        if isinstance(value, bytes):
            variable.raw = value
        else:
            variable.before, variable.now = variable.now, value

    def _read_of(self, early: Early) -> bytes:
        to = bytearray()
        at = self.start(early.read)
        for hole in self.holes[early.read]:
            to += self.records[at : hole.at] + _uvarint(
                self.variables[hole.variable].now
            )
            at = hole.at + hole.nbytes
        to += self.records[at : self.ends[early.read]]
        return bytes(to)


def _uvarint(value: int) -> bytes:
    writer = Writer()
    writer.uvarint(value)
    return bytes(writer.buffer)


def read_plan(record: DefinePlan) -> Plan:
    """A plan as its definition says.

    Raises:
        PeerError: it makes no sense, or is too much.
    """
    plan = Plan(record)
    _read_templates(plan)
    layout = Reader(record.layout)
    _read_variables(plan, layout)
    _read_holes(plan, layout)
    _read_early(plan, layout)
    if not layout.is_exhausted:
        raise PeerError(f"plan {plan.id} has bytes behind its layout")
    return plan


def _read_templates(plan: Plan) -> None:
    reader = Reader(plan.records)
    while not reader.is_exhausted:
        if len(plan.ends) >= limits.MAX_PLAN_RECORDS:
            raise PeerError(
                f"plan {plan.id} has more than {limits.MAX_PLAN_RECORDS} records"
            )
        kind = reader.peek()
        if kind not in ALLOWED:
            raise PeerError(f"record kind {kind} may not stand in a plan")
        read_record(reader)
        plan.ends.append(reader.position)
    plan.holes = [[] for _ in plan.ends]


def _read_variables(plan: Plan, layout: Reader) -> None:
    count = layout.uvarint(limits.MAX_PLAN_VARIABLES, "number of variables")
    for _ in range(count):
        rule = layout.uint8()
        match rule:
            case Rule.KEEP | Rule.NEXT:
                number = layout.svarint("step")
            case Rule.CARRY:
                number = layout.uvarint(count - 1, "variable to carry on")
            case Rule.RAW:
                number = layout.uvarint(limits.INLINE_NBYTES, "bytes of a variable")
            case _:
                raise PeerError(f"rule {rule} of plan {plan.id} is unknown")
        plan.variables.append(Variable(Rule(rule), number))
    for one in plan.variables:
        if one.rule is Rule.CARRY and plan.variables[one.number].rule is Rule.RAW:
            raise PeerError(f"plan {plan.id} carries on bytes as if they were a number")


def _read_holes(plan: Plan, layout: Reader) -> None:
    count = layout.uvarint(limits.MAX_PLAN_VARIABLES, "number of places")
    template = Reader(plan.records)
    index = known = 0
    for _ in range(count):
        gap = layout.uvarint(limits.MAX_PLAN_NBYTES, "place of a variable")
        number = layout.uvarint(limits.MAX_PLAN_VARIABLES, "variable")
        at = template.position + gap
        if number > known or number >= len(plan.variables):
            raise PeerError(f"plan {plan.id} names variable {number} before its turn")
        if at >= len(plan.records):
            raise PeerError(f"plan {plan.id} has a variable behind its records")
        while plan.ends[index] <= at:
            index += 1
        template.position = at
        variable = plan.variables[number]
        binds = number == known
        if variable.rule is Rule.RAW:
            raw = template.raw(variable.number, "place of a variable")
            if not binds:
                raise PeerError(f"plan {plan.id} uses bytes in two places")
            variable.raw = raw
        else:
            value = template.uvarint(what="number of a plan")
            if binds:
                variable.now = variable.before = value
        if template.position > plan.ends[index]:
            raise PeerError(f"a variable of plan {plan.id} reaches out of its record")
        if binds:
            variable.bound_at = index
            known += 1
            if variable.rule is Rule.NEXT:
                plan._last_next = variable.now
        plan.holes[index].append(Hole(at, template.position - at, number, binds=binds))
    if known != len(plan.variables):
        raise PeerError(f"plan {plan.id} has variables that stand nowhere")


def _read_early(plan: Plan, layout: Reader) -> None:
    count = layout.uvarint(len(plan.ends), "number of early reads")
    for _ in range(count):
        after = layout.uvarint(limits.MAX_PLAN_RECORDS, "record before an early read")
        read = layout.uvarint(limits.MAX_PLAN_RECORDS, "early read")
        if not after < read < len(plan.ends) or after in plan._early_after:
            raise PeerError(f"plan {plan.id} reads early after record {after}, {read}")
        start, holes = plan.start(read), plan.holes[read]
        is_whole = (
            plan.records[start] == READ
            and len(holes) == 2
            and holes[0].at == start + 1
            and holes[0].binds
            and holes[1].at == start + 1 + holes[0].nbytes
            and not holes[1].binds
            and plan.variables[holes[0].variable].rule is Rule.KEEP
        )
        if not is_whole:
            raise PeerError(f"record {read} of plan {plan.id} can't be read early")
        request = holes[0].variable
        plan.variables[request].bound_at = after
        holes[0] = Hole(holes[0].at, holes[0].nbytes, request, binds=False)
        early = Early(after, read, request)
        plan.early.append(early)
        plan._early_after[after] = early
