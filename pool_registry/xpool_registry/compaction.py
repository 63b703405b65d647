"""A log in short: what says the same with far fewer events.

A registry's log tells of every lease that there ever was. What its state needs of that
is what is live, what each tenant has used, and who is remembered after the end. Pure:
the stores put the one in the place of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from xpool_registry.events import (
    LogCompacted,
    RegistryEvent,
    RequestLeft,
    StartPromised,
    UseCarried,
)
from xpool_registry.settings import Settings
from xpool_registry.state import State

BUDGET_S: Final = 3600.0
"""Preemptions count against a tenant's budget so long."""

NOTHING_MILLI: Final = 1e-6
"""Who holds nothing and held less than that lately counts as new."""


def compacted(
    events: Sequence[RegistryEvent], at_s: float, settings: Settings
) -> list[RegistryEvent]:
    """Events from which the same state follows as from ``events``.

    What is forgotten: whose the leases were whose end is remembered.

    Args:
        events: a log from its beginning.
        at_s: now, by the wall clock.
        settings: under which the state is made.
    """
    state = State.from_events(events, now_ns=0, settings=settings)
    return [*_standing(state), *_queue(state, events), *_past(state, events, at_s)]


def in_short(events: Sequence[RegistryEvent]) -> int:
    """How many of a log's first events stand for others."""
    for index, event in enumerate(events):
        if isinstance(event, LogCompacted):
            return index + 1
    return 0


def count_of(events: Sequence[RegistryEvent]) -> int:
    """How many events there have been: those that are left out count."""
    short = in_short(events)
    before = events[short - 1] if short else None
    known = before.event_count if isinstance(before, LogCompacted) else 0
    return known + len(events) - short


def _standing(state: State) -> Iterator[RegistryEvent]:
    if state.created is not None:
        yield state.created
    yield from state.tenants.values()
    yield from state.tokens.values()
    yield from state.nodes.values()
    yield from state.cordoned.values()
    yield from state.ended.values()
    yield from state.leases.values()


def _queue(state: State, events: Sequence[RegistryEvent]) -> Iterator[RegistryEvent]:
    """Who waits, what they were promised, who leaves for them."""
    yield from state.waiting.values()
    promised: dict[str, StartPromised] = {}
    for event in events:
        if isinstance(event, StartPromised) and event.request_id in state.promises:
            promised[event.request_id] = event
    yield from promised.values()
    for notice in state.notices.values():
        yield notice.event
    for request_id, reason in state.gone.items():
        yield RequestLeft(request_id=request_id, reason=reason, at_s=0.0)


def _past(
    state: State, events: Sequence[RegistryEvent], at_s: float
) -> Iterator[RegistryEvent]:
    holders = {lease.tenant for lease in state.leases.values()}
    for tenant, book in state.books.items():
        if tenant in holders or book.recent.milli >= NOTHING_MILLI:
            yield UseCarried(
                tenant=tenant,
                held_milli=book.held.milli,
                held_nbytes=book.held.nbytes,
                recent_milli=book.recent.milli,
                recent_nbytes=book.recent.nbytes,
                until_s=book.at_s,
                at_s=at_s,
            )
    recent = (
        (tenant, tuple(one for one in times if one > at_s - BUDGET_S))
        for tenant, times in state.preempted_s.items()
    )
    yield LogCompacted(
        event_count=count_of(events),
        last_epoch=state.last_epoch,
        began_s=state.began_s,
        has_had_tokens=state.has_had_tokens,
        forms=state.learning.forms,
        preempted_s=tuple((tenant, times) for tenant, times in recent if times),
        unsettled=tuple(state.unsettled.items()),
        at_s=at_s,
    )
