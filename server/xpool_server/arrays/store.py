"""Where a session's arrays are kept: objects by number, and who holds what memory.

``ArrayTable`` has the rules; this only keeps. ``NativeArrayStore`` keeps the same in
C++, where rows of records are executed.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

ABSENT: Final = object()
"""What a number names that names nothing."""


class ArrayStore(Protocol):
    """Objects by number, and the arrays whose memory is charged."""

    def __contains__(self, number: int) -> bool:
        """Whether a number names something."""

    def __len__(self) -> int:
        """How many do."""

    def find(self, number: int) -> Any:
        """What a number names; ``ABSENT`` if nothing."""

    def set(self, number: int, found: Any, owner: Any = None) -> None:
        """Let a number name an object.

        Args:
            number: of the client's.
            found: the object.
            owner: of an array: the one whose memory it views, which is held for it.
        """

    def remove(self, number: int) -> Any:
        """What a number named, and names no more; ``ABSENT`` if nothing.

        Its owner stays held.
        """

    def items(self) -> list[tuple[int, Any]]:
        """All numbers, and what they name."""

    def hold(self, owner: Any) -> bool:
        """Hold an array's memory once more; false if nobody holds it yet."""

    def add_owner(self, owner: Any, charge: int) -> None:
        """Hold an array's memory for the first time, at so many bytes."""

    def release(self, owner: Any) -> int | None:
        """Let go of an array's memory once.

        Returns:
            What it was charged, if that was the last hold.

        Raises:
            KeyError: nobody holds it.
        """

    def holds(self) -> dict[int, int]:
        """How often memory is held, by its owner's id."""


class DictStore:
    """Kept in dictionaries."""

    def __init__(self) -> None:
        self._table: dict[int, Any] = {}
        self._owners: dict[int, list[int]] = {}
        """By an owner's id: how often it is held, and its charge."""

    def __contains__(self, number: int) -> bool:
        return number in self._table

    def __len__(self) -> int:
        return len(self._table)

    def find(self, number: int) -> Any:
        """What a number names; ``ABSENT`` if nothing."""
        return self._table.get(number, ABSENT)

    def set(self, number: int, found: Any, owner: Any = None) -> None:
        """Let a number name an object; what views memory needs no owner here."""
        self._table[number] = found

    def remove(self, number: int) -> Any:
        """What a number named, and names no more."""
        return self._table.pop(number, ABSENT)

    def items(self) -> list[tuple[int, Any]]:
        """All numbers, and what they name."""
        return list(self._table.items())

    def hold(self, owner: Any) -> bool:
        """Hold an array's memory once more; false if nobody holds it yet."""
        row = self._owners.get(id(owner))
        if row is None:
            return False
        row[0] += 1
        return True

    def add_owner(self, owner: Any, charge: int) -> None:
        """Hold an array's memory for the first time, at so many bytes."""
        self._owners[id(owner)] = [1, charge]

    def release(self, owner: Any) -> int | None:
        """Let go of an array's memory once; its charge, if that was the last hold.

        Raises:
            KeyError: nobody holds it.
        """
        row = self._owners[id(owner)]
        row[0] -= 1
        if row[0]:
            return None
        del self._owners[id(owner)]
        return row[1]

    def holds(self) -> dict[int, int]:
        """How often memory is held, by its owner's id."""
        return {key: row[0] for key, row in self._owners.items()}
