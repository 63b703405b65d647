"""``cupy.RawKernel`` and ``cupy.RawModule``: source goes to the server, and launches.

The first use of a kernel asks the server once, so that source that does not compile and
names that are not there raise where CuPy raises them. Launches are queued.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from xpool_protocol.errors import PoolError
from xpool_protocol.kernel_records import (
    CUDA_IMAGE,
    CUDA_SOURCE,
    FLAG_COOPERATIVE,
    ArrayArgument,
    BytesArgument,
    KernelArgument,
    NullArgument,
)

from xpool.cupy.device import ArrayDevice, device
from xpool.cupy.encoding import encode
from xpool.cupy.faults import raise_local
from xpool.cupy.ndarray import ndarray
from xpool.kernel_log import KernelLog
from xpool.session import RemoteFault

_logs: Final[dict[int, KernelLog]] = {}
"""By the index of the device."""


def check_device(what: str) -> ArrayDevice:
    """The current device, if it runs CUDA kernels.

    Raises:
        NotImplementedError: it does not.
    """
    where = device().members[device().current_index()]
    kind = where.session.welcome.device_kind
    if kind != "cuda":
        raise NotImplementedError(
            f"{what} runs CUDA source, which this slice's device, a {kind}, can't: run"
            " the program on a slice of a CUDA device"
        )
    return where


def kernel_log(where: ArrayDevice) -> KernelLog:
    """Records of kernels in the log of the current device, which this is."""
    index = device().current_index()
    if index not in _logs:

        def append(record: bytes) -> int:
            where.post(record)
            return 0

        def ask(request: int) -> bytes:
            session = where.session
            try:
                return session.noted("kernel", lambda: session.wait(request)).value
            except (RemoteFault, PoolError) as error:
                raise_local(error)

        _logs[index] = KernelLog(append, where.log.next_request, ask)
    return _logs[index]


def argument(value: Any) -> KernelArgument:
    """One argument, as CuPy passes it to a kernel.

    Raises:
        TypeError: kernels take nothing of this type.
        ValueError: an array on another device than the current one.
    """
    kind = type(value)
    if isinstance(value, ndarray):
        encode(value)  # it knows what may be named
        return ArrayArgument(value._number)
    if value is None:
        return NullArgument()
    if kind is bool:
        return BytesArgument(bytes((value,)))
    if kind is int:
        return BytesArgument(struct.pack("<q" if value < 1 << 63 else "<Q", value))
    if kind is float:
        return BytesArgument(struct.pack("<d", value))
    if kind is complex:
        return BytesArgument(struct.pack("<dd", value.real, value.imag))
    if isinstance(value, np.generic | np.ndarray):
        return BytesArgument(value.tobytes())
    raise TypeError(f"Unsupported type {kind}")


def extent(value: Any) -> tuple[int, int, int]:
    """Blocks or threads in three dimensions.

    Raises:
        ValueError: more than three are given.
    """
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(given) > 3:
        raise ValueError("a launch has at most three dimensions")
    x, y, z = (*map(int, given), 1, 1, 1)[:3]
    return x, y, z


class RawModule:
    """User-defined CUDA source, or a compiled image, as a module of kernels."""

    __module__ = "cupy"

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: bool = False,
    ) -> None:
        """A module that is compiled at its first use; arguments are CuPy's.

        Raises:
            TypeError: neither, or both, of source and path.
            NotImplementedError: what can't be done on a server.
        """
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keywords must be given.")
        if path is not None and name_expressions is not None:
            raise ValueError("`name_expressions` can only be used with `code`")
        for is_given, what in (
            (translate_cucomplex, "translate_cucomplex: include <cupy/complex.cuh>"),
            (jitify, "jitify: it reads headers from the server's files"),
            (backend != "nvrtc", f"backend={backend!r}: the server has NVRTC"),
        ):
            if is_given:
                raise NotImplementedError(f"xpool does not support {what}")
        self.code, self.file_path = code, path
        self.options, self.backend = tuple(options), backend
        self.enable_cooperative_groups = enable_cooperative_groups
        self.name_expressions = name_expressions
        self._loaded: dict[int, tuple[KernelLog, int]] = {}
        """The log and the module's number, by the index of the device."""

    def _made(self, what: str) -> tuple[KernelLog, int]:
        """The log and the module's number, made if this is its first use."""
        where = check_device(what)
        index = device().current_index()
        if index not in self._loaded:
            kernels = kernel_log(where)
            if self.file_path is not None:
                number = kernels.make(CUDA_IMAGE, Path(self.file_path).read_bytes())
            else:
                assert self.code is not None
                number = kernels.make(
                    CUDA_SOURCE,
                    self.code.encode(),
                    self.options,
                    tuple(self.name_expressions or ()),
                )
            self._loaded[index] = kernels, number
        return self._loaded[index]

    def __del__(self) -> None:
        for kernels, number in self.__dict__.get("_loaded", {}).values():
            kernels.free(number)

    def compile(self, log_stream: Any = None) -> None:
        """Have it compiled now.

        Raises:
            CompileException: it does not compile.
        """
        kernels, number = self._made("cupy.RawModule")
        kernels.wait_for(number)

    def get_function(self, name: str) -> RawKernel:
        """A kernel of the module, by its name or one of the name expressions."""
        found = object.__new__(RawKernel)
        found._begin(self, name)
        return found

    def get_global(self, name: str) -> Any:
        """Refused: a module's variables have no address here."""
        raise NotImplementedError(
            "xpool: cupy.RawModule.get_global: a module's global variables can't be"
            " reached; pass an array to the kernel instead"
        )


