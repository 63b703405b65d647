"""The failures of one session: who has been told, and who has not yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Failure, Fault, Reply

from xpool_server.faults import Poisoned, fault_from

Answers: TypeAlias = Sequence[Reply | Failure]
"""What a record makes the server send."""

NOTHING: Final[Answers] = ()

MAX_UNREPORTED: Final = 256
"""Failures kept for fences. Each was sent when it happened, too; the first ones are
what explains the others."""


class Failures:
    """Makes faults, and remembers those that no request has been answered with."""

    def __init__(self, device_kind: str) -> None:
        self.operation = 0
        """Number of the record under execution."""
        self.count = 0
        self._device_kind = device_kind
        self._unreported: dict[int, Fault] = {}

    @property
    def first_unreported(self) -> Fault | None:
        """The oldest failure that no request was answered with."""
        return next(iter(self._unreported.values()), None)

    def fault(self, error: Exception, name: str = "") -> Fault:
        """The fault of the record under execution."""
        self.count += 1
        return fault_from(
            error, operation=self.operation, name=name, device_kind=self._device_kind
        )

    def told(self, fault: Fault) -> Answers:
        """A failure that nobody waits for: told at once, and again at a fence."""
        if len(self._unreported) < MAX_UNREPORTED:
            self._unreported[fault.operation] = fault
        return [Failure(0, fault)]

    def refused(self, request: int, fault: Fault) -> Answers:
        """A failure as the answer of a request; it counts as reported."""
        self._unreported.pop(fault.operation, None)
        return [Failure(request, fault)]

    def attempt(self, run: Callable[[], None]) -> Answers:
        """Run what nobody waits for."""
        try:
            run()
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a device may raise anything
            return self.told(self.fault(error))
        return NOTHING

    def answer(self, request: int, run: Callable[[], Reply]) -> Answers:
        """Run what somebody waits for: a failure is the answer."""
        try:
            return [run()]
        except Poisoned as poisoned:
            return self.refused(request, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a device may raise anything
            return self.refused(request, self.fault(error))
