"""Waiting for room in a quota: for frees, a collection or a resize, with a bound."""

from __future__ import annotations

import threading
import weakref

import pytest
from xpool.room import DEFAULT_WAIT_S, Room, wait_from_text
from xpool_protocol.errors import UsageError


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_bound_nothing_waits() -> None:
    assert not Room(0).wait(0)


def test_it_waits_for_as_long_as_it_may_and_no_longer() -> None:
    clock = Clock()
    room = Room(5.0, clock)
    assert room.wait(0)
    for attempt in range(1, 5):
        clock.now_s += 1.2
        assert room.wait(attempt)
    clock.now_s += 0.2
    assert not room.wait(5)
    assert room.wait(0), "the next allocation begins anew"


def test_what_only_a_collection_finds_is_freed_first() -> None:
    class Held:
        def __init__(self) -> None:
            self.me = self

    held = weakref.ref(Held())
    assert held() is not None
    assert Room(5.0).wait(0)
    assert held() is None


def test_threads_wait_each_for_its_own_time() -> None:
    clock = Clock()
    room = Room(5.0, clock)
    answers: list[bool] = []
    assert room.wait(0)
    clock.now_s += 4

    def other() -> None:
        room.wait(0)
        clock.now_s += 2
        answers.append(room.wait(1))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert answers == [True]
    assert not room.wait(1)


def test_a_resize_wakes_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpool.room.LOOK_S", 60.0)
    room = Room(120.0)
    answers: list[bool] = []

    def wait() -> None:
        room.wait(0)
        answers.append(room.wait(1))

    thread = threading.Thread(target=wait)
    thread.start()
    while thread.is_alive():
        room.changed()
        thread.join(0.01)
    assert answers == [True]


@pytest.mark.parametrize(
    "text",
    ["", "waits", "fail:3", "wait:", "wait:x", "wait:-1", "wait:nan", "wait:1e9"],
)
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="write fail, wait, or wait:SECONDS"):
        wait_from_text(text)


def test_what_does() -> None:
    assert wait_from_text(" wait ") == DEFAULT_WAIT_S
    assert wait_from_text("wait:0") == 0
