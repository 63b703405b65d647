"""How long something took, many times: counts in steps, for a histogram."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

LIMITS_S: Final = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005),
    *(0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
)
"""Upper ends of the steps; what took longer is in one more."""


class Durations:
    """Counted by one thread; read by any.

    >>> took = Durations()
    >>> for ns in (50_000, 100_000, 2_500_000, 3_000_000_000):
    ...     took.add(ns)
    >>> [count for _, count in took.cumulative()][-3:], took.sum_s
    ([3, 3, 4], 3.00265)
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(LIMITS_S) + 1)
        self._sum_ns = 0

    def add(self, took_ns: int) -> None:
        """Once more."""
        self._counts[bisect_left(LIMITS_S, took_ns / 1e9)] += 1
        self._sum_ns += took_ns

    @property
    def sum_s(self) -> float:
        """All of them together."""
        return self._sum_ns / 1e9

    def cumulative(self) -> list[tuple[str, int]]:
        """For each upper end, as Prometheus writes it, how many were no longer."""
        total, steps = 0, []
        for limit, count in zip(
            [*map(str, LIMITS_S), "+Inf"], list(self._counts), strict=True
        ):
            total += count
            steps.append((limit, total))
        return steps
