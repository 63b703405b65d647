"""Iterative solvers that call a function of the program in each step: they run here.

With a matrix and no callback the server's own solver runs, in one round trip. With an
operator or a callback each iteration reads how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpool.cupy.filling import CLASSES
from xpool.cupy.functions import call, own
from xpool.cupy.linear_operators import LinearOperator, aslinearoperator
from xpool.cupy.solving import dot, norm, solver
from xpool.cupy.transfer import upload

CLASSES["cupyx.scipy.sparse.linalg.LinearOperator"] = LinearOperator
own("cupyx.scipy.sparse.linalg.aslinearoperator")(aslinearoperator)
Product = Callable[[Any], Any]


@dataclass
class _System:
    """``A x = b``: what runs in each step, and when it is done."""

    product: Product
    precondition: Product
    x: Any
    b: Any
    threshold: float
    max_rounds: int


def _system(
    a: Any, b: Any, x0: Any, rtol: float, atol: Any, maxiter: Any, m: Any
) -> _System:
    operator = aslinearoperator(a)
    rows, columns = operator.shape
    if rows != columns:
        raise ValueError("expected square matrix")
    if b.shape not in ((rows,), (rows, 1)):
        raise ValueError("b has incompatible dimensions")
    assert operator.dtype is not None
    kind = np.result_type(operator.dtype, b.dtype, np.float32)
    flat = b.astype(kind).ravel()
    x = call("cupy.zeros", ((rows,), kind), {})
    if x0 is not None:
        if x0.shape not in ((rows,), (rows, 1)):
            raise ValueError("x0 has incompatible dimensions")
        x = x0.astype(kind).ravel()
    before = None if m is None else aslinearoperator(m)
    if before is not None and before.shape != operator.shape:
        raise ValueError("matrix and preconditioner have different shapes")
    return _System(
        operator.matvec,
        (lambda v: v) if before is None else before.matvec,
        x,
        flat,
        max(float(atol or 0), float(rtol) * norm(flat)),
        rows * 10 if maxiter is None else maxiter,
    )


def _tell(callback: Any, x: Any) -> None:
    if callback is not None:
        callback(x)


def _cg(s: _System, callback: Any) -> tuple[Any, int]:
    x: Any = s.x
    p: Any = None
    rho: Any = None
    r = s.b - s.product(x)
    for done in range(s.max_rounds):
        if not done and norm(r) <= s.threshold:
            return x, 0
        z = s.precondition(r)
        before, rho = rho, dot(r, z)
        p = z if p is None else z + rho / before * p
        q = s.product(p)
        alpha = rho / dot(p, q)
        x = x + alpha * p
        r = r - alpha * q
        _tell(callback, x)
        if norm(r) <= s.threshold:
            return x, 0
    return x, s.max_rounds


def _bicgstab(s: _System, callback: Any) -> tuple[Any, int]:
    x: Any = s.x
    r: Any = s.b - s.product(x)
    shadow = r
    p: Any = None
    v: Any = None
    rho: Any = None
    alpha: Any = None
    omega: Any = None
    for done in range(s.max_rounds):
        if not done and norm(r) <= s.threshold:
            return x, 0
        before, rho = rho, dot(shadow, r)
        p = r if p is None else r + rho / before * (alpha / omega) * (p - omega * v)
        p_hat = s.precondition(p)
        v = s.product(p_hat)
        alpha = rho / dot(shadow, v)
        half = r - alpha * v
        half_hat = s.precondition(half)
        t = s.product(half_hat)
        omega = dot(t, half) / dot(t, t)
        x = x + alpha * p_hat + omega * half_hat
        r = half - omega * t
        _tell(callback, x)
        if norm(r) <= s.threshold:
            return x, 0
    return x, s.max_rounds


def _cgs(s: _System, callback: Any) -> tuple[Any, int]:
    x: Any = s.x
    r: Any = s.b - s.product(x)
    shadow = r
    p: Any = None
    q: Any = None
    rho: Any = None
    for done in range(s.max_rounds):
        if not done and norm(r) <= s.threshold:
            return x, 0
        before, rho = rho, dot(shadow, r)
        if p is None:
            u = p = r
        else:
            beta = rho / before
            u = r + beta * q
            p = u + beta * (q + beta * p)
        v = s.product(s.precondition(p))
        alpha = rho / dot(shadow, v)
        q = u - alpha * v
        step = s.precondition(u + q)
        x = x + alpha * step
        r = r - alpha * s.product(step)
        _tell(callback, x)
        if norm(r) <= s.threshold:
            return x, 0
    return x, s.max_rounds


def _solved(run: Callable[[_System, Any], tuple[Any, int]]) -> Callable[..., Any]:
    """A solver that tells its callback each solution."""

    def solve(a: Any, b: Any, x0: Any, *, callback: Any, **how: Any) -> Any:
        limits = how["rtol"], how["atol"], how["maxiter"]
        found, info = run(_system(a, b, x0, *limits, how["M"]), callback)
        return found.reshape(b.shape), info

    return solve


for _name, _run in (("cg", _cg), ("bicgstab", _bicgstab), ("cgs", _cgs)):
    solver(_name)(_solved(_run))


@solver("gmres")
def gmres(
    a: Any,
    b: Any,
    x0: Any,
    *,
    restart: Any,
    callback: Any,
    callback_type: Any,
    **how: Any,
) -> Any:
    """Krylov's subspaces of ``restart`` vectors, one after the other.

    Raises:
        ValueError: a ``callback_type`` that there is not.
    """
    if callback_type not in (None, "x", "pr_norm"):
        raise ValueError(f"Unknown callback_type: {callback_type}")
    s = _system(a, b, x0, how["rtol"], how["atol"], how["maxiter"], how["M"])
    size = min(restart or 20, len(s.b))
    whole, rounds = norm(s.b) or 1.0, 0
    while True:
        r = s.b - s.product(s.x)
        far = norm(r)
        if callback is not None and rounds:
            callback(s.x if callback_type == "x" else far / whole)
        if far <= s.threshold or rounds >= s.max_rounds:
            break
        s.x = s.x + s.precondition(_best_of_subspace(s, r / far, far, size))
        rounds += size
    return s.x.reshape(b.shape), 0 if far <= s.threshold else rounds


def _best_of_subspace(s: _System, first: Any, far: float, size: int) -> Any:
    """What Krylov's subspace of so many vectors has nearest to the solution."""
    kind = first.dtype
    basis = call("cupy.zeros", ((len(first), size + 1), kind), {})
    small = np.zeros((size + 1, size), kind)
    basis[:, 0] = first
    for j in range(size):
        u = s.product(s.precondition(basis[:, j]))
        known = basis[:, : j + 1]
        adjoint = known.T.conj() if kind.kind == "c" else known.T
        part = adjoint @ u
        u = u - known @ part
        again = adjoint @ u
        u = u - known @ again
        length = norm(u)
        small[: j + 1, j] = (part + again).get()
        small[j + 1, j] = length
        if length <= np.finfo(kind).eps * far:
            size = j + 1
            break
        basis[:, j + 1] = u / length
    right = np.zeros(size + 1, kind)
    right[0] = far
    best = np.linalg.lstsq(small[: size + 1, :size], right, rcond=None)[0]
    return basis[:, :size] @ upload(best)


