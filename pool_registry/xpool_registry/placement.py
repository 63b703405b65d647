"""Where a slice goes: a pure function of what is asked for and what is offered.

Best fit: of the devices that can hold the slice, the one that is left with the
least free share, so that whole devices stay whole for those who need one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xpool_protocol.errors import NoCapacity
from xpool_protocol.quantities import text_from_nbytes

# A refusal is one message for a person; whoever wants all devices lists them.
MAX_DEVICES_NAMED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRequest:
    """How much of one device is wanted."""

    share_percent: int
    memory_nbytes: int
    """0: the same share of the device's memory as of its compute."""

    def needs_nbytes(self, offer: DeviceOffer) -> int:
        """The memory that this request means on that device."""
        if self.memory_nbytes:
            return self.memory_nbytes
        return offer.memory_nbytes * self.share_percent // 100

    def __str__(self) -> str:
        if self.memory_nbytes:
            memory = text_from_nbytes(self.memory_nbytes)
        else:
            memory = f"{self.share_percent}% of its memory"
        return f"{self.share_percent}% and {memory}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOffer:
    """One device and what no lease has taken of it."""

    node_name: str
    device_index: int
    memory_nbytes: int
    """All of it, free or not."""

    free_share_percent: int
    free_nbytes: int
    silence_ms: int | None = None
    """How long the node has been silent, if that is too long; None: it is alive."""

    @property
    def key(self) -> tuple[str, int]:
        """Which device, as ``State.held`` names it."""
        return (self.node_name, self.device_index)

    def __str__(self) -> str:
        free = f"{self.free_share_percent}% and {text_from_nbytes(self.free_nbytes)}"
        return f"{self.node_name}/{self.device_index} has {free}"


def place(request: SliceRequest, offers: Iterable[DeviceOffer]) -> DeviceOffer:
    """The offer to take, whatever the order they come in.

    Raises:
        NoCapacity: none fits; the text lists what is free and what is short.
    """
    known = sorted(offers, key=lambda offer: offer.key)
    fitting = [offer for offer in known if not shortage(request, offer)]
    if not fitting:
        raise NoCapacity(_refusal(request, known))
    # min() takes the first of equals, and they are sorted by name and index.
    return min(fitting, key=lambda offer: (offer.free_share_percent, offer.free_nbytes))


def place_group(
    request: SliceRequest, count: int, offers: Iterable[DeviceOffer]
) -> list[DeviceOffer]:
    """As many different devices as are wanted, on as few nodes as can be.

    Nodes with many fitting devices come first; the last one is the smallest that
    suffices, and of equals the one with the least free share.

    Raises:
        NoCapacity: there are not so many; the text lists what is free.
    """
    known = sorted(offers, key=lambda offer: offer.key)
    if count == 1:
        return [place(request, known)]
    by_node: dict[str, list[DeviceOffer]] = {}
    for offer in known:
        if not shortage(request, offer):
            by_node.setdefault(offer.node_name, []).append(offer)
    chosen: list[DeviceOffer] = []
    while by_node and len(chosen) < count:
        wanted = count - len(chosen)
        enough = [fitting for fitting in by_node.values() if len(fitting) >= wanted]
        if enough:
            node = min(enough, key=lambda fitting: _fit(fitting, wanted))
        else:
            node = max(by_node.values(), key=len)
        del by_node[node[0].node_name]
        chosen += sorted(_tightest(node, wanted), key=lambda offer: offer.key)
    if len(chosen) < count:
        has = "has" if len(chosen) == 1 else "have"
        raise NoCapacity(
            f"{count} devices are wanted and {len(chosen)} {has} {request} free:"
            f" {_listing(request, known)}"
        )
    return chosen


def _fit(fitting: list[DeviceOffer], wanted: int) -> tuple[int, int]:
    """How much more than wanted a node has: devices, and free share on the chosen."""
    free = sum(offer.free_share_percent for offer in _tightest(fitting, wanted))
    return len(fitting), free


def _tightest(fitting: list[DeviceOffer], wanted: int) -> list[DeviceOffer]:
    """The best fits of one node."""
    return sorted(
        fitting, key=lambda offer: (offer.free_share_percent, offer.free_nbytes)
    )[:wanted]


def shortage(request: SliceRequest, offer: DeviceOffer) -> str:
    """What keeps the request off that device, for people; empty if it fits."""
    if offer.silence_ms is not None:
        return f"not heard from for {offer.silence_ms / 1000:.0f} s"
    short = []
    if offer.free_share_percent < request.share_percent:
        short.append("share")
    if offer.free_nbytes < request.needs_nbytes(offer):
        short.append("memory")
    return "too little " + " and ".join(short) if short else ""


def _refusal(request: SliceRequest, known: list[DeviceOffer]) -> str:
    if not known:
        return (
            "no server has joined yet: start one with"
            ' "xpool server" or a whole pool with "xpool up"'
        )
    return f"no device has {request} free: {_listing(request, known)}"


def _listing(request: SliceRequest, known: list[DeviceOffer]) -> str:
    """What is free, and why it does not do; the nearest misses first."""
    if not known:
        return "no server has joined yet"
    nearest = sorted(
        known,
        key=lambda offer: (offer.silence_ms is not None, -offer.free_share_percent),
    )
    named = [
        f"{offer} ({shortage(request, offer) or 'fits'})"
        for offer in nearest[:MAX_DEVICES_NAMED]
    ]
    if len(nearest) > MAX_DEVICES_NAMED:
        named.append(f"and {len(nearest) - MAX_DEVICES_NAMED} more")
    return "; ".join(named)
