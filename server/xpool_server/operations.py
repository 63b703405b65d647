"""Operations as a session has defined them: name to callable, values to arguments.

Names are looked up exactly, in the list of what torch dispatches (``allowed``);
arguments pass the schema (``schema``) before torch sees them. All that can be
prepared is prepared when an operation is first named: calls are the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from xpool_protocol.errors import ArgumentInvalid, OperationUnknown
from xpool_protocol.graphs import tensors_in
from xpool_protocol.values import Generator, HostTensor, SparseTensor, Tensor, Value

from xpool_server.allowed import REPLACED, known_names, refusal
from xpool_server.dtypes import DTYPES
from xpool_server.schema import (
    Convert,
    Converters,
    Mismatch,
    NumberForTensor,
    described,
    host_tensor,
)
from xpool_server.sparse import GUARDED

Arguments: TypeAlias = tuple[tuple[int, Value], ...]
Bound: TypeAlias = tuple[Callable[..., Any], list[Any], dict[str, Any]]
"""What to call, and with what."""


Prepared: TypeAlias = (
    tuple[list[Any], dict[str, Any], list[tuple[int | None, "Parameter", Value]]] | None
)
"""Arguments of a call that is run often: with gaps, and what goes into them; None if
nothing can be prepared. A gap is a position, or None for a keyword."""


class Parameter(NamedTuple):
    """One argument of the server's schema."""

    name: str
    order: int
    """Position in the server's schema."""
    convert: Convert
    is_keyword_only: bool
    is_required: bool
    is_written: bool


