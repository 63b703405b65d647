"""``ElementwiseKernel``, ``ReductionKernel``, ``fuse``: the source goes with the call.

The first call with arguments of some types waits for its result, so that errors are
raised there; later ones are queued, since their results' types are known by then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from xpool.cupy import ndarray as arrays
from xpool.cupy.device import device, encode_arguments
from xpool.cupy.geometry import geometry
from xpool.cupy.ndarray import ndarray

Key = tuple[Any, ...]


def _check(value: Any) -> None:
    if isinstance(value, ndarray | np.generic | int | float | complex):
        return
    raise TypeError(f"Unsupported type {type(value)}")


def _key(args: Any) -> Key:
    return tuple(
        one._geo.code if isinstance(one, ndarray) else _kind(one) for one in args
    )


def _kind(value: Any) -> Any:
    return (
        value.dtype.char.upper() + "0"
        if isinstance(value, np.generic)
        else (type(value))
    )


def _count(text: str) -> int:
    return len([one for one in text.split(",") if one.strip()])


class ElementwiseKernel:
    """User-defined elementwise kernel."""

    __module__ = "cupy"

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
        doc: str | None = None,
        **kwargs: Any,
    ) -> None:
        """A kernel of this source; arguments are CuPy's.

        Raises:
            ValueError: the name is no identifier.
        """
        if not name.isidentifier():
            raise ValueError(f"Invalid kernel name: {name!r}")
        self.in_params, self.out_params = in_params, out_params
        self.operation, self.name, self.preamble = operation, name, preamble
        self.reduce_dims, self.no_return = reduce_dims, no_return
        self.return_tuple, self.kwargs = return_tuple, kwargs
        self.nin, self.nout = _count(in_params), _count(out_params)
        self.nargs = self.nin + self.nout
        self._is_raw = [
            "raw" in one.split()[:-2]
            for one in f"{in_params},{out_params}".split(",")
            if one.strip()
        ]
        self._extras = {"preamble": preamble, **kwargs} if preamble else dict(kwargs)
        if "options" in self._extras:
            self._extras["options"] = tuple(self._extras["options"])
        self._known: dict[Key, list[np.dtype[Any]]] = {}
        if doc is not None:
            self.__doc__ = doc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it over arrays and numbers.

        Raises:
            TypeError: a wrong number of arguments, or one of a wrong type.
            ValueError: it can't be told over how many items to loop, or twice.
            NotImplementedError: a CPU does not understand the source.
        """
        size = kwargs.pop("size", None)
        if kwargs.pop("block_size", 128) <= 0:
            raise ValueError("block_size must be positive")
        kwargs.pop("stream", None)
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either"
                f" {self.nin} or {self.nargs} (with outputs), but given {len(args)}."
            )
        for one in args:
            _check(one)
        self._check_size(args, size)
        given, outs = args[: self.nin], args[self.nin :]
        what = (self.in_params, self.out_params, self.operation, given)
        extras = dict(self._extras)
        if size is not None:
            extras["size"] = size
        if outs:
            extras["out"] = outs
        return self._shown(self._run(given, outs, size, what, extras))

    def _check_size(self, args: Any, size: Any) -> None:
        has_loop = any(
            isinstance(one, ndarray) and not is_raw
            for one, is_raw in zip(args, self._is_raw, strict=False)
        )
        if size is None and not has_loop:
            raise ValueError(
                "Loop size is undecided. Give `size`, or an array that is not raw"
            )
        if size is not None and has_loop:
            raise ValueError(
                "Specified 'size' can be used only if all of the ndarray are 'raw'."
            )

    def _run(
        self, given: Any, outs: Any, size: Any, what: Any, extras: dict[str, Any]
    ) -> Any:
        key = (*_key(given), "->", *_key(outs))
        dtypes = self._known.get(key)
        where = device()
        if dtypes is None:
            found = where.call("xpool.elementwise", what, extras)
            made = found if isinstance(found, tuple) else (found,)
            self._known[key] = [one.dtype for one in made]
            return outs or made
        shape = self._shape(given, size)
        if outs and all(one._geo.shape == shape for one in outs):
            head = where.head("xpool.elementwise", 0)
            where.post(head + encode_arguments(what, extras))
            return outs
        if outs or shape is None:
            found = where.call("xpool.elementwise", what, extras)
            return outs or (found if isinstance(found, tuple) else (found,))
        geos = [geometry(shape, dtype) for dtype in dtypes]
        return tuple(arrays.posted_many("xpool.elementwise", geos, what, extras))

    def _shape(self, given: Any, size: Any) -> tuple[int, ...] | None:
        """What comes out, or None: the server says."""
        if size is not None:
            return (int(size),)
        shapes = [
            one._geo.shape
            for one, is_raw in zip(given, self._is_raw, strict=False)
            if isinstance(one, ndarray) and not is_raw
        ]
        try:
            return np.broadcast_shapes(*shapes) if shapes else None
        except ValueError:
            return None

    def _shown(self, outs: Any) -> Any:
        if self.no_return:
            return None
        if len(outs) == 1 and not self.return_tuple:
            return outs[0]
        return tuple(outs)


class ReductionKernel:
    """User-defined reduction kernel."""

    __module__ = "cupy"

    def __init__(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: Any,
        name: str = "reduce_kernel",
        reduce_type: str | None = None,
        reduce_dims: bool = True,
        preamble: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        """A kernel of this source; arguments are CuPy's.

        Raises:
            ValueError: the name is no identifier.
        """
        if not name.isidentifier():
            raise ValueError(f"Invalid kernel name: {name!r}")
        self.in_params, self.out_params = in_params, out_params
        self.map_expr, self.reduce_expr = map_expr, reduce_expr
        self.post_map_expr, self.identity = post_map_expr, identity
        self.name, self.reduce_type, self.preamble = name, reduce_type, preamble
        self.reduce_dims, self.options = reduce_dims, options
        self.nin, self.nout = _count(in_params), _count(out_params)
        self.nargs = self.nin + self.nout
        given = {
            "reduce_type": reduce_type,
            "preamble": preamble,
            "options": tuple(options),
        }
        self._extras = {key: value for key, value in given.items() if value}

    def __call__(
        self,
        *args: Any,
        out: Any = None,
        axis: Any = None,
        keepdims: bool = False,
        stream: Any = None,
    ) -> Any:
        """Run it over arrays.

        Raises:
            TypeError: a wrong number of arguments, or one of a wrong type.
            NotImplementedError: a CPU does not understand the source.
        """
        if out is not None:
            args = (*args, out)
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either"
                f" {self.nin} or {self.nargs} (with outputs), but given {len(args)}."
            )
        for one in args:
            _check(one)
        out = args[self.nin] if len(args) > self.nin else None
        what = (
            *(self.in_params, self.out_params, self.map_expr, self.reduce_expr),
            *(self.post_map_expr, self.identity, args[: self.nin]),
        )
        extras = {**self._extras, "axis": axis, "keepdims": keepdims, "out": out}
        found = device().call("xpool.reduction", what, extras)
        return found if out is None else out


def fuse(*args: Any, **kwargs: Any) -> Any:
    """The function itself, its operations one by one: the results are the same."""

    def made(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def fused(*given: Any, **named: Any) -> Any:
            return function(*given, **named)

        vars(fused).update(clear_cache=lambda: None)
        return fused

    kwargs.pop("kernel_name", None)
    if kwargs:
        raise TypeError(f"fuse takes no {next(iter(kwargs))}")
    if len(args) == 1 and callable(args[0]):
        return made(args[0])
    return made
