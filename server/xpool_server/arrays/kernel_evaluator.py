"""Runs a parsed kernel body over whole arrays with NumPy, by C's rules of types.

Every variable is an array over all indices, or one number. What stands under a
condition is computed for all indices and kept for those where it holds; a loop goes on
until no index is left in it. An index that leads outside of an array is an error where
it is used, not somebody's memory; loops and calls are counted, and end at a limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from xpool_protocol.errors import ArgumentInvalid

from xpool_server.arrays import kernel_tree as tree
from xpool_server.arrays.kernel_functions import (
    ATOMICS,
    FUNCTIONS,
    Array,
    check_integer,
    common,
    converted,
    operated,
    promoted,
    truth,
)
from xpool_server.arrays.kernel_memory import Local, Place, place_in
from xpool_server.arrays.kernel_tree import TYPES, Unsupported

MAX_ROUNDS: Final = 1 << 18
"""Rounds of loops and calls of functions in one run."""
MAX_WORK: Final = 1 << 36
"""The same, times the indices of the run."""
MAX_CALLS: Final = 16
_NAMES: Final = {"M_PI": np.float64(np.pi), "NAN": np.float32(np.nan)} | dict.fromkeys(
    ("INFINITY", "HUGE_VALF"), np.float32(np.inf)
)


@dataclass(slots=True)
class _Frame:
    """One function's names, innermost block last, and what it has returned."""

    scopes: list[dict[str, Any]]
    returned: Array = np.False_
    value: Array = None
    kind: Any = None


@dataclass(slots=True)
class _Loop:
    """A loop, or a ``switch``, which takes part in ``break`` alone."""

    continued: Array = field(default=np.False_)
    """The indices that have begun the next round early."""
    broken: Array = field(default=np.False_)
    """The indices that have left a ``switch``."""
    is_switch: bool = False