class Operation:
    """One overload, for one client's numbering of its arguments."""

    def __init__(
        self, name: str, argument_names: tuple[str, ...], converters: Converters
    ) -> None:
        self.name = name
        self._argument_names = argument_names
        self._converters = converters
        base, _, overload = REPLACED.get(name, name).partition(".")
        self._base, self._overload = base, overload
        self.schema_name = base, overload
        """Base name and overload of what is called in the end."""
        self.function: Callable[..., Any]
        self.function, _, tags = torch._C._get_operation_overload(base, overload)
        self.is_guarded = name in GUARDED
        """``function`` checks what the kernel does not: it must not be gone around."""
        self.function = GUARDED.get(name, self.function)
        schema = torch._C._get_schema(base, overload)
        writes_outs = any(a.kwarg_only and _is_written(a) for a in schema.arguments)
        self.reshapes = writes_outs or torch.Tag.inplace_view in tags
        """A written tensor's sizes or its storage may change."""
        self._required: list[str] = []
        by_name = dict(self._parameters(schema))
        self.by_position: list[Parameter | None] = [
            by_name.get(one) for one in argument_names
        ]
        self._required_count = len(self._required)
        self.written = [one for one in self.by_position if one and one.is_written]
        self.written_positions = frozenset(
            position
            for position, parameter in enumerate(self.by_position)
            if parameter is not None and parameter.is_written
        )
        self.returns: tuple[str, ...] = tuple(str(one.type) for one in schema.returns)
        self._twins: dict[frozenset[int], Operation | None] = {}

    def _parameters(
        self, schema: torch._C.FunctionSchema
    ) -> Iterator[tuple[str, Parameter]]:
        plain = self._base.removeprefix("aten::")
        numbers = torch._C._should_allow_numbers_as_tensors(plain)
        # Others would take a sparse tensor apart by its composite kernel, which may
        # reach for a storage that it has not: the client has done that already.
        name = f"{self._base}.{self._overload}".removesuffix(".")
        sparse = any(
            torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
            for key in ("SparseCPU", "SparseCsrCPU")
        )
        # Autograd hands a way back undefined tensors where the schema says Tensor.
        is_way_back = self._base.endswith("_backward")
        for index, argument in enumerate(schema.arguments):
            is_written = _is_written(argument)
            convert = self._converters.for_type(
                argument.real_type,
                written=is_written,
                reshaped=is_written and self.reshapes,
                numbers=numbers,
                sparse=sparse,
                undefined=is_way_back,
            )
            is_required = not argument.has_default_value()
            if is_required:
                self._required.append(argument.name)
            yield (
                argument.name,
                Parameter(
                    argument.name,
                    index,
                    convert,
                    argument.kwarg_only,
                    is_required,
                    is_written,
                ),
            )

    def bind(self, arguments: Arguments) -> Bound:
        """Check and convert.

        Raises:
            ArgumentInvalid: the arguments break the schema, or a tensor's geometry
                reaches outside its storage.
            HandleUnknown: a storage or generator that does not exist.
            Poisoned: a storage was poisoned by an earlier failure.
        """
        try:
            return self._bind(arguments)
        except NumberForTensor:
            return self._bind_numbers(arguments)

    def _bind(self, arguments: Arguments) -> Bound:
        positional, keywords, _ = self._placed(arguments, is_moving=_nothing_moves)
        return self.function, positional, keywords

    def prepare(self, arguments: Arguments) -> Prepared:
        """Check and convert what is the same in each run of a graph.

        Raises:
            ArgumentInvalid: the arguments break the schema.
        """
        try:
            return self._placed(arguments, is_moving=_moves)
        except NumberForTensor:
            # Another overload, or another tensor, stands for it: bound in each run.
            return None

    def bind_prepared(self, prepared: Prepared, arguments: Arguments) -> Bound:
        """Convert the rest of what ``prepare`` was given; raises as ``bind`` does."""
        if prepared is None:
            return self.bind(arguments)
        positional, keywords, moving = prepared
        positional, keywords = positional.copy(), keywords.copy()
        try:
            for place, parameter, value in moving:
                converted = self._converted(parameter, value)
                if type(place) is int:
                    positional[place] = converted
                else:
                    keywords[parameter.name] = converted
        except NumberForTensor:
            return self._bind_numbers(arguments)
        return self.function, positional, keywords

    def tensors_written(self, arguments: Arguments) -> Iterator[Tensor]:
        """What a call writes, as the client named it."""
        positions = self.written_positions
        return tensors_in(value for at, value in arguments if at in positions)

    def _placed(
        self, arguments: Arguments, is_moving: Callable[[Value], bool]
    ) -> tuple[list[Any], dict[str, Any], list[tuple[int | None, Parameter, Value]]]:
        parameters = self.by_position
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        moving: list[tuple[int | None, Parameter, Value]] = []
        sparse: list[tuple[SparseTensor, Any]] = []
        required = 0
        for position, value in arguments:
            parameter = parameters[position] if position < len(parameters) else None
            if parameter is None:
                raise self._unknown_argument(position)
            name, order, _, is_keyword_only, is_required, _ = parameter
            is_positional = order == len(positional) and not is_keyword_only
            converted: Any = None
            if is_moving(value):
                place = order if is_positional else None
                moving.append((place, parameter, value))
            elif type(value) is SparseTensor:
                # One tensor twice, as in x + x, is one object for some kernels.
                twin = next((made for one, made in sparse if one == value), None)
                converted = self._converted(parameter, value) if twin is None else twin
                sparse.append((value, converted))
            else:
                converted = self._converted(parameter, value)
            required += is_required
            if is_positional:
                positional.append(converted)
            else:
                keywords[name] = converted
        if required != self._required_count:
            raise self._missing_argument(positional, keywords)
        return positional, keywords, moving

    def _converted(self, parameter: Parameter, value: Value) -> Any:
        try:
            return parameter.convert(value)
        except Mismatch as mismatch:
            raise ArgumentInvalid(
                f"{self.name}: argument {parameter.name!r} must be"
                f" {mismatch.expected}, not {described(value)}"
            ) from None
        except ArgumentInvalid as error:
            raise ArgumentInvalid(
                f"{self.name}: argument {parameter.name!r}: {error}"
            ) from None

    def _unknown_argument(self, position: int) -> ArgumentInvalid:
        names = self._argument_names
        which = repr(names[position]) if position < len(names) else f"no. {position}"
        return ArgumentInvalid(
            f"{self.name}: this server's torch {torch.__version__} knows no argument"
            f" {which}"
        )

    def _missing_argument(
        self, positional: list[Any], keywords: dict[str, Any]
    ) -> ArgumentInvalid:
        schema = torch._C._get_schema(self._base, self._overload)
        given = {one.name for one in schema.arguments[: len(positional)]} | set(
            keywords
        )
        missing = ", ".join(one for one in self._required if one not in given)
        return ArgumentInvalid(f"{self.name}: argument {missing} is missing")

    def _bind_numbers(self, arguments: Arguments) -> Bound:
        """Bind a call in which Python numbers stand for tensors.

        torch takes a number there only for a few names. For the others the overload
        that wants a number means the same; where there is none, a tensor without
        dimensions comes closest.
        """
        positions = frozenset(
            position
            for position, value in arguments
            if type(value) is HostTensor and value.is_wrapped
        )
        if positions not in self._twins:
            self._twins[positions] = self._twin(positions)
        twin = self._twins[positions]
        if twin is not None:
            return twin.bind(arguments)
        is_double = any(
            type(value) is Tensor and value.dtype in _DOUBLES for _, value in arguments
        )
        unwrapped = ((at, _unwrapped(value, is_double)) for at, value in arguments)
        return self._bind(tuple(unwrapped))

    def _twin(self, positions: frozenset[int]) -> Operation | None:
        """The overload whose schema differs only in wanting numbers there."""
        wanted = {self._argument_names[position] for position in positions}
        mine = _types(self._base, self._overload)
        for name in _overloads(self._base):
            base, _, overload = name.partition(".")
            theirs = _types(base, overload)
            if theirs.keys() == mine.keys() and all(
                theirs[one] == (_as_number(kind) if one in wanted else kind)
                for one, kind in mine.items()
            ):
                return Operation(name, self._argument_names, self._converters)
        return None


