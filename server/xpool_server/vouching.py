"""Addresses that a worker of this pool vouches for.

A client tells its worker where other workers of the job are. So that it can't make the
worker knock at whatever port it likes, such an address carries a seal: whoever listens
there has made it, with a key that the pool's servers alone have (SPEC.md section 14).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from xpool_protocol.errors import ArgumentInvalid

LABEL: Final = b"xpool-door-1\n"
MARK: Final = "#"


class Vouching:
    """Seals addresses of this host, and opens those of others."""

    def __init__(self, host: str = "127.0.0.1", key: bytes = b"") -> None:
        """Vouch for addresses.

        Args:
            host: by which others reach this one, in brackets if it is IPv6.
            key: of the pool; without one only this worker's own seals are good.
        """
        self.host = host
        self._key = key or secrets.token_bytes(32)

    def sealed(self, address: str) -> str:
        """The address and its seal, as one text."""
        return f"{address}{MARK}{self._seal(address)}"

    def opened(self, text: str) -> str:
        """The address alone.

        Raises:
            ArgumentInvalid: nobody in this pool vouches for it.
        """
        address, _, seal = text.rpartition(MARK)
        if not hmac.compare_digest(seal.encode(), self._seal(address).encode()):
            raise ArgumentInvalid(f"no server of this pool vouches for {text[:80]!r}")
        return address

    def _seal(self, address: str) -> str:
        return hmac.new(self._key, LABEL + address.encode(), hashlib.sha256).hexdigest()
