"""What every transport promises, on both ends; one subclass per transport.

A new transport inherits ``TransportConformance``, defines ``address``, and
nothing else. What needs a second process is in ``test_processes.py``.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xpool_protocol.errors import BrokenError, ClosedError, PeerError, UsageError
from xpool_protocol.transport import (
    MAX_FRAMES,
    Link,
    Listener,
    PeerId,
    connect,
    listen,
)

# Far above what any step takes here: reached only when something is wrong.
PATIENCE_S = 10.0
Pipe = tuple[int, int]
KIB = 1024
MIB = 1024 * KIB


def next_message(link: Link) -> list[bytes]:
    frames = link.receive(PATIENCE_S)
    assert frames is not None, "no message in time"
    return [bytes(frame) for frame in frames]


def next_call(listener: Listener) -> tuple[PeerId, list[bytes]]:
    message = listener.receive(PATIENCE_S)
    assert message is not None, "no message in time"
    return message[0], [bytes(frame) for frame in message[1]]


def broken_within(link: Link, limit_s: float) -> tuple[BrokenError, float]:
    """The error that receiving ends with, and the seconds until then."""
    begin = time.monotonic()
    try:
        while link.receive(limit_s) is not None:
            pass
    except BrokenError as error:
        return error, time.monotonic() - begin
    raise AssertionError("the link does not notice")


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        os.sched_yield()


class TransportConformance:
    """Inherit, define ``address``, and nothing else."""

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        raise NotImplementedError("the subclass returns an address to listen on")

    @pytest.fixture
    def stack(self) -> Iterator[ExitStack]:
        with ExitStack() as stack:
            yield stack

    @pytest.fixture
    def pipe(self, stack: ExitStack) -> Pipe:
        """Stays open until the ends that watch it are closed."""
        pipe = os.pipe()
        for fileno in pipe:
            stack.callback(os.close, fileno)
        return pipe

    @pytest.fixture
    def listener(self, address: str, stack: ExitStack) -> Listener:
        return stack.enter_context(listen(address, linger_s=PATIENCE_S))

    @pytest.fixture
    def link(self, listener: Listener, stack: ExitStack) -> Link:
        return stack.enter_context(connect(listener.uri, linger_s=PATIENCE_S))

    @pytest.fixture
    def peer(self, link: Link, listener: Listener) -> PeerId:
        """The link's name at the listener, once both know each other."""
        link.send([b"hello"])
        peer, frames = next_call(listener)
        assert frames == [b"hello"]
        listener.send(peer, [b"welcome"])
        assert next_message(link) == [b"welcome"]
        return peer

    # ---- what arrives ----

    @pytest.mark.parametrize(
        "nbytes", [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 3 * MIB]
    )
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_survive_a_round_trip(
        self, link: Link, listener: Listener, nbytes: int, kind: type[Any]
    ) -> None:
        pattern = bytes(range(251)) * (nbytes // 251 + 1)
        frame = kind(pattern[:nbytes])
        link.send([frame])
        peer, frames = next_call(listener)
        assert frames == [frame]
        listener.send(peer, [frame, b"end"])
        assert next_message(link) == [frame, b"end"]

    @pytest.mark.parametrize("count", [1, 2, 3, MAX_FRAMES])
    def test_frames_keep_their_number_and_order(
        self, link: Link, listener: Listener, count: int
    ) -> None:
        frames = [bytes(index % 4) + b"%d" % index for index in range(count)]
        link.send(frames)
        peer, received = next_call(listener)
        assert received == frames
        listener.send(peer, frames)
        assert next_message(link) == frames

    def test_empty_frames_stay(self, link: Link, listener: Listener) -> None:
        frames = [b"", b"a", b"", b""]
        link.send(frames)
        peer, received = next_call(listener)
        assert received == frames
        listener.send(peer, frames)
        assert next_message(link) == frames

    def test_views_of_other_shapes_arrive_as_their_bytes(
        self, link: Link, listener: Listener
    ) -> None:
        pairs = memoryview(bytes(range(16))).cast("H").cast("B").cast("I", (2, 2))
        link.send([pairs, memoryview(b"abcdef")[2:4]])
        assert next_call(listener)[1] == [bytes(range(16)), b"cd"]

    def test_fifty_thousand_messages_arrive_in_order(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        count = 50_000
        sender = threading.Thread(
            target=lambda: [link.send([b"%d" % n]) for n in range(count)]
        )
        sender.start()
        received = [next_call(listener)[1][0] for _ in range(count)]
        sender.join()
        assert received == [b"%d" % n for n in range(count)]

    def test_both_directions_at_once(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        count = 500
        for n in range(count):
            link.send([b"up %d" % n, bytes(n)])
            listener.send(peer, [b"down %d" % n, bytes(n)])
        for n in range(count):
            assert next_call(listener) == (peer, [b"up %d" % n, bytes(n)])
            assert next_message(link) == [b"down %d" % n, bytes(n)]

    def test_large_and_small_messages_stay_in_order(
        self, link: Link, listener: Listener
    ) -> None:
        sizes = [3 * MIB, 1, 200 * KIB, 0, 3 * MIB, 2]
        for size in sizes:
            link.send([bytes(size)])
        assert [len(next_call(listener)[1][0]) for _ in sizes] == sizes

    def test_peers_are_told_apart(self, listener: Listener, stack: ExitStack) -> None:
        links = [stack.enter_context(connect(listener.uri)) for _ in range(5)]
        for turn, (number, link) in itertools.product(range(20), enumerate(links)):
            link.send([b"%d" % number, b"%d" % turn])
        names: dict[PeerId, bytes] = {}
        turns: dict[PeerId, list[bytes]] = {}
        for _ in range(20 * len(links)):
            peer, (number_, turn_) = next_call(listener)
            assert names.setdefault(peer, number_) == number_
            turns.setdefault(peer, []).append(turn_)
        assert sorted(names.values()) == [b"0", b"1", b"2", b"3", b"4"]
        assert all(seen == [b"%d" % n for n in range(20)] for seen in turns.values())
        for peer, number_ in names.items():
            listener.send(peer, [b"for " + number_])
        for number, link in enumerate(links):
            assert next_message(link) == [b"for %d" % number]

    def test_a_small_buffer_is_ours_again_after_send(
        self, listener: Listener, link: Link
    ) -> None:
        buffer = bytearray(b"first")
        link.send([buffer])  # most likely before the connection is there
        buffer[:] = b"other"
        assert next_call(listener)[1] == [b"first"]

    def test_large_buffers_are_given_back(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        buffer = bytearray(2 * MIB)
        link.send([buffer])
        assert next_call(listener)[1] == [bytes(2 * MIB)]
        until(lambda: link.unsent() == 0)
        buffer[:] = b"x" * len(buffer)
        listener.send(peer, [buffer])
        assert next_message(link) == [b"x" * len(buffer)]
        until(lambda: listener.unsent() == 0)

    # ---- waiting and waking ----

    def test_a_timeout_returns_none(self, link: Link, listener: Listener) -> None:
        for receive in (link.receive, listener.receive):
            assert receive(0) is None
            begin = time.monotonic()
            assert receive(0.05) is None
            assert 0.05 <= time.monotonic() - begin < PATIENCE_S

    def test_a_wake_before_receive_is_kept(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        for end in (link, listener):
            for _ in range(1000):
                end.wake()
            begin = time.monotonic()
            assert end.receive(PATIENCE_S) is None
            assert time.monotonic() - begin < PATIENCE_S / 2
            assert end.receive(0) is None

    def test_a_wake_ends_a_blocked_receive(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        for end in (link, listener):
            for _ in range(20):
                # Whether it comes before, at or after the call must not matter.
                waker = threading.Thread(target=end.wake)
                begin = time.monotonic()
                waker.start()
                assert end.receive(None) is None
                assert time.monotonic() - begin < PATIENCE_S
                waker.join()

    def test_no_wake_is_lost_among_messages(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        """Whoever queues something and wakes is served, however busy the line."""
        for n in range(100):
            listener.send(peer, [b"%d" % n])
        link.wake()
        begin = time.monotonic()
        answers = [link.receive(PATIENCE_S) for _ in range(101)]
        assert time.monotonic() - begin < PATIENCE_S
        assert answers.count(None) == 1
        assert [bytes(a[0]) for a in answers if a] == [b"%d" % n for n in range(100)]

    @pytest.mark.parametrize("side", ["link", "listener"])
    def test_a_watched_descriptor_ends_a_receive(
        self, pipe: Pipe, link: Link, listener: Listener, peer: PeerId, side: str
    ) -> None:
        reading, writing = pipe
        end: Link | Listener = link if side == "link" else listener
        end.watch(reading)
        assert end.receive(0) is None
        writer = threading.Thread(target=os.write, args=(writing, b"x"))
        writer.start()
        assert end.receive(None) is None
        writer.join()
        # It stays readable, and neither it nor the messages starve.
        for n in range(10):
            link.send([b"%d" % n])
            listener.send(peer, [b"%d" % n])
        received: list[bytes] = []
        nones = 0
        while len(received) < 10:
            message = end.receive(PATIENCE_S)
            nones += message is None
            if isinstance(message, tuple):
                message = message[1]
            received += [bytes(frame) for frame in message or []]
        assert received == [b"%d" % n for n in range(10)]
        assert nones >= 9
        assert end.receive(PATIENCE_S) is None
        assert os.read(reading, 1) == b"x"
        assert end.receive(0) is None

    def test_a_break_shows_through_a_readable_descriptor(
        self, pipe: Pipe, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        reading, writing = pipe
        link.watch(reading)
        os.write(writing, b"x")
        listener.send(peer, [b"last"])
        listener.close()
        received: list[bytes] = []
        deadline = time.monotonic() + PATIENCE_S
        with pytest.raises(BrokenError):  # noqa: PT012  which turn it is is open
            while time.monotonic() < deadline:
                received += [bytes(frame) for frame in link.receive(1) or []]
        assert received == [b"last"]

    # ---- beginnings and ends ----

    def test_a_link_may_come_first(self, address: str, stack: ExitStack) -> None:
        # An address that is known and free: that of a listener that has ended.
        first = listen(address)
        uri = first.uri
        first.close()
        link = stack.enter_context(connect(uri, connect_timeout_s=PATIENCE_S))
        link.send([b"early"])
        assert link.receive(0.01) is None
        link.send([b"bird"])
        listener = stack.enter_context(listen(uri))
        received: list[list[bytes]] = []
        while len(received) < 2:
            assert link.receive(0.01) is None
            message = listener.receive(0.01)
            if message is not None:
                received.append([bytes(frame) for frame in message[1]])
        assert received == [[b"early"], [b"bird"]]

    def test_nobody_there_is_broken_after_the_timeout(
        self, address: str, stack: ExitStack
    ) -> None:
        with listen(address) as listener:
            uri = listener.uri
        link = stack.enter_context(connect(uri, connect_timeout_s=0.3))
        link.send([b"anybody?"])
        error, took_s = broken_within(link, PATIENCE_S)
        assert 0.25 <= took_s < 2
        assert "nothing answers at" in str(error)
        assert uri in str(error)
        with pytest.raises(BrokenError):
            link.send([b"still nobody"])
        with pytest.raises(BrokenError):
            link.receive(0)

    def test_a_listener_that_closes_breaks_its_links(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        listener.close()
        error, took_s = broken_within(link, PATIENCE_S)
        assert took_s < 2
        assert "lost the connection to" in str(error)
        assert listener.uri in str(error)
        with pytest.raises(BrokenError):
            link.receive(0)
        with pytest.raises(BrokenError):
            link.send([b"too late"])

    def test_a_break_ends_a_blocked_receive(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        closer = threading.Thread(target=listener.close)
        closer.start()
        with pytest.raises(BrokenError):
            link.receive(None)
        closer.join()

    def test_what_was_sent_before_a_close_arrives(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        messages = [[b"%d" % n, bytes(n * 100)] for n in range(500)]
        for frames in messages:
            listener.send(peer, frames)
        listener.close()
        assert [next_message(link) for _ in messages] == messages
        broken_within(link, PATIENCE_S)

    def test_a_link_flushes_when_it_closes(
        self, listener: Listener, stack: ExitStack
    ) -> None:
        """Also when the connection is not there yet."""
        link = stack.enter_context(connect(listener.uri, linger_s=PATIENCE_S))
        for n in range(100):
            link.send([b"%d" % n, bytes(10 * KIB)])
        link.close()
        assert [next_call(listener)[1][0] for _ in range(100)] == [
            b"%d" % n for n in range(100)
        ]

    def test_a_listener_survives_its_peers(
        self, link: Link, listener: Listener, peer: PeerId, stack: ExitStack
    ) -> None:
        link.close()

        def is_noticed() -> bool:
            listener.send(peer, [b"are you there?"])
            assert listener.receive(0) is None
            return listener.statistics().messages_undeliverable > 0

        until(is_noticed)
        other = stack.enter_context(connect(listener.uri))
        other.send([b"next"])
        name, frames = next_call(listener)
        assert frames == [b"next"]
        assert name != peer

    def test_an_unknown_peer_is_counted_not_raised(self, listener: Listener) -> None:
        listener.send(PeerId(b"\0none"), [b"hello?"])
        assert listener.statistics().messages_undeliverable == 1
        assert listener.statistics().messages_sent == 0

    def test_closing_twice_is_fine(self, link: Link, listener: Listener) -> None:
        for end in (link, listener):
            end.close()
            end.close()
            end.wake()

    def test_a_closed_end_is_closed(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        link.close()
        listener.close()
        calls: list[Callable[[], object]] = [
            lambda: link.send([b"x"]),
            lambda: link.receive(0),
            lambda: listener.send(peer, [b"x"]),
            lambda: listener.receive(0),
            lambda: listener.watch(0),
            lambda: link.watch(0),
        ]
        for call in calls:
            with pytest.raises(ClosedError, match="is closed"):
                call()
        assert link.statistics().messages_sent == 1
        assert listener.statistics().messages_received == 1

    def test_an_address_is_taken_once_and_free_after_close(
        self, listener: Listener, stack: ExitStack
    ) -> None:
        with pytest.raises(UsageError, match="already in use"):
            listen(listener.uri)
        link = stack.enter_context(connect(listener.uri))
        link.send([b"the first one is unharmed"])
        next_call(listener)
        listener.close()
        again = stack.enter_context(listen(listener.uri))
        assert again.uri == listener.uri

    # ---- limits ----

    @pytest.mark.parametrize(
        "frames",
        [
            [],
            [b""] * (MAX_FRAMES + 1),
            ["text"],
            [7],
            [memoryview(bytes(10))[::2]],
            [bytes(600), bytes(425)],
        ],
        ids=["none", "too many", "text", "number", "strided", "too large"],
    )
    def test_what_can_not_be_sent_is_refused_whole(
        self, address: str, stack: ExitStack, frames: list[Any]
    ) -> None:
        listener = stack.enter_context(listen(address, max_message_nbytes=1024))
        link = stack.enter_context(connect(listener.uri, max_message_nbytes=1024))
        link.send([b"a"])
        peer, _ = next_call(listener)
        for send in (link.send, lambda frames: listener.send(peer, frames)):
            with pytest.raises(UsageError):
                send([*frames[:1], *frames[1:]])
        link.send([b"b"])
        listener.send(peer, [b"c"])
        assert next_call(listener) == (peer, [b"b"])
        assert next_message(link) == [b"c"]

    def test_a_listener_drops_what_is_too_large_for_it(
        self, address: str, stack: ExitStack
    ) -> None:
        listener = stack.enter_context(listen(address, max_message_nbytes=1000))
        link = stack.enter_context(connect(listener.uri))
        link.send([bytes(600), bytes(600)])  # each frame alone would pass
        link.send([b"small"])
        assert next_call(listener)[1] == [b"small"]
        assert listener.statistics().messages_refused == 1
        assert listener.statistics().messages_received == 1

    def test_a_link_ends_over_what_is_too_large_for_it(
        self, listener: Listener, stack: ExitStack
    ) -> None:
        link = stack.enter_context(connect(listener.uri, max_message_nbytes=1000))
        link.send([b"hello"])
        peer, _ = next_call(listener)
        listener.send(peer, [bytes(600), bytes(600)])
        listener.send(peer, [b"never seen"])
        for _ in range(2):
            with pytest.raises(PeerError, match="more than 1000 bytes"):
                link.receive(PATIENCE_S)

    def test_statistics_count_messages_and_bytes(
        self, link: Link, listener: Listener, peer: PeerId
    ) -> None:
        before = link.statistics(), listener.statistics()
        for _ in range(3):
            link.send([b"abc", b"", bytes(100)])
            next_call(listener)
        listener.send(peer, [b"12345"])
        next_message(link)
        ours, theirs = link.statistics(), listener.statistics()
        assert ours.messages_sent - before[0].messages_sent == 3
        assert ours.nbytes_sent - before[0].nbytes_sent == 309
        assert ours.messages_received - before[0].messages_received == 1
        assert ours.nbytes_received - before[0].nbytes_received == 5
        assert theirs.messages_received - before[1].messages_received == 3
        assert theirs.nbytes_received - before[1].nbytes_received == 309
        assert theirs.messages_sent - before[1].messages_sent == 1
        assert theirs.nbytes_sent - before[1].nbytes_sent == 5
        assert (theirs.messages_undeliverable, theirs.messages_refused) == (0, 0)

    def test_nothing_is_left_open(self, address: str) -> None:
        def cycle() -> None:
            with listen(address) as listener, connect(listener.uri) as link:
                link.send([b"x"])
                next_call(listener)

        cycle()  # what is made once per process is made here
        threads = threading.active_count()
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            cycle()
        assert threading.active_count() == threads
        until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


class TestInproc(TransportConformance):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"inproc://{tmp_path.name}"


class TestTcp(TransportConformance):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return "tcp://127.0.0.1:0"


class TestIpc(TransportConformance):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"ipc://{tmp_path}/socket"