class RawKernel:
    """User-defined CUDA kernel."""

    __module__ = "cupy"

    _owner: RawModule
    name: str

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        *,
        enable_cooperative_groups: bool = False,
        jitify: bool = False,
    ) -> None:
        """A kernel of a module of its own; arguments are CuPy's.

        Raises:
            TypeError: the source or the name is no text.
        """
        for what, text in (("code", code), ("name", name)):
            if not isinstance(text, str):
                raise TypeError(f"{what} is text, not {type(text).__name__}")
        names = (name,) if not name.isidentifier() else None
        owner = RawModule(
            code=code,
            options=options,
            backend=backend,
            translate_cucomplex=translate_cucomplex,
            enable_cooperative_groups=enable_cooperative_groups,
            name_expressions=names,
            jitify=jitify,
        )
        self._begin(owner, name)

    def _begin(self, owner: RawModule, name: str) -> None:
        self._owner, self.name = owner, name
        self.code, self.options = owner.code, owner.options
        self.backend, self.file_path = owner.backend, owner.file_path
        self.enable_cooperative_groups = owner.enable_cooperative_groups
        self._known: dict[int, dict[str, int]] = {}
        """What CUDA tells of the kernel, by the index of the device."""

    def __call__(
        self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0
    ) -> None:
        """Launch the kernel.

        Raises:
            CompileException: its source does not compile.
            TypeError: an argument that kernels do not take.
        """
        self.compile()
        kernels, module = self._owner._made("cupy.RawKernel")
        kernels.launch(
            module,
            self.name,
            extent(grid),
            extent(block),
            shared_mem,
            FLAG_COOPERATIVE if self.enable_cooperative_groups else 0,
            [argument(one) for one in args],
        )

    def compile(self, log_stream: Any = None) -> None:
        """Have it compiled now."""
        if device().current_index() not in self._known:
            self._refresh()

    def _refresh(self) -> dict[str, int]:
        kernels, module = self._owner._made("cupy.RawKernel")
        found = kernels.attributes(module, self.name)
        self._known[device().current_index()] = found
        return found

    @property
    def attributes(self) -> dict[str, int]:
        """What CUDA tells of the kernel."""
        return dict(self._known.get(device().current_index()) or self._refresh())


def _attribute(name: str, is_settable: bool) -> property:
    def get(self: RawKernel) -> int:
        return self.attributes[name]

    def put(self: RawKernel, value: int) -> None:
        self.compile()
        kernels, module = self._owner._made("cupy.RawKernel")
        kernels.set_attribute(module, self.name, name, int(value))
        self._known.pop(device().current_index(), None)

    return property(get, put if is_settable else None, doc=f"``{name}`` of the kernel.")


for _name in (
    "max_threads_per_block",
    "shared_size_bytes",
    "const_size_bytes",
    "local_size_bytes",
    "num_regs",
    "ptx_version",
    "binary_version",
    "cache_mode_ca",
):
    setattr(RawKernel, _name, _attribute(_name, is_settable=False))
for _name in ("max_dynamic_shared_size_bytes", "preferred_shared_memory_carveout"):
    setattr(RawKernel, _name, _attribute(_name, is_settable=True))
