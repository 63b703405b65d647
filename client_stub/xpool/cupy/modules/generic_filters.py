"""Filters that run a kernel of the program's for each window, or for each line.

The windows are gathered first, as rows of an array. A kernel over these rows holds the
program's source as a function, or a reduction as a loop, so that every device that runs
``ElementwiseKernel`` runs this, too.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from typing import Any, Final, NamedTuple

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.array_kernels import ElementwiseKernel, ReductionKernel
from xpool.cupy.axes import normalized_axes, normalized_axis
from xpool.cupy.functions import call, own
from xpool.cupy.modules.derivatives import output_of
from xpool.cupy.ndarray import ndarray
from xpool.cupy.raw_kernels import RawKernel

PAD_MODES: Final = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
}
"""What ``pad`` calls a way to go on past the edges."""

_C_NAMES: Final = {
    "?": "bool",
    "b": "signed char",
    "B": "unsigned char",
    "h": "short",
    "H": "unsigned short",
    "i": "int",
    "I": "unsigned int",
    "l": "long",
    "L": "unsigned long",
    "q": "long long",
    "Q": "unsigned long long",
    "e": "float16",
    "f": "float",
    "d": "double",
    "F": "complex<float>",
    "D": "complex<double>",
}
_GLOBAL: Final = re.compile(r'(?:extern\s+"C"\s+)?__global__')
_SIZE: Final = re.compile(r"\b_(in|out)_ind\s*\.\s*size\s*\(\s*\)")


@own("cupyx.scipy.ndimage.generic_filter")
def generic_filter(
    input: Any,  # noqa: A002  CuPy's name
    function: Any,
    size: Any = None,
    footprint: Any = None,
    output: Any = None,
    mode: Any = "reflect",
    cval: float = 0.0,
    origin: Any = 0,
    *,
    axes: Any = None,
) -> Any:
    """What a kernel makes of each item's neighbours, which the footprint chooses.

    Raises:
        TypeError: it is no kernel of one input and one output.
        RuntimeError: the footprint's axes are not those that are filtered.
        ValueError: nothing would be chosen, or an origin lies outside.
        NotImplementedError: this device does not understand the source.
    """
    over = _over(axes, input.ndim)
    wanted = _footprint(size, footprint, len(over))
    _check_kernel(function)
    origins = _each(origin, len(over), int)
    pads, window = [(0, 0)] * input.ndim, [1] * input.ndim
    for axis, width, shift in zip(over, wanted.shape, origins, strict=True):
        before = _before(width, shift)
        pads[axis], window[axis] = (before, width - 1 - before), width
    modes = {
        axis: _mode(one) for axis, one in zip(over, _modes(mode, over), strict=True)
    }
    found = output_of(output, input)
    if not input.size:
        return found
    # The footprint's axes in the order of the input's.
    expanded = wanted.transpose(np.argsort(over)).reshape(window)
    padded = _padded(input, pads, modes, cval)
    rows = _windows(padded, input.shape, expanded)
    if isinstance(function, RawKernel):
        kernel = _of_source(function.code, function.name, rows.shape[1], *_kind(found))
        kernel(rows.astype(np.float64), found)
    else:
        kernel, dtype = _of_reduction(
            _parts(function), rows.shape[1], input.dtype, *_kind(found)
        )
        kernel(rows.astype(dtype), found)
    return found


@own("cupyx.scipy.ndimage.generic_filter1d")
def generic_filter1d(
    input: Any,  # noqa: A002  CuPy's name
    function: Any,
    filter_size: int,
    axis: int = -1,
    output: Any = None,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int = 0,
) -> Any:
    """What a kernel makes of each line along an axis, longer by the filter's size.

    Raises:
        TypeError: it is no kernel of source, or the items are complex.
        RuntimeError: the filter has no size.
        ValueError: the origin lies outside.
        NotImplementedError: this device does not understand the source.
    """
    if input.dtype.kind == "c":
        raise TypeError("Complex type not supported")
    if not isinstance(function, RawKernel):
        raise TypeError("bad function type")
    if filter_size < 1:
        raise RuntimeError("invalid filter size")
    axis = normalized_axis(axis, input.ndim)
    before = _before(filter_size, origin)
    how, found = _mode(mode), output_of(output, input)
    if not input.size:
        return found
    pads = [(0, 0)] * input.ndim
    pads[axis] = (before, filter_size - 1 - before)
    lines = call(
        "cupy.moveaxis", (_padded(input, pads, {axis: how}, cval), axis, -1), {}
    )
    rows = lines.reshape(-1, lines.shape[-1]).astype(np.float64)
    length = input.shape[axis]
    made = call("cupy.empty", ((len(rows), length), found.dtype), {})
    sizes = (rows.shape[1], length)
    kernel = _of_lines(function.code, function.name, *sizes, *_kind(found))
    kernel(rows, made, size=len(rows))
    made = made.reshape(*lines.shape[:-1], length)
    found[...] = call("cupy.moveaxis", (made, -1, axis), {})
    return found


def _check_kernel(function: Any) -> None:
    if isinstance(function, ReductionKernel):
        if function.nin != 1 or function.nout != 1:
            raise TypeError("ReductionKernel must have 1 input and output")
    elif isinstance(function, ElementwiseKernel):
        raise TypeError("only ReductionKernel allowed (not ElementwiseKernel)")
    elif not isinstance(function, RawKernel):
        raise TypeError("bad function type")


def _over(axes: Any, ndim: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))
    return tuple(normalized_axes(axes if np.ndim(axes) else (axes,), ndim))


def _each(value: Any, count: int, kind: type) -> list[Any]:
    found = [kind(one) for one in value] if np.ndim(value) else [kind(value)] * count
    if len(found) != count:
        raise RuntimeError(f"sequence argument must have length equal to {count}")
    return found


def _modes(mode: Any, over: tuple[int, ...]) -> list[str]:
    return [mode] * len(over) if isinstance(mode, str) else _each(mode, len(over), str)


def _mode(name: str) -> str:
    if name not in PAD_MODES:
        raise RuntimeError(f"boundary mode not supported (actual: {name})")
    return PAD_MODES[name]


def _before(width: int, shift: Any) -> int:
    """How much of a window lies before its item."""
    before = width // 2 + int(shift)
    if not 0 <= before < width:
        raise ValueError("invalid origin")
    return before


def _footprint(size: Any, footprint: Any, ndim: int) -> np.ndarray[Any, Any]:
    if footprint is None:
        if size is None:
            raise RuntimeError("no footprint or filter size provided")
        return np.ones(_each(size, ndim, int), bool)
    if size is not None:
        warnings.warn("ignoring size because footprint is set", UserWarning, 3)
    host = footprint.get() if isinstance(footprint, ndarray) else footprint
    found = np.array(host, bool)
    if not found.any():
        raise ValueError("all-zero footprint is not supported")
    if found.ndim != ndim:
        raise RuntimeError("footprint array has incorrect shape")
    return found


def _padded(given: Any, pads: list[Any], modes: dict[int, str], cval: float) -> Any:
    for axis, mode in modes.items():
        if not any(pads[axis]):
            continue
        widths = [one if at == axis else (0, 0) for at, one in enumerate(pads)]
        keywords = {"constant_values": cval} if mode == "constant" else {}
        given = call("cupy.pad", (given, widths, mode), keywords)
    return given


def _windows(padded: Any, shape: tuple[int, ...], wanted: Any) -> Any:
    """A row for each item: the neighbours that a footprint chooses, in its order."""
    view = (*shape, *wanted.shape)
    strides = padded.strides * 2
    name = "cupy.lib.stride_tricks.as_strided"
    rows = call(name, (padded, view, strides), {}).reshape(math.prod(shape), -1)
    if wanted.all():
        return rows
    return call("cupy.take", (rows, transfer.upload(np.flatnonzero(wanted)), 1), {})


class _Parts(NamedTuple):
    """A reduction kernel, as far as its source goes."""

    in_params: str
    out_params: str
    map_expr: str
    reduce_expr: str
    post_map_expr: str
    identity: Any
    reduce_type: str | None
    preamble: str
    options: tuple[str, ...]


def _parts(kernel: ReductionKernel) -> _Parts:
    named = {name: getattr(kernel, name) for name in _Parts._fields}
    return _Parts(**{**named, "options": tuple(kernel.options)})


def _kind(found: Any) -> tuple[str]:
    return (found.dtype.char,)


def _stored(target: str, value: str, kind: str, letter: str) -> str:
    """An assignment that casts as C does, and of negative values to unsigned ones."""
    if kind in "BHILQ":
        back = f"({letter})(-({letter})(-{value}))"
        return f"{target} = {value} >= 0 ? ({letter}){value} : {back};"
    return f"{target} = ({letter}){value};"


def _as_function(code: str) -> str:
    """Source whose kernel is a function that a kernel can call."""
    return _GLOBAL.sub("__device__", code)


@functools.lru_cache(256)
def _of_source(code: str, name: str, size: int, kind: str) -> ElementwiseKernel:
    body = f"""
        double xpool_window[{size}];
        for (int _k = 0; _k < {size}; ++_k) {{
            xpool_window[_k] = xpool_rows[i * {size} + _k];
        }}
        double xpool_made[1];
        {name}(xpool_window, {size}, xpool_made);
        {_stored("xpool_found", "xpool_made[0]", kind, "Y")}
    """
    return ElementwiseKernel(
        *("raw float64 xpool_rows", "Y xpool_found", body, f"generic_{size}_{name}"),
        preamble=_as_function(code),
    )


@functools.lru_cache(256)
def _of_lines(
    code: str, name: str, longer: int, length: int, kind: str
) -> ElementwiseKernel:
    body = f"""
        double xpool_line[{longer}];
        for (int _k = 0; _k < {longer}; ++_k) {{
            xpool_line[_k] = xpool_rows[i * {longer} + _k];
        }}
        double xpool_made[{length}];
        {name}(xpool_line, {longer}, xpool_made, {length});
        for (int _k = 0; _k < {length}; ++_k) {{
            double xpool_one = xpool_made[_k];
            {_stored(f"xpool_found[i * {length} + _k]", "xpool_one", kind, "Y")}
        }}
    """
    return ElementwiseKernel(
        *("raw float64 xpool_rows", "raw Y xpool_found", body, f"generic1d_{name}"),
        preamble=_as_function(code),
    )


def _parameter(text: str) -> tuple[str, str]:
    """Type and name of a kernel's one parameter."""
    *_, kind, name = text.split()
    return kind, name


