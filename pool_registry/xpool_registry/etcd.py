"""An etcd cluster for synchronous code: a few calls, each with a bound on its time.

``aetcd`` speaks to one member and lives in an event loop; here the loop is a thread,
and a call that finds its member gone is made again at the next one. A transaction whose
answer was lost may have happened: ``Ambiguous`` says so, and the caller looks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aetcd
from xpool_protocol.errors import BrokenError, UsageError

from xpool_registry.etcd_login import EtcdLogin, LoggedInClient

SCHEME: Final = "etcd://"
TIMEOUT_S: Final = 2.0
"""Of one call to one member: longer than a healthy cluster's election."""

MAX_ANSWER_NBYTES: Final = 64 << 20
"""A range of the log; etcd takes at most 1.5 MiB in one key."""

DEFAULT_PREFIX: Final = "xpool"

T = TypeVar("T")


class Ambiguous(Exception):  # noqa: N818
    """The cluster did not say whether a transaction happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdPlace:
    """Where a pool's registries keep what they share."""

    members: tuple[tuple[str, int], ...]
    prefix: str

    def __str__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.members)
        return f"{SCHEME}{hosts}/{self.prefix}"


def place_from_text(text: str) -> EtcdPlace:
    """The place named by ``etcd://HOST:PORT,HOST:PORT/PREFIX``.

    Raises:
        UsageError: not of that form.

    >>> str(place_from_text("etcd://a:2379,b:2379"))
    'etcd://a:2379,b:2379/xpool'
    """
    if not text.startswith(SCHEME):
        raise UsageError(f"{text!r} is no store: write etcd://HOST:PORT")
    hosts, _, prefix = text.removeprefix(SCHEME).partition("/")
    members = []
    for member in hosts.split(","):
        host, colon, port = member.strip().rpartition(":")
        if not (colon and host and port.isascii() and port.isdecimal()):
            raise UsageError(
                f"{text!r} is no store: write etcd://HOST:PORT, or several members"
                " with commas between, for instance etcd://127.0.0.1:2379"
            )
        members.append((host.strip("[]"), int(port[:6])))
    prefix = prefix.strip("/") or DEFAULT_PREFIX
    return EtcdPlace(members=tuple(members), prefix=prefix)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and what it holds."""

    key: str
    value: bytes
    create_revision: int


class Etcd:
    """A connection to a cluster; safe to share between threads."""

    def __init__(self, place: EtcdPlace, login: EtcdLogin = EtcdLogin()) -> None:  # noqa: B008  immutable
        """Connect at the first call.

        Args:
            place: where.
            login: how; as nobody and in clear if unsaid.
        """
        self.place = place
        self.login = login
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="registry-etcd", daemon=True
        )
        self._thread.start()
        self._at = 0
        self._client: Any = None

    def close(self) -> None:
        """Drop the connection; later calls fail."""
        if self._loop.is_closed():
            return
        self._run(self._disconnect(), TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ---- calls; all raise BrokenError if no member answers

    def get(self, key: str) -> Entry | None:
        """What a key holds."""
        entries = self._read(lambda one: one.get(key.encode()))
        return None if entries is None else _entry(entries)

    def span(self, first: str, end: str) -> list[Entry]:
        """All keys from ``first`` on that are below ``end``, in order."""
        found = self._read(
            lambda one: one.get_range(first.encode(), end.encode(), sort_order="ascend")
        )
        return [_entry(one) for one in found]

    def keys(self, first: str, end: str, most: int) -> list[str]:
        """The first of these keys, in order, without what they hold."""
        found = self._read(lambda one: one.keys(first.encode(), end.encode(), most))
        return [key.decode() for key in found]

    def put_if(
        self,
        puts: Sequence[tuple[str, bytes]],
        *,
        absent: Sequence[str] = (),
        created_at: Sequence[tuple[str, int]] = (),
        lease: int = 0,
    ) -> bool:
        """Write all or nothing.

        Args:
            puts: keys and values.
            absent: keys that must not exist.
            created_at: keys that must exist since these revisions.
            lease: whose end removes what was written; 0: nobody's.

        Returns:
            False if a condition did not hold, and nothing was written.

        Raises:
            Ambiguous: it may have been written.
        """

        def put(one: Any) -> Awaitable[tuple[bool, object]]:
            rules = one.transactions
            conditions = [rules.version(key.encode()) == 0 for key in absent]
            for key, revision in created_at:
                conditions.append(rules.create(key.encode()) == revision)
            writes = [rules.put(key.encode(), value, lease) for key, value in puts]
            return one.transaction(  # type: ignore[no-any-return]
                compare=conditions, success=writes, failure=[]
            )

        try:
            return bool(self._once(put)[0])
        except aetcd.ClientError as error:
            raise Ambiguous(f"{self.place} did not answer: {error}") from error

    def delete_if(self, key: str, created_at: int) -> None:
        """Remove a key that exists since this revision; any other stays."""

        def delete(one: Any) -> Awaitable[object]:
            rules = one.transactions
            is_it = rules.create(key.encode()) == created_at
            return one.transaction(  # type: ignore[no-any-return]
                compare=[is_it], success=[rules.delete(key.encode())], failure=[]
            )

        self._read(delete)

    def delete_span_if(
        self, first: str, end: str, created_at: Sequence[tuple[str, int]]
    ) -> bool:
        """Remove all keys from ``first`` on that are below ``end``.

        Args:
            first: in it.
            end: not in it.
            created_at: keys that must exist since these revisions.

        Returns:
            False if a condition did not hold, and nothing was removed.
        """

        def delete(one: Any) -> Awaitable[tuple[bool, object]]:
            rules = one.transactions
            conditions = [rules.create(key.encode()) == at for key, at in created_at]
            away = rules.delete(first.encode(), end.encode())
            return one.transaction(  # type: ignore[no-any-return]
                compare=conditions, success=[away], failure=[]
            )

        return bool(self._read(delete)[0])

    def revision(self) -> int:
        """Of the whole cluster: counts what was ever written."""
        key = f"{self.place.prefix}/leader".encode()  # any that a user may read
        return int(self._read(lambda one: one.revision(key)))

    def forget_history(self, revision: int) -> None:
        """What keys held before that revision, and do no more, takes room no longer."""
        self._read(lambda one: one.forget(revision))

    def grant(self, ttl_s: int) -> int:
        """A new lease of the cluster's."""
        return int(self._read(lambda one: one.lease(ttl_s)).id)

    def keep_alive(self, lease: int) -> bool:
        """One more TTL; false if the lease is over."""
        reply = self._read(lambda one: one.refresh_lease(lease))
        return reply is not None and reply.TTL > 0

    # ---- the loop's thread

    def _read(self, call: Callable[[Any], Awaitable[Any]]) -> Any:
        """A call that may be made twice, at any member that answers."""
        for left in range(len(self.place.members), 0, -1):
            try:
                return self._once(call)
            except aetcd.ClientError as error:
                if left == 1:
                    raise BrokenError(
                        f"no member of {self.place} answers: {error}; start etcd, or"
                        " name other members with --store"
                    ) from error
        raise AssertionError("a place has members")

    def _once(self, call: Callable[[Any], Awaitable[T]]) -> T:
        async def at_member() -> T:
            if self._client is None:
                host, port = self.place.members[self._at]
                self._client = LoggedInClient(
                    host,
                    port,
                    self.login,
                    timeout=TIMEOUT_S,
                    options={
                        "grpc.max_receive_message_length": MAX_ANSWER_NBYTES,
                        "grpc.enable_http_proxy": 0,
                        "grpc.use_local_subchannel_pool": 1,
                    },
                )
            return await call(self._client)

        async def turned() -> T:
            try:
                return await at_member()
            except aetcd.ClientError:
                await self._disconnect()
                self._at = (self._at + 1) % len(self.place.members)
                raise

        found: T = self._run(turned(), 3 * TIMEOUT_S)
        return found

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _run(self, call: Any, timeout_s: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            future.cancel()
            raise aetcd.ConnectionTimeoutError("no answer in time") from None


def _entry(found: Any) -> Entry:
    return Entry(found.key.decode(), found.value, found.create_revision)
