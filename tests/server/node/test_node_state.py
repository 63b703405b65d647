"""The node's decisions, fact by fact, without a process or a clock."""

from __future__ import annotations

import itertools
import random

import pytest
from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import (
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NoCapacity,
    PoolError,
    TokenInvalid,
    UsageError,
    WorkerLost,
)
from xpool_protocol.transport.base import PeerId
from xpool_server.arbiter.desk import Usage
from xpool_server.control import (
    EndSession,
    OpenSession,
    SessionClosed,
    SessionOpened,
    SessionStatistics,
    WorkerReady,
)
from xpool_server.lease_book import Recent
from xpool_server.load_report import STALLED, LoadMeter, session_report
from xpool_server.metering import Meter, Reading
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
    ShutdownAsked,
    StartWorker,
    TellWorker,
    TimePassed,
    WorkerExited,
    WorkerHungUp,
    WorkerId,
    WorkerSaid,
)
from xpool_server.node_records import SessionState, WorkerState
from xpool_server.node_state import (
    GRACE_NS,
    INQUIRY_NS,
    OPENING_NS,
    ROOM_NS,
    WISH_NS,
    WORKER_START_NS,
    NodeState,
)
from xpool_server.worker_starts import NS_PER_S

GIB = 1 << 30
ME, YOU = PeerId(b"me"), PeerId(b"you")


def claims(lease_id: str = "L", epoch: int = 1, **changes: object) -> LeaseClaims:
    fields: dict[str, object] = {
        "lease_id": lease_id,
        "epoch": epoch,
        "tenant": "t",
        "node_name": "n",
        "device_index": 0,
        "share_percent": 30,
        "memory_nbytes": GIB,
        "mode": "elastic",
        "issued_at_s": 0,
        "expires_at_s": 1,
    }
    return LeaseClaims(**{**fields, **changes})  # type: ignore[arg-type]


class Playbook:
    """A node's state with a clock that stands until it is moved."""

    def __init__(self, devices: int = 1, spares: int = 1) -> None:
        keys = (f"key-{number}" for number in itertools.count(1))
        memory = dict.fromkeys(range(devices), 4 * GIB)
        self.state = NodeState("n", memory, spares, lambda: next(keys))
        self.now_ns = 0

    def feed(self, fact: Fact) -> list[Instruction]:
        return self.state.handle(fact, self.now_ns)

    def after(self, ns: int) -> list[Instruction]:
        self.now_ns += ns
        return self.feed(TimePassed())

    def ready(self, number: int) -> list[Instruction]:
        message = WorkerReady(f"tcp://w:{number}", 1000 + number, "light")
        return self.feed(WorkerSaid(WorkerId(number), message))

    def said(self, number: int, message: object) -> list[Instruction]:
        return self.feed(WorkerSaid(WorkerId(number), message))  # type: ignore[arg-type]

    def exited(self, number: int, status: int) -> list[Instruction]:
        return self.feed(WorkerExited(WorkerId(number), status))

    def warm(self) -> None:
        for instruction in self.feed(NodeStarted()):
            assert isinstance(instruction, StartWorker)
            self.ready(instruction.worker)

    def open(self, lease_id: str = "L") -> None:
        """A session on the first worker."""
        self.warm()
        self.feed(SessionAsked(ME, claims(lease_id)))
        self.said(1, SessionOpened(lease_id))


def goodbye_in(instructions: list[Instruction]) -> PoolError:
    """The one Goodbye among them."""
    (error,) = [one.error for one in instructions if isinstance(one, SendGoodbye)]
    return error


# ---- spares ----


