"""Bytes to and from the device beside a bare socket: ``xpool run transfer.py PAIRS``.

The bare socket's other end is a process of its own on this machine that receives into
(or sends from) memory it has touched before, as a good receiver would.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import socket
import sys
import threading
import time

import torch

from xpool_perf.programs.alternating import Block, alternate

NBYTES = 256 << 20
UPLOAD_NBYTES = 1 << 30
READS = 200
PART = 4 << 20


def serve(ready: multiprocessing.connection.Connection) -> None:
    """The bare socket's other end: takes ``u`` and bytes, or sends them after ``d``."""
    buffer = bytearray(NBYTES)
    view = memoryview(buffer)
    view[:] = bytes(NBYTES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                word = peer.recv(1)
                if word == b"u":
                    receive_into(peer, view)
                    peer.sendall(b".")
                elif word == b"d":
                    peer.sendall(view)
                else:
                    return


def receive_into(peer: socket.socket, view: memoryview) -> None:
    """Fill the buffer."""
    at = 0
    while at < len(view):
        count = peer.recv_into(view[at : at + PART])
        if not count:
            raise EOFError("the bare socket was closed early")
        at += count


def raw_blocks(peer: socket.socket) -> tuple[Block, Block]:
    """Sending and receiving over the bare socket."""
    data = memoryview(bytearray(NBYTES))

    def up() -> None:
        peer.sendall(b"u")
        peer.sendall(data)
        if peer.recv(1) != b".":
            raise EOFError("the bare socket was closed early")

    def down() -> None:
        peer.sendall(b"d")
        receive_into(peer, data)

    return up, down


def device_blocks() -> tuple[Block, Block]:
    """Sending and receiving by torch."""
    host = torch.zeros(NBYTES, dtype=torch.uint8)
    there = torch.zeros(NBYTES, dtype=torch.uint8, device="cuda")

    def up() -> None:
        there.copy_(host)
        torch.cuda.synchronize()

    def down() -> None:
        host.copy_(there)

    return up, down


def read_seconds(count: int, until: threading.Event | None = None) -> list[float]:
    """Seconds of scalar reads, one after the other."""
    scalar = torch.ones(1, device="cuda")
    scalar.item()
    taken: list[float] = []
    while len(taken) < count and not (until is not None and until.is_set()):
        began = time.perf_counter()
        scalar.item()
        taken.append(time.perf_counter() - began)
    return taken


def reads_during_upload() -> list[float]:
    """The same reads while another thread uploads a gibibyte."""
    host = torch.zeros(UPLOAD_NBYTES, dtype=torch.uint8)
    is_over = threading.Event()

    def upload() -> None:
        there = host.to("cuda")
        torch.cuda.synchronize()
        del there
        is_over.set()

    thread = threading.Thread(target=upload)
    thread.start()
    taken = read_seconds(100_000, is_over)
    thread.join()
    return taken


def p99(values: list[float]) -> float:
    """The value that one in a hundred exceeds."""
    return sorted(values)[max(0, round(0.99 * len(values)) - 1)]


def main(pairs: int) -> None:
    """Measure; seconds of a transfer, milliseconds of the slowest read of a hundred."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    with socket.create_connection(("127.0.0.1", ours.recv()), 30) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        (raw_up, raw_down), (up, down) = raw_blocks(peer), device_blocks()
        h2d, raw_h2d = alternate(up, raw_up, pairs)
        d2h, raw_d2h = alternate(down, raw_down, pairs)
    process.join(10)
    idle, busy = [], []
    for _ in range(pairs):
        idle.append(1000 * p99(read_seconds(READS)))
        busy.append(1000 * p99(reads_during_upload()))
    print(
        json.dumps(
            {
                "h2d_s": h2d,
                "raw_h2d_s": raw_h2d,
                "d2h_s": d2h,
                "raw_d2h_s": raw_d2h,
                "read_idle_p99_ms": idle,
                "read_busy_p99_ms": busy,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
