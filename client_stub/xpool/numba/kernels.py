"""``numba.cuda.jit``: a kernel is compiled here, for the server's architecture.

Numba's launcher speaks to CUDA's driver, and has no class to replace as Triton has. So
the decorator is ours, and uses what Numba documents: ``numba.cuda.compile`` needs no
GPU. Functions that kernels call are Numba's own still.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from xpool_protocol.errors import UsageError
from xpool_protocol.kernel_records import CUDA_IMAGE, BytesArgument, KernelArgument

from xpool.cupy.raw_kernels import extent, kernel_log
from xpool.kernel_log import KernelLog
from xpool.numba.arguments import Passed, parameters, passed
from xpool.numba.where import architecture, current

_ENTRY: Final = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)", re.DOTALL)
_PARAMETER: Final = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z](\d+)")
_COMPILED: Final = frozenset(
    ("debug", "lineinfo", "fastmath", "opt", "forceinline", "launch_bounds")
)
_IGNORED: Final = frozenset(("cache", "inline", "lto", "shared_memory_carveout"))
_BEST_THREADS: Final = 256
"""Of a block that nobody has chosen."""


class Loaded(NamedTuple):
    """A kernel for some types, on a device."""

    kernels: KernelLog
    module: int
    name: str
    widths: tuple[int, ...]
    kinds: tuple[Any, ...]
    attributes: dict[str, int]


class Kernel:
    """What ``numba.cuda.jit`` returns."""

    def __init__(
        self, function: Callable[..., Any], inner: Any, options: dict[str, Any]
    ) -> None:
        """A kernel that nothing is compiled of yet.

        Args:
            function: the program's.
            inner: Numba's own dispatcher, by which other kernels call it.
            options: of the decorator.
        """
        self.py_func, self._inner = function, inner
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._options = {
            name: value for name, value in options.items() if name in _COMPILED
        }
        self._max_registers = options.get("max_registers")
        self.signatures: list[tuple[Any, ...]] = []
        """Types that the program has named; none: those of each call."""
        self._loaded: dict[tuple[int, tuple[Any, ...]], Loaded] = {}

    @property
    def _numba_type_(self) -> Any:
        return self._inner._numba_type_

    def __call__(self, *_: Any) -> None:
        """Refused: nobody has said over how many threads.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Kernel launch configuration was not specified: write"
            f" {self.__name__}[blocks, threads](…)"
        )

    def __getitem__(self, given: Any) -> Launch:
        if not isinstance(given, tuple) or len(given) not in (2, 3, 4):
            raise ValueError(
                "must specify at least the griddim and blockdim, and at most stream and"
                " sharedmem too"
            )
        return self.configure(*given)

    def configure(
        self, griddim: Any, blockdim: Any, stream: Any = 0, sharedmem: int = 0
    ) -> Launch:
        """The kernel with blocks and threads, to be called."""
        return Launch(self, extent(griddim), extent(blockdim), int(sharedmem))

    def forall(
        self, ntasks: int, tpb: int = 0, stream: Any = 0, sharedmem: int = 0
    ) -> Callable[..., None]:
        """The kernel over so many threads, in blocks of a size that suits it."""
        if ntasks < 0:
            raise ValueError(f"Can't create ForAll with negative task count: {ntasks}")

        def run(*args: Any) -> None:
            if not ntasks:
                return
            after: list[Callable[[], None]] = []
            given = [passed(one, after) for one in args]
            loaded = self.loaded(given)
            most = loaded.attributes["max_threads_per_block"]
            threads = tpb or min(_BEST_THREADS, most or _BEST_THREADS)
            blocks = (ntasks + threads - 1) // threads
            Launch(self, extent(blocks), extent(threads), sharedmem).run(
                loaded, given, after
            )

        return run

    def loaded(self, given: Sequence[Passed]) -> Loaded:
        """The kernel for arguments, compiled if that was not done yet.

        Raises:
            NotImplementedError: the device runs no CUDA kernels.
            TypeError: the program has named types, and these are others.
        """
        kinds = self._kinds(given)
        key = current().current_index(), kinds
        found = self._loaded.get(key)
        if found is None:
            found = self._loaded[key] = self._compiled(kinds)
        return found

    def compile(self, signature: Any) -> None:
        """Remember the types of a signature, and compile for them.

        Where the device runs no kernels that is told when the kernel is launched: the
        decorator runs when a program is imported.
        """
        from numba.core import sigutils

        kinds, _ = sigutils.normalize_signature(signature)
        self.signatures.append(tuple(kinds))

    def _kinds(self, given: Sequence[Passed]) -> tuple[Any, ...]:
        kinds = tuple(one.kind for one in given)
        if not self.signatures or kinds in self.signatures:
            return kinds
        for one in self.signatures:
            if len(one) == len(kinds) and all(map(_is_taken, one, kinds)):
                return one
        raise TypeError(
            f"No matching definition for argument type(s) {', '.join(map(str, kinds))}"
        )

    def _compiled(self, kinds: tuple[Any, ...]) -> Loaded:
        import numba.cuda

        where = current()
        compute = architecture(where, f"{self.__name__}, a kernel of numba.cuda,")
        ptx, _ = numba.cuda.compile(
            self.py_func,
            kinds,
            device=False,
            abi="numba",
            cc=compute,
            output="ptx",
            **self._options,
        )
        entry = _ENTRY.search(ptx)
        if entry is None:
            raise UsageError("numba.cuda.compile made no kernel that can be found")
        widths = tuple(int(one) // 8 for one in _PARAMETER.findall(entry[2]))
        if self._max_registers and not self._options.get("launch_bounds"):
            ptx = _limited(ptx, int(self._max_registers))
        kernels = kernel_log(where)
        module = kernels.make(CUDA_IMAGE, _image(ptx, compute))
        # Once a kernel: what the server's driver has against it is raised here.
        attributes = kernels.attributes(module, entry[1])
        return Loaded(kernels, module, entry[1], widths, kinds, attributes)

    def __del__(self) -> None:
        for one in self.__dict__.get("_loaded", {}).values():
            one.kernels.free(one.module)


class Launch:
    """A kernel with blocks and threads."""

    def __init__(self, kernel: Kernel, grid: Any, block: Any, shared: int) -> None:
        self._kernel, self._grid, self._block = kernel, grid, block
        self._shared_nbytes = shared

    def __call__(self, *args: Any) -> None:
        """Queue the launch; host arrays are copied there, and back.

        Raises:
            NotImplementedError: the device runs no CUDA kernels.
            TypeError: an argument that kernels do not take.
        """
        architecture(current(), f"{self._kernel.__name__}, a kernel of numba.cuda,")
        after: list[Callable[[], None]] = []
        given = [passed(one, after) for one in args]
        self.run(self._kernel.loaded(given), given, after)

    def run(
        self, loaded: Loaded, given: Sequence[Passed], after: list[Callable[[], None]]
    ) -> None:
        """Queue the launch of a compiled kernel, and do what comes behind it.

        Raises:
            UsageError: this version of Numba passes arguments in another way.
        """
        pairs = zip(loaded.kinds, given, strict=True)
        arguments = [each for kind, one in pairs for each in parameters(kind, one)]
        if tuple(map(_width, arguments)) != loaded.widths:
            raise UsageError(
                "this version of Numba passes a kernel's arguments in a way that xpool"
                " does not know"
            )
        loaded.kernels.launch(
            loaded.module,
            loaded.name,
            self._grid,
            self._block,
            self._shared_nbytes,
            0,
            arguments,
        )
        for one in after:
            one()


def _width(argument: KernelArgument) -> int:
    return len(argument.data) if isinstance(argument, BytesArgument) else 8


def _is_taken(wanted: Any, given: Any) -> bool:
    """Whether an argument of one type does for a parameter of another."""
    from numba import types

    if isinstance(wanted, types.Array) or isinstance(given, types.Array):
        is_same = isinstance(given, types.Array) and isinstance(wanted, types.Array)
        return is_same and (
            (wanted.dtype, wanted.ndim) == (given.dtype, given.ndim)
            and wanted.layout in ("A", given.layout)
        )
    return isinstance(wanted, types.Number | types.Boolean) and isinstance(
        given, types.Number | types.Boolean
    )


def _limited(ptx: str, max_registers: int) -> str:
    """A kernel whose threads take so many registers at most.

    Source:
        ``.maxnreg`` follows a kernel's parameters (PTX ISA, Performance-Tuning
        Directives). Bounds of a launch take its place, as with CUDA's compiler.
    """
    return _ENTRY.sub(rf"\g<0>\n.maxnreg {max_registers}", ptx, count=1)


def _image(ptx: str, compute: tuple[int, int]) -> bytes:
    """A cubin where nvJitLink is installed: the server's driver may then be older."""
    data = ptx.encode()
    try:
        from cuda.bindings import nvjitlink

        linking = nvjitlink.create(1, [f"-arch=sm_{compute[0]}{compute[1]}"])
    except (ImportError, RuntimeError):
        return data
    try:
        nvjitlink.add_data(linking, nvjitlink.InputType.PTX, data, len(data), "kernel")
        nvjitlink.complete(linking)
        image = bytearray(nvjitlink.get_linked_cubin_size(linking))
        nvjitlink.get_linked_cubin(linking, image)
        return bytes(image)
    finally:
        nvjitlink.destroy(linking)


def make_jit(original: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator, around Numba's own."""

    def jit(
        func_or_sig: Any = None, device: bool = False, link: Any = (), **options: Any
    ) -> Any:
        if device:
            return original(func_or_sig, device=True, link=link, **options)
        for is_given, what in (
            (link, "link"),
            (options.get("debug"), "debug"),
        ):
            if is_given:
                raise NotImplementedError(
                    f"xpool: numba.cuda.jit with {what} can't run in the pool"
                )
        unknown = options.keys() - _COMPILED - _IGNORED - {"max_registers"}
        if unknown:
            raise NotImplementedError(
                f"xpool: numba.cuda.jit does not know {min(unknown)} in the pool"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said by the decorator of the kernel
            inner = original(device=True)
        if callable(func_or_sig) and not _is_signature(func_or_sig):
            return Kernel(func_or_sig, inner(func_or_sig), options)

        def decorate(function: Callable[..., Any]) -> Kernel:
            made = Kernel(function, inner(function), options)
            several = isinstance(func_or_sig, list)
            signatures = func_or_sig if several else [func_or_sig]
            for one in signatures:
                if one is not None:
                    made.compile(one)
            return made

        return decorate

    return jit


def _is_signature(value: Any) -> bool:
    from numba.core import sigutils

    return bool(sigutils.is_signature(value))
