"""What a client shows the registry: who it is, and how it knows the registry.

XPOOL_TOKEN        the token itself
XPOOL_TOKEN_FILE   a file with it; by default ``~/.config/xpool/token``, if there
XPOOL_CA           PEM file: the calls are encrypted, and the registry has to show a
certificate of that authority
XPOOL_INSECURE     1: a token may be sent unencrypted beyond this machine
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from xpool_protocol.errors import UsageError

TOKEN_FILE = "~/.config/xpool/token"  # noqa: S105  a path
MAX_TOKEN_CHARS = 512
AUTHORIZATION = "authorization"
_SCHEME = "Bearer "


class Credentials(NamedTuple):
    """Of one client."""

    token: str = ""
    ca_pem: bytes | None = None
    """None: unencrypted."""

    may_send_in_clear: bool = False

    def metadata(self, address: str) -> tuple[tuple[str, str], ...]:
        """What goes with each call to ``address``.

        Raises:
            UsageError: the token would go over a network unencrypted.
        """
        if not self.token:
            return ()
        is_private = self.ca_pem is not None or is_loopback(address)
        if not is_private and not self.may_send_in_clear:
            raise UsageError(
                f"your token would go to {address} unencrypted: name the registry's"
                " authority with XPOOL_CA, or set XPOOL_INSECURE=1 on a network where"
                " everybody is trusted"
            )
        return ((AUTHORIZATION, _SCHEME + self.token),)


def from_environment(environment: Mapping[str, str] | None = None) -> Credentials:
    """What the variables say; nothing by default.

    Raises:
        UsageError: a file that is named cannot be read, or a token's can be read by
            others.
    """
    env = os.environ if environment is None else environment
    ca = env.get("XPOOL_CA", "")
    return Credentials(
        token=_token(env),
        ca_pem=_read(Path(ca).expanduser(), "XPOOL_CA") if ca else None,
        may_send_in_clear=env.get("XPOOL_INSECURE", "") == "1",
    )


def token_of_metadata(metadata: Mapping[str, str]) -> str:
    """The token of a call; empty if there is none, or it is none of ours."""
    text = metadata.get(AUTHORIZATION, "")
    if not text.startswith(_SCHEME) or len(text) > MAX_TOKEN_CHARS:
        return ""
    return text.removeprefix(_SCHEME)


def is_loopback(address: str) -> bool:
    """Whether ``HOST:PORT`` is on this machine for certain.

    >>> is_loopback("127.0.0.1:7700"), is_loopback("[::1]:1"), is_loopback("gpu:1")
    (True, True, False)
    """
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(env: Mapping[str, str]) -> str:
    token = env.get("XPOOL_TOKEN", "").strip()
    if not token:
        named = env.get("XPOOL_TOKEN_FILE", "")
        path = Path(named or TOKEN_FILE).expanduser()
        if not named and not path.exists():
            return ""
        token = _read(path, "XPOOL_TOKEN_FILE").decode("ascii", "replace").strip()
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(
                f"{path} holds a token and can be read by others: close it"
            )
    if len(token) > MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise UsageError(
            "the token makes no sense: it is one line of letters and digits"
        )
    return token


def _read(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({variable}): {error.strerror}"
        ) from error
