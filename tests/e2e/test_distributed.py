"""Process groups of several jobs: collectives among the servers, DDP, lost ranks."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
from support.pool import Pool
from support.waiting import eventually
from support.workers import worker_serving

PROGRAMS = Path(__file__).parent / "programs"
sys.path.insert(0, str(PROGRAMS))

RUN_S = 240
PLACES = {
    "together": {"one": "cpu:2,memory=1GiB"},
    "apart": {"one": "cpu,memory=1GiB", "two": "cpu,memory=1GiB"},
}
PARTS = [
    line[9:].split("(")[0]
    for line in (PROGRAMS / "collectives.py").read_text().splitlines()
    if line.startswith("def part_")
]

Ranks = list["Rank"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Rank:
    """``xpool run`` of one rank, its output in files."""

    def __init__(
        self, pool: Pool, rank: int, port: int, program: str, **env: str
    ) -> None:
        name = f"{program}-{rank}-{port}"
        self.member = pool.start(
            name,
            [
                *(sys.executable, "-m", "xpool", "run", "--registry", pool.registry),
                str(PROGRAMS / f"{program}.py"),
            ],
            {
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                **env,
            },
        )

    def ended(self) -> int:
        return self.member.process.wait(RUN_S)


def ranks(pool: Pool, program: str, **env: str) -> Ranks:
    port = free_port()
    return [Rank(pool, rank, port, program, **env) for rank in (0, 1)]


def start(pool: Pool, place: str) -> None:
    pool.start_registry()
    for name, devices in PLACES[place].items():
        arguments = ("--threads", "1", "--devices", devices)
        pool.start_server(name, *arguments, light=False)


@pytest.fixture(scope="module")
def passed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], list[str]]:
    """What each rank said, and how it ended; one run for each place and backend."""

    @cache
    def of(place: str, backend: str) -> list[str]:
        with Pool(tmp_path_factory.mktemp(place), ttl="5s") as pool:
            start(pool, place)
            return [
                f"status {one.ended()}\n{one.member.said()}{one.member.logged()[-999:]}"
                for one in ranks(pool, "collectives", BACKEND=backend)
            ]

    return of


@pytest.mark.parametrize("part", [*PARTS, "*"])
@pytest.mark.parametrize(
    ("place", "backend"),
    [("together", "nccl"), ("apart", "cpu:gloo,cuda:nccl")],
)
def test_part(
    place: str, backend: str, part: str, passed: Callable[[str, str], list[str]]
) -> None:
    """``*`` is the end of the two programs."""
    for said in passed(place, backend):
        if part == "*":
            assert said.startswith("status 0\n"), said
        else:
            assert f"PASSED {part}\n" in said, said


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("lost"), ttl="5s") as pool:
        start(pool, "together")
        yield pool


def torchrun(pool: Pool, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "xpool", "run", "--registry", pool.registry]
    launcher = ("torchrun", "--standalone", "--nproc-per-node", "2")
    return subprocess.run(
        [*argv, *launcher, *arguments],
        env=pool.environment({"OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def test_torchrun_gives_each_rank_a_device(pool: Pool) -> None:
    ended = torchrun(pool, str(PROGRAMS / "collectives.py"))
    assert ended.returncode == 0, ended.stderr[-3000:]
    for part in PARTS:
        assert ended.stdout.count(f"PASSED {part}\n") == 2, ended.stdout
    assert not pool.leases()


def test_torchrun_ends_as_a_rank_that_fails(pool: Pool, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import os, sys\nsys.exit(int(os.environ['RANK']) * 7)\n")
    ended = torchrun(pool, str(script))
    assert ended.returncode == 1
    assert "exitcode  : 7" in ended.stderr, ended.stderr[-3000:]
    eventually(lambda: not pool.leases(), "every lease is free again", 15)


@pytest.mark.parametrize("what", ["program", "worker"])
def test_a_lost_rank_is_an_error_at_the_others_next_line(pool: Pool, what: str) -> None:
    pair = ranks(pool, "lonely_rank")
    for one in pair:
        eventually(lambda one=one: "reducing" in one.member.said(), "a collective", 90)
    (program,) = psutil.Process(pair[1].member.pid).children()
    if what == "program":
        pool.kill(program.pid, signal.SIGKILL)
    else:
        pool.kill(worker_serving(pool, program, "one"), signal.SIGKILL)
    assert pair[0].ended() == 0, pair[0].member.logged()
    said = pair[0].member.said()
    assert "another rank has ended, failed or is too late" in said, said
    assert "KEPT [0.0, 2.0, 4.0]" in said, "nothing else is harmed"
    assert "FRESH 2.0" in said
    pair[1].ended()
    eventually(lambda: not pool.leases(), "every lease is free again", 15)
