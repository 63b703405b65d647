"""What operations are expected to take, learned by operation and geometry.

For a device that runs behind its submission: what is submitted is charged by estimate
at once, and corrected when its piece of work has been measured. The oracle of
``native/costs.h``. Pure: nothing here reads a clock or a device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

DEFAULT_NS: Final = 20_000.0
"""Of an operation that nobody knows."""

WEIGHT: Final = 0.2
"""Of the newest measurement, once there are some."""

FIRST_COUNTS: Final = 4
"""Measurements of a geometry within which one may hold what is paid but once."""

ONCE_RATIO: Final = 0.25
"""A piece that takes less than so much of its estimate says that it was paid."""

LEAST_NS: Final = 1.0
MAX_KNOWN: Final = 4096
"""Geometries; beyond, all are forgotten and learned anew."""

_OFFSET: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_MASK: Final = (1 << 64) - 1


def keys(operation: int, shapes: Iterable[Iterable[int]]) -> tuple[int, int]:
    """The exact and the rough key of a call: the same numbers as in C++.

    Args:
        operation: the session's number of it.
        shapes: of the tensors among its arguments, in order.

    >>> keys(3, [(4, 4)]) == keys(3, [(4, 4)]), keys(3, [(4, 4)]) == keys(3, [(16,)])
    (True, False)
    >>> keys(3, [(4, 4)])[1] == keys(3, [(20,)])[1]
    True
    """
    exact, items = _step(_OFFSET, operation), 0
    for shape in shapes:
        exact, product = _step(exact, 0xFF), 1
        for size in shape:
            exact, product = _step(exact, size), product * size & _MASK
        items = items + product & _MASK
    return exact, _step(_step(_OFFSET, operation), items.bit_length())


def _step(value: int, number: int) -> int:
    return (value ^ number & _MASK) * _PRIME & _MASK


@dataclass(slots=True)
class _Known:
    ns: float
    count: int = 0


@dataclass(slots=True)
class _Span:
    submitted: list[tuple[int, int, float]] = field(default_factory=list)
    sum_ns: float = 0.0


class Costs:
    """Of one session; as in ``native/costs.h``."""

    def __init__(self) -> None:
        self._exact: dict[int, _Known] = {}
        self._rough: dict[int, float] = {}
        self._spans: deque[_Span] = deque()
        self._open = _Span()
        self._ended_ns = 0.0

    @property
    def pending_ns(self) -> int:
        """Estimates of all that has been submitted and not been measured."""
        return int(self._ended_ns + self._open.sum_ns)

    def submit(self, exact: int, rough: int) -> float:
        """An operation was submitted.

        Returns:
            The estimate: of its geometry; if that is new, of one about as large.
        """
        known = self._exact.get(exact)
        estimate = known.ns if known else self._rough.get(rough, DEFAULT_NS)
        self._open.submitted.append((exact, rough, estimate))
        self._open.sum_ns += estimate
        return estimate

    def end_span(self) -> None:
        """What was submitted since the last time will be measured as one."""
        self._ended_ns += self._open.sum_ns
        self._spans.append(self._open)
        self._open = _Span()

    def measured(self, took_ns: int) -> None:
        """The oldest piece of work that nobody has measured has taken so long."""
        if not self._spans:
            return
        span = self._spans.popleft()
        self._ended_ns = self._ended_ns - span.sum_ns if self._spans else 0.0
        if not span.submitted:
            return
        ratio = took_ns / span.sum_ns
        first = {one[0]: one for one in reversed(span.submitted)}
        for exact in dict.fromkeys(one[0] for one in span.submitted):
            self._learn(*first[exact], ratio)

    def _learn(self, exact: int, rough: int, estimate: float, ratio: float) -> None:
        """All operations of a piece are off by one factor, the best known the least.

        The first of its kind may have taken far more (a kernel was loaded, memory was
        set up): it is forgotten when the next does not.
        """
        if len(self._exact) >= MAX_KNOWN and exact not in self._exact:
            self._exact.clear()
        if len(self._rough) >= MAX_KNOWN and rough not in self._rough:
            self._rough.clear()
        known = self._exact.setdefault(exact, _Known(estimate))
        if known.count <= FIRST_COUNTS and ratio < ONCE_RATIO:
            known.count = 0
        known.count += 1
        weight = max(1 / known.count, WEIGHT)
        known.ns = max(LEAST_NS, known.ns * (1 + weight * (ratio - 1)))
        self._rough[rough] = known.ns
