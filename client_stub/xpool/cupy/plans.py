"""What ufunc calls with operands of known geometries return, and their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from xpool.cupy.device import device
from xpool.cupy.encoding import ENCODERS, encode_float, encode_int, new_number, uvarint
from xpool.cupy.geometry import Geometry
from xpool.cupy.ndarray import ndarray

MAX_PLANS: Final = 1 << 14

NUMBER_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    float: encode_float,
    int: encode_int,
    bool: ENCODERS[bool],
}
"""Of plain numbers, by type."""


class Plan:
    """What a call with operands of known geometries returns."""

    __slots__ = ("bounds", "charge", "geo", "head", "into", "name", "recent", "tail")

    def __init__(
        self, name: str, nin: int, geo: Geometry, bounds: tuple[int, int] | None
    ) -> None:
        self.name, self.geo = name, geo
        self.head = device().head(name, 1)
        self.tail = geo.wire + uvarint(nin)
        self.into = device().head(name, 0) + uvarint(nin)
        self.charge = geo.charge_nbytes
        self.recent = geo.recent
        self.bounds = bounds
        """Least and greatest Python integer that the operand's dtype holds."""

    def post(self, operands: bytes) -> ndarray:
        """Queue the call with these operands, as they stand in a record."""
        where = device()
        where.charge(self.charge)
        array = object.__new__(ndarray)
        array._number, wire = new_number()
        array._ref = b"\x21" + wire
        array._geo = self.geo
        array._base = array._layout = None
        array._charge = self.charge
        if self.recent is not None:
            self.recent.append(array._number)
        where.post_new(self.head + wire + self.tail + operands + b"\x00")
        if where.audit is not None:
            where.audit.check(self.name, [(array._ref, self.geo)])
        return array

    def post_into(self, operands: bytes, out: ndarray) -> None:
        """Queue the call into an array of the result's geometry."""
        device().post(self.into + operands + b"\x01\x03out" + out._ref)
