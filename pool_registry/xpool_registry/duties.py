"""What admins ask of a registry: tokens, tenants, nodes, explanations, events.

The other half of ``registry.Registry``, which has the lock, the clock and the state.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog
from xpool_protocol.errors import PoolError, UsageError

from xpool_registry import access, upkeep
from xpool_registry.commands import AcquireGroup, CordonNode, Moment, SetTenant
from xpool_registry.events import RegistryEvent, TenantRemoved, TokenCreated
from xpool_registry.explaining import Explanation, explain, of_request
from xpool_registry.observations import Observation
from xpool_registry.queueing import request_from, set_tenant
from xpool_registry.refusals import Refusals
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.tenancy import TenantView, tenants_of

MAX_EVENTS: Final = 1000
"""In one answer."""

_log = structlog.get_logger(__name__)


class AdminDuties:
    """See the head of this file. Every method may be called from any thread."""

    settings: Settings
    _lock: threading.Lock
    _clock: Callable[[], Moment]
    _state: State
    _new_id: Callable[[], str]
    _new_secret: Callable[[], str]
    _reasons: dict[str, str]
    _order: dict[str, int]
    _recent: deque[tuple[int, RegistryEvent]]
    _refusals: Refusals

    def _commit(self, facts: Sequence[RegistryEvent | Observation], at: Moment) -> None:
        raise NotImplementedError("the registry stores and applies")

    # ---- who may do what ----

    def admit(self, method: str, request: Any, token: str, peer: str) -> Any:
        """The request as its caller may make it; see ``access.check_call``.

        Raises:
            TokenInvalid: the caller may not do that; logged with who and what, at most
                once a minute for the same.
        """
        if not self._state.has_had_tokens:
            return request
        with self._lock:
            at, caller = self._clock(), None
            try:
                caller = access.caller_of(self._state, token, at)
                return access.check_call(self._state, caller, method, request)
            except PoolError as error:
                host = peer.rpartition(":")[0]  # who tries again takes another port
                who = caller or access.Caller("", "")
                count = self._refusals.note((method, host, *who), at.now_ns)
                if count:
                    _log.warning(
                        "call refused",
                        method=method,
                        peer=peer,
                        token=who.token_id,
                        role=who.role,
                        name=who.name,
                        error=str(error),
                        times=count,
                    )
                raise

    def create_token(
        self, role: str, name: str, life_ms: int, comment: str
    ) -> tuple[TokenCreated, str]:
        """See ``access.create``; the token is shown this once."""
        with self._lock:
            at = self._clock()
            created, token = access.create(
                self._state,
                role=role,
                name=name,
                life_ms=life_ms,
                comment=comment,
                token_id=self._new_id(),
                secret=self._new_secret(),
                at=at,
            )
            self._commit([created], at)
            return created, token

    def tokens(self) -> list[TokenCreated]:
        """All that are not revoked, oldest first."""
        with self._lock:
            return list(self._state.tokens.values())

    def revoke_token(self, token_id: str) -> None:
        """See ``access.revoke``."""
        with self._lock:
            at = self._clock()
            self._commit([access.revoke(self._state, token_id, at)], at)

    @property
    def has_had_tokens(self) -> bool:
        """False: the pool is open to whoever reaches it."""
        return self._state.has_had_tokens

    # ---- upkeep ----

    def cordon(self, command: CordonNode) -> int:
        """See ``upkeep``; how many leases the node still has."""
        with self._lock:
            at, name = self._clock(), command.node_name
            if command.is_draining:
                events = upkeep.drain(
                    self._state, name, command.reason, command.deadline_ms, at
                )
            else:
                events = upkeep.cordon(self._state, name, command.reason, at)
            self._commit(events, at)
            return sum(1 for _ in self._state.leases_on(name))

    def uncordon(self, node_name: str) -> bool:
        """See ``upkeep.uncordon``; whether it was cordoned."""
        with self._lock:
            at = self._clock()
            events = upkeep.uncordon(self._state, node_name, at)
            self._commit(events, at)
            return bool(events)

    def forget(self, node_name: str, reason: str) -> None:
        """See ``upkeep.forget``."""
        with self._lock:
            at = self._clock()
            event = upkeep.forget(self._state, node_name, reason, at, self.settings)
            self._commit([event], at)

    def evict(self, lease_id: str, reason: str, grace_ms: int) -> None:
        """See ``upkeep.evict``."""
        with self._lock:
            at = self._clock()
            event = upkeep.evict(self._state, lease_id, reason, grace_ms, at)
            self._commit([event], at)

    def explain(self, name: str) -> Explanation:
        """See ``explaining.explain``."""
        with self._lock:
            at = self._clock()
            return explain(
                self._state, name, at, self.settings, self._reasons, self._order
            )

    def what_if(self, command: AcquireGroup) -> Explanation:
        """What a request would get; see ``explaining.of_request``."""
        with self._lock:
            at = self._clock()
            request = request_from(
                replace(command, ticket="", wait_ms=0), "", at, self.settings
            )
            return of_request(self._state, request, at, self.settings)

    def events_after(
        self, sequence: int, limit: int
    ) -> list[tuple[int, RegistryEvent]]:
        """What has happened since that event, oldest first, as far as remembered."""
        with self._lock:
            # From the end: those who follow want the newest few.
            found = list(
                itertools.takewhile(
                    lambda pair: pair[0] > sequence, reversed(self._recent)
                )
            )
            return found[::-1][: max(1, min(limit or MAX_EVENTS, MAX_EVENTS))]

    def set_tenant(self, command: SetTenant) -> None:
        """See ``queueing.set_tenant``."""
        with self._lock:
            at = self._clock()
            self._commit([set_tenant(self._state, command, at)], at)

    def remove_tenant(self, name: str) -> bool:
        """Forget what was decided on a tenant; false if nothing was.

        Raises:
            UsageError: it is a group, and has members.
        """
        with self._lock:
            at = self._clock()
            if name not in self._state.tenants:
                return False
            members = [
                one.name for one in self._state.tenants.values() if one.parent == name
            ]
            if members:
                raise UsageError(f"{name} is the group of {', '.join(members[:6])}")
            self._commit([TenantRemoved(name=name, at_s=at.wall_s)], at)
            return True

    def tenants(self) -> list[TenantView]:
        """All that are known or hold something, with shares of use and of right."""
        with self._lock:
            at = self._clock()
            return tenants_of(self._state, at)
