"""The end-to-end cases on a CUDA server; the client's process launches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.cases_run import outcomes_of

TESTS = Path(__file__).resolve().parents[1]
E2E = TESTS / "e2e" / "programs"
sys.path.insert(0, str(E2E))

from cases import case_names

RUN_S = 300
MODULES = {
    "training": E2E,
    "features": E2E,
    "cuda_only": E2E,
    "cuda_names": E2E,
    "graphs": E2E,
    "compiled": E2E,
    "sparse": E2E,
}
CASES = [
    (module, name)
    for module, folder in MODULES.items()
    for name in [*case_names(folder / f"{module}.py"), "*"]
]


@pytest.fixture(scope="session")
def outcomes(pool: Any) -> Any:
    """What became of every case of a module; run once, kept."""

    def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        # Sums in another order differ less than what a device rounds off for speed.
        own = {"XPOOL_REGISTRY": pool.registry, "NVIDIA_TF32_OVERRIDE": "0"}
        return subprocess.run(
            [sys.executable, *arguments],
            env=pool.environment({**own, **env}),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    @cache
    def of(module: str) -> dict[str, Any]:
        return outcomes_of(run, MODULES[module], module)

    return of


@pytest.mark.parametrize(("module", "name"), CASES)
def test_case(module: str, name: str, outcomes: Any) -> None:
    """``*`` is the process itself: it ended well, after all its cases."""
    found = outcomes(module)
    assert name in found, f"{name} never ran: {found['*']}"
    assert found[name] is None, found[name]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_escapes(module: str, outcomes: Any) -> None:
    assert outcomes(module)["escapes"] == ["ESCAPED 0"]


def test_the_client_has_no_driver(pool: Any) -> None:
    """What it maps as libcuda is the stand-in; the server's worker has the real one."""
    code = (
        "import torch\n"
        "assert torch.ones(2, device='cuda').sum().item() == 2\n"
        "assert torch.cuda.get_device_name().startswith('xpool ')\n"
        "print([line.split()[-1] for line in open('/proc/self/maps')"
        " if 'libcuda.so' in line])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "xpool", "run", "-c", code],
        env=pool.environment({"XPOOL_REGISTRY": pool.registry}),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "[]\n"
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pool.workers("one")]
    assert any("libcuda.so" in text for text in maps)
    assert os.environ.get("LD_PRELOAD") is None
