"""What tells that a batch has changed since it went ahead."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.probes import built_probe
from xpool.native import build


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], int]:
    source = Path(__file__).with_name("fingerprint_probe.cpp")
    library = built_probe(build.LIBRARY, source, tmp_path_factory.mktemp("probe"))
    library.probe_fingerprint.argtypes = [ctypes.c_char_p, ctypes.c_uint64]
    library.probe_fingerprint.restype = ctypes.c_uint64
    return lambda data: int(library.probe_fingerprint(data, len(data)))


@given(data=st.binary(max_size=200), places=st.data())
def test_a_byte_that_differs_shows(
    fingerprint: Callable[[bytes], int], data: bytes, places: st.DataObject
) -> None:
    assert fingerprint(data) == fingerprint(bytes(data))
    if data:
        at = places.draw(st.integers(0, len(data) - 1))
        other = places.draw(st.integers(1, 255))
        changed = data[:at] + bytes([data[at] ^ other]) + data[at + 1 :]
        assert fingerprint(changed) != fingerprint(data)


@given(st.binary(max_size=100))
def test_bytes_that_are_missing_show(
    fingerprint: Callable[[bytes], int], data: bytes
) -> None:
    assert fingerprint(data + b"\0") != fingerprint(data)


def test_bytes_that_changed_places_show(fingerprint: Callable[[bytes], int]) -> None:
    words = [bytes([n]) * 8 for n in range(16)]
    seen = {fingerprint(b"".join(words))}
    for i in range(16):
        for j in range(i):
            swapped = list(words)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            seen.add(fingerprint(b"".join(swapped)))
    assert len(seen) == 1 + 16 * 15 // 2
