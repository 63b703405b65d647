"""Puts the pure-Python device ``"xpool"`` under ``torch`` in this process.

For hosts without a compiler, and as an oracle for the native device: same wire, same
server. What torch's hooks for Python backends leave out is patched here.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch.utils.backend_registration import (
    _setup_privateuseone_for_python_backend,
)

from xpool.torch.compiling import patch_compile
from xpool.torch.python_attention import register_attention
from xpool.torch.python_autocast import register_autocast
from xpool.torch.python_device import DEVICE_TYPE, PythonDevice
from xpool.torch.python_generator import patch_generator_class
from xpool.torch.python_kernels import overload_named, register
from xpool.torch.python_log import PythonLog
from xpool.torch.python_module import XpoolModule
from xpool.torch.remote import Remote
from xpool.torch.storage_methods import patch_storage_methods

if TYPE_CHECKING:
    from xpool.native.device import NativeDevice
    from xpool.session import Reached, Session

_KEPT: Final[list[Any]] = []
"""A library's registrations end with it."""


def install_python(reached: Reached) -> Remote:
    """Make torch's ``xpool`` device the leased slice."""
    log = PythonLog()
    return install_python_device(reached.begin(log), log)


def install_python_device(session: Session, log: PythonLog) -> Remote:
    """Register the device on an open session; once in a process.

    Args:
        session: where calls go.
        log: the outbox that the session's link takes from.
    """
    module = XpoolModule()
    _setup_privateuseone_for_python_backend(DEVICE_TYPE, backend_module=module)
    device = PythonDevice(session, log)
    if session.is_traced:
        log.on_record = session.trace
    # Of a library Remote asks ``request``, and its users ``close``: both have them.
    remote = Remote(session, cast("NativeDevice", device))
    remote.event_class = module.Event
    module.connect(remote, device)
    _KEPT.extend(register(device))
    _KEPT.append(register_attention(device))
    _KEPT.extend(register_autocast(DEVICE_TYPE, overload_named))
    _KEPT.append(_host_pinning())
    patch_storage_methods(DEVICE_TYPE)
    _patch_storage_class(device)
    patch_generator_class(device)
    patch_compile(DEVICE_TYPE)
    _import_meta_kernels()
    return remote


def _import_meta_kernels() -> None:
    """Make torch import them now.

    It takes a second, and an import that torch tries and gives up keeps the frames,
    and so the tensors, of whoever was first.
    """
    torch.empty(1, device="meta").add(1)


def _host_pinning() -> Any:
    """``pin_memory`` as a copy: the link copies from ordinary memory as quickly."""
    aten: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]

    def pin(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
        copy = torch.empty_like(tensor, device="cpu").copy_(tensor)
        copy.untyped_storage()._xpool_is_pinned = True  # type: ignore[attr-defined]
        return copy

    def is_pinned(tensor: torch.Tensor, device: Any = None) -> bool:
        return getattr(tensor.untyped_storage(), "_xpool_is_pinned", False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel of torch's own is replaced
        aten.impl("_pin_memory", pin, "CPU")
        aten.impl("is_pinned", is_pinned, "CPU")
    return aten


def _patch_storage_class(device: PythonDevice) -> None:
    """``UntypedStorage(n, device="xpool")``: torch would crash without an allocator."""
    storage_class: Any = torch.UntypedStorage
    storage_module: Any = torch.storage
    host_new, host_resize = storage_class.__new__, storage_class.resize_

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        wanted = kwargs.get("device")
        if wanted is None or torch.device(wanted).type != DEVICE_TYPE:
            return host_new(cls, *args, **kwargs)
        if args and not isinstance(args[0], int):
            values = host_new(cls, *args)
            return storage_module._to(values, wanted)
        device.check_usable()
        return device.storages.allocate(args[0] if args else 0)

    def resize_(self: Any, size: int) -> Any:
        if self.device.type != DEVICE_TYPE:
            return host_resize(self, size)
        raise NotImplementedError(
            "xpool: a storage of the pure-Python device can't be resized; resize the"
            " tensor, or use device 'cuda'"
        )

    storage_class.__new__ = new
    storage_class.resize_ = resize_
