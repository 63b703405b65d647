"""Executes the records about a client's own kernels. SPEC.md section 16.

What a device can do stands in ``KernelDriver``; everything else, numbers, checks,
poison, the fault that sticks, is here and knows no device.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from xpool_protocol import limits
from xpool_protocol.errors import (
    ArgumentInvalid,
    HandleUnknown,
    OperationUnknown,
    PeerError,
)
from xpool_protocol.kernel_records import (
    CUDA_SOURCE,
    FLAG_COOPERATIVE,
    ArrayArgument,
    BytesArgument,
    Extent,
    FreeModule,
    KernelArgument,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    SetKernelAttribute,
    StorageArgument,
)
from xpool_protocol.messages import Fault, Reply

from xpool_server.calls import encoded
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.kernel_sources import check_options, check_source
from xpool_server.storages import Storages

POINTER_NBYTES: Final = 8

INTEGER_NBYTES: Final = 8
"""A Python integer's, as CuPy passes it."""


class DeviceFault(RuntimeError):  # noqa: N818  CUDA's word
    """A kernel has left the device's context unusable."""


class KernelDriver(ABC):
    """What a device does with modules and kernels."""

    @abstractmethod
    def load(
        self, language: int, code: bytes, options: Sequence[str], names: Sequence[str]
    ) -> Any:
        """A module.

        Raises:
            Exception: the source does not compile, or the image is none.
        """

    @abstractmethod
    def unload(self, module: Any) -> None:
        """Drop a module; its kernels have run or still run."""

    @abstractmethod
    def kernel(self, module: Any, name: str) -> Any:
        """One kernel of a module.

        Raises:
            Exception: it has none of this name.
        """

    @abstractmethod
    def parameter_sizes(self, kernel: Any) -> tuple[int, ...] | None:
        """Bytes of each parameter; None where the device does not tell."""

    @abstractmethod
    def launch(
        self,
        kernel: Any,
        grid: Extent,
        block: Extent,
        arguments: Sequence[bytes],
        shared_nbytes: int,
        is_cooperative: bool,
    ) -> None:
        """Launch behind everything that the device was given before.

        Raises:
            DeviceFault: the device is unusable from now on.
        """

    @abstractmethod
    def attributes(self, kernel: Any) -> tuple[int, ...]:
        """Its numbers, in the order of ``kernel_records.ATTRIBUTES``."""

    @abstractmethod
    def set_attribute(self, kernel: Any, attribute: int, value: int) -> None:
        """Set one, by its position there."""

    @abstractmethod
    def address(self, storage: Any) -> int:
        """The device address of a storage's first byte."""


class Arrays(Protocol):
    """The session's arrays, as launches name them."""

    def address_of(self, number: int) -> int:
        """The device address of an array's first item.

        Raises:
            Poisoned: by an earlier failure.
        """

    def poison_written(self, number: int, fault: Fault) -> None:
        """Poison an array and all in the same memory; nothing if there is none."""


class _Module(msgspec.Struct):
    """What equal records share."""

    digest: bytes
    loaded: Any
    nbytes: int
    numbers: int = 0
    kernels: dict[str, Any] = msgspec.field(default_factory=dict)


