"""Linear algebra whose result has a known shape, and ``einsum``.

CuPy checks neither a solve nor an inverse unless the program asks for it, by
``cupyx.errstate(linalg="raise")``: what comes out of a singular matrix means nothing.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from xpool.cupy.functions import RESULT_NAMES, rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray

REAL: Final[dict[str, np.dtype[Any]]] = {"F": np.dtype("f"), "D": np.dtype("d")}


def matrix(a: Any, *, is_square: bool = False) -> Geometry:
    """A matrix's geometry, or a stack's, of a dtype that nothing converts.

    Raises:
        NoRule: it is another thing.
    """
    if type(a) is not ndarray:
        raise NoRule
    geo = a._geo
    if geo.ndim < 2 or not geo.size or geo.dtype.char not in "fdFD":
        raise NoRule
    if is_square and geo.shape[-1] != geo.shape[-2]:
        raise NoRule
    return geo


@rule("cupy.linalg.det")
def det(a: Any) -> Geometry:
    """A determinant for each matrix."""
    geo = matrix(a, is_square=True)
    return geometry(geo.shape[:-2], geo.dtype)


@rule("cupy.linalg.norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Geometry:  # noqa: A002  CuPy's name
    """The usual norm of everything, or of vectors along an axis."""
    if type(x) is not ndarray or type(keepdims) is not bool:
        raise NoRule
    geo = x._geo
    if geo.dtype.char not in "fdFD" or not geo.size:
        raise NoRule
    dtype = REAL.get(geo.dtype.char, geo.dtype)
    is_vector = geo.ndim == 1 and ord in (1, 2, math.inf, -math.inf)
    if axis is None and (ord is None or is_vector):
        return geometry((1,) * geo.ndim if keepdims else (), dtype)
    if ord not in (None, 1, 2) or type(axis) is not int:
        raise NoRule
    if not -geo.ndim <= axis < geo.ndim:
        raise NoRule
    at = axis % geo.ndim
    kept = (1,) if keepdims else ()
    return geometry((*geo.shape[:at], *kept, *geo.shape[at + 1 :]), dtype)


@rule("cupy.linalg.matrix_power")
def matrix_power(M: Any, n: Any) -> Geometry:  # noqa: N803  CuPy's name
    """A power that needs no inverse."""
    geo = matrix(M, is_square=True)
    if type(n) is not int or n < 0:
        raise NoRule
    return geo


@rule("cupy.trace")
def trace(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1) -> Geometry:
    """The sum of a diagonal."""
    geo = matrix(a)
    if type(offset) is not int or (axis1, axis2) != (0, 1):
        raise NoRule
    return geometry(geo.shape[2:], geo.dtype)


@rule("cupy.einsum")
def einsum(*operands: Any, **kwargs: Any) -> Geometry:
    """Products and sums by letters; NumPy says what it means, on nothing."""
    is_typed = kwargs.get("dtype") is not None
    if is_typed or kwargs.keys() - {"optimize", "dtype"} or not operands:
        raise NoRule
    subscripts, *arrays = operands
    if type(subscripts) is not str or any(type(one) is not ndarray for one in arrays):
        raise NoRule
    if "." in subscripts:
        raise NoRule
    terms, arrow, result = subscripts.replace(" ", "").partition("->")
    inputs = terms.split(",")
    sizes: dict[str, int] = {}
    if len(inputs) != len(arrays):
        raise NoRule
    for term, array in zip(inputs, arrays, strict=True):
        shape = array._geo.shape
        if len(term) != len(shape) or not term.isalpha() & term.isascii():
            raise NoRule
        for letter, size in zip(term, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise NoRule
    if not arrow:
        letters = terms.replace(",", "")
        result = "".join(sorted(one for one in sizes if letters.count(one) == 1))
    if len(set(result)) != len(result) or not set(result) <= sizes.keys():
        raise NoRule
    if len(arrays) == 1 and len(result) == len(sizes):
        raise NoRule  # a view, where nothing is summed
    shape = tuple([sizes[one] for one in result])
    return geometry(shape, np.result_type(*[one._geo.dtype for one in arrays]))


@rule("cupy.linalg.inv", "cupy.linalg.cholesky")
def same_matrix(a: Any) -> Geometry:
    """As large as what is given."""
    return matrix(a, is_square=True)


@rule("cupy.linalg.solve")
def solve(a: Any, b: Any) -> Geometry:
    """One right side, or the columns of a matrix of them, for each matrix."""
    geo = matrix(a, is_square=True)
    if type(b) is not ndarray or b._geo.dtype != geo.dtype:
        raise NoRule
    if geo.ndim > 2:
        if b._geo.shape[:-1] != geo.shape[:-1] or not b._geo.size:
            raise NoRule
        return b._geo
    if b._geo.ndim not in (1, 2) or b._geo.shape[0] != geo.shape[0] or not b._geo.size:
        raise NoRule
    return b._geo


@rule("cupy.linalg.eigvalsh")
def eigvalsh(a: Any, UPLO: Any = "L") -> Geometry:  # noqa: N803  CuPy's name
    """Real values, one for each row."""
    geo = matrix(a, is_square=True)
    if UPLO not in ("L", "U"):
        raise NoRule
    return geometry(geo.shape[:-1], REAL.get(geo.dtype.char, geo.dtype))


@rule("cupy.linalg.eigh")
def eigh(a: Any, UPLO: Any = "L") -> list[Geometry]:  # noqa: N803  CuPy's name
    """Values and vectors."""
    return [eigvalsh(a, UPLO), a._geo]


@rule("cupy.linalg.qr")
def qr(a: Any, mode: Any = "reduced") -> list[Geometry]:
    """Both factors, as small as they may be."""
    geo = matrix(a)
    if mode != "reduced":
        raise NoRule
    *batch, rows, columns = geo.shape
    least = min(rows, columns)
    return [
        geometry((*batch, rows, least), geo.dtype),
        geometry((*batch, least, columns), geo.dtype),
    ]


@rule("cupy.linalg.svd")
def svd(
    a: Any, full_matrices: Any = True, compute_uv: Any = True
) -> Geometry | list[Geometry]:
    """Singular values, and both bases."""
    geo = matrix(a)
    if type(full_matrices) is not bool or type(compute_uv) is not bool:
        raise NoRule
    *batch, rows, columns = geo.shape
    least = min(rows, columns)
    values = geometry((*batch, least), REAL.get(geo.dtype.char, geo.dtype))
    if not compute_uv:
        return values
    left, right = (rows, columns) if full_matrices else (least, least)
    return [
        geometry((*batch, rows, left), geo.dtype),
        values,
        geometry((*batch, right, columns), geo.dtype),
    ]


RESULT_NAMES.update(
    {
        "cupy.linalg.eigh": ("EighResult", ("eigenvalues", "eigenvectors")),
        "cupy.linalg.qr": ("QRResult", ("Q", "R")),
        "cupy.linalg.svd": ("SVDResult", ("U", "S", "Vh")),
    }
)
