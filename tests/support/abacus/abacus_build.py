"""The extension's native library: what it is built of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from xpool_protocol.native_build import Library

LIBRARY: Final = Library(
    name="abacus-for-torch",
    folder=Path(__file__).parent,
    links=("-lc10", "-ltorch_cpu"),
    without="there is no abacus",
)
