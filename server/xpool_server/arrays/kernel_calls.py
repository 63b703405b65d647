"""``ElementwiseKernel`` and ``ReductionKernel`` on a CPU: C's expressions in NumPy."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from xpool_server.arrays.kernel_evaluator import Evaluator
from xpool_server.arrays.kernel_functions import converted
from xpool_server.arrays.kernel_options import preamble_of
from xpool_server.arrays.kernel_parser import Parser
from xpool_server.arrays.kernel_tokens import Macro
from xpool_server.arrays.kernel_tree import (
    TYPES,
    Loop,
    Number,
    Preamble,
    Unsupported,
)

MAX_SOURCE: Final = 16 << 10
_TYPE_OF_REDUCTION: Final = "_type_reduce"
"""What CuPy calls the type that a reduction computes with."""
_PARAMETER: Final = re.compile(
    r"(?P<words>(?:(?:raw|const|__restrict__)\s+)*)(?P<type>\w+)\s+(?P<name>[A-Za-z]\w*)"
)


class Parameter(NamedTuple):
    """One parameter of a kernel."""

    type_name: str
    name: str
    is_raw: bool


@functools.lru_cache(256)
def parameters(text: str) -> tuple[Parameter, ...]:
    """The parameters that a kernel declares.

    >>> parameters("T x, raw float32 y")[1]
    Parameter(type_name='float32', name='y', is_raw=True)
    """
    found: list[Parameter] = []
    for one in text.split(","):
        if not one.strip():
            continue
        match = _PARAMETER.fullmatch(one.strip())
        if match is None:
            raise Unsupported(f"a kernel's parameter `{one.strip()}` is not understood")
        kind = match["type"]
        if len(kind) > 1 and kind not in TYPES:
            raise ValueError(f"a kernel's parameter has the unknown type {kind}")
        found.append(Parameter(kind, match["name"], "raw" in match["words"].split()))
    return tuple(found)


def _check_length(*texts: str) -> None:
    if sum(map(len, texts)) > MAX_SOURCE:
        raise Unsupported("a kernel's source is too long for this device")


@functools.lru_cache(256)
def _preamble(text: str, letters: frozenset[str]) -> tuple[Preamble, dict[str, Macro]]:
    """What a preamble declares, and its macros; nobody changes them."""
    _check_length(text)
    macros: dict[str, Macro] = {}
    return Parser(text, letters, macros).preamble(), macros


def _parser(text: str, letters: frozenset[str], preamble: str) -> Parser:
    declared, macros = _preamble(preamble, letters)
    return Parser(text, letters | {new for new, _ in declared.aliases}, dict(macros))


@functools.lru_cache(256)
def _statements(text: str, letters: frozenset[str], preamble: str = "") -> Any:
    _check_length(text)
    return _parser(text, letters, preamble).statements()


@functools.lru_cache(256)
def _expression(text: str, letters: frozenset[str], preamble: str = "") -> Any:
    _check_length(text)
    return _parser(text, letters, preamble).expression()


def _resolve(
    declared: tuple[Parameter, ...], given: list[Any]
) -> dict[str, np.dtype[Any]]:
    """What the letters mean, from the arrays and then the numbers that were given."""
    types: dict[str, np.dtype[Any]] = {}
    for parameter, value in zip(declared, given, strict=False):
        if not isinstance(value, np.ndarray | np.generic):
            continue
        wanted = TYPES.get(parameter.type_name) or types.get(parameter.type_name)
        is_array = isinstance(value, np.ndarray)
        if wanted is None:
            types[parameter.type_name] = value.dtype
        elif is_array and wanted != value.dtype:
            raise TypeError(
                f"Type is mismatched. {parameter.name} {value.dtype} {wanted}"
            )
    for parameter, value in zip(declared, given, strict=False):
        if parameter.type_name not in TYPES and value is not None:
            types.setdefault(parameter.type_name, np.asarray(value).dtype)
    return types


def _dtype_of(parameter: Parameter, types: dict[str, np.dtype[Any]]) -> Any:
    found = TYPES.get(parameter.type_name) or types.get(parameter.type_name)
    if found is None:
        raise ValueError(f"Type {parameter.type_name} of {parameter.name} is unknown")
    return found


class _Given(NamedTuple):
    """Arguments of a call, sorted out."""

    types: dict[str, np.dtype[Any]]
    shape: tuple[int, ...]
    variables: dict[str, Any]
    raw: dict[str, Any]


def _given(
    declared: tuple[Parameter, ...],
    given: list[Any],
    outputs: list[Any],
    size: Any = None,
    *,
    is_reduced: bool = False,
) -> _Given:
    types = _resolve(declared, [*given, *outputs])
    shaping = given if is_reduced else [*given, *outputs]
    arrays = [
        np.shape(value)
        for parameter, value in zip(declared, shaping, strict=False)
        if not parameter.is_raw and isinstance(value, np.ndarray)
    ]
    if size is not None:
        if any(arrays):
            raise ValueError(
                "Specified `size` can be used only if all of the ndarray"
                " arguments are `raw`."
            )
        shape: tuple[int, ...] = (int(size),)
    elif arrays:
        shape = np.broadcast_shapes(*arrays)
    elif any(isinstance(value, np.ndarray) for value in given):
        raise ValueError("Loop size is undecided.")
    else:
        shape = ()
    variables: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    for parameter, value in zip(declared, given, strict=False):
        dtype = _dtype_of(parameter, types)
        if parameter.is_raw:
            if not isinstance(value, np.ndarray):
                raise TypeError(f"raw parameter {parameter.name} takes an array")
            raw[parameter.name] = value
        else:
            variables[parameter.name] = converted(np.asarray(value)[()], dtype)
    return _Given(types, shape, variables, raw)


def elementwise(
    in_params: str,
    out_params: str,
    operation: str,
    arguments: Any,
    size: Any = None,
    out: Any = (),
    **extras: Any,
) -> Any:
    """Run an elementwise kernel; its output, or a tuple of several."""
    inputs, outputs = parameters(in_params), parameters(out_params)
    given, outs = list(arguments), list(out)
    if len(given) != len(inputs) or len(outs) not in (0, len(outputs)):
        raise TypeError(
            f"Wrong number of arguments: {len(inputs)} or"
            f" {len(inputs) + len(outputs)} are taken, {len(given) + len(outs)} were"
            " given"
        )
    letters = frozenset(
        one.type_name for one in (*inputs, *outputs) if one.type_name not in TYPES
    )
    preamble = preamble_of(extras)
    body = _statements(operation, letters, preamble)
    before = _statements(str(extras.get("loop_prep") or ""), letters, preamble)
    after = _statements(str(extras.get("after_loop") or ""), letters, preamble)
    sorted_out = _given((*inputs, *outputs), given, outs, size)
    shape = sorted_out.shape
    variables, raw = sorted_out.variables, sorted_out.raw
    if not outs:
        if size is None and any(one.is_raw for one in outputs):
            raise ValueError("Output array size is Undecided")
        outs = [np.empty(shape, _dtype_of(one, sorted_out.types)) for one in outputs]
    for parameter, out in zip(outputs, outs, strict=True):
        if not isinstance(out, np.ndarray):
            raise TypeError("an output of a kernel is an array")
        if parameter.is_raw:
            raw[parameter.name] = out
        else:
            if out.shape != shape:
                raise ValueError(f"Out shape is mismatched: {out.shape} {shape}")
            variables[parameter.name] = out.copy()
    count = math.prod(shape)
    variables.setdefault("i", np.arange(count, dtype=np.int64).reshape(shape))
    with np.errstate(all="ignore"):
        declared = _preamble(preamble, letters)[0]
        run = Evaluator(shape, sorted_out.types, variables, raw, declared)
        if after:
            _run_threads(run, before, body, after)
        else:
            run.run((*before, *body))
    for parameter, out in zip(outputs, outs, strict=True):
        if not parameter.is_raw:
            out[...] = run.variables[parameter.name]
    return outs[0] if len(outs) == 1 else tuple(outs)


def _run_threads(run: Evaluator, before: Any, body: Any, after: Any) -> None:
    """What each thread does before and after its loop: here it has one index.

    How many threads there are CUDA's launch decides, too: source that counts on it is
    none that a program can rely on. What follows the loop sees no item of an argument.
    """
    items = dict(run.variables)
    once = Number(0, np.dtype(np.int32))
    run.run((*before, Loop((), once, (), body, is_tested_first=False)))
    items = {name: run.variables.pop(name) for name in items}
    if all(run.shape):
        run.run(after)
    run.variables.update(items)


def reduction(
    in_params: str,
    out_params: str,
    map_expr: str,
    reduce_expr: str,
    post_map_expr: str,
    identity: Any,
    arguments: Any,
    axis: Any = None,
    keepdims: bool = False,
    reduce_type: str | None = None,
    out: Any = None,
    **extras: Any,
) -> Any:
    """Run a reduction kernel; its one output."""
    preamble = preamble_of(extras)
    inputs, outputs = parameters(in_params), parameters(out_params)
    if len(outputs) != 1:
        raise Unsupported("this device reduces to one output")
    if len(arguments) != len(inputs):
        raise TypeError(
            f"Wrong number of arguments: {len(inputs)} are taken, {len(arguments)}"
            " were given"
        )
    letters = frozenset(
        one.type_name for one in (*inputs, *outputs) if one.type_name not in TYPES
    )
    outs = [] if out is None else [out]
    given = _given((*inputs, *outputs), list(arguments), outs, is_reduced=True)
    types, (output,) = given.types, outputs
    result_dtype = _dtype_of(output, types)
    kind = result_dtype
    if reduce_type is not None:
        kind = TYPES.get(reduce_type) or types.get(reduce_type)
        if kind is None:
            raise ValueError(f"reduce_type {reduce_type} is unknown")
    types[_TYPE_OF_REDUCTION] = kind
    letters |= {_TYPE_OF_REDUCTION}
    for parameter, value in zip(inputs, arguments, strict=True):
        if not parameter.is_raw and isinstance(value, np.ndarray):
            # The whole of an input, for an item beside the one at hand.
            given.raw[f"_raw_{parameter.name}"] = np.broadcast_to(value, given.shape)
    count = math.prod(given.shape)
    given.variables.setdefault(
        "i", np.arange(count, dtype=np.int64).reshape(given.shape)
    )
    axes = _axes(axis, len(given.shape))
    kept = [size for at, size in enumerate(given.shape) if at not in axes]
    totals = {"_in_ind": count, "_out_ind": math.prod(kept)}
    source = _Source(letters, preamble, totals)
    with np.errstate(all="ignore"):
        run = source.evaluator(given.shape, types, given.variables, given.raw)
        mapped = converted(run.value(source.expression(map_expr)), kind)
        mapped = np.broadcast_to(mapped, given.shape)
        lines = np.moveaxis(mapped, axes, range(len(axes))).reshape(
            math.prod(mapped.shape[at] for at in axes), *kept
        )
        total = _reduced(lines, reduce_expr, source, types, kind, identity)
        numbers = {
            parameter.name: given.variables[parameter.name]
            for parameter, value in zip(inputs, arguments, strict=True)
            if not isinstance(value, np.ndarray)
        }
        made = _post(
            total,
            post_map_expr,
            output,
            source,
            types,
            result_dtype,
            numbers,
            given.raw,
        )
    if keepdims:
        sizes = [1 if at in axes else n for at, n in enumerate(given.shape)]
        made = made.reshape(sizes)
    if out is None:
        return made
    if out.shape != made.shape:
        raise ValueError(f"Out shape is mismatched: {out.shape} {made.shape}")
    out[...] = made
    return out


class _Source(NamedTuple):
    """What all parts of one kernel's source share."""

    letters: frozenset[str]
    preamble: str
    sizes: dict[str, int]
    """Of inputs and outputs."""

    def expression(self, text: str) -> Any:
        """One of its expressions."""
        return _expression(text, self.letters, self.preamble)

    def evaluator(
        self, shape: tuple[int, ...], types: Any, variables: Any, raw: Any
    ) -> Evaluator:
        """A run that knows the preamble."""
        declared = _preamble(self.preamble, self.letters)[0]
        made = Evaluator(shape, types, variables, raw, declared)
        made.sizes.update(self.sizes)
        return made


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    found = []
    for one in axes:
        if not -ndim <= one < ndim:
            raise np.exceptions.AxisError(one, ndim)
        found.append(one % ndim)
    if len(set(found)) != len(found):
        raise ValueError("duplicate value in 'axis'")
    return tuple(sorted(found))


