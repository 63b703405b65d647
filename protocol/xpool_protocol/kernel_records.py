"""Records by which a client's own kernels reach the device. SPEC.md sections 5 and 16.

A module is source that the server compiles, or an image that the client has compiled.
A launch names one of its kernels, and storages, arrays and plain bytes as arguments.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.wire import Reader, Writer

MAKE_MODULE: Final = 56
FREE_MODULE: Final = 57
LAUNCH_KERNEL: Final = 58
KERNEL_ATTRIBUTES: Final = 59
SET_KERNEL_ATTRIBUTE: Final = 60

CUDA_SOURCE: Final = 0
CUDA_IMAGE: Final = 1
"""A cubin, or PTX, which the device's driver takes as they are."""

FLAG_COOPERATIVE: Final = 1
"""All blocks run at once, so that they may wait for one another."""

ATTRIBUTES: Final = (
    "max_threads_per_block",
    "shared_size_bytes",
    "const_size_bytes",
    "local_size_bytes",
    "num_regs",
    "ptx_version",
    "binary_version",
    "cache_mode_ca",
    "max_dynamic_shared_size_bytes",
    "preferred_shared_memory_carveout",
)
"""By CUDA's own numbers; the answer of ``KernelAttributes`` has them in this order."""

SETTABLE: Final = frozenset((8, 9))
"""Positions in ``ATTRIBUTES`` that ``SetKernelAttribute`` may name."""

_BYTES, _STORAGE, _ARRAY, _NULL = range(4)


class MakeModule(msgspec.Struct, frozen=True, gc=False):
    """Compile source, or load an image, under a number."""

    module: int
    language: int
    code: bytes
    options: tuple[str, ...] = ()
    """Of the compiler; none with an image."""
    names: tuple[str, ...] = ()
    """C++ expressions whose instances the module is to have; none with an image."""


class FreeModule(msgspec.Struct, frozen=True, gc=False):
    """The client will not name this module again."""

    module: int


class BytesArgument(msgspec.Struct, frozen=True, gc=False):
    """A number or structure by value, as the kernel's parameter has it."""

    data: bytes


class StorageArgument(msgspec.Struct, frozen=True, gc=False):
    """The device address of a byte of a storage."""

    storage: int
    offset: int
    """In bytes."""


class ArrayArgument(msgspec.Struct, frozen=True, gc=False):
    """The device address of an array's first item."""

    number: int


class NullArgument(msgspec.Struct, frozen=True, gc=False):
    """A null pointer."""


KernelArgument: TypeAlias = (
    BytesArgument | StorageArgument | ArrayArgument | NullArgument
)
Extent: TypeAlias = tuple[int, int, int]


class LaunchKernel(msgspec.Struct, frozen=True, gc=False):
    """Run a kernel of a module, once all before it has run."""

    module: int
    name: str
    """Of the kernel; or one of the module's ``names``."""
    grid: Extent
    """Blocks in each dimension."""
    block: Extent
    """Threads of a block in each dimension."""
    shared_nbytes: int
    """Dynamic shared memory of a block."""
    flags: int
    arguments: tuple[KernelArgument, ...]


class KernelAttributes(msgspec.Struct, frozen=True, gc=False):
    """Answer with a kernel's ``ATTRIBUTES``; without a name, if the module is made."""

    request: int
    module: int
    name: str


class SetKernelAttribute(msgspec.Struct, frozen=True, gc=False):
    """Change what a kernel may use of the device."""

    module: int
    name: str
    attribute: int
    """A position in ``ATTRIBUTES``, of those in ``SETTABLE``."""
    value: int


KernelRecord: TypeAlias = (
    MakeModule | FreeModule | LaunchKernel | KernelAttributes | SetKernelAttribute
)


def write_kernel_record(writer: Writer, record: KernelRecord) -> None:
    """Append one record in its canonical form.

    Raises:
        ValueError: a number does not fit.
    """
    match record:
        case LaunchKernel():
            writer.uint8(LAUNCH_KERNEL)
            writer.uvarint(record.module)
            writer.text(record.name)
            for extent in (*record.grid, *record.block):
                writer.uvarint(extent)
            writer.uvarint(record.shared_nbytes)
            writer.uint8(record.flags)
            writer.uvarint(len(record.arguments))
            for argument in record.arguments:
                _write_argument(writer, argument)
        case MakeModule():
            writer.uint8(MAKE_MODULE)
            writer.uvarint(record.module)
            writer.uint8(record.language)
            writer.sized(record.code)
            for texts in (record.options, record.names):
                writer.uvarint(len(texts))
                for text in texts:
                    writer.text(text)
        case FreeModule():
            writer.uint8(FREE_MODULE)
            writer.uvarint(record.module)
        case KernelAttributes():
            writer.uint8(KERNEL_ATTRIBUTES)
            writer.uvarint(record.request)
            writer.uvarint(record.module)
            writer.text(record.name)
        case SetKernelAttribute():
            writer.uint8(SET_KERNEL_ATTRIBUTE)
            writer.uvarint(record.module)
            writer.text(record.name)
            writer.uint8(record.attribute)
            writer.svarint(record.value)


