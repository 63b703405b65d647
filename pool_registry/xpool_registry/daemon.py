"""The registry as a process: opens its files, listens, waits for a signal."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import secrets
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from xpool_protocol.control.serving import RegistryServer, TlsFiles
from xpool_protocol.errors import BrokenError, UsageError

from xpool_registry import access
from xpool_registry.admin_service import AdminService
from xpool_registry.compaction import compacted, in_short
from xpool_registry.keys import SigningKey
from xpool_registry.registry import Registry, system_clock
from xpool_registry.service import RegistryService
from xpool_registry.settings import Settings
from xpool_registry.stop_signals import STOP_SIGNALS, held_back
from xpool_registry.store import SqliteStore
from xpool_registry.ticker import Ticker
from xpool_registry.usage_store import SqliteUsage

TOKEN_FILE = Path("~/.local/state/xpool/admin-token")

_log = structlog.get_logger(__name__)


def serve(
    listen: str,
    store: str,
    settings: Settings,
    *,
    is_insecure: bool,
    on_ready: Callable[[str], None],
    advertise: str = "",
    tls: TlsFiles | None = None,
    token_file: Path = TOKEN_FILE,
    metrics: str = "",
) -> None:
    """Serve one pool until SIGINT or SIGTERM.

    Args:
        listen: ``HOST:PORT``; port 0 takes any free one.
        store: the event log: a file, its key lies beside it; or ``etcd://…``, which
            several registries may share.
        settings: what the operator chose.
        is_insecure: listen beyond this machine although nothing is encrypted.
        on_ready: called once with the real ``HOST:PORT``, when calls are answered.
        advertise: ``HOST:PORT`` that other registries name to clients; empty: the
            one that is listened on.
        tls: encrypts all calls.
        token_file: gets the first admin's token, if the registry can be reached from
            elsewhere and there is no token yet.
        metrics: ``HOST:PORT`` for Prometheus; empty: none.

    Raises:
        UsageError: the address, the store or the key cannot be used.
    """
    host, port = host_and_port(listen)
    is_public = not is_insecure and not _is_loopback(host)
    if is_public and tls is None:
        raise UsageError(
            f"{host} can be reached from other machines and nothing would be encrypted:"
            " pass --tls-certificate and --tls-key, listen on 127.0.0.1, or pass"
            " --insecure on a network where everybody is trusted"
        )

    if metrics:
        _check_reachable(host_and_port(metrics)[0], is_insecure=is_insecure)

    def prepare(registry: Registry) -> None:
        if is_public and not registry.has_had_tokens:
            make_first_token(registry, token_file)

    with held_back():
        server = RegistryServer(host, port, tls)
        address = f"{host}:{server.port}"
        if store.startswith("etcd:"):
            # What it needs takes a while to import, and a pool of one does without.
            from xpool_registry.replicas import serve_replica

            calm_collector()
            serve_replica(
                server,
                store,
                settings,
                new_id,
                advertise or address,
                on_ready,
                prepare,
                lambda leading: _serve_metrics(leading, metrics),
            )
            return
        file = SqliteStore(Path(store).expanduser())
        try:
            keep_short(file, settings, system_clock().wall_s)
            usage = SqliteUsage(file.path.with_name(f"{file.path.name}.usage"))
            registry = Registry(
                file, _key_of(file), settings, new_id, usage_store=usage
            )
            _serve_metrics(lambda: registry, metrics)
            prepare(registry)
            registry.group_commits(may_reload=True)
            calm_collector()
            server.start(RegistryService(registry), AdminService(registry))
            ticker = Ticker(registry)
            on_ready(address)
            signal.sigwait(STOP_SIGNALS)
            server.stop()
            ticker.stop()
            registry.close()
        finally:
            file.close()


def keep_short(store: SqliteStore, settings: Settings, wall_s: float) -> None:
    """Put a log that has become long into short, before it is read.

    Raises:
        UsageError: the store is damaged.
    """
    if store.count() < settings.compact_after:
        return
    past = store.load()
    if len(past) - in_short(past) < settings.compact_after:
        return
    short = compacted(past, wall_s, settings)
    try:
        store.replace(short)
    except BrokenError as error:  # a full disk: the long log will do
        _log.warning("the log was not compacted", error=str(error))
    else:
        _log.info("log compacted", events=len(past), short=len(short))


def calm_collector() -> None:
    """Let the garbage collector look at what is new often, and at the rest seldom.

    It stops everybody: for 70 ms at 50,000 new objects in a pool of a thousand servers,
    so it looks at a thousand. What a registry keeps is in no cycles, and what is, after
    an error, is little: all of the pool is looked at after five million.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000, 5_000, 5)


def make_first_token(registry: Registry, path: Path) -> None:
    """From now on every call needs a token; an admin finds the first in a file.

    Raises:
        UsageError: the file cannot be written.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot write the first admin's token to {path}: {error.strerror}"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        _, token = registry.create_token(access.ADMIN, "", 0, "made at the first start")
        file.write(token + "\n")
    _log.warning("calls need a token from now on", first_token_in=str(path))


def tls_from_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """What the registry shows its callers.

    Raises:
        UsageError: one without the other, unreadable, or a key that others can read.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-certificate and --tls-key belong together")
    try:
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            raise UsageError(f"the key {key} can be read by others: chmod 600 {key}")
        return TlsFiles(certificate.read_bytes(), key.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def _check_reachable(host: str, *, is_insecure: bool) -> None:
    if not is_insecure and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines and metrics are not encrypted:"
            " name 127.0.0.1, or pass --insecure where everybody is trusted"
        )


def _serve_metrics(leading: Callable[[], Registry | None], address: str) -> None:
    if not address:
        return
    from xpool_registry.metrics import RegistryCollector, serve

    host, port = host_and_port(address)
    real = serve(RegistryCollector(leading), host.strip("[]"), port)
    structlog.get_logger(__name__).info("metrics", url=f"http://{host}:{real}/metrics")


def new_id() -> str:
    """A lease or registry id: 64 random bits, as 16 hexadecimal digits."""
    return secrets.token_hex(8)


def configure_logging(*, as_json: bool) -> None:
    """Send structured lines to stderr; stdout is for the ready line alone."""
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    tracebacks = [structlog.processors.format_exc_info] if as_json else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def host_and_port(listen: str) -> tuple[str, int]:
    """The parts of ``HOST:PORT``; an IPv6 host stands in brackets.

    Raises:
        UsageError: not of that form.

    >>> host_and_port("127.0.0.1:7700"), host_and_port("[::1]:0")
    (('127.0.0.1', 7700), ('[::1]', 0))
    """
    host, colon, port = listen.rpartition(":")
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    is_number = port.isascii() and port.isdecimal() and int(port[:6]) <= 65535
    if not colon or not host or is_bare_ipv6 or not is_number:
        raise UsageError(
            f"{listen!r} is not an address to listen on: write HOST:PORT, for instance"
            " 127.0.0.1:7700 or [::1]:7700"
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # another name: who knows where it leads
        return False


def _key_of(store: SqliteStore) -> SigningKey:
    """The key beside the store; made if both are new."""
    path = store.path.with_name(f"{store.path.name}.key")
    if path.exists() or store.load():
        return SigningKey.load(path)
    key = SigningKey.generate()
    key.save(path)
    return key
