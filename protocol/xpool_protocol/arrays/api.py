"""The table of CuPy's names: what a client offers, and all that a server calls.

Read once, from ``api.json``, which ``generate.py`` makes from CuPy itself.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).with_name("api.json")

UFUNC_METHODS: Final = frozenset({"reduce", "accumulate", "reduceat", "outer", "at"})

ARRAY_DUNDERS: Final = frozenset({"__getitem__", "__setitem__"})
"""Methods of an array with underscores that may be called by name."""


LOCAL_MODULES: Final = frozenset(
    [
        "cupy.cuda",
        "cupy.cuda.runtime",
        "cupy.testing",
        "cupyx.profiler",
    ]
)
"""Modules whose names no server calls: devices, addresses, the program's own files."""

LOCAL_NAMES: Final = frozenset(
    f"{module}.{name}"
    for module, names in {
        "cupy": (
            *("DataSource", "ElementwiseKernel", "RawKernel", "RawModule"),
            *("ReductionKernel", "apply_along_axis", "apply_over_axes"),
            *("byte_bounds", "clear_memo", "disp", "dtype", "format_parser"),
            *("fromDlpack", "from_dlpack", "fromfile", "fromfunction", "fuse"),
            *("generic", "genfromtxt", "get_array_wrap", "get_default_memory_pool"),
            *("get_default_pinned_memory_pool", "load", "loadtxt", "memoize"),
            *("piecewise", "safe_eval", "save", "savetxt", "savez"),
            *("savez_compressed", "set_string_function", "show_config", "ufunc"),
            *("vectorize", "who"),
        ),
        "cupyx": (
            *("GeneralizedUFunc", "allow_synchronize", "empty_like_pinned"),
            *("empty_pinned", "errstate", "get_runtime_info", "geterr", "seterr"),
            *("zeros_like_pinned", "zeros_pinned"),
        ),
        "cupyx.scipy.sparse": ("load_npz", "save_npz"),
        "cupyx.scipy.sparse.linalg": ("LinearOperator",),
        "ndarray": (
            *("data", "dump", "dumps", "reduced_view", "set", "setflags"),
            *("toDlpack", "tofile"),
        ),
    }.items()
    for name in names
)
"""Names that no server calls: files, functions of the program, source, raw memory."""

LOCAL_MEMBERS: Final = frozenset(["construct_fast", "get", "set", "from_spline"])
"""Methods of classes that no server calls: they skip checks, or are the client's."""

OWN_ATTRIBUTES: Final = (
    (("csr_matrix", "csr_array"), ("data", "indices", "indptr")),
    (("csc_matrix", "csc_array"), ("data", "indices", "indptr")),
    (("coo_matrix", "coo_array"), ("data", "row", "col", "has_canonical_format")),
    (("dia_matrix", "dia_array"), ("data", "offsets")),
    (("SuperLU",), ("shape", "nnz", "perm_r", "perm_c", "L", "U")),
    (("BarycentricInterpolator",), ("axis", "xi", "yi", "wi", "n", "r")),
    (
        ("RegularGridInterpolator",),
        ("grid", "values", "method", "bounds_error", "fill_value"),
    ),
    (("interp1d",), ("x", "y", "axis", "copy", "bounds_error")),
    (
        ("Spline", "PPoly", "BPoly", "Interpolator"),
        ("x", "c", "t", "k", "axis", "extrapolate"),
    ),
    (("Delaunay",), ("points", "simplices", "neighbors")),
    (("KDTree",), ("data", "n", "m", "leafsize")),
)
"""Attributes that objects get when they are made, by the end of the class's name."""

SETTABLE: Final = {
    **dict.fromkeys(
        ("interp1d", "RegularGridInterpolator"),
        frozenset({"bounds_error", "fill_value"}),
    ),
    **dict.fromkeys(("BSpline", "PPoly", "BPoly"), frozenset({"c", "extrapolate"})),
    **{
        f"{layout}_{kind}": frozenset(names)
        for layout, names in {
            "csr": ("indices", "indptr"),
            "csc": ("indices", "indptr"),
            "coo": ("row", "col"),
            "dia": ("offsets",),
        }.items()
        for kind in ("matrix", "array")
    },
}
"""Attributes that may be set, by the class, beside a matrix's data, shape and flags."""

DERIVED: Final = ("Continuous", "Discrete")
"""Ends of the names of classes whose objects their bases in the table make."""

_ARITHMETIC: Final = (
    *("add", "sub", "mul", "truediv", "floordiv", "div", "mod", "divmod", "pow"),
    *("matmul", "and", "or", "xor"),
)
OBJECT_DUNDERS: Final = frozenset(
    [f"__{prefix}{name}__" for name in _ARITHMETIC for prefix in ("", "r", "i")]
    + [f"__{name}__" for name in ("lt", "le", "eq", "ne", "gt", "ge", "neg", "pos")]
    + [f"__{name}__" for name in ("abs", "getitem", "setitem", "call", "len", "bool")]
)
"""Operators of classes that the table may list as members."""


@functools.cache
def api() -> dict[str, dict[str, list[Any]]]:
    """Module, name, entry: ``[kind, …]`` as ``generate.entry`` makes it."""
    found: dict[str, dict[str, list[Any]]] = json.loads(PATH.read_text())
    return found


def cupy_version() -> str:
    """The CuPy that the table was made from."""
    return str(api()[""]["version"][1]).strip("'")


def is_allowed(name: str) -> bool:
    """Whether an operation of this name may be called at all.

    >>> is_allowed("cupy.add"), is_allowed("cupy.add.reduce"), is_allowed("os.system")
    (True, True, False)
    >>> is_allowed("ndarray.sum"), is_allowed("ndarray.__getitem__")
    (True, True)
    >>> is_allowed("cupy.random.Generator.normal"), is_allowed("cupy.__dict__")
    (True, False)
    >>> is_allowed("cupy.load"), is_allowed("ndarray.tofile")
    (False, False)
    """
    module, _, last = name.rpartition(".")
    if name in LOCAL_NAMES or module in LOCAL_NAMES or module in LOCAL_MODULES:
        return False
    if module == "ndarray":
        return last in ARRAY_DUNDERS or last in api()["cupy"]["ndarray"][3]
    if last.startswith("_") and last not in OBJECT_DUNDERS:
        return False
    if module in api():
        return api()[module].get(last, ["module"])[0] in ("ufunc", "function", "class")
    outer, _, owner = module.rpartition(".")
    what = api().get(outer, {}).get(owner)
    if what is None or outer in LOCAL_MODULES or last in LOCAL_MEMBERS:
        return False
    if what[0] == "ufunc":
        return last in UFUNC_METHODS
    return what[0] == "class" and what[3].get(last) is not None


@functools.cache
def readable(type_name: str) -> frozenset[str]:
    """Attributes of objects on the server that a client may read, by their class.

    >>> "nnz" in readable("csr_matrix"), "__dict__" in readable("csr_matrix")
    (True, False)
    >>> "indices" in readable("csr_matrix"), "poles" in readable("StateSpaceDiscrete")
    (True, True)
    """
    own = next((has for ends, has in OWN_ATTRIBUTES if type_name.endswith(ends)), ())
    names = {type_name, *(type_name.removesuffix(one) for one in DERIVED)}
    return frozenset(own) | frozenset(
        name
        for entries in api().values()
        for one, what in entries.items()
        if one in names and what[0] == "class"
        for name, member in what[3].items()
        if member is None and not name.startswith("_")
    )
