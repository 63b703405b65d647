"""``cupy.fft.config`` and what goes with cuFFT's plans, which a pool does not show."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

from xpool.cupy.finder import module


class _Config(ModuleType):
    """``enable_nd_planning`` is deprecated, and says so whenever it is touched."""

    @property
    def enable_nd_planning(self) -> bool:
        """Whether n-dimensional plans are made; the server decides that itself."""
        _warn()
        return bool(self.__dict__.get("_planning", True))

    @enable_nd_planning.setter
    def enable_nd_planning(self, value: bool) -> None:
        _warn()
        self.__dict__["_planning"] = value


def _warn() -> None:
    warnings.warn(
        "enable_nd_planning is deprecated and will be removed",
        DeprecationWarning,
        stacklevel=3,
    )


@module("cupy.fft.config")
def fill_config(m: ModuleType) -> None:
    """Settings of cuFFT: kept, and without an effect here."""
    m.__class__ = _Config
    config: Any = m
    config.use_multi_gpus = False
    config.set_cufft_callbacks = _refuse_callbacks


def _refuse_callbacks(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(
        "xpool: callbacks of cuFFT, CUDA source that becomes part of a plan, are not"
        " available in the pool; change the items before or after the transform"
    )


@module("cupy.fft")
def fill(m: ModuleType) -> None:
    """The settings."""
    import importlib

    m.config = importlib.import_module("cupy.fft.config")  # type: ignore[attr-defined]
