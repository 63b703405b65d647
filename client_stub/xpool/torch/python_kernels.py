"""Kernels of the pure-Python device that are more than "send it".

The twin of ``native/kernels.cpp`` and ``copies.cpp``: metadata, copies, host reads, and
which operations must be registered for the key itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch._C import DispatchKey

from xpool.torch.python_cells import Cells
from xpool.torch.python_device import DEVICE_TYPE, PythonDevice
from xpool.torch.python_storage import seat, span_items, tensor_over

KEY: Final = "PrivateUse1"
_COMPOSITE: Final = "CompositeExplicitAutogradNonFunctional"
_aten: Any = torch.ops.aten

WHOLE: Final = frozenset(
    {
        "convolution",
        "convolution_backward",
        "clone",
        "native_dropout",
        "native_dropout_backward",
        "native_layer_norm",
        "native_layer_norm_backward",
        "native_group_norm",
        "native_group_norm_backward",
        "fill_.Scalar",
        "fill_.Tensor",
        "zero_",
        "equal",
        "uniform_",
        "normal_",
        "bernoulli_.float",
        "random_",
        "random_.to",
        "random_.from",
        "mode.values",
        "_stack",
        "_stack.out",
        "addr",
        "addr.out",
        "conj_physical_",
        "linalg__powsum",
        "mish_backward",
        "silu_backward",
    }
)
"""A composite kernel would beat the boxed fallback and take these apart, or take a
wrong path. Not ``_to_copy``: it crosses devices."""

VIEWS: Final = ("as_strided", "view", "_reshape_alias", "unfold")
"""Their CPU kernels only make metadata, so they serve any device."""


class Kernels:
    """Kernels with an implementation of their own; ``register`` knows their names."""

    def __init__(self, device: PythonDevice) -> None:
        self._device = device
        self._storages = device.storages
        self._copy = device.operation_of(_aten.copy_.default)

    # ---- creation

    def empty(
        self,
        size: Sequence[int],
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
        device: torch.device | None = None,
        pin_memory: bool | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> torch.Tensor:
        """``empty.memory_format``."""
        strides = _strides_for(size, memory_format or torch.contiguous_format)
        return self.empty_strided(size, strides, dtype, layout, device, pin_memory)

    def empty_strided(
        self,
        size: Sequence[int],
        stride: Sequence[int],
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
        device: torch.device | None = None,
        pin_memory: bool | None = None,
    ) -> torch.Tensor:
        """``empty_strided``."""
        self._device.check_usable()
        if layout not in (None, torch.strided):
            raise NotImplementedError(
                f"xpool: {layout} tensors are not supported on the remote device"
            )
        if pin_memory:
            raise RuntimeError("Only dense CPU tensors can be pinned")
        if device is not None and device.index not in (None, 0):
            raise RuntimeError("xpool: invalid device ordinal")
        dtype = dtype or torch.get_default_dtype()
        self._device.leave_room()
        storage = self._storages.allocate(span_items(size, stride) * dtype.itemsize)
        return tensor_over(storage, dtype, size, stride)

    def efficient_zeros(
        self, size: Sequence[int], dtype: torch.dtype | None = None, **_: Any
    ) -> torch.Tensor:
        """``_efficientzerotensor`` has no storage to name: real zeros instead."""
        return torch.zeros(size, dtype=dtype, device=self._device.device)

    # ---- storages under a tensor

    def grow(self, storage: torch.UntypedStorage, nbytes: int) -> torch.UntypedStorage:
        """A storage of the same bytes with room for ``nbytes``."""
        handle = self._storages.handle_of(storage)
        kept = handle.nbytes
        if nbytes > kept:
            grown = self._storages.allocate(nbytes)
            if kept:
                source = self._storages.with_room(storage, kept)
                self._device.call_writing(
                    self._copy, [_as_bytes(grown, kept), _as_bytes(source, kept), False]
                )
            handle.swap(self._storages.handle_of(grown))
        return self._storages.with_room(storage, nbytes)

    def resize_(
        self,
        tensor: torch.Tensor,
        size: Sequence[int],
        memory_format: torch.memory_format | None = None,
    ) -> torch.Tensor:
        """``resize_``: bytes are kept, and every view stays valid."""
        keeps = memory_format in (None, torch.preserve_format)
        if keeps and tuple(tensor.shape) == tuple(size):
            return tensor
        strides = _strides_for(
            size, torch.contiguous_format if keeps else memory_format
        )
        self._seat(
            tensor,
            tensor.untyped_storage(),
            size,
            strides,
            int(tensor.storage_offset()),
        )
        return tensor

    def _seat(
        self,
        tensor: torch.Tensor,
        source: torch.UntypedStorage,
        size: Sequence[int],
        stride: Sequence[int],
        offset: int,
    ) -> torch.Tensor:
        if source.device.type != DEVICE_TYPE:
            raise RuntimeError(
                'Attempted to set the storage of a tensor on device "xpool:0" to a'
                f' storage on different device "{source.device}"'
            )
        if offset < 0:
            raise RuntimeError(f"Tensor: invalid storage offset {offset}")
        items = offset + span_items(size, stride)
        storage = self.grow(source, items * tensor.element_size())
        seat(tensor, storage, tuple(size), tuple(stride), offset)
        return tensor

    def set_storage_offset(
        self,
        tensor: torch.Tensor,
        source: Any,
        storage_offset: int,
        size: Sequence[int],
        stride: Sequence[int] = (),
    ) -> torch.Tensor:
        """``set_.source_Storage_storage_offset``."""
        stride = stride or _strides_for(size, torch.contiguous_format)
        return self._seat(tensor, _untyped(source), size, stride, storage_offset)

    def set_storage(self, tensor: torch.Tensor, source: Any) -> torch.Tensor:
        """``set_.source_Storage``."""
        storage = _untyped(source)
        count = storage.nbytes() // tensor.element_size()
        return self._seat(tensor, storage, (count,), (1,), 0)

    def set_tensor(self, tensor: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """``set_.source_Tensor``."""
        return self._seat(
            tensor,
            source.untyped_storage(),
            source.shape,
            source.stride(),
            int(source.storage_offset()),
        )

    def set_empty(self, tensor: torch.Tensor) -> torch.Tensor:
        """``set_``."""
        return self._seat(tensor, self._storages.allocate(0), (0,), (1,), 0)

    def is_set_to(self, tensor: torch.Tensor, other: torch.Tensor) -> bool:
        """``is_set_to``: the same view of the same bytes."""
        handle_of = self._storages.handle_of
        return (
            handle_of(tensor.untyped_storage()) is handle_of(other.untyped_storage())
            and tensor.storage_offset() == other.storage_offset()
            and tensor.shape == other.shape
            and tensor.stride() == other.stride()
        )

    # ---- between host and device

    def copy_(
        self, tensor: torch.Tensor, source: torch.Tensor, non_blocking: bool = False
    ) -> torch.Tensor:
        """``copy_``, whichever of the two is remote."""
        self._device.check_usable()
        if tensor.numel() == 0 and source.numel() == 0:
            return tensor
        if tensor.device.type != DEVICE_TYPE:
            self._copy_to_host(tensor, source)
        elif source.device.type == DEVICE_TYPE:
            if tensor is not source:
                self._device.call_writing(self._copy, [tensor, source, non_blocking])
        elif source.is_cpu:
            self._copy_to_device(tensor, source)
        else:
            raise RuntimeError(
                f"xpool: a copy from {source.device} to a remote device is not possible"
            )
        return tensor

    def _copy_to_device(self, tensor: torch.Tensor, host: torch.Tensor) -> None:
        if host.dim() == 0:
            self._device.call_writing(self._copy, [tensor, host, False])
        elif (
            tensor.dtype is host.dtype
            and tensor.shape == host.shape
            and tensor.is_contiguous()
            and not tensor.is_conj()
            and not tensor.is_neg()
        ):
            self._device.write(tensor, host)
        else:
            uploaded = self._device.upload(host)
            self._device.call_writing(self._copy, [tensor, uploaded, False])

    def _copy_to_host(self, tensor: torch.Tensor, remote: torch.Tensor) -> None:
        if not tensor.is_cpu:
            raise RuntimeError(
                f"xpool: a copy from a remote device to {tensor.device} is not possible"
            )
        if tensor.shape != remote.shape:
            tensor.copy_(remote.cpu())
            return
        dense = remote.resolve_conj().resolve_neg().contiguous()
        if (
            tensor.is_contiguous()
            and tensor.dtype is dense.dtype
            and not tensor.is_conj()
            and not tensor.is_neg()
        ):
            self._device.read(dense, tensor)
            return
        staged = torch.empty(dense.shape, dtype=dense.dtype, device="cpu")
        self._device.read(dense, staged)
        tensor.copy_(staged)

    def copy_from(
        self, source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False
    ) -> torch.Tensor:
        """``_copy_from``."""
        return self.copy_(target, source, non_blocking)

    def copy_from_and_resize(
        self, source: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """``_copy_from_and_resize``."""
        return self.copy_(target.resize_(source.shape), source)

    def local_scalar(self, tensor: torch.Tensor) -> Any:
        """``_local_scalar_dense``: the one item as a Python number."""
        host = torch.empty((), dtype=tensor.dtype, device="cpu")
        self._device.read(tensor, host)
        host = torch._conj(host) if tensor.is_conj() else host
        return (torch._neg_view(host) if tensor.is_neg() else host).item()

    # ---- registration

    def own(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Names and kernels of all that is implemented here."""
        own: dict[str, Callable[..., Any]] = {
            "empty.memory_format": self.empty,
            "empty_strided": self.empty_strided,
            "_efficientzerotensor": self.efficient_zeros,
            "resize_": self.resize_,
            "set_.source_Storage_storage_offset": self.set_storage_offset,
            "set_.source_Storage": self.set_storage,
            "set_.source_Tensor": self.set_tensor,
            "set_": self.set_empty,
            "is_set_to": self.is_set_to,
            "copy_": self.copy_,
            "_copy_from": self.copy_from,
            "_copy_from_and_resize": self.copy_from_and_resize,
            "_local_scalar_dense": self.local_scalar,
            "record_stream": lambda *_: None,
            "is_pinned": lambda *_, **__: False,
        }
        yield from own.items()
        for name in VIEWS:
            kernel = getattr(_aten, name).default._op_dk
            yield name, functools.partial(kernel, DispatchKey.CPU)


