"""What a stranger's bytes ask of a node, once they are believed.

Bytes become a ``Hello`` or an ``Inquiry``, a token becomes claims; whatever else
comes in is a ``PoolError`` to send back. No I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from xpool_protocol.codec import decode
from xpool_protocol.control.token import LeaseClaims, verify
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Hello, Inquiry, Payload
from xpool_protocol.transport.base import PeerId
from xpool_protocol.version import MAX_VERSION, MIN_VERSION, choose_version

from xpool_server.node_facts import SessionAsked, SessionInquired

MAX_QUESTION_NBYTES: Final = 64 << 10
"""A Hello is a token of at most 4 KiB and some text."""

LEEWAY_S: Final = 2.0
"""How far our clock may run ahead of the registry's; NTP keeps hosts far closer."""


class FrontDoor:
    """Turns questions into facts, by the key of the registry that was joined."""

    def __init__(self, public_key: bytes) -> None:
        """Check tokens with a registry's Ed25519 key, 32 raw bytes.

        Raises:
            PeerError: the registry sent something else.
        """
        try:
            self._key = Ed25519PublicKey.from_public_bytes(public_key)
        except ValueError as error:
            raise PeerError(
                "the registry's public key is not an Ed25519 key"
            ) from error

    def fact_from_frames(
        self, peer: PeerId, frames: Sequence[Payload], now_s: float
    ) -> SessionAsked | SessionInquired:
        """What a client asks.

        Args:
            peer: who asks; noted, not believed.
            frames: one message as it arrived.
            now_s: wall clock, seconds since 1970.

        Raises:
            PeerError: no message, or not one for a node.
            VersionUnsupported: we have no protocol version in common.
            TokenInvalid: forged or expired.
        """
        message = decode(frames)
        match message:
            case Hello():
                choose_version(
                    message.min_version, message.max_version, MIN_VERSION, MAX_VERSION
                )
                claims = self._claims(message.token, now_s, LEEWAY_S)
                return SessionAsked(peer, claims)
            case Inquiry():
                # The session key is what counts; the lease may well have run out.
                claims = self._claims(message.token, now_s, math.inf)
                return SessionInquired(peer, claims, message.session_key)
        name = type(message).__name__
        raise PeerError(f"a node answers Hello and Inquiry, not {name}")

    def _claims(self, token: str, now_s: float, leeway_s: float) -> LeaseClaims:
        return verify(token, self._verify, now_s, leeway_s=leeway_s)

    def _verify(self, signature: bytes, message: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature as error:
            raise ValueError("the signature does not match") from error
