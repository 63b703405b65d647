"""Predictions that a server has contradicted: what was predicted is asked for instead.

A call whose results came out otherwise has failed, and only it: from then on the client
asks for the results of that operation once for each geometry, as it does where no meta
kernel models the server's device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xpool_protocol.errors import ArgumentInvalid

if TYPE_CHECKING:
    from xpool_protocol.messages import Fault

SIGN: Final = "predicted "
"""How a server begins to say that a prediction was wrong."""


def is_contradiction(fault: Fault) -> bool:
    """Whether a call has failed because its results were not as predicted."""
    return fault.code == ArgumentInvalid.code and fault.text.startswith(SIGN)
