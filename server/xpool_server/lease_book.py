"""What a node remembers of leases: the newest epoch of each, and how they ended.

Bounded: what was noted longest ago is forgotten first. A forgotten lease is an
unknown one; its token has expired long before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import (
    EpochStale,
    LeaseUnknown,
    PoolError,
    TokenInvalid,
    UsageError,
)

MAX_REMEMBERED: Final = 16_384
"""As many sessions as a registry takes in one heartbeat."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A dictionary that forgets what was set longest ago."""

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._items: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> V | None:
        """The value, or None if there is none any more."""
        return self._items.get(key)

    def set(self, key: K, value: V) -> None:
        """Keep a value; the oldest one goes if there are too many."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._max_count:
            self._items.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Ended:
    epoch: int
    key: str
    error: PoolError


class LeaseBook:
    """The leases that came to one node."""

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._epochs: Recent[str, int] = Recent(MAX_REMEMBERED)
        self._ended: Recent[str, _Ended] = Recent(MAX_REMEMBERED)

    def asked(self, claims: LeaseClaims) -> None:
        """A session of this lease is on its way; older epochs are fenced."""
        self._epochs.set(claims.lease_id, claims.epoch)

    def ended(self, claims: LeaseClaims, key: str, error: PoolError) -> None:
        """The session of a lease is over, or it never got one (no key)."""
        self._ended.set(claims.lease_id, _Ended(claims.epoch, key, error))

    def refusal_of(self, claims: LeaseClaims) -> PoolError | None:
        """Why the holder of a genuine token may not have a session."""
        lease = claims.lease_id
        if claims.node_name != self._node_name:
            return TokenInvalid(
                f"lease {lease} is for the server {claims.node_name[:128]!r}, this is"
                f" {self._node_name}: connect to the address that came with the lease"
            )
        newest = self._epochs.get(lease)
        if newest is not None and claims.epoch < newest:
            return EpochStale(
                f"lease {lease} has epoch {newest} by now: the holder of epoch"
                f" {claims.epoch} has lost it"
            )
        ended = self._ended.get(lease)
        if ended is not None and claims.epoch <= ended.epoch:
            return ended.error
        if claims.epoch == newest:
            return UsageError(
                f"lease {lease} has a session on {self._node_name} already: a lease"
                " has one session, acquire another lease for another one"
            )
        return None

    def fate_of(self, claims: LeaseClaims, key: str) -> PoolError:
        """What became of a session that is not here any more."""
        ended = self._ended.get(claims.lease_id)
        if ended is not None and key and ended.key == key:
            return ended.error
        return LeaseUnknown(
            f"the server {self._node_name} has no such session of lease"
            f" {claims.lease_id}: it may have been restarted; start the job again"
        )
