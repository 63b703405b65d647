"""A real worker behind a front door, and client processes that hold its lease.

A process can host a device only once, so every program runs in one of its own; many
cases share one, because importing torch costs more than most of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
from support.worker_client import WorkerProcess, lease
from xpool.lease_pipe import Lease
from xpool_protocol import transport
from xpool_protocol.codec import decode, encode
from xpool_protocol.messages import Hello, Redirect
from xpool_server import control

RUN_S = 240

Ended = subprocess.CompletedProcess[str]


@contextlib.contextmanager
def front_door(worker_address: str, session_key: str) -> Iterator[str]:
    """An address that sends every Hello to one worker, as a node does."""
    with transport.listen("tcp://127.0.0.1:0") as listener:
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                received = listener.receive(None)
                if received is None:
                    continue
                peer, frames = received
                if isinstance(decode(frames), Hello):
                    redirect = Redirect(worker_address, session_key)
                    listener.send(peer, encode(redirect))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.uri
        finally:
            is_over.set()
            listener.wake()
            thread.join()


@contextlib.contextmanager
def open_worker(
    memory_nbytes: int = 1 << 29, python: str = sys.executable
) -> Iterator[Lease]:
    """A worker process, run by that interpreter, and a lease on it."""
    process = WorkerProcess(python=python)
    try:
        ready = process.hear()
        assert isinstance(ready, control.WorkerReady), "the worker did not start"
        opened = lease(memory_nbytes)
        process.tell(opened)
        with front_door(ready.address, opened.session_key) as address:
            yield Lease(
                lease_id=opened.lease_id,
                epoch=opened.epoch,
                token="token",
                address=address,
                node_name=opened.server,
                device_kind="cpu",
                device_name="cpu",
                device_index=0,
                share_percent=opened.share_percent,
                memory_nbytes=memory_nbytes,
            )
    finally:
        process.close()


def run_leased(
    script: Path,
    *arguments: str,
    memory_nbytes: int = 1 << 29,
    env: dict[str, str] | None = None,
    python: str = sys.executable,
    server_python: str = sys.executable,
    timeout_s: float = RUN_S,
) -> Ended:
    """Runs a script as the holder of a lease (``$LEASE``) on a new worker."""
    with open_worker(memory_nbytes, server_python) as lease:
        text = msgspec.json.encode(lease).decode()
        env = {**(env or {}), "LEASE": text}
        return run_script(
            script, *arguments, env=env, python=python, timeout_s=timeout_s
        )


def run_script(
    script: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    python: str = sys.executable,
    timeout_s: float = RUN_S,
) -> Ended:
    """Runs a script; with as many threads as the worker has."""
    return subprocess.run(
        [python, str(script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
