"""How a registry shows itself to etcd, and etcd to it: TLS, user and password."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aetcd
import grpc
from aetcd import rpc
from aetcd.watcher import Watcher
from xpool_protocol.errors import UsageError

CA: Final = "XPOOL_ETCD_CA"
CERTIFICATE: Final = "XPOOL_ETCD_CERTIFICATE"
KEY: Final = "XPOOL_ETCD_KEY"
USER: Final = "XPOOL_ETCD_USER"
PASSWORD_FILE: Final = "XPOOL_ETCD_PASSWORD_FILE"  # noqa: S105  a variable's name


@dataclass(frozen=True, slots=True)
class EtcdLogin:
    """Nothing set: in clear, and as nobody."""

    ca_pem: bytes | None = None
    """Vouches for etcd's certificate; without it nothing is encrypted."""

    certificate_pem: bytes | None = None
    key_pem: bytes | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def login_from_environment(environment: Mapping[str, str] | None = None) -> EtcdLogin:
    """What the variables name; they name files, since others can read a command line.

    Raises:
        UsageError: a file that cannot be read, or one variable without its other.
    """
    environment = os.environ if environment is None else environment
    for one, other in ((CERTIFICATE, KEY), (USER, PASSWORD_FILE), (CERTIFICATE, CA)):
        if environment.get(one) and not environment.get(other):
            raise UsageError(f"{one} is set and {other} is not: it needs both")
    password = _read(environment, PASSWORD_FILE, is_secret=True)
    try:
        text = None if password is None else password.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{PASSWORD_FILE} names a file that is no text") from error
    return EtcdLogin(
        ca_pem=_read(environment, CA),
        certificate_pem=_read(environment, CERTIFICATE),
        key_pem=_read(environment, KEY, is_secret=True),
        user=environment.get(USER) or None,
        password=text,
    )


def _read(
    environment: Mapping[str, str], variable: str, *, is_secret: bool = False
) -> bytes | None:
    name = environment.get(variable)
    if not name:
        return None
    path = Path(name).expanduser()
    try:
        if is_secret and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(f"{path} can be read by others: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{variable} names {path}, which cannot be read: {error.strerror}"
        ) from error


class LoggedInClient(aetcd.Client):  # type: ignore[misc]  # it has no types
    """``aetcd`` connects in clear alone; this one also over TLS."""

    def __init__(
        self,
        host: str,
        port: int,
        login: EtcdLogin,
        *,
        timeout: float,
        options: Mapping[str, int],
    ) -> None:
        super().__init__(
            host, port, login.user, login.password, timeout=timeout, options=options
        )
        self._login = login
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        """Open the channel, and log in if there is a user."""
        async with self._connecting:
            if not self._connected.is_set():
                try:
                    await self._open()
                except rpc.AioRpcError as error:
                    await self._close_channel()
                    raise aetcd.ClientError(
                        f"it does not let us in ({error.details()})"
                    ) from error

    async def revision(self, key: bytes) -> int:
        """The newest of the cluster's, as the answer about any key tells it."""
        answer = await self._range(rpc.RangeRequest(key=key, count_only=True))
        return int(answer.header.revision)

    async def keys(self, first: bytes, end: bytes, most: int) -> list[bytes]:
        """So many keys from ``first`` on that are below ``end``, in order."""
        asked = rpc.RangeRequest(key=first, range_end=end, limit=most, keys_only=True)
        return [one.key for one in (await self._range(asked)).kvs]

    async def _range(self, asked: Any) -> Any:
        await self.connect()
        try:
            return await self.kvstub.Range(
                asked, timeout=self._timeout, metadata=self.metadata
            )
        except rpc.AioRpcError as error:
            raise aetcd.ClientError(str(error.details())) from error

    async def forget(self, revision: int) -> None:
        """Let go of what was overwritten before that revision; again does no harm."""
        await self.connect()
        try:
            await self.kvstub.Compact(
                rpc.CompactionRequest(revision=revision),
                timeout=self._timeout,
                metadata=self.metadata,
            )
        except rpc.AioRpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:  # it is gone already
                raise aetcd.ClientError(str(error.details())) from error

    async def _open(self) -> None:
        target, login = f"{self._host}:{self._port}", self._login
        options = list(self._options.items())
        if login.ca_pem is None:
            self.channel = rpc.insecure_channel(target, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                login.ca_pem, login.key_pem, login.certificate_pem
            )
            self.channel = rpc.secure_channel(target, credentials, options=options)
        if login.user is not None:
            self.auth_stub = rpc.AuthStub(self.channel)
            asked = rpc.AuthenticateRequest(name=login.user, password=login.password)
            answer = await self.auth_stub.Authenticate(asked, timeout=self._timeout)
            self.metadata = (("token", answer.token),)
        self.kvstub = rpc.KVStub(self.channel)
        self.clusterstub = rpc.ClusterStub(self.channel)
        self.leasestub = rpc.LeaseStub(self.channel)
        self.maintenancestub = rpc.MaintenanceStub(self.channel)
        watching: Any = rpc.WatchStub(self.channel)
        self._watcher = Watcher(watching, timeout=self._timeout, metadata=self.metadata)
        self._connected.set()

    async def _close_channel(self) -> None:
        if self.channel is not None:
            await self.channel.close()
        self._init_channel_attrs()
