"""The session's storages: the table of handles, and the ledger of what they hold.

A handle names a live storage or the fault that poisoned it. Rule 1: the ledger is
the sum of ``charged_nbytes`` of the live storages and never exceeds the quota.
Rule 2: a tensor is made from a client's geometry only after the geometry was found
to lie within its storage.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import torch
from msgspec.structs import replace
from xpool_protocol.errors import (
    ArgumentInvalid,
    BrokenError,
    HandleUnknown,
    PeerError,
    QuotaExceeded,
)
from xpool_protocol.messages import Fault
from xpool_protocol.quantities import text_from_nbytes
from xpool_protocol.values import FLAG_CONJ, FLAG_NEG, ITEM_NBYTES, Tensor, span_items

from xpool_server.arbiter.turn import Turn
from xpool_server.dtypes import DTYPES
from xpool_server.faults import Poisoned, fault_from
from xpool_server.lane import Transfer

GRANULE_NBYTES: Final = 512
"""What allocators of devices hand out at least."""

MAX_HANDLES: Final = 1 << 22
"""Live and poisoned. A client that never frees would otherwise fill our own memory
with table rows, which the quota does not count."""

HELD: Final = -1
"""In the place of a handle: a storage of a graph's run, which has none yet."""

MAX_VIEWS: Final = 8
"""Tensors kept per storage for the geometries that calls name again and again."""


