"""``RandomState``, ``Generator`` and the bit generators: objects on the server."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from xpool.cupy.finder import module
from xpool.cupy.remote_classes import RemoteClass, remote_class


class _Seeded(RemoteClass):
    """NumPy's seeds travel by value."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        def plain(value: Any) -> Any:
            if isinstance(value, np.random.SeedSequence):
                return int(value.generate_state(1, np.uint64)[0])
            return value

        return (
            tuple(plain(one) for one in args),
            {name: plain(one) for name, one in kwargs.items()},
        )


for _name in ("BitGenerator", "XORWOW", "MRG32k3a", "Philox4x3210"):
    remote_class(f"cupy.random.{_name}", _Seeded)
Generator = remote_class("cupy.random.Generator", _Seeded)
remote_class("cupy.random.RandomState", _Seeded)


@module("cupy.random")
def fill(m: ModuleType) -> None:
    """A name that ``dir`` of CuPy's module does not tell."""
    m.Generator = Generator  # type: ignore[attr-defined]
