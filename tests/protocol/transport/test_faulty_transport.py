"""The faulty link: each fault does what its name says, and a seed decides all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.faulty_transport import Fault, FaultPlan, FaultyLink
from xpool_protocol.errors import BrokenError
from xpool_protocol.transport import connect, listen

MESSAGES = [[b"head %d" % n, bytes([n] * 20), b""] for n in range(200)]
EVERY = FaultPlan(seed=7, drop=0.2, duplicate=0.2, flip_bit=0.2, truncate=0.2)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"inproc://{tmp_path.name}"


def sent_through(plan: FaultPlan, uri: str) -> tuple[list[list[bytes]], list[Fault]]:
    """What arrives of ``MESSAGES``, and the faults."""
    with listen(uri) as listener, FaultyLink(connect(uri), plan) as link:
        for frames in MESSAGES:
            link.send(frames)
        arrived = []
        while (message := listener.receive(0)) is not None:
            arrived.append([bytes(frame) for frame in message[1]])
        return arrived, link.faults


def received_through(plan: FaultPlan, uri: str) -> list[list[bytes]]:
    with listen(uri) as listener, connect(uri) as inner:
        inner.send([b"hello"])
        link = FaultyLink(inner, plan)
        message = listener.receive(0)
        assert message is not None
        for frames in MESSAGES:
            listener.send(message[0], frames)
        arrived = []
        for _ in range(2 * len(MESSAGES)):
            frames_ = link.receive(0)
            if frames_ is not None:
                arrived.append([bytes(frame) for frame in frames_])
        return arrived


def test_the_same_seed_gives_the_same_faults(uri: str) -> None:
    first = sent_through(EVERY, uri)
    assert sent_through(EVERY, uri) == first
    other = FaultPlan(seed=8, drop=0.2, duplicate=0.2, flip_bit=0.2, truncate=0.2)
    assert sent_through(other, uri)[1] != first[1]
    kinds = Counter(fault.kind for fault in first[1])
    assert kinds.keys() == {"drop", "duplicate", "flip_bit", "truncate"}
    assert all(15 <= times <= 65 for times in kinds.values())


def test_a_plan_without_faults_changes_nothing(uri: str) -> None:
    assert sent_through(FaultPlan(seed=1), uri) == (MESSAGES, [])
    assert received_through(FaultPlan(seed=1), uri) == MESSAGES


def test_dropped_messages_are_missing(uri: str) -> None:
    arrived, faults = sent_through(FaultPlan(seed=1, drop=0.3), uri)
    gone = {fault.index for fault in faults}
    assert gone
    assert arrived == [m for n, m in enumerate(MESSAGES) if n not in gone]


def test_duplicates_come_twice(uri: str) -> None:
    arrived, faults = sent_through(FaultPlan(seed=1, duplicate=0.3), uri)
    twice = {fault.index for fault in faults}
    assert twice
    expected = [[m, m] if n in twice else [m] for n, m in enumerate(MESSAGES)]
    assert arrived == [message for messages in expected for message in messages]


def test_one_bit_flips(uri: str) -> None:
    arrived, _ = sent_through(FaultPlan(seed=1, flip_bit=1), uri)
    assert len(arrived) == len(MESSAGES)
    for frames, original in zip(arrived, MESSAGES, strict=True):
        assert [len(frame) for frame in frames] == [len(frame) for frame in original]
        ours, theirs = b"".join(frames), b"".join(original)
        changed = int.from_bytes(ours, "big") ^ int.from_bytes(theirs, "big")
        assert changed.bit_count() == 1


def test_truncated_messages_lose_their_end(uri: str) -> None:
    arrived, _ = sent_through(FaultPlan(seed=1, truncate=1), uri)
    assert len(arrived) == len(MESSAGES)
    for frames, original in zip(arrived, MESSAGES, strict=True):
        assert 1 <= len(frames) <= len(original)
        pairs = list(zip(frames, original, strict=False))
        assert all(theirs.startswith(ours) for ours, theirs in pairs)
    harmed = [n for n, frames in enumerate(arrived) if frames != MESSAGES[n]]
    assert len(harmed) > len(MESSAGES) / 2


def test_received_messages_suffer_too(uri: str) -> None:
    arrived = received_through(EVERY, uri)
    assert arrived == received_through(EVERY, uri)
    assert arrived != MESSAGES


def test_a_broken_link_stays_broken(uri: str, stack: ExitStack) -> None:
    listener = stack.enter_context(listen(uri))
    link = FaultyLink(connect(uri), FaultPlan(seed=1, break_after=3))
    for number in range(3):
        link.send([b"%d" % number])
    for _ in range(2):
        with pytest.raises(BrokenError, match="lost the connection"):
            link.receive(0)
        with pytest.raises(BrokenError, match="lost the connection"):
            link.send([b"x"])
    assert link.faults == [Fault("received", 0, "break")]
    for number in range(3):
        message = listener.receive(0)
        assert message is not None
        assert message[1] == [b"%d" % number]


def test_a_half_closed_link_still_hears(uri: str, stack: ExitStack) -> None:
    listener = stack.enter_context(listen(uri))
    plan = FaultPlan(seed=1, half_close_after=1)
    link = stack.enter_context(FaultyLink(connect(uri), plan))
    link.send([b"heard"])
    link.send([b"swallowed"])
    message = listener.receive(0)
    assert message is not None
    assert message[1] == [b"heard"]
    assert listener.receive(0) is None
    listener.send(message[0], [b"answer"])
    frames = link.receive(0)
    assert frames is not None
    assert frames == [b"answer"]


def test_a_probability_is_one() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        FaultPlan(seed=1, drop=1.5)
