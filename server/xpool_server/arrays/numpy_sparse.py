"""CuPy's sparse matrices on a CPU: SciPy's, made only of parts that fit together.

SciPy's compiled code believes indices. So they are copied, out of a client's reach, and
checked whole when a matrix is made; what a client reads of them is a copy, too.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool_server.arrays import sparse_pairs

INDICES: Final = frozenset(("indices", "indptr", "row", "col", "offsets"))
"""Attributes of which a client gets a copy."""

KINDS: Final = tuple(
    f"{layout}_{kind}"
    for layout in ("coo", "csr", "csc", "dia")
    for kind in ("matrix", "array")
)
_OTHER_KINDS: Final = frozenset(
    f"{layout}_{kind}"
    for layout in ("bsr", "dok", "lil")
    for kind in ("matrix", "array")
)
_TYPES: Final = "?fdFD"


@functools.cache
def _scipy() -> Any:
    import scipy.sparse

    return scipy.sparse


def is_sparse(found: Any) -> bool:
    """Whether it is one of SciPy's matrices."""
    return type(found).__name__ in KINDS and _scipy().issparse(found)


def _maker(name: str) -> Callable[..., Any]:
    def make(
        arg1: Any,
        shape: Any = None,
        dtype: Any = None,
        copy: bool = False,
        maxprint: int | None = None,
        **_: Any,
    ) -> Any:
        kind = getattr(_scipy(), name)
        if isinstance(arg1, tuple) and not _is_shape(arg1):
            arg1 = _own_parts(arg1)
        if isinstance(arg1, np.ndarray) and arg1.ndim > 2:
            error = ValueError if name.startswith("cs") else TypeError
            raise error("expected dimension <= 2 array or matrix")
        made = kind(arg1, shape=shape, dtype=dtype, copy=copy)
        if made.dtype.char not in _TYPES:
            if dtype is not None or _given_dtype(arg1) is not None:
                raise ValueError(
                    "Only bool, float32, float64, complex64 and complex128"
                    " are supported"
                )
            made = made.astype(np.float64)
        if made.nnz and made.data.ndim and not _is_shape(arg1):
            check(made)
        if maxprint is not None:
            made.maxprint = int(maxprint)
        return made

    return make


def _given_dtype(arg1: Any) -> Any:
    return getattr(arg1, "dtype", None) or next(
        (getattr(one, "dtype", None) for one in arg1 if hasattr(one, "dtype")), None
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, int) for one in value)


