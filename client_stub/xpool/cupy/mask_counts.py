"""How many items a mask picks: known once somebody has asked, until it may change."""

from __future__ import annotations

from typing import Final

MAX_COUNTS: Final = 256


class MaskCounts:
    """Of one device's masks, by number.

    An epoch is how many records have been sent that may have written into an array.
    """

    __slots__ = ("_counts", "_epoch")

    def __init__(self) -> None:
        self._epoch = -1
        self._counts: dict[int, int] = {}

    def of(self, mask: int, epoch: int) -> int | None:
        """How many items a mask picks; None if that is not known.

        >>> counts = MaskCounts()
        >>> counts.learn(7, 3, 1)
        >>> counts.of(7, 1), counts.of(7, 2), counts.of(8, 1)
        (3, None, None)
        """
        return self._counts.get(mask) if epoch == self._epoch else None

    def learn(self, mask: int, count: int, epoch: int) -> None:
        """An answer has told it; nothing was written since it was asked for."""
        if epoch != self._epoch or len(self._counts) >= MAX_COUNTS:
            self._counts.clear()
        self._epoch = epoch
        self._counts[mask] = count

    def written(self, root: int, before: int, after: int) -> None:
        """Something was assigned to items of one array: other masks are as before.

        Args:
            root: the array whose memory was written to.
            before: the epoch before that record.
            after: the epoch after it.

        >>> counts = MaskCounts()
        >>> counts.learn(7, 3, 1)
        >>> counts.learn(8, 2, 1)
        >>> counts.written(8, 1, 2)
        >>> counts.of(7, 2), counts.of(8, 2)
        (3, None)
        """
        if before == self._epoch and after == before + 1:
            self._counts.pop(root, None)
            self._epoch = after
