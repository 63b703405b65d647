"""Makes the modules ``cupy`` and ``cupyx`` in this process, out of CuPy's own table.

A finder at the front of ``sys.meta_path``: nothing named ``cupy`` lies on the path
where other programs would find it, and a CuPy that is installed here gives way, because
its arrays could not live anywhere.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

Maker = Callable[[ModuleType], None]

MAKERS: Final[dict[str, list[Maker]]] = {}
"""What is special in a module, by its name; ``@module`` registers."""

OPENER: Final[list[Callable[[], Any]]] = []
"""How the device is made when ``cupy`` is imported."""

LEFT_ALONE: Final[set[str]] = set()
"""Modules that somebody else provides, such as a checkout's ``cupy.testing``."""


def module(*names: str) -> Callable[[Maker], Maker]:
    """Register what a module holds beside the table's names."""

    def register(maker: Maker) -> Maker:
        for name in names:
            MAKERS.setdefault(name, []).append(maker)
        return maker

    return register


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules."""

    def __init__(self) -> None:
        self._is_ready = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of one of our modules; None for all others."""
        top = fullname.partition(".")[0]
        if top not in ("cupy", "cupyx", "cupy_backends") or fullname in LEFT_ALONE:
            return None
        self._get_ready()
        from xpool_protocol.arrays.api import api

        if fullname in MAKERS or fullname in api():
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def _get_ready(self) -> None:
        if self._is_ready:
            return
        self._is_ready = True
        from xpool.cupy import answers
        from xpool.cupy.device import device, set_opener

        set_opener(OPENER[0])
        answers.connect(device())
        importlib.import_module("xpool.cupy.modules")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """An ordinary module."""
        return

    def exec_module(self, module: ModuleType) -> None:
        """Fill it."""
        from xpool.cupy.filling import fill

        for maker in MAKERS.get(module.__name__, ()):
            maker(module)
        fill(module)


def install() -> None:
    """From now on ``import cupy`` finds the drop-in.

    Raises:
        UsageError: a real CuPy is imported already.
    """
    from xpool_protocol.errors import UsageError

    if any(isinstance(one, Finder) for one in sys.meta_path):
        return
    if "cupy" in sys.modules:
        raise UsageError(
            "cupy is imported already: call xpool.init() before `import cupy`"
        )
    sys.meta_path.insert(0, Finder())
