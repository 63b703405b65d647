"""Buffers between network and device: used in turn, never too early, all given back.

The device here is lazy: a copy takes place when somebody waits for it, so a buffer
that is used again too early, or is not waited for, shows as wrong bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_server.devices.pinned import PER_TRANSFER, Intake, SlotPool, outflow

PART = 7


class LazySlot:
    made = 0

    def __init__(self) -> None:
        LazySlot.made += 1
        self.view = memoryview(bytearray(PART))
        self.copy: Callable[[], None] | None = None

    def wait(self) -> None:
        copy, self.copy = self.copy, None
        if copy is not None:
            copy()


class Device:
    def __init__(self, data: bytes) -> None:
        self.memory = bytearray(data)
        self.fails_at: int | None = None

    def fetch(self, slot: LazySlot, at: int, nbytes: int) -> None:
        def copy() -> None:
            if self.fails_at == at:
                raise RuntimeError("the device has failed")
            self.memory[at : at + nbytes] = slot.view[:nbytes]

        assert slot.copy is None, "the buffer is still in use"
        slot.copy = copy

    def fill(self, slot: LazySlot, at: int, nbytes: int) -> None:
        def copy() -> None:
            slot.view[:nbytes] = self.memory[at : at + nbytes]

        assert slot.copy is None, "the buffer is still in use"
        slot.copy = copy


def bring(intake: Intake[LazySlot], data: bytes) -> None:
    for at in range(0, len(data), PART):
        part = data[at : at + PART]
        room = intake.room(at, len(part))
        room[:] = part
        intake.filled(at, len(part))


@given(st.binary(max_size=60))
def test_what_comes_in_is_on_the_device_when_it_is_closed(data: bytes) -> None:
    device, pool = Device(bytes(len(data))), SlotPool(LazySlot)
    intake = Intake(pool, device.fetch)
    bring(intake, data)
    intake.close()
    assert bytes(device.memory) == data


@given(st.binary(max_size=60))
def test_what_goes_out_is_what_the_device_holds(data: bytes) -> None:
    device = Device(data)
    parts = outflow(SlotPool(LazySlot), device.fill, len(data), PART)
    assert b"".join(bytes(part) for part in parts) == data


def test_buffers_are_shared_by_transfers_one_after_the_other() -> None:
    device, pool = Device(bytes(100)), SlotPool(LazySlot)
    LazySlot.made = 0
    for _ in range(5):
        intake = Intake(pool, device.fetch)
        bring(intake, bytes(range(100)))
        intake.close()
        assert b"".join(map(bytes, outflow(pool, device.fill, 100, PART))) == bytes(
            range(100)
        )
    assert LazySlot.made == PER_TRANSFER


def test_transfers_at_the_same_time_have_their_own() -> None:
    first, second = Device(bytes(50)), Device(bytes(50))
    pool = SlotPool(LazySlot)
    one, other = Intake(pool, first.fetch), Intake(pool, second.fetch)
    for at in range(0, 49, PART):
        for intake, value in ((one, 1), (other, 2)):
            intake.room(at, PART)[:] = bytes([value]) * PART
            intake.filled(at, PART)
    one.close()
    other.close()
    assert bytes(first.memory[:49]) == b"\1" * 49
    assert bytes(second.memory[:49]) == b"\2" * 49


def test_a_reader_that_stops_early_gives_the_buffers_back() -> None:
    pool = SlotPool(LazySlot)
    LazySlot.made = 0
    for _ in range(3):
        parts = outflow(pool, Device(bytes(100)).fill, 100, PART)
        next(parts)
        parts.close()  # type: ignore[attr-defined]
    assert LazySlot.made <= PER_TRANSFER


def test_a_copy_that_failed_is_told_when_it_is_waited_for() -> None:
    device, pool = Device(bytes(10)), SlotPool(LazySlot)
    device.fails_at = 0
    intake = Intake(pool, device.fetch)
    bring(intake, bytes(10))
    with pytest.raises(RuntimeError, match="the device has failed"):
        intake.close()
