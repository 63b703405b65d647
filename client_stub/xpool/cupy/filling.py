"""Gives a module every public name that CuPy's module of that name has."""

from __future__ import annotations

import ast
import importlib
import math
import sys
from types import ModuleType
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy import finder
from xpool.cupy.device import WARNINGS
from xpool.cupy.functions import function_of
from xpool.cupy.ufunc import ufunc

HOST: Final = frozenset(
    [
        "promote_types",
        "broadcast_shapes",
        "issubdtype",
        "finfo",
        "iinfo",
        "dtype",
        "typename",
        "mintypecode",
        "isdtype",
        "iterable",
        "format_float_positional",
        "format_float_scientific",
        "set_printoptions",
        "get_printoptions",
        "printoptions",
        "index_exp",
        "s_",
        "newaxis",
        "ndindex",
        "DataSource",
        "format_parser",
    ]
)
"""Names of ``cupy`` that have nothing to do with arrays on a device: NumPy's own."""

CLASSES: Final[dict[str, Any]] = {}
"""Classes that are written by hand, by full name."""

_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

SAME: Final = {"cupyx.scipy.special": {"psi": "digamma"}}
"""Second names of one object, by module."""

INSTEAD: Final = {
    "cupy.alen": "len",
    "cupy.asscalar": "ndarray.item",
    "cupy.block": "cupy.concatenate, or cupy.vstack of cupy.hstack",
    "cupy.bool8": "cupy.bool_",
    "cupy.char": "strings on the host",
    "cupy.core": "cupy",
    "cupy.cuda.cub": "cupy's functions, which use it on a GPU",
    "cupy.cuda.function": "cupy.RawModule",
    "cupy.cuda.nvrtc": "cupy.RawModule",
    "cupy.cuda.texture": "cupyx.scipy.ndimage.map_coordinates",
    "cupy.cuda.thrust": "cupy.sort and cupy.argsort",
    "cupy.errstate": "cupyx.errstate",
    "cupy.float": "float",
    "cupy.frompyfunc": "cupy.vectorize",
    "cupy.geomspace": "cupy.logspace",
    "cupy.histogram_bin_edges": "the second result of cupy.histogram",
    "cupy.insert": "cupy.concatenate",
    "cupy.int": "int",
    "cupy.linalg.matrix_norm": "cupy.linalg.norm",
    "cupy.linalg.multi_dot": "the operator @",
    "cupy.linalg.svdvals": "cupy.linalg.svd with compute_uv=False",
    "cupy.linalg.vector_norm": "cupy.linalg.norm",
    "cupy.ma": "cupy.where, or nan and cupy.nanmean and its kin",
    "cupy.mat": "cupy.asarray",
    "cupy.matrix": "cupy.asarray",
    "cupy.memmap": "cupy.asarray(numpy.memmap(...))",
    "cupy.nanpercentile": "cupy.percentile of array[~cupy.isnan(array)]",
    "cupy.nanquantile": "cupy.quantile of array[~cupy.isnan(array)]",
    "cupy.ndenumerate": "cupy.ndindex",
    "cupy.nditer": "operations on whole arrays",
    "cupy.object": "an array of numbers",
    "cupy.prof": "cupyx.profiler",
    "cupy.random.MT19937": "cupy.random.XORWOW",
    "cupy.random.PCG64": "cupy.random.XORWOW",
    "cupy.random.Philox": "cupy.random.Philox4x3210",
    "cupy.rec": "arrays with fields: cupy.zeros(n, dtype=[(name, type), ...])",
    "cupy.seterr": "cupyx.seterr",
    "cupy.sparse": "cupyx.scipy.sparse",
    "cupy.unstack": "tuple(cupy.moveaxis(array, axis, 0))",
    "cupy.util": "cupyx",
    "cupy.vecdot": "cupy.einsum",
}
"""What to use where programs look for a name that CuPy, or xpool, has not."""