def test_every_device_gets_its_spares() -> None:
    book = Playbook(devices=2, spares=2)
    started = book.feed(NodeStarted())
    assert started == [StartWorker(WorkerId(i + 1), i // 2) for i in range(4)]
    assert not book.state.has_spares
    book.ready(1)
    assert not book.state.has_spares
    book.ready(3)
    assert book.state.has_spares
    assert book.after(1) == []


def test_a_spare_that_is_taken_or_dies_is_replaced() -> None:
    book = Playbook()
    book.warm()
    assert StartWorker(WorkerId(2), 0) in book.feed(SessionAsked(ME, claims()))
    book.ready(2)
    assert book.exited(2, 0) == [StartWorker(WorkerId(3), 0)]


def test_failed_starts_are_tried_again_more_and_more_slowly() -> None:
    book = Playbook()
    book.warm()
    assert book.exited(1, 0) == [StartWorker(WorkerId(2), 0)]
    for number, backoff_s in (
        (2, 1),
        (3, 2),
        (4, 4),
        (5, 8),
        (6, 16),
        (7, 30),
        (8, 30),
    ):
        assert book.exited(number, 1) == []
        assert book.state.next_deadline_ns() == book.now_ns + backoff_s * NS_PER_S
        assert book.after(backoff_s * NS_PER_S - 1) == []
        assert book.after(1) == [StartWorker(WorkerId(number + 1), 0)]
    book.ready(9)
    assert book.exited(9, -9) == [StartWorker(WorkerId(10), 0)]


def test_a_node_whose_workers_never_start_gives_up() -> None:
    book = Playbook()
    book.feed(NodeStarted())
    book.exited(1, 1)
    book.after(NS_PER_S)
    book.exited(2, 1)
    book.after(2 * NS_PER_S)
    (end,) = book.exited(3, -11)
    assert isinstance(end, GiveUp)
    assert "by signal 11 (SIGSEGV)" in end.text


def test_a_worker_that_hangs_while_starting_is_killed() -> None:
    book = Playbook()
    book.feed(NodeStarted())
    assert book.state.next_deadline_ns() == WORKER_START_NS
    (kill,) = book.after(WORKER_START_NS)
    assert kill == KillWorker(WorkerId(1), "it was starting for too long")


def test_a_worker_that_speaks_out_of_turn_is_killed() -> None:
    book = Playbook()
    book.warm()
    assert isinstance(book.said(1, SessionOpened("L"))[0], KillWorker)
    assert isinstance(book.ready(1)[0], KillWorker)
    assert book.said(99, SessionOpened("L")) == []


def test_a_spare_that_hangs_up_is_given_to_nobody() -> None:
    book = Playbook()
    book.warm()
    assert book.feed(WorkerHungUp(WorkerId(1))) == [StartWorker(WorkerId(2), 0)]
    assert book.feed(SessionAsked(ME, claims())) == []
    assert isinstance(book.after(GRACE_NS)[0], KillWorker)
    assert [type(one) for one in book.ready(2)] == [
        TellWorker,
        SendRedirect,
        StartWorker,
    ]


# ---- asking ----


def test_a_session_opens_on_a_spare() -> None:
    book = Playbook()
    book.warm()
    assert book.feed(SessionAsked(ME, claims())) == [
        TellWorker(WorkerId(1), OpenSession("L", 1, "key-1", "n", 30, GIB, tenant="t")),
        SendRedirect(ME, "tcp://w:1", "key-1"),
        StartWorker(WorkerId(2), 0),
    ]
    ((_, _, session),) = book.state.sessions()
    assert session.state is SessionState.OPENING
    assert book.said(1, SessionOpened("L")) == []
    assert session.state is SessionState.OPEN
    assert book.after(OPENING_NS) == []


def test_without_a_spare_a_client_waits_for_one() -> None:
    book = Playbook(spares=0)
    assert book.feed(NodeStarted()) == []
    assert book.state.has_spares
    assert book.feed(SessionAsked(ME, claims())) == [StartWorker(WorkerId(1), 0)]
    assert book.feed(SessionAsked(YOU, claims("M"))) == [StartWorker(WorkerId(2), 0)]
    first = book.ready(2)
    assert SendRedirect(ME, "tcp://w:2", "key-1") in first
    assert SendRedirect(YOU, "tcp://w:1", "key-2") in book.ready(1)


def test_a_client_does_not_wait_for_ever() -> None:
    book = Playbook()
    book.feed(NodeStarted())
    book.feed(SessionAsked(ME, claims()))
    assert book.state.next_deadline_ns() == WISH_NS
    error = goodbye_in(book.after(WISH_NS))
    assert isinstance(error, NoCapacity)
    assert "had no worker ready within 60 s" in str(error)


def test_a_client_that_never_comes_loses_its_session() -> None:
    book = Playbook()
    book.warm()
    book.feed(SessionAsked(ME, claims()))
    (told,) = book.after(OPENING_NS)
    assert isinstance(told, TellWorker)
    assert isinstance(told.message, EndSession)
    assert book.exited(1, 0)[0] == ReportEnded(
        "L", 1, "no client came for the session within 30 s"
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"node_name": "other"}, TokenInvalid, "is for the server 'other'"),
        ({"device_index": 7}, TokenInvalid, "is for device 7"),
        ({"share_percent": 0}, TokenInvalid, "0% and"),  # it would never wait
        ({"share_percent": 101}, TokenInvalid, "no slice of a device"),
        ({"share_percent": -1}, TokenInvalid, "no slice of a device"),
        ({"memory_nbytes": 0}, TokenInvalid, "and 0 bytes"),
        ({"epoch": 1}, UsageError, "has a session on n already"),
        ({"epoch": 0}, EpochStale, "has epoch 1 by now"),
    ],
)
def test_refusals(change: dict[str, object], error: type[PoolError], text: str) -> None:
    book = Playbook()
    book.open()
    told = goodbye_in(book.feed(SessionAsked(YOU, claims(**{"epoch": 2, **change}))))  # type: ignore[arg-type]
    assert type(told) is error
    assert text in str(told)
    assert len(list(book.state.sessions())) == 1


