"""A CUDA device's modules and kernels, through CuPy's compiler and driver calls."""

# ruff: noqa: D102  the interface in kernels.py documents the methods

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from xpool_protocol.kernel_records import ATTRIBUTES, CUDA_SOURCE, Extent

from xpool_server.kernels import DeviceFault, KernelDriver

STICKY: Final = frozenset((700, 702, 710, 713, 714, 715, 716, 717, 718, 719, 720))
"""CUDA's errors behind which a context is unusable: illegal and misaligned addresses,
assertions, illegal instructions, time limits, failed launches."""

_SOURCE_OPTIONS: Final = ("--no-source-include",)
"""So that a quoted include looks into no folder of the server's."""

_ELF: Final = b"\x7fELF"
_INVALID_VALUE: Final = 1


class _Loaded(msgspec.Struct):
    """A module, and what must live as long."""

    pointer: int
    owner: Any
    """CuPy's object, which unloads it; None if that is ours to do."""


class CupyKernelDriver(KernelDriver):
    """One device, whose context is current in this process."""

    def __init__(self, cupy: Any, libcuda: Any) -> None:
        """Use CuPy's compiler and its bindings of the driver.

        Args:
            cupy: the module.
            libcuda: the driver's library, for what CuPy does not bind.
        """
        self._cupy, self._libcuda = cupy, libcuda
        self._calls = cupy.cuda.driver
        self._sizes: dict[int, tuple[int, ...] | None] = {}

    def load(
        self, language: int, code: bytes, options: Sequence[str], names: Sequence[str]
    ) -> Any:
        if language == CUDA_SOURCE:
            made = self._cupy.RawModule(
                code=code.decode(),
                options=(*options, *_SOURCE_OPTIONS),
                name_expressions=tuple(names) or None,
            )
            made.compile()
            return _Loaded(0, made)
        image = code if code.startswith(_ELF) else code + b"\0"
        return _Loaded(self._calls.moduleLoadData(image), None)

    def unload(self, module: Any) -> None:
        self._sizes.clear()  # a later kernel may come to lie at the same address
        if module.owner is None:
            self._calls.moduleUnload(module.pointer)
        module.owner = None

    def kernel(self, module: Any, name: str) -> Any:
        if module.owner is None:
            return int(self._calls.moduleGetFunction(module.pointer, name))
        return int(module.owner.get_function(name).kernel.ptr)

    def parameter_sizes(self, kernel: Any) -> tuple[int, ...] | None:
        if kernel not in self._sizes:
            self._sizes[kernel] = self._asked_sizes(kernel)
        return self._sizes[kernel]

    def _asked_sizes(self, kernel: int) -> tuple[int, ...] | None:
        """Drivers since CUDA 12.4 tell."""
        ask = getattr(self._libcuda, "cuFuncGetParamInfo", None)
        if ask is None:
            return None
        sizes: list[int] = []
        offset, size = ctypes.c_size_t(), ctypes.c_size_t()
        while True:
            status = ask(
                ctypes.c_void_p(kernel),
                ctypes.c_size_t(len(sizes)),
                ctypes.byref(offset),
                ctypes.byref(size),
            )
            if status == _INVALID_VALUE:  # there are no more
                return tuple(sizes)
            if status:
                return None
            sizes.append(size.value)

    def launch(
        self,
        kernel: Any,
        grid: Extent,
        block: Extent,
        arguments: Sequence[bytes],
        shared_nbytes: int,
        is_cooperative: bool,
    ) -> None:
        values = [ctypes.create_string_buffer(one, len(one)) for one in arguments]
        pointers = (ctypes.c_void_p * max(len(values), 1))(
            *[ctypes.addressof(value) for value in values]
        )
        # Storages and arrays are made in torch's and CuPy's default stream.
        stream, where = 0, ctypes.addressof(pointers)
        try:
            if is_cooperative:
                self._calls.launchCooperativeKernel(
                    kernel, *grid, *block, shared_nbytes, stream, where
                )
            else:
                self._calls.launchKernel(
                    kernel, *grid, *block, shared_nbytes, stream, where, 0
                )
        except RuntimeError as error:
            if getattr(error, "status", None) in STICKY:
                raise DeviceFault(str(error)) from error
            raise

    def attributes(self, kernel: Any) -> tuple[int, ...]:
        return tuple(
            int(self._calls.funcGetAttribute(number, kernel))
            for number in range(len(ATTRIBUTES))
        )

    def set_attribute(self, kernel: Any, attribute: int, value: int) -> None:
        self._calls.funcSetAttribute(kernel, attribute, value)

    def address(self, storage: Any) -> int:
        return int(storage.data_ptr())


def open_kernel_driver() -> CupyKernelDriver:
    """The driver of this process's CUDA device.

    Raises:
        ImportError: there is no CuPy.
    """
    import cupy

    return CupyKernelDriver(cupy, ctypes.CDLL("libcuda.so.1"))
