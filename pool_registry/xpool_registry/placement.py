"""What is free, and what is short, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xpool_protocol.quantities import text_from_nbytes

from xpool_registry.demand import Demand

# A refusal is one message for a person; whoever wants all devices lists them.
MAX_DEVICES_NAMED = 6


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

    closed: str = ""
    """Why it takes no new leases although it is alive, for people."""

    ruled_out: str = ""
    """The constraint that it does not meet, for people."""

    @property
    def key(self) -> tuple[str, int]:
        """Which device."""
        return (self.node_name, self.device_index)

    def __str__(self) -> str:
        free = f"{self.free_share_percent}% and {text_from_nbytes(self.free_nbytes)}"
        return f"{self.node_name}/{self.device_index} has {free}"


def describe(demand: Demand) -> str:
    """The slice of one device, for people."""
    percent = f"{demand.share_milli / 10:g}%"
    if demand.memory_nbytes:
        return f"{percent} and {text_from_nbytes(demand.memory_nbytes)}"
    return f"{percent} and {percent} of its memory"


def shortage(demand: Demand, offer: DeviceOffer) -> str:
    """What keeps the demand off that device, for people; empty if it fits."""
    if offer.silence_ms is not None:
        return f"not heard from for {offer.silence_ms / 1000:.0f} s"
    if offer.closed or offer.ruled_out:
        return offer.closed or offer.ruled_out
    short = []
    if offer.free_share_percent * 10 < demand.share_milli:
        short.append("share")
    needs = demand.memory_nbytes or offer.memory_nbytes * demand.share_milli // 1000
    if offer.free_nbytes < needs:
        short.append("memory")
    return "too little " + " and ".join(short) if short else ""


def refusal(
    demand: Demand, offers: Sequence[DeviceOffer], total: int, fitting_count: int
) -> str:
    """Why a demand does not fit now.

    Args:
        demand: what was asked for.
        offers: the nearest misses.
        total: how many devices there are.
        fitting_count: how many of them have one part free.
    """
    if not total:
        return (
            "no server has joined yet: start one with"
            ' "xpool server" or a whole pool with "xpool up"'
        )
    wanted = describe(demand)
    listing = _listing(demand, offers, total)
    if demand.device_count == 1:
        return f"no device has {wanted} free: {listing}"
    has = "has" if fitting_count == 1 else "have"
    where = " on one node" if demand.same_node else ""
    return (
        f"{demand.device_count} devices{where} are wanted and {fitting_count} {has}"
        f" {wanted} free: {listing}"
    )


def _listing(demand: Demand, offers: Iterable[DeviceOffer], total: int) -> str:
    """What is free, and why it does not do."""
    named = [f"{offer} ({shortage(demand, offer) or 'fits'})" for offer in offers]
    if total > len(named):
        named.append(f"and {total - len(named)} more")
    return "; ".join(named)
