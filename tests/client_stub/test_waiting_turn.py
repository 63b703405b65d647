"""Asking until there are leases: what is shown, when it gives up."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from xpool.config import JobSettings, job_settings
from xpool.waiting_turn import LINE_EVERY_S, leases_when_granted, request_from
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import ClosedError, NoCapacity, RegistryUnreachable

Step = pb.LeaseGroup | Exception
GRANTED = pb.LeaseGroup(leases=[pb.Lease(lease_id="a")])


def at(place: int, reason: str = "busy", starts_at_s: float = 0.0) -> pb.LeaseGroup:
    return pb.LeaseGroup(
        queue=pb.QueuePlace(
            request_id="r1",
            place=place,
            waiting_count=9,
            reason=reason,
            starts_at_s=starts_at_s,
            ask_again_ms=500,
        )
    )


class Registry:
    """Answers with one step after the other; its clock runs while one sleeps."""

    def __init__(self, *steps: Step) -> None:
        self.steps: Iterator[Step] = iter(steps)
        self.cancelled: list[str] = []
        self.slept: list[float] = []
        self.now_s = 100.0

    def ask(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        step = next(self.steps)
        if isinstance(step, Exception):
            raise step
        return step

    def cancel(self, ticket: str) -> bool:
        self.cancelled.append(ticket)
        return True

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def wait(
        self, out: io.StringIO, is_wanted: Callable[[], bool] = lambda: True
    ) -> list[str]:
        leases = leases_when_granted(
            self,
            request_from(JobSettings(registry="r:1"), "t" * 32, "me"),
            is_wanted=is_wanted,
            sleep=self.sleep,
            now_s=lambda: self.now_s,
            out=out,
        )
        return [lease.lease_id for lease in leases]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_grant_at_once_says_nothing() -> None:
    out = io.StringIO()
    assert Registry(GRANTED).wait(out) == ["a"]
    assert out.getvalue() == ""


def test_a_terminal_sees_one_line_that_changes() -> None:
    out = Terminal()
    registry = Registry(*[at(3)] * 4, at(1, ""), GRANTED)
    assert registry.wait(out) == ["a"]
    assert registry.slept == [0.5] * 5
    lines = out.getvalue().split("\r")
    assert lines[1].startswith("xpool: waiting, place 3 of 9: busy [request r1] (for 1")
    assert lines[-1].rstrip() == "xpool: waiting, place 1 of 9 [request r1] (for 2 s)"
    assert out.getvalue().endswith("\n")


def test_a_log_sees_few_lines_and_each_once() -> None:
    out = io.StringIO()
    per_line = round(LINE_EVERY_S / 0.5)
    steps = [at(3)] * 10 + [at(2)] * per_line + [at(1, "next", 4e9)] * per_line
    registry = Registry(*steps, GRANTED)
    registry.wait(out)
    lines = out.getvalue().splitlines()
    assert [line.split(":")[1] for line in lines] == [
        " waiting, place 3 of 9",
        " waiting, place 2 of 9",
        " waiting, place 1 of 9",
    ]
    assert "; starts in " in lines[-1]
    assert lines[-1].endswith("at the latest [request r1]")


def test_who_is_gone_leaves_the_queue() -> None:
    registry = Registry(at(1), at(1))
    with pytest.raises(ClosedError):
        registry.wait(io.StringIO(), is_wanted=lambda: False)
    assert registry.cancelled == ["t" * 32]


def test_an_absent_registry_is_told_at_once_before_it_has_the_request() -> None:
    gone = RegistryUnreachable("nobody")
    with pytest.raises(RegistryUnreachable):
        Registry(gone).wait(io.StringIO())
    # Afterwards it may restart meanwhile.
    assert Registry(at(1), gone, gone, GRANTED).wait(io.StringIO()) == ["a"]
    with pytest.raises(RegistryUnreachable):
        Registry(at(1), *[gone] * 1000).wait(io.StringIO())


def test_a_reply_without_sense_ends_it() -> None:
    with pytest.raises(NoCapacity, match="neither leases nor a place"):
        Registry(pb.LeaseGroup()).wait(io.StringIO())


def test_the_request_says_what_the_settings_say() -> None:
    flags = {
        "slice": "30%",
        "devices": "2",
        "priority": "low",
        "queue": "10m",
        "time_limit": "1h",
        "place": "pack",
        "same_server": "yes",
        "require": "kind=cuda,model=a100,arch=sm_90,memory=1GiB,server=n,label.zone=b",
    }
    settings = job_settings(flags, {"XPOOL_TENANT": "ada"})
    request = request_from(settings, "t" * 32, "me")
    assert request == pb.AcquireGroupRequest(
        slice=pb.AcquireRequest(
            tenant="ada",
            share_percent=30,
            mode="elastic",
            client="me",
            priority="low",
        ),
        device_count=2,
        ticket="t" * 32,
        wait_ms=600_000,
        limit_ms=3_600_000,
        policy="pack",
        same_node=True,
        wanted=pb.Wanted(
            kind="cuda",
            model="a100",
            architecture="sm_90",
            min_memory_nbytes=1 << 30,
            node_name="n",
            labels={"zone": "b"},
        ),
    )
