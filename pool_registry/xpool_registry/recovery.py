"""A state made anew from the log in a process that goes on."""

from __future__ import annotations

from collections.abc import Iterable

from xpool_registry.commands import Moment
from xpool_registry.events import RegistryEvent
from xpool_registry.observations import NodeHeard
from xpool_registry.settings import Settings
from xpool_registry.state import State


def recovered(
    events: Iterable[RegistryEvent], at: Moment, settings: Settings, before: State
) -> State:
    """As after a restart, but what nodes have said lately stays known.

    Args:
        events: the log.
        at: now; each live lease gets one fresh TTL.
        settings: the operator's.
        before: ran ahead of the log; what it knows of heartbeats is true.
    """
    state = State.from_events(events, at.now_ns, at.wall_s, settings)
    for name, node in state.nodes.items():
        known, beat = before.nodes.get(name), before.beats.get(name)
        if known is None or beat is None or known.boot_id != node.boot_id:
            continue
        if beat.is_heard:
            heard = NodeHeard(node_name=name, loads=beat.loads, sessions=beat.sessions)
            state.apply(heard, beat.at_ns)
    return state
