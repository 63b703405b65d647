"""Kinds of accelerators that torch reaches by a device module, and who makes them.

A kind is a device type of torch: one of its own (``cuda``, ``xpu``) or one that a
vendor's extension brings (``npu`` by ``torch_npu``). Which extensions are imported is
the operator's choice alone: no name that came over a network is ever one.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from xpool_protocol.errors import UsageError

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
NO_ACCELERATORS: Final = frozenset({"cpu", "meta", "mkldnn", "vulkan", "lazy", "xla"})
"""Device types of torch without an ordered queue and a memory of their own."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a kind without asking torch."""

    vendor: str
    module: str = ""
    """Python module that brings it; empty: torch has it."""


KINDS: Final = {
    "cuda": Kind("nvidia"),
    "xpu": Kind("intel"),
    "mtia": Kind("meta"),
    "npu": Kind("huawei", "torch_npu"),
    "mlu": Kind("cambricon", "torch_mlu"),
    "musa": Kind("mthreads", "torch_musa"),
    "gcu": Kind("enflame", "torch_gcu"),
    "sdaa": Kind("tecorigin", "torch_sdaa"),
    "hpu": Kind("habana", "habana_frameworks.torch.core"),
}
"""Others are served just as well, once their module is named."""


def vendor_of(kind: str) -> str:
    """Who makes the devices of a kind; empty if that is not known.

    >>> vendor_of("npu"), vendor_of("abacus")
    ('huawei', '')
    """
    return KINDS[kind].vendor if kind in KINDS else ""


def check_kind(kind: str) -> str:
    """A name that can be a device type of an accelerator.

    Raises:
        UsageError: it cannot.
    """
    if not _KIND.fullmatch(kind) or kind in NO_ACCELERATORS:
        raise UsageError(
            f"{kind!r} is no kind of accelerator: write torch's name of the device"
            " type, for instance npu"
        )
    return kind


def check_modules(names: Sequence[str]) -> tuple[str, ...]:
    """Names of Python modules.

    Raises:
        UsageError: one is no such name.
    """
    for name in names:
        if not _MODULE.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a Python module")
    return tuple(names)


def device_module(kind: str, modules: Sequence[str] = ()) -> Any:
    """Torch's module of a kind of device, once what brings it has been imported.

    Args:
        kind: device type of torch.
        modules: what the operator named; empty: the vendor's own, if it is installed.

    Raises:
        UsageError: a module cannot be imported, or torch does not know the kind.
    """
    import torch

    check_kind(kind)
    usual = KINDS[kind].module if kind in KINDS else ""
    for name in check_modules(modules) or _installed(usual):
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # drivers are missing
            raise UsageError(
                f"the module {name}, which is to bring {kind} devices, cannot be"
                f" imported: {error}"
            ) from error
    try:
        torch.device(kind)
        return torch.get_device_module(kind)
    except RuntimeError as error:
        advice = f"install {usual}" if usual else "name it with --accelerator-module"
        raise UsageError(
            f"torch {torch.__version__} has no device type {kind!r} here: a vendor's"
            f" module brings it; {advice}"
        ) from error


def _installed(name: str) -> tuple[str, ...]:
    """The module, if it is here."""
    package = name.partition(".")[0]
    return (name,) if package and importlib.util.find_spec(package) else ()


def total_memory_nbytes(module: Any, index: int) -> int | None:
    """A device's memory; None if its module does not tell.

    Args:
        module: of ``device_module``.
        index: of the device.
    """
    properties = properties_of(module, index)
    total = getattr(properties, "total_memory", None)
    if total is None and hasattr(module, "mem_get_info"):
        total = module.mem_get_info(index)[1]
    return None if total is None else int(total)


def properties_of(module: Any, index: int) -> Any:
    """What a device's module tells of it; None if nothing."""
    ask = getattr(module, "get_device_properties", None)
    return None if ask is None else ask(index)


def name_of(module: Any, index: int, kind: str) -> str:
    """A device's name for people; its kind where its module tells none."""
    ask = getattr(module, "get_device_name", None)
    told = ask(index) if ask else getattr(properties_of(module, index), "name", "")
    return str(told or kind.upper())
