"""Connections to a pool's registries: options, encryption, and which one to ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from xpool_protocol.control.credentials import Credentials
from xpool_protocol.control.routing import PAUSE_S, Route
from xpool_protocol.control.statuses import error_from_rpc

# 4 MiB: some 10,000 leases in one list, and far more than any other message.
MAX_MESSAGE_NBYTES = 4 << 20

MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
    # A window that is large enough from the start. gRPC would measure which it needs,
    # by a ping for what comes: another write for each message, a third of its cost.
    ("grpc.http2.lookahead_bytes", 1 << 20),
    ("grpc.http2.bdp_probe", 0),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    # A pool lies inside one network: a proxy for the web would only break it.
    ("grpc.enable_http_proxy", 0),
    # A registry that comes back must be found well within the shortest usual TTL.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Otherwise a new client would wait out the backoff of an earlier one.
    ("grpc.use_local_subchannel_pool", 1),
)


def channel_to(address: str, credentials: Credentials) -> Any:
    """A ``grpc.Channel``, encrypted if an authority is known."""
    if credentials.ca_pem is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    secure = grpc.ssl_channel_credentials(root_certificates=credentials.ca_pem)
    return grpc.secure_channel(address, secure, options=CHANNEL_OPTIONS)


class RoutedChannel:
    """Looks like a ``grpc.Channel``; each call goes to the registry that leads."""

    def __init__(self, addresses: list[str], credentials: Credentials) -> None:
        """Connect at the first call.

        Args:
            addresses: ``HOST:PORT`` of each registry.
            credentials: shown with each call.
        """
        self._credentials = credentials
        self._route = Route(addresses)
        self._channels: dict[str, Any] = {}
        self._methods: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def address(self) -> str:
        """Where the next attempt goes."""
        return self._route.current

    def unary_unary(self, path: str, *arguments: Any, **named: Any) -> Any:
        """A method of the service, for the generated stub."""

        def method_of(channel: Any) -> Any:
            return channel.unary_unary(path, *arguments, **named)

        def call(request: object, timeout: float) -> Any:
            def attempt(address: str, method: Any, left_s: float) -> Any:
                metadata = self._credentials.metadata(address)
                return method(request, timeout=left_s, metadata=metadata)

            return self.try_each(path, method_of, attempt, timeout)

        return call

    def stream_stream(self, path: str, *arguments: Any, **named: Any) -> Any:
        """Where a stream may be opened: takes what one attempt does, and its time.

        The attempt gets an address, the method there with its metadata bound, and the
        seconds that are left.
        """

        def method_of(channel: Any) -> Any:
            return channel.stream_stream(path, *arguments, **named)

        def use(attempt: Callable[[str, Any, float], Any], timeout: float) -> Any:
            def open_at(address: str, method: Any, left_s: float) -> Any:
                def begin(requests: Any) -> Any:
                    metadata = self._credentials.metadata(address)
                    return method(requests, metadata=metadata)

                return attempt(address, begin, left_s)

            return self.try_each(path, method_of, open_at, timeout)

        return use

    def try_each(
        self,
        path: str,
        method_of: Callable[[Any], Any],
        attempt: Callable[[str, Any, float], Any],
        timeout_s: float,
    ) -> Any:
        """Make attempts until one is answered, or the next would be in vain.

        Raises:
            grpc.RpcError: of the last attempt.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            address, method = self._current(path, method_of)
            try:
                reply = attempt(address, method, deadline_s - time.monotonic())
            except grpc.RpcError as error:
                if not self._goes_on(address, error, deadline_s):
                    raise
            else:
                self._route.answered()
                return reply

    def close(self) -> None:
        """Close all; later calls raise ``ValueError``, as gRPC's do."""
        with self._lock:
            self._is_closed = True
            channels = list(self._channels.values())
            self._channels.clear()
            self._methods.clear()
        for channel in channels:
            channel.close()

    def _current(self, path: str, method_of: Callable[[Any], Any]) -> tuple[str, Any]:
        with self._lock:
            if self._is_closed:
                raise ValueError("the connection to the registry was closed")
            address = self._route.current
            if address not in self._channels:
                self._channels[address] = channel_to(address, self._credentials)
            key = (address, path)
            if key not in self._methods:
                self._methods[key] = method_of(self._channels[address])
            return address, self._methods[key]

    def _goes_on(self, address: str, error: Any, deadline_s: float) -> bool:
        with self._lock:
            if self._route.current != address:
                return time.monotonic() < deadline_s  # another thread has turned
            meaning = error_from_rpc(error, address)
            if not self._route.may_go_on_after(meaning):
                return False
            should_pause = self._route.should_pause
        left_s = deadline_s - time.monotonic()
        if should_pause and left_s > PAUSE_S:
            time.sleep(PAUSE_S)
        return left_s > PAUSE_S
