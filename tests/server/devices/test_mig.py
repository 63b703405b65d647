"""Divided GPUs, from texts that ``nvidia-smi -L`` prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_server.devices.discovery import devices_of
from xpool_server.devices.mig import Instance, instances

GIB = 1 << 30
A100 = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-f7a3ba9a-1d2c-4a11-9e02-0d5f6b3f1c11)
"""
OLD = """\
GPU 0: A100-PCIE-40GB (UUID: GPU-1a2b)
  MIG 1c.2g.10gb Device 0: (UUID: MIG-GPU-1a2b/1/0)
"""
WHOLE = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-00aa)\n"


def test_a_divided_gpu_is_its_instances_and_a_whole_one_is_itself() -> None:
    first, second, whole = instances(A100)
    assert (first.profile, first.memory_nbytes) == ("3g.20gb", 20 * GIB)
    assert (second.profile, second.memory_nbytes) == ("1g.5gb+me", 5 * GIB)
    assert first.uuid == "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
    assert (whole.gpu_index, whole.profile, whole.memory_nbytes) == (1, "", None)
    assert first.name == "NVIDIA A100-SXM4-40GB 3g.20gb"


def test_the_form_of_older_drivers() -> None:
    (one,) = instances(OLD)
    assert (one.uuid, one.memory_nbytes) == ("MIG-GPU-1a2b/1/0", 10 * GIB)


@pytest.mark.parametrize("text", ["", "No devices were found\n", "  MIG 1g.5gb x\n"])
def test_nothing_to_find(text: str) -> None:
    assert instances(text) == []


def test_a_whole_gpu_alone() -> None:
    assert instances(WHOLE) == [Instance(0, "NVIDIA H100 80GB HBM3", "GPU-00aa")]


def test_instances_are_devices_that_their_workers_see_alone() -> None:
    first, second = devices_of(instances(A100))
    assert (first.index, second.index) == (0, 1)
    assert first.torch_device == second.torch_device == "cuda:0"
    assert second.visible == "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for one in instances(text):
        assert one.uuid
