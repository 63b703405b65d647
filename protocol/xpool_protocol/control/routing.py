"""Which of several registries a call goes to.

One registry leads; the others know who. A pool's address is then a list,
``HOST:PORT,HOST:PORT``: a call goes to the one that led last, follows the name of the
leader that another one tells, and goes round while nobody answers or none leads yet.
"""

from __future__ import annotations

import re
from typing import Final

from xpool_protocol.errors import (
    NotLeader,
    PoolError,
    RegistryUnreachable,
    UsageError,
)

MAX_ADDRESSES: Final = 16
MAX_ADDRESS_CHARS: Final = 300
"""A host name has at most 255."""

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})", re.ASCII)

PAUSE_S: Final = 0.1
"""Between rounds while the registries elect one of them, which takes seconds."""


def addresses_from_text(text: str) -> list[str]:
    """The registries in ``HOST:PORT,HOST:PORT``.

    Raises:
        UsageError: none, too many, or one without a port.

    >>> addresses_from_text("a:7700, b:7700")
    ['a:7700', 'b:7700']
    """
    addresses = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(addresses) <= MAX_ADDRESSES:
        raise UsageError(
            f"{text!r} names no registry, or more than {MAX_ADDRESSES}: write"
            " HOST:PORT, or several with commas between"
        )
    for address in addresses:
        if not _is_address(address):
            raise UsageError(
                f"{address!r} is not a registry's address: write HOST:PORT, for"
                " instance 127.0.0.1:7700"
            )
    return addresses


class Route:
    """Where the next attempt goes. Decides; knows no channel and no clock."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.current = addresses[0]
        self._failed = 0
        """Attempts since the last answer."""

    def answered(self) -> None:
        """The attempt came to its end, whatever it was."""
        self._failed = 0

    def may_go_on_after(self, error: PoolError) -> bool:
        """Turn to another registry if that may help.

        One address alone is asked once, as if there were no others: whoever calls
        knows whether to try again.
        """
        if len(self.addresses) == 1:
            return False
        if isinstance(error, NotLeader) and _is_address(error.leader):
            is_news = error.leader != self.current
            self.current = error.leader
            self._failed += 0 if is_news else 1
            return True
        if isinstance(error, (NotLeader, RegistryUnreachable)):
            self._turn()
            return True
        return False

    @property
    def should_pause(self) -> bool:
        """Everybody was asked once more, and nobody could."""
        return self._failed > 0 and self._failed % len(self.addresses) == 0

    def _turn(self) -> None:
        self._failed += 1
        if self.current in self.addresses:
            at = (self.addresses.index(self.current) + 1) % len(self.addresses)
        else:  # a leader that only another one has named
            at = 0
        self.current = self.addresses[at]


def _is_address(address: str) -> bool:
    match = _ADDRESS.fullmatch(address[: MAX_ADDRESS_CHARS + 1])
    return (
        match is not None
        and len(address) <= MAX_ADDRESS_CHARS
        and 1 <= int(match[2]) <= 65_535
    )
