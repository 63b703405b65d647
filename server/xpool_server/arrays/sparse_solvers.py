"""``cupyx.scipy.sparse.linalg`` on a CPU where CuPy takes or refuses other things."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np

_TYPES: Final = "fdFD"
_LARGEST: Final[dict[str, Callable[[Any], Any]]] = {
    "LM": np.abs,
    "LA": lambda values: values,
    "SA": lambda values: -values,
}
"""By ``which``: what is larger of the eigenvalues that are wanted."""


@functools.cache
def _linalg() -> Any:
    import scipy.sparse.linalg

    return scipy.sparse.linalg


def _check_dtype(a: Any) -> None:
    dtype = getattr(a, "dtype", None)
    if dtype is not None and dtype.char not in _TYPES:
        raise TypeError(f"unsupported dtype (actual: {dtype})")


def _solver(name: str) -> Callable[..., Any]:
    def solve(a: Any, *args: Any, **kwargs: Any) -> Any:
        _check_dtype(a)
        kind = kwargs.pop("callback_type", None)
        if kind not in (None, "x", "pr_norm"):
            raise ValueError(f"Unknown callback_type: {kind}")
        if kwargs.get("atol") is None:
            kwargs["atol"] = 0.0
        return getattr(_linalg(), name)(a, *args, **kwargs)

    return solve


def minres(a: Any, *args: Any, tol: float = 1e-5, **kwargs: Any) -> Any:
    """SciPy calls the tolerance otherwise."""
    _check_dtype(a)
    return _linalg().minres(a, *args, rtol=tol, **kwargs)


def lsmr(a: Any, *args: Any, maxiter: int | None = None, **kwargs: Any) -> Any:
    """CuPy goes on for longer if nobody says how long; its solutions are real."""
    most = 5 * min(a.shape) if maxiter is None else maxiter
    x, *rest = _linalg().lsmr(a, *args, maxiter=most, **kwargs)
    did_iterate = rest[1] > 0
    return (x.astype(np.float64) if did_iterate else x, *rest)


def _check_count(k: int, end: int) -> None:
    if k <= 0:
        raise ValueError(f"k must be greater than 0 (actual: {k})")
    if k >= end:
        raise ValueError(f"k must be smaller than {end} (actual: {k})")


def eigsh(
    a: Any,
    k: int = 6,
    *,
    which: str = "LM",
    v0: Any = None,
    ncv: int | None = None,
    maxiter: int | None = None,
    tol: float = 0,
    return_eigenvectors: bool = True,
) -> Any:
    """Eigenvalues of a symmetric matrix; after ``maxiter`` products what is known.

    Args:
        a: shape (n, n).
        k: how many.
        which: CuPy's names of those wanted.
        v0: where to begin.
        ncv: vectors at a time.
        maxiter: products; ``None`` for ten times n.
        tol: the residuals' length, not relative to the eigenvalues as SciPy's is; 0
            for what the machine can do.
        return_eigenvectors: whether they are wanted too.

    Raises:
        ValueError: the matrix is not square, or there are not so many eigenvalues.
        TypeError: it holds neither real nor complex numbers.
    """
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"expected square matrix (shape: {a.shape})")
    _check_dtype(a)
    n = a.shape[0]
    _check_count(k, n)
    if which not in _LARGEST:
        raise ValueError(f"which must be 'LM', 'LA' or 'SA' (actual: {which})")
    if maxiter is None and not tol:
        size = None if ncv is None else min(max(ncv, k + 2), n)
        given = {"v0": v0, "ncv": size}
        return _linalg().eigsh(
            a, k, which=which, return_eigenvectors=return_eigenvectors, **given
        )
    size = min(max(2 * k, k + 32) if ncv is None else max(ncv, k + 2), n - 1)
    start = np.random.default_rng().random(n) if v0 is None else v0
    most = 10 * n if maxiter is None else maxiter
    limit = tol or np.finfo(a.dtype).eps
    found = _restarted(a, start, max(size, k), k, which, most, limit)
    return found if return_eigenvectors else found[0]


def _restarted(
    a: Any, start: Any, size: int, k: int, which: str, products: int, tol: float
) -> tuple[Any, Any]:
    """Lanczos' method, begun again with what is best of each subspace.

    Source: K. Wu, H. Simon, Thick-restart Lanczos method, SIAM J. Matrix Anal. Appl.
    22 (2000).
    """
    basis = np.asarray(start, a.dtype).reshape(-1, 1)
    basis /= np.linalg.norm(basis)
    image = np.asarray(a @ basis)
    done = 1
    while True:
        while basis.shape[1] < size:
            following = _orthogonal(image[:, -1], basis)
            basis = np.column_stack([basis, following])
            image = np.column_stack([image, np.asarray(a @ following)])
            done += 1
        small = basis.conj().T @ image
        values, vectors = np.linalg.eigh((small + small.conj().T) / 2)
        chosen = np.sort(np.argsort(_LARGEST[which](values))[-k:])
        values, vectors = values[chosen], vectors[:, chosen]
        best = basis @ vectors
        far = np.linalg.norm(image @ vectors - best * values)
        if far <= tol or done >= products or size == k:
            return values, best
        following = _orthogonal(image[:, -1], basis)
        basis = np.column_stack([best, following])
        image = np.column_stack([image @ vectors, np.asarray(a @ following)])
        done += 1
        size = max(size, k + 1)


def _orthogonal(vector: Any, basis: Any) -> Any:
    """What a vector has beside those of a basis; something else if that is nothing."""
    found = vector
    length = np.linalg.norm(vector)
    for _ in range(2):
        found = found - basis @ (basis.conj().T @ found)
    if np.linalg.norm(found) <= np.finfo(basis.dtype).eps * max(length, 1e-300):
        found = np.random.default_rng(0).random(len(vector)).astype(basis.dtype)
        for _ in range(2):
            found = found - basis @ (basis.conj().T @ found)
    return (found / np.linalg.norm(found)).astype(basis.dtype)


def svds(a: Any, k: int = 6, **kwargs: Any) -> Any:
    """The largest singular values.

    Raises:
        ValueError: it is no matrix, or there are not so many.
        TypeError: it holds neither real nor complex numbers.
    """
    if a.ndim != 2:
        raise ValueError(f"expected 2D (shape: {a.shape})")
    _check_dtype(a)
    _check_count(k, min(a.shape))
    if kwargs.get("which", "LM") != "LM":
        raise ValueError("only the largest singular values can be found")
    how = {key: kwargs[key] for key in ("ncv", "tol", "maxiter") if kwargs.get(key)}
    if not how:
        return _linalg().svds(a, k, **kwargs)
    return _by_square(a, k, how, kwargs.get("return_singular_vectors", True))


def _by_square(a: Any, k: int, how: dict[str, Any], is_whole: bool) -> Any:
    """As CuPy finds them, to whose tolerance the program's is one."""
    is_tall = a.shape[0] >= a.shape[1]
    tall = a if is_tall else a.conj().T
    squares, right = eigsh(tall.conj().T @ tall, k, **how)
    squares = np.maximum(squares, 0)
    single = squares.dtype.char == "f"
    least = (1e3 if single else 1e6) * np.finfo(squares.dtype).eps * squares.max()
    is_known = squares > least
    count = int(is_known.sum())
    values = np.zeros_like(squares)
    values[:count] = np.sqrt(squares[is_known])
    if not is_whole:
        return values
    right = right[:, is_known]
    left = np.asarray(tall @ right) / values[:count]
    left, right = (_completed(one, k) for one in (left, right))
    if not is_tall:
        left, right = right, left
    return left, values, right.conj().T


def _completed(columns: Any, count: int) -> Any:
    """Orthonormal columns, and others to be so many."""
    while columns.shape[1] < count:
        more = _orthogonal(np.zeros(len(columns), columns.dtype), columns)
        columns = np.column_stack([columns, more])
    return columns


def lobpcg(*args: Any, **kwargs: Any) -> Any:
    """CuPy does not say how far from its tolerance it ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _linalg().lobpcg(*args, **kwargs)


OWN: Final[dict[str, Callable[..., Any]]] = {
    **{
        f"cupyx.scipy.sparse.linalg.{name}": _solver(name)
        for name in ("cg", "bicgstab", "cgs", "gmres")
    },
    "cupyx.scipy.sparse.linalg.minres": minres,
    "cupyx.scipy.sparse.linalg.lsmr": lsmr,
    "cupyx.scipy.sparse.linalg.eigsh": eigsh,
    "cupyx.scipy.sparse.linalg.svds": svds,
    "cupyx.scipy.sparse.linalg.lobpcg": lobpcg,
}
