"""A session worker: one process, one device, one session.

``python -m xpool_server.worker --control-fd N --device cpu --listen tcp://HOST:0``
imports the framework, opens the device, binds the address, says so to its node over
the control descriptor, and waits for a lease to serve. It ends with the session, and
with the node: whoever holds a worker's memory can rely on that.

Nothing imported above imports the framework: a bad argument is reported at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from xpool_protocol import limits, transport
from xpool_protocol.errors import PoolError

from xpool_server.addresses import lane_host, listen_within, port_range
from xpool_server.host_memory import keep_memory
from xpool_server.leash import die_with_parent
from xpool_server.processors import limit_libraries, run_on

if TYPE_CHECKING:
    from xpool_server.arbiter.turn import Turn
    from xpool_server.control import OpenSession
    from xpool_server.devices.base import Backend
    from xpool_server.known_uploads import UploadFolder
    from xpool_server.peers import Peers

_EXIT_USAGE: Final = 2


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="xpool_server.worker", description="Serves one session; nodes start it."
    )
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--device", required=True, help="cpu or cuda:0")
    parser.add_argument("--listen", required=True, help="for instance tcp://0.0.0.0:0")
    parser.add_argument("--ports", help="FIRST-LAST: take one of these")
    parser.add_argument("--threads", type=int, default=0, help="of operations on a CPU")
    parser.add_argument("--visible", help="CUDA_VISIBLE_DEVICES of this process")
    parser.add_argument(
        "--accelerator-modules", help="that bring the device's kind: A,B"
    )
    parser.add_argument("--mps-pipe", type=Path, help="of the MPS control daemon")
    parser.add_argument("--cores", help="processors for operations: 2,3")
    parser.add_argument("--executor-library", type=Path, help="run records in C++")
    parser.add_argument("--arbiter-fd", type=int, help="page of the device's turns")
    parser.add_argument("--uploads", type=Path, help="folder to keep contents in")
    parser.add_argument(
        "--uploads-nbytes", type=int, default=0, help="its largest size"
    )
    return parser.parse_args(argv)


def _listener(options: argparse.Namespace) -> transport.Listener:
    def listen(uri: str) -> transport.Listener:
        return transport.listen(uri, max_message_nbytes=limits.MAX_MESSAGE_NBYTES)

    if options.ports is None:
        return listen(options.listen)
    return listen_within(port_range(options.ports), options.listen, listen)


def _door(options: argparse.Namespace, host: str, key: str) -> Peers:
    from xpool_server.addresses import peer_listener
    from xpool_server.peers import Peers
    from xpool_server.vouching import Vouching

    ports = None if options.ports is None else port_range(options.ports)
    vouching = Vouching(host, bytes.fromhex(key))
    return Peers(*peer_listener(options.listen, ports), vouching)


def _uploads(options: argparse.Namespace) -> UploadFolder | None:
    from xpool_server.known_uploads import UploadFolder, room_for_files

    if options.uploads is None:
        return None
    room_for_files()
    return UploadFolder(options.uploads, options.uploads_nbytes)


def _turn(fileno: int | None, library: Path | None, slot: int) -> Turn:
    """The turns of a session at its device, in its slot."""
    from xpool_server.arbiter.page import Page
    from xpool_server.arbiter.turn import NativeTurn, PythonTurn, Turn

    if fileno is None or slot < 0:
        return Turn()
    if library is None:
        return PythonTurn(Page(fileno), slot)
    from xpool_server.native.library import NativeLibrary

    return NativeTurn(NativeLibrary(library), fileno, slot)


def device_opener(
    name: str, mps_pipe: Path | None, modules: Sequence[str]
) -> Callable[[OpenSession], Backend]:
    """Opens the device for a session: now, or under MPS when its slice is known."""
    from xpool_server.devices import open_backend
    from xpool_server.devices.mps import worker_environment
    from xpool_server.lacking import lacking

    def open_in_slice(order: OpenSession) -> Backend:
        assert mps_pipe is not None
        index = int(name.partition(":")[2] or 0)
        slice_ = order.share_percent, order.memory_nbytes
        os.environ.update(worker_environment(mps_pipe, index, *slice_))
        return open_backend(name, modules)

    if mps_pipe is not None:
        return open_in_slice
    backend = open_backend(name, modules)
    for remark in backend.remarks:
        print(f"xpool worker: {name}: {remark}", file=sys.stderr)  # noqa: T201  as below
    lacking(backend)  # now, and not while a client waits for its Welcome
    return lambda _: backend


def _serve(options: argparse.Namespace) -> None:
    """Import the framework, open the device, and serve.

    The address comes first: if it is no good, nobody waits for the framework.
    """
    with _listener(options) as listener:
        if options.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = options.visible
        if options.device == "cpu":
            keep_memory()
        if options.threads > 0:
            limit_libraries(options.threads)
        import torch

        from xpool_server.driver import ControlPipe, Worker
        from xpool_server.lane import SocketLane
        from xpool_server.native_executor import executor_maker, keep_large_memory

        if options.cores is not None:
            # Not before: what moves bytes and what starts up does so elsewhere.
            run_on(map(int, options.cores.split(",")))
        if options.threads > 0:
            torch.set_num_threads(options.threads)
        modules = (options.accelerator_modules or "").split(",")
        open_device = device_opener(
            options.device, options.mps_pipe, [one for one in modules if one]
        )
        ports = None if options.ports is None else port_range(options.ports)
        lane = SocketLane(lane_host(listener.uri), ports)
        make_executor = executor_maker(options.executor_library)
        if options.device == "cpu":
            keep_large_memory(options.executor_library)
        pipe = ControlPipe(options.control_fd)
        open_door = partial(_door, options)
        uploads = _uploads(options)
        take_turns = partial(_turn, options.arbiter_fd, options.executor_library)
        Worker(
            *(pipe, listener, open_device, lane, make_executor, open_door, uploads),
            take_turns,
        ).run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker to its end; 0 unless it could not start or serve."""
    die_with_parent(os.getppid())
    # Ctrl-C reaches the whole process group; the node decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = _arguments(argv)
    # What torch warns of, it warns of on the client too; and a client must not be
    # able to fill the node's log. Read once, when torch is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.simplefilter("ignore")
    try:
        _serve(options)
    except (PoolError, msgspec.DecodeError) as error:
        print(f"xpool worker: {error}", file=sys.stderr)  # noqa: T201  for the node's log
        return _EXIT_USAGE
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Memory, threads and the device go with the process. Tearing down the framework
    # first takes seconds on a busy host, longer than the node waits before it kills.
    os._exit(status)