def _own_parts(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Data as it is, indices as copies."""
    data, *rest = parts
    return (data, *(_copied(one) for one in rest))


def _copied(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_copied(one) for one in value)
    return np.array(value)


def check(made: Any) -> None:
    """Refuse indices that lead outside.

    Raises:
        ValueError: one does.
    """
    if hasattr(made, "check_format"):
        made.check_format(full_check=True)
        return
    if made.format == "coo":
        for at, size in zip(made.coords, made.shape, strict=True):
            if at.size and (at.min() < 0 or at.max() >= size):
                raise ValueError("index exceeds the matrix dimensions")


def set_attribute(made: Any, name: str, value: Any) -> None:
    """Set what can be set without the parts ceasing to fit together.

    Raises:
        AttributeError: it can't be set.
        ValueError: other data or indices than before, by shape or dtype.
    """
    if name in ("has_canonical_format", "has_sorted_indices") and value in (0, 1):
        setattr(made, name, bool(value))
    elif name == "shape":
        made.set_shape(tuple(value))
    elif name == "data" and isinstance(value, np.ndarray):
        if value.shape != made.data.shape or value.dtype.char not in _TYPES:
            raise ValueError(
                f"the data of this matrix has shape {made.data.shape}, not"
                f" {value.shape} {value.dtype}"
            )
        made.data = value
    elif name in INDICES and hasattr(made, name):
        _set_indices(made, name, value)
    else:
        raise AttributeError(f"{type(made).__name__}.{name} can't be set")


def _set_indices(made: Any, name: str, value: Any) -> None:
    """Put a copy of indices in the place of as many others, if they lead nowhere else.

    Raises:
        ValueError: they do, or are other than the ones before.
    """
    before = getattr(made, name)
    if not isinstance(value, np.ndarray) or value.dtype.char not in "ilq":
        raise ValueError(f"{name} takes an array of int32 or int64")
    if value.shape != before.shape:
        raise ValueError(f"{name} has shape {before.shape}, not {value.shape}")
    if name == "offsets" and len(np.unique(value)) != len(value):
        raise ValueError("offset array contains duplicate values")
    setattr(made, name, value.copy())
    try:
        check(made)
    except ValueError:
        setattr(made, name, before)
        raise
    for flag in ("_has_sorted_indices", "_has_canonical_format"):
        vars(made).pop(flag, None)
    if made.format == "coo":
        made.has_canonical_format = False


def _with_out(kind: str, name: str) -> Callable[..., Any]:
    """``sum`` and ``mean``: ``out`` is an array as the result is, no matrix."""

    def run(self: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        found = plain(getattr(getattr(_scipy(), kind), name)(self, axis, dtype))
        if out is None:
            return found
        found = np.asarray(found)
        if out.shape != found.shape:
            raise ValueError("dimensions do not match")
        out[...] = found
        return out

    return run


def _by_scalar(kind: str, name: str) -> Callable[..., Any]:
    """Division by a number, zero too, by whose inverse the rows' items are multiplied.

    CuPy compresses by rows whatever is divided, and counts single reals as doubles.
    """

    def divide(self: Any, other: Any) -> Any:
        if not (np.isscalar(other) or getattr(other, "ndim", 1) == 0):
            return getattr(getattr(_scipy(), kind), name)(self, other)
        wide = np.dtype("d") if self.dtype == np.float32 else self.dtype
        dtype = np.result_type(wide, other)
        if dtype.char not in _TYPES or dtype == np.bool_:
            dtype = np.dtype("d")
        found = self.tocsr(copy=True)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found.data = found.data * np.reciprocal(np.asarray(other, dtype))
        return found

    return divide


def _in_c_order(kind: str) -> Callable[..., Any]:
    """``toarray`` lays rows out one by one unless it is told otherwise."""

    def toarray(self: Any, order: Any = None, out: Any = None) -> Any:
        found = getattr(_scipy(), kind).toarray(self, order=order or "C")
        if out is None:
            return found
        out[...] = found
        return out

    return toarray


def check_format(found: Any) -> None:
    """Refuse a matrix of a class that CuPy has not.

    Raises:
        NotImplementedError: it is compressed by blocks, or one that is being built.
    """
    if type(found).__name__ in _OTHER_KINDS and _scipy().issparse(found):
        raise NotImplementedError(
            f"CuPy has no sparse matrices of the format {found.format!r}: ask for"
            " 'coo', 'csr', 'csc' or 'dia'"
        )


def kron(A: Any, B: Any, format: Any = None) -> Any:  # noqa: A002, N803  CuPy's names
    """By coordinates unless another format is asked for; SciPy looks at the items."""
    return _scipy().kron(A, B, format or "coo")


def diags(*args: Any, **kwargs: Any) -> Any:
    """Of integers an array of doubles, of which SciPy says that it will not last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return _scipy().diags(*args, **kwargs)


def plain(found: Any) -> Any:
    """A dense result as CuPy has it: no ``numpy.matrix``."""
    return np.asarray(found) if isinstance(found, np.matrix) else found


OWN: Final[dict[str, Callable[..., Any]]] = {
    **{f"cupyx.scipy.sparse.{name}": _maker(name) for name in KINDS},
    **{
        f"cupyx.scipy.sparse.{kind}.{name}": _with_out(kind, name)
        for kind in KINDS
        for name in ("sum", "mean")
    },
    **{f"cupyx.scipy.sparse.{kind}.toarray": _in_c_order(kind) for kind in KINDS},
    **{
        f"cupyx.scipy.sparse.{kind}.__truediv__": _by_scalar(kind, "__truediv__")
        for kind in KINDS
    },
    "cupyx.scipy.sparse.diags": diags,
    "cupyx.scipy.sparse.kron": kron,
    **sparse_pairs.own(KINDS),
}
