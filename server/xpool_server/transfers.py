"""Copies between devices: the source keeps a copy, the target fetches it.

A ``Send`` waits for nothing but room among what is kept; a ``Receive`` waits for the
source, and the records behind it wait with it. A client records each ``Send`` before
its ``Receive``, and both together, so such waits end: of all that wait, the pair that
was recorded first can go on.
"""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace
from xpool_protocol.errors import ArgumentInvalid, OperationFailed, PeerError
from xpool_protocol.messages import Fault
from xpool_protocol.peer_records import DefinePeer, Receive, Send

from xpool_server.devices.base import Backend
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.peers import Fetch, Parcel
from xpool_server.storages import Storages
from xpool_server.vouching import Vouching


class PeerLine(Protocol):
    """What a transfer asks of a line to a peer."""

    name: str

    def fetch(self, ticket: bytes, nbytes: int) -> Fetch:
        """Ask for a piece."""


class PeerDoor(Protocol):
    """What a session asks of its worker's dealings with others; see ``peers.Peers``."""

    host: str
    """Where the worker listens; empty: everywhere."""
    vouching: Vouching
    """For addresses of this pool's workers."""

    def news(self) -> None:
        """Wake the worker's loop."""

    @property
    def has_room(self) -> bool:
        """Another piece may be kept."""

    def define(self, peer: int, address: str, key: str, name: str) -> None:
        """Open a line."""

    def line(self, peer: int) -> PeerLine:
        """The line to a peer."""

    def keep(self, peer: int, ticket: bytes, parcel: Parcel) -> None:
        """Keep a piece for a peer."""


class Transfers:
    """The transfers of one session."""

    def __init__(
        self,
        backend: Backend,
        storages: Storages,
        failures: Failures,
        door: PeerDoor | None,
    ) -> None:
        self._backend = backend
        self._storages = storages
        self._failures = failures
        self._door_or_none = door
        self._fetch: Fetch | None = None

    @property
    def _door(self) -> PeerDoor:
        if self._door_or_none is None:
            raise ArgumentInvalid("this worker exchanges nothing with other workers")
        return self._door_or_none

    def define(self, record: DefinePeer) -> Answers:
        """Open a line to another worker of the job."""
        return self._failures.attempt(
            lambda: self._door.define(
                record.peer, record.address, record.key, record.name
            )
        )

    def send(self, record: Send) -> Answers | None:
        """Keep a copy of some bytes; None: not yet, there is no room."""
        if self._door_or_none is not None and not self._door.has_room:
            return None
        answers: Answers = NOTHING
        parcel: Parcel
        try:
            parcel = self._copied(record)
        except Poisoned as poisoned:
            parcel = poisoned.fault
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a device may raise anything
            parcel = self._failures.fault(error)
            answers = self._failures.told(parcel)
        # A fault travels too: whoever waits for the bytes gets it instead.
        kept = self._failures.attempt(
            lambda: self._door.keep(record.peer, record.ticket, parcel)
        )
        return [*answers, *kept]

    def receive(self, record: Receive) -> Answers | None:
        """Fetch some bytes into a storage; None: not yet, they are under way."""
        try:
            if self._fetch is None:
                line = self._door.line(record.peer)
                # Asked for even if there is no place for it: the source is rid of it.
                self._fetch = line.fetch(record.ticket, record.nbytes)
            if not self._fetch.is_over:
                return None
            fetch, self._fetch = self._fetch, None
            self._store(record, fetch)
        except Poisoned:
            return NOTHING
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a device may raise anything
            fault = self._failures.fault(error)
            if record.storage in self._storages:
                self._storages.poison(record.storage, fault)
            return self._failures.told(fault)
        return NOTHING

    def _copied(self, record: Send) -> bytes:
        entry = self._storages.entry(record.storage)
        check_range(record, entry.nbytes)
        return self._backend.read(entry.storage, record.offset, record.nbytes)

    def _store(self, record: Receive, fetch: Fetch) -> None:
        entry = self._storages.entry(record.storage)
        check_range(record, entry.nbytes)
        name = self._door.line(record.peer).name
        if isinstance(fetch.parcel, Fault):
            self._storages.poison(record.storage, _abroad(fetch.parcel, name))
        elif fetch.parcel is None:
            raise OperationFailed(
                f"xpool: a copy from {name} has not arrived: {fetch.failure}"
            )
        else:
            self._backend.write(entry.storage, record.offset, fetch.parcel)


def _abroad(fault: Fault, name: str) -> Fault:
    """Another session's fault: its operation numbers mean nothing here."""
    what = f"{fault.name}, operation" if fault.name else "operation"
    text = f"{fault.text} [{what} {fault.operation} of {name}]"
    return replace(fault, text=text, operation=0, name="")


def check_range(record: Send | Receive, nbytes: int) -> None:
    """Refuse what reaches outside its storage.

    Raises:
        ArgumentInvalid: it does.
    """
    if record.offset + record.nbytes > nbytes:
        raise ArgumentInvalid(
            f"{record.nbytes} bytes at offset {record.offset} reach outside storage"
            f" {record.storage} of {nbytes} bytes"
        )
