"""What ufunc calls with operands of known geometries return, and their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from xpool.cupy.device import device
from xpool.cupy.encoding import ENCODERS, encode_float, encode_int, uvarint
from xpool.cupy.geometry import Geometry
from xpool.cupy.ndarray import made, ndarray

MAX_PLANS: Final = 1 << 14

NUMBER_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    float: encode_float,
    int: encode_int,
    bool: ENCODERS[bool],
}
"""Of plain numbers, by type."""


class Plan:
    """What a call with operands of known geometries returns."""

    __slots__ = ("bounds", "geo", "head", "into", "name", "tail")

    def __init__(
        self, name: str, nin: int, geo: Geometry, bounds: tuple[int, int] | None
    ) -> None:
        self.name, self.geo = name, geo
        self.head = device().head(name, 1)
        self.tail = geo.wire + uvarint(nin)
        self.into = device().head(name, 0) + uvarint(nin)
        self.bounds = bounds
        """Least and greatest Python integer that the operand's dtype holds."""

    def post(self, operands: bytes) -> ndarray:
        """Queue the call with these operands, as they stand in a record."""
        array = made(self.geo, self.geo.charge_nbytes)
        where = device()
        where.post_new(self.head + array._ref[1:] + self.tail + operands + b"\x00")
        if where.audit is not None:
            where.audit.check(self.name, [(array._ref, self.geo)])
        return array

    def post_into(self, operands: bytes, out: ndarray) -> None:
        """Queue the call into an array of the result's geometry."""
        device().post(self.into + operands + b"\x01\x03out" + out._ref)
