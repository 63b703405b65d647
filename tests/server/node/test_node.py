"""The node as a process: joining, the front door, sessions and how they end."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.door import Session, ask_raw, hello, redirect, refusal
from support.pool import Pool
from support.waiting import eventually
from xpool_protocol.codec import encode
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import (
    BrokenError,
    LeaseExpired,
    LeaseUnknown,
    PeerError,
    TokenInvalid,
    UsageError,
    VersionUnsupported,
    WorkerLost,
)
from xpool_protocol.messages import Goodbye, Hello, Inquiry, Ping, Redirect
from xpool_server.front_door import LEEWAY_S


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """An empty pool; fails at its end if anything is left."""
    with Pool(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool for tests that end no process but their own session's."""
    with Pool(tmp_path_factory.mktemp("pool"), ttl="30s") as made:
        made.start_registry()
        made.start_server("one", "--spares", "2")
        yield made


def acquire(pool: Pool, share_percent: int = 10, ttl_ms: int = 0) -> pb.Lease:
    with pool.client() as client:
        return client.acquire(
            tenant="test", share_percent=share_percent, ttl_ms=ttl_ms, client="test"
        )


def release(pool: Pool, lease: pb.Lease) -> None:
    with pool.client() as client:
        client.release(lease.lease_id, lease.epoch)


def worker_pid(pool: Pool, server: str, lease: pb.Lease, address: str) -> int:
    """The worker that listens on a session's address."""
    port = int(address.rpartition(":")[2])
    for pid in pool.workers(server):
        for connection in psutil.Process(pid).net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
            ):
                return pid
    raise AssertionError(f"no worker of {server} listens on {port} for {lease}")


# ---- joining and leaving ----


