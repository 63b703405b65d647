"""``Costs`` in C++: an executor's own operations are submitted while it runs them."""

# ruff: noqa: D102  the class in costs.py documents the methods

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from xpool_server.arbiter.costs import Costs

if TYPE_CHECKING:
    from xpool_server.native.library import NativeLibrary, NativeSession


class NativeCosts(Costs):
    """``Costs`` of ``native/costs.h``; of the process's lifetime, as its session is."""

    def __init__(self, library: NativeLibrary) -> None:
        pointer, word = ctypes.c_void_p, ctypes.c_uint64
        library.declare(
            ("xs_costs_new", (), pointer),
            ("xs_costs_submit", (pointer, word, word), ctypes.c_double),
            ("xs_costs_end_span", (pointer,), None),
            ("xs_costs_measured", (pointer, word), None),
            ("xs_costs_pending", (pointer,), word),
            ("xs_set_costs", (pointer, pointer), None),
        )
        self._call = library.functions
        self.pointer = self._call["xs_costs_new"]()

    def give_to(self, session: NativeSession) -> None:
        """Let a session's own operations be submitted here."""
        self._call["xs_set_costs"](session.pointer, self.pointer)

    def submit(self, exact: int, rough: int) -> float:
        return float(self._call["xs_costs_submit"](self.pointer, exact, rough))

    def end_span(self) -> None:
        self._call["xs_costs_end_span"](self.pointer)

    def measured(self, took_ns: int) -> None:
        self._call["xs_costs_measured"](self.pointer, took_ns)

    @property
    def pending_ns(self) -> int:
        return int(self._call["xs_costs_pending"](self.pointer))