def fill(module: ModuleType) -> None:
    """Add what the table has and the module has not yet."""
    name = module.__name__
    for attribute, what in api().get(name, {}).items():
        if attribute in module.__dict__:
            continue
        if what[0] == "module":
            full = f"{name}.{attribute}"
            is_made = full in api() or full in finder.MAKERS
            if is_made and full not in finder.LEFT_ALONE:
                setattr(module, attribute, importlib.import_module(full))
            continue
        value = _value(name, attribute, what)
        if value is not _NOTHING:
            setattr(module, attribute, value)
    for alias, same in SAME.get(name, {}).items():
        setattr(module, alias, getattr(module, same))
    if "__getattr__" not in module.__dict__:
        module.__getattr__ = _missing(name)  # type: ignore[method-assign]


_NOTHING: Final = object()


def _value(module: str, name: str, what: list[Any]) -> Any:
    full = f"{module}.{name}"
    if full in CLASSES:
        return CLASSES[full]
    local = getattr(np, name, _NOTHING) if module == "cupy" else _NOTHING
    if name in HOST and local is not _NOTHING:
        return local
    match what[0]:
        case "ufunc":
            return ufunc(module, name, what[1], what[2])
        case "function":
            return function_of(module, name, what[1], what[2])
        case "exception":
            return _exception(module, name, what[1])
        case "class":
            if isinstance(local, type) and issubclass(local, np.generic):
                return local
            if module == "cupy" and name in _RENAMED:
                return _RENAMED[name]
            return _not_yet(full, what)
        case "constant":
            text = what[1]
            return _FLOATS[text] if text in _FLOATS else ast.literal_eval(text)
        case _:
            return local


_RENAMED: Final = {
    "float_": np.float64,
    "complex_": np.complex128,
    "cfloat": np.complex128,
    "singlecomplex": np.complex64,
}


def _exception(module: str, name: str, bases: list[str]) -> Any:
    for where in (np.exceptions, np.linalg, np):
        found = getattr(where, name, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    import builtins

    base = next(
        (
            found
            for one in bases
            if isinstance(found := getattr(builtins, one, None), type)
        ),
        Exception,
    )
    beside = next((one for one in bases if one in api()[module]), None)
    if beside is not None:
        base = _value(module, beside, api()[module][beside])
    made = type(name, (base,), {"__module__": module})
    CLASSES[f"{module}.{name}"] = made
    if issubclass(made, Warning):
        WARNINGS.setdefault(name, made)
    return made


def _not_yet(full: str, what: list[Any]) -> Any:
    """A class that programs may name, and that says what it lacks when it is used."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"xpool: {full} is not available in the pool yet")

    module, _, name = full.rpartition(".")
    doc = what[2] if len(what) > 2 else ""
    return type(name, (), {"__init__": refuse, "__module__": module, "__doc__": doc})


def _missing(module: str) -> Any:
    def missing(name: str) -> Any:
        full = f"{module}.{name}"
        if full in api() or full in finder.MAKERS:
            return importlib.import_module(full)
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}{_instead(module, name)}",
            name=name,
            obj=sys.modules.get(module),
        )

    return missing


def _instead(module: str, name: str) -> str:
    """What else to use, as the end of a sentence."""
    hint = INSTEAD.get(f"{module}.{name}")
    if hint is not None:
        return f"; use {hint}"
    if name in api().get(module, {}):
        return ": xpool does not offer it yet"
    if name.startswith("_"):
        return ""
    if module == "cupy.linalg" and name in api()["cupy"]:
        return f"; use cupy.{name}"
    theirs = module.replace("cupyx.", "", 1).replace("cupy", "numpy", 1)
    host = sys.modules.get(theirs)
    if host is None or name not in vars(host):
        return ""
    if not callable(vars(host)[name]):
        return f"; CuPy has none: {theirs}.{name} is for the host"
    return f"; CuPy has none: use {theirs}.{name} on the host, with array.get()"
