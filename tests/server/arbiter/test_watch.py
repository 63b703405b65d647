"""Who stands still and who comes to no end, told from what is seen of them."""

from __future__ import annotations

from xpool_server.arbiter.watch import OVERRUN_NS, STALL_NS, Seen, Verdict, Watch

MS = 1_000_000


def looks(*seen: Seen | None) -> list[Verdict]:
    watch = Watch()
    return [watch.look(one) for one in seen]


def test_a_holder_that_uses_nothing_stands_still() -> None:
    still = [Seen(0, 1, 7, False, at * 50 * MS) for at in range(5)]
    verdicts = looks(*still)
    assert verdicts[:3] == [Verdict.LEAVE] * 3
    assert verdicts[STALL_NS // (50 * MS)] is Verdict.STALLED


def test_one_that_the_system_does_not_let_run_does_not() -> None:
    seen = [Seen(0, 1, 7, True, at * 50 * MS) for at in range(20)]
    assert set(looks(*seen)) == {Verdict.LEAVE}


def test_another_turn_begins_anew() -> None:
    seen = [Seen(0, at, 7, False, at * 100 * MS) for at in range(20)]
    assert set(looks(*seen)) == {Verdict.LEAVE}


def test_nobody_who_waits_harms_nobody() -> None:
    seen = [None, Seen(0, 1, 7, False, 0), None, Seen(0, 1, 7, False, STALL_NS)]
    assert set(looks(*seen)) == {Verdict.LEAVE}


def test_an_operation_that_computes_on_and_on_is_an_overrun() -> None:
    step = 50 * MS
    seen = [Seen(0, 1, at * step, False, at * step) for at in range(12)]
    verdicts = looks(*seen)
    first = verdicts.index(Verdict.OVERRUN)
    assert first == OVERRUN_NS // step
    assert set(verdicts[:first]) == {Verdict.LEAVE}


def test_a_process_that_is_gone_stands_still() -> None:
    seen = [Seen(0, 1, None, False, at * STALL_NS) for at in range(2)]
    assert looks(*seen)[-1] is Verdict.STALLED
