"""Where a node and its workers listen, and how others reach them."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

from xpool_protocol.errors import UsageError
from xpool_protocol.transport.address import address_from_uri

_PORTS: Final = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)

_ALL_TAKEN: Final = (
    "all ports of {} are taken: --worker-ports needs three for each worker, warm"
    " ones included"
)

T = TypeVar("T")


class PortRange(NamedTuple):
    """Ports that workers may take, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def uris(self, uri: str) -> Iterator[str]:
        """An address with each of the ports in turn.

        >>> list(PortRange(7800, 7801).uris("tcp://127.0.0.1:0"))
        ['tcp://127.0.0.1:7800', 'tcp://127.0.0.1:7801']
        """
        host = _host(uri)
        return (f"tcp://{host}:{port}" for port in range(self.first, self.last + 1))


def port_range(text: str) -> PortRange:
    """Ports as people write them.

    Raises:
        UsageError: not two ports, the lower one first.

    >>> port_range("7800-7899")
    PortRange(first=7800, last=7899)
    """
    match = _PORTS.fullmatch(text)
    ports = PortRange(int(match[1]), int(match[2])) if match else PortRange(0, 0)
    if not 1 <= ports.first <= ports.last <= 65_535:
        raise UsageError(
            f"{text!r} is no range of ports: write FIRST-LAST, for instance 7800-7899"
        )
    return ports


def lane_host(uri: str) -> str:
    """The host on which a worker at this address opens its bulk lane; empty: none.

    >>> lane_host("tcp://[::1]:7800"), lane_host("ipc:///run/x/node.9")
    ('::1', '')
    """
    return _host(uri).strip("[]") if uri.startswith("tcp://") else ""


def bound_socket(host: str, ports: PortRange | None) -> socket.socket:
    """A listening TCP socket on any free port, or on the first free one of a range.

    Raises:
        UsageError: every port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    host = "" if host == "*" else host
    for port in (0,) if ports is None else range(ports.first, ports.last + 1):
        try:
            return socket.create_server((host, port), family=family, backlog=4)
        except OSError as error:
            if not _is_taken(error):
                raise
    raise UsageError(_ALL_TAKEN.format(ports))


def listen_within(ports: PortRange, uri: str, listen: Callable[[str], T]) -> T:
    """Listen on the first port of a range that is free.

    Args:
        ports: the range.
        uri: whose host to listen on.
        listen: binds an address, or raises ``UsageError`` from what kept it.

    Raises:
        UsageError: every port is taken, or the address cannot be listened on.
    """
    for one in ports.uris(uri):
        try:
            return listen(one)
        except UsageError as error:
            if not _is_taken(error):
                raise
    raise UsageError(_ALL_TAKEN.format(ports))


def peer_listener(
    listen: str, ports: PortRange | None
) -> tuple[socket.socket, str, str]:
    """Where a worker serves the workers of its job's other devices.

    Args:
        listen: what the worker itself was told to listen on.
        ports: the ports it may take; None: any.

    Returns:
        The listening socket; its address, ``tcp://:PORT`` without the host that others
        know this one by, or ``ipc://@NAME`` (a name that is no file); and the host that
        it listens on, empty for all of this machine's.

    Raises:
        UsageError: the address cannot be listened on, or every port is taken.
    """
    if not listen.startswith("tcp://"):
        name = f"xpool-{secrets.token_hex(8)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"\0{name}")
        listener.listen()
        return listener, f"ipc://@{name}", "127.0.0.1"
    uri = f"tcp://{_host(listen)}:0"
    made = _bound(uri) if ports is None else listen_within(ports, uri, _bound)
    host = _host(uri).strip("[]")
    is_every = host in ("*", "0.0.0.0", "::")  # noqa: S104  compared only
    return made, f"tcp://:{made.getsockname()[1]}", "" if is_every else host


def _bound(uri: str) -> socket.socket:
    host, port = _host(uri).strip("[]"), int(uri.rpartition(":")[2])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(("" if host == "*" else host, port), family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {uri}: {error.strerror}") from error


def _is_taken(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            return True
        error = error.__cause__
    return False


def check_reachability(listen: str, *, is_insecure: bool) -> None:
    """Only this machine may reach an address, unless that was asked for.

    Raises:
        UsageError: others could connect, or it is no address for a node.
    """
    address = address_from_uri(listen, listening=True)
    if address.scheme == "inproc":
        raise UsageError(f"{listen} cannot be reached by clients: use tcp:// or ipc://")
    if address.scheme == "tcp" and not (is_insecure or _is_loopback(_host(listen))):
        raise UsageError(
            f"{_host(listen)} can be reached from other machines and the data plane"
            " has no encryption yet: listen on 127.0.0.1, or pass --insecure on a"
            " network where everybody is trusted"
        )


def advertised_uri(uri: str, host: str | None) -> str:
    """The address to tell clients.

    Args:
        uri: where something listens, with its real port.
        host: what clients call this machine; None: the host that is listened on, or
            this machine's name if that is every interface.

    >>> advertised_uri("tcp://0.0.0.0:7800", "gpu3")
    'tcp://gpu3:7800'
    """
    if not uri.startswith("tcp://"):
        return uri
    if host is None:
        if _host(uri) not in ("*", "0.0.0.0", "[::]"):  # noqa: S104  compared only
            return uri
        host = socket.gethostname()
    return f"tcp://{host}:{uri.rpartition(':')[2]}"


def worker_uri(listen: str, control_fd: int) -> str:
    """Where a worker of a node that was told to ``listen`` listens itself.

    Args:
        listen: the node's own address, as it was given.
        control_fd: told apart the sockets of workers that live at the same time.

    >>> worker_uri("tcp://127.0.0.1:7800", 9), worker_uri("ipc:///run/x/node", 9)
    ('tcp://127.0.0.1:0', 'ipc:///run/x/node.9')
    """
    if listen.startswith("tcp://"):
        return f"tcp://{_host(listen)}:0"
    return f"{listen}.{control_fd}"


def host_of(uri: str) -> str:
    """The host of a TCP address, an IPv6 one in its brackets; empty for others.

    >>> host_of("tcp://[::1]:7800"), host_of("ipc:///run/x/node")
    ('[::1]', '')
    """
    return _host(uri) if uri.startswith("tcp://") else ""


def _host(uri: str) -> str:
    return uri.removeprefix("tcp://").rpartition(":")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # another name: who knows where it leads
        return False
