"""Waiting for a condition, with a deadline: what a test does instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def eventually(get: Callable[[], T | None], what: str, timeout_s: float = 10.0) -> T:
    """The first true value of ``get()``; fails after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = get()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"within {timeout_s:g} s it did not happen: {what}")
        time.sleep(POLL_S)
