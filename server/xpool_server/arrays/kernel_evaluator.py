"""Runs a parsed kernel body over whole arrays with NumPy, by C's rules of types.

Every variable is an array over all indices, or one number. What stands under a
condition is computed for all indices and kept for those where it holds; an index that
leads outside of a raw array is an error where it is used, not somebody's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from xpool_protocol.errors import ArgumentInvalid

from xpool_server.arrays import kernel_parser as tree
from xpool_server.arrays.kernel_parser import TYPES, Unsupported

Array = Any

_INT = np.dtype(np.int32)
_BOOL = np.dtype(np.bool_)
_DOUBLE = np.dtype(np.float64)
_FLOAT = np.dtype(np.float32)


def promoted(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What an operand is before it is computed with: C's integer promotion."""
    if dtype.kind in "biu" and dtype.itemsize < 4:
        return _INT
    return _FLOAT if dtype == np.float16 else dtype


def common(left: np.dtype[Any], right: np.dtype[Any]) -> np.dtype[Any]:
    """The type of two operands' result: C's usual arithmetic conversions.

    >>> str(common(np.dtype("i4"), np.dtype("f4"))), str(common(TYPES["bool"], _INT))
    ('float32', 'int32')
    >>> str(common(np.dtype("i4"), np.dtype("u4")))
    'uint32'
    """
    left, right = promoted(left), promoted(right)
    if "c" in (left.kind, right.kind):
        sizes = [one.itemsize // (2 if one.kind == "c" else 1) for one in (left, right)]
        floats = [
            size
            for one, size in zip((left, right), sizes, strict=True)
            if one.kind in "cf"
        ]
        return np.dtype(np.complex128 if max(floats) > 4 else np.complex64)
    if "f" in (left.kind, right.kind):
        return max(
            (one for one in (left, right) if one.kind == "f"), key=lambda d: d.itemsize
        )
    if left.itemsize != right.itemsize:
        return max(left, right, key=lambda one: one.itemsize)
    return left if left.kind == "u" else right


def _floating(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one or more floats; integers are doubles, as in CUDA."""

    def run(*operands: Array) -> Array:
        kind = _FLOAT if operands[0].dtype == np.float16 else operands[0].dtype
        for one in operands[1:]:
            kind = common(kind, one.dtype)
        if kind.kind in "biu":
            kind = _DOUBLE
        return function(*(one.astype(kind) for one in operands))

    return run


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*operands: Array) -> Array:
        kind = operands[0].dtype
        for one in operands[1:]:
            kind = kind if kind == one.dtype else common(kind, one.dtype)
        return function(*(one.astype(kind) for one in operands))

    return run


def _special(name: str) -> Callable[..., Any]:
    def run(*operands: Array) -> Array:
        import scipy.special

        return getattr(scipy.special, name)(*operands)

    return run


_FLOATING: Final[dict[str, Callable[..., Any]]] = {
    **{
        name: getattr(np, name)
        for name in (
            *("sqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"),
            *("sin", "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil"),
            *("trunc", "rint", "fabs", "cbrt", "hypot", "copysign", "nextafter"),
            *("fmod", "fmin", "fmax"),
        )
    },
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
    "pow": np.power,
    "round": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "signbit": np.signbit,
    "fma": lambda x, y, z: x * y + z,
    **{
        name: _special(theirs)
        for name, theirs in {
            "erf": "erf",
            "erfc": "erfc",
            "tgamma": "gamma",
            "lgamma": "gammaln",
            "normcdf": "ndtr",
            "normcdfinv": "ndtri",
            "erfinv": "erfinv",
        }.items()
    },
}
FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **{name: _floating(function) for name, function in _FLOATING.items()},
    **{
        f"{name}f": lambda *given, run=function: run(*(g.astype(_FLOAT) for g in given))
        for name, function in _FLOATING.items()
    },
    "min": _same(np.minimum),
    "max": _same(np.maximum),
    "abs": _same(np.abs),
    "conj": _same(np.conj),
    "real": _same(np.real),
    "imag": _same(np.imag),
}
"""By the names that kernels write; ``std::`` in front changes nothing."""


def _divide(left: Array, right: Array) -> Array:
    if left.dtype.kind not in "iu":
        return left / right
    safe = np.where(right == 0, right.dtype.type(1), right)
    found = left // safe
    if left.dtype.kind == "i":
        # C rounds towards zero.
        found = found + ((left % safe != 0) & ((left < 0) != (safe < 0)))
    return found.astype(left.dtype)


def _remainder(left: Array, right: Array) -> Array:
    if left.dtype.kind not in "iu":
        raise Unsupported("% is for integers: use fmod")
    return (left - _divide(left, right) * right).astype(left.dtype)


_ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _remainder,
}
_BITS: Final[dict[str, Callable[..., Any]]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: np.left_shift(a, b),
    ">>": lambda a, b: np.right_shift(a, b),
}
_COMPARISONS: Final[dict[str, Callable[..., Any]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


class Evaluator:
    """The variables of one run."""

    def __init__(
        self,
        shape: tuple[int, ...],
        types: Mapping[str, np.dtype[Any]],
        variables: dict[str, Array],
        raw: Mapping[str, Array],
    ) -> None:
        """Begin a run.

        Args:
            shape: of all indices.
            types: what the kernel's letters mean.
            variables: values by name, arrays of ``shape`` or numbers.
            raw: arrays that are indexed.
        """
        self._shape, self._raw = shape, raw
        self._types = {**TYPES, **types}
        self.variables = variables
        self._mask: Array = np.True_

    # ---- statements

    def run(self, statements: tuple[tree.Statement, ...]) -> None:
        """Execute statements."""
        for statement in statements:
            match statement:
                case tree.Declare():
                    self._declare(statement)
                case tree.Assign():
                    self._assign(statement.target, self.value(statement.value))
                case tree.If():
                    self._if(statement)

    def _declare(self, statement: tree.Declare) -> None:
        dtype = self._type(statement.type_name)
        if statement.value is None:
            value = np.zeros((), dtype)[()]
        else:
            value = converted(self.value(statement.value), dtype)
        self.variables[statement.name] = value

    def _assign(self, target: tree.Name | tree.Item, value: Array) -> None:
        if isinstance(target, tree.Item):
            self._store(target, value)
            return
        before = self._variable(target.name)
        value = converted(value, before.dtype)
        if self._mask is not np.True_:
            value = np.where(self._mask, value, before)
        self.variables[target.name] = value

    def _store(self, target: tree.Item, value: Array) -> None:
        array = self._raw_array(target.name)
        index = np.broadcast_to(self._index(target, array), self._shape)
        value = np.broadcast_to(converted(value, array.dtype), self._shape)
        mask = np.broadcast_to(self._mask, self._shape)
        array.flat[index[mask]] = value[mask]

    def _if(self, statement: tree.If) -> None:
        condition = self._truth(self.value(statement.condition))
        before = self._mask
        for part, holds in ((statement.yes, condition), (statement.no, ~condition)):
            self._mask = before & holds
            self.run(part)
        self._mask = before

    # ---- expressions

    def value(self, node: tree.Node) -> Array:
        """The value of an expression, with its C type."""
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
                return self._call(node)
            case tree.Cast():
                dtype = self._type(node.type_name)
                return converted(self.value(node.operand), dtype)
            case tree.Item():
                array = self._raw_array(node.name)
                index = np.asarray(self._index(node, array))
                return array.flat[index.ravel()].reshape(index.shape)[()]
            case tree.Size():
                size = (
                    np.prod(self._shape, dtype=np.int64)
                    if node.name == "_ind"
                    else self._raw_array(node.name).size
                )
                return np.int64(size)

    def _unary(self, node: tree.Unary) -> Array:
        operand = self.value(node.operand)
        if node.sign == "!":
            return ~self._truth(operand)
        operand = converted(operand, promoted(operand.dtype))
        if node.sign == "~":
            _check_integer(operand)
            return ~operand
        return -operand if node.sign == "-" else operand

    def _binary(self, node: tree.Binary) -> Array:
        sign = node.sign
        left = self.value(node.left)
        if sign in ("&&", "||"):
            left = self._truth(left)
            right = self._under(left if sign == "&&" else ~left, node.right)
            right = self._truth(right)
            return left & right if sign == "&&" else left | right
        right = self.value(node.right)
        if sign in ("<<", ">>"):
            kind = promoted(left.dtype)
            right = converted(right, kind)
        else:
            kind = common(left.dtype, right.dtype)
            right = converted(right, kind)
        left = converted(left, kind)
        if sign in _COMPARISONS:
            return _COMPARISONS[sign](left, right)
        if sign in _BITS:
            _check_integer(left)
            return _BITS[sign](left, right).astype(kind)
        return np.asarray(_ARITHMETIC[sign](left, right)).astype(kind)[()]

    def _choice(self, node: tree.Choice) -> Array:
        condition = self._truth(self.value(node.condition))
        yes = self._under(condition, node.yes)
        no = self._under(~condition, node.no)
        kind = yes.dtype if yes.dtype == no.dtype else common(yes.dtype, no.dtype)
        chosen: Array = np.where(condition, converted(yes, kind), converted(no, kind))
        return chosen[()]

    def _call(self, node: tree.Call) -> Array:
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

    # ---- parts

    def _under(self, condition: Array, node: tree.Node) -> Array:
        before, self._mask = self._mask, self._mask & condition
        try:
            return self.value(node)
        finally:
            self._mask = before

    def _index(self, node: tree.Item, array: Array) -> Array:
        index = self.value(node.index)
        _check_integer(index)
        if self._mask is not np.True_:
            index = np.where(self._mask, index, index.dtype.type(0))
        is_outside = index.size and (index.min() < 0 or index.max() >= array.size)
        if is_outside and (array.size or np.any(self._mask)):
            raise IndexError(
                f"a kernel's index leads outside of {node.name}, which has"
                f" {array.size} items"
            )
        return index

    def _variable(self, name: str) -> Array:
        found = self.variables.get(name)
        if found is not None:
            return found
        if name in self._raw:
            raise Unsupported(f"a kernel uses the raw array {name} without an index")
        if name == "M_PI":
            return np.float64(np.pi)
        raise ArgumentInvalid(f"a kernel uses {name}, which it has not declared")

    def _raw_array(self, name: str) -> Array:
        found = self._raw.get(name)
        if found is None:
            raise Unsupported(f"a kernel indexes {name}, which is no raw array")
        return found

    def _type(self, name: str) -> np.dtype[Any]:
        return self._types[name]

    def _truth(self, value: Array) -> Array:
        return np.asarray(value).astype(_BOOL)[()]


def converted(value: Array, dtype: np.dtype[Any]) -> Array:
    """A value as another type, by C's rules."""
    if value.dtype == dtype:
        return value
    if value.dtype.kind == "c" and dtype.kind != "c":
        raise Unsupported("a kernel converts a complex number to a real one")
    return np.asarray(value).astype(dtype)[()]


def _check_integer(value: Array) -> None:
    if value.dtype.kind not in "biu":
        raise ArgumentInvalid("a kernel computes with bits of what is no integer")
