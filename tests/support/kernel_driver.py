"""Devices for kernels that write down what they are told, and fail when asked to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from xpool_server.kernels import DeviceFault, KernelDriver


class CompileException(Exception):
    """The compiler's log is its text."""


class RecordingDriver(KernelDriver):
    """Kernels by name, with the sizes of their parameters."""

    def __init__(self, kernels: dict[str, tuple[int, ...] | None]) -> None:
        self.kernels = kernels
        self.told: list[tuple[Any, ...]] = []
        self.faulting: set[str] = set()

    def load(
        self, language: int, code: bytes, options: Sequence[str], names: Sequence[str]
    ) -> Any:
        self.told.append(("load", language, code, tuple(options), tuple(names)))
        if b"#error" in code:
            raise CompileException('kern.cu(1): error: #error directive: "no"')
        return code

    def unload(self, module: Any) -> None:
        self.told.append(("unload", module))

    def kernel(self, module: Any, name: str) -> Any:
        if name not in self.kernels:
            raise RuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return name

    def parameter_sizes(self, kernel: Any) -> tuple[int, ...] | None:
        return self.kernels[kernel]

    def launch(self, kernel: Any, *what: Any) -> None:
        if kernel in self.faulting:
            raise DeviceFault("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
        self.told.append(("launch", kernel, *what))

    def attributes(self, kernel: Any) -> tuple[int, ...]:
        return tuple(range(10))

    def set_attribute(self, kernel: Any, attribute: int, value: int) -> None:
        self.told.append(("set", kernel, attribute, value))

    def address(self, storage: Any) -> int:
        return int(storage.data_ptr())


class DriverError(RuntimeError):
    """As CuPy's ``CUDADriverError``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA_ERROR_{status}")
        self.status = status


class RecordingCalls:
    """The calls of CUDA's driver that are made, by CuPy's names."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.parameters: list[int] = []
        self.status = 0

    def moduleLoadData(self, image: bytes) -> int:
        self.told.append(("moduleLoadData", image))
        return 1000

    def moduleUnload(self, module: int) -> None:
        self.told.append(("moduleUnload", module))

    def moduleGetFunction(self, module: int, name: str) -> int:
        self.told.append(("moduleGetFunction", module, name))
        return 2000

    def launchKernel(self, kernel: int, *what: int) -> None:
        *extents, shared_nbytes, stream, where, extra = what
        self._launched("launchKernel", kernel, extents, shared_nbytes, stream, where)
        assert extra == 0

    def launchCooperativeKernel(self, kernel: int, *what: int) -> None:
        *extents, shared_nbytes, stream, where = what
        self._launched("cooperative", kernel, extents, shared_nbytes, stream, where)

    def _launched(
        self, how: str, kernel: int, extents: Any, shared: int, stream: int, where: int
    ) -> None:
        if self.status:
            raise DriverError(self.status)
        count = len(self.parameters)
        pointers = (ctypes.c_void_p * count).from_address(where) if count else []
        values = [
            ctypes.string_at(pointer or 0, size)
            for pointer, size in zip(pointers, self.parameters, strict=True)
        ]
        self.told.append((how, kernel, tuple(extents), shared, stream, values))

    def funcGetAttribute(self, attribute: int, kernel: int) -> int:
        return attribute * 10

    def funcSetAttribute(self, kernel: int, attribute: int, value: int) -> None:
        self.told.append(("funcSetAttribute", kernel, attribute, value))


class FakeLibcuda:
    """``cuFuncGetParamInfo`` alone."""

    def __init__(self, calls: RecordingCalls) -> None:
        self._calls = calls

    def cuFuncGetParamInfo(self, kernel: Any, at: Any, offset: Any, size: Any) -> int:
        if at.value >= len(self._calls.parameters):
            return 1
        size._obj.value = self._calls.parameters[at.value]
        offset._obj.value = sum(self._calls.parameters[: at.value])
        return 0
