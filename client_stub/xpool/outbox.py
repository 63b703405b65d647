"""Where a device leaves the records it has encoded, for the link to send.

Two devices fill one: the native library (``native/library.py``) and the pure-Python
device (``torch/python_device.py``). The link asks for batches whenever it is free and
watches ``wake_fileno``, which becomes readable when there is something to send. When it
is sent is the link's choice (``pace.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from xpool_protocol.errors import PoolError
from xpool_protocol.messages import Payload

if TYPE_CHECKING:
    from xpool_protocol.connection import ClientConnection
    from xpool_protocol.transport import Link

    from xpool.link import SessionLink

Diagnose: TypeAlias = Callable[[PoolError], PoolError]
"""What a broken path means; may take some seconds to find out."""


class QueuedBatch(NamedTuple):
    """Some records, and the payload frames that their WRITEs name."""

    records: bytes
    record_count: int
    payloads: Sequence[Payload]


class Outbox(Protocol):
    """A queue of batches with one reader, the link's thread."""

    @property
    def wake_fileno(self) -> int:
        """An eventfd, written when there is something to take; read by the link."""

    def take(self) -> QueuedBatch | None:
        """The oldest batch, or None; never blocks."""

    def queued_nbytes(self) -> int:
        """Bytes that wait to be taken."""

    def ring_at(self, nbytes: int) -> int:
        """Write ``wake_fileno`` when so much waits, from now on; how much does now.

        For the link's thread. At first it is 1. An outbox may write it more often.
        """

    def native_link(
        self, link: Link, connection: ClientConnection, diagnose: Diagnose
    ) -> SessionLink | None:
        """A driver of the device's own for an open connection, if it has one."""
