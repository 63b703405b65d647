"""A CPU build and a CUDA build of torch send the same bytes of the same programs.

``SERVER_PYTHON`` has the CPU build. Both clients run against a worker of that build, so
that the server tells both the same of what its device lacks.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.leased_script import run_leased
from support.recorded import Recorded, comparable, explained, loaded
from xpool_protocol.records import Free, read_records

HERE = Path(__file__).parent
SCRIPTS = HERE.parent / "client_stub" / "torch" / "programs"
RECORDING = SCRIPTS / "recording.py"
sys.path.insert(0, str(SCRIPTS))

from recorded_programs import PROGRAMS

Items = list[tuple[Any, ...]]
CPU_PYTHON = os.environ.get("SERVER_PYTHON", "")

RUN_S = 900.0

pytestmark = pytest.mark.skipif(
    not CPU_PYTHON, reason="SERVER_PYTHON names no interpreter with a CPU build"
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a client has sent, per program; ``recorded(python, module)``."""
    folder = tmp_path_factory.mktemp("recorded")

    @cache
    def of(python: str, module: str) -> Recorded:
        file = folder / f"{len(list(folder.iterdir()))}"
        ended = run_leased(
            *(RECORDING, "cuda", str(file), module),
            memory_nbytes=1 << 31,
            env={"PYTHONPATH": str(HERE / "programs")},
            python=python,
            server_python=CPU_PYTHON,
            timeout_s=RUN_S,
        )
        return loaded(file, ended)

    return of


def compare(cpu: Items, cuda: Items, program: str) -> None:
    if cpu != cuda:
        assert explained(cpu) == explained(cuda), program
    assert cpu == cuda, program


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_builds_send_the_same(recorded: Any, program: str) -> None:
    """To the last number: storages, operations, requests and generators too."""
    cpu, cuda = (
        comparable(recorded(python, "recorded_programs")[program])
        for python in (CPU_PYTHON, sys.executable)
    )
    assert cuda, "nothing was recorded"
    compare(cpu, cuda, program)


def test_both_builds_send_the_same_of_torchs_suites(recorded: Any) -> None:
    """Entries from all over the suites, with one sample each.

    When a storage is freed is not compared here: autograd's own thread lets go of what
    it has done when it comes to it. That the same ones are, is.
    """
    cpu = recorded(CPU_PYTHON, "suite_programs")
    cuda = recorded(sys.executable, "suite_programs")
    assert list(cpu) == list(cuda)
    assert sum(bool(batches) for batches in cpu.values()) > 400
    freed: tuple[list[bytes], list[bytes]] = [], []
    for program in cpu:
        kept = []
        for side, batches in zip(freed, (cpu[program], cuda[program]), strict=True):
            items = comparable(batches)
            side += [one[0] for one in items if is_free(one)]
            kept.append([one for one in items if not is_free(one)])
        compare(*kept, program)
    assert sorted(freed[0]) == sorted(freed[1])


def is_free(item: tuple[Any, ...]) -> bool:
    data = item[0]
    return isinstance(data, bytes) and isinstance(next(read_records(data)), Free)
