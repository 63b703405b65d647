"""Durations for people."""

from __future__ import annotations


def age(seconds: float) -> str:
    """A duration for people, in its largest unit.

    >>> [age(s) for s in (-1, 59.4, 90 * 60, 3 * 86_400)]
    ['0 s', '59 s', '2 h', '3 d']
    """
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
