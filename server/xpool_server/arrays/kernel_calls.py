"""``ElementwiseKernel`` and ``ReductionKernel`` on a CPU: C's expressions in NumPy."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from xpool_server.arrays.kernel_evaluator import Evaluator, converted
from xpool_server.arrays.kernel_parser import TYPES, Parser, Unsupported

MAX_SOURCE: Final = 16 << 10
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


@functools.lru_cache(256)
def _statements(text: str, letters: frozenset[str]) -> Any:
    if len(text) > MAX_SOURCE:
        raise Unsupported("a kernel's source is too long for this device")
    return Parser(text, letters).statements()


@functools.lru_cache(256)
def _expression(text: str, letters: frozenset[str]) -> Any:
    if len(text) > MAX_SOURCE:
        raise Unsupported("a kernel's source is too long for this device")
    return Parser(text, letters).expression()


def _check_extras(extras: dict[str, Any]) -> None:
    for name, value in extras.items():
        if name == "preamble" and not str(value or "").strip():
            continue
        if name in ("preamble", "loop_prep", "after_loop", "options") and value:
            raise Unsupported(
                f"a kernel with `{name}` needs a CUDA compiler: run the program on a"
                " slice of a CUDA device"
            )


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
    declared: tuple[Parameter, ...], given: list[Any], outputs: list[Any], size: Any
) -> _Given:
    types = _resolve(declared, [*given, *outputs])
    arrays = [
        np.shape(value)
        for parameter, value in zip(declared, [*given, *outputs], strict=False)
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
    _check_extras(extras)
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
    body = _statements(operation, letters)
    sorted_out = _given((*inputs, *outputs), given, outs, size)
    shape = sorted_out.shape
    variables, raw = sorted_out.variables, sorted_out.raw
    if not outs:
        if any(one.is_raw for one in outputs):
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
        run = Evaluator(shape, sorted_out.types, variables, raw)
        run.run(body)
    for parameter, out in zip(outputs, outs, strict=True):
        if not parameter.is_raw:
            out[...] = run.variables[parameter.name]
    return outs[0] if len(outs) == 1 else tuple(outs)


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
    _check_extras(extras)
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
    given = _given((*inputs, *outputs), list(arguments), outs, None)
    types, (output,) = given.types, outputs
    result_dtype = _dtype_of(output, types)
    kind = result_dtype
    if reduce_type is not None:
        kind = TYPES.get(reduce_type) or types.get(reduce_type)
        if kind is None:
            raise ValueError(f"reduce_type {reduce_type} is unknown")
    count = math.prod(given.shape)
    given.variables.setdefault(
        "i", np.arange(count, dtype=np.int64).reshape(given.shape)
    )
    with np.errstate(all="ignore"):
        run = Evaluator(given.shape, types, given.variables, given.raw)
        mapped = converted(run.value(_expression(map_expr, letters)), kind)
        mapped = np.broadcast_to(mapped, given.shape)
        axes = _axes(axis, mapped.ndim)
        kept = [size for at, size in enumerate(mapped.shape) if at not in axes]
        lines = np.moveaxis(mapped, axes, range(len(axes))).reshape(
            math.prod(mapped.shape[at] for at in axes), *kept
        )
        total = _reduced(lines, reduce_expr, letters, types, kind, identity)
        made = _post(total, post_map_expr, output, letters, types, result_dtype)
    if keepdims:
        sizes = [1 if at in axes else n for at, n in enumerate(given.shape)]
        made = made.reshape(sizes)
    if out is None:
        return made
    if out.shape != made.shape:
        raise ValueError(f"Out shape is mismatched: {out.shape} {made.shape}")
    out[...] = made
    return out


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
    lines: Any, text: str, letters: Any, types: Any, kind: Any, identity: Any
) -> Any:
    """Fold along the first axis, halves onto halves: the expression is associative."""
    fold = _expression(text, letters)
    if not len(lines):
        if identity in (None, ""):
            raise ValueError(
                "zero-size array to reduction operation which has no identity"
            )
        value = Evaluator((), types, {}, {}).value(_expression(str(identity), letters))
        return np.full(lines.shape[1:], converted(value, kind))
    while len(lines) > 1:
        half = len(lines) // 2
        pair = {"a": lines[:half], "b": lines[half : 2 * half]}
        folded = Evaluator(pair["a"].shape, types, pair, {}).value(fold)
        rest = lines[2 * half :]
        folded = converted(np.asarray(folded), kind)
        lines = np.concatenate([np.atleast_1d(folded), rest]) if len(rest) else folded
    return lines[0]


def _post(
    total: Any, text: str, output: Parameter, letters: Any, types: Any, dtype: Any
) -> Any:
    total = np.asarray(total)
    variables = {"a": total, output.name: np.zeros(total.shape, dtype)}
    run = Evaluator(total.shape, types, variables, {})
    run.run(_statements(text, letters))
    return np.broadcast_to(run.variables[output.name], total.shape).astype(dtype)


OWN: Final[dict[str, Callable[..., Any]]] = {
    "xpool.elementwise": elementwise,
    "xpool.reduction": reduction,
}
