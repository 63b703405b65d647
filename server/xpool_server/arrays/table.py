"""The session's arrays: their numbers, and what they take from the quota.

A number names an object or the fault that poisoned it. Memory is charged once for each
owner: views of an array share its charge, and it ends with the last of them. An object
that is no array, such as a sparse matrix, is charged for the arrays that it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from xpool_protocol.errors import ArgumentInvalid, HandleUnknown, PeerError
from xpool_protocol.messages import Fault

from xpool_server.arrays.store import ABSENT, ArrayStore
from xpool_server.faults import Poisoned
from xpool_server.storages import MAX_HANDLES, charged_nbytes


class Ledger(Protocol):
    """The session's ledger of memory, which storages share."""

    def check_room(self, nbytes: int) -> None:
        """Refuse what the quota does not hold."""

    def charge_elsewhere(self, nbytes: int) -> None:
        """Charge memory that is no storage's, or, if negative, give it back."""


class ArrayTable:
    """Numbers and what they name."""

    def __init__(
        self,
        ledger: Ledger,
        array_type: type,
        parts_of: Callable[[Any], Iterable[Any]],
        store: ArrayStore,
    ) -> None:
        """No numbers yet.

        Args:
            ledger: what memory is charged to.
            array_type: of the library's arrays.
            parts_of: the arrays that an object of another type is made of.
            store: where they are kept.
        """
        self._ledger = ledger
        self._array_type = array_type
        self._parts_of = parts_of
        self.store = store
        self._parts: dict[int, list[Any]] = {}
        """Of an object's number: the owners that it is charged for."""

    def __contains__(self, number: int) -> bool:
        return number in self.store

    def __len__(self) -> int:
        return len(self.store)

    def items(self) -> list[tuple[int, Any]]:
        """All numbers, and what they name: objects, and faults."""
        return self.store.items()

    def find(self, number: int) -> Any:
        """What a number names, a fault as it is; None if nothing."""
        found = self.store.find(number)
        return None if found is ABSENT else found

    def get(self, number: int) -> Any:
        """What a number names.

        Raises:
            HandleUnknown: nothing.
            Poisoned: an earlier failure has poisoned it.
        """
        found = self.store.find(number)
        if found is ABSENT:
            raise HandleUnknown(f"array {number} does not exist or was freed")
        if type(found) is Fault:
            raise Poisoned(found)
        return found

    def check_new(self, number: int) -> None:
        """Refuse a number that is in use.

        Raises:
            ArgumentInvalid: it is.
            PeerError: the session names too many objects.
        """
        if number in self.store:
            raise ArgumentInvalid(f"array {number} exists already")
        if len(self.store) >= MAX_HANDLES:
            raise PeerError(f"more than {MAX_HANDLES} arrays are named at once")

    def add(self, number: int, found: Any, is_charged: bool = False) -> None:
        """Give an object its number, and charge it.

        Args:
            number: of the client's.
            found: the object.
            is_charged: its memory is charged already, as a storage's.

        Raises:
            ArgumentInvalid: the number is in use.
            QuotaExceeded: there is no room.
        """
        self.check_new(number)
        if isinstance(found, self._array_type):
            self._charge(found, is_charged)
            self.store.set(number, found, owner_of(found))
        else:
            self._charge_parts(number, found)
            self.store.set(number, found)

    def recharge(self, number: int) -> None:
        """Charge an object anew: a call may have changed what it is made of.

        Raises:
            QuotaExceeded: there is no room. It keeps its parts: they are charged.
        """
        found = self.find(number)
        if found is None or type(found) is Fault:
            return
        before = self._parts.pop(number, [])
        try:
            self._charge_parts(number, found, is_forced=True)
        finally:
            for one in before:
                self._discharge(one)
        self._ledger.check_room(0)

    def poison(self, number: int, fault: Fault) -> None:
        """Make a number stand for a fault; what it named is dropped."""
        if number in self.store:
            self.free(number)
        else:
            self.check_new(number)
        self.store.set(number, fault)

    def sharing(self, number: int) -> list[int]:
        """All numbers whose arrays lie in the memory of this one's."""
        found = self.find(number)
        if not isinstance(found, self._array_type):
            return [number]
        owner = owner_of(found)
        return [
            other
            for other, one in self.store.items()
            if isinstance(one, self._array_type) and owner_of(one) is owner
        ]

    def free(self, number: int) -> None:
        """Forget a number.

        Raises:
            HandleUnknown: it names nothing.
        """
        found = self.store.remove(number)
        if found is ABSENT:
            raise HandleUnknown(f"array {number} does not exist or was freed")
        if type(found) is Fault:
            return
        if isinstance(found, self._array_type):
            self._discharge(found)
        for one in self._parts.pop(number, ()):
            self._discharge(one)

    def _charge_parts(self, number: int, found: Any, is_forced: bool = False) -> None:
        charged: list[Any] = []
        try:
            for one in self._parts_of(found):
                self._charge(one, is_charged=False, is_forced=is_forced)
                charged.append(owner_of(one))
        except BaseException:
            for one in charged:
                self._discharge(one)
            raise
        if charged:
            self._parts[number] = charged

    def _charge(self, array: Any, is_charged: bool, is_forced: bool = False) -> None:
        owner = owner_of(array)
        if self.store.hold(owner):
            return
        charge = 0 if is_charged else charged_nbytes(owner.nbytes)
        if not is_forced:
            self._ledger.check_room(charge)
        self._ledger.charge_elsewhere(charge)
        self.store.add_owner(owner, charge)

    def _discharge(self, array: Any) -> None:
        charge = self.store.release(owner_of(array))
        if charge is not None:
            self._ledger.charge_elsewhere(-charge)

    def validate(self) -> None:
        """Check the table's own rules."""
        owners: dict[int, int] = {}
        numbers = set()
        for number, found in self.store.items():
            numbers.add(number)
            if isinstance(found, self._array_type):
                key = id(owner_of(found))
                owners[key] = owners.get(key, 0) + 1
        for parts in self._parts.values():
            for one in parts:
                owners[id(one)] = owners.get(id(one), 0) + 1
        assert self._parts.keys() <= numbers
        assert len(numbers) == len(self.store)
        assert owners == self.store.holds()


def owner_of(array: Any) -> Any:
    """The array whose memory this one views; itself if it has its own."""
    kind = type(array)
    while True:
        base = array.base
        if type(base) is not kind:
            # as_strided puts an object of its own between.
            base = getattr(base, "base", None)
            if type(base) is not kind:
                return array
        array = base
