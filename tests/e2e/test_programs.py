"""The same cases on the native ``cuda`` device and the pure-Python ``xpool`` device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
sys.path.insert(0, str(PROGRAMS))

from cases import case_names

CASES = [
    (module, device, name)
    for module, devices in (
        ("training", ("cuda", "xpool")),
        ("features", ("cuda", "xpool")),
        ("attention", ("cuda", "xpool")),
        ("cuda_only", ("cuda",)),
        ("cuda_names", ("cuda",)),
        ("graphs", ("cuda",)),
        ("compiled", ("cuda",)),
        ("sparse", ("cuda",)),
    )
    for device in devices
    for name in [*case_names(PROGRAMS / f"{module}.py"), "*"]
]


@pytest.mark.parametrize(("module", "device", "name"), CASES)
def test_case(module, device, name, outcomes):
    """``*`` is the process itself: it ended well, after all its cases."""
    found = outcomes(module, device)
    assert name in found, f"{name} never ran: {found['*']}"
    assert found[name] is None, found[name]
