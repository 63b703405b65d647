"""Programs on the remote device with a CUDA build of torch; nothing escapes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
E2E = HERE.parent / "e2e" / "programs"
sys.path.insert(0, str(E2E))

from cases import case_names

MODULES = {
    "training": E2E,
    "features": E2E,
    "cuda_only": E2E,
    "cuda_names": E2E,
    "direct": HERE / "programs",
}
CASES = [
    (module, name)
    for module, folder in MODULES.items()
    for name in [*case_names(folder / f"{module}.py"), "*"]
]


@pytest.mark.parametrize(("module", "name"), CASES)
def test_case(module, name, outcomes):
    found = outcomes(MODULES[module], module)
    assert name in found, f"{name} never ran: {found['*']}"
    assert found[name] is None, found[name]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_escapes(module, outcomes):
    assert outcomes(MODULES[module], module)["escapes"] == ["ESCAPED 0"]
