"""One of several registries of a pool: it leads, or it says who does.

Answers calls all the time. While it leads there is a ``Registry`` over the shared log;
it begins with the log as it is then, and ends with the leadership.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import structlog
from xpool_protocol.control.serving import Answering, RegistryServer
from xpool_protocol.errors import NotLeader, PoolError

from xpool_registry.admin_service import AdminService
from xpool_registry.election import Candidate
from xpool_registry.etcd import Etcd, place_from_text
from xpool_registry.etcd_compaction import Compaction, Upkeep
from xpool_registry.etcd_login import login_from_environment
from xpool_registry.etcd_store import EtcdStore, Term, shared_key
from xpool_registry.registry import Registry, system_clock
from xpool_registry.service import RegistryService
from xpool_registry.settings import Settings
from xpool_registry.stop_signals import STOP_SIGNALS
from xpool_registry.ticker import Ticker
from xpool_registry.usage_store import EtcdUsage

_log = structlog.get_logger(__name__)


class Replica:
    """Campaigns, leads and follows in a thread of its own."""

    def __init__(
        self,
        candidate: Candidate,
        store_of: Callable[[Term, Callable[[], None]], EtcdStore],
        registry_of: Callable[[EtcdStore], Registry],
        upkeep_of: Callable[[EtcdStore], Upkeep],
    ) -> None:
        """Nothing runs yet.

        Args:
            candidate: this registry in the elections.
            store_of: opens the log for a term; told whom to call when it is lost.
            registry_of: the registry over a log; reads it.
            upkeep_of: keeps a log short from then on.
        """
        self._candidate = candidate
        self._store_of = store_of
        self._registry_of = registry_of
        self._upkeep_of = upkeep_of
        self._stopping = threading.Event()
        self._registry: Registry | None = None
        self._thread = threading.Thread(
            target=self._run, name="registry-replica", daemon=True
        )
        self.handler: Any = _Redirecting(self, RegistryService)
        """Answers calls as the leader, or tells who leads."""
        self.admin_handler: Any = _Redirecting(self, AdminService)

    def start(self) -> None:
        """Begin to campaign."""
        self._thread.start()

    def stop(self) -> None:
        """Resign, and end the thread."""
        self._stopping.set()
        self._thread.join()

    def leading(self) -> Registry | None:
        """The registry if this process leads; None: another one does, or nobody."""
        return self._registry

    def registry(self) -> Registry:
        """What answers a call now.

        Raises:
            NotLeader: another registry does, or none.
        """
        registry = self._registry
        if registry is not None:
            return registry
        leader = self._candidate.leader
        if leader:
            raise NotLeader(f"this registry follows the one at {leader}", leader)
        raise NotLeader("the pool's registries elect a leader: try again in a moment")

    def _run(self) -> None:
        while not self._stopping.is_set():
            term = self._candidate.campaign(self._stopping)
            if term is not None:
                self._lead(term)

    def _lead(self, term: Term) -> None:
        over = threading.Event()
        store = self._store_of(term, over.set)
        try:
            registry = self._registry_of(store)
        except PoolError as error:
            # Another one may be able to; or an operator mends it meanwhile.
            _log.error("cannot lead", error=str(error))
            self._candidate.resign(term)
            self._stopping.wait(1.0)
            return
        ticker = Ticker(registry)
        upkeep = self._upkeep_of(store)
        self._registry = registry
        _log.info("leading", term=term.revision)
        holding = threading.Thread(
            target=self._hold, args=(over,), name="registry-leader", daemon=True
        )
        holding.start()
        while not over.wait(0.1):
            if self._stopping.is_set():
                break
        self._registry = None
        over.set()
        holding.join()
        ticker.stop()
        upkeep.stop()
        registry.close()
        self._candidate.resign(term)
        _log.info("no longer leading", term=term.revision)

    def _hold(self, over: threading.Event) -> None:
        self._candidate.hold(over)
        over.set()


class _Redirecting:
    """Every method of a service, over the registry that there is when it is called."""

    def __init__(
        self, replica: Replica, kind: type[RegistryService] | type[AdminService]
    ) -> None:
        self._replica = replica
        self._kind = kind

    def begin(self) -> Answering:
        """A call comes in."""
        return self._replica.registry().begin()

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        if name not in self._kind.__dict__:
            raise AttributeError(name)

        def call(argument: Any) -> Any:
            return getattr(self._kind(self._replica.registry()), name)(argument)

        call.__name__ = name  # what may be called is decided by it
        return call

    def unexpected(self, error: Exception) -> None:
        """A call failed for a reason that is a bug."""
        _log.error("call failed", exc_info=error)


def serve_replica(
    server: RegistryServer,
    store: str,
    settings: Settings,
    new_id: Callable[[], str],
    address: str,
    on_ready: Callable[[str], None],
    prepare: Callable[[Registry], None],
    watch: Callable[[Callable[[], Registry | None]], None],
) -> None:
    """Serve as one of several registries until SIGINT or SIGTERM.

    Args:
        server: holds its port.
        store: ``etcd://HOST:PORT,…/PREFIX``.
        settings: what the operator chose.
        new_id: 64 random bits as text.
        address: where clients reach this registry.
        on_ready: called with it once calls are answered.
        prepare: called with the registry whenever this one begins to lead.
        watch: called once with what tells the registry if this one leads.

    Raises:
        UsageError: the store is not of that form, or holds another program's data.
        BrokenError: etcd does not answer.
    """
    etcd = Etcd(place_from_text(store), login_from_environment())
    try:
        key = shared_key(etcd)

        def registry_of(log: EtcdStore) -> Registry:
            usage = EtcdUsage(etcd, log.term)
            registry = Registry(log, key, settings, new_id, usage_store=usage)
            prepare(registry)
            registry.group_commits(may_reload=False)
            return registry

        replica = Replica(
            Candidate(etcd, address, new_id()),
            store_of=lambda term, on_lost: EtcdStore(etcd, term, on_lost),
            registry_of=registry_of,
            upkeep_of=lambda log: Upkeep(
                etcd, Compaction(etcd, log, settings, lambda: system_clock().wall_s)
            ),
        )
        watch(replica.leading)
        server.start(replica.handler, replica.admin_handler)
        replica.start()
        on_ready(address)
        signal.sigwait(STOP_SIGNALS)
        server.stop()
        replica.stop()
    finally:
        etcd.close()
