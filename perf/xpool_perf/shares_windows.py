"""Shares from readings of device time: errors by window, percentiles. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """Device time of every tenant so far, at one moment."""

    at_s: float
    used_ns: tuple[int, ...]


def windows(readings: Sequence[Reading], length_s: int) -> Iterator[Reading]:
    """What was used within windows of about that length, one after the other.

    Args:
        readings: one each second.
        length_s: of a window.

    Yields:
        Windows; ``at_s`` of each is its real length.
    """
    for first, last in itertools.pairwise(readings[::length_s]):
        used = itertools.starmap(
            lambda after, before: after - before,
            zip(last.used_ns, first.used_ns, strict=True),
        )
        yield Reading(last.at_s - first.at_s, tuple(used))


def errors_points(
    readings: Sequence[Reading], promised: Sequence[int], length_s: int
) -> list[list[float]]:
    """Of each tenant, by window: how many points its share was off.

    Shares are of the device time that all of them got in the window: what the rest
    of the machine took from the device is nobody's fault here.
    """
    found: list[list[float]] = [[] for _ in promised]
    for window in windows(readings, length_s):
        whole = sum(window.used_ns)
        for errors, used, share in zip(found, window.used_ns, promised, strict=True):
            errors.append(abs(100 * used / whole - share) if whole else float(share))
    return found


def of_wall_percent(readings: Sequence[Reading], length_s: int) -> list[float]:
    """By window: device time of all tenants, of the time that passed."""
    return [
        100 * sum(window.used_ns) / 1e9 / window.at_s
        for window in windows(readings, length_s)
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed.

    >>> percentile([3, 1, 2], 50), percentile([1, 2, 3], 99)
    (2, 3)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