def test_a_newer_epoch_ends_the_older_session() -> None:
    book = Playbook()
    book.open()
    book.ready(2)
    instructions = book.feed(SessionAsked(YOU, claims(epoch=2)))
    told = instructions[0]
    assert isinstance(told, TellWorker)
    assert isinstance(told.message, EndSession)
    assert told.message.code == EpochStale.code
    assert SendRedirect(YOU, "tcp://w:2", "key-2") in instructions
    assert book.exited(1, 0)[0] == ReportEnded(
        "L", 1, "epoch 2 of lease L took its place: this holder has lost it"
    )
    stale = goodbye_in(book.feed(SessionAsked(ME, claims(epoch=1))))
    assert isinstance(stale, EpochStale)


def test_a_newer_epoch_replaces_one_that_waits() -> None:
    book = Playbook()
    book.feed(NodeStarted())
    book.feed(SessionAsked(ME, claims(epoch=1)))
    error = goodbye_in(book.feed(SessionAsked(YOU, claims(epoch=2))))
    assert isinstance(error, EpochStale)
    assert SendRedirect(YOU, "tcp://w:1", "key-1") in book.ready(1)


@pytest.mark.parametrize(
    "change", [{"share_percent": 71}, {"memory_nbytes": 3 * GIB + 1}]
)
def test_a_full_device_is_waited_for_and_then_refused(
    change: dict[str, object],
) -> None:
    book = Playbook()
    book.open()
    book.ready(2)
    asked = book.feed(SessionAsked(YOU, claims("M", 2, **change)))
    assert asked == [ReportSoon()]
    assert book.state.next_deadline_ns() == ROOM_NS
    error = goodbye_in(book.after(ROOM_NS))
    assert isinstance(error, NoCapacity)
    assert "30% and 1 GiB of 4 GiB are taken" in str(error)


def test_room_counts_only_when_the_process_is_gone() -> None:
    book = Playbook()
    book.open()
    book.ready(2)
    book.feed(SessionAsked(YOU, claims("M", 2, share_percent=100)))
    assert not any(
        isinstance(one, SendRedirect)
        for one in book.feed(LeaseRevoked("L", "released"))
    )
    assert SendRedirect(YOU, "tcp://w:2", "key-2") in book.exited(1, 0)


# ---- ending ----


def test_a_revoked_lease_ends_its_session_in_time() -> None:
    book = Playbook()
    book.open()
    (told,) = book.feed(LeaseRevoked("L", "expired"))
    text = "lease L is over (expired): start the job again"
    assert told == TellWorker(WorkerId(1), EndSession(LeaseExpired.code, text))
    assert book.feed(LeaseRevoked("L", "expired")) == []
    (kill,) = book.after(GRACE_NS)
    assert isinstance(kill, KillWorker)
    assert book.exited(1, -9) == [ReportEnded("L", 1, text)]


def test_revoking_a_lease_that_waits_refuses_it() -> None:
    book = Playbook()
    book.feed(NodeStarted())
    book.feed(SessionAsked(ME, claims()))
    error = goodbye_in(book.feed(LeaseRevoked("L", "released")))
    assert isinstance(error, LeaseExpired)
    assert not any(isinstance(one, SendRedirect) for one in book.ready(1))
    assert book.feed(LeaseRevoked("unknown", "released")) == []


