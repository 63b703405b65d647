"""Jobs of ``tests/e2e/programs/slices.py`` in a pool, watched from outside."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
from support.pool import END_S, Member, Pool
from support.waiting import eventually
from xpool_protocol.control import registry_pb2 as pb

PROGRAM = Path(__file__).parents[1] / "e2e" / "programs" / "slices.py"


class Job:
    """A program under ``xpool run``, for as long as the block lasts."""

    count = 0

    def __init__(self, pool: Pool, what: str, *options: str) -> None:
        Job.count += 1
        self.pool = pool
        self.member: Member = pool.start(
            f"job-{Job.count}",
            [
                *(sys.executable, "-m", "xpool", "run", "--registry", pool.registry),
                *(*options, str(PROGRAM), what),
            ],
        )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.member.process.terminate()
        self.member.process.wait(END_S)
        eventually(lambda: not self.infos(), "the lease to end", 20)

    def infos(self) -> list[pb.LeaseInfo]:
        name = f"pid {self.program.pid} " if self.member.process.poll() is None else "?"
        with self.pool.client() as client:
            return [one for one in client.list_leases() if name in one.client]

    @property
    def info(self) -> pb.LeaseInfo:
        (found,) = self.infos()
        return found

    @property
    def program(self) -> psutil.Process:
        (child,) = psutil.Process(self.member.pid).children()
        return child

    def lines(self) -> list[str]:
        return self.member.said().splitlines()

    def await_line(self, start: str, after: int = 0) -> str:
        def found() -> bool:
            assert self.member.process.poll() is None or self.last(start, after), (
                self.member.logged()
            )
            return self.last(start, after) is not None

        eventually(found, f"{start!r} of a job", 90)
        line = self.last(start, after)
        assert line is not None
        return line

    def last(self, start: str, after: int) -> str | None:
        lines = [one for one in self.lines()[after:] if one.startswith(start)]
        return lines[-1] if lines else None


def used_ns(pool: Pool, *shares: int) -> list[int]:
    """Device time of the jobs with these shares, as the registry heard it of all at
    once; 0 of one that is not there."""
    with pool.client() as client:
        used = {
            one.lease.share_percent: one.session.device_ns
            for one in client.list_leases()
        }
    return [used.get(share, 0) for share in shares]
