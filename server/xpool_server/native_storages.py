"""The native executor's table of storages, as ``Storages`` shows it.

The table and its ledger are in C++, where the common records are executed; this is what
the others see of them. A fault is Python's: C++ knows only that a handle is poisoned.
"""

# ruff: noqa: D102  the class in storages.py documents the methods

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn
from weakref import WeakValueDictionary

import torch
from xpool_protocol.errors import ArgumentInvalid, HandleUnknown, PeerError
from xpool_protocol.messages import Fault
from xpool_protocol.values import Tensor

from xpool_server import storages
from xpool_server.lane import Transfer
from xpool_server.native.library import NO_HANDLE, NativeSession, State
from xpool_server.storages import Entry, Storages, charged_nbytes, upload_fault


class NativeStorages(Storages):
    """Table and ledger of one session, kept by a ``NativeSession``."""

    def __init__(
        self,
        native: NativeSession,
        quota_nbytes: int,
        device: torch.device,
        make_fault: Callable[[Transfer], Fault] = upload_fault,
    ) -> None:
        super().__init__(quota_nbytes, device, make_fault)
        self._native = native
        self._faults: dict[int, Fault] = {}
        self._uploads: dict[int, Transfer] = {}
        """By storage: C++ hands back whatever uses one of these."""
        self._entries: WeakValueDictionary[int, Entry] = WeakValueDictionary()

    @property
    def allocated_nbytes(self) -> int:
        return int(self._native.ledger().allocated_nbytes)

    @property
    def peak_nbytes(self) -> int:
        return int(self._native.ledger().peak_nbytes)

    @property
    def live_count(self) -> int:
        return int(self._native.ledger().live_count)

    def resize_quota(self, nbytes: int) -> None:
        super().resize_quota(nbytes)
        self._native.set_quota(nbytes)

    def __contains__(self, storage_id: int) -> bool:
        return self._native.state(storage_id) is not State.NOTHING

    def slot(self, storage_id: int) -> Entry | Fault:
        state = self._native.state(storage_id)
        if state is State.NOTHING:
            _raise_unknown(storage_id)
        if state is State.POISONED:
            return self._faults[storage_id]
        if storage_id in self._uploads:
            transfer = self._waited(storage_id)
            if transfer.error is not None:
                fault = self._make_fault(transfer)
                self.poison(storage_id, fault)
                return fault
        return self._entry(storage_id)

    def expect(self, storage_id: int, transfer: Transfer) -> None:
        self._uploads[storage_id] = transfer
        self._native.set_busy(storage_id, is_busy=True)

    def _waited(self, storage_id: int) -> Transfer:
        """An upload that is over: its storage's memory is nobody else's again."""
        transfer = self._uploads.pop(storage_id)
        self._wait(transfer)
        self._native.set_busy(storage_id, is_busy=False)
        return transfer

    def _entry(self, storage_id: int) -> Entry:
        """A row as an object; several users of one row share one of these."""
        storage = self._native.storage(storage_id)
        known = self._entries.get(storage_id)
        if known is not None and known.identity == storage._cdata:
            return known
        # As charged: an operation may have resized the storage just now.
        entry = Entry(storage, self._native.nbytes(storage_id))
        self._entries[storage_id] = entry
        return entry

    def is_live(self, storage_id: int) -> bool:
        return self._native.state(storage_id) is State.LIVE

    def id_of(self, storage: torch.UntypedStorage) -> int | None:
        found = self._native.id_of(storage._cdata)
        return None if found == NO_HANDLE else found

    def tensor(self, wire: Tensor) -> torch.Tensor:
        return self.tensor_over(self.entry(wire.storage), wire)

    def charge_elsewhere(self, nbytes: int) -> None:
        self._elsewhere_nbytes += nbytes
        self._native.charge(nbytes)

    def adopt_shared(self, storage_id: int, storage: torch.UntypedStorage) -> None:
        if storage_id in self:
            raise ArgumentInvalid(f"storage {storage_id} exists already")
        self._bound(storage_id)
        self._native.adopt_shared(storage_id, storage._cdata)

    def adopt(self, storage_id: int, storage: torch.UntypedStorage) -> Entry:
        if storage_id in self:
            raise ArgumentInvalid(f"storage {storage_id} exists already")
        self._bound(storage_id)
        entry = Entry(storage)
        self.check_room(entry.charge_nbytes)
        self._native.adopt(storage_id, entry.identity)
        return entry

    def hold(self, storage: torch.UntypedStorage) -> Entry:
        entry = Entry(storage)
        self.check_room(entry.charge_nbytes)
        self._native.hold(entry.identity)
        return entry

    def name(self, storage_id: int, entry: Entry) -> None:
        self._bound(storage_id)
        self._native.name(storage_id, entry.identity)

    def let_go(self, entry: Entry) -> None:
        self._native.let_go(entry.identity)

    def resized(self, entry: Entry) -> None:
        nbytes = entry.storage.nbytes()
        charge = charged_nbytes(nbytes)
        self.check_room(charge - entry.charge_nbytes)
        self._native.resized(entry.identity)
        entry.nbytes, entry.charge_nbytes = nbytes, charge
        entry.views.clear()

    def poison(self, storage_id: int, fault: Fault) -> None:
        self._bound(storage_id)
        if storage_id in self._uploads:
            self._waited(storage_id)
        self._native.poison(storage_id)
        self._faults[storage_id] = fault

    def free(self, storage_id: int) -> None:
        if storage_id not in self:
            _raise_unknown(storage_id)
        if storage_id in self._uploads:
            self._waited(storage_id)
        self._native.free(storage_id)
        self._faults.pop(storage_id, None)

    def _bound(self, storage_id: int) -> None:
        limit = storages.MAX_HANDLES
        if self._native.ledger().handle_count >= limit and storage_id not in self:
            raise PeerError(f"more than {limit} storages are named at once")

    def validate(self) -> None:
        handles = self._native.handles()
        live = [one for one in handles if self.is_live(one)]
        charges = [self._native.charge_of(one) for one in live]
        assert self.live_count == len(live)
        assert self.allocated_nbytes == sum(charges) + self._elsewhere_nbytes
        assert self._faults.keys() == set(handles) - set(live)
        for one in live:
            storage = self._native.storage(one)
            assert self._native.nbytes(one) == storage.nbytes()
            assert self.id_of(storage) == one
        assert self.allocated_nbytes <= max(self.quota_nbytes, 0)
        assert self.peak_nbytes >= self.allocated_nbytes


def _raise_unknown(storage_id: int) -> NoReturn:
    raise HandleUnknown(f"storage {storage_id} does not exist or was freed")
