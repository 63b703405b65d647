"""Which protocol version two sides speak. N talks to N-1."""

from __future__ import annotations

from typing import Final

from xpool_protocol.errors import VersionUnsupported

MIN_VERSION: Final = 1
MAX_VERSION: Final = 1


def choose_version(
    client_min: int, client_max: int, server_min: int, server_max: int
) -> int:
    """The newest version that both sides speak.

    Raises:
        VersionUnsupported: the two ranges do not meet, or one of them is empty.

    >>> choose_version(1, 3, 2, 5)
    3
    """
    chosen = min(client_max, server_max)
    if (
        client_min > client_max
        or server_min > server_max
        or (chosen < max(client_min, server_min))
    ):
        older = "client" if client_max < server_min else "server"
        raise VersionUnsupported(
            f"no protocol version in common: the client speaks {client_min} to"
            f" {client_max}, the server {server_min} to {server_max};"
            f" upgrade xpool on the {older}"
        )
    return chosen
