"""What reached this host's CUDA runtime past the remote device, in all processes.

Only a CUDA build of torch has such a runtime; a stand-in counts what comes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Escapes:
    """Launches, copies and allocations that came past the dispatcher."""

    total: int
    by_entry: Mapping[str, str]
    """How many, and the CUDA function that was called last; ``""``: at the end."""

    uncounted: tuple[str, ...]
    """Entries in which a process ended before it could tell."""

    @property
    def is_none(self) -> bool:
        """Whether it is certain that there was no escape."""
        return self.total == 0 and not self.uncounted


def escapes_in(raw: Iterable[Mapping[str, Any]]) -> Escapes:
    """The sum over the lines of all processes.

    Raises:
        KeyError: a line does not tell.
    """
    total, by_entry, uncounted = 0, {}, []
    for line in raw:
        count: int | None = line["escapes"]
        if count is None:
            uncounted.append(line["entry"])
        elif count:
            total += count
            by_entry[line["entry"]] = f"{count}, at last {line['escaped']}"
    return Escapes(total, by_entry, tuple(uncounted))
