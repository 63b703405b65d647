"""Triton's driver for remote devices.

Triton compiles on this host, for the architecture that the server told: its own
compiler needs no GPU. What it would give a local driver, an image and launches,
becomes records (SPEC.md section 16). Imported only once Triton is.
"""

# ruff: noqa: D102  Triton's own interface, named and documented there

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from xpool_protocol.kernel_records import CUDA_IMAGE, FLAG_COOPERATIVE, NullArgument

from xpool.kernel_log import KernelLog
from xpool.triton.arguments import Locate, argument, flattened

WARP_SIZE: Final = 32
STATIC_SHARED_NBYTES: Final = 48 << 10
"""What a kernel may have without asking for more."""

SCRATCHES: Final = ("global_scratch_size", "profile_scratch_size")
"""Of a kernel's metadata; each one that Triton knows is a last pointer parameter."""


class Device:
    """What the driver asks of one device."""

    def __init__(
        self, kernels: KernelLog, properties: Mapping[str, Any], locate: Locate
    ) -> None:
        """A device of the session.

        Args:
            kernels: records for it.
            properties: by the names of ``torch.cuda.get_device_properties``.
            locate: finds a tensor's storage on it.
        """
        self.kernels, self.properties, self.locate = kernels, properties, locate


class _Function:
    """A kernel of a loaded image."""

    def __init__(self, device: Device, module: int, name: str) -> None:
        self.device, self.module, self.name = device, module, name


class Utils:
    """What Triton asks of a device and its images."""

    def __init__(self, device_at: Callable[[int], Device]) -> None:
        self._device_at = device_at

    def load_binary(
        self, name: str, kernel: bytes, shared: int, device: int
    ) -> tuple[Any, _Function, int, int, int]:
        where = self._device_at(device)
        module = where.kernels.make(CUDA_IMAGE, kernel)
        if shared > STATIC_SHARED_NBYTES:
            where.kernels.set_attribute(
                module, name, "max_dynamic_shared_size_bytes", shared
            )
        found = where.kernels.attributes(module, name)
        return (
            (where, module),
            _Function(where, module, name),
            found["num_regs"],
            found["local_size_bytes"] // 4,
            found["max_threads_per_block"],
        )

    def unload_module(self, module: Any) -> None:
        where, number = module
        where.kernels.free(number)

    def get_device_properties(self, device: int) -> dict[str, int]:
        properties = self._device_at(device).properties

        def number(name: str, default: int) -> int:
            return int(properties.get(name, default))

        return {
            "max_shared_mem": number("shared_memory_per_block_optin", 48 << 10),
            "multiprocessor_count": number("multi_processor_count", 1),
            "warpSize": number("warp_size", WARP_SIZE),
            "max_num_regs": number("regs_per_multiprocessor", 65536),
            "sm_clock_rate": number("clock_rate", 0),
            "mem_clock_rate": number("memory_clock_rate", 0),
            "mem_bus_width": number("memory_bus_width", 0),
        }


class Launcher:
    """Launches one compiled kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._kinds = tuple(source.signature.values())
        self._threads = metadata.num_warps * WARP_SIZE
        self._shared_nbytes = metadata.shared
        self._flags = (
            FLAG_COOPERATIVE
            if getattr(metadata, "launch_cooperative_grid", False)
            else 0
        )
        sizes = [getattr(metadata, one) for one in SCRATCHES if hasattr(metadata, one)]
        if any(sizes):
            raise NotImplementedError(
                "xpool: a Triton kernel that needs scratch memory of its own"
                " (descriptors made in the kernel, profiling) can't run in the pool yet"
            )
        if getattr(metadata, "num_ctas", 1) != 1:
            raise NotImplementedError(
                "xpool: a Triton kernel over clusters of blocks (num_ctas > 1) can't"
                " run in the pool yet"
            )
        self._scratches = [NullArgument() for _ in sizes]

    def __call__(
        self,
        x: int,
        y: int,
        z: int,
        stream: Any,
        function: _Function,
        packed: Any,
        launch_metadata: Any,
        enter_hook: Any,
        exit_hook: Any,
        *values: Any,
    ) -> None:
        if x * y * z == 0:
            return
        where = function.device
        arguments = [
            argument(kind, value, where.locate)
            for kind, value in flattened(self._kinds, values)
        ]
        if enter_hook is not None:
            enter_hook(launch_metadata)
        where.kernels.launch(
            function.module,
            function.name,
            (x, y, z),
            (self._threads, 1, 1),
            self._shared_nbytes,
            self._flags,
            [*arguments, *self._scratches],
        )
        if exit_hook is not None:
            exit_hook(launch_metadata)


class RemoteDriver(DriverBase):  # type: ignore[misc]
    """The one that ``triton.runtime.driver.active`` is under xpool."""

    def __init__(
        self, device_at: Callable[[int], Device], current: Callable[[], int]
    ) -> None:
        """Drive the devices of this process.

        Args:
            device_at: a device by its index.
            current: index of the thread's current device.
        """
        self._device_at, self._current = device_at, current
        self.utils, self.launcher_cls = Utils(device_at), Launcher

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        properties = self._device_at(self._current()).properties
        major, minor = int(properties["major"]), int(properties["minor"])
        if not major:
            raise NotImplementedError(
                "Triton kernels need a CUDA device, and this slice's device is a CPU:"
                " run the program on a slice of a CUDA device"
            )
        return GPUTarget("cuda", 10 * major + minor, WARP_SIZE)

    def get_current_device(self) -> int:
        return self._current()

    def set_current_device(self, device: int) -> None:
        import torch

        torch.cuda.set_device(device)

    def get_current_stream(self, device: int) -> int:
        return 0  # a session is one order

    def get_device_capability(self, device: int) -> tuple[int, int]:
        properties = self._device_at(device).properties
        return int(properties["major"]), int(properties["minor"])

    def map_python_to_cpp_type(self, ty: str) -> str:
        from triton.backends.nvidia.driver import ty_to_cpp

        return str(ty_to_cpp(ty))

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cuda", self._current())

    def get_device_interface(self) -> Any:
        import torch

        return torch.cuda

    def get_benchmarker(self) -> Any:
        from triton.testing import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        import torch

        return torch.empty(1 << 26, dtype=torch.int32, device="cuda")

    def clear_cache(self, cache: Any) -> None:
        cache.zero_()
