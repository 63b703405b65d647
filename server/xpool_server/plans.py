"""The automatic plans of a session: which there are, and what their runs stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xpool_protocol import limits
from xpool_protocol.errors import PeerError, PoolError
from xpool_protocol.messages import Reply
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan
from xpool_protocol.plans import ALLOWED, Plan, read_plan
from xpool_protocol.records import Read, Record, read_record
from xpool_protocol.wire import Reader

from xpool_server.devices.base import Backend
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.storages import Storages


class Plans:
    """Keeps plans. What is wrong about one ends the session."""

    def __init__(
        self,
        backend: Backend,
        storages: Storages,
        failures: Failures,
        reply: Callable[[Read], Reply],
    ) -> None:
        """No plans.

        Args:
            backend: the device.
            storages: of the session.
            failures: of the session; counts its records.
            reply: answers a read.
        """
        self._backend = backend
        self._storages = storages
        self._failures = failures
        self._reply = reply
        self._expanded_nbytes = 0
        self._table: dict[int, Plan] = {}
        self._answered: dict[tuple[int, int], int] = {}
        """Reads by plan and place in it: the request that was answered early."""

    def define(self, record: DefinePlan) -> Answers:
        """Keep a plan.

        Raises:
            PeerError: it makes no sense, exists, or is one too many.
        """
        if record.plan in self._table:
            raise PeerError(f"plan {record.plan} exists already")
        if len(self._table) >= limits.MAX_PLANS:
            raise PeerError(f"a session has at most {limits.MAX_PLANS} plans")
        self._table[record.plan] = read_plan(record)
        return NOTHING

    def free(self, record: FreePlan) -> Answers:
        """Forget a plan.

        Raises:
            PeerError: there is none.
        """
        plan = self.plan(record.plan)
        for early in plan.early:
            self._answered.pop((plan.id, early.read), None)
        del self._table[plan.id]
        return NOTHING

    def plan(self, plan_id: int) -> Plan:
        """A plan of the session.

        Raises:
            PeerError: there is none.
        """
        plan = self._table.get(plan_id)
        if plan is None:
            raise PeerError(f"plan {plan_id} does not exist or was freed")
        return plan

    def begin_batch(self) -> None:
        """A batch may stand for so much."""
        self._expanded_nbytes = 0

    def replay(
        self, run: RunPlan, execute: Callable[[Record], Iterator[Answers | None]]
    ) -> Iterator[Answers | None]:
        """Execute the records that a run stands for.

        Yields:
            What ``execute`` does.

        Raises:
            PeerError: it stands for none, or for too much.
        """
        expansion = self.plan(run.plan).expand(run)
        self._expanded_nbytes += len(expansion.records)
        check_expanded(self._expanded_nbytes)
        reader = Reader(bytes(expansion.records))
        for index in range(run.count):
            record = read_planned(reader, run.plan)
            if isinstance(record, Read) and self._is_answered(run, index, record):
                self._failures.operation += 1
            else:
                yield from execute(record)
            request = expansion.requests.get(index)
            if request is not None and (
                answers := self._answer_early(expansion.reads[index])
            ):
                self._note_answered(run, index, request)
                yield answers
        if not reader.is_exhausted:
            raise other_count(run.plan)

    def _answer_early(self, read: bytes) -> Answers:
        """A read's answer before its turn, if that holds nothing up."""
        try:
            record = read_record(Reader(read))
        except PeerError:
            return NOTHING
        assert isinstance(record, Read)
        is_small = 0 < record.nbytes <= limits.CHUNK_NBYTES
        is_there = self._storages.is_live(record.storage)
        # A GPU would have to come to rest first.
        if not is_small or not is_there or self._backend.kind != "cpu":
            return NOTHING
        try:
            return [self._reply(record)]
        except (PoolError, Poisoned):
            return NOTHING  # it fails at its own place

    def _note_answered(self, run: RunPlan, index: int, request: int) -> None:
        for early in self.plan(run.plan).early:
            if early.after == run.first + index:
                self._answered[run.plan, early.read] = request

    def _is_answered(self, run: RunPlan, index: int, record: Read) -> bool:
        place = (run.plan, run.first + index)
        if self._answered.get(place) != record.request:
            return False
        del self._answered[place]
        return True


def read_planned(reader: Reader, plan_id: int) -> Record:
    """Take a record that a plan's run has made.

    Raises:
        PeerError: it is none, or may not stand in a plan.
    """
    if reader.is_exhausted:
        raise other_count(plan_id)
    kind = reader.peek()
    if kind not in ALLOWED:
        raise PeerError(f"record kind {kind} may not stand in a plan")
    return read_record(reader)


def other_count(plan_id: int) -> PeerError:
    """A run whose records are not as many as it says."""
    return PeerError(f"a run of plan {plan_id} makes another number of records")


def check_expanded(nbytes: int) -> None:
    """Bound what the runs of plans in one batch stand for.

    Raises:
        PeerError: it is too much.
    """
    if nbytes > limits.MAX_EXPANDED_NBYTES:
        raise PeerError(
            f"the plans of one batch stand for more than {limits.MAX_EXPANDED_NBYTES}"
            " bytes of records"
        )