def charged_nbytes(nbytes: int) -> int:
    """What a storage of ``nbytes`` takes from the quota.

    >>> charged_nbytes(0), charged_nbytes(512), charged_nbytes(513)
    (512, 512, 1024)
    """
    return -(-max(nbytes, 1) // GRANULE_NBYTES) * GRANULE_NBYTES


@lru_cache(maxsize=4096)
def span_nbytes(dtype: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Bytes from the first item of a geometry to the end of its last."""
    return span_items(sizes, strides) * ITEM_NBYTES[dtype]


def upload_fault(transfer: Transfer) -> Fault:
    """What poisons a storage whose bytes will not come."""
    assert transfer.error is not None
    return fault_from(
        BrokenError(
            f"an upload of {text_from_nbytes(transfer.nbytes)} broke off:"
            f" {transfer.error}"
        ),
        operation=transfer.number,
        name="",
        device_kind="",
    )


class Entry:
    """One live storage."""

    __slots__ = (
        "__weakref__",
        "charge_nbytes",
        "identity",
        "nbytes",
        "storage",
        "under_way",
        "views",
    )

    def __init__(
        self, storage: torch.UntypedStorage, nbytes: int | None = None
    ) -> None:
        self.under_way: Transfer | None = None
        """An upload whose bytes are not all there: nobody may use it before."""
        self.storage = storage
        self.nbytes = storage.nbytes() if nbytes is None else nbytes
        self.charge_nbytes = charged_nbytes(self.nbytes)
        self.identity: int = storage._cdata
        self.views: dict[Tensor, torch.Tensor] = {}


class Storages:
    """Table and ledger of one session."""

    def __init__(
        self,
        quota_nbytes: int,
        device: torch.device,
        make_fault: Callable[[Transfer], Fault] = upload_fault,
    ) -> None:
        """An empty table.

        Args:
            quota_nbytes: what all storages together may hold.
            device: where they lie.
            make_fault: the fault of an upload whose bytes will not come.
        """
        self._make_fault = make_fault
        self.turn = Turn()
        """At the device: given up while an upload is waited for."""
        self.quota_nbytes = quota_nbytes
        self._allocated_nbytes = 0
        self._peak_nbytes = 0
        self._live_count = 0
        self._elsewhere_nbytes = 0
        self._device = device
        self._table: dict[int, Entry | Fault] = {}
        self._ids: dict[int, int] = {}

    @property
    def allocated_nbytes(self) -> int:
        """Charged now."""
        return self._allocated_nbytes

    @property
    def peak_nbytes(self) -> int:
        """The most that was charged at once."""
        return self._peak_nbytes

    @property
    def live_count(self) -> int:
        """Storages that are not poisoned, the ones of a graph's run included."""
        return self._live_count

    def __contains__(self, storage_id: int) -> bool:
        return storage_id in self._table

    def entry(self, storage_id: int) -> Entry:
        """A live storage.

        Raises:
            HandleUnknown: no such handle.
            Poisoned: an earlier failure has poisoned it.
        """
        slot = self.slot(storage_id)
        if type(slot) is Entry:
            return slot
        raise Poisoned(slot)  # type: ignore[arg-type]  # Entry has no subclass

    def slot(self, storage_id: int) -> Entry | Fault:
        """What a handle stands for.

        Raises:
            HandleUnknown: no such handle.
        """
        slot = self._table.get(storage_id)
        if slot is None:
            raise HandleUnknown(f"storage {storage_id} does not exist or was freed")
        if type(slot) is Entry and slot.under_way is not None:
            return self._settled(storage_id, slot)
        return slot

    def expect(self, storage_id: int, transfer: Transfer) -> None:
        """Let nobody use a live storage before an upload into it is over."""
        self.entry(storage_id).under_way = transfer

    def _settled(self, storage_id: int, entry: Entry) -> Entry | Fault:
        """Wait for the bytes of an upload; what has not got them is poisoned."""
        transfer, entry.under_way = entry.under_way, None
        assert transfer is not None
        self._wait(transfer)
        if transfer.error is None:
            return entry
        fault = self._make_fault(transfer)
        self.poison(storage_id, fault)
        return fault

    def _wait(self, transfer: Transfer) -> None:
        if not transfer.is_over:
            with self.turn.given_up():
                transfer.wait()

    def is_live(self, storage_id: int) -> bool:
        """The handle names a storage that is not poisoned."""
        return isinstance(self._table.get(storage_id), Entry)

    def id_of(self, storage: torch.UntypedStorage) -> int | None:
        """The client's handle of a storage, if it has one."""
        return self._ids.get(storage._cdata)

    def tensor(self, wire: Tensor) -> torch.Tensor:
        """The tensor a client describes; it may be shared, so do not reshape it."""
        entry = self._table.get(wire.storage)
        if type(entry) is not Entry or entry.under_way is not None:
            entry = self.entry(wire.storage)
        return self.tensor_over(entry, wire)

    def tensor_over(self, entry: Entry, wire: Tensor) -> torch.Tensor:
        """As ``tensor``, of a storage whose number is not looked at."""
        view = entry.views.get(wire)
        if view is None:
            view = self.own_tensor_over(entry, wire)
            if len(entry.views) >= MAX_VIEWS:
                entry.views.clear()
            entry.views[wire] = view
        return view

    def own_tensor(self, wire: Tensor) -> torch.Tensor:
        """As ``tensor``, but nobody else's: its geometry may change."""
        return self.own_tensor_over(self.entry(wire.storage), wire)

    def own_tensor_over(self, entry: Entry, wire: Tensor) -> torch.Tensor:
        """As ``own_tensor``, of a storage whose number is not looked at."""
        item_nbytes = ITEM_NBYTES[wire.dtype]
        span = span_nbytes(wire.dtype, wire.sizes, wire.strides)
        if wire.offset * item_nbytes + span > entry.nbytes:
            if span == 0:
                # torch lets an empty view stand anywhere. Ours begins at 0: were it
                # an out= argument, its offset would count when it is resized.
                return self.over(entry.storage, replace(wire, offset=0))
            raise ArgumentInvalid(
                f"a tensor of sizes {list(wire.sizes)}, strides {list(wire.strides)} at"
                f" offset {wire.offset} reaches outside its storage of"
                f" {entry.nbytes} bytes"
            )
        return self.over(entry.storage, wire)

    def over(self, storage: torch.UntypedStorage, wire: Tensor) -> torch.Tensor:
        """A tensor of a geometry that is known to fit the storage."""
        view = torch.empty(0, dtype=DTYPES[wire.dtype], device=self._device)
        view.set_(storage, wire.offset, wire.sizes, wire.strides)
        if wire.flags & FLAG_CONJ:
            view = torch._conj(view)
        if wire.flags & FLAG_NEG:
            view = torch._neg_view(view)
        return view

    def check_room(self, nbytes: int) -> None:
        """Refuse what the quota does not hold.

        Args:
            nbytes: already rounded by ``charged_nbytes``.

        Raises:
            QuotaExceeded: it would be too much.
        """
        if self.allocated_nbytes + nbytes > self.quota_nbytes:
            raise QuotaExceeded(
                "xpool: out of memory on the slice: tried to allocate"
                f" {text_from_nbytes(nbytes)}; the quota is"
                f" {text_from_nbytes(self.quota_nbytes)},"
                f" {text_from_nbytes(self.allocated_nbytes)} are allocated"
            )

    def charged_elsewhere(self, nbytes: int) -> None:
        """Memory that is no storage's has been charged in the ledger already."""
        self._elsewhere_nbytes += nbytes

    def charge_elsewhere(self, nbytes: int) -> None:
        """Charge memory that is no storage's, or, if negative, give it back."""
        self._elsewhere_nbytes += nbytes
        self._charge(nbytes)

    def adopt_shared(self, storage_id: int, storage: torch.UntypedStorage) -> None:
        """Give a storage its handle whose memory is charged elsewhere already.

        Raises:
            ArgumentInvalid: the handle is in use.
        """
        if storage_id in self:
            raise ArgumentInvalid(f"storage {storage_id} exists already")
        self._bound(storage_id)
        entry = Entry(storage)
        entry.charge_nbytes = 0
        self._ids[entry.identity] = storage_id
        self._live_count += 1
        self._table[storage_id] = entry

    def adopt(self, storage_id: int, storage: torch.UntypedStorage) -> Entry:
        """Give a storage its handle, and charge it.

        Raises:
            QuotaExceeded: there is no room; nothing has changed.
            ArgumentInvalid: the handle is in use.
        """
        if storage_id in self._table:
            raise ArgumentInvalid(f"storage {storage_id} exists already")
        self._bound(storage_id)
        entry = self.hold(storage)
        self.name(storage_id, entry)
        return entry

    def hold(self, storage: torch.UntypedStorage) -> Entry:
        """Charge a storage that has no handle; ``name`` or ``let_go`` comes later.

        Raises:
            QuotaExceeded: there is no room; nothing has changed.
        """
        entry = Entry(storage)
        self.check_room(entry.charge_nbytes)
        self._ids[entry.identity] = HELD
        self._live_count += 1
        self._charge(entry.charge_nbytes)
        return entry

    def name(self, storage_id: int, entry: Entry) -> None:
        """Give what is held a handle that is not in use."""
        self._bound(storage_id)
        self._table[storage_id] = entry
        self._ids[entry.identity] = storage_id

    def let_go(self, entry: Entry) -> None:
        """Drop what is held."""
        del self._ids[entry.identity]
        self._live_count -= 1
        self._allocated_nbytes -= entry.charge_nbytes

    def resize_quota(self, nbytes: int) -> None:
        """Allow another sum from now on.

        Raises:
            QuotaExceeded: more is allocated; nothing has changed.
        """
        if self.allocated_nbytes > nbytes:
            raise QuotaExceeded(
                f"{text_from_nbytes(self.allocated_nbytes)}"
                f" ({self.allocated_nbytes} bytes) are in use: the quota cannot shrink"
                f" to {text_from_nbytes(nbytes)}"
            )
        self.quota_nbytes = nbytes

    def resized(self, entry: Entry) -> None:
        """Take note that an operation changed a storage's size.

        Raises:
            QuotaExceeded: it grew over the quota; the caller must poison it.
        """
        charge = charged_nbytes(entry.storage.nbytes())
        self.check_room(charge - entry.charge_nbytes)
        self._charge(charge - entry.charge_nbytes)
        entry.nbytes, entry.charge_nbytes = entry.storage.nbytes(), charge
        entry.views.clear()

    def poison(self, storage_id: int, fault: Fault) -> None:
        """Make a handle stand for a fault; a storage it had is dropped."""
        self._drop(storage_id)
        self._bound(storage_id)
        self._table[storage_id] = fault

    def free(self, storage_id: int) -> None:
        """Forget a handle, live or poisoned.

        Raises:
            HandleUnknown: there is none.
        """
        if storage_id not in self._table:
            raise HandleUnknown(f"storage {storage_id} does not exist or was freed")
        self._drop(storage_id)
        del self._table[storage_id]

    def _drop(self, storage_id: int) -> None:
        entry = self._table.get(storage_id)
        if isinstance(entry, Entry):
            if entry.under_way is not None:
                self._wait(entry.under_way)  # its memory is being written to
            self.let_go(entry)

    def _charge(self, nbytes: int) -> None:
        self._allocated_nbytes += nbytes
        self._peak_nbytes = max(self._peak_nbytes, self._allocated_nbytes)

    def _bound(self, storage_id: int) -> None:
        if len(self._table) >= MAX_HANDLES and storage_id not in self._table:
            raise PeerError(f"more than {MAX_HANDLES} storages are named at once")

    def validate(self) -> None:
        """Check the rules above against the table; for tests."""
        live = [entry for entry in self._table.values() if isinstance(entry, Entry)]
        assert self.live_count == len(live) == len(self._ids)
        charges = sum(entry.charge_nbytes for entry in live)
        assert self.allocated_nbytes == charges + self._elsewhere_nbytes
        assert all(entry.nbytes == entry.storage.nbytes() for entry in live)
        assert self.allocated_nbytes <= max(self.quota_nbytes, 0)
        assert self.peak_nbytes >= self.allocated_nbytes
