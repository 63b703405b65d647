"""A link that misbehaves on purpose, the same way each time.

Wraps a working link. Every fault is drawn from a generator seeded by the plan,
one per direction, so that what happens to the n-th message of a direction does
not depend on how the two interleave. ``faults`` lists what was done, for the
message of a failing test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from xpool_protocol.errors import BrokenError
from xpool_protocol.transport import Buffer, Link, LinkStatistics

Direction = Literal["sent", "received"]
Kind = Literal["drop", "truncate", "flip_bit", "duplicate", "half_close", "break"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """How often what goes wrong; probabilities are per message, from 0 to 1."""

    seed: int

    drop: float = 0.0
    """The message never arrives; those after it do."""

    duplicate: float = 0.0
    """The message arrives twice."""

    flip_bit: float = 0.0
    """One bit of one non-empty frame is the other way round."""

    truncate: float = 0.0
    """One frame ends early, or the last frames are missing."""

    half_close_after: int | None = None
    """After so many sent messages the rest is swallowed; receiving goes on."""

    break_after: int | None = None
    """After so many messages, sent and received together, the path breaks."""

    def __post_init__(self) -> None:
        rates = (self.drop, self.duplicate, self.flip_bit, self.truncate)
        if not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"probabilities are from 0 to 1: {self}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that was done to the ``index``-th message of a direction."""

    direction: Direction
    index: int
    kind: Kind


class FaultyLink(Link):
    """``inner`` with the faults of a plan; closing it closes ``inner``."""

    def __init__(self, inner: Link, plan: FaultPlan) -> None:
        self.uri = inner.uri
        self.faults: list[Fault] = []
        self._inner = inner
        self._plan = plan
        self._lanes = {
            "sent": _Lane("sent", plan, self.faults),
            "received": _Lane("received", plan, self.faults),
        }
        self._arrived: deque[list[memoryview]] = deque()
        self._is_broken = False

    def send(self, frames: Sequence[Buffer]) -> None:
        self._break_if_due("sent")
        lane = self._lanes["sent"]
        limit = self._plan.half_close_after
        if limit is not None and lane.count >= limit:
            self.faults.append(Fault("sent", lane.count, "half_close"))
            lane.count += 1
            return
        for copy in lane.pass_on(frames):
            self._inner.send(copy)

    def receive(self, timeout_s: float | None) -> list[memoryview] | None:
        """As the inner link's; a dropped message looks like a wake."""
        if not self._arrived:
            self._break_if_due("received")
            frames = self._inner.receive(timeout_s)
            if frames is None:
                return None
            for copy in self._lanes["received"].pass_on(frames):
                self._arrived.append([memoryview(frame) for frame in copy])
        return self._arrived.popleft() if self._arrived else None

    def _break_if_due(self, direction: Direction) -> None:
        limit = self._plan.break_after
        total = sum(lane.count for lane in self._lanes.values())
        if limit is None or total < limit:
            return
        if not self._is_broken:
            self._is_broken = True
            index = self._lanes[direction].count
            self.faults.append(Fault(direction, index, "break"))
            self._inner.close()
        raise BrokenError(f"lost the connection to {self.uri} (as planned)")

    def watch(self, fileno: int) -> None:
        self._inner.watch(fileno)

    def wake(self) -> None:
        self._inner.wake()

    def unsent(self) -> int:
        return self._inner.unsent()

    def close(self) -> None:
        self._inner.close()

    def statistics(self) -> LinkStatistics:
        """What really went through the inner link."""
        return self._inner.statistics()


class _Lane:
    """One direction: its generator and its place in the sequence."""

    def __init__(
        self, direction: Direction, plan: FaultPlan, faults: list[Fault]
    ) -> None:
        self.count = 0
        self._direction: Direction = direction
        self._plan = plan
        self._faults = faults
        self._rng = Random(f"{plan.seed}/{direction}")

    def pass_on(self, frames: Sequence[Buffer]) -> list[list[Buffer]]:
        """What becomes of one message: none, one or two of them."""
        plan, rng = self._plan, self._rng
        # One draw per kind and message, used or not: changing one rate leaves the
        # messages that the others hit where they are.
        drop, duplicate, flip, truncate = (rng.random() for _ in range(4))
        details = Random(rng.random())
        message = list(frames)
        copies = 1
        if drop < plan.drop:
            self._note("drop")
            copies = 0
        elif duplicate < plan.duplicate:
            self._note("duplicate")
            copies = 2
        if copies and truncate < plan.truncate:
            self._note("truncate")
            message = _truncated(message, details)
        if copies and flip < plan.flip_bit and any(len(bytes(f)) for f in message):
            self._note("flip_bit")
            message = _flipped(message, details)
        self.count += 1
        return [message] * copies

    def _note(self, kind: Kind) -> None:
        self._faults.append(Fault(self._direction, self.count, kind))


def _truncated(message: list[Buffer], rng: Random) -> list[Buffer]:
    if len(message) > 1 and rng.random() < 0.5:
        return message[: rng.randrange(1, len(message))]
    index = rng.randrange(len(message))
    whole = bytes(message[index])
    return [
        *message[:index],
        whole[: rng.randrange(len(whole))] if whole else whole,
        *message[index + 1 :],
    ]


def _flipped(message: list[Buffer], rng: Random) -> list[Buffer]:
    index = rng.choice([i for i, frame in enumerate(message) if len(bytes(frame))])
    damaged = bytearray(message[index])
    bit = rng.randrange(len(damaged) * 8)
    damaged[bit // 8] ^= 1 << bit % 8
    return [*message[:index], bytes(damaged), *message[index + 1 :]]
