"""``cupy.cublas``: products of vectors and matrices, by functions of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, TypeVar

import numpy as np

from xpool.cupy.finder import module
from xpool.cupy.functions import call
from xpool.cupy.ndarray import ndarray

F = TypeVar("F", bound=Callable[..., Any])
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {}
_limits: Final = {"batched_gesv": 256}


def _offered(function: F) -> F:
    _FUNCTIONS[function.__name__] = function
    return function


@module("cupy.cublas")
def fill_cublas(made: ModuleType) -> None:
    """The functions of this file."""
    vars(made).update(_FUNCTIONS)


def _check_dtype(array: ndarray) -> None:
    if array.dtype.char not in "fdFD":
        raise TypeError("invalid dtype")


def _check_vectors(**vectors: Any) -> None:
    """Vectors of one length and one dtype, which cuBLAS has functions for.

    Raises:
        ValueError: one is no vector, or their lengths differ.
        TypeError: their dtypes differ, or cuBLAS does not compute with them.
    """
    for name, one in vectors.items():
        if one.ndim != 1:
            raise ValueError(f"{name} must be a 1D array (actual: {one.ndim})")
    first, *others = vectors.values()
    for one in others:
        if one.size != first.size:
            raise ValueError(
                f"x and y must be the same size (actual: {first.size} and {one.size})"
            )
        if one.dtype != first.dtype:
            raise TypeError(
                f"x and y must be the same dtype (actual: {first.dtype} and"
                f" {one.dtype})"
            )
    _check_dtype(first)


def _put(result: Any, out: Any) -> Any:
    if out is None:
        return result
    out[...] = result if isinstance(out, ndarray) else result.get()
    return out


def _sizes(x: Any) -> Any:
    """What cuBLAS compares and adds: of complex items both parts' sizes."""
    if x.dtype.kind == "c":
        return abs(x.real) + abs(x.imag)
    return abs(x)


@_offered
def asum(x: Any, out: Any = None) -> Any:
    """The sum of the items' sizes; of complex items those of both parts."""
    _check_vectors(x=x)
    return _put(_sizes(x).sum(), out)


@_offered
def nrm2(x: Any, out: Any = None) -> Any:
    """The Euclidean norm of a vector, without dimensions."""
    _check_vectors(x=x)
    return _put(call("cupy.linalg.norm", (x,), {}), out)


@_offered
def iamax(x: Any, out: Any = None) -> Any:
    """The number of the largest item in size, counted from 1."""
    _check_vectors(x=x)
    return _put((_sizes(x).argmax() + 1).astype("i"), out)


@_offered
def iamin(x: Any, out: Any = None) -> Any:
    """The number of the smallest item in size, counted from 1."""
    _check_vectors(x=x)
    return _put((_sizes(x).argmin() + 1).astype("i"), out)


@_offered
def dot(x: Any, y: Any, out: Any = None) -> Any:
    """The product of two real vectors.

    Raises:
        TypeError: they are complex.
    """
    _check_vectors(x=x, y=y)
    if x.dtype.kind == "c":
        raise TypeError("invalid dtype")
    return _put(call("cupy.dot", (x, y), {}), out)


def _check_complex(x: Any, y: Any) -> None:
    _check_vectors(x=x, y=y)
    if x.dtype.kind != "c":
        raise TypeError("invalid dtype")


@_offered
def dotu(x: Any, y: Any, out: Any = None) -> Any:
    """The product of two complex vectors, none of them conjugated."""
    _check_complex(x, y)
    return _put(call("cupy.dot", (x, y), {}), out)


@_offered
def dotc(x: Any, y: Any, out: Any = None) -> Any:
    """The product of two complex vectors, the first one conjugated."""
    _check_complex(x, y)
    return _put(call("cupy.dot", (x.conj(), y), {}), out)


def _scalar(value: Any, array: Any) -> Any:
    """A factor in an array's dtype."""
    if isinstance(value, ndarray):
        return value.astype(array.dtype).reshape(())
    return array.dtype.type(value)


@_offered
def axpy(a: Any, x: Any, y: Any) -> None:
    """Add ``a * x`` to ``y``, in place."""
    _check_vectors(x=x, y=y)
    y += _scalar(a, x) * x


@_offered
def scal(a: Any, x: Any) -> None:
    """Multiply ``x`` by ``a``, in place."""
    _check_vectors(x=x)
    x *= _scalar(a, x)


