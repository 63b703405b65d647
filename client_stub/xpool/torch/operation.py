"""What torch's schema says about an operation, and its arguments as wire values.

The twin of ``native/operation.cpp`` and ``native/encoding.cpp``: the same call makes
the same values on both devices, those equal to their default left out. ``Encoded.key``
is what decides the geometry of the results; storages, offsets and most numbers are not
in it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from xpool_protocol import limits
from xpool_protocol.values import (
    FLAG_CONJ,
    FLAG_NEG,
    Device,
    DType,
    Generator,
    HostTensor,
    Layout,
    MemoryFormat,
    Tensor,
    Value,
)

from xpool.torch.codes import (
    DTYPE_CODES,
    LAYOUT_CODES,
    MEMORY_FORMAT_CODES,
    dtype_code,
)

LEARNED: Final = frozenset(
    {
        "aten::convolution",
        "aten::convolution_backward",
        "aten::native_batch_norm",
        "aten::_native_batch_norm_legit",
        "aten::_native_batch_norm_legit.no_stats",
        "aten::_native_batch_norm_legit_no_training",
        "aten::_batch_norm_with_update",
        "aten::_batch_norm_with_update_functional",
        "aten::_batch_norm_no_update",
        "aten::batch_norm_with_update",
        "aten::_embedding_bag",
        "aten::_embedding_bag_forward_only",
        "aten::native_group_norm",
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
        "aten::_fft_r2c",
        "aten::_fft_c2r",
        "aten::_fft_c2c",
        "aten::linalg_eig",
        "aten::_linalg_svd",
        "aten::log_sigmoid_forward",
        "aten::max_unpool2d",
        "aten::max_unpool3d",
        "aten::multilabel_margin_loss_forward",
        "aten::nonzero_static",
    }
)
"""Meta kernels of these model CUDA where other devices differ, or can't know which
layout a server's library chooses: the first call of each geometry asks."""

GROWING: Final = frozenset({"aten::addbmm_"})
"""In-place, and still they give ``self`` the size of what is added to it."""

FILLING: Final = frozenset(
    {"aten::arange.start_out", "aten::range.out", "aten::eye.out", "aten::eye.m_out"}
)
"""torch's composites hand these an empty tensor to fill; numbers decide its size."""

HOST_INDICES: Final = frozenset(
    {
        "aten::index.Tensor",
        "aten::index.Tensor_out",
        "aten::index_put",
        "aten::index_put_",
        "aten::index_put.out",
        "aten::_index_put_impl_",
        "aten::_unsafe_index.Tensor",
        "aten::_unsafe_index_put",
    }
)
"""CPU tensors of any size are legal arguments of these."""

ABSENT: Final[Any] = object()
"""In place of a default that does not exist."""

Described: TypeAlias = tuple[Value, Hashable]
"""A wire value, and its part in the key of the plan."""


class Parameter(NamedTuple):
    """One argument of a schema."""

    name: str
    default: Any
    """``ABSENT`` if there is none; dtypes and the like as torch's numbers."""
    is_tensor: bool
    is_scalar: bool
    """A ``Scalar``: a number whose type takes part in promotion."""
    is_written: bool
    is_keyword_only: bool


class Encoded(NamedTuple):
    """A call's arguments."""

    arguments: tuple[tuple[int, Value], ...]
    key: tuple[Hashable, ...]
    uploads: list[torch.Tensor]
    """To be kept until the call is recorded: their end frees them."""