def _write_argument(writer: Writer, argument: KernelArgument) -> None:
    match argument:
        case BytesArgument():
            writer.uint8(_BYTES)
            writer.sized(argument.data)
        case StorageArgument():
            writer.uint8(_STORAGE)
            writer.uvarint(argument.storage)
            writer.uvarint(argument.offset)
        case ArrayArgument():
            writer.uint8(_ARRAY)
            writer.uvarint(argument.number)
        case NullArgument():
            writer.uint8(_NULL)


def _module(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "module number")


def _name(reader: Reader) -> str:
    return reader.text(limits.MAX_KERNEL_NAME_NBYTES, "kernel's name")


def _texts(reader: Reader, what: str) -> tuple[str, ...]:
    count = reader.uvarint(limits.MAX_KERNEL_TEXTS, f"number of {what}s")
    longest = limits.MAX_KERNEL_NAME_NBYTES
    return tuple([reader.text(longest, what) for _ in range(count)])


def read_make_module(reader: Reader) -> MakeModule:
    """The fields of a ``MakeModule``, or ``PeerError``."""
    module, language = _module(reader), reader.uint8()
    if language not in (CUDA_SOURCE, CUDA_IMAGE):
        raise PeerError(f"language {language} of a module is unknown")
    code = reader.sized(limits.MAX_KERNEL_CODE_NBYTES, "module's code")
    options, names = _texts(reader, "option"), _texts(reader, "name expression")
    if language == CUDA_IMAGE and (options or names):
        raise PeerError("an image has no options and no name expressions")
    return MakeModule(module, language, bytes(code), options, names)


def read_free_module(reader: Reader) -> FreeModule:
    """The fields of a ``FreeModule``, or ``PeerError``."""
    return FreeModule(_module(reader))


def _extent(reader: Reader) -> Extent:
    x, y, z = (
        reader.uvarint(limits.MAX_KERNEL_EXTENT, "extent of a launch") for _ in range(3)
    )
    return x, y, z


def _argument(reader: Reader) -> KernelArgument:
    tag = reader.uint8()
    if tag == _BYTES:
        most = limits.MAX_KERNEL_ARGUMENT_NBYTES
        return BytesArgument(bytes(reader.sized(most, "kernel's argument")))
    if tag == _STORAGE:
        return StorageArgument(
            reader.uvarint(limits.MAX_STORAGE_ID, "storage id"),
            reader.uvarint(limits.MAX_STORAGE_NBYTES, "offset"),
        )
    if tag == _ARRAY:
        return ArrayArgument(reader.uvarint(limits.MAX_STORAGE_ID, "array number"))
    if tag == _NULL:
        return NullArgument()
    raise PeerError(f"kernel argument tag {tag} is unknown")


def read_launch_kernel(reader: Reader) -> LaunchKernel:
    """The fields of a ``LaunchKernel``, or ``PeerError``."""
    module, name = _module(reader), _name(reader)
    grid, block = _extent(reader), _extent(reader)
    shared_nbytes = reader.uvarint(limits.MAX_KERNEL_EXTENT, "shared memory")
    flags = reader.uint8()
    if flags & ~FLAG_COOPERATIVE:
        raise PeerError(f"launch flags {flags} are unknown")
    count = reader.uvarint(limits.MAX_KERNEL_ARGUMENTS, "number of arguments")
    arguments = tuple([_argument(reader) for _ in range(count)])
    return LaunchKernel(module, name, grid, block, shared_nbytes, flags, arguments)


def read_kernel_attributes(reader: Reader, request: int) -> KernelAttributes:
    """The fields of a ``KernelAttributes`` behind its request, or ``PeerError``."""
    return KernelAttributes(request, _module(reader), _name(reader))


def read_set_kernel_attribute(reader: Reader) -> SetKernelAttribute:
    """The fields of a ``SetKernelAttribute``, or ``PeerError``."""
    module, name, attribute = _module(reader), _name(reader), reader.uint8()
    if attribute not in SETTABLE:
        raise PeerError(f"kernel attribute {attribute} can't be set")
    return SetKernelAttribute(module, name, attribute, reader.svarint())