def test_a_server_waits_for_its_registry(pool: Pool) -> None:
    """1 the server starts alone, 2 says that it waits, 3 the registry starts, 4 both
    are a pool."""
    pool.start_registry()
    pool.kill("registry", signal.SIGKILL)
    server = pool.start_server("early", wait=False)
    eventually(lambda: "waiting for the registry" in server.logged(), "the log line")
    assert server.process.poll() is None
    pool.start_registry()
    pool.await_server("early")
    assert re.search(
        r"^server early ready on tcp://127\.0\.0\.1:\d+: cpu \(light device, 4 GiB\),"
        rf" joined {re.escape(pool.registry)}$",
        server.said(),
        re.MULTILINE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_sessions_and_workers(pool: Pool, number: signal.Signals) -> None:
    pool.start_registry()
    server = pool.start_server("one")
    lease = acquire(pool)
    with Session(server.address, lease.token) as session:
        pool.kill("one", number)
        error = session.await_goodbye()
    assert isinstance(error, LeaseExpired)
    assert str(error) == "the server one is shutting down"
    assert server.process.wait(5) == 0
    # The node has told the registry, which did not have to wait for the TTL.
    assert not pool.leases()


def test_a_second_server_of_the_same_name_is_refused_a_place(pool: Pool) -> None:
    pool.start_registry()
    pool.start_server("twin")
    pool.members["first"] = pool.members.pop("twin")
    second = pool.start_server("twin", wait=False)
    eventually(lambda: "belongs to the server at" in second.logged(), "the log line")
    assert "ready" not in second.said()


def test_workers_that_do_not_start_end_the_server(pool: Pool) -> None:
    pool.start_registry()
    server = pool.start_server("one", "--worker-args", "--broken", wait=False)
    assert server.process.wait(20) == 1
    assert "xpool: the workers of device 0 do not start" in server.logged()
    assert "exit status 3" in server.logged()
    assert "Traceback" not in server.logged()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "tcp://0.0.0.0:0"], "pass --insecure on a network"),
        (["--listen", "tcp://nonsense"], "is not an address of the form"),
        (["--listen", "inproc://x"], "cannot be reached by clients"),
        (["--devices", "tpu"], "'tpu'"),
        (["--devices", "cpu,memory=1XB"], "1XB"),
    ],
)
def test_senseless_options_are_one_sentence(
    pool: Pool, arguments: list[str], sentence: str
) -> None:
    argv = [sys.executable, "-m", "xpool_server", *("--devices", "cpu"), *arguments]
    done = subprocess.run(
        argv, env=pool.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("xpool: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


# ---- the front door ----


def test_a_lease_becomes_a_session(shared: Pool) -> None:
    lease = acquire(shared, share_percent=30)
    with Session(lease.address, lease.token) as session:
        assert session.welcome.lease_id == lease.lease_id
        assert session.welcome.share_percent == 30
        assert session.welcome.memory_nbytes == lease.memory_nbytes

        def reported() -> pb.SessionReport | None:
            found = [one for one in shared.leases() if one.HasField("session")]
            return found[0].session if found else None

        eventually(
            lambda: (
                (report := reported()) is not None
                and report.state == "open"
                and report.executed_ops == 7
            ),
            "the registry shows the session's figures",
        )
    eventually(lambda: not shared.leases(), "the lease ends with the session")


def test_garbage_gets_a_goodbye_and_harms_nobody(shared: Pool) -> None:
    address = shared.members["one"].address
    lease = acquire(shared)
    with Session(address, lease.token) as session:
        for frames in (
            [b"garbage"],
            [b""],
            [b"XP" + b"\xff" * 14],
            [b"x" * 100, b"y" * 100],
            encode(Hello(1, 1, ""))[:1] * 3,
        ):
            answer = ask_raw(address, frames)
            assert isinstance(answer, Goodbye)
            assert answer.code == PeerError.code
        with pytest.raises(BrokenError):
            ask_raw(address, [b"x" * (1 << 20)])
        assert isinstance(refusal(address, Ping(1)), PeerError)
        still = session.inquire()
        assert isinstance(still, Redirect)
        assert still.session_key == session.key


def test_a_newer_version_is_refused_by_name(shared: Pool) -> None:
    lease = acquire(shared)
    address = shared.members["one"].address
    error = refusal(address, Hello(98, 99, lease.token))
    assert isinstance(error, VersionUnsupported)
    assert "upgrade xpool on the server" in str(error)
    release(shared, lease)


@pytest.mark.parametrize("where", [0.25, 0.9])
def test_a_forged_token_is_refused(shared: Pool, where: float) -> None:
    lease = acquire(shared)
    at = int(len(lease.token) * where)
    other = "A" if lease.token[at] != "A" else "B"
    forged = lease.token[:at] + other + lease.token[at + 1 :]
    error = refusal(lease.address, hello(forged))
    assert isinstance(error, TokenInvalid)
    assert "signature is not the registry's" in str(error)
    release(shared, lease)


def test_an_expired_token_is_refused(shared: Pool) -> None:
    lease = acquire(shared, ttl_ms=1000)
    body = lease.token.partition(".")[0]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    over_s = claims["expires_at_s"] + LEEWAY_S
    eventually(lambda: time.time_ns() / 1e9 > over_s, "the token's expiry")
    error = refusal(lease.address, hello(lease.token))
    assert isinstance(error, TokenInvalid)
    assert "expired" in str(error)
    # What became of a session may be asked for longer than that.
    unknown = refusal(lease.address, Inquiry(lease.token, "no key"))
    assert isinstance(unknown, LeaseUnknown)


def test_a_token_of_another_server_is_refused(pool: Pool) -> None:
    pool.start_registry()
    pool.start_server("one", "--memory", "1GiB")
    other = pool.start_server("other", "--memory", "8GiB")
    with pool.client() as client:
        lease = client.acquire(
            tenant="test", share_percent=10, memory_nbytes=2 << 30
        )  # fits only the other one
    assert lease.node_name == "other"
    error = refusal(pool.members["one"].address, hello(lease.token))
    assert isinstance(error, TokenInvalid)
    assert "is for the server 'other', this is one" in str(error)
    redirect(other.address, lease.token)


def test_a_token_of_another_registry_is_refused(pool: Pool, shared: Pool) -> None:
    pool.start_registry()
    pool.start_server("one")
    foreign = acquire(pool)
    error = refusal(shared.members["one"].address, hello(foreign.token))
    assert isinstance(error, TokenInvalid)
    assert "another registry gave it" in str(error)


def test_a_lease_has_one_session(shared: Pool) -> None:
    lease = acquire(shared)
    with Session(lease.address, lease.token):
        error = refusal(lease.address, hello(lease.token))
        assert isinstance(error, UsageError)
        assert "has a session on one already" in str(error)
    eventually(lambda: not shared.leases(), "the lease ends with the session")
    assert isinstance(refusal(lease.address, hello(lease.token)), LeaseExpired)


def test_clients_wait_for_workers_that_are_not_there_yet(pool: Pool) -> None:
    pool.start_registry()
    pool.start_server("one", "--spares", "0")
    leases = [acquire(pool) for _ in range(3)]
    sessions = [Session(lease.address, lease.token) for lease in leases]
    assert len({session.key for session in sessions}) == 3
    for session in sessions:
        session.__exit__()


def test_a_full_device_makes_room_for_the_next_lease(pool: Pool) -> None:
    """A slice that the registry has given away again is taken until its worker ends."""
    pool.start_registry()
    pool.start_server("one")
    first = acquire(pool, share_percent=100)
    with Session(first.address, first.token) as session:
        release(pool, first)
        second = acquire(pool, share_percent=100)
        with Session(second.address, second.token):
            error = session.await_goodbye()
            assert isinstance(error, LeaseExpired)
            assert "(released)" in str(error)


# ---- ends ----


def test_a_killed_worker_is_told_to_everybody(pool: Pool) -> None:
    """1 a session, 2 its worker is killed, 3 the client asks and is told, 4 the
    registry has the slice back, 5 a spare is there again."""
    pool.start_registry()
    server = pool.start_server("one")
    lease = acquire(pool, share_percent=100)
    with Session(server.address, lease.token) as session:
        pid = worker_pid(pool, "one", lease, session.link.uri)
        pool.kill(pid)
        told = session.inquire()
        assert isinstance(told, Goodbye)
        assert told.code == WorkerLost.code
        assert told.text == (
            f"the worker of lease {lease.lease_id} on server one ended by signal 9"
            " (SIGKILL); the job's device memory is gone: start the job again"
        )
    eventually(lambda: not pool.leases(), "the lease is over")
    again = acquire(pool, share_percent=100)
    with Session(again.address, again.token):
        pass


def test_a_worker_that_ignores_its_end_is_killed(pool: Pool) -> None:
    pool.start_registry()
    pool.start_server("one", "--worker-args", "--stubborn")
    lease = acquire(pool)
    with Session(lease.address, lease.token) as session:
        pid = worker_pid(pool, "one", lease, session.link.uri)
        release(pool, lease)
        eventually(lambda: not psutil.pid_exists(pid), "the end of the worker")
        told = session.inquire()
        assert isinstance(told, Goodbye)
        assert told.code == LeaseExpired.code


def test_a_holder_that_vanishes_loses_its_lease_and_its_worker(pool: Pool) -> None:
    """Nobody renews: the registry ends the lease, the node its session."""
    pool.start_registry()
    pool.start_server("one")
    lease = acquire(pool, ttl_ms=1000)
    with Session(lease.address, lease.token) as session:
        error = session.await_goodbye()
        assert isinstance(error, LeaseExpired)
        assert f"lease {lease.lease_id} is over (expired)" in str(error)
    assert not pool.leases()


def test_a_killed_server_takes_its_workers_along(pool: Pool) -> None:
    pool.start_registry()
    server = pool.start_server("one")
    lease = acquire(pool)
    with Session(server.address, lease.token):
        workers = pool.workers("one")
        assert len(workers) >= 1
        pool.kill("one", signal.SIGKILL)
        eventually(
            lambda: not any(psutil.pid_exists(pid) for pid in workers),
            "the end of the workers",
        )


def test_a_session_survives_the_registry(pool: Pool) -> None:
    """1 a session, 2 the registry is killed, 3 the session lives, 4 the registry is
    back with the lease, 5 the session still lives and is reported."""
    pool.start_registry()
    server = pool.start_server("one")
    lease = acquire(pool, ttl_ms=20_000)
    with Session(server.address, lease.token) as session:
        pool.kill("registry", signal.SIGKILL)
        eventually(
            lambda: "waiting for the registry" in server.logged(), "the log line"
        )
        assert isinstance(session.inquire(), Redirect)
        pool.start_registry()
        eventually(
            lambda: [one for one in pool.leases() if one.session.state == "open"],
            "the lease and its session are reported again",
        )
        assert isinstance(session.inquire(), Redirect)


def test_a_registry_that_forgot_everything_is_joined_again(pool: Pool) -> None:
    pool.start_registry()
    server = pool.start_server("one")
    pool.kill("registry", signal.SIGKILL)
    for path in pool.folder.glob("registry.db*"):
        path.unlink()
    pool.start_registry()
    eventually(lambda: "asks to join again" in server.logged(), "the second join")

    def nodes() -> list[pb.NodeInfo]:
        with pool.client() as client:
            return client.list_nodes()

    eventually(nodes, "the node is known again")
    lease = acquire(pool)
    with Session(server.address, lease.token):
        pass