def _nothing_moves(_: Value) -> bool:
    return False


def _moves(value: Value) -> bool:
    """Whether a value is another thing in each run of a graph.

    A host tensor is: an operation may return it, and it is then written.
    """
    if type(value) is list:
        return any(map(_moves, value))
    if type(value) is HostTensor:
        return not value.is_wrapped
    return type(value) in (Tensor, SparseTensor, Generator)


_DOUBLES: Final = frozenset({7, 10})
_NARROWED: Final = {7: 6, 10: 9}
"""Python's numbers are doubles; beside integers they count as the default dtype."""


def _unwrapped(value: Value, is_double: bool) -> Value:
    """A number as a tensor of the dtype that Python numbers have by default."""
    if type(value) is not HostTensor or not value.is_wrapped:
        return value
    if is_double or value.dtype not in _NARROWED:
        return HostTensor(value.dtype, (), value.data)
    code = _NARROWED[value.dtype]
    number = host_tensor(value).reshape(1).to(DTYPES[code])
    return HostTensor(code, (), bytes(number.view(torch.uint8).tolist()))


def _is_written(argument: torch._C.Argument) -> bool:
    alias = argument.alias_info
    return alias is not None and alias.is_write


def _as_number(kind: str) -> str:
    return kind.replace("Tensor", "number")


def _types(base: str, overload: str) -> dict[str, str]:
    schema = torch._C._get_schema(base, overload)
    return {one.name: str(one.real_type) for one in schema.arguments}


@cache
def _overloads(base: str) -> tuple[str, ...]:
    return tuple(sorted(n for n in known_names() if n.partition(".")[0] == base))


def resolve(
    name: str, argument_names: tuple[str, ...], converters: Converters
) -> Operation:
    """The operation of an exact name.

    Raises:
        OperationUnknown: this torch has none, or it is not allowed.
        ArgumentInvalid: an argument is named twice.
    """
    why = refusal(name)
    if why is not None:
        raise OperationUnknown(why)
    if len(set(argument_names)) != len(argument_names):
        raise ArgumentInvalid(f"{name}: an argument is named twice")
    return Operation(name, argument_names, converters)
