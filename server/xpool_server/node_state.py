"""A node's sessions and workers: facts go in, instructions come out.

Rule 1: nothing here sends, starts, waits or reads a clock; ``now_ns`` is the
monotonic clock of the driver (``node.py``), session keys come from a callable.
Rule 2: a worker process serves one session in its life. A session is over when its
process is gone, and not before: until then its share and memory stay taken.
Rule 3: whoever asks gets exactly one answer, at the latest at its deadline.

A worker starts, becomes a spare, serves, ends:

    STARTING --ready--> SPARE --taken--> SERVING --closed, revoked--> ENDING
        any of them --process gone--> forgotten, replaced if a spare is missing
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec.structs import replace
from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import (
    EpochStale,
    LeaseExpired,
    NoCapacity,
    PoolError,
    TokenInvalid,
    WorkerLost,
)
from xpool_protocol.quantities import text_from_nbytes

from xpool_server.control import (
    EndSession,
    OpenSession,
    ResizeSession,
    SessionClosed,
    SessionOpened,
    SessionResized,
    SessionStatistics,
    WorkerReady,
)
from xpool_server.lease_book import LeaseBook
from xpool_server.node_facts import (
    Fact,
    GiveUp,
    Instruction,
    KillWorker,
    LeaseRevoked,
    NodeStarted,
    ReportEnded,
    ReportSoon,
    SendGoodbye,
    SendRedirect,
    SessionAsked,
    SessionInquired,
    SetTerms,
    ShutdownAsked,
    SliceChanged,
    StartWorker,
    TellWorker,
    TimePassed,
    WorkerExited,
    WorkerHungUp,
    WorkerId,
    WorkerSaid,
)
from xpool_server.node_records import (
    OpenInquiry,
    Session,
    SessionState,
    Wish,
    Worker,
    WorkerState,
)
from xpool_server.worker_starts import NS_PER_S, StartBackoff, how_it_ended

WORKER_START_NS: Final = 120 * NS_PER_S
"""Importing the framework from a cold disk takes up to a minute."""

WISH_NS: Final = 60 * NS_PER_S
"""How long a client is kept waiting for a worker."""

ROOM_NS: Final = 8 * NS_PER_S
"""How long a client waits on a full device: the registry may have given a slice
away before this node has heard that its holder is gone (a heartbeat, then the
grace below)."""

OPENING_NS: Final = 30 * NS_PER_S
"""A client that was redirected connects at once; one that does not is gone."""

GRACE_NS: Final = 2 * NS_PER_S
"""From EndSession to SIGKILL."""

INQUIRY_NS: Final = NS_PER_S // 2
"""A client may see its worker's socket close before we see the process end."""

MAX_WISHES: Final = 1024
"""Each needs a genuine token, and a device has at most 100 slices."""


