"""Fixtures of the executors' tests: each runs with the one and with the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.executor_desk import KINDS, Desk
from support.worker_client import WorkerProcess
from xpool_protocol.native_build import compiler
from xpool_server.native.build import LIBRARY


@pytest.fixture(params=KINDS, autouse=True, scope="module")
def executor_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which executor the desks and the workers of a module's tests have."""
    kind: str = request.param
    if kind == "native" and compiler() is None:
        pytest.skip("needs a C++ compiler")
    before = Desk.default_kind, WorkerProcess.executor_library
    Desk.default_kind = kind
    WorkerProcess.executor_library = LIBRARY.build() if kind == "native" else None
    yield kind
    Desk.default_kind, WorkerProcess.executor_library = before


@pytest.fixture
def desk() -> Desk:
    """A new executor on the CPU with a quota of 4 MiB."""
    return Desk()