class Evaluator:
    """The variables of one run."""

    def __init__(
        self,
        shape: tuple[int, ...],
        types: Mapping[str, np.dtype[Any]],
        variables: dict[str, Array],
        raw: Mapping[str, Array],
        preamble: tree.Preamble | None = None,
    ) -> None:
        """Begin a run.

        Args:
            shape: of all indices.
            types: what the kernel's letters mean.
            variables: values by name, arrays of ``shape`` or numbers.
            raw: arrays that are indexed.
            preamble: functions and constants that the body may use.
        """
        self.shape, self._raw = shape, raw
        preamble = preamble or tree.Preamble()
        self._types = {**TYPES, **types}
        for new, old in preamble.aliases:
            self._types[new] = self._type(old)
        self.variables = variables
        self.sizes = {"_ind": math.prod(shape)}
        """What ``size()`` of the indexers is."""
        self._mask: Array = np.True_
        self._constants: dict[str, Any] = {}
        self._frame = _Frame([self._constants])
        self._loops: list[_Loop] = []
        self._depth = self._rounds = 0
        self._functions = {
            (one.name, len(one.parameters)): one for one in preamble.functions
        }
        for one in preamble.constants:
            self._declare(one)
        self._frame = _Frame([self._constants, variables])

    # ---- statements

    def run(self, statements: tuple[tree.Statement, ...]) -> None:
        """Execute statements for the indices of the mask; those that are left stay."""
        for statement in statements:
            if not np.any(self._mask):
                return
            match statement:
                case tree.Declare():
                    self._declare(statement)
                case tree.Evaluate():
                    self.value(statement.value, is_used=False)
                case tree.Block():
                    self._block(statement)
                case tree.If():
                    self._if(statement)
                case tree.Loop():
                    self._loop(statement)
                case tree.Switch():
                    self._switch(statement)
                case tree.Leave():
                    self._leave(statement)

    def _declare(self, statement: tree.Declare) -> None:
        made: Any
        if statement.type_name == tree.AUTO and statement.value is not None:
            made = self.value(statement.value)
            if not isinstance(made, np.ndarray | np.generic):
                raise Unsupported("a kernel's `auto` is for numbers on this device")
            self._frame.scopes[-1][statement.name] = made.copy()
            return
        dtype = self._type(statement.type_name)
        if statement.size is not None:
            made = Local.of(statement.size, self.shape, dtype)
            for at, item in enumerate(statement.items):
                made.store(np.int32(at), converted(self.value(item), dtype), np.True_)
        elif statement.value is None:
            made = np.zeros((), dtype)[()]
        else:
            made = converted(self.value(statement.value), dtype)
        self._frame.scopes[-1][statement.name] = made

    def _block(self, statement: tree.Block) -> None:
        self._frame.scopes.append({})
        self.run(statement.body)
        self._frame.scopes.pop()

    def _if(self, statement: tree.If) -> None:
        condition = truth(self.value(statement.condition))
        before, left = self._mask, np.False_
        for part, holds in ((statement.yes, condition), (statement.no, ~condition)):
            self._mask = before & holds
            self.run(part)
            left = left | self._mask
        self._mask = left

    def _loop(self, statement: tree.Loop) -> None:
        before, loop = self._mask, _Loop()
        self._loops.append(loop)
        self._frame.scopes.append({})
        self.run(statement.start)
        is_tested = statement.is_tested_first
        while True:
            self._count()
            if is_tested and statement.condition is not None:
                self._mask = self._mask & truth(self.value(statement.condition))
            is_tested = True
            if not np.any(self._mask):
                break
            loop.continued = np.False_
            self.run(statement.body)
            self._mask = self._mask | loop.continued
            if np.any(self._mask):
                for one in statement.step:
                    self.value(one, is_used=False)
        self._frame.scopes.pop()
        self._loops.pop()
        self._mask = before & ~self._frame.returned

    def _switch(self, statement: tree.Switch) -> None:
        before, place = self._mask, _Loop(is_switch=True)
        value = self.value(statement.value)
        check_integer(value)
        value = converted(value, promoted(value.dtype))
        enters: list[Array] = []
        known: Array = np.False_
        for case in statement.cases:
            holds: Array = np.False_
            if case.label is not None:
                label = self.value(case.label)
                check_integer(label)
                holds = value == converted(label, value.dtype)
            if np.any(holds & known):
                raise ArgumentInvalid("a kernel's switch has a case twice")
            known = known | holds
            enters.append(holds)
        self._loops.append(place)
        self._frame.scopes.append({})
        self._mask = np.False_
        for case, holds in zip(statement.cases, enters, strict=True):
            starts = ~known if case.label is None else holds
            self._mask = self._mask | (before & starts)
            self.run(case.body)
        self._frame.scopes.pop()
        self._loops.pop()
        has_default = any(one.label is None for one in statement.cases)
        passed = np.False_ if has_default else before & ~known
        self._mask = self._mask | place.broken | passed

    def _leave(self, statement: tree.Leave) -> None:
        loops = [
            one for one in self._loops if statement.kind == "break" or not one.is_switch
        ]
        if statement.kind == "return" or not loops:
            self._return(statement)
        elif statement.kind == "continue":
            loops[-1].continued = loops[-1].continued | self._mask
        elif loops[-1].is_switch:
            loops[-1].broken = loops[-1].broken | self._mask
        self._mask = np.False_

    def _return(self, statement: tree.Leave) -> None:
        frame = self._frame
        if statement.value is not None:
            if frame.kind is None:
                raise ArgumentInvalid("a kernel returns a value where there is none")
            value = converted(self.value(statement.value), frame.kind)
            chosen: Array = np.where(self._mask, value, frame.value)
            frame.value = chosen[()]
        frame.returned = frame.returned | self._mask

    def _count(self) -> None:
        self._rounds += 1
        work = self._rounds * max(math.prod(self.shape), 1)
        if self._rounds > MAX_ROUNDS or work > MAX_WORK:
            raise Unsupported(
                "a kernel's loops take too long for this device: run the program on a"
                " slice of a CUDA device"
            )

    # ---- expressions

    def value(self, node: tree.Node, *, is_used: bool = True) -> Array:  # noqa: C901
        """The value of an expression, with its C type.

        Args:
            node: the expression.
            is_used: not, if it stands alone: then it may have no value.
        """
        match node:
            case tree.Number():
                return node.dtype.type(node.value)
            case tree.Name():
                return self._variable(node.name)
            case tree.Unary():
                return self._unary(node)
            case tree.Binary():
                return self._binary(node)
            case tree.Choice():
                return self._choice(node)
            case tree.Call():
                return self._call(node, is_used)
            case tree.Cast():
                return self._cast(node)
            case tree.Item():
                return self._place(node).load()
            case tree.Assign():
                return self._assign(node)
            case tree.Step():
                return self._step(node)
            case tree.Atomic():
                return self._atomic(node, is_used)
            case tree.Part():
                return self._part(node)
            case tree.Rank():
                return np.int32(self._raw_array(node.name).ndim)
            case tree.Size() | tree.Extent():
                return self._extent(node)

    def _unary(self, node: tree.Unary) -> Array:
        operand = self.value(node.operand)
        if node.sign == "!":
            return ~truth(operand)
        operand = converted(operand, promoted(operand.dtype))
        if node.sign == "~":
            check_integer(operand)
            return ~operand
        return -operand if node.sign == "-" else operand

    def _binary(self, node: tree.Binary) -> Array:
        left = self.value(node.left)
        if node.sign in ("&&", "||"):
            left = truth(left)
            right = self._under(left if node.sign == "&&" else ~left, node.right)
            right = truth(right)
            return left & right if node.sign == "&&" else left | right
        return operated(node.sign, left, self.value(node.right))

    def _choice(self, node: tree.Choice) -> Array:
        condition = truth(self.value(node.condition))
        yes = self._under(condition, node.yes)
        no = self._under(~condition, node.no)
        kind = yes.dtype if yes.dtype == no.dtype else common(yes.dtype, no.dtype)
        chosen: Array = np.where(condition, converted(yes, kind), converted(no, kind))
        return chosen[()]

    def _cast(self, node: tree.Cast) -> Array:
        dtype = self._type(node.type_name)
        found = converted(self.value(node.operand), dtype)
        if node.imaginary is None:
            return found
        if dtype.kind != "c":
            raise ArgumentInvalid(f"{node.type_name} in a kernel takes one number")
        imaginary = converted(self.value(node.imaginary), dtype)
        return np.asarray(found + dtype.type(1j) * imaginary).astype(dtype)[()]

    def _part(self, node: tree.Part) -> Array:
        operand = self.value(node.operand)
        if operand.dtype.kind != "c":
            raise ArgumentInvalid(f"a kernel takes {node.name} of what is not complex")
        return np.asarray(getattr(operand, node.name))[()]

    def _extent(self, node: tree.Size | tree.Extent) -> Array:
        if isinstance(node, tree.Size):
            if node.name in self.sizes:
                return np.int64(self.sizes[node.name])
            return np.int64(self._raw_array(node.name).size)
        shape = self._raw_array(node.name).shape
        axis = self.value(node.axis)
        if np.ndim(axis) or not 0 <= axis < len(shape):
            raise IndexError(f"a kernel asks for an axis that {node.name} lacks")
        return np.int64(shape[int(axis)])

    def _assign(self, node: tree.Assign) -> Array:
        value = self.value(node.value)
        place = self._place(node.target)
        if node.sign:
            value = operated(node.sign, place.load(), value)
        return place.store(value)

    def _step(self, node: tree.Step) -> Array:
        place = self._place(node.target)
        before = place.load()
        after = place.store(operated(node.sign[0], before, np.int32(1)))
        return after if node.is_prefix else before

    def _atomic(self, node: tree.Atomic, is_used: bool) -> Array:
        if is_used:
            raise Unsupported(f"a kernel uses what {node.name} returns")
        value = self.value(node.value)
        array = self._part_of(node) if node.part else None
        self._place(node.target, array).add(ATOMICS[node.name], value)
        return np.int32(0)

    def _part_of(self, node: tree.Atomic) -> Array:
        """The real or the imaginary parts of a raw array, in their places.

        Raises:
            Unsupported: it is taken for another type than that of its parts.
        """
        array = self._raw_array(node.target.name)
        parts = np.empty(0, array.dtype).real.dtype
        if array.dtype.kind != "c" or self._type(node.part_type) != parts:
            raise Unsupported(
                f"a kernel takes {array.dtype} for an array of {node.part_type}: run"
                " the program on a slice of a CUDA device"
            )
        return array.real if node.part == "real" else array.imag

    # ---- functions

    def _call(self, node: tree.Call, is_used: bool) -> Array:
        own = self._functions.get((node.name, len(node.arguments)))
        if own is not None:
            return self._call_own(own, node, is_used)
        function = FUNCTIONS.get(node.name.removeprefix("std::"))
        if function is None:
            raise Unsupported(
                f"a kernel calls {node.name}, which this device does not know: run the"
                " program on a slice of a CUDA device"
            )
        arguments = [self.value(one) for one in node.arguments]
        try:
            return np.asarray(function(*arguments))[()]
        except TypeError as error:
            raise ArgumentInvalid(f"{node.name} in a kernel: {error}") from error

    def _call_own(self, own: tree.Function, node: tree.Call, is_used: bool) -> Array:
        self._count()
        if self._depth >= MAX_CALLS:
            raise Unsupported(f"{own.name} calls itself too deeply for this device")
        given = [
            self._given(own, parameter, argument)
            for parameter, argument in zip(own.parameters, node.arguments, strict=True)
        ]
        before = self._types, self._frame, self._loops, self._mask
        self._types = {**self._types, **_deduced(own, [value for _, value in given])}
        scope = {
            parameter.name: self._passed(own, parameter, value)
            for parameter, (_, value) in zip(own.parameters, given, strict=True)
        }
        kind = None if own.type_name == "void" else self._type(own.type_name)
        nothing = None if kind is None else np.zeros((), kind)[()]
        self._frame = _Frame([self._constants, scope], value=nothing, kind=kind)
        self._loops, self._depth = [], self._depth + 1
        self.run(own.body)
        found = self._frame.value
        self._types, self._frame, self._loops, self._mask = before
        self._depth -= 1
        for parameter, (place, _) in zip(own.parameters, given, strict=True):
            if place is not None:
                place.store(scope[parameter.name])
        if found is None and is_used:
            raise ArgumentInvalid(f"{own.name} in a kernel returns nothing")
        return np.int32(0) if found is None else found

    def _given(
        self, own: tree.Function, parameter: tree.Parameter, argument: tree.Node
    ) -> tuple[Place | None, Any]:
        """Where an argument is to be put back, and its value."""
        if not parameter.kind:
            return None, self.value(argument)
        if isinstance(argument, tree.Name):
            found = self._find(argument.name)
            if isinstance(found, Local) == (parameter.kind == "*"):
                if isinstance(found, Local):
                    return None, found
                place = self._place(argument)
                return place, place.load()
        elif isinstance(argument, tree.Item) and parameter.kind == "&":
            place = self._place(argument)
            return place, place.load()
        raise Unsupported(
            f"{own.name} in a kernel takes a reference to a variable, or an array that"
            " the kernel declares"
        )

    def _passed(self, own: tree.Function, parameter: tree.Parameter, value: Any) -> Any:
        dtype = self._type(parameter.type_name)
        if not isinstance(value, Local):
            return converted(value, dtype)
        if value.values.dtype != dtype:
            raise ArgumentInvalid(
                f"{own.name} in a kernel takes an array of {dtype}, not of"
                f" {value.values.dtype}"
            )
        return value

    # ---- parts

    def _under(self, condition: Array, node: tree.Node) -> Array:
        before, self._mask = self._mask, self._mask & condition
        try:
            return self.value(node)
        finally:
            self._mask = before

    def _place(self, node: tree.Name | tree.Item, array: Array = None) -> Place:
        """Where an expression that can be assigned to lies.

        Args:
            node: the expression.
            array: what is indexed instead of the raw array of that name.
        """
        if isinstance(node, tree.Name):
            self._variable(node.name)
            return place_in(self._scope_of(node.name), node.name, self._mask)
        found = self._find(node.name)
        if isinstance(found, Local):
            index = self.value(node.index)
            check_integer(index)
            return found.place(node.name, index, self._mask)
        if array is None:
            array = self._raw_array(node.name)
        at = self._find(node.index.name) if isinstance(node.index, tree.Name) else None
        if isinstance(at, Local):
            return Place.of_axes(node.name, array, at, self._mask, self.shape)
        index = self.value(node.index)
        check_integer(index)
        return Place.of_raw(node.name, array, index, self._mask, self.shape)

    def _scope_of(self, name: str) -> dict[str, Any]:
        return next(one for one in reversed(self._frame.scopes) if name in one)

    def _find(self, name: str) -> Any:
        for scope in reversed(self._frame.scopes):
            if name in scope:
                return scope[name]
        return None

    def _variable(self, name: str) -> Array:
        found = self._find(name)
        if isinstance(found, Local):
            raise Unsupported(f"a kernel uses the array {name} without an index")
        if found is not None:
            return found
        if name in self._raw:
            raise Unsupported(f"a kernel uses the raw array {name} without an index")
        if name in _NAMES:
            return _NAMES[name]
        raise ArgumentInvalid(f"a kernel uses {name}, which it has not declared")

    def _raw_array(self, name: str) -> Array:
        found = self._raw.get(name)
        if found is None:
            raise Unsupported(f"a kernel indexes {name}, which is no raw array")
        return found

    def _type(self, name: str) -> np.dtype[Any]:
        found = self._types.get(name.removesuffix(tree.VALUE_TYPE))
        if found is not None and name.endswith(tree.VALUE_TYPE):
            is_complex = found.kind == "c"
            found = np.empty(0, found).real.dtype if is_complex else None
        if found is None:
            raise ArgumentInvalid(f"a kernel's type {name} is not known")
        return found


def _deduced(own: tree.Function, values: list[Any]) -> dict[str, np.dtype[Any]]:
    """What a template's letters mean in a call.

    Raises:
        ArgumentInvalid: arguments of one letter have different types.
    """
    found: dict[str, np.dtype[Any]] = {}
    for parameter, value in zip(own.parameters, values, strict=True):
        if parameter.type_name in own.letters:
            dtype = value.values.dtype if isinstance(value, Local) else value.dtype
            known = found.setdefault(parameter.type_name, dtype)
            if known != dtype:
                raise ArgumentInvalid(
                    f"{own.name} in a kernel: {parameter.type_name} is {known} and"
                    f" {dtype}"
                )
    return found
