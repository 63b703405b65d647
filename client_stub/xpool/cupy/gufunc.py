"""``cupyx.GeneralizedUFunc``: a function of the program's own over inner dimensions.

The function runs here, over remote arrays; where it can't take outer dimensions it is
called once for each of their items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.axes import normalized_axis
from xpool.cupy.filling import CLASSES
from xpool.cupy.functions import call
from xpool.cupy.geometry import check_dtype
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import result_shape

Dimension = tuple[str, bool, bool]
"""Its name; whether it may be left out; whether a length of one is broadcast."""

_OPERAND: Final = r"\((?:\w+(?:\?|\|1)?(?:,\w+(?:\?|\|1)?)*)?\)"
_SIDE: Final = re.compile(rf"{_OPERAND}(?:,{_OPERAND})*")
_OMITTED: Final = -1


def parse_signature(
    signature: Any,
) -> tuple[list[tuple[Dimension, ...]], list[tuple[Dimension, ...]], int]:
    """Dimensions of inputs and outputs, and how many names there are.

    Raises:
        TypeError: it is no text.
        ValueError: it is no signature.

    >>> parse_signature("(i?,j|1)->(j)")[0]
    [(('i', True, False), ('j', False, True))]
    """
    if not isinstance(signature, str):
        raise TypeError("Signature is not a string")
    sides = signature.replace(" ", "").split("->")
    if len(sides) != 2 or not _SIDE.fullmatch(sides[1]):
        raise ValueError(f"Not a valid gufunc signature: {signature}")
    if sides[0] and not _SIDE.fullmatch(sides[0]):
        raise ValueError(f"Not a valid gufunc signature: {signature}")
    inputs, outputs = (_operands(one) for one in sides)
    if any(dimension[2] for one in outputs for dimension in one):
        raise ValueError("Output name cannot indicate |1.")
    names = {dimension[0] for one in inputs + outputs for dimension in one}
    return inputs, outputs, len(names)


def _operands(side: str) -> list[tuple[Dimension, ...]]:
    found = re.findall(r"\(([^()]*)\)", side) or [""]
    return [
        tuple([_dimension(name) for name in one.split(",") if name]) for one in found
    ]


def _dimension(text: str) -> Dimension:
    name = text.removesuffix("?").removesuffix("|1")
    return name, text.endswith("?"), text.endswith("|1")


@dataclass(slots=True)
class Loop:
    """A function for some dtypes."""

    inputs: tuple[np.dtype[Any], ...]
    outputs: tuple[np.dtype[Any], ...]
    function: Callable[..., Any]

    @property
    def text(self) -> str:
        """As ``'ff->f'``."""
        sides = (self.inputs, self.outputs)
        return "->".join("".join(one.char for one in side) for side in sides)


class GeneralizedUFunc:
    """Creates a Generalized Universal Function by wrapping a user's function."""

    def __init__(
        self,
        func: Callable[..., Any],
        signature: str,
        *,
        name: str | None = None,
        doc: str | None = None,
        supports_batched: bool = False,
        supports_out: bool = False,
        signatures: Sequence[Any] | None = None,
        try_fastcall_func: Callable[..., Any] | None = None,
    ) -> None:
        """Wrap a function; arguments are CuPy's.

        Raises:
            ValueError: a signature is none.
        """
        self._func, self._signature = func, signature
        self.__name__ = func.__name__ if name is None else name
        self.__doc__ = func.__doc__ if doc is None else doc
        self._is_batched, self._takes_out = supports_batched, supports_out
        self._fast = try_fastcall_func
        self._inputs, self._outputs, _ = parse_signature(signature)
        self._loops = [self._loop(one) for one in signatures or ()]

    def _loop(self, given: Any) -> Loop:
        text, function = given if isinstance(given, tuple) else (given, self._func)
        sides = text.replace(" ", "").split("->")
        counts = (len(self._inputs), len(self._outputs))
        if len(sides) != 2 or tuple(map(len, sides)) != counts:
            raise ValueError(f"signature {text} for dtypes is invalid")
        dtypes = [tuple([np.dtype(char) for char in side]) for side in sides]
        return Loop(dtypes[0], dtypes[1], function)

    def __call__(
        self,
        *args: Any,
        axes: Any = None,
        axis: Any = None,
        keepdims: bool = False,
        casting: Any = "same_kind",
        dtype: Any = None,
        signature: Any = None,
        order: str = "K",
        out: Any = None,
    ) -> Any:
        """Apply a generalized ufunc."""
        if self._fast is not None:
            named = {"out": out, "axes": axes, "axis": axis, "keepdims": keepdims}
            rest = {"casting": casting, "dtype": dtype, "signature": signature}
            found = self._fast(*args, **named, **rest, order=order)
            if found is not NotImplemented:
                return found
        if len(args) != len(self._inputs):
            raise ValueError(
                f"According to `signature`, `func` requires {len(self._inputs)}"
                f" arguments, but {len(args)} given"
            )
        inputs = [transfer.as_array(one) for one in args]
        inputs, dtypes, function = self._resolve(inputs, dtype, casting, signature)
        kept = self._kept(keepdims)
        where = self._axes(axes, axis, kept)
        lengths: dict[str, int] = {}
        parts = [
            self._core_last(at, one, where[at], lengths)
            for at, one in enumerate(inputs)
        ]
        outer = result_shape([shape for _, shape in parts])
        inputs = [
            call("cupy.broadcast_to", (one, outer + one.shape[len(shape) :]), {})
            if shape != outer
            else one
            for one, shape in parts
        ]
        memory = _order(order, inputs)
        outs = self._given_outs(out)
        results, views = [], []
        for at, given in enumerate(outs):
            plan = (at, given, where[len(inputs) + at], dtypes[at], casting, memory)
            result, view = self._out(outer, lengths, kept, *plan)
            results.append(result)
            views.append(view)
        self._apply(function, outer, inputs, views)
        return results[0] if len(results) == 1 else tuple(results)

    # ---- dtypes

    def _resolve(
        self, inputs: list[ndarray], dtype: Any, casting: Any, signature: Any
    ) -> tuple[list[ndarray], list[np.dtype[Any]], Callable[..., Any]]:
        loop = self._chosen(inputs, dtype, casting, signature)
        if loop is None:
            found = (
                check_dtype(dtype)
                if dtype is not None
                else np.result_type(*(one.dtype for one in inputs))
            )
            return inputs, [found] * len(self._outputs), self._func
        for at, (one, wanted) in enumerate(zip(inputs, loop.inputs, strict=True)):
            what = f"ufunc {self.__name__} input {at}"
            _check_cast(one.dtype, wanted, casting, what)
        cast = [
            one.astype(wanted, copy=False)
            for one, wanted in zip(inputs, loop.inputs, strict=True)
        ]
        return cast, list(loop.outputs), loop.function

    def _chosen(
        self, inputs: Sequence[ndarray], dtype: Any, casting: Any, signature: Any
    ) -> Loop | None:
        if signature is not None:
            return self._by_signature(signature)
        for one in self._loops:
            if dtype is not None:
                is_met = all(found == dtype for found in one.outputs)
            else:
                is_met = all(
                    np.can_cast(given.dtype, wanted, casting)
                    for given, wanted in zip(inputs, one.inputs, strict=True)
                )
            if is_met:
                return one
        return None

    def _by_signature(self, signature: Any) -> Loop:
        count = len(self._inputs)
        text = signature
        if isinstance(signature, tuple):
            if len(signature) != count + len(self._outputs):
                raise TypeError(
                    f"A type-tuple of another length was given to {self.__name__}"
                )
            chars = [np.dtype(one).char for one in signature]
            text = "".join(chars[:count]) + "->" + "".join(chars[count:])
        for one in self._loops:
            is_output = len(text) == 1 and all(d.char == text for d in one.outputs)
            if is_output or one.text == text:
                return one
        raise TypeError(
            "No loop matching the specified signature and casting was found for ufunc"
            f" {self.__name__}"
        )

    # ---- axes

    def _kept(self, keepdims: bool) -> int:
        """How many axes of length one an output keeps."""
        if not keepdims:
            return 0
        counts = {len(one) for one in self._inputs}
        if any(self._outputs) or len(counts) != 1:
            raise ValueError(
                "keepdims=True can only be used with inputs of the same number of core"
                " dimensions, and outputs of none"
            )
        return counts.pop()

    def _axes(self, axes: Any, axis: Any, kept: int) -> list[Any]:
        """The core axes of each operand; None: the last."""
        operands = [*self._inputs, *self._outputs]
        counts = [len(one) for one in self._inputs]
        counts += [len(one) or kept for one in self._outputs]
        if axis is not None:
            if axes is not None:
                raise ValueError("Only one of `axis` or `axes` can be given")
            names = {dimension[0] for one in self._inputs for dimension in one}
            if len(names) != 1 or max(counts) > 1 or not isinstance(axis, int):
                raise ValueError(
                    "`axis` must be an integer, and the signature have one core"
                    " dimension that all share"
                )
            return [(axis,) if count else () for count in counts]
        if axes is None:
            return [None] * len(operands)
        if not isinstance(axes, list):
            raise ValueError("`axes` has to be of type list")
        found = [(one,) if isinstance(one, int) else tuple(one) for one in axes]
        if len(found) == len(self._inputs) and not any(self._outputs):
            found += [found[0] if kept else ()] * len(self._outputs)
        if len(found) != len(operands):
            raise ValueError(f"`axes` must have {len(operands)} entries")
        for at, (one, count) in enumerate(zip(found, counts, strict=True)):
            if len(one) != count:
                raise ValueError(f"`axes` item {at} must have {count} entries")
        return list(found)

    def _core_last(
        self, at: int, array: ndarray, axes: Any, lengths: dict[str, int]
    ) -> tuple[ndarray, tuple[int, ...]]:
        """An input with its core dimensions last, and the shape of the others."""
        dimensions = self._inputs[at]
        needed = sum(not one[1] for one in dimensions)
        count = max(needed, min(array.ndim, len(dimensions)))
        if array.ndim < count:
            raise ValueError(
                f"Input operand {at} does not have enough dimensions (has"
                f" {array.ndim}, signature {self._signature} needs {needed})"
            )
        if axes is not None and count == len(dimensions):
            array = array.transpose(_moved_last(axes, array.ndim))
        split = array.ndim - count
        outer, core = array.shape[:split], list(array.shape[split:])
        left_out = len(dimensions) - count
        omitted = []
        for place, one in enumerate(dimensions):
            if one[1] and left_out:
                left_out -= 1
                omitted.append(split + place)
                self._note(at, one, _OMITTED, lengths)
            else:
                self._note(at, one, core.pop(0), lengths)
        if omitted:
            array = call("cupy.expand_dims", (array, tuple(omitted)), {})
        return array, outer

    def _note(
        self, at: int, one: Dimension, length: int, lengths: dict[str, int]
    ) -> None:
        name, _, is_broadcast = one
        if length == 1 and is_broadcast:
            return
        before = lengths.setdefault(name, length)
        if before == length:
            return
        if _OMITTED in (before, length):
            raise ValueError(
                "An optional core-dimension must be skipped in all or no inputs."
            )
        raise ValueError(
            f"Input operand {at} has mismatch in its core dimension {name} with"
            f" signature {self._signature} ({before} != {length})."
        )

    # ---- outputs

    def _given_outs(self, out: Any) -> list[Any]:
        if out is None:
            return [None] * len(self._outputs)
        outs = list(out) if isinstance(out, tuple) else [out]
        if any(one is not None and not isinstance(one, ndarray) for one in outs):
            raise TypeError("`out` must be a tuple or `cupy.ndarray`")
        if len(outs) != len(self._outputs):
            raise ValueError("`out` must have one entry per output")
        return outs

    def _out(
        self,
        outer: tuple[int, ...],
        lengths: dict[str, int],
        kept: int,
        at: int,
        given: Any,
        axes: Any,
        dtype: np.dtype[Any],
        casting: Any,
        memory: str,
    ) -> tuple[ndarray, ndarray]:
        """An output as the caller sees it, and as the function does."""
        found = [lengths.get(one[0], 1) for one in self._outputs[at]]
        omitted = [
            len(outer) + place for place, one in enumerate(found) if one == _OMITTED
        ]
        core = tuple([one for one in found if one != _OMITTED]) or (1,) * kept
        shape = outer + core
        moved = None if axes is None or omitted else _moved_last(axes, len(shape))
        back = None if moved is None else [moved.index(k) for k in range(len(moved))]
        wanted = shape if back is None else tuple([shape[one] for one in back])
        if given is None:
            given = call("cupy.empty", (wanted, dtype, memory), {})
        elif given.shape != wanted:
            raise ValueError(
                f"Output operand {at} has invalid shape {given.shape} expected {wanted}"
            )
        else:
            _check_cast(dtype, given.dtype, casting, "out dtype")
        view = given if moved is None else given.transpose(moved)
        if omitted:
            view = call("cupy.expand_dims", (view, tuple(omitted)), {})
        return given, view[(..., *(0,) * kept)] if kept else view

    def _apply(
        self,
        function: Callable[..., Any],
        outer: tuple[int, ...],
        inputs: Sequence[ndarray],
        outs: Sequence[ndarray],
    ) -> None:
        places = [()] if self._is_batched else np.ndindex(outer)
        for place in places:
            parts = [one[place] for one in inputs]
            views = [one[(*place, ...)] for one in outs]
            if self._takes_out:
                function(*parts, out=views[0] if len(views) == 1 else tuple(views))
                continue
            found = function(*parts)
            for view, one in zip(
                views, found if isinstance(found, tuple) else (found,), strict=True
            ):
                view[...] = one


def _moved_last(axes: Sequence[int], ndim: int) -> list[int]:
    """The order of axes in which some come last."""
    last = [normalized_axis(one, ndim) for one in axes]
    if len(set(last)) != len(last):
        raise ValueError("repeated axis")
    return [one for one in range(ndim) if one not in last] + last


def _order(order: str, inputs: Sequence[ndarray]) -> str:
    match order.upper():
        case "C" | "K":
            return "C"
        case "F":
            return "F"
        case "A":
            return "F" if all(one.flags.fnc for one in inputs) else "C"
    raise RuntimeError(f"Unknown order {order}")


def _check_cast(given: Any, wanted: Any, casting: Any, what: str) -> None:
    if not np.can_cast(given, wanted, casting):
        raise TypeError(
            f"Cannot cast {what} from {given!r} to {wanted!r} according to the rule"
            f" '{casting}'"
        )


GeneralizedUFunc.__module__ = "cupyx"
CLASSES["cupyx.GeneralizedUFunc"] = GeneralizedUFunc
