"""The native link and the Python one show a program the same of the same server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.leased_script import run_script
from xpool.native import build

SCRIPT = Path(__file__).with_name("link_cases.py")
LINKS = ("python", "native")

pytestmark = pytest.mark.skipif(
    build.built_library() is None and build.compiler() is None,
    reason="no native code without a C++ compiler",
)

LOST = (
    "WorkerLost server one at ADDRESS has stopped answering; what the job had on the"
    " device is lost: start the job again"
)
FAULT = "fault too late [aten::add, operation 3, on server one]"
OVER = "LeaseExpired the lease is over"
CLOSED = "ClosedError the session was closed by this program"

GOING_ON: dict[str, Any] = {
    "answers_in_another_order": ["value 0302", "value 0304", "value 0306"],
    "an_answer_before_anybody_waits": ["value 00", "value 00"],
    "threads_wait_at_once": [True] * 16,
    "a_failure_is_the_answer": [FAULT, []],
    "a_failure_before_anybody_waits": FAULT,
    "a_late_failure_is_known_by_the_next_answer": "0 missed",
    "marks": ["stamped True, error None", "value 00", "stamped True, error None", [3]],
    "a_mark_for_what_has_been_answered": ["value 00", "stamped True, error None"],
    "pong_and_ack_need_nobody": "value 00",
    "a_stream_is_gathered": True,
    "what_is_awaited_does_not_wait_for_more": ["value 00"],
    "a_late_failure_is_noticed_by_itself": "all noticed",
    "threads_ask_one_after_another": ["True"] * 6,
    "marks_beside_reads": ["stamped True, error None"],
    "nothing_goes_while_held": [True, True],
    "a_signal_handler_runs_during_a_wait": [True, "value 00"],
}
"""Cases after which the session still lives, and what they show."""

ENDING: dict[str, Any] = {
    "goodbye": [OVER, OVER, OVER],
    "garbage": "PeerError a message of 7 bytes is shorter than its header",
    "a_message_of_another_direction": "PeerError Bye is not legal while open",
    "a_second_welcome": None,
    "an_ack_of_nothing_sent": "PeerError Ack of batch 9: batches up to 0 are"
    " acknowledged, up to 0 were sent",
    "an_ack_that_shrinks_the_window": "PeerError the window shrank from 67108864 to"
    " 33554432 bytes",
    "a_malformed_failure": None,
    "an_unknown_version": "PeerError message of protocol version 9; this side speaks"
    " up to 1: upgrade xpool here",
    "too_many_frames": None,
    "too_many_bytes": None,
    "the_path_breaks": [LOST, LOST],
    "what_came_before_the_break_counts": "value 00",
    "the_keeper_ends_it": [*["LeaseExpired by hand"] * 4, "Bye(reason='by hand')"],
    "leaving": [[[1]], "Bye(reason='enough')", CLOSED, CLOSED],
}
"""Cases that end the session; None where only the equality of both is asked for."""


def seen_with(link: str, cases: tuple[str, ...]) -> list[Any]:
    ended = run_script(SCRIPT, *cases, env={"XPOOL_LINK": link})
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = json.loads(ended.stdout)
    assert found["is_native"] == (link == "native"), "another link than asked for"
    seen = found["seen"]
    assert isinstance(seen, list)
    return seen


@cache
def all_seen(link: str) -> dict[str, Any]:
    """What a link shows in every case, by name."""
    runs = [tuple(GOING_ON), *((case,) for case in ENDING)]
    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(lambda cases: seen_with(link, cases), runs))
    return {
        case: one
        for cases, ones in zip(runs, seen, strict=True)
        for case, one in zip(cases, ones, strict=True)
    }


def comparable(seen: Any) -> Any:
    """Each server has an address of its own, and it stands in some texts."""
    return seen.partition("tcp://")[0] if isinstance(seen, str) else seen


@pytest.mark.parametrize("case", [*GOING_ON, *ENDING])
def test_both_links_show_the_same(case: str) -> None:
    python, native = (comparable(all_seen(link)[case]) for link in LINKS)
    assert python, "nothing was seen"
    assert native == python
    expected = {**GOING_ON, **ENDING}[case]
    if expected is not None:
        assert native == expected
