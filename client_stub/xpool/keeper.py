"""Holds a lease for another process: acquires, renews, releases.

``xpool run`` keeps its child's lease with ``LeaseKeeper``; a notebook has no such
parent, so ``start_keeper`` starts ``python -m xpool.keeper`` beside it, which lives
until the notebook's end of the pipe is closed, by whatever way.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec
from xpool_protocol.errors import (
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    PoolError,
)

from xpool.config import JobSettings
from xpool.lease_pipe import (
    MAX_LINE_NBYTES,
    Ending,
    KeeperLine,
    Lease,
    LeasePipe,
    Renewed,
    child_line,
    line_from,
)
from xpool.waiting_turn import leases_when_granted, request_from

if TYPE_CHECKING:
    from xpool_protocol.control import registry_pb2 as pb
    from xpool_protocol.control.rpc import RegistryClient

ACQUIRE_TIMEOUT_S: Final = 5.0
RELEASE_TIMEOUT_S: Final = 2.0
"""A registry that is away gets the slice back when the lease runs out."""

MAX_CLIENT_CHARS: Final = 256
"""What the registry takes (its settings.py)."""

OVER: Final = (LeaseExpired, LeaseUnknown, EpochStale)
"""Answers to a renewal after which there is nothing left to renew."""


def renewal_delay_s(ttl_ms: int, failure_count: int) -> float:
    """Seconds until the next renewal.

    A third of the TTL, so that one lost renewal costs nothing; after a failure a
    tenth, but not below 0.1 s and not above 2 s, for as long as it takes.

    >>> renewal_delay_s(15_000, 0), renewal_delay_s(15_000, 1)
    (5.0, 1.5)
    """
    ttl_s = ttl_ms / 1000
    return ttl_s / 3 if failure_count == 0 else min(max(ttl_s / 10, 0.1), 2.0)


class LeaseKeeper:
    """A job's leases, from ``acquire`` to ``release``; tells the child of them."""

    def __init__(
        self, settings: JobSettings, channel: socket.socket, *, wants_statistics: bool
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._wants_statistics = wants_statistics
        self._unsent = b""
        self._unread = b""
        self._leases: list[pb.Lease] = []
        self._noticed: set[str] = set()
        self._stopping = threading.Event()
        self._renewing: RegistryClient | None = None
        self._thread: threading.Thread | None = None

    def acquire(
        self, client_text: str, is_wanted: Callable[[], bool] = lambda: True
    ) -> list[Lease]:
        """Get the leases, one for each device; waits for them if that is wanted.

        Args:
            client_text: who asks, for people.
            is_wanted: false once nobody wants them any more.

        Raises:
            ClosedError: nobody wants them any more.
            PoolError: why there are none.
        """
        request = request_from(self._settings, secrets.token_hex(16), client_text)
        with self._client(ACQUIRE_TIMEOUT_S) as client:
            if self._settings.near or self._settings.max_rtt_us:
                from xpool_protocol.control.distance import distances_to

                request.distances.extend(distances_to(client.list_nodes()))
            self._leases = leases_when_granted(client, request, is_wanted=is_wanted)
        return [lease_from_wire(lease) for lease in self._leases]

    def keep(self) -> None:
        """Hand the leases to the child, and renew them from a thread of its own."""
        assert self._leases
        for lease in self._leases:
            self._tell(
                KeeperLine(
                    lease=lease_from_wire(lease),
                    lease_count=len(self._leases),
                    wants_statistics=self._wants_statistics,
                )
            )
        ttl_ms = min(lease.ttl_ms for lease in self._leases)
        self._renewing = self._client(min(ACQUIRE_TIMEOUT_S, ttl_ms / 3000))
        self._thread = threading.Thread(
            target=self._renew_until_over,
            args=(self._renewing, list(self._leases), ttl_ms),
            name="lease-renewal",
            daemon=True,
        )
        self._thread.start()

    def release(self) -> None:
        """Give the leases back, if there are any.

        Raises:
            PoolError: the registry did not take them; they end after their TTL.
        """
        self._stop_renewing()
        leases, self._leases = self._leases, []
        if not leases:
            return
        with self._client(RELEASE_TIMEOUT_S) as client:
            for lease in leases:
                with contextlib.suppress(LeaseUnknown, EpochStale):  # no longer ours
                    client.release(lease.lease_id, lease.epoch)

    def statistics(self) -> dict[str, dict[str, int]]:
        """The counters that the child has sent by now, by lease id."""
        found: dict[str, dict[str, int]] = {}
        with contextlib.suppress(OSError):  # nothing more is there
            while data := self._channel.recv(MAX_LINE_NBYTES, socket.MSG_DONTWAIT):
                self._unread += data
        for data in self._unread.split(b"\n")[:-1]:
            with contextlib.suppress(msgspec.MsgspecError):
                line = child_line(data)
                if line.statistics is not None:
                    found[line.lease_id] = line.statistics
        return found

    def wait_for_hangup(self) -> None:
        """Block until the child's end of the pipe is closed."""
        with contextlib.suppress(ConnectionResetError):
            while self._channel.recv(MAX_LINE_NBYTES):
                pass

    def is_listened_to(self) -> bool:
        """Whether the child's end of the pipe is still open."""
        with contextlib.suppress(BlockingIOError):
            peeked = self._channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            return bool(peeked)
        return True

    def refuse(self, error: PoolError) -> None:
        """Tell the child that there is no lease."""
        self._tell(KeeperLine(refused=Ending.from_error(error)))

    def _client(self, timeout_s: float) -> RegistryClient:
        # Imported late: the child starts first, and imports its framework meanwhile.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from xpool_protocol.control.rpc import RegistryClient

        return RegistryClient(self._settings.registry, timeout_s)

    def _stop_renewing(self) -> None:
        """No thread may be within gRPC when the interpreter ends: that can crash."""
        self._stopping.set()
        if self._thread is not None and self._renewing is not None:
            self._renewing.close()  # a call under way ends
            self._thread.join(RELEASE_TIMEOUT_S)

    def _renew_until_over(
        self, client: RegistryClient, leases: list[pb.Lease], ttl_ms: int
    ) -> None:
        is_single = len(leases) == 1
        failure_count = 0
        delay_s = renewal_delay_s(ttl_ms, failure_count)
        while leases and not self._stopping.wait(delay_s):
            ttls_ms = []
            try:
                for lease in list(leases):
                    name = "" if is_single else lease.lease_id
                    lasts_ms = self._renew(client, lease, name)
                    if lasts_ms is None:
                        leases.remove(lease)
                    else:
                        ttls_ms.append(lasts_ms)
            except PoolError:
                failure_count += 1  # running jobs outlive a registry's absence
            else:
                failure_count = 0
                ttl_ms = min(ttls_ms, default=ttl_ms)
            delay_s = renewal_delay_s(ttl_ms, failure_count)

    def _renew(self, client: RegistryClient, lease: pb.Lease, name: str) -> int | None:
        """Renew one lease and tell the child; its TTL now, or None if it is over.

        Raises:
            PoolError: nobody answers.
        """
        try:
            renewed = client.renew(lease.lease_id, lease.epoch)
        except OVER as error:
            self._tell(KeeperLine(ended=Ending.from_error(error, name)))
            return None
        self._tell(KeeperLine(renewed=Renewed(renewed.token, name)))
        self._pass_on_notice(renewed)
        return renewed.ttl_ms or lease.ttl_ms

    def _pass_on_notice(self, lease: pb.Lease) -> None:
        """Say once that a lease is asked back, and once if it may stay after all."""
        was_noticed = lease.lease_id in self._noticed
        if lease.notice and not was_noticed:
            self._noticed.add(lease.lease_id)
            seconds = f"{lease.leaves_in_ms / 1000:.0f} s"
            say(
                f"lease {lease.lease_id} is asked back and ends in {seconds}"
                f" ({lease.notice}): save what matters"
            )
        elif was_noticed and not lease.notice:
            self._noticed.discard(lease.lease_id)
            say(f"lease {lease.lease_id} may stay after all")

    def _tell(self, line: KeeperLine) -> None:
        """Send a line; a fresh token is left out while the child does not read."""
        if not self._flush() and line.renewed is not None:
            return
        self._unsent += line_from(line)
        self._flush()

    def _flush(self) -> bool:
        """Send what is left over; whether nothing is left any more."""
        while self._unsent:
            try:
                count = self._channel.send(self._unsent, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:  # the child is gone; its end is noticed elsewhere
                self._unsent = b""
                return True
            self._unsent = self._unsent[count:]
        return True


def say(text: str) -> None:
    """A line for the user."""
    print(f"xpool: {text}", file=sys.stderr, flush=True)  # noqa: T201


def lease_from_wire(lease: pb.Lease) -> Lease:
    """The lease as the child sees it."""
    return Lease(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        token=lease.token,
        address=lease.address,
        node_name=lease.node_name,
        device_kind=lease.device_kind,
        device_name=lease.device_name,
        device_index=lease.device_index,
        share_percent=lease.share_percent,
        memory_nbytes=lease.memory_nbytes,
    )


def client_text(pid: int, program: str) -> str:
    """Who holds a lease, for people: host, process, program."""
    text = f"{platform.node()} pid {pid} {program}"
    line = "".join(c if c.isprintable() else "?" for c in text)
    return line[:MAX_CLIENT_CHARS]


def start_keeper(settings: JobSettings, program: str = "") -> LeasePipe:
    """Start a keeper process for this one, which has no ``xpool run`` above it.

    It releases the lease when the pipe is closed, and so when this process ends.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [
                *(sys.executable, "-m", "xpool.keeper", str(theirs.fileno())),
                *("--settings", msgspec.json.encode(settings).decode()),
                *("--client", client_text(os.getpid(), program or sys.argv[0])),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            # A Ctrl-C in the notebook is not for the keeper.
            start_new_session=True,
        )
    return LeasePipe(ours)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m xpool.keeper``, for ``start_keeper`` alone."""
    parser = argparse.ArgumentParser(prog="xpool.keeper", description=__doc__)
    parser.add_argument("fd", type=int)
    parser.add_argument("--settings", required=True)
    parser.add_argument("--client", required=True)
    args = parser.parse_args(argv)
    settings = msgspec.json.decode(args.settings, type=JobSettings)
    signal.signal(signal.SIGTERM, _leave)
    with socket.socket(fileno=args.fd) as channel:
        return _keep(
            LeaseKeeper(settings, channel, wants_statistics=False), args.client
        )


def _keep(keeper: LeaseKeeper, client: str) -> int:
    try:
        keeper.acquire(client, keeper.is_listened_to)
        keeper.keep()
        keeper.wait_for_hangup()
    except PoolError as error:
        keeper.refuse(error)
        return 1
    finally:
        # The process that could be told of a failure is gone; the TTL does the rest.
        with contextlib.suppress(PoolError):
            keeper.release()
    return 0


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """Signal handler: unwind, so that the lease is released."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
