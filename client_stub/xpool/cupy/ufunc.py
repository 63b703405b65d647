"""Universal functions: dtypes and shapes by NumPy's rules, kept per pair of geometries.

A call of arrays and plain numbers has a plan: one look into a dictionary, some bytes
put together, one record.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import UFUNC_METHODS

from xpool.cupy import described, writing
from xpool.cupy import ndarray as arrays
from xpool.cupy.array_items import as_operand, index_of
from xpool.cupy.device import device, encode_arguments
from xpool.cupy.geometry import CODE_OF_CHAR, Geometry, check_dtype, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import (
    BOOL,
    INTEGERS,
    check_operands,
    large,
    local_ufunc,
    operand_dtype,
    result_shape,
)
from xpool.cupy.plans import MAX_PLANS, NUMBER_ENCODERS, Plan
from xpool.cupy.subclassing import in_kind, plain, takes_part
from xpool.cupy.transfer import unwrapped

_AT: Final = ("add", "subtract", "maximum", "minimum")
"""Ufuncs whose ``at`` CuPy has for all numbers."""


class ufunc:  # noqa: N801  CuPy's name
    """Universal function."""

    def __init__(self, module: str, name: str, types: Sequence[str], doc: str) -> None:
        """One of CuPy's.

        Args:
            module: where it stands.
            name: as it is called there.
            types: its loops: ``'ff->f'``.
            doc: one line.
        """
        inputs, outputs = types[0].split("->")
        self.nin, self.nout = len(inputs), len(outputs)
        self.nargs = self.nin + self.nout
        self.__name__ = name
        self.name = f"cupy_{name}"
        self.types = list(types)
        self.full_name = f"{module}.{name}"
        self.__doc__ = doc
        self.__module__ = module
        self._outputs = frozenset("".join(one.split("->")[1] for one in types))
        self._inputs = [one.split("->")[0] for one in types]
        self._local = local_ufunc(module, name, self.nin, self.nout)
        self._dtypes: dict[Any, tuple[np.dtype[Any], ...] | None] = {}
        self._plans: dict[Any, Plan] = {}

    @property
    def ntypes(self) -> int:
        """How many loops there are."""
        return len(self.types)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )

    def __repr__(self) -> str:
        return f"<ufunc '{self.name}'>"

    def __reduce__(self) -> str:
        return self.__name__

    def __getattr__(self, name: str) -> Any:
        if name not in UFUNC_METHODS:
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        full = f"{self.full_name}.{name}"

        def method(*args: Any, **kwargs: Any) -> Any:
            if name == "at":
                values = [as_operand(one) for one in args[2:]]
                args = (args[0], index_of(args[1]), *values)
                is_known = self.__name__ in _AT and not kwargs and len(values) == 1
                if is_known and writing.post_at(full, *args):
                    return None
            elif name == "reduceat" and isinstance(args[1], list | tuple):
                args = (args[0], index_of(list(args[1])), *args[2:])
            check_operands(args)
            return device().call(full, args, kwargs)

        method.__name__ = name
        return method

    # ---- the hot path

    def plan(self, key: tuple[Any, Any]) -> Plan | None:
        """The plan for operands; None if only a full call can tell.

        Args:
            key: a ``Geometry`` each, or a Python type for a scalar.

        Raises:
            TypeError: there is no loop for these dtypes.
            ValueError: the shapes can't be broadcast.
        """
        audit = device().audit
        if self._local is None or (audit is not None and not audit.sees_repeats):
            return None
        if any(type(one) is Geometry and one.dtype.char == "V" for one in key):
            return None
        operands = [one.dtype if type(one) is Geometry else one for one in key]
        dtypes = self.result_dtypes(
            tuple(BOOL if one is bool else one for one in operands)
        )
        if dtypes is None or len(dtypes) != 1:
            return None
        shape = result_shape([one.shape for one in key if type(one) is Geometry])
        bounds = None
        if int in key:
            (other,) = (one.dtype for one in key if type(one) is Geometry)
            if other.kind in "iu":
                info = INTEGERS[other.char]
                bounds = (info.min, info.max)
            else:
                bounds = (-(1 << 63), (1 << 63) - 1)
        made = Plan(self.full_name, self.nin, geometry(shape, dtypes[0]), bounds)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = made
        return made

    def _quick(self, args: tuple[Any, ...]) -> tuple[Plan, bytes] | None:
        """Plan and operands of a call with arrays and plain numbers, and nothing else.

        None: the full call has to look.

        Raises:
            TypeError: there is no loop for these dtypes.
            ValueError: the shapes can't be broadcast.
        """
        key: list[Any] = []
        operands = b""
        integer, has_array = 0, False
        for one in args:
            kind = type(one)
            if kind is ndarray:
                has_array = True
                key.append(one._geo)
                operands += one._ref
                continue
            encoder = NUMBER_ENCODERS.get(kind)
            if encoder is None:
                return None
            if kind is int:
                integer = one
            key.append(kind)
            operands += encoder(one)
        if not has_array or len(key) != self.nin or len(key) > 2:
            return None
        found = tuple(key)
        plan = self._plans.get(found) or self.plan(found)
        if plan is None:
            return None
        bounds = plan.bounds
        if bounds is not None and not bounds[0] <= integer <= bounds[1]:
            return None
        return plan, operands

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply it to arrays and scalars."""
        if not kwargs:
            quick = self._quick(args)
            if quick is not None:
                return quick[0].post(quick[1])
        elif len(kwargs) == 1 and type(kwargs.get("out")) is ndarray:
            out = kwargs["out"]
            quick = self._quick(args)
            if quick is not None and quick[0].geo is out._geo:
                quick[0].post_into(quick[1], out)
                return out
        return self._full(*args, **kwargs)

    # ---- the full call

    def _full(
        self,
        *args: Any,
        out: Any = None,
        where: Any = None,
        axes: Any = None,
        axis: Any = None,
        keepdims: Any = None,
        casting: str = "same_kind",
        order: Any = None,
        dtype: Any = None,
        subok: Any = None,
        signature: Any = None,
        extobj: Any = None,
        **kwargs: Any,
    ) -> Any:
        """A call with whatever arguments."""
        if kwargs:
            raise TypeError(f"{self.name}() got an unexpected keyword argument")
        inputs, outs = self._split(args, out)
        if any(hasattr(type(one), "__cupy_get_ndarray__") for one in inputs):
            inputs = [unwrapped(one) for one in inputs]
        handlers = [
            one
            for one in (*inputs, *outs)
            if type(one) is not ndarray and isinstance(one, ndarray)
        ]
        for one in handlers:
            if takes_part(one):
                continue
            ask: Any = one.__array_ufunc__
            found = ask(self, "__call__", *inputs)
            if found is not NotImplemented:
                return found
        keywords: dict[str, Any] = {}
        if dtype is not None:
            keywords["dtype"] = check_dtype(dtype)
        if casting != "same_kind":
            keywords["casting"] = casting
        if where is not None:
            keywords["where"] = where
        if order is not None:
            keywords["order"] = order
        run = self._run if not handlers else self._run_derived
        return run(inputs, outs, keywords)

    def _run_derived(
        self, inputs: Sequence[Any], outs: Sequence[Any], keywords: dict[str, Any]
    ) -> Any:
        """``_run`` with arrays of classes that the program has derived."""
        keywords = {name: plain(one) for name, one in keywords.items()}
        found = self._run(
            [plain(one) for one in inputs], [plain(one) for one in outs], keywords
        )
        if any(one is not None for one in outs):
            return outs[0] if len(outs) == 1 else found
        return in_kind(found, inputs)

    def _run(
        self, inputs: Sequence[Any], outs: Sequence[Any], keywords: dict[str, Any]
    ) -> Any:
        check_operands(inputs)
        inputs = [large(one, inputs) for one in inputs]
        where = keywords.get("where")
        if isinstance(where, np.ndarray):
            raise TypeError(f"Unsupported type {type(where)}")
        try:
            return self._predicted(inputs, outs, keywords)
        except NoRule:
            pass
        if outs and any(one is not None for one in outs):
            keywords["out"] = outs[0] if len(outs) == 1 else tuple(outs)
        found = device().call(self.full_name, inputs, keywords)
        return outs[0] if len(outs) == 1 and outs[0] is not None else found

    def _split(
        self, args: Sequence[Any], out: Any
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Inputs and outputs, whether given by position or by name."""
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}: expected {self.nin} to"
                f" {self.nargs}, got {len(args)}"
            )
        outs: tuple[Any, ...] = ()
        if out is not None:
            outs = out if isinstance(out, tuple) else (out,)
            if len(outs) != self.nout:
                raise ValueError(
                    "The 'out' tuple must have exactly one entry per ufunc output"
                )
        if len(args) > self.nin:
            if outs:
                raise ValueError(
                    "Cannot specify 'out' as both a positional and keyword argument"
                )
            rest = self.nargs - len(args)
            args, outs = args[: self.nin], (*args[self.nin :], *(None,) * rest)
        for one in outs:
            if one is not None and not isinstance(one, ndarray):
                raise TypeError("return arrays must be of ArrayType")
        return args, outs

    def _predicted(
        self, inputs: Sequence[Any], outs: Sequence[Any], keywords: dict[str, Any]
    ) -> Any:
        if self._local is None or any(one is None for one in inputs):
            raise NoRule
        if keywords:
            return self._of_dtype(inputs, outs, keywords)
        if any(getattr(one, "dtype", BOOL).char == "V" for one in inputs):
            return self._of_described(inputs, outs)
        if any(one is None for one in outs):
            raise NoRule
        operands = tuple([operand_dtype(one) for one in inputs])
        dtypes = self.result_dtypes(operands)
        if dtypes is None:
            raise NoRule
        self._check_integers(inputs)
        shape = result_shape([one._geo.shape for one in inputs if type(one) is ndarray])
        if outs:
            return self._into(inputs, outs, dtypes, shape)
        geos = [geometry(shape, one) for one in dtypes]
        if len(geos) == 1:
            return arrays.posted(self.full_name, geos[0], inputs)
        return tuple(arrays.posted_many(self.full_name, geos, inputs, {}))

    def _of_dtype(
        self, inputs: Sequence[Any], outs: Sequence[Any], keywords: dict[str, Any]
    ) -> ndarray:
        """A new array of the dtype that is asked for.

        Raises:
            NoRule: the server has to say.
        """
        if keywords.keys() != {"dtype"} or outs or self.nout != 1:
            raise NoRule
        assert self._local is not None
        dtype = keywords["dtype"]
        operands = tuple([operand_dtype(one) for one in inputs])
        if any(isinstance(one, type) or one.kind == "V" for one in operands):
            raise NoRule
        try:
            every = self._local.resolve_dtypes(
                (*operands, None), signature=(*(None,) * self.nin, dtype)
            )
        except TypeError:
            raise NoRule from None
        if every[-1] != dtype:
            raise NoRule
        shape = result_shape([one._geo.shape for one in inputs if type(one) is ndarray])
        return arrays.posted(
            self.full_name, geometry(shape, dtype), inputs, {"dtype": dtype}
        )

    def _of_described(self, inputs: Sequence[Any], outs: Sequence[Any]) -> Any:
        """Compare items that have fields, or are plain bytes: nothing else is done.

        Raises:
            TypeError: it is no comparison, or they have no common dtype.
        """
        dtypes = [
            np.asarray(one).dtype if not isinstance(one, ndarray) else one.dtype
            for one in inputs
        ]
        if self.__name__ not in ("equal", "not_equal"):
            given = ", ".join(map(str, dtypes))
            raise TypeError(f"Wrong type ({given}) of arguments for {self.name}")
        described.comparable(*dtypes)
        found = device().call(f"xpool.{self.__name__}", inputs, {})
        if outs:
            outs[0][...] = found
            return outs[0]
        return found

    def _into(
        self,
        inputs: Sequence[Any],
        outs: Sequence[ndarray],
        dtypes: Sequence[np.dtype[Any]],
        shape: tuple[int, ...],
    ) -> Any:
        for one, dtype in zip(outs, dtypes, strict=False):
            if not np.can_cast(dtype, one.dtype, "same_kind"):
                raise TypeError(
                    f"output (typecode {dtype.char!r}) could not be coerced to provided"
                    f" output parameter (typecode {one.dtype.char!r}) according to the"
                    ' casting rule "same_kind"'
                )
            if one.shape != shape and result_shape([one.shape, shape]) != one.shape:
                raise ValueError("Out shape is mismatched")
        where = device()
        out = outs[0] if len(outs) == 1 else tuple(outs)
        arguments = encode_arguments(inputs, {"out": out})
        where.post(where.head(self.full_name, 0) + arguments)
        return out

    def _check_integers(self, inputs: Sequence[Any]) -> None:
        """A Python integer must fit the dtype of its partners.

        Raises:
            NoRule: it may not; the server says what CuPy would.
        """
        if not any(type(one) is int for one in inputs):
            return
        found = [one for one in inputs if type(one) is not int]
        dtypes = [operand_dtype(one) for one in found]
        kinds = [
            one for one in dtypes if isinstance(one, np.dtype) and one.kind in "iu"
        ]
        for value in inputs:
            if type(value) is int:
                for dtype in kinds:
                    info = INTEGERS[dtype.char]
                    if not info.min <= value <= info.max:
                        raise NoRule
                if not -(1 << 63) <= value < 1 << 63:
                    raise NoRule

    def result_dtypes(
        self, operands: tuple[Any, ...]
    ) -> tuple[np.dtype[Any], ...] | None:
        """Dtypes of the results; None where the server has to say.

        Raises:
            TypeError: there is no loop for these.
        """
        try:
            return self._dtypes[operands]
        except KeyError:
            found = self._dtypes[operands] = self._resolve(operands)
            return found

    def _resolve(self, operands: tuple[Any, ...]) -> tuple[np.dtype[Any], ...] | None:
        assert self._local is not None
        if all(isinstance(one, type) for one in operands):
            if self.nout != 1:
                return None
            ones = [one(1) for one in operands]
            return (np.asarray(self._local(*ones)).dtype,)
        every = self._local.resolve_dtypes(operands + (None,) * self.nout)
        results = every[self.nin :]
        if any(one.char not in CODE_OF_CHAR for one in results):
            raise TypeError(
                f"Wrong type ({', '.join(map(str, operands))}) of arguments for"
                f" {self.name}"
            )
        return tuple(results)


ufunc.__module__ = "cupy"
