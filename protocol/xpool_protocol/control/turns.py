"""Who waits for whom in an event loop that has more to do than it can."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """What can wait: one of it in each round of the loop, in order of arrival.

    All else that is ready runs in every round. So a call waits for one heartbeat, not
    for all that have come, however many there are; and threads that wait for Python's
    lock get it between two rounds.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def take(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._give, loop)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # it may have been cancelled
            turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._give, loop)
