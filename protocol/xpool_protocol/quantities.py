"""Sizes and shares as people write them: ``8GiB``, ``30%``.

Bytes are integers everywhere else; these functions stand at the edge where a
person types or reads one.
"""

from __future__ import annotations

import re

from xpool_protocol.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kib": 1 << 10,
    "kb": 10**3,
    "m": 1 << 20,
    "mib": 1 << 20,
    "mb": 10**6,
    "g": 1 << 30,
    "gib": 1 << 30,
    "gb": 10**9,
    "t": 1 << 40,
    "tib": 1 << 40,
    "tb": 10**12,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", re.ASCII)

MAX_NBYTES = 1 << 50
"""1 PiB: past any device's memory, far below where 64-bit sums could overflow."""


def nbytes_from_text(text: str) -> int:
    """Bytes named by a text like ``8GiB``, ``512MiB``, ``1.5g`` or ``4096``.

    ``KB MB GB TB`` are powers of ten, ``KiB MiB GiB TiB`` and the bare letters
    powers of two.

    Raises:
        UsageError: not a size, not positive, or over 1 PiB.

    >>> nbytes_from_text("8GiB")
    8589934592
    >>> nbytes_from_text("1.5k")
    1536
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(
            f"{text!r} is not a memory size: write a number and a unit,"
            " for instance 512MiB, 8GiB or 1.5g"
        )
    nbytes = int(float(match[1]) * unit)
    if not 0 < nbytes <= MAX_NBYTES:
        raise UsageError(f"memory size {text!r} is out of range: 1 byte to 1 PiB")
    return nbytes


def share_from_text(text: str) -> int:
    """Percent of a device's compute named by a text like ``30%`` or ``30``.

    Raises:
        UsageError: not a whole number from 1 to 100.

    >>> share_from_text("30%")
    30
    """
    bare = text.strip().removesuffix("%").strip()
    is_number = bare.isascii() and bare.isdecimal() and len(bare) <= 3
    if not is_number or not 1 <= int(bare) <= 100:
        raise UsageError(
            f"{text!r} is not a slice: write a whole percentage from 1% to 100%"
        )
    return int(bare)


def text_from_nbytes(nbytes: int) -> str:
    """A size for people, in binary units with at most one decimal.

    >>> text_from_nbytes(1536), text_from_nbytes(8 << 30)
    ('1.5 KiB', '8 GiB')
    """
    size = float(nbytes)
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    step = 0
    while abs(size) >= 1024 and step < len(units) - 1:
        size /= 1024
        step += 1
    return f"{size:.1f}".removesuffix(".0") + f" {units[step]}"
