"""The page of memory that a device's workers and their node share.

Its layout is ``native/arbiter.h``'s. It lies in an anonymous file whose descriptor the
workers inherit, and goes with the last of them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

from xpool_server.arbiter.policies import BY_NUMBER
from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import Place, Settings

SLOTS: Final = 256
_HEADER_WORDS: Final = 64
_SLOT_WORDS: Final = 32
NBYTES: Final = 8 * (_HEADER_WORDS + SLOTS * _SLOT_WORDS)

HEADER: Final = (
    *("holder", "attention", "virtual_ns", "policy", "quantum_ns", "lag_ns"),
    *("burst_ns", "starvation_ns", "slot_limit", "grants", "interrupts"),
    *("pause_ns", "pause_lag_ns"),
)
SLOT: Final = (
    *("place", "virtual_ns", "share_percent", "priority", "is_capped", "since_ns"),
    *("tokens_ns", "tokens_at_ns", "used_ns", "waited_ns", "longest_ns", "turns"),
    *("pid", "wake", "is_leaving", "is_overdue", "is_called"),
    *("yields_at_once", "held_ns", "left_ns", "pending_ns"),
    "came_ns",
)

_SYS_FUTEX: Final = 202
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_ALL: Final = (1 << 31) - 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_syscall: Final = ctypes.CDLL(None, use_errno=True).syscall


class _Word:
    """One word of a page, as an attribute."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, owner: _Words, kind: type | None = None) -> int:
        return owner.words[owner.base + self._index]

    def __set__(self, owner: _Words, value: int) -> None:
        owner.words[owner.base + self._index] = value


class _Words:
    def __init__(self, words: memoryview[int], base: int) -> None:
        self.words = words
        self.base = base


class Slot(_Words):
    """One worker's slot: a ``Tenant``."""

    place = _Word(0)
    virtual_ns = _Word(1)
    share_percent = _Word(2)
    priority = _Word(3)
    is_capped = _Word(4)
    since_ns = _Word(5)
    tokens_ns = _Word(6)
    tokens_at_ns = _Word(7)
    used_ns = _Word(8)
    waited_ns = _Word(9)
    longest_ns = _Word(10)
    turns = _Word(11)
    pid = _Word(12)
    is_leaving = _Word(14)
    is_overdue = _Word(15)
    is_called = _Word(16)
    yields_at_once = _Word(17)
    held_ns = _Word(18)
    left_ns = _Word(19)
    pending_ns = _Word(20)
    came_ns = _Word(21)


class Page(_Words):
    """The header and the slots of one device. Words are signed 64-bit numbers."""

    holder = _Word(0)
    """Slot + 1; 0: the device is free."""
    attention = _Word(1)
    virtual_ns = _Word(2)
    policy_number = _Word(3)
    quantum_ns = _Word(4)
    lag_ns = _Word(5)
    burst_ns = _Word(6)
    starvation_ns = _Word(7)
    slot_limit = _Word(8)
    grants = _Word(9)
    interrupts = _Word(10)
    pause_ns = _Word(11)
    pause_lag_ns = _Word(12)

    def __init__(self, fileno: int) -> None:
        """Map the page that a descriptor leads to."""
        self.fileno = fileno
        self._map = mmap.mmap(fileno, NBYTES)
        super().__init__(memoryview(self._map).cast("q"), 0)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    @classmethod
    def create(cls, policy: Policy) -> Page:
        """A page that nobody uses yet, with a policy in it."""
        fileno = os.memfd_create("xpool-arbiter")
        os.ftruncate(fileno, NBYTES)
        page = cls(fileno)
        settings = policy.settings
        page.quantum_ns, page.lag_ns = settings.quantum_ns, settings.lag_ns
        page.burst_ns, page.starvation_ns = settings.burst_ns, settings.starvation_ns
        page.pause_ns = settings.pause_ns
        page.pause_lag_ns = settings.pause_lag_ns
        page.policy_number = policy.number
        return page

    def policy(self) -> Policy:
        """The policy that is in force."""
        settings = Settings(
            quantum_ns=self.quantum_ns,
            lag_ns=self.lag_ns,
            pause_ns=self.pause_ns,
            pause_lag_ns=self.pause_lag_ns,
            burst_ns=self.burst_ns,
            starvation_ns=self.starvation_ns,
        )
        return BY_NUMBER[self.policy_number](settings)

    def slot(self, number: int) -> Slot:
        """One slot."""
        return Slot(self.words, _HEADER_WORDS + number * _SLOT_WORDS)

    def tenants(self) -> dict[int, Slot]:
        """The slots that are somebody's, by number."""
        slots = {number: self.slot(number) for number in range(self.slot_limit)}
        return {
            number: slot for number, slot in slots.items() if slot.place != Place.EMPTY
        }

    def clear(self, number: int) -> None:
        """Make a slot nobody's, with zeros everywhere."""
        base = _HEADER_WORDS + number * _SLOT_WORDS
        self.words[base : base + _SLOT_WORDS] = memoryview(bytes(8 * _SLOT_WORDS)).cast(
            "q"
        )

    def wake(self, number: int) -> None:
        """End the wait of a slot's worker."""
        word = self._wake_word(number)
        word.value = (word.value + 1) & 0xFFFFFFFF
        _syscall(_SYS_FUTEX, ctypes.byref(word), _FUTEX_WAKE, _ALL, None, None, 0)

    def wake_count(self, number: int) -> int:
        """To be handed to ``wait``."""
        return self._wake_word(number).value

    def wait(self, number: int, seen: int, timeout_s: float) -> None:
        """Wait for ``wake``, unless it came since ``wake_count`` was ``seen``."""
        seconds, rest = divmod(max(0.0, timeout_s), 1)
        timeout = _Timespec(int(seconds), int(rest * 1e9))
        word = self._wake_word(number)
        _syscall(
            *(_SYS_FUTEX, ctypes.byref(word), _FUTEX_WAIT, ctypes.c_uint32(seen)),
            *(ctypes.byref(timeout), None, 0),
        )

    def _wake_word(self, number: int) -> ctypes.c_uint32:
        word = _HEADER_WORDS + number * _SLOT_WORDS + SLOT.index("wake")
        return ctypes.c_uint32.from_address(self.address + 8 * word)
