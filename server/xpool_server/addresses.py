"""Where a node and its workers listen, and how others reach them."""

from __future__ import annotations

import ipaddress
import socket

from xpool_protocol.errors import UsageError
from xpool_protocol.transport.address import address_from_uri


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


def _host(uri: str) -> str:
    return uri.removeprefix("tcp://").rpartition(":")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # another name: who knows where it leads
        return False
