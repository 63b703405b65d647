"""What ``--devices`` means."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from xpool_protocol.errors import UsageError
from xpool_server.devices import DeviceInfo, discover
from xpool_server.devices.discovery import cpu_name, machine_memory_nbytes

ROOT = Path(__file__).resolve().parents[3]
GIB = 1 << 30

no_cuda = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a CUDA device here"
)


def cpu(index: int, memory_nbytes: int) -> DeviceInfo:
    return DeviceInfo(
        index=index,
        kind="cpu",
        name=cpu_name(),
        memory_nbytes=memory_nbytes,
        torch_device="cpu",
        architecture=platform.machine(),
    )


@pytest.mark.parametrize(
    ("spec", "count", "memory_nbytes"),
    [
        ("cpu", 1, machine_memory_nbytes() // 2),
        (" cpu ", 1, machine_memory_nbytes() // 2),
        ("cpu:1", 1, machine_memory_nbytes() // 2),
        ("cpu:2", 2, machine_memory_nbytes() // 4),
        ("cpu,memory=512MiB", 1, GIB // 2),
        ("cpu:2,memory=4GiB", 2, 4 * GIB),
    ],
)
def test_cpu_devices(spec: str, count: int, memory_nbytes: int) -> None:
    assert discover(spec) == [cpu(index, memory_nbytes) for index in range(count)]


@no_cuda
def test_nothing_said_and_no_cuda_is_one_cpu() -> None:
    assert discover(None) == [cpu(0, machine_memory_nbytes() // 2)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_every_cuda_device() -> None:
    devices = discover(None)
    assert [one.torch_device for one in devices] == [
        f"cuda:{index}" for index in range(torch.cuda.device_count())
    ]
    assert discover("cuda") == devices
    assert discover("cuda:0") == devices[:1]
    assert all(one.memory_nbytes > GIB for one in devices)


@no_cuda
@pytest.mark.parametrize("spec", ["cuda", "cuda:0", "cuda:0,1"])
def test_cuda_that_is_not_there(spec: str) -> None:
    with pytest.raises(UsageError, match=r"CUDA device"):
        discover(spec)


@pytest.mark.parametrize(
    "spec",
    [
        *("", "gpu", "cpu:", "cpu:x", "cpu:-1", "cpu:1.5", "cpu:٢", "cpu:9999999999"),
        *("cpu,", "cpu,memory", "cpu,size=1GiB", "cpu,memory=1GiB,memory=1GiB"),
        *("cpu:2:3", "tpu:0", "cuda:x", "cuda:0,", "cuda:0,memory=1GiB", "cpu 2"),
    ],
)
def test_what_is_no_device_list(spec: str) -> None:
    with pytest.raises(UsageError, match=r"is not a device list: write for"):
        discover(spec)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("cpu:0", "asks for 0 devices"),
        ("cpu:65", "1 to 64"),
        ("cuda:0,0", "names a device twice"),
        ("cpu,memory=1XB", "'1XB' is not a memory size"),
        ("cpu,memory=0", "out of range"),
    ],
)
def test_what_makes_no_sense(spec: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        discover(spec)


def test_the_cpu_is_found_without_the_framework() -> None:
    code = (
        "import sys; from xpool_server.devices import discover\n"
        "assert discover('cpu:2'); assert 'torch' not in sys.modules"
    )
    paths = {"PYTHONPATH": f"{ROOT}/protocol:{ROOT}/server"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | paths)
