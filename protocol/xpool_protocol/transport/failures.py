"""How a path fails, in the same words whichever transport it is."""

from __future__ import annotations

from xpool_protocol.errors import BrokenError, PeerError


def lost(uri: str) -> BrokenError:
    """An established connection is gone."""
    return BrokenError(
        f"lost the connection to {uri}: the process there ended, closed it,"
        " or fell silent"
    )


def nobody(uri: str, tried_s: float) -> BrokenError:
    """The peer never answered."""
    return BrokenError(
        f"nothing answers at {uri} (tried for {tried_s:g} s): check the address, and"
        " that the server there is running"
    )


def too_large(uri: str, max_nbytes: int) -> PeerError:
    """The peer sent a message of more bytes than we accept."""
    return PeerError(f"{uri} sent a message of more than {max_nbytes} bytes")


def too_many_frames(uri: str, max_frames: int) -> PeerError:
    """The peer sent a message of more frames than we accept."""
    return PeerError(f"{uri} sent a message of more than {max_frames} frames")