def _turned(trans: Any, a: Any) -> Any:
    """A matrix as an operation names it: as it is, transposed, or conjugated too.

    Raises:
        TypeError: it is none of ``N``, ``T``, ``H``, ``C``, or cuBLAS's numbers.
    """
    if trans in ("N", "n", 0):
        return a
    if trans in ("T", "t", 1):
        return a.T
    if trans in ("H", "h", "C", "c", 2):
        return a.T.conj()
    raise TypeError(f"invalid trans (actual: {trans})")


@_offered
def gemv(transa: Any, alpha: Any, a: Any, x: Any, beta: Any, y: Any) -> None:
    """``y = alpha * op(a) @ x + beta * y``, in place."""
    _check_dtype(a)
    product = _scalar(alpha, a) * call("cupy.dot", (_turned(transa, a), x), {})
    y[...] = product + (_scalar(beta, a) * y if _is_used(beta) else 0)


def _is_used(beta: Any) -> bool:
    return isinstance(beta, ndarray) or beta != 0


@_offered
def ger(alpha: Any, x: Any, y: Any, a: Any) -> None:
    """Add ``alpha * outer(x, y)`` to ``a``, in place."""
    _check_dtype(a)
    a += _scalar(alpha, a) * x[:, None] * y


@_offered
def geru(alpha: Any, x: Any, y: Any, a: Any) -> None:
    """``ger`` of complex arrays."""
    ger(alpha, x, y, a)


@_offered
def gerc(alpha: Any, x: Any, y: Any, a: Any) -> None:
    """``ger`` of complex arrays, the second vector conjugated."""
    ger(alpha, x, y.conj(), a)


@_offered
def gemm(
    transa: Any,
    transb: Any,
    a: Any,
    b: Any,
    out: Any = None,
    alpha: Any = 1.0,
    beta: Any = 0.0,
) -> Any:
    """``alpha * op(a) @ op(b) + beta * out``; without ``out`` in Fortran's order."""
    _check_dtype(a)
    product = call("cupy.matmul", (_turned(transa, a), _turned(transb, b)), {})
    product = _scalar(alpha, a) * product
    if out is None:
        return call("cupy.asfortranarray", (product,), {})
    out[...] = product + (_scalar(beta, a) * out if _is_used(beta) else 0)
    return out


@_offered
def geam(
    transa: Any, transb: Any, alpha: Any, a: Any, beta: Any, b: Any, out: Any = None
) -> Any:
    """``alpha * op(a) + beta * op(b)``; without ``out`` in Fortran's order."""
    _check_dtype(a)
    found = _scalar(alpha, a) * _turned(transa, a)
    found = found + _scalar(beta, a) * _turned(transb, b)
    if out is None:
        return call("cupy.asfortranarray", (found,), {})
    out[...] = found
    return out


@_offered
def get_batched_gesv_limit() -> int:
    """Rows of matrices up to which cuBLAS is said to solve many of them well."""
    return _limits["batched_gesv"]


@_offered
def set_batched_gesv_limit(limit: int) -> None:
    """Only warned by: the server decides how many equations are solved."""
    _limits["batched_gesv"] = limit


@_offered
def batched_gesv(a: Any, b: Any) -> Any:
    """Solves ``a @ x = b`` for many matrices at once.

    Args:
        a: shape ``(..., m, m)``.
        b: shape ``(..., m)`` or ``(..., m, k)``.

    Raises:
        numpy.linalg.LinAlgError: the last axes of ``a`` differ in length.
        ValueError: the shapes do not fit.
    """
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise np.linalg.LinAlgError("Last 2 dimensions of the array must be square")
    is_vectors = b.ndim == a.ndim - 1
    if (not is_vectors and b.ndim != a.ndim) or b.shape[: a.ndim - 1] != a.shape[:-1]:
        raise ValueError(f"for matrices of shape {a.shape} b can't have {b.shape}")
    if a.shape[-1] > get_batched_gesv_limit():
        warnings.warn(
            f"The matrix size ({a.shape[-1]}) exceeds the set limit"
            f" ({get_batched_gesv_limit()})",
            stacklevel=2,
        )
    if not is_vectors:
        return call("cupy.linalg.solve", (a, b), {})
    return call("cupy.linalg.solve", (a, b[..., None]), {})[..., 0]
