"""Moving frames: ``connect`` and ``listen`` pick the transport by scheme.

``inproc://`` stays inside the process, ``tcp://`` and ``ipc://`` go through
ZeroMQ, which is imported when first needed.
"""

from __future__ import annotations

from xpool_protocol.transport.address import address_from_uri
from xpool_protocol.transport.base import (
    DEFAULT_MAX_MESSAGE_NBYTES,
    MAX_FRAMES,
    Buffer,
    Link,
    LinkStatistics,
    Listener,
    ListenerStatistics,
    NativeSockets,
    PeerId,
    TransportOptions,
)

__all__ = [
    "DEFAULT_MAX_MESSAGE_NBYTES",
    "MAX_FRAMES",
    "Buffer",
    "Link",
    "LinkStatistics",
    "Listener",
    "ListenerStatistics",
    "NativeSockets",
    "PeerId",
    "TransportOptions",
    "connect",
    "listen",
]


def connect(
    uri: str,
    *,
    connect_timeout_s: float = 5.0,
    max_message_nbytes: int = DEFAULT_MAX_MESSAGE_NBYTES,
    linger_s: float = 1.0,
    heartbeat_interval_s: float = 2.0,
    heartbeat_timeout_s: float = 10.0,
) -> Link:
    """Open a link; returns at once, the peer may still be starting.

    If nobody answers within ``connect_timeout_s``, ``Link.receive`` raises
    ``BrokenError``. The other arguments are those of ``TransportOptions``.

    Raises:
        UsageError: an unknown scheme, a malformed address, a senseless limit.
    """
    address = address_from_uri(uri, listening=False)
    options = TransportOptions(
        connect_timeout_s=connect_timeout_s,
        max_message_nbytes=max_message_nbytes,
        linger_s=linger_s,
        heartbeat_interval_s=heartbeat_interval_s,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )
    if address.scheme == "inproc":
        from xpool_protocol.transport.inproc import InprocLink

        return InprocLink(address, options)
    from xpool_protocol.transport.zmq import ZmqLink

    return ZmqLink(address, options)


def listen(
    uri: str,
    *,
    max_message_nbytes: int = DEFAULT_MAX_MESSAGE_NBYTES,
    linger_s: float = 1.0,
    heartbeat_interval_s: float = 2.0,
    heartbeat_timeout_s: float = 10.0,
) -> Listener:
    """Open a listener; ``Listener.uri`` has the port that was chosen for port 0.

    Who may connect to ``ipc://PATH`` is decided by the permissions of the folder
    that holds it. The arguments are those of ``TransportOptions``.

    Raises:
        UsageError: an unknown scheme, a malformed address, a senseless limit, or
            an address that is in use or not ours to use.
    """
    address = address_from_uri(uri, listening=True)
    options = TransportOptions(
        max_message_nbytes=max_message_nbytes,
        linger_s=linger_s,
        heartbeat_interval_s=heartbeat_interval_s,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )
    if address.scheme == "inproc":
        from xpool_protocol.transport.inproc import InprocListener

        return InprocListener(address, options)
    from xpool_protocol.transport.zmq import ZmqListener

    return ZmqListener(address, options)
