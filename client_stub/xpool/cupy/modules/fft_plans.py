"""Plans of cuFFT: objects that say what they are for. The server makes its own.

A program that makes a plan once and passes it on runs as it is; a plan that does not
fit its transform is refused, as cuFFT's would be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from xpool_protocol.arrays.api import api

from xpool.cupy.axes import normalized_axes
from xpool.cupy.finder import module
from xpool.cupy.functions import call, own
from xpool.cupy.ndarray import ndarray

_TYPES: Final = ("C2C", "R2C", "C2R")
_MODULES: Final = ("cupyx.scipy.fft", "cupyx.scipy.fftpack")


_entered = threading.local()


def _plans() -> list[Plan]:
    """Those in whose ``with`` blocks this thread is."""
    found: list[Plan] = vars(_entered).setdefault("plans", [])
    return found


class Plan:
    """What ``get_fft_plan`` returns; in its ``with`` block no other may be passed."""

    def __init__(
        self, shape: tuple[int, ...], axes: tuple[int, ...], value_type: str
    ) -> None:
        """A plan for transforms of these lengths along these axes."""
        self.shape, self.axes, self.value_type = shape, axes, value_type

    def __enter__(self) -> Plan:
        _plans().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _plans().pop()

    def __repr__(self) -> str:
        return f"<plan of {self.value_type} along {self.axes}>"

    def check(self, a: Any, many: bool) -> None:
        """Refuse a transform that the plan is not for.

        Raises:
            ValueError: it is none.
        """
        if not many and len(self.axes) > 1:
            raise ValueError("the plan is for several axes, the transform has one")
        if isinstance(a, ndarray) and a.ndim != len(self.shape):
            raise ValueError(
                f"the plan is for {len(self.shape)} dimensions, the array has {a.ndim}"
            )


def _get_fft_plan(
    a: Any, shape: Any = None, axes: Any = None, value_type: str = "C2C"
) -> Plan:
    """A plan for transforms of an array like this one.

    Raises:
        TypeError: it is no array.
        ValueError: lengths and axes do not go together, or there is no such type.
    """
    if not isinstance(a, ndarray):
        raise TypeError("a plan is made for an array")
    if value_type not in _TYPES:
        raise ValueError(f"value_type must be one of {', '.join(_TYPES)}")
    if not a.flags.forc:
        raise ValueError("Input array a must be contiguous")
    lengths = (shape,) if isinstance(shape, int) else shape
    wanted = (axes,) if isinstance(axes, int) else axes
    if lengths is not None and wanted is not None and len(lengths) != len(wanted):
        raise ValueError("Shape and axes have different lengths.")
    if wanted is None:
        count = a.ndim if lengths is None else len(lengths)
        wanted = range(a.ndim - count, a.ndim)
    return Plan(a.shape, tuple(normalized_axes(tuple(wanted), a.ndim)), value_type)


def _with_plan(full: str) -> Callable[..., Any]:
    is_many = full.endswith(("fftn", "fft2"))

    def transform(*args: Any, plan: Any = None, **kwargs: Any) -> Any:
        if plan is not None:
            if not isinstance(plan, Plan):
                raise TypeError("plan is made by get_fft_plan")
            if _plans():
                raise RuntimeError(
                    "Use the cuFFT plan either as a context manager or as an argument."
                )
            plan.check(args[0] if args else kwargs.get("x"), is_many)
        return call(full, args, kwargs)

    return transform


for _module in _MODULES:
    own(f"{_module}.get_fft_plan")(_get_fft_plan)
    for _name, _what in api()[_module].items():
        if _what[0] == "function" and "plan=" in str(_what[1]):
            own(f"{_module}.{_name}")(_with_plan(f"{_module}.{_name}"))


class PlanCache:
    """``get_plan_cache()``: its limits are kept, and it is always empty here."""

    def __init__(self) -> None:
        self._size, self._memsize = 16, -1

    def get_size(self) -> int:
        """How many plans it may hold."""
        return self._size

    def set_size(self, size: int) -> None:
        """Say how many plans it may hold."""
        self._size = int(size)

    def get_memsize(self) -> int:
        """How much memory plans may take; -1: any."""
        return self._memsize

    def set_memsize(self, memsize: int) -> None:
        """Say how much memory plans may take."""
        self._memsize = int(memsize)

    def get_curr_size(self) -> int:
        """How many plans it holds: the server keeps its own."""
        return 0

    def get_curr_memsize(self) -> int:
        """How much memory plans take here: none."""
        return 0

    def clear(self) -> None:
        """Forget all plans; there are none."""

    def show_info(self) -> None:
        """Print limits and contents."""
        print(  # noqa: T201  asked for
            f"cuFFT plan cache: 0 of {self._size} plans here; the server keeps its own"
        )

    def __repr__(self) -> str:
        return f"<plan cache of {self._size}>"


_cache: Final = PlanCache()


@module("cupy.fft.config")
def fill(m: ModuleType) -> None:
    """What programs do with the cache."""
    functions: dict[str, Any] = {
        "get_plan_cache": lambda: _cache,
        "get_plan_cache_size": _cache.get_size,
        "set_plan_cache_size": _cache.set_size,
        "get_plan_cache_max_memsize": _cache.get_memsize,
        "set_plan_cache_max_memsize": _cache.set_memsize,
        "clear_plan_cache": _cache.clear,
        "show_plan_cache_info": _cache.show_info,
    }
    for name, function in functions.items():
        setattr(m, name, function)
