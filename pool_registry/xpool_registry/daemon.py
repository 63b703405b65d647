"""The registry as a process: opens its files, listens, waits for a signal."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from xpool_protocol.control.serving import RegistryServer
from xpool_protocol.errors import UsageError

from xpool_registry.admin_service import AdminService
from xpool_registry.keys import SigningKey
from xpool_registry.registry import Registry, Ticker
from xpool_registry.service import RegistryService
from xpool_registry.settings import Settings
from xpool_registry.stop_signals import STOP_SIGNALS, held_back
from xpool_registry.store import SqliteStore
from xpool_registry.usage_store import SqliteUsage


def serve(
    listen: str,
    store: str,
    settings: Settings,
    *,
    is_insecure: bool,
    on_ready: Callable[[str], None],
    advertise: str = "",
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

    Raises:
        UsageError: the address, the store or the key cannot be used.
    """
    host, port = host_and_port(listen)
    if not is_insecure and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines and the registry has no"
            " encryption yet: listen on 127.0.0.1, or pass --insecure on a network"
            " where everybody is trusted"
        )
    with held_back():
        server = RegistryServer(host, port)
        address = f"{host}:{server.port}"
        if store.startswith("etcd:"):
            # What it needs takes a while to import, and a pool of one does without.
            from xpool_registry.replicas import serve_replica

            serve_replica(
                server, store, settings, new_id, advertise or address, on_ready
            )
            return
        file = SqliteStore(Path(store).expanduser())
        try:
            usage = SqliteUsage(file.path.with_name(f"{file.path.name}.usage"))
            registry = Registry(
                file, _key_of(file), settings, new_id, usage_store=usage
            )
            server.start(RegistryService(registry), AdminService(registry))
            ticker = Ticker(registry)
            on_ready(address)
            signal.sigwait(STOP_SIGNALS)
            server.stop()
            ticker.stop()
            registry.close()
        finally:
            file.close()


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