def _c_name(kind: str) -> str:
    return kind if len(kind) == 1 else _C_NAMES[np.dtype(kind).char]


@functools.lru_cache(256)
def _of_reduction(
    parts: _Parts, size: int, dtype: np.dtype[Any], kind: str
) -> tuple[ElementwiseKernel, np.dtype[Any]]:
    """The kernel, and of which dtype it wants the windows."""
    of_in, x = _parameter(parts.in_params)
    of_out, y = _parameter(parts.out_params)
    given = dtype if len(of_in) == 1 else np.dtype(of_in)
    used = {of_in, of_out, parts.reduce_type, "T"}
    is_bound = len(of_out) == 1 and of_out != of_in
    letter = of_out if is_bound else next(one for one in "YZUVW" if one not in used)
    item, value = _c_name(of_in), _c_name(of_out)
    total = parts.reduce_type or value
    start = parts.identity if parts.identity not in (None, "") else 0

    def text(source: str) -> str:
        lengths = {"in": f"((long long){size})", "out": "1"}
        return _SIZE.sub(lambda found: lengths[found[1]], source)

    body = f"""
        {item} _raw_{x}[{size}];
        for (int _k = 0; _k < {size}; ++_k) {{
            _raw_{x}[_k] = xpool_rows[i * {size} + _k];
        }}
        {total} _s = ({total})({start});
        for (int _j = 0; _j < {size}; ++_j) {{
            {item} {x} = _raw_{x}[_j];
            {total} _a = ({total})({text(parts.map_expr)});
            {{
                {total} a = _s;
                {total} b = _a;
                _s = ({total})({text(parts.reduce_expr)});
            }}
        }}
        {value} {y} = ({value})0;
        {{
            {total} a = _s;
            {text(parts.post_map_expr)};
        }}
        {_stored("xpool_found", y, kind, letter)}
    """
    extras: dict[str, Any] = {"preamble": parts.preamble, "options": parts.options}
    kernel = ElementwiseKernel(
        *(f"raw {of_in} xpool_rows", f"{letter} xpool_found", body),
        f"generic_{size}",
        **{key: one for key, one in extras.items() if one},
    )
    return kernel, given