class NodeState:
    """Mutated only through ``handle``."""

    def __init__(
        self,
        node_name: str,
        memory_nbytes: Mapping[int, int],
        spare_count: int,
        new_key: Callable[[], str],
        *,
        slices_are_fixed: bool = False,
    ) -> None:
        """Describe a node that has not started.

        Args:
            node_name: what the registry knows it by.
            memory_nbytes: by device index, what its slices may hold together.
            spare_count: warm workers to keep per device; 0 starts them on demand.
            new_key: makes a session key that nobody can guess.
            slices_are_fixed: a session keeps its share until it ends.
        """
        self.node_name = node_name
        self.memory_nbytes = dict(memory_nbytes)
        self.workers: dict[WorkerId, Worker] = {}
        self.is_closing = False
        #: Device index to busy_ns of sessions that are over.
        self.finished_busy_ns = dict.fromkeys(self.memory_nbytes, 0)
        self._spare_count = spare_count
        self._slices_are_fixed = slices_are_fixed
        self._new_key = new_key
        self._worker_ids = itertools.count(1)
        self._wishes: list[Wish] = []
        self._inquiries: list[OpenInquiry] = []
        self._leases = LeaseBook(node_name)
        self._starts = StartBackoff(self.memory_nbytes)

    # ---- reading ----

    @property
    def is_over(self) -> bool:
        """Nothing is left to end after a shutdown."""
        return self.is_closing and not self.workers

    @property
    def has_spares(self) -> bool:
        """Every device has a warm worker, or none is wanted."""
        warm = {
            worker.device_index
            for worker in self.workers.values()
            if worker.state is not WorkerState.STARTING
        }
        return self._spare_count == 0 or warm == self.memory_nbytes.keys()

    def sessions(self) -> Iterator[tuple[WorkerId, Worker, Session]]:
        """Every session whose process lives."""
        for worker_id, worker in self.workers.items():
            if worker.session is not None:
                yield worker_id, worker, worker.session

    def next_deadline_ns(self) -> int | None:
        """When ``TimePassed`` has something to do; None: not by itself."""
        moments = [worker.deadline_ns for worker in self.workers.values()]
        moments += [wish.deadline_ns for wish in self._wishes]
        moments += [
            wish.room_deadline_ns for wish in self._wishes if self._is_full(wish.claims)
        ]
        moments += [inquiry.deadline_ns for inquiry in self._inquiries]
        if not self.is_closing:
            moments += [
                self._starts.not_before_ns(index)
                for index in self.memory_nbytes
                if self._missing(index) > 0
            ]
        return min((moment for moment in moments if moment is not None), default=None)

    # ---- changing ----

    def handle(self, fact: Fact, now_ns: int) -> list[Instruction]:
        """Take in one fact; what the driver must now do, in order."""
        match fact:
            case NodeStarted() | TimePassed():
                instructions = self._tick(now_ns)
            case SessionAsked():
                instructions = self._ask(fact, now_ns)
            case SessionInquired():
                instructions = self._inquire(fact, now_ns)
            case WorkerSaid():
                instructions = self._hear(fact, now_ns)
            case WorkerHungUp():
                instructions = self._let_go(fact, now_ns)
            case WorkerExited():
                instructions = self._bury(fact, now_ns)
            case LeaseRevoked():
                instructions = self._revoke(fact, now_ns)
            case SliceChanged():
                instructions = self._resize(fact)
            case ShutdownAsked():
                instructions = self._close(now_ns)
        return [*instructions, *self._serve(now_ns), *self._replenish(now_ns)]

    # ---- clients ----

    def _ask(self, fact: SessionAsked, now_ns: int) -> list[Instruction]:
        claims = fact.claims
        refusal = self._refusal_of(claims)
        if refusal is not None:
            return [SendGoodbye(fact.peer, refusal)]
        self._leases.asked(claims)
        newer = EpochStale(
            f"epoch {claims.epoch} of lease {claims.lease_id} took its place: this"
            " holder has lost it"
        )
        instructions = self._end_lease(claims.lease_id, newer, now_ns)
        self._wishes.append(Wish(fact.peer, claims, now_ns + WISH_NS, now_ns + ROOM_NS))
        if self._is_full(claims):
            instructions.append(ReportSoon())
        return instructions

    def _refusal_of(self, claims: LeaseClaims) -> PoolError | None:
        """Why a genuine token gets no session, if it gets none."""
        if self.is_closing:
            return NoCapacity(f"the server {self.node_name} is shutting down")
        if claims.device_index not in self.memory_nbytes:
            return TokenInvalid(
                f"lease {claims.lease_id} is for device {claims.device_index}, which"
                f" the server {self.node_name} does not have: acquire a new lease"
            )
        if not 1 <= claims.share_percent <= 100 or claims.memory_nbytes < 1:
            return TokenInvalid(
                f"lease {claims.lease_id} is for {claims.share_percent}% and"
                f" {claims.memory_nbytes} bytes, which is no slice of a device: the"
                " registry erred; acquire a new lease"
            )
        if len(self._wishes) >= MAX_WISHES:
            return NoCapacity(f"{MAX_WISHES} clients wait at the server already")
        return self._leases.refusal_of(claims)

    def _is_full(self, claims: LeaseClaims) -> bool:
        share, nbytes = self._taken(claims.device_index)
        return (
            share + claims.share_percent > 100
            or nbytes + claims.memory_nbytes > self.memory_nbytes[claims.device_index]
        )

    def _taken(self, device_index: int) -> tuple[int, int]:
        """Share in percent and bytes that the sessions of a device hold."""
        held = [
            session.claims
            for _, worker, session in self.sessions()
            if worker.device_index == device_index
        ]
        return (
            sum(claims.share_percent for claims in held),
            sum(claims.memory_nbytes for claims in held),
        )

    def _serve(self, now_ns: int) -> list[Instruction]:
        """Give every client that waits its worker, or its refusal."""
        instructions: list[Instruction] = []
        waiting: list[Wish] = []
        for wish in self._wishes:
            spare = self._spare(wish.claims.device_index)
            if self._is_full(wish.claims):
                is_late = now_ns >= wish.room_deadline_ns
                if not is_late:
                    waiting.append(wish)
                    continue
                instructions.append(self._refuse(wish, self._no_room(wish.claims)))
            elif spare is not None:
                instructions += self._open(wish, spare, now_ns)
            elif now_ns >= wish.deadline_ns:
                instructions.append(self._refuse(wish, self._no_worker()))
            else:
                waiting.append(wish)
        self._wishes = waiting
        return instructions

    def _spare(self, device_index: int) -> WorkerId | None:
        for worker_id, worker in self.workers.items():
            is_spare = worker.state is WorkerState.SPARE
            if is_spare and worker.device_index == device_index:
                return worker_id
        return None

    def _open(
        self, wish: Wish, worker_id: WorkerId, now_ns: int
    ) -> tuple[Instruction, ...]:
        worker, claims = self.workers[worker_id], wish.claims
        session = Session(claims, self._new_key())
        worker.session = session
        worker.state = WorkerState.SERVING
        worker.deadline_ns = now_ns + OPENING_NS
        message = OpenSession(
            lease_id=claims.lease_id,
            epoch=claims.epoch,
            session_key=session.key,
            server=self.node_name,
            share_percent=claims.share_percent,
            memory_nbytes=claims.memory_nbytes,
            tenant=claims.tenant,
            mode=claims.mode,
        )
        return (
            TellWorker(worker_id, message),
            SendRedirect(wish.peer, worker.address, session.key),
        )

    def _refuse(self, wish: Wish, error: PoolError) -> SendGoodbye:
        """Refuse for good: the same token gets the same answer again."""
        claims = wish.claims
        self._leases.ended(claims, "", error)
        return SendGoodbye(wish.peer, error)

    def _no_room(self, claims: LeaseClaims) -> NoCapacity:
        index = claims.device_index
        share, nbytes = self._taken(index)
        return NoCapacity(
            f"lease {claims.lease_id} does not fit device {index} of {self.node_name}:"
            f" {share}% and {text_from_nbytes(nbytes)} of"
            f" {text_from_nbytes(self.memory_nbytes[index])} are taken; acquire a new"
            " lease"
        )

    def _no_worker(self) -> NoCapacity:
        return NoCapacity(
            f"the server {self.node_name} had no worker ready within"
            f" {WISH_NS // NS_PER_S} s: its log says why; try again later"
        )

    def _inquire(self, fact: SessionInquired, now_ns: int) -> list[Instruction]:
        claims, key = fact.claims, fact.session_key
        for worker_id, _, session in self.sessions():
            if session.claims.lease_id == claims.lease_id and session.key == key:
                self._inquiries.append(
                    OpenInquiry(fact.peer, worker_id, now_ns + INQUIRY_NS)
                )
                return []
        return [SendGoodbye(fact.peer, self._leases.fate_of(claims, key))]

    def _answer_inquiries(self, now_ns: int) -> list[Instruction]:
        """Tell those whose worker seems to live after all where it is."""
        due = [one for one in self._inquiries if now_ns >= one.deadline_ns]
        self._inquiries = [one for one in self._inquiries if one not in due]
        instructions: list[Instruction] = []
        for inquiry in due:
            worker = self.workers[inquiry.worker]
            assert worker.session is not None
            if worker.session.ended_by is not None:
                error = worker.session.ended_by
                instructions.append(SendGoodbye(inquiry.peer, error))
            else:
                instructions.append(
                    SendRedirect(inquiry.peer, worker.address, worker.session.key)
                )
        return instructions

    # ---- sessions that end ----

    def _revoke(self, fact: LeaseRevoked, now_ns: int) -> list[Instruction]:
        error = LeaseExpired(
            f"lease {fact.lease_id} is over ({fact.reason}): start the job again"
        )
        return self._end_lease(fact.lease_id, error, now_ns)

    def _end_lease(
        self, lease_id: str, error: PoolError, now_ns: int
    ) -> list[Instruction]:
        """End the session of a lease and refuse whoever waits for it."""
        instructions: list[Instruction] = []
        for wish in [one for one in self._wishes if one.claims.lease_id == lease_id]:
            self._wishes.remove(wish)
            instructions.append(self._refuse(wish, error))
        for worker_id, worker, session in self.sessions():
            if session.claims.lease_id == lease_id and session.ended_by is None:
                instructions.append(self._end(worker_id, worker, error, now_ns))
        return instructions

    def _end(
        self, worker_id: WorkerId, worker: Worker, error: PoolError, now_ns: int
    ) -> TellWorker:
        assert worker.session is not None
        self._ending(worker, error, now_ns)
        return TellWorker(worker_id, EndSession(error.code, str(error)))

    def _ending(self, worker: Worker, error: PoolError, now_ns: int) -> None:
        assert worker.session is not None
        worker.session.ended_by = error
        worker.session.state = SessionState.ENDING
        worker.state = WorkerState.ENDING
        worker.deadline_ns = now_ns + GRACE_NS

    def _close(self, now_ns: int) -> list[Instruction]:
        self.is_closing = True
        error = LeaseExpired(f"the server {self.node_name} is shutting down")
        instructions: list[Instruction] = [
            self._refuse(wish, error) for wish in self._wishes
        ]
        self._wishes = []
        for worker_id, worker in self.workers.items():
            if worker.session is None:
                instructions.append(KillWorker(worker_id, "the server shuts down"))
            elif worker.session.ended_by is None:
                instructions.append(self._end(worker_id, worker, error, now_ns))
        return instructions

    # ---- slices that change ----

    def _resize(self, fact: SliceChanged) -> list[Instruction]:
        """Change a running session's slice, or note why not."""
        for worker_id, worker, session in self.sessions():
            claims = session.claims
            if (claims.lease_id, claims.epoch) != (fact.lease_id, fact.epoch):
                continue
            if worker.state is not WorkerState.SERVING or session.wish is not None:
                return []
            if session.slice_number == fact.number:
                return []  # told again, as our answer was on its way
            session.slice_number, session.refusal = fact.number, ""
            wish = replace(
                claims,
                share_percent=fact.share_percent,
                memory_nbytes=fact.memory_nbytes,
                mode=fact.mode,
                priority=fact.priority,
            )
            session.refusal = self._refusal_of_wish(worker.device_index, claims, wish)
            if session.refusal:
                return [ReportSoon()]
            session.wish, session.before = wish, claims
            # Until the worker has confirmed, the larger of two quotas is taken.
            nbytes = max(claims.memory_nbytes, wish.memory_nbytes)
            session.claims = replace(wish, memory_nbytes=nbytes)
            order = ResizeSession(wish.share_percent, wish.memory_nbytes)
            return [SetTerms(worker_id), TellWorker(worker_id, order)]
        return []

    def _refusal_of_wish(self, index: int, now: LeaseClaims, wish: LeaseClaims) -> str:
        share, nbytes = self._taken(index)
        share += wish.share_percent - now.share_percent
        nbytes += wish.memory_nbytes - now.memory_nbytes
        if self._slices_are_fixed and (
            wish.share_percent != now.share_percent
            or wish.memory_nbytes > now.memory_nbytes
        ):
            return (
                f"on {self.node_name} MPS keeps the slices: a job keeps its share, and"
                " gets no more memory, until it ends"
            )
        if not 1 <= wish.share_percent <= 100 or share > 100:
            return (
                f"device {index} of {self.node_name} would have {share}% promised: no"
                " more than 100% can be"
            )
        if nbytes > self.memory_nbytes[index]:
            return (
                f"device {index} of {self.node_name} has"
                f" {text_from_nbytes(self.memory_nbytes[index])}: the slices would hold"
                f" {text_from_nbytes(nbytes)}"
            )
        return ""

    def _resized(
        self, worker_id: WorkerId, session: Session, answer: SessionResized
    ) -> list[Instruction]:
        wish, session.wish = session.wish, None
        if wish is None or session.before is None:
            return []
        session.refusal = answer.refusal
        session.claims = session.before if answer.refusal else wish
        return [SetTerms(worker_id), ReportSoon()]

    # ---- workers ----

    def _hear(self, fact: WorkerSaid, now_ns: int) -> list[Instruction]:
        worker = self.workers.get(fact.worker)
        if worker is None:
            return []
        session = worker.session
        match fact.message:
            case WorkerReady() if worker.state is WorkerState.STARTING:
                worker.state = WorkerState.SPARE
                worker.deadline_ns = None
                worker.address, worker.pid = fact.message.address, fact.message.pid
                self._starts.succeeded(worker.device_index)
                return []
            case SessionOpened() if session is not None:
                if session.state is SessionState.OPENING:
                    session.state = SessionState.OPEN
                    worker.deadline_ns = None
                return []
            case SessionResized() if session is not None:
                return self._resized(fact.worker, session, fact.message)
            case SessionStatistics() if session is not None:
                session.counters = fact.message.counters
                session.overhead_nbytes = fact.message.overhead_nbytes
                return []
            case SessionClosed() if session is not None:
                session.counters = fact.message.counters
                if session.ended_by is None:
                    error = LeaseExpired(
                        f"the session of lease {session.claims.lease_id} on"
                        f" {self.node_name} is over: {fact.message.reason}"
                    )
                    self._ending(worker, error, now_ns)
                return []
        name = type(fact.message).__name__
        why = f"it said {name} while {worker.state.value}"
        return [KillWorker(fact.worker, why)]

    def _let_go(self, fact: WorkerHungUp, now_ns: int) -> list[Instruction]:
        """A worker that hangs up is about to exit; its status tells more."""
        worker = self.workers.get(fact.worker)
        if worker is not None:
            worker.deadline_ns = now_ns + GRACE_NS
            if worker.state is not WorkerState.STARTING:
                worker.state = WorkerState.ENDING
        return []

    def _bury(self, fact: WorkerExited, now_ns: int) -> list[Instruction]:
        worker = self.workers.pop(fact.worker, None)
        if worker is None:
            return []
        if worker.state is WorkerState.STARTING and not self.is_closing:
            return self._start_failed(worker.device_index, fact.status, now_ns)
        session = worker.session
        if session is None:
            return []
        lease_id = session.claims.lease_id
        error = session.ended_by or WorkerLost(
            f"the worker of lease {lease_id} on server {self.node_name} ended"
            f" {how_it_ended(fact.status)}; the job's device memory is gone: start the"
            " job again"
        )
        self._leases.ended(session.claims, session.key, error)
        busy_ns = session.counters.get("busy_ns", 0)
        self.finished_busy_ns[worker.device_index] += busy_ns
        told = [one for one in self._inquiries if one.worker == fact.worker]
        self._inquiries = [one for one in self._inquiries if one not in told]
        return [
            *(SendGoodbye(inquiry.peer, error) for inquiry in told),
            ReportEnded(lease_id, session.claims.epoch, str(error)),
        ]

    def _start_failed(self, index: int, status: int, now_ns: int) -> list[Instruction]:
        if not self._starts.failed(index, now_ns):
            return []
        text = (
            f"the workers of device {index} do not start, the last one ended"
            f" {how_it_ended(status)}: what they said stands above"
        )
        return [GiveUp(text)]

    def _tick(self, now_ns: int) -> list[Instruction]:
        instructions = self._answer_inquiries(now_ns)
        for worker_id, worker in self.workers.items():
            if worker.deadline_ns is None or now_ns < worker.deadline_ns:
                continue
            worker.deadline_ns = None
            if worker.state is WorkerState.SERVING:
                error = LeaseExpired(
                    f"no client came for the session within {OPENING_NS // NS_PER_S} s"
                )
                instructions.append(self._end(worker_id, worker, error, now_ns))
            else:
                why = f"it was {worker.state.value} for too long"
                instructions.append(KillWorker(worker_id, why))
        return instructions

    def _missing(self, device_index: int) -> int:
        """Workers to start for a device, so that spares and clients have theirs."""
        wanted = sum(
            wish.claims.device_index == device_index and not self._is_full(wish.claims)
            for wish in self._wishes
        )
        ready = sum(
            worker.device_index == device_index
            and worker.state in (WorkerState.STARTING, WorkerState.SPARE)
            for worker in self.workers.values()
        )
        return max(self._spare_count, wanted) - ready

    def _replenish(self, now_ns: int) -> list[Instruction]:
        if self.is_closing:
            return []
        instructions: list[Instruction] = []
        for index in self.memory_nbytes:
            if now_ns < self._starts.not_before_ns(index):
                continue
            for _ in range(self._missing(index)):
                worker_id = WorkerId(next(self._worker_ids))
                self.workers[worker_id] = Worker(index, now_ns + WORKER_START_NS)
                instructions.append(StartWorker(worker_id, index))
        return instructions
