"""Both ends of the data plane and a fake link: what one says, the other hears.

Nothing is delivered by itself: frames lie in ``to_server`` and ``to_client``, in
order, until a test takes them across.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from xpool_protocol import limits
from xpool_protocol.codec import Frames
from xpool_protocol.connection import ClientConnection, ServerConnection, State
from xpool_protocol.messages import Batch, Bye, Message, Payload, Welcome

WELCOME = Welcome(
    version=1,
    lease_id="lease-1",
    epoch=1,
    server="node-a",
    framework="torch 2.13.0+cpu",
    device_kind="cpu",
    device_name="cpu",
    share_percent=30,
    memory_nbytes=1 << 30,
    window_nbytes=limits.WINDOW_NBYTES,
)

RECORD = b"\x05\x07"
"""A whole record: Free(7)."""


class ConnectionPair:
    """A client, a server, and what is under way between them."""

    def __init__(self, window_nbytes: int = limits.WINDOW_NBYTES) -> None:
        self.client = ClientConnection()
        self.server = ServerConnection(window_nbytes)
        self.to_server: deque[Frames] = deque()
        self.to_client: deque[Frames] = deque()

    # ---- what the ends say

    def hello(self) -> None:
        self.to_server.append(self.client.hello("token", "key", "test", "none"))

    def welcome(self) -> None:
        self.to_client.append(self.server.welcome(WELCOME))

    def batch(self, record_count: int = 1, payloads: Sequence[Payload] = ()) -> None:
        records = RECORD * record_count
        self.to_server.append(self.client.batch(records, record_count, payloads))

    def ack(self, sequence: int) -> None:
        self.to_client.append(self.server.ack(sequence))

    # ---- the link

    def server_hears(self) -> Message | None:
        """Deliver the oldest message to the server."""
        return self.server.receive(self.to_server.popleft())

    def client_hears(self) -> Message:
        """Deliver the oldest message to the client."""
        return self.client.receive(self.to_client.popleft())

    def server_takes_batch(self) -> Batch:
        """Deliver a batch that the server has not seen."""
        batch = self.server_hears()
        assert isinstance(batch, Batch)
        return batch


def pair_in(state: State) -> ConnectionPair:
    """A pair whose two ends are in ``state``, with nothing under way."""
    pair = ConnectionPair()
    if state is State.NEW:
        return pair
    pair.hello()
    pair.server_hears()
    if state is State.GREETED:
        return pair
    pair.welcome()
    pair.client_hears()
    if state is State.CLOSED:
        pair.to_server.append(pair.client.bye("done"))
        assert isinstance(pair.server_hears(), Bye)
    assert pair.client.state is pair.server.state is state
    return pair
