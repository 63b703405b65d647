"""Linear algebra with several results, or of a shape that is not a matrix's own."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from xpool.cupy.functions import RESULT_NAMES, rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray
from xpool.cupy.rules.solvers import REAL, matrix

_COMPLEX: Final[dict[str, np.dtype[Any]]] = {"f": np.dtype("F"), "d": np.dtype("D")}


def _real(geo: Geometry) -> np.dtype[Any]:
    return REAL.get(geo.dtype.char, geo.dtype)


@rule("cupy.linalg.pinv")
def pinv(a: Any, rcond: Any = 1e-15) -> Geometry:
    """A pseudoinverse for each matrix."""
    geo = matrix(a)
    if type(rcond) not in (int, float):
        raise NoRule
    *batch, rows, columns = geo.shape
    return geometry((*batch, columns, rows), geo.dtype)


@rule("cupy.linalg.slogdet")
def slogdet(a: Any) -> list[Geometry]:
    """Signs, and logarithms of the determinants' sizes."""
    geo = matrix(a, is_square=True)
    shape = geo.shape[:-2]
    return [geometry(shape, geo.dtype), geometry(shape, _real(geo))]


@rule("cupy.linalg.lstsq")
def lstsq(a: Any, b: Any, rcond: Any = None) -> list[Geometry]:
    """Solution, residuals, rank and singular values.

    Of a matrix with more rows than columns nobody knows before whether there are
    residuals: none if its rank is too small.
    """
    geo = matrix(a)
    if type(b) is not ndarray or b._geo.dtype != geo.dtype or geo.ndim != 2:
        raise NoRule
    rows, columns = geo.shape
    given = b._geo
    if given.ndim not in (1, 2) or given.shape[0] != rows or not given.size:
        raise NoRule
    if rows > columns or type(rcond) not in (float, type(None)):
        raise NoRule
    return [
        geometry((columns, *given.shape[1:]), geo.dtype),
        geometry((0,), _real(geo)),
        geometry((), np.dtype(np.int32)),
        geometry((rows,), _real(geo)),
    ]


@rule("cupy.linalg.eigvals")
def eigvals(a: Any) -> Geometry:
    """Complex values, one for each row."""
    geo = matrix(a, is_square=True)
    return geometry(geo.shape[:-1], _COMPLEX.get(geo.dtype.char, geo.dtype))


@rule("cupy.linalg.eig")
def eig(a: Any) -> list[Geometry]:
    """Values and vectors."""
    values = eigvals(a)
    return [values, geometry(a._geo.shape, values.dtype)]


@rule("cupy.linalg.tensorinv")
def tensorinv(a: Any, ind: Any = 2) -> Geometry:
    """The axes behind ``ind`` come to the front."""
    geo = matrix(a)
    if type(ind) is not int or not 0 < ind < geo.ndim:
        raise NoRule
    shape = geo.shape
    if math.prod(shape[:ind]) != math.prod(shape[ind:]):
        raise NoRule
    return geometry((*shape[ind:], *shape[:ind]), geo.dtype)


RESULT_NAMES.update(
    {
        "cupy.linalg.slogdet": ("SlogdetResult", ("sign", "logabsdet")),
        "cupy.linalg.eig": ("EigResult", ("eigenvalues", "eigenvectors")),
    }
)
