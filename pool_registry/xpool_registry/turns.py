"""In which order those who wait are served. Pure.

What is promised first, then priority, then whose turn it is by fair share, then who
came first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from xpool_registry.events import RequestQueued
from xpool_registry.fairshare import Shares
from xpool_registry.state import State

PRIORITIES: Final = ("high", "normal", "low")


def in_order(
    state: State, shares: Shares, extra: RequestQueued | None = None
) -> Iterator[RequestQueued]:
    """The queue in the order in which it is served.

    ``shares`` is asked anew for each one, so that what the caller grants meanwhile
    counts.
    """
    waiting = [*state.waiting.values(), *([extra] if extra else [])]
    promised = [one for one in waiting if one.request_id in state.promises]
    promised.sort(key=lambda one: state.promises[one.request_id].starts_ns or 1 << 62)
    yield from promised
    for priority in PRIORITIES:
        queues: dict[str, deque[RequestQueued]] = {}
        for one in waiting:
            if one.priority == priority and one.request_id not in state.promises:
                queues.setdefault(one.tenant, deque()).append(one)
        keys = {tenant: shares.key(tenant) for tenant in queues}
        seen = shares.version
        while queues:
            tenant = min(keys, key=lambda name: keys[name])
            yield queues[tenant].popleft()
            if not queues[tenant]:
                del queues[tenant], keys[tenant]
            if shares.version == seen:
                continue
            # What it got changes its own place, and that of its group's others.
            seen = shares.version
            group = shares.chain(tenant)[-1]
            for name in keys:
                if shares.chain(name)[-1] == group:
                    keys[name] = shares.key(name)
