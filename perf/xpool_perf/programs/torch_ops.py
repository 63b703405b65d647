"""What one small operation costs.

    xpool run torch_ops.py DEVICE PAIRS THREADS POOL LOCAL

DEVICE is ours: cuda, or xpool without a compiler. POOL is the process that has started
the pool: the worker is found among its children, so that its processor time can be
read. LOCAL is the device to compare with: cpu or cuda.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
import xpool
import zmq

from xpool_perf.programs.alternating import (
    alternate,
    alternate_sides,
    per,
    samples_of,
)
from xpool_perf.programs.local_side import (
    Work,
    is_local_side,
    local_side,
    remote_side,
    serve,
)

SIDE = 8
OPS = 10_000
ISSUED = 2_000
"""Operations that are issued on the clock: less than the client may queue."""

READS = 200
WORKER_MODULE = "xpool_server.worker"
ECHO = Path(__file__).with_name("zmq_echo.py")


def chain(x: torch.Tensor, y: torch.Tensor, count: int) -> torch.Tensor:
    """So many additions, each of the result before."""
    for _ in range(count):
        x = x + y
    return x


def read_chain(x: torch.Tensor, y: torch.Tensor) -> None:
    """A chain, and a number of its end on the host."""
    chain(x, y, OPS)[0, 0].item()


def issue_us_per_op(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Until the calls have returned; sending goes on meanwhile, as always.

    Returns:
        Wall time, and processor time of this thread alone.
    """
    began, cpu_began_ns = time.perf_counter(), time.thread_time_ns()
    last = chain(x, y, ISSUED)
    cpu_ns = time.thread_time_ns() - cpu_began_ns
    seconds = time.perf_counter() - began
    last[0, 0].item()
    return seconds * 1e6 / ISSUED, cpu_ns / 1e3 / ISSUED


def worker_of(pool: int) -> Path:
    """The folder in /proc of the one worker's threads.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = [
        one.pid
        for one in psutil.Process(pool).children(recursive=True)
        if WORKER_MODULE in one.cmdline()
    ]
    if len(found) != 1:
        raise ValueError(f"the pool has {len(found)} workers, not one")
    return Path(f"/proc/{found[0]}/task")


def cpu_ns(tasks: Path) -> int:
    """Processor time of all threads of a process so far."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()
    )


def server_us_per_op(x: torch.Tensor, y: torch.Tensor, tasks: Path) -> float:
    """Processor time of the worker, all threads, until a chain's end is read."""
    before = cpu_ns(tasks)
    read_chain(x, y)
    return (cpu_ns(tasks) - before) / 1e3 / OPS


def read_nbytes(x: torch.Tensor) -> tuple[int, int]:
    """Bytes of messages to and from the server for one read."""
    remote = xpool.current_remote()
    before = remote.statistics()
    for _ in range(READS):
        x.item()
    after = remote.statistics()
    sent, received = (
        (after[name] - before[name]) // READS
        for name in ("received_nbytes", "sent_nbytes")
    )
    return sent, received


@contextmanager
def echo(sent: int, received: int) -> Iterator[tuple[zmq.Socket[bytes], bytes]]:
    """A socket to an echo in another process, and what to say to it."""
    child = subprocess.Popen(
        [sys.executable, str(ECHO), str(received)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(f"tcp://127.0.0.1:{int(child.stdout.readline())}")
        yield socket, bytes(sent)
        socket.send(b"")
        socket.recv()


def reads(x: torch.Tensor, pairs: int) -> dict[str, list[float]]:
    """Seconds of a read of one number, and of the echo of as many bytes."""
    with echo(*read_nbytes(x)) as (socket, message):

        def remote() -> None:
            for _ in range(READS):
                x.item()

        def raw() -> None:
            for _ in range(READS):
                socket.send(message)
                socket.recv()

        read, echoed = alternate(remote, raw, pairs)
    return {"read_s": per(READS, read), "echo_s": per(READS, echoed)}


def ones_on(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices."""
    x, y = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)
    return x.to(device), y.to(device)


def blocks_on(device: str) -> dict[str, Work]:
    """What is done locally, too."""
    return {"chain": partial(read_chain, *ones_on(device))}


def compared(
    there: tuple[torch.Tensor, torch.Tensor], pairs: int, pool: int, device: str
) -> dict[str, list[float]]:
    """Chains on both sides: seconds, and processor time."""
    tasks = worker_of(pool)
    with local_side(device, partial(blocks_on, device)) as local:
        here = local.side("chain")
        remote = remote_side(partial(read_chain, *there), device)
        taken = alternate_sides(remote, here, pairs)
        over = [
            (server_us_per_op(*there, tasks), here().cpu_seconds * 1e6 / OPS)
            for _ in range(pairs)
        ]
    chains = samples_of(*taken, 1)
    return {
        **{f"chain_{name}": values for name, values in chains.items()},
        "server_us": [ours for ours, _ in over],
        "local_us": [theirs for _, theirs in over],
        "server_over_local_us": [ours - theirs for ours, theirs in over],
    }


def main(device: str, pairs: int, threads: int, pool: int, local: str) -> None:
    """Measure."""
    torch.set_num_threads(threads)
    if is_local_side():
        serve(blocks_on(local), local)
        return
    there = ones_on(device)
    if chain(*there, 100)[0, 0].item() != 101:
        raise ValueError("a hundred additions of one to one are not 101")
    chain(*there, ISSUED)[0, 0].item()
    issued = [issue_us_per_op(*there) for _ in range(pairs)]
    figures = {
        "client_us": [wall for wall, _ in issued],
        "client_cpu_us": [cpu for _, cpu in issued],
    }
    if device == "cuda":
        figures |= compared(there, pairs, pool, local)
        figures |= reads(there[0][0, 0], pairs)
    print(json.dumps(figures))


if __name__ == "__main__":
    one, two, three = map(int, sys.argv[2:5])
    main(sys.argv[1], one, two, three, sys.argv[5])
