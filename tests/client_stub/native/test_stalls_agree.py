"""When a stalled server is told of: the rule, and that both implementations agree."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.probes import built_probe
from xpool.native import build
from xpool.stall import STALL_NS, Stall

START_NS: Final = 10**15
ROOM: Final = 400

Fact = tuple[int, int, int]
"""Nanoseconds since the last look, bytes sent since, bytes queued."""

facts = st.lists(
    st.tuples(
        st.integers(0, STALL_NS),
        st.sampled_from([0, 0, 0, 1, 1 << 20]),
        st.integers(0, 1 << 40),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Path(__file__).with_name("stall_probe.cpp")
    library = built_probe(build.LIBRARY, source, tmp_path_factory.mktemp("probe"))
    library.probe_new.argtypes = [ctypes.c_uint64, ctypes.c_int64]
    library.probe_new.restype = ctypes.c_void_p
    library.probe_delete.argtypes = [ctypes.c_void_p]
    library.probe_notice.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64),
        *(ctypes.c_char_p, ctypes.c_size_t),
    ]
    library.probe_notice.restype = None
    return library


@given(facts)
def test_both_say_the_same(probe: Any, facts: Sequence[Fact]) -> None:
    sent, now_ns = 7, START_NS
    stall, native = Stall(sent, now_ns), probe.probe_new(sent, now_ns)
    for elapsed_ns, more, queued in facts:
        now_ns, sent = now_ns + elapsed_ns, sent + more
        said = ctypes.create_string_buffer(ROOM)
        probe.probe_notice(native, sent, queued, now_ns, said, ROOM)
        assert said.value.decode() == (stall.notice(sent, queued, now_ns) or "")
    probe.probe_delete(native)


def test_a_stall_is_told_of_once_and_the_next_one_again() -> None:
    stall = Stall(0, 0)
    assert stall.notice(0, 1, STALL_NS - 1) is None
    said = stall.notice(0, 17 << 20, STALL_NS)
    assert said is not None
    assert "17 MiB are queued" in said
    assert stall.notice(0, 1, 9 * STALL_NS) is None
    assert stall.notice(1, 1, 9 * STALL_NS) is None
    assert stall.notice(1, 1, 10 * STALL_NS) is not None


def test_a_slow_server_is_no_stalled_one() -> None:
    stall = Stall(0, 0)
    for number in range(1, 50):
        assert stall.notice(number, 1, number * (STALL_NS - 1)) is None
