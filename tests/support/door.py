"""A client's side of the opening dialogue: question to a node, session at a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Self

from xpool_protocol import transport
from xpool_protocol.codec import decode, encode
from xpool_protocol.connection import ClientConnection
from xpool_protocol.errors import PoolError
from xpool_protocol.messages import (
    Goodbye,
    Hello,
    Inquiry,
    Message,
    Payload,
    Redirect,
    Welcome,
)
from xpool_protocol.version import MAX_VERSION, MIN_VERSION

ANSWER_S = 20.0


def ask_raw(
    address: str, frames: Sequence[Payload], timeout_s: float = ANSWER_S
) -> Message | None:
    """What an address answers to any frames; None if it keeps silent."""
    with transport.connect(address) as link:
        link.send(frames)
        answer = link.receive(timeout_s)
        return None if answer is None else decode(answer)


def ask(address: str, message: Message) -> Message:
    """The answer to a message."""
    answer = ask_raw(address, encode(message))
    assert answer is not None, f"{address} does not answer {message}"
    return answer


def hello(token: str, key: str = "") -> Hello:
    return Hello(MIN_VERSION, MAX_VERSION, token, key, "test", "none")


def refusal(address: str, message: Message) -> PoolError:
    """The error with which a message is answered."""
    answer = ask(address, message)
    assert isinstance(answer, Goodbye), answer
    return PoolError.from_wire(answer.code, answer.text)


def redirect(address: str, token: str) -> Redirect:
    """Where a node sends the holder of a token."""
    answer = ask(address, hello(token))
    assert isinstance(answer, Redirect), answer
    return answer


class Session:
    """An open session that asks for nothing."""

    def __init__(self, node_address: str, token: str) -> None:
        self.node_address = node_address
        self.token = token
        at = redirect(node_address, token)
        self.key = at.session_key
        # Some tests end while nobody is left to take the Bye: do not wait long.
        self.link = transport.connect(at.address, linger_s=0.2)
        self.connection = ClientConnection()
        self.link.send(self.connection.hello(token, self.key, "test", "none"))
        try:
            welcome = self.receive()
            assert isinstance(welcome, Welcome), welcome
        except BaseException:
            self.link.close()
            raise
        self.welcome = welcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(PoolError):
            self.link.send(self.connection.bye("the test is over"))
        self.link.close()

    def receive(self, timeout_s: float = ANSWER_S) -> Message:
        frames = self.link.receive(timeout_s)
        assert frames is not None, "the worker keeps silent"
        return self.connection.receive(frames)

    def await_goodbye(self) -> PoolError:
        message = self.receive()
        assert isinstance(message, Goodbye), message
        return PoolError.from_wire(message.code, message.text)

    def inquire(self) -> Message:
        return ask(self.node_address, Inquiry(self.token, self.key))
