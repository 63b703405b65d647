"""What array calls cost: ``xpool run array_ops.py PAIRS WHAT…``.

WHAT is any of ``small``, ``large``, ``transfer``, ``kmeans`` and ``others``. CuPy's
side is the pool's, the local one is NumPy in this very process, one after the other in
turn.
"""

from __future__ import annotations

import json
import multiprocessing
import runpy
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from xpool_perf.pool import repository
from xpool_perf.programs.alternating import alternate, per
from xpool_perf.programs.array_programs import Program, programs
from xpool_perf.programs.transfer import NBYTES, raw_blocks, serve

if __name__ != "__mp_main__":  # the bare socket's other end, which has no session
    import cupy

SMALL: Final = 100
ISSUED: Final = 1_000
"""Calls on the clock: less than the client may queue."""

LARGE: Final = 2_500_000
"""Single precision: 10 MB."""

CHAIN: Final = 20
MATRIX: Final = 1_000
PRODUCTS: Final = 4


def small_calls() -> dict[str, Callable[[], object]]:
    """One small call of each kind."""
    a = cupy.ones(SMALL, dtype=cupy.float32)
    b = cupy.ones(SMALL, dtype=cupy.float32)
    table = cupy.ones((10, 10), dtype=cupy.float32)

    def assign() -> None:
        a[2:50] = 1.0

    return {
        "add": lambda: a + b,
        "reshape": lambda: table.reshape(20, 5),
        "slice": lambda: table[2:8, 1],
        "setitem": assign,
        "sum": lambda: table.sum(axis=0),
    }


def issue_us(call: Callable[[], object]) -> float:
    """Microseconds of a call until it has returned; sending goes on meanwhile."""
    began = time.perf_counter()
    for _ in range(ISSUED):
        call()
    taken = time.perf_counter() - began
    cupy.cuda.Device().synchronize()
    return taken * 1e6 / ISSUED


def issue_rate() -> float:
    """Calls of all kinds in turn, in a second, as the client issues them."""
    calls = list(small_calls().values())
    began = time.perf_counter()
    for _ in range(ISSUED // len(calls)):
        for call in calls:
            call()
    taken = time.perf_counter() - began
    cupy.cuda.Device().synchronize()
    return ISSUED / taken


def small(pairs: int) -> dict[str, list[float]]:
    """Of each kind of call, and of all of them in turn."""
    calls = small_calls()
    for call in calls.values():
        issue_us(call)
    found = {
        f"{name}_us": [issue_us(call) for _ in range(pairs)]
        for name, call in calls.items()
    }
    issue_rate()
    return {**found, "calls_per_s": [issue_rate() for _ in range(pairs)]}


def chain(x: Any, y: Any) -> None:
    """Element by element, out of place and in place, to a number on the host."""
    z = x
    for _ in range(CHAIN // 2):
        z = z * 0.5 + y
    float(z[0])


def products(a: Any) -> None:
    """Matrix products, to a number on the host."""
    b = a
    for _ in range(PRODUCTS):
        b = a @ b
    float(b[0, 0])


def large(pairs: int) -> dict[str, list[float]]:
    """Seconds of both sides."""
    generator = np.random.default_rng(0)
    x, y = generator.random((2, LARGE), dtype=np.float32)
    a = generator.random((MATRIX, MATRIX), dtype=np.float32) / MATRIX
    remote, local = alternate(
        partial(chain, cupy.asarray(x), cupy.asarray(y)), partial(chain, x, y), pairs
    )
    there, here = alternate(
        partial(products, cupy.asarray(a)), partial(products, a), pairs
    )
    return {
        "chain_remote_s": remote,
        "chain_local_s": local,
        "matmul_remote_s": there,
        "matmul_local_s": here,
    }


def transfer(pairs: int) -> dict[str, list[float]]:
    """Seconds of 256 MiB there and back, and of a bare socket's."""
    host = np.zeros(NBYTES, dtype=np.uint8)
    there = cupy.asarray(host)

    def up() -> None:
        cupy.asarray(host)
        cupy.cuda.Device().synchronize()

    def down() -> None:
        there.get(out=host)

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    with socket.create_connection(("127.0.0.1", ours.recv()), 30) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw_up, raw_down = raw_blocks(peer)
        uploads, raw_uploads = alternate(up, raw_up, pairs)
        downloads, raw_downloads = alternate(down, raw_down, pairs)
    process.join(10)
    return {
        "upload_s": uploads,
        "raw_upload_s": raw_uploads,
        "download_s": downloads,
        "raw_download_s": raw_downloads,
    }


def kmeans(pairs: int) -> dict[str, list[float]]:
    """Seconds of an iteration of the example, on both sides."""
    fit = runpy.run_path(str(repository() / "examples" / "kmeans_cupy.py"))["fit"]
    points = np.random.default_rng(0).random((1797, 64))
    iterations = 30
    remote, local = alternate(
        lambda: fit(cupy, cupy.asarray(points), 10, iterations, 0),
        lambda: fit(np, points, 10, iterations, 0),
        pairs,
    )
    return {
        "kmeans_remote_s": per(iterations, remote),
        "kmeans_local_s": per(iterations, local),
    }


def others(pairs: int) -> dict[str, list[float]]:
    """Seconds of an iteration of other ordinary programs, on both sides."""
    found: dict[str, list[float]] = {}

    def run(program: Program, module: Any) -> None:
        program.run(module, program.data)

    for name, program in programs().items():
        remote, local = alternate(
            partial(run, program, cupy), partial(run, program, np), pairs
        )
        found[f"{name}_remote_s"] = per(program.iterations, remote)
        found[f"{name}_local_s"] = per(program.iterations, local)
    return found


PARTS: Final = {
    "small": small,
    "large": large,
    "transfer": transfer,
    "kmeans": kmeans,
    "others": others,
}


def main(pairs: int, parts: list[str]) -> None:
    """Measure."""
    figures: dict[str, list[float]] = {}
    for part in parts:
        figures |= PARTS[part](pairs)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
