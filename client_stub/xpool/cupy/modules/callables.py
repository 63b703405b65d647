"""Functions that take a Python function: it runs here, over arrays that live there."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.axes import normalized_axis
from xpool.cupy.filling import CLASSES
from xpool.cupy.functions import call, own
from xpool.cupy.ndarray import ndarray


@own("cupy.fromfunction")
def fromfunction(function: Callable[..., Any], shape: Any, **kwargs: Any) -> Any:
    """Call the function with an array of indices for each axis."""
    dtype = kwargs.pop("dtype", float)
    kwargs.pop("like", None)
    grids = call("cupy.indices", (tuple(shape),), {"dtype": np.dtype(dtype)})
    found = function(*[grids[i] for i in range(len(tuple(shape)))], **kwargs)
    return transfer.as_array(found)


@own("cupy.apply_along_axis")
def apply_along_axis(
    func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call the function with each line along an axis; put the results in its place."""
    at = normalized_axis(axis, arr.ndim)
    outer = [*arr.shape[:at], *arr.shape[at + 1 :]]
    if not math.prod(outer):
        raise ValueError("Cannot apply_along_axis when any iteration dimensions are 0")
    lines = call("cupy.moveaxis", (arr, at, -1), {})
    found = [
        transfer.as_array(func1d(lines[where], *args, **kwargs))
        for where in itertools.product(*map(range, outer))
    ]
    shape = found[0].shape
    whole = call("cupy.stack", (found,), {}).reshape(*outer, *shape)
    for k in range(len(shape)):
        whole = call("cupy.moveaxis", (whole, len(outer) + k, at + k), {})
    return whole


@own("cupy.apply_over_axes")
def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Any:
    """Call the function for one axis after the other; dimensions stay."""
    value = transfer.as_array(a)
    for axis in [axes] if np.ndim(axes) == 0 else axes:
        found = func(value, normalized_axis(axis, value.ndim))
        if found.ndim != value.ndim:
            found = call("cupy.expand_dims", (found, axis), {})
        if found.ndim != value.ndim:
            raise ValueError("function is not returning an array of the correct shape")
        value = found
    return value


@own("cupy.piecewise")
def piecewise(x: Any, condlist: Any, funclist: Any) -> Any:
    """Values by conditions; functions are refused, as by CuPy."""
    if np.isscalar(condlist):
        condlist = [condlist]
    conditions, values = list(condlist), list(funclist)
    if len(values) not in (len(conditions), len(conditions) + 1):
        raise ValueError(
            f"with {len(conditions)} condition(s), either {len(conditions)} or"
            f" {len(conditions) + 1} functions are expected"
        )
    if any(callable(one) for one in values):
        raise NotImplementedError("Callable functions are not supported currently")
    rest = values.pop() if len(values) > len(conditions) else 0
    out = call("cupy.empty", (x.shape, x.dtype), {})
    out[...] = rest.astype(x.dtype) if isinstance(rest, ndarray) else rest
    for condition, value in zip(conditions, values, strict=True):
        value = value.astype(x.dtype) if isinstance(value, ndarray) else value
        chosen = call("cupy.where", (transfer.as_array(condition), value, out), {})
        out[...] = chosen.astype(x.dtype)
    return out


class vectorize:  # noqa: N801  CuPy's name
    """A function of numbers that takes arrays.

    It runs here, on the host, with the items of the arrays one after the other.
    """

    def __init__(
        self,
        pyfunc: Callable[..., Any],
        otypes: Any = None,
        doc: str | None = None,
        excluded: Any = None,
        cache: bool = False,
        signature: Any = None,
    ) -> None:
        """As CuPy's; what CuPy refuses is refused."""
        for given, name in (
            (excluded, "excluded"),
            (signature, "signature"),
            (cache, "cache"),
        ):
            if given:
                raise NotImplementedError(f"cupy.vectorize does not support `{name}`")
        if otypes is not None and not isinstance(otypes, str | list | tuple):
            raise ValueError("Invalid otype specification")
        self.pyfunc, self.otypes = pyfunc, otypes
        self.__doc__ = pyfunc.__doc__ if doc is None else doc

        self._host = np.vectorize(self._called, otypes=otypes)
        self._dtypes: set[np.dtype[Any]] = set()
        self._is_checked = False

    def __call__(self, *args: Any) -> Any:
        """Call it with arrays or numbers.

        Raises:
            TypeError: the function returns other dtypes for some items than for
                others, or what is no number.
            ValueError: it is one of several lambdas in one statement, which CuPy
                can't tell apart: a program that runs here runs with CuPy, too.
        """
        if not self._is_checked:
            _check_lambda(self.pyfunc)
            self._is_checked = True
        self._dtypes.clear()
        host = [one.get() if isinstance(one, ndarray) else one for one in args]
        if all(np.size(one) for one in host) or self.otypes is not None:
            found = self._host(*host)
        else:
            shape = np.broadcast_shapes(*(np.shape(one) for one in host))
            dtype = np.asarray(self._called(*(_one_of(one) for one in host))).dtype
            found = np.empty(shape, dtype)
        if isinstance(found, tuple):
            return tuple(transfer.as_array(one) for one in found)
        return transfer.as_array(found)

    def _called(self, *args: Any) -> Any:
        """The function of one item each; what it has made on the device is fetched."""
        found = self.pyfunc(*args)
        if isinstance(found, tuple):
            return tuple([_number(one) for one in found])
        if isinstance(found, np.generic) and self.otypes is None:
            self._dtypes.add(found.dtype)
            if len(self._dtypes) > 1:
                names = ", ".join(sorted(map(str, self._dtypes)))
                raise TypeError(
                    f"Data type mismatch of the function's results: {names}"
                )
        return _number(found)


def _check_lambda(function: Any) -> None:
    if getattr(function, "__name__", "") != "<lambda>":
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return  # nobody can see the source, or not this line alone
    if sum(isinstance(one, ast.Lambda) for one in ast.walk(tree)) > 1:
        raise ValueError(
            f"Multiple callables are found near the definition of {function}, and CuPy"
            " could not identify the source code for it: give each one a statement of"
            " its own, or define it with def"
        )


def _number(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value.get()[()]
    if isinstance(value, type):
        raise TypeError(f"the function returned {value}, which is no number")
    return value


def _one_of(value: Any) -> Any:
    return np.asarray(value).dtype.type(1)


vectorize.__module__ = "cupy"
CLASSES["cupy.vectorize"] = vectorize


@own("cupy.from_dlpack")
def from_dlpack(x: Any, *, device: Any = None, copy: bool | None = None) -> Any:
    """An array of another library's object; see ``xpool.cupy.dlpack``."""
    from xpool.cupy.dlpack import from_dlpack as make

    return make(x, device, copy)


@own("cupy.fromDlpack")
def from_dlpack_capsule(dltensor: Any) -> Any:
    """An array of a capsule; deprecated."""
    from xpool.cupy.dlpack import consume, warn_of_capsules

    warn_of_capsules("cupy.fromDlpack")
    return consume(dltensor)


@own("cupy.memoize")
def memoize(for_each_device: bool = False) -> Callable[..., Any]:
    """Keep a function's results by its arguments."""
    import functools

    return functools.cache


@own("cupy.clear_memo")
def nothing(*args: Any, **kwargs: Any) -> None:
    """Nothing to be done here."""
