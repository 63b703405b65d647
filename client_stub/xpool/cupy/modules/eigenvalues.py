"""``eigsh`` and ``svds`` of operators of the program's own functions.

Lanczos' method with thick restarts. The basis stays on the device, a vector a row; here
is what it makes of the operator, a matrix as small as the basis. A whole basis is grown
without waiting; after each, two reads say how far it is.

Source: K. Wu, H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue
problems, SIAM J. Matrix Anal. Appl. 22 (2000).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool.cupy.functions import call
from xpool.cupy.linear_operators import aslinearoperator, conjugate
from xpool.cupy.solving import solver
from xpool.cupy.transfer import upload

_WANTED: Final[dict[str, Callable[[Any], Any]]] = {
    "LM": np.abs,
    "LA": lambda values: values,
    "SA": lambda values: -values,
}
"""By ``which``: what is larger of the eigenvalues that are wanted."""


class _Basis:
    """Orthonormal vectors, one a row, and what the operator makes of each."""

    def __init__(self, product: Callable[[Any], Any], size: int, first: Any) -> None:
        """Only the first vector is there; it need not be of length one."""
        self._product, self.size = product, size
        self._dtype = first.dtype
        self._tiny = float(np.finfo(self._dtype).tiny)
        shape = (size, len(first))
        self.rows = call("cupy.zeros", (shape, self._dtype), {})
        self.images = call("cupy.zeros", (shape, self._dtype), {})
        self._lengths = call("cupy.zeros", ((size,), self._dtype.char.lower()), {})
        self.next: Any = None
        """What the last image has beside the basis: the row after the last."""
        self.products = 0
        self._rng = np.random.default_rng(0)
        self.rows[0] = self._unit(first)[0]

    def _unit(self, vector: Any) -> tuple[Any, Any]:
        length = call("cupy.linalg.norm", (vector,), {})
        return vector / call("cupy.maximum", (length, self._tiny), {}), length

    def _beside(self, vector: Any, count: int) -> Any:
        """What a vector has beside the first rows."""
        rows = self.rows[:count]
        for _ in range(2):
            parts = conjugate(rows @ conjugate(vector))
            vector = vector - parts @ rows
        return vector

    def grow(self, at: int) -> tuple[Any, Any, float]:
        """Fill it from a row that is there; the operator among its rows, on the host.

        Returns:
            Its eigenvalues, its eigenvectors as columns, and how long is what the last
            row's image has beside the basis.
        """
        while True:
            self._fill(at)
            small = (conjugate(self.rows) @ self.images.T).get()
            lengths = self._lengths.get()
            values, vectors = np.linalg.eigh((small + small.conj().T) / 2)
            least = 10 * np.finfo(self._dtype).eps * np.abs(values).max(initial=0)
            closed = np.flatnonzero(lengths[at:-1] <= least)
            if not len(closed):
                return values, vectors, float(lengths[-1])
            # Nothing comes of the rows so far but themselves: go on with another.
            at += int(closed[0]) + 1
            self.rows[at] = self._unit(self._drawn(at))[0]

    def _drawn(self, count: int) -> Any:
        drawn = self._rng.standard_normal(self.rows.shape[1]).astype(self._dtype)
        unit, _ = self._unit(self._beside(upload(drawn), count))
        return self._beside(unit, count)

    def _fill(self, at: int) -> None:
        for i in range(at, self.size):
            self.images[i] = self._product(self.rows[i])
            self.next, length = self._unit(self._beside(self.images[i], i + 1))
            self._lengths[i] = length
            if i + 1 < self.size:
                self.rows[i + 1] = self.next
        self.products += self.size - at

    def restart(self, vectors: Any) -> int:
        """Keep these combinations, and the row after the last; how many rows those are.

        Args:
            vectors: one a column, on the host.
        """
        kept = vectors.shape[1]
        by_row = upload(np.ascontiguousarray(vectors.T))
        rows, images = by_row @ self.rows, by_row @ self.images
        self.rows[:kept], self.images[:kept] = rows, images
        self.rows[kept] = self._unit(self._beside(self.next, kept))[0]
        return kept


def _checked(a: Any, k: int, end: int) -> None:
    if a.dtype is None or a.dtype.char not in "fdFD":
        raise TypeError(f"unsupported dtype (actual: {a.dtype})")
    if k <= 0:
        raise ValueError(f"k must be greater than 0 (actual: {k})")
    if k >= end:
        raise ValueError(f"k must be smaller than {end} (actual: {k})")


@solver("eigsh")
def eigsh(
    a: Any,
    k: int,
    *,
    which: str,
    v0: Any,
    ncv: int | None,
    maxiter: int | None,
    tol: float,
    return_eigenvectors: bool,
) -> Any:
    """Eigenvalues of a symmetric operator; after ``maxiter`` products what is known.

    Raises:
        ValueError: it is not square, or there are not so many eigenvalues.
        TypeError: it holds neither real nor complex numbers.
    """
    operator = aslinearoperator(a)
    n = operator.shape[0]
    if operator.shape != (n, n):
        raise ValueError(f"expected square matrix (shape: {operator.shape})")
    _checked(operator, k, n)
    if which not in _WANTED:
        raise ValueError(f"which must be 'LM', 'LA' or 'SA' (actual: {which})")
    size = min(max(2 * k, k + 32) if ncv is None else max(ncv, k + 2), n)
    if v0 is None:
        v0 = call("cupy.random.random", ((n,),), {})
    basis = _Basis(operator.matvec, size, v0.astype(operator.dtype).ravel())
    most = 10 * n if maxiter is None else maxiter
    machine = 4 * k**0.5 * float(np.finfo(operator.dtype).eps)
    at, kept = 0, min(k + (size - k) // 3, size - 2)
    while True:
        values, vectors, beside = basis.grow(at)
        order = np.argsort(_WANTED[which](values))
        chosen = np.sort(order[-k:])
        far = np.linalg.norm(beside * vectors[-1, chosen])
        # A tolerance is the residuals' length; the machine's is relative to the values.
        limit = tol or machine * np.abs(values).max()
        is_done = not far > limit or basis.size == n
        if is_done or basis.products >= most:
            break
        at = basis.restart(vectors[:, order[-kept:]])
    values, vectors = values[chosen], vectors[:, chosen]
    found = upload(values)
    if not return_eigenvectors:
        return found
    return found, basis.rows.T @ upload(np.ascontiguousarray(vectors))


@solver("svds")
def svds(
    a: Any, k: int, *, which: str, return_singular_vectors: bool, **how: Any
) -> Any:
    """The largest singular values, by the eigenvalues of the smaller square.

    Raises:
        ValueError: there are not so many.
        TypeError: it holds neither real nor complex numbers.
    """
    operator = aslinearoperator(a)
    _checked(operator, k, min(operator.shape))
    rows, columns = operator.shape
    tall = operator if rows >= columns else operator.H
    if not return_singular_vectors:
        how["return_eigenvectors"] = False
    found = eigsh_of(tall.H @ tall, k, which=which, **how)
    squares = (found[0] if return_singular_vectors else found).get().clip(min=0)
    single = squares.dtype.char == "f"
    least = (1e3 if single else 1e6) * np.finfo(squares.dtype).eps * squares.max()
    is_known = squares > least
    values = np.zeros_like(squares)
    count = int(is_known.sum())
    values[:count] = np.sqrt(squares[is_known])
    if not return_singular_vectors:
        return upload(values)
    right = found[1][:, len(squares) - count :]
    left: Any = tall.matmat(right)
    left = left / upload(values[:count])
    if rows < columns:
        left, right = right, left
    left, right = (_completed(one, k - count) for one in (left, right))
    return left, upload(values), conjugate(right).T


def eigsh_of(a: Any, k: int, **how: Any) -> Any:
    """``eigsh`` with CuPy's defaults."""
    given = {"v0": None, "return_eigenvectors": True, **how}
    return eigsh(a, k, **given)


def _completed(columns: Any, count: int) -> Any:
    """Orthonormal columns and as many more."""
    if not count:
        return columns
    rows, known = columns.shape
    drawn = np.random.default_rng(0).standard_normal((rows, count))
    both = (columns, upload(drawn.astype(columns.dtype)))
    q = call("cupy.linalg.qr", (call("cupy.hstack", (both,), {}),), {})[0]
    return call("cupy.hstack", ((columns, q[:, known:]),), {})
