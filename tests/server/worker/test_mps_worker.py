"""A worker under ``--mps-pipe``: it opens its device when it knows its slice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support.worker_client import WorkerClient, WorkerProcess, data_of, lease
from xpool_protocol.records import Allocate, Read, Write
from xpool_server.devices.mps import MEMORY_VARIABLE, PIPE_VARIABLE, SHARE_VARIABLE
from xpool_server.worker import device_opener

VARIABLES = (PIPE_VARIABLE, SHARE_VARIABLE, MEMORY_VARIABLE)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set before, and none stays."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "of somebody else")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("clean")
def test_the_slice_is_in_the_environment_before_the_device_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, str | None]] = []

    def opened(name: str, modules: object = ()) -> object:
        seen.append({one: os.environ.get(one) for one in VARIABLES} | {"name": name})
        return object()

    monkeypatch.setattr("xpool_server.devices.open_backend", opened)
    open_device = device_opener("cuda:1", Path("/run/mps/pipe"), ())
    assert seen == [], "a context that is made now would have no bounds"
    assert not any(name in os.environ for name in VARIABLES)
    open_device(lease(3 << 30))
    assert seen == [
        {
            PIPE_VARIABLE: "/run/mps/pipe",
            SHARE_VARIABLE: "50",
            MEMORY_VARIABLE: "1=3072M",
            "name": "cuda:1",
        }
    ]


@pytest.mark.usefixtures("clean")
def test_without_mps_the_device_is_open_before_a_lease_comes() -> None:
    open_device = device_opener("cpu", None, ())
    assert open_device(lease()) is open_device(lease())
    assert not any(name in os.environ for name in VARIABLES)


def test_a_whole_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands in for the device: the order of steps is the worker's own."""
    arguments = ("--mps-pipe", str(tmp_path))
    monkeypatch.setattr(WorkerProcess, "further_arguments", arguments)
    with WorkerClient.open(1 << 26) as client:
        assert client.welcome is not None
        assert client.welcome.share_percent == 50
        assert client.welcome.memory_nbytes == 1 << 26
        data = bytes(torch.arange(8, dtype=torch.uint8).tolist())
        client.run(Allocate(1, 8), Write(1, 0, 8, 0, data))
        assert data_of(client.answer(lambda one: Read(one, 1, 0, 8))) == data