def register(device: PythonDevice) -> list[torch.library.Library]:
    """Take the dispatch key; the registrations live as long as what is returned."""
    library: Any = torch.library.Library
    boxed = library("_", "IMPL")
    boxed.fallback(device.fallback, KEY)
    aten = library("aten", "IMPL")
    taken = set()
    for name, kernel in (*Kernels(device).own(), *Cells(device).own()):
        aten.impl(name, kernel, KEY)
        taken.add(name)
    for bare in sorted(_sent_whole()):
        operation = device.operation_of(overload_named(bare))
        if bare not in taken and not operation.is_view:
            aten.impl(bare, _sender(device, operation), KEY)
    return [boxed, aten]


def _sent_whole() -> Iterator[str]:
    """Operations to register for the key, so that no composite kernel beats us to them.

    Those that are structured, torch would take apart into ``empty`` and ``op.out``.
    """
    for name in torch._C._dispatch_get_all_op_names():
        bare = name.removeprefix("aten::")
        if bare == name:
            continue
        if (
            bare in WHOLE
            or bare.startswith("_foreach_")
            or (_has_kernel(name, _COMPOSITE) and _is_structured(bare))
        ):
            yield bare


def _is_structured(bare: str) -> bool:
    """Whether some ``out=`` overload of the same operation has a kernel of its own.

    ``new_empty_strided`` and the like have none: their composite kernels are right.
    """
    base = bare.partition(".")[0]
    if base.endswith("_") and not base.endswith("__"):
        base = base[:-1]
    packet = getattr(_aten, base)
    overloads = (getattr(packet, name) for name in packet.overloads())
    return any(
        any(argument.is_out for argument in overload._schema.arguments)
        and _has_kernel(overload.name(), "CPU")
        for overload in overloads
    )


def _has_kernel(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def _sender(device: PythonDevice, operation: Any) -> Callable[..., Any]:
    def send(*args: Any, **kwargs: Any) -> Any:
        return device.dispatch(operation, args, kwargs)

    return send


def overload_named(bare: str) -> Any:
    """``add.Tensor`` as an ``OpOverload``."""
    base, _, overload = bare.partition(".")
    return getattr(getattr(_aten, base), overload or "default")


def _strides_for(
    size: Sequence[int], memory_format: torch.memory_format | None
) -> tuple[int, ...]:
    if memory_format is torch.contiguous_format:
        return _row_major(tuple(size))
    meta = torch.empty(size, device="meta", memory_format=memory_format)
    return meta.stride()


@functools.lru_cache(maxsize=4096)
def _row_major(size: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(size, device="meta").stride()


def _as_bytes(storage: torch.UntypedStorage, nbytes: int) -> torch.Tensor:
    return tensor_over(storage, torch.uint8, (nbytes,), (1,))


def _untyped(source: Any) -> torch.UntypedStorage:
    untyped: torch.UntypedStorage = getattr(source, "_untyped_storage", source)
    return untyped
