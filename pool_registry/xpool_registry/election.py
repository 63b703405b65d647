"""Which of a pool's registries leads: whoever made the leader key, while it lasts.

The key lives as long as a lease of etcd's that the leader renews. A leader whose
renewals fail stops before the lease can have ended; should it believe otherwise, its
appends still fail (``etcd_store``).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from xpool_protocol.errors import BrokenError

from xpool_registry.etcd import Ambiguous, Etcd
from xpool_registry.etcd_store import Term

TTL_S: Final = 2
"""The least that etcd grants with its default heartbeat; how long a pool is without a
leader at most, but for the time that etcd needs to notice."""

RENEW_S: Final = 0.5
POLL_S: Final = 0.1
"""How soon a follower sees that nobody leads."""

_log = structlog.get_logger(__name__)


class Candidate:
    """One registry's part in the elections of its pool."""

    def __init__(
        self,
        etcd: Etcd,
        address: str,
        nonce: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Not elected yet.

        Args:
            etcd: connected.
            address: ``HOST:PORT`` at which clients reach this registry.
            nonce: tells this process from others at the same address.
            clock: seconds, monotonic.
        """
        self._etcd = etcd
        self._address = address
        self._value = f"{address} {nonce}".encode()
        self._clock = clock
        self._key = f"{etcd.place.prefix}/leader"
        self._lease = 0
        self._renewed_s = 0.0
        self.leader = ""
        """``HOST:PORT`` of the one that leads, as last seen; empty: nobody."""

    def campaign(self, stopping: threading.Event) -> Term | None:
        """Wait until elected; None once ``stopping`` is set."""
        is_reachable = True
        while not stopping.is_set():
            try:
                term = self._try()
                if term is not None:
                    return term
                is_reachable = True
            except (BrokenError, Ambiguous) as error:
                if is_reachable:  # once, and not ten times a second
                    _log.warning("etcd does not answer", error=str(error))
                is_reachable = False
                self.leader = ""
            stopping.wait(POLL_S)
        return None

    def hold(self, stopping: threading.Event) -> None:
        """Renew what ``campaign`` won, until it is lost or ``stopping`` is set."""
        while not stopping.wait(RENEW_S):
            try:
                if not self._etcd.keep_alive(self._lease):
                    break
                self._renewed_s = self._clock()
            except BrokenError:
                pass  # judged by the clock below
            if self._clock() - self._renewed_s > TTL_S - RENEW_S:
                break
        self.leader = ""

    def resign(self, term: Term) -> None:
        """Let another registry lead at once."""
        try:
            self._etcd.delete_if(term.key, term.revision)
        except BrokenError as error:
            _log.warning("leadership ends by itself", error=str(error))

    def _try(self) -> Term | None:
        entry = self._etcd.get(self._key)
        if entry is None:
            self.leader = ""
            began_s = self._clock()
            self._lease = self._etcd.grant(TTL_S)
            with contextlib.suppress(Ambiguous):  # the key says whether it happened
                self._etcd.put_if(
                    [(self._key, self._value)], absent=[self._key], lease=self._lease
                )
            entry = self._etcd.get(self._key)
            if entry is not None and entry.value == self._value:
                self._renewed_s = began_s
                self.leader = self._address
                return Term(self._key, entry.create_revision)
        if entry is not None:
            self.leader = entry.value.decode(errors="replace").split(" ")[0]
        return None
