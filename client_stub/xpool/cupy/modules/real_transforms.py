"""Cosine and sine transforms of the types that CuPy has, and lengths for cuFFT."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from xpool_protocol.arrays.api import api

from xpool.cupy.functions import call, own

_MODULE: Final = "cupyx.scipy.fft"
_KINDS: Final = ("dct", "dst")
_OFFERED: Final = (2, 3)
_MISSING: Final = (1, 4)
_FACTORS: Final = (7, 5, 3, 2)


def _real_transform(full: str, kind: str) -> Callable[..., Any]:
    def transform(*args: Any, **kwargs: Any) -> Any:
        type_ = args[1] if len(args) > 1 else kwargs.get("type", 2)
        if type_ in _MISSING:
            raise NotImplementedError(
                f"{kind.upper()}s of the types 1 and 4 are not in CuPy: types 2 and 3"
                " are"
            )
        if type_ not in _OFFERED:
            raise ValueError(f"there is no {kind.upper()} of type {type_!r}")
        return call(full, args, kwargs)

    return transform


@own(f"{_MODULE}.next_fast_len")
def next_fast_len(target: int, real: bool = False) -> int:
    """The next length, ``target`` or more, that is a product of 2, 3, 5 and 7.

    Args:
        target: at least so long.
        real: of no influence, as in CuPy.

    Raises:
        TypeError: no whole number.
        ValueError: a negative one.
    """
    length = operator.index(target)
    if length < 0:
        raise ValueError("a length is not negative")
    return _least_product(length, _FACTORS) if length else 0


def _least_product(least: int, factors: Sequence[int]) -> int:
    """The smallest product of these factors that is not below ``least``."""
    factor, *others = factors
    if not others:  # 2, whose powers are the bit lengths
        return 1 << (least - 1).bit_length()
    best, power = least * factor, 1
    while power < best:
        best = min(best, power * _least_product(-(-least // power), others))
        power *= factor
    return best


for _name in api()[_MODULE]:
    for _kind in _KINDS:
        if _name.removeprefix("i").removesuffix("n") == _kind:
            _full = f"{_MODULE}.{_name}"
            own(_full)(_real_transform(_full, _kind))