def test_a_session_that_closes_is_over_when_its_process_is() -> None:
    book = Playbook()
    book.open()
    assert book.said(1, SessionClosed("the client left", {"busy_ns": 5})) == []
    text = "the session of lease L on n is over: the client left"
    assert book.exited(1, 0) == [ReportEnded("L", 1, text)]
    assert str(goodbye_in(book.feed(SessionAsked(ME, claims())))) == text


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (-9, "by signal 9 (SIGKILL)"),
        (1, "with exit status 1"),
        (-60, "by signal 60"),
    ],
)
def test_a_lost_worker_is_told_to_whoever_asks(status: int, how: str) -> None:
    book = Playbook()
    book.open()
    text = (
        f"the worker of lease L on server n ended {how}; the job's device memory is"
        " gone: start the job again"
    )
    assert book.exited(1, status)[0] == ReportEnded("L", 1, text)
    error = goodbye_in(book.feed(SessionInquired(ME, claims(), "key-1")))
    assert isinstance(error, WorkerLost)
    assert str(error) == text
    wrong = goodbye_in(book.feed(SessionInquired(YOU, claims(), "key-2")))
    assert isinstance(wrong, LeaseUnknown)


def test_an_inquiry_that_comes_before_the_exit_waits_for_it() -> None:
    book = Playbook()
    book.open()
    assert book.feed(SessionInquired(ME, claims(), "key-1")) == []
    assert isinstance(goodbye_in(book.exited(1, -11)), WorkerLost)
    assert book.after(INQUIRY_NS) == []


def test_an_inquiry_about_a_live_session_is_redirected() -> None:
    book = Playbook()
    book.open()
    book.feed(SessionInquired(ME, claims(), "key-1"))
    assert book.state.next_deadline_ns() == INQUIRY_NS
    assert book.after(INQUIRY_NS) == [SendRedirect(ME, "tcp://w:1", "key-1")]


def test_an_inquiry_about_a_session_that_ends_is_told_why() -> None:
    book = Playbook()
    book.open()
    book.feed(LeaseRevoked("L", "expired"))
    book.feed(SessionInquired(ME, claims(), "key-1"))
    assert isinstance(goodbye_in(book.after(INQUIRY_NS)), LeaseExpired)


def test_a_shutdown_ends_everything_once() -> None:
    book = Playbook(spares=2)
    book.open()
    book.feed(SessionAsked(YOU, claims("M", 2, share_percent=90)))
    instructions = book.feed(ShutdownAsked())
    assert isinstance(goodbye_in(instructions), LeaseExpired)
    killed = {one.worker for one in instructions if isinstance(one, KillWorker)}
    told = {one.worker for one in instructions if isinstance(one, TellWorker)}
    assert told == {1}
    assert killed == set(book.state.workers) - told
    assert isinstance(
        goodbye_in(book.feed(SessionAsked(ME, claims("N", 3)))), NoCapacity
    )
    assert not book.state.is_over
    for number in sorted(book.state.workers):
        book.exited(number, -9)
    assert book.state.is_over
    assert book.state.next_deadline_ns() is None


# ---- figures ----


def test_loads_are_counted_since_the_last_report() -> None:
    book = Playbook(devices=2)
    meter = LoadMeter(0)
    book.open()
    counters = {"busy_ns": 250, "allocated_nbytes": 7, "executed_ops": 3}
    book.said(1, SessionStatistics(counters))
    first, second = meter.loads(book.state, 1000)
    assert (first.busy_percent, first.used_nbytes, first.session_count) == (25, 7, 1)
    assert (second.busy_percent, second.used_nbytes, second.session_count) == (0, 0, 0)
    ((_, _, session),) = book.state.sessions()
    usage = Meter(0, 0)
    usage.read(Reading.of(Usage(5, 6), session.counters), 1000, 1)
    report = session_report(session, usage, is_stalled=False)
    assert (report.lease_id, report.state, report.executed_ops) == ("L", "open", 3)
    assert (report.device_ns, report.waiting_ns, report.share_percent) == (5, 6, 30)
    assert [second.device_ns for second in report.usage] == [5]
    assert session_report(session, usage, is_stalled=True).state == STALLED
    # The session's end loses nothing of it.
    book.said(1, SessionClosed("done", {"busy_ns": 750}))
    book.exited(1, 0)
    assert meter.loads(book.state, 2000)[0].busy_percent == 50
    assert meter.loads(book.state, 3000)[0].busy_percent == 0


