"""The node's line to a registry that does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from xpool_server.registry_link import Identity, RegistryLink

NODE = Identity("one", "boot", "tcp://127.0.0.1:1", (), "0.1.0")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who takes calls and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_no_thread_is_within_a_call_after_the_end(silent: str) -> None:
    """Whether the registry answers or not: gRPC crashes under an interpreter's end."""
    link = RegistryLink(silent, NODE, lambda: None)
    link.start()
    assert "registry-link" in [one.name for one in threading.enumerate()]
    link.stop()
    assert "registry-link" not in [one.name for one in threading.enumerate()]