def _reduced(
    lines: Any, text: str, source: _Source, types: Any, kind: Any, identity: Any
) -> Any:
    """Fold along the first axis, halves onto halves: the expression is associative."""
    fold = source.expression(text)
    if not len(lines):
        if identity in (None, ""):
            raise ValueError(
                "zero-size array to reduction operation which has no identity"
            )
        start = source.expression(str(identity))
        value = source.evaluator((), types, {}, {}).value(start)
        return np.full(lines.shape[1:], converted(value, kind))
    while len(lines) > 1:
        half = len(lines) // 2
        pair = {"a": lines[:half], "b": lines[half : 2 * half]}
        run = source.evaluator(pair["a"].shape, types, pair, {})
        folded = run.value(fold)
        rest = lines[2 * half :]
        folded = converted(np.asarray(folded), kind)
        lines = np.concatenate([np.atleast_1d(folded), rest]) if len(rest) else folded
    return lines[0]


def _post(
    total: Any,
    text: str,
    output: Parameter,
    source: _Source,
    types: Any,
    dtype: Any,
    numbers: dict[str, Any],
    raw: dict[str, Any],
) -> Any:
    total = np.asarray(total)
    variables = {**numbers, "a": total, output.name: np.zeros(total.shape, dtype)}
    run = source.evaluator(total.shape, types, variables, raw)
    run.run(_statements(text, source.letters, source.preamble))
    return np.broadcast_to(run.variables[output.name], total.shape).astype(dtype)


OWN: Final[dict[str, Callable[..., Any]]] = {
    "xpool.elementwise": elementwise,
    "xpool.reduction": reduction,
}