def test_counters_of_a_mad_worker_stay_in_range() -> None:
    book = Playbook()
    meter = LoadMeter(0)
    book.open()
    book.said(1, SessionStatistics({"busy_ns": 1 << 80, "allocated_nbytes": -5}))
    (load,) = meter.loads(book.state, 1000)
    assert (load.busy_percent, load.used_nbytes) == (100, 0)


def test_recent_forgets_the_oldest() -> None:
    recent: Recent[str, int] = Recent(2)
    for key in ("a", "b", "a", "c"):
        recent.set(key, 1)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 1)
    assert len(recent) == 2


# ---- whatever happens ----


def check_invariants(state: NodeState) -> None:
    """What holds after every fact."""
    for index, memory_nbytes in state.memory_nbytes.items():
        held = [
            session.claims
            for _, worker, session in state.sessions()
            if worker.device_index == index
        ]
        assert sum(one.share_percent for one in held) <= 100
        assert sum(one.memory_nbytes for one in held) <= memory_nbytes
    for worker in state.workers.values():
        has_session = worker.session is not None
        if worker.state in (WorkerState.STARTING, WorkerState.SPARE):
            assert not has_session
        if worker.state is WorkerState.SERVING:
            assert has_session
    keys = [session.key for _, _, session in state.sessions()]
    assert len(set(keys)) == len(keys)


class Storm:
    """Random facts, and a note of what the node made of them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.book = Playbook(devices=2, spares=self.rng.randrange(3))
        self.started: set[int] = set()
        self.opened: set[int] = set()
        self.asked: list[PeerId] = []
        self.answered: list[PeerId] = []

    def note(self, instructions: list[Instruction]) -> None:
        for one in instructions:
            match one:
                case StartWorker(worker):
                    assert worker not in self.started
                    self.started.add(worker)
                case TellWorker(worker, OpenSession()):
                    assert worker not in self.opened
                    self.opened.add(worker)
                case SendRedirect(peer) | SendGoodbye(peer):
                    self.answered.append(peer)
                case _:
                    pass
        check_invariants(self.book.state)

    def fact(self) -> Fact:
        kind = self.rng.randrange(10)
        if kind < 3:
            return self.question()
        if kind < 8:
            return self.word_of_a_worker()
        return LeaseRevoked(f"L{self.rng.randrange(6)}", "expired")

    def question(self) -> Fact:
        rng = self.rng
        peer = PeerId(f"peer-{len(self.asked)}".encode())
        self.asked.append(peer)
        one = claims(
            f"L{rng.randrange(6)}",
            rng.randrange(1, 9),
            device_index=rng.randrange(2),
            share_percent=rng.choice([10, 40, 100]),
            memory_nbytes=rng.choice([1, GIB, 4 * GIB]),
        )
        if rng.random() < 0.3:
            return SessionInquired(peer, one, f"key-{rng.randrange(1, 9)}")
        return SessionAsked(peer, one)

    def word_of_a_worker(self) -> Fact:
        rng = self.rng
        worker = WorkerId(rng.randrange(1, len(self.started) + 2))
        if rng.random() < 0.15:
            return WorkerExited(worker, rng.choice([0, 1, -9]))
        if rng.random() < 0.1:
            return WorkerHungUp(worker)
        ready = WorkerReady("tcp://w:1", 1, "light")
        closed = SessionClosed("done", {})
        words = [ready, ready, SessionOpened("L"), SessionStatistics({}), closed]
        return WorkerSaid(worker, rng.choice(words))


@pytest.mark.parametrize("seed", range(30))
def test_no_order_of_facts_breaks_the_node(seed: int) -> None:
    """Every asker is answered once, no worker serves twice, no device is overfull."""
    storm = Storm(seed)
    book = storm.book
    storm.note(book.feed(NodeStarted()))
    for _ in range(300):
        storm.note(book.feed(storm.fact()))
        storm.note(book.after(storm.rng.choice([0, 1, NS_PER_S, ROOM_NS])))
    storm.note(book.feed(ShutdownAsked()))
    for worker in list(book.state.workers):
        storm.note(book.feed(WorkerExited(worker, 0)))
    storm.note(book.after(INQUIRY_NS))
    assert book.state.is_over
    assert storm.opened
    assert sorted(storm.answered) == sorted(storm.asked)
