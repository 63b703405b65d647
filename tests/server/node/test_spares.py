"""Worker processes as the node sees them: real processes, some of them mad."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Sequence

import pytest
from support.waiting import eventually
from xpool_server.control import EndSession, WorkerReady
from xpool_server.node_facts import (
    WorkerExited,
    WorkerHungUp,
    WorkerId,
    WorkerSaid,
)
from xpool_server.spares import WorkerProcesses

ONE = WorkerId(1)
READY = WorkerReady("tcp://w:1", 5, "none")
Fact = WorkerSaid | WorkerHungUp | WorkerExited

SOCKET = "import socket, sys, os\ns = socket.socket(fileno=int(sys.argv[1]))\n"
SAY_READY = 's.sendall(b\'{"type":"ready","address":"tcp://w:1","pid":5,"framework":"none"}\\n\')\n'


class Fleet:
    """One worker that runs a piece of code, and what the node hears of it."""

    def __init__(self, code: str) -> None:
        self.heard: list[Fact] = []
        self.workers = WorkerProcesses(self._command)
        self._code = code
        self.workers.start(ONE, 0)

    def _command(self, control_fd: int, _device: int) -> Sequence[str]:
        return [sys.executable, "-c", SOCKET + self._code, str(control_fd)]

    def hear(self, kind: type[Fact]) -> Fact:
        def look() -> Fact | None:
            select.select([self.workers], [], [], 0.1)
            self.heard += self.workers.poll()
            return next((one for one in self.heard if isinstance(one, kind)), None)

        return eventually(look, f"{kind.__name__} in {self.heard}")


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(request.param)
    yield made
    made.workers.close()


@pytest.mark.parametrize("fleet", [SAY_READY + "os._exit(7)"], indirect=True)
def test_the_last_words_come_before_the_end(fleet: Fleet) -> None:
    assert fleet.hear(WorkerExited) == WorkerExited(ONE, 7)
    said = [one for one in fleet.heard if not isinstance(one, WorkerHungUp)]
    assert said == [WorkerSaid(ONE, READY), WorkerExited(ONE, 7)]


@pytest.mark.parametrize(
    "fleet",
    [
        SAY_READY + "s.sendall(b'garbage\\n'); s.recv(1)",
        SAY_READY + "s.sendall(b'\\xff' * (1 << 20)); s.recv(1)",
        SAY_READY + 's.sendall(b\'{"type":"open"}\\n\'); s.recv(1)',
        SAY_READY + "s.close(); import time; time.sleep(60)",
    ],
    indirect=True,
    ids=["garbage", "endless", "foreign", "closed"],
)
def test_nonsense_is_a_hangup_and_the_node_goes_on(fleet: Fleet) -> None:
    fleet.hear(WorkerHungUp)
    assert not any(isinstance(one, WorkerExited) for one in fleet.heard)
    fleet.workers.kill(ONE)
    assert fleet.hear(WorkerExited) == WorkerExited(ONE, -9)


@pytest.mark.parametrize(
    "fleet", [SAY_READY + "s.recv(1 << 16); s.recv(1)"], indirect=True
)
def test_a_worker_is_told_and_killed(fleet: Fleet) -> None:
    assert fleet.hear(WorkerSaid) == WorkerSaid(ONE, READY)
    fleet.workers.tell(ONE, EndSession(400, "over"))
    fleet.workers.kill(ONE)
    assert fleet.hear(WorkerExited) == WorkerExited(ONE, -9)
    fleet.workers.tell(ONE, EndSession(400, "over"))
    fleet.workers.kill(ONE)
    assert fleet.workers.poll() == []


LOWEST = (
    "import threading\n"
    "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
    "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
)


@pytest.mark.parametrize(
    "fleet", [LOWEST + SAY_READY + "s.recv(1 << 16); s.recv(1)"], indirect=True
)
def test_a_worker_of_the_lowest_class_leaves_it_to_end(fleet: Fleet) -> None:
    """Else it ends when no neighbour is busy any more."""

    def classes() -> list[int]:
        (pid,) = [one.process.pid for one in fleet.workers._processes.values()]
        threads = map(int, os.listdir(f"/proc/{pid}/task"))
        return [os.sched_getscheduler(one) for one in threads]

    fleet.hear(WorkerSaid)
    assert classes() == [os.SCHED_IDLE] * 2
    fleet.workers.tell(ONE, EndSession(400, "over"))
    assert classes() == [os.SCHED_OTHER] * 2


@pytest.mark.parametrize(
    "fleet", [SAY_READY + "import time; time.sleep(60)"], indirect=True
)
def test_a_worker_that_does_not_listen_is_killed_and_blocks_nobody(
    fleet: Fleet,
) -> None:
    fleet.hear(WorkerSaid)
    message = EndSession(400, "x" * 60_000)
    for _ in range(100):
        fleet.workers.tell(ONE, message)
    assert fleet.hear(WorkerExited) == WorkerExited(ONE, -9)