@solver("minres")
def minres(
    a: Any,
    b: Any,
    x0: Any,
    *,
    shift: Any,
    tol: Any,
    check: Any,
    callback: Any,
    **how: Any,
) -> Any:
    """For a symmetric matrix that need not be definite.

    Raises:
        ValueError: the matrix or the preconditioner is not symmetric.
    """
    rounds = len(b) * 5 if how["maxiter"] is None else how["maxiter"]
    s = _system(a, b, x0, tol, 0.0, rounds, how["M"])
    if check:
        _check_symmetric(s.product, s.b)
        _check_symmetric(s.precondition, s.b)
    if shift:
        s.product = _shifted(s.product, shift)
    found, info = _minres(s, tol, callback)
    return found.reshape(b.shape), info


def _shifted(product: Product, shift: float) -> Product:
    def shifted(v: Any) -> Any:
        return product(v) - shift * v

    return shifted


def _check_symmetric(product: Product, y: Any) -> None:
    once = product(y)
    twice = product(once)
    length, other = abs(float(dot(once, once).real)), complex(dot(y, twice)).real
    if abs(length - other) > length * float(np.finfo(y.dtype).eps) ** (1 / 3):
        raise ValueError("non-symmetric matrix")


def _length(v: Any, z: Any) -> float:
    square = float(dot(v, z).real)
    if square < 0:
        raise ValueError("indefinite preconditioner")
    return math.sqrt(square)


def _minres(s: _System, tol: float, callback: Any) -> tuple[Any, int]:
    """Source: Elman, Silvester, Wathen, Finite Elements and Fast Iterative Solvers."""
    x: Any = s.x
    v: Any = s.b - s.product(x)
    v_before: Any = call("cupy.zeros_like", (v,), {})
    w = w_before = v_before
    z: Any = s.precondition(v)
    beta, beta_before = _length(v, z), 1.0
    cosine = cosine_before = 1.0
    sine = sine_before = 0.0
    rest, size = beta, 0.0
    for _ in range(s.max_rounds):
        if not beta:
            return x, 0
        z = z / beta
        y = s.product(z)
        alpha = float(dot(z, y).real)
        v, v_before = y - alpha / beta * v - beta / beta_before * v_before, v
        u = s.precondition(v)
        beta_next = _length(v, u)
        first = cosine * alpha - cosine_before * sine * beta
        scale = math.hypot(first, beta_next) or float(np.finfo(x.dtype).eps)
        second = sine * alpha + cosine_before * cosine * beta
        w, w_before = (z - sine_before * beta * w_before - second * w) / scale, w
        cosine, cosine_before = first / scale, cosine
        sine, sine_before = beta_next / scale, sine
        x = x + cosine * rest * w
        rest = -sine * rest
        size += alpha**2 + beta**2 + beta_next**2
        z, beta, beta_before = u, beta_next, beta
        _tell(callback, x)
        if abs(rest) <= tol * math.sqrt(size) * norm(x):
            return x, 0
    return x, s.max_rounds
