"""Addresses as people write them: ``tcp://host:port``, ``ipc://path``, ``inproc://name``.

Checked here because libzmq is lenient where it hurts: it takes port 99999 for
34463, and replaces an ordinary file by a socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xpool_protocol.errors import UsageError

_FORMS = {
    "tcp": "tcp://HOST:PORT",
    "ipc": "ipc://PATH",
    "inproc": "inproc://NAME",
}
_TCP = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[^\s:/;\[\]]+):(?P<port>[0-9]{1,5})"
)

# sockaddr_un holds 108 bytes with the final zero.
_MAX_PATH_NBYTES = 107


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address."""

    uri: str
    scheme: str
    rest: str
    """What follows ``://``."""

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is written as an IPv6 address."""
        return self.scheme == "tcp" and self.rest.startswith("[")


def address_from_uri(uri: str, *, listening: bool) -> Address:
    """Take an address apart.

    Args:
        uri: the address; when listening, port 0 and host ``*`` are allowed.
        listening: whether it is for ``listen`` rather than ``connect``.

    Raises:
        UsageError: an unknown scheme, or not an address of its scheme.

    >>> address_from_uri("tcp://10.0.0.1:7000", listening=False).rest
    '10.0.0.1:7000'
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in _FORMS:
        known = ", ".join(_FORMS.values())
        raise UsageError(f"{uri!r} is not an address: write one of {known}")
    if "\0" in rest or not _fits(scheme, rest, listening):
        raise UsageError(f"{uri!r} is not an address of the form {_FORMS[scheme]}")
    return Address(uri, scheme, rest)


def _fits(scheme: str, rest: str, listening: bool) -> bool:
    if scheme == "tcp":
        match = _TCP.fullmatch(rest)
        if match is None or not (not listening) <= int(match["port"]) <= 65_535:
            return False
        return listening or match["host"] != "*"
    if scheme == "ipc":
        return 1 <= len(rest.encode()) <= _MAX_PATH_NBYTES and rest != "*"
    return bool(rest)
