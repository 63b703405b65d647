"""``torch.Generator(device="xpool")``: a number on the server.

torch makes generators of a Python backend nowhere, and hands an operation's generator
to Python in a new wrapper each time. So ours is an ordinary CPU generator that draws
nothing: its own seed, which every wrapper shows, tells which one it is.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NoReturn

import torch
from xpool_protocol.records import (
    FreeGenerator,
    NewGenerator,
    ReadGenerator,
    SeedGenerator,
    WriteGenerator,
)

from xpool.torch.operation import bytes_view, flat_tensor

if TYPE_CHECKING:
    from xpool.torch.python_device import PythonDevice
    from xpool.torch.python_log import PythonLog

DEFAULT: Final = 0
DEFAULT_SEED: Final = 67280421310721
"""What torch seeds every new generator with."""

_MASK: Final = (1 << 64) - 1


class _Name:
    """A generator's number; its end frees it on the server."""

    __slots__ = ("_log", "number")

    def __init__(self, log: PythonLog, number: int) -> None:
        self._log, self.number = log, number

    def __del__(self) -> None:
        if self.number != DEFAULT and not self._log.is_closed:
            self._log.append_later(FreeGenerator(self.number))


class RemoteGenerator(torch._C.Generator):
    """A generator of the remote device."""

    _device: PythonDevice
    _name: _Name
    _seed: int

    def __new__(cls, device: PythonDevice, number: int) -> RemoteGenerator:
        """The generator of this number; it must exist on the server."""
        self = super().__new__(cls, "cpu")  # type: ignore[call-arg]  # torch takes it
        self._device, self._seed = device, DEFAULT_SEED
        self._name = _Name(device.log, number)
        super().manual_seed(self, device.generators.mark_of(number))
        return self

    def __init__(self, device: PythonDevice, number: int) -> None:
        pass  # torch's own takes a device's name

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # read only, as torch's
        """Where it draws."""
        return self._device.device

    @property
    def number(self) -> int:
        """Its id on the server."""
        return self._name.number

    def manual_seed(self, seed: int) -> RemoteGenerator:
        """Seed it; a negative seed counts from 2**64 down."""
        if not -(1 << 63) <= int(seed) <= _MASK:
            raise RuntimeError("Overflow when unpacking long long")
        self._seed = int(seed) & _MASK
        if not self._device.is_forked:  # a DataLoader's worker seeds what it can't use
            self._device.log.append(SeedGenerator(self.number, self._seed))
        return self

    def seed(self) -> int:
        """Seed it with a random number, and return that."""
        self.manual_seed(secrets.randbits(53))
        return self._seed

    def initial_seed(self) -> int:
        """What it was seeded with last."""
        return self._seed

    def get_state(self) -> torch.Tensor:
        """Its state, a host tensor of uint8."""
        self._device.check_usable()
        request = self._device.log.next_request()
        self._device.log.append(ReadGenerator(request, self.number))
        payloads = self._device.answer(request).payloads
        if len(payloads) != 1:
            raise RuntimeError("xpool: the server sent no generator state")
        return torch.frombuffer(bytearray(payloads[0]), dtype=torch.uint8)

    def set_state(self, new_state: torch.Tensor) -> RemoteGenerator:
        """Set it to what ``get_state`` gave."""
        if new_state.dtype is not torch.uint8 or not new_state.is_cpu:
            raise TypeError("RNG state must be a torch.ByteTensor")
        self._device.check_usable()
        state = bytes(bytes_view(flat_tensor(new_state)))
        self._device.log.append(WriteGenerator(self.number, state))
        return self

    def clone_state(self) -> RemoteGenerator:
        """Another generator in the same state."""
        copy = self._device.generators.new()
        copy.set_state(self.get_state())
        copy._seed = self._seed
        return copy

    def graphsafe_get_state(self) -> NoReturn:
        """For CUDA graphs only."""
        raise NotImplementedError("xpool: a remote generator has no graph-safe state")

    def graphsafe_set_state(self, state: Any) -> NoReturn:
        """For CUDA graphs only."""
        raise NotImplementedError("xpool: a remote generator has no graph-safe state")


class Generators:
    """Which generator is which."""

    def __init__(self, device: PythonDevice) -> None:
        self._device = device
        self._salt = secrets.randbits(40) << 24

    def mark_of(self, number: int) -> int:
        """The seed by which a generator of this number is known."""
        return self._salt | number

    def new(self) -> RemoteGenerator:
        """A new generator with torch's default seed."""
        self._device.check_usable()
        number = self._device.log.next_generator()
        self._device.log.append(NewGenerator(number))
        return RemoteGenerator(self._device, number)

    def number_of(self, generator: torch.Generator) -> int:
        """The id of a generator that an operation was given.

        Raises:
            RuntimeError: it is one of the host.
        """
        mark = torch._C.Generator.initial_seed(generator)
        if mark >> 24 != self._salt >> 24:
            raise RuntimeError(
                "Expected a 'xpool' device type for generator but found 'cpu'"
            )
        return mark & 0xFFFFFF


def patch_generator_class(device: PythonDevice) -> None:
    """Make ``torch.Generator(device="xpool")`` a remote one."""
    host: Any = torch._C.Generator

    class Meta(type(host)):  # type: ignore[misc]  # a metaclass known at run time only
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, host)

    class Generator(host, metaclass=Meta):  # type: ignore[misc]  # as above
        def __new__(cls, device: Any = "cpu") -> Any:
            wanted = torch.device(device)
            if wanted.type != remote.device.type:
                return host(device)
            if wanted.index not in (None, 0):
                raise RuntimeError("xpool: invalid device ordinal")
            return remote.generators.new()

    remote = device
    Generator.__module__, Generator.__qualname__ = "torch", "Generator"
    torch.Generator = Generator  # type: ignore[misc]