class Kernels:
    """One session's modules."""

    def __init__(
        self,
        storages: Storages,
        failures: Failures,
        arrays: Arrays,
        open_driver: Callable[[], KernelDriver],
    ) -> None:
        """No modules yet.

        Args:
            storages: the session's.
            failures: makes and remembers faults.
            arrays: the session's.
            open_driver: makes the device's driver at the first use; raises
                ``OperationUnknown`` where there is none.
        """
        self.launches = 0
        self._storages, self._failures, self._arrays = storages, failures, arrays
        self._open_driver = open_driver
        self._opened: KernelDriver | None = None
        self._modules: dict[int, _Module | Fault] = {}
        self._by_digest: dict[bytes, _Module] = {}
        self._nbytes = 0
        self._sticky: Fault | None = None

    @property
    def _driver(self) -> KernelDriver:
        if self._opened is None:
            self._opened = self._open_driver()
        return self._opened

    # ---- records

    def make(self, record: MakeModule) -> Answers:
        """Compile or load a module; a failure stays under its number."""
        if record.module in self._modules:
            error = ArgumentInvalid(f"module {record.module} exists already")
            return self._failures.told(self._failures.fault(error))
        try:
            self._check_device()
            self._modules[record.module] = self._made(record)
        except Poisoned as poisoned:
            self._keep_fault(record.module, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a compiler may raise anything
            fault = self._fault(error, "make_module")
            self._keep_fault(record.module, fault)
            return self._failures.told(fault)
        return NOTHING

    def free(self, record: FreeModule) -> Answers:
        """Forget a number; the last one of a module drops it."""

        def run() -> None:
            module = self._modules.pop(record.module, None)
            if module is None:
                raise HandleUnknown(f"module {record.module} does not exist")
            if isinstance(module, Fault):
                return
            module.numbers -= 1
            if not module.numbers:
                del self._by_digest[module.digest]
                self._nbytes -= module.nbytes
                self._driver.unload(module.loaded)

        return self._failures.attempt(run)

    def launch(self, record: LaunchKernel) -> Answers:
        """Launch a kernel; a failure poisons what it names."""
        try:
            self._launch(record)
        except Poisoned as poisoned:
            self._poison(record, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a device may raise anything
            fault = self._fault(error, record.name)
            self._poison(record, fault)
            return self._failures.told(fault)
        return NOTHING

    def attributes(self, record: KernelAttributes) -> Answers:
        """Tell a kernel's numbers, or that its module is there."""

        def run() -> Reply:
            if not record.name:
                self._module(record.module)
                return Reply(record.request, encoded([]))
            kernel = self._kernel(record.module, record.name)
            found = [int(one) for one in self._driver.attributes(kernel)]
            return Reply(record.request, encoded([*found]))

        return self._failures.answer(record.request, run)

    def set_attribute(self, record: SetKernelAttribute) -> Answers:
        """Change what a kernel may use."""

        def run() -> None:
            kernel = self._kernel(record.module, record.name)
            self._driver.set_attribute(kernel, record.attribute, record.value)

        try:
            return self._failures.attempt(run)
        except Poisoned:
            return NOTHING

    # ---- modules

    def _made(self, record: MakeModule) -> _Module:
        driver = self._driver
        if len(self._modules) >= limits.MAX_MODULES:
            raise ArgumentInvalid(f"more than {limits.MAX_MODULES} modules of kernels")
        digest = hashlib.sha256(
            msgspec.msgpack.encode(
                (record.language, record.code, record.options, record.names)
            )
        ).digest()
        module = self._by_digest.get(digest)
        if module is None:
            if self._nbytes + len(record.code) > limits.MAX_MODULES_NBYTES:
                raise ArgumentInvalid(
                    f"modules of kernels hold more than {limits.MAX_MODULES_NBYTES}"
                    " bytes of code"
                )
            if record.language == CUDA_SOURCE:
                check_options(record.options)
                check_source(record.code)
            loaded = driver.load(
                record.language, record.code, record.options, record.names
            )
            module = _Module(digest, loaded, len(record.code))
            self._by_digest[digest] = module
            self._nbytes += module.nbytes
        module.numbers += 1
        return module

    def _keep_fault(self, number: int, fault: Fault) -> None:
        if len(self._modules) >= 2 * limits.MAX_MODULES:
            raise PeerError("the session names too many modules of kernels")
        self._modules[number] = fault

    def _module(self, number: int) -> _Module:
        self._check_device()
        module = self._modules.get(number)
        if module is None:
            raise HandleUnknown(f"module {number} does not exist or was freed")
        if isinstance(module, Fault):
            raise Poisoned(module)
        return module

    def _kernel(self, number: int, name: str) -> Any:
        module = self._module(number)
        found = module.kernels.get(name)
        if found is None:
            found = self._driver.kernel(module.loaded, name)
            if len(module.kernels) < limits.MAX_KERNEL_TEXTS:
                module.kernels[name] = found
        return found

    # ---- launching

    def _launch(self, record: LaunchKernel) -> None:
        kernel = self._kernel(record.module, record.name)
        arguments = _of_widths(
            record,
            [self._bytes_of(argument) for argument in record.arguments],
            self._driver.parameter_sizes(kernel),
        )
        self._driver.launch(
            kernel,
            record.grid,
            record.block,
            arguments,
            record.shared_nbytes,
            bool(record.flags & FLAG_COOPERATIVE),
        )
        self.launches += 1

    def _bytes_of(self, argument: KernelArgument) -> bytes:
        match argument:
            case BytesArgument():
                return argument.data
            case StorageArgument():
                entry = self._storages.entry(argument.storage)
                if argument.offset > entry.nbytes:
                    raise ArgumentInvalid(
                        f"byte {argument.offset} lies outside storage"
                        f" {argument.storage}, which has {entry.nbytes}"
                    )
                address = self._driver.address(entry.storage) + argument.offset
            case ArrayArgument():
                address = self._arrays.address_of(argument.number)
            case _:
                address = 0
        return address.to_bytes(POINTER_NBYTES, "little")

    def _poison(self, record: LaunchKernel, fault: Fault) -> None:
        for argument in record.arguments:
            if isinstance(argument, StorageArgument):
                if argument.storage in self._storages:
                    self._storages.poison(argument.storage, fault)
            elif isinstance(argument, ArrayArgument):
                self._arrays.poison_written(argument.number, fault)

    # ---- faults

    def _check_device(self) -> None:
        if self._sticky is not None:
            raise Poisoned(self._sticky)

    def _fault(self, error: Exception, name: str) -> Fault:
        fault = self._failures.fault(error, name)
        if isinstance(error, DeviceFault):
            self._sticky = fault
        return fault


def _of_widths(
    record: LaunchKernel, arguments: Sequence[bytes], sizes: tuple[int, ...] | None
) -> Sequence[bytes]:
    """The arguments at their parameters' widths.

    An integer may be wider, as CuPy lets a Python integer be for an ``int``, if what is
    left of it has the same value.
    """
    if sizes is None:
        return arguments
    if len(sizes) != len(arguments):
        raise ArgumentInvalid(
            f"kernel {record.name} takes {len(sizes)} arguments, and was given"
            f" {len(arguments)}"
        )
    found = []
    for place, (size, argument) in enumerate(zip(sizes, arguments, strict=True)):
        is_value = isinstance(record.arguments[place], BytesArgument)
        if size != len(argument) and not (is_value and _is_number(argument, size)):
            raise ArgumentInvalid(
                f"argument {place} of kernel {record.name} has {size} bytes, and"
                f" {len(argument)} were given: pass a NumPy scalar of the right dtype"
            )
        found.append(argument[:size])
    return found


def _is_number(argument: bytes, size: int) -> bool:
    """Whether an integer of 8 bytes has its value in the first ``size`` of them."""
    if len(argument) != INTEGER_NBYTES or size not in (1, 2, 4):
        return False
    value = int.from_bytes(argument, "little", signed=True)
    return -(1 << 8 * size - 1) <= value < 1 << 8 * size


def kernel_opener(device_kind: str) -> Callable[[], KernelDriver]:
    """Makes the driver of a kind of device; to be called at the first use.

    Args:
        device_kind: ``cpu`` or ``cuda``, as ``Backend.kind`` has it.
    """

    def open_driver() -> KernelDriver:
        if device_kind != "cuda":
            raise no_kernels(device_kind)
        from xpool_server.cupy_kernels import open_kernel_driver

        try:
            return open_kernel_driver()
        except ImportError as error:
            raise OperationUnknown(
                "this server has no CuPy, which compiles and launches kernels: whoever"
                " runs it installs cupy-cuda13x"
            ) from error

    return open_driver


def no_kernels(device_kind: str) -> OperationUnknown:
    """The error of a device that runs no kernels of a client's own."""
    return OperationUnknown(
        "CUDA kernels of a program's own (cupy.RawKernel, cupy.RawModule, Triton) need"
        f" a CUDA device, and this server's device is a {device_kind}: run the program"
        " on a slice of a CUDA device"
    )