class Operation:
    """What the schema of one overload says."""

    def __init__(self, function: Any) -> None:
        """From an ``OpOverload``."""
        schema = function._schema
        self.function = function
        overload = schema.overload_name
        self.name: str = schema.name + (f".{overload}" if overload else "")
        self.parameters = [_parameter(argument) for argument in schema.arguments]
        self.argument_names = tuple(one.name for one in self.parameters)
        self.written = [i for i, one in enumerate(self.parameters) if one.is_written]
        self.has_out = any(schema.arguments[i].is_out for i in self.written)
        self.takes_numbers = torch._C._should_allow_numbers_as_tensors(
            schema.name.removeprefix("aten::")
        )
        """torch lets a Python number stand for a tensor here."""
        self.takes_device = "device" in self.argument_names
        self.return_to_argument = [_alias_of(one, schema) for one in schema.returns]
        """Per return: the argument it is, or None for a new value."""
        self.only_writes = bool(self.written) and None not in self.return_to_argument
        self.grows_written = self.name in GROWING
        self.needs_no_plan = (
            self.only_writes and not self.has_out and not self.grows_written
        )
        self.returns_number = any(
            argument is None and not _holds_tensors(one.type)
            for one, argument in zip(
                schema.returns, self.return_to_argument, strict=True
            )
        )
        self.is_view = not self.written and any(
            one.alias_info is not None and not one.alias_info.is_write
            for one in schema.returns
        )
        self.is_dynamic = bool(
            {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
            & set(function.tags)
        )
        self.must_learn = self.name in LEARNED
        self.fills_out = self.name in FILLING
        self.takes_host_indices = self.name in HOST_INDICES
        self.scalars_shape = self.name.startswith(("aten::arange", "aten::range"))
        self._template = [
            None if one.default is ABSENT else one.default for one in self.parameters
        ]
        self._positions = {name: i for i, name in enumerate(self.argument_names)}

    def full(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """All arguments in the schema's order; what was not given is its default."""
        values = self._template.copy()
        values[: len(args)] = args
        for name, value in kwargs.items():
            values[self._positions[name]] = value
        return values


def _parameter(argument: Any) -> Parameter:
    kind = _element_name(argument.real_type)
    alias = argument.alias_info
    return Parameter(
        argument.name,
        argument.default_value if argument.has_default_value() else ABSENT,
        kind == "Tensor",
        kind == "number",
        alias is not None and alias.is_write,
        argument.kwarg_only,
    )


def _element_name(kind: Any) -> str:
    while kind.kind() in ("OptionalType", "ListType"):
        kind = kind.getElementType()
    return str(kind)


def _holds_tensors(kind: Any) -> bool:
    return _element_name(kind) == "Tensor"


def _alias_of(result: Any, schema: Any) -> int | None:
    """The written argument that a return is."""
    alias = result.alias_info
    if alias is None or not alias.is_write:
        return None
    found = None
    for position, argument in enumerate(schema.arguments):
        theirs = argument.alias_info
        if theirs is not None and theirs.before_set == alias.before_set:
            found = position
    return found


def is_default(value: Any, default: Any) -> bool:
    """Whether a value equals its schema default: same kind and same value."""
    if default is None or value is None:
        return value is default
    if isinstance(value, (list, tuple)):
        return (
            isinstance(default, list)
            and len(value) == len(default)
            and all(map(is_default, value, default))
        )
    if type(default) is int:
        # torch keeps dtypes, layouts and memory formats as integers in its schemas.
        value = _CODES.get(value, value) if type(value) in _CODED else value
    return type(value) is type(default) and bool(value == default)


_CODES: Final[dict[Any, int]] = {**DTYPE_CODES, **LAYOUT_CODES, **MEMORY_FORMAT_CODES}
_CODED: Final = (torch.dtype, torch.layout, torch.memory_format)


def is_number(value: Any) -> bool:
    """Whether a value is one of Python's numbers."""
    return type(value) in _NUMBERS


def is_gather(operation: Operation, values: Sequence[Any]) -> bool:
    """``index.Tensor`` is tagged as dynamic, but is so only with masks."""
    if not operation.takes_host_indices:
        return False
    masks = (torch.bool, torch.uint8)
    return not any(
        isinstance(index, torch.Tensor) and index.dtype in masks
        for value in values
        if isinstance(value, (list, tuple))
        for index in value
    )


def flat_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A host tensor without lazy bits, row-major: as its bytes travel."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def bytes_view(tensor: torch.Tensor) -> memoryview:
    """The bytes of a row-major host tensor, not copied; keep the tensor meanwhile."""
    if not tensor.nbytes:
        return memoryview(b"")
    memory = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
    return memoryview(memory).cast("B")


class ArgumentEncoder:
    """Turns arguments into wire values for one device."""

    def __init__(
        self,
        device_type: str,
        storage_number: Callable[[torch.Tensor], int],
        upload: Callable[[torch.Tensor], torch.Tensor],
        generator_number: Callable[[torch.Generator], int],
    ) -> None:
        """Bind to a device.

        Args:
            device_type: what its tensors say they are on.
            storage_number: the server's id of a device tensor's storage.
            upload: makes a device tensor of a host tensor too large for a record.
            generator_number: the server's id of a generator, or an error.
        """
        self.device_type = device_type
        self._storage_number = storage_number
        self._upload = upload
        self._generator_number = generator_number

    def encode(self, operation: Operation, values: Sequence[Any]) -> Encoded:
        """All arguments but those equal to their default.

        Raises:
            RuntimeError: a tensor is on the wrong device.
            NotImplementedError: an argument has no form on the wire.
        """
        arguments: list[tuple[int, Value]] = []
        key: list[Hashable] = [operation]
        uploads: list[torch.Tensor] = []
        for position, value in enumerate(values):
            parameter = operation.parameters[position]
            default = parameter.default
            if value is default or (
                default is not ABSENT and is_default(value, default)
            ):
                continue
            wire, part = self._value(operation, parameter, value, uploads)
            arguments.append((position, wire))
            key += (position, part)
        return Encoded(tuple(arguments), tuple(key), uploads)

    def _value(
        self,
        operation: Operation,
        parameter: Parameter,
        value: Any,
        uploads: list[torch.Tensor],
    ) -> Described:
        if isinstance(value, torch.Tensor):
            return self._tensor(operation, parameter, value, uploads)
        kind = type(value)
        if kind in (list, tuple):
            items = [self._value(operation, parameter, one, uploads) for one in value]
            return [wire for wire, _ in items], tuple([part for _, part in items])
        if kind in _NUMBERS:
            return _number(operation, parameter, value)
        if value is None or kind is str:
            return value, value
        if kind in _WIRE_CODES:
            codes, make = _WIRE_CODES[kind]
            if value not in codes:
                raise NotImplementedError(_no_form(operation, parameter, value))
            return make(codes[value]), value
        return self._rare(operation, parameter, value)

    def _rare(
        self, operation: Operation, parameter: Parameter, value: Any
    ) -> Described:
        if isinstance(value, torch.device):
            if value.type != self.device_type:
                raise RuntimeError(
                    f"xpool: {operation.name} on a remote tensor was asked to make its"
                    f" result on {value}"
                )
            return Device(0), "device"
        if isinstance(value, torch.Generator):
            number = self._generator_number(value)
            return Generator(number), ("generator", number)
        if isinstance(value, torch.SymInt):
            return _number(operation, parameter, int(value))
        if isinstance(value, torch.SymFloat):
            return _number(operation, parameter, float(value))
        if isinstance(value, torch.SymBool):
            return _number(operation, parameter, bool(value))
        raise NotImplementedError(_no_form(operation, parameter, value))

    def _tensor(
        self,
        operation: Operation,
        parameter: Parameter,
        tensor: torch.Tensor,
        uploads: list[torch.Tensor],
    ) -> Described:
        if tensor.device.type == self.device_type:
            return self._remote(tensor)
        is_legal = tensor.is_cpu and not parameter.is_written
        if not is_legal or (tensor.dim() > 0 and not operation.takes_host_indices):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two"
                f" devices, {self.device_type}:0 and {tensor.device}! (when calling"
                f" {operation.name})"
            )
        if tensor.nbytes > limits.INLINE_NBYTES:
            uploads.append(self._upload(tensor))
            return self._remote(uploads[-1])
        dense = flat_tensor(tensor)
        code, sizes = dtype_code(dense.dtype), tuple(dense.shape)
        data = bytes(bytes_view(dense))
        return HostTensor(code, sizes, data), ("host", code, sizes)

    def _remote(self, tensor: torch.Tensor) -> Described:
        if tensor.layout is not torch.strided:
            raise NotImplementedError(
                f"xpool: {tensor.layout} tensors are not supported on the remote device"
            )
        code = dtype_code(tensor.dtype)
        sizes, strides = tuple(tensor.shape), tensor.stride()
        flags = FLAG_CONJ if code in _COMPLEX_CODES and tensor.is_conj() else 0
        if tensor.is_neg():
            flags |= FLAG_NEG
        number, offset = self._storage_number(tensor), int(tensor.storage_offset())
        wire = Tensor(number, code, sizes, strides, offset, flags)
        return wire, (code, sizes, strides, flags)


_COMPLEX_CODES: Final = frozenset(
    code for dtype, code in DTYPE_CODES.items() if dtype.is_complex
)
_NUMBERS: Final = (bool, int, float, complex)
_WRAPPED: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    bool: (11, lambda value: struct.pack("<?", value)),
    int: (4, lambda value: struct.pack("<q", value)),
    float: (7, lambda value: struct.pack("<d", value)),
    complex: (10, lambda value: struct.pack("<dd", value.real, value.imag)),
}
"""By a number's type: dtype and bytes of the tensor that torch wraps it in."""

_WIRE_CODES: Final[dict[type, tuple[Mapping[Any, int], Callable[[int], Value]]]] = {
    torch.dtype: (DTYPE_CODES, DType),
    torch.layout: (LAYOUT_CODES, Layout),
    torch.memory_format: (MEMORY_FORMAT_CODES, MemoryFormat),
}


def _number(operation: Operation, parameter: Parameter, value: Any) -> Described:
    kind = type(value)
    if parameter.is_tensor:  # torch had wrapped it, and unwrapped it for Python
        code, data = _WRAPPED[kind][0], _WRAPPED[kind][1](value)
        return HostTensor(code, (), data, is_wrapped=True), ("wrapped", code)
    if parameter.is_scalar and not operation.scalars_shape:
        return value, kind.__name__
    # True == 1 == 1.0 as keys, and a NaN is not even equal to itself.
    return value, (kind, value if value == value else "nan")


def _no_form(operation: Operation, parameter: Parameter, value: Any) -> str:
    return (
        f"xpool: argument {parameter.name!r} of {operation.name} is a"
        f" {type(value).__name__}, which can't be sent to a server"
    )
