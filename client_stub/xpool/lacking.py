"""What the server's device has no kernel for, as ``Welcome`` says; for both devices.

``native/lacking.cpp`` decides the same for the native device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xpool_protocol.messages import Welcome


def device_text(welcome: Welcome) -> str:
    """The server's device, for a sentence."""
    return (
        f"the device of server {welcome.server!r} ({welcome.device_kind}:"
        f" {welcome.device_name})"
    )


class Lacking:
    """Decides whether an operation is sent, put in other words, or refused."""

    def __init__(self, welcome: Welcome) -> None:
        self._where = device_text(welcome)
        self._operations = frozenset(one for one in welcome.lacking if "?" not in one)
        self._plain = frozenset(
            one.partition("?")[0] for one in welcome.lacking if "?" in one
        )

    def has_no(self, name: str) -> bool:
        """There is no kernel at all for ``aten::NAME.OVERLOAD``."""
        return name in self._operations

    def wants_plain(self, name: str) -> bool:
        """There is one for the plain value of some argument only."""
        return name in self._plain

    def refusal(self, name: str) -> NotImplementedError:
        """What to raise where there are no other words for it."""
        return NotImplementedError(
            f"{name} has no kernel for {self._where}, and xpool knows no other words"
            " for it"
        )
