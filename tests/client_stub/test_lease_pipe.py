"""The child's end of the pipe to its keeper."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Iterator

import pytest
from xpool.config import JobSettings
from xpool.keeper import LeaseKeeper, client_text
from xpool.lease_pipe import (
    LEASE_FD_VARIABLE,
    ChildLine,
    Ending,
    KeeperLine,
    Later,
    Lease,
    LeasePipe,
    Renewed,
    child_line,
    line_from,
)
from xpool_protocol.errors import (
    BrokenError,
    LeaseExpired,
    NoCapacity,
    PeerError,
    UsageError,
)

LEASE = Lease(
    lease_id="L",
    epoch=7,
    token="a.b",
    address="tcp://127.0.0.1:1",
    node_name="n",
    device_kind="cpu",
    device_name="CPU",
    device_index=0,
    share_percent=30,
    memory_nbytes=1 << 30,
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, LeasePipe]]:
    keeper, child = socket.socketpair()
    pipe = LeasePipe(child)
    yield keeper, pipe
    pipe.close()
    keeper.close()


Ends = tuple[socket.socket, LeasePipe]


def watch(pipe: LeasePipe) -> queue.Queue[Later]:
    heard: queue.Queue[Later] = queue.Queue()
    pipe.watch(heard.put)
    return heard


def test_the_lease_arrives_in_pieces(ends: Ends) -> None:
    keeper, pipe = ends
    line = line_from(KeeperLine(lease=LEASE, wants_statistics=True))
    keeper.sendall(line[:10])
    with pytest.raises(BrokenError, match="no lease came within"):
        pipe.wait_for_leases(0.01)
    keeper.sendall(line[10:] + line_from(KeeperLine(renewed=Renewed("c.d"))))
    assert pipe.wait_for_leases(5) == (LEASE,)
    assert pipe.wants_statistics
    assert watch(pipe).get(timeout=5) == Renewed("c.d")


def test_a_refusal_is_the_registrys_error(ends: Ends) -> None:
    keeper, pipe = ends
    refused = Ending.from_error(NoCapacity("nothing is free"))
    keeper.sendall(line_from(KeeperLine(refused=refused)))
    with pytest.raises(NoCapacity, match="nothing is free"):
        pipe.wait_for_leases(5)


@pytest.mark.parametrize(
    "data", [b"nonsense\n", b"{}\n", b'{"lease":{"epoch":"x"}}\n', b"x" * (1 << 18)]
)
def test_nonsense_is_a_broken_pipe(ends: Ends, data: bytes) -> None:
    keeper, pipe = ends
    keeper.setblocking(False)
    keeper.send(data)
    with pytest.raises(BrokenError):
        pipe.wait_for_leases(5)


def test_a_keeper_that_is_gone_is_named(ends: Ends) -> None:
    keeper, pipe = ends
    keeper.close()
    with pytest.raises(BrokenError, match=r"keeps the lease .* is gone"):
        pipe.wait_for_leases(5)
    assert isinstance(watch(pipe).get(timeout=5), BrokenError)
    pipe.send_statistics({"executed_ops": 1})  # nobody is left; that is no error


def test_the_end_of_the_lease_is_the_last_word(ends: Ends) -> None:
    keeper, pipe = ends
    heard = watch(pipe)
    ended = Ending.from_error(LeaseExpired("it is over"))
    keeper.sendall(
        line_from(KeeperLine(ended=ended)) + line_from(KeeperLine(renewed=Renewed("x")))
    )
    error = heard.get(timeout=5)
    assert isinstance(error, LeaseExpired)
    with pytest.raises(queue.Empty):
        heard.get_nowait()


def test_an_unknown_code_is_an_error_all_the_same(ends: Ends) -> None:
    keeper, pipe = ends
    heard = watch(pipe)
    keeper.sendall(line_from(KeeperLine(ended=Ending(9999, "from the future"))))
    error = heard.get(timeout=5)
    assert isinstance(error, PeerError)
    assert "from the future" in str(error)


def test_closing_ends_the_watch_and_the_keepers_wait(ends: Ends) -> None:
    keeper, pipe = ends
    heard = watch(pipe)
    pipe.close()
    assert isinstance(heard.get(timeout=5), BrokenError)
    assert keeper.recv(1) == b""
    pipe.close()


def test_counters_travel_back(ends: Ends) -> None:
    keeper, pipe = ends
    pipe.send_statistics({"executed_ops": 3})
    assert child_line(keeper.recv(1000)[:-1]) == ChildLine(
        statistics={"executed_ops": 3}
    )


def test_without_xpool_run_there_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "x", "9999"):
        monkeypatch.setenv(LEASE_FD_VARIABLE, text)
        with pytest.raises(UsageError, match="not started by xpool run"):
            LeasePipe.from_environment()
        assert LEASE_FD_VARIABLE not in os.environ


def test_a_child_that_does_not_read_never_blocks_the_keeper() -> None:
    """Fresh tokens are left out; the end is not, and no line is cut."""
    ours, theirs = socket.socketpair()
    settings = JobSettings(registry="127.0.0.1:9")
    keeper = LeaseKeeper(settings, ours, wants_statistics=False)
    token = "t" * 4000
    for _ in range(1000):
        keeper._tell(KeeperLine(renewed=Renewed(token)))
    keeper.refuse(NoCapacity("the end"))
    assert len(keeper._unsent) < 20_000
    pipe = LeasePipe(theirs)
    heard: list[KeeperLine] = []
    while not (heard and heard[-1].refused):
        line = pipe._next(5)
        assert line is not None
        heard.append(line)
        keeper._flush()
    assert 1 < len(heard) < 1000
    assert {line.renewed for line in heard[:-1]} == {Renewed(token)}
    pipe.close()
    ours.close()


def test_who_holds_a_lease_fits_the_registry() -> None:
    text = client_text(5, "a\nb" + "x" * 1000)
    assert text.isprintable()
    assert len(text) == 256
    assert " pid 5 a?b" in text
