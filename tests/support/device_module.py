"""A device module as torch's documents describe one, with a clock that a test drives.

Storages are plain memory, so that torch's own kernels compute; time on the device is
what the test says. Submitted work takes ``cost_ns`` each and is over when the test's
clock has come so far: events say what a device's would.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

TOTAL_NBYTES = 16 << 30


class DeviceClock:
    """Of one device: what is queued, and how far it has come."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.queued_until_ns = 0
        self.waits: list[int] = []
        """How far somebody has waited for it, each time."""

    def submit(self, cost_ns: int) -> None:
        """Work that the device does after what it has."""
        begins_ns = max(self.now_ns, self.queued_until_ns)
        self.queued_until_ns = begins_ns + cost_ns

    def run_until(self, at_ns: int) -> None:
        """Time passes."""
        self.now_ns = max(self.now_ns, at_ns)

    def wait_until(self, at_ns: int) -> None:
        """Somebody waits."""
        self.waits.append(at_ns)
        self.run_until(at_ns)


class FakeEvent:
    """As ``torch.Event``: it tells a time only if it was made to, and is set."""

    def __init__(self, module: FakeModule, *, enable_timing: bool = False) -> None:
        self._module = module
        self._has_time = enable_timing
        self._at_ns: int | None = None

    def record(self) -> None:
        clock = self._module.clock
        self._module.raise_if_failed()
        clock.submit(self._module.cost_ns)
        self._at_ns = clock.queued_until_ns

    def query(self) -> bool:
        self._module.raise_if_failed()
        return self._at_ns is None or self._module.clock.now_ns >= self._at_ns

    def synchronize(self) -> None:
        self._module.raise_if_failed()
        if self._at_ns is not None:
            self._module.clock.wait_until(self._at_ns)

    def elapsed_time(self, end_event: FakeEvent) -> float:
        if not (self._has_time and end_event._has_time):
            raise ValueError("an event without enable_timing tells no time")
        if self._at_ns is None or end_event._at_ns is None:
            raise RuntimeError("an event that was not recorded tells no time")
        if not end_event.query():
            raise RuntimeError("the device has not passed it")
        return (end_event._at_ns - self._at_ns) / 1e6


class FakeModule:
    """What ``torch.npu`` and the others have in common; ``lacks`` is taken away."""

    __name__ = "torch.fake"

    def __init__(self, *lacks: str, count: int = 1) -> None:
        self.clock = DeviceClock()
        self.cost_ns = 0
        """Of what lies between two events that follow each other."""
        self.has_failed = False
        self.fraction: float | None = None
        self._lacks = lacks
        self._count = count
        self.default_generators = [torch.default_generator] * count

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._lacks:
            raise AttributeError(name)
        return super().__getattribute__(name)

    def raise_if_failed(self) -> None:
        if self.has_failed:
            raise RuntimeError("the device has failed")

    def device_count(self) -> int:
        return self._count

    def set_device(self, device: torch.device | int) -> None:
        self.raise_if_failed()

    def get_device_name(self, index: int) -> str:
        return "Abacus 910"

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(
            name="Abacus 910", total_memory=TOTAL_NBYTES, cube_core_num=24
        )

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return TOTAL_NBYTES // 2, TOTAL_NBYTES

    def memory_reserved(self, device: torch.device) -> int:
        return 5 << 20

    def memory_allocated(self, device: torch.device) -> int:
        return 3 << 20

    def set_per_process_memory_fraction(
        self, fraction: float, device: torch.device
    ) -> None:
        self.fraction = fraction

    def synchronize(self, device: torch.device | None = None) -> None:
        self.raise_if_failed()
        self.clock.wait_until(self.clock.queued_until_ns)

    def Event(self, *, enable_timing: bool = False) -> FakeEvent:
        return FakeEvent(self, enable_timing=enable_timing)
