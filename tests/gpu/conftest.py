"""A server with a CUDA device of this machine, and clients that must not see it.

``make test-gpu`` runs these. With a CUDA build of torch the client's process has a
stand-in for CUDA (ADR 0019), so one machine is client and server at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.pool import Pool
from xpool_perf.gpu_host import Missing, device_name

DEVICES = "cuda:0"


@cache
def what_is_missing() -> str | None:
    try:
        device_name()
    except Missing as what:
        return str(what)
    return None


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    mine = [one for one in items if Path(__file__).parent in one.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.gpu)
    if "not gpu" not in config.option.markexpr and mine:
        missing = what_is_missing()
        for item in mine if missing else ():
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool"), ttl="15s") as pool:
        pool.start_registry()
        arguments = ("--threads", "1", "--devices", DEVICES)
        pool.start_server("one", *arguments, light=False)
        yield pool
