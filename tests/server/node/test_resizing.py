"""A running session's slice changes: what the node checks, tells, and reports."""

from __future__ import annotations

import pytest
from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.transport.base import PeerId
from xpool_server.control import (
    ResizeSession,
    SessionOpened,
    SessionResized,
    WorkerReady,
)
from xpool_server.node_facts import (
    Instruction,
    NodeStarted,
    ReportSoon,
    SessionAsked,
    SetTerms,
    SliceChanged,
    StartWorker,
    TellWorker,
    WorkerId,
    WorkerSaid,
)
from xpool_server.node_records import Session
from xpool_server.node_state import NodeState

GIB = 1 << 30
FIRST = WorkerId(1)


def claims(lease_id: str, share: int, nbytes: int) -> LeaseClaims:
    return LeaseClaims(
        lease_id=lease_id,
        epoch=1,
        tenant="t",
        node_name="n",
        device_index=0,
        share_percent=share,
        memory_nbytes=nbytes,
        mode="elastic",
        issued_at_s=0,
        expires_at_s=1,
    )


class Book:
    """A node with a session of 30 % and 1 GiB, and one of 50 % and 2 of 4 GiB."""

    def __init__(self, *, slices_are_fixed: bool = False) -> None:
        self.state = NodeState(
            "n", {0: 4 * GIB}, 2, lambda: "key", slices_are_fixed=slices_are_fixed
        )
        for instruction in self.feed(NodeStarted()):
            assert isinstance(instruction, StartWorker)
            ready = WorkerReady("tcp://w:1", 1, "light")
            self.feed(WorkerSaid(instruction.worker, ready))
        for number, wish in enumerate(
            (claims("L", 30, GIB), claims("M", 50, 2 * GIB)), start=1
        ):
            self.feed(SessionAsked(PeerId(b"me"), wish))
            self.feed(WorkerSaid(WorkerId(number), SessionOpened(wish.lease_id)))

    def feed(self, fact: object) -> list[Instruction]:
        return self.state.handle(fact, 0)  # type: ignore[arg-type]

    def change(self, number: int, share: int, nbytes: int) -> list[Instruction]:
        return self.feed(SliceChanged("L", 1, number, share, nbytes, "capped", "high"))

    def answer(self, nbytes: int, refusal: str = "") -> list[Instruction]:
        return self.feed(WorkerSaid(FIRST, SessionResized(nbytes, refusal)))

    @property
    def session(self) -> Session:
        return next(one for worker, _, one in self.state.sessions() if worker == FIRST)

    def slice(self) -> tuple[int, int, str, str]:
        now = self.session.claims
        return now.share_percent, now.memory_nbytes, now.mode, now.priority


def test_the_share_changes_at_once_and_the_quota_when_it_is_confirmed() -> None:
    book = Book()
    told = TellWorker(FIRST, ResizeSession(40, GIB // 2))
    assert book.change(1, 40, GIB // 2) == [SetTerms(FIRST), told]
    assert book.slice() == (40, GIB, "capped", "high")
    assert book.answer(GIB // 2) == [SetTerms(FIRST), ReportSoon()]
    assert book.slice() == (40, GIB // 2, "capped", "high")
    assert (book.session.slice_number, book.session.refusal) == (1, "")


def test_more_than_is_free_waits_for_nothing_and_is_refused() -> None:
    book = Book()
    assert book.change(1, 51, GIB) == [ReportSoon()]
    assert "101%" in book.session.refusal
    assert book.change(2, 30, 2 * GIB + 1) == [ReportSoon()]
    assert "4 GiB" in book.session.refusal
    assert book.slice() == (30, GIB, "elastic", "normal")


def test_under_mps_a_slice_may_only_give_memory_back() -> None:
    book = Book(slices_are_fixed=True)
    for share, nbytes in ((31, GIB), (29, GIB), (30, GIB + 1)):
        assert book.change(share, share, nbytes) == [ReportSoon()]
        assert "MPS" in book.session.refusal
        book.session.slice_number = 0
    assert book.change(9, 30, GIB // 2)[0] == SetTerms(FIRST)


def test_what_the_worker_refuses_changes_nothing() -> None:
    book = Book()
    book.change(1, 50, 1)
    assert book.answer(GIB, "700 MiB are in use") == [SetTerms(FIRST), ReportSoon()]
    assert book.slice() == (30, GIB, "elastic", "normal")
    assert book.session.refusal == "700 MiB are in use"


def test_the_same_change_again_is_none() -> None:
    """The registry says it until it has heard that it was heard."""
    book = Book()
    book.change(1, 40, GIB)
    assert book.change(1, 40, GIB) == []
    book.answer(GIB)
    assert book.change(1, 40, GIB) == []


@pytest.mark.parametrize(("lease_id", "epoch"), [("L", 2), ("X", 1)])
def test_another_lease_is_left_alone(lease_id: str, epoch: int) -> None:
    book = Book()
    fact = SliceChanged(lease_id, epoch, 1, 90, GIB, "elastic", "normal")
    assert book.feed(fact) == []
    assert book.slice() == (30, GIB, "elastic", "normal")


@pytest.mark.parametrize("share", [0, 101, 1 << 31])
def test_a_share_that_makes_no_sense_is_refused(share: int) -> None:
    """Even if the registry erred."""
    book = Book()
    assert book.change(1, share, GIB) == [ReportSoon()]
    assert book.session.refusal


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    book = Book()
    assert book.answer(7) == []
    assert book.slice() == (30, GIB, "elastic", "normal")
