"""``lsmr`` of an operator of the program's own functions.

Source: D. Fong, M. Saunders, LSMR: an iterative algorithm for sparse least-squares
problems, SIAM J. Sci. Comput. 33 (2011); names are those of its section 2 and 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpool.cupy.functions import call
from xpool.cupy.linear_operators import aslinearoperator
from xpool.cupy.solving import norm, solver


def _rotation(a: float, b: float) -> tuple[float, float, float]:
    """Cosine, sine and length: what turns ``b`` to nothing."""
    length = math.hypot(a, b)
    return (a / length, b / length, length) if length else (0.0, 0.0, 0.0)


@dataclass
class _Residual:
    """Estimates ``norm(b - A x)`` by rotations alone."""

    beta_dd: float
    beta_d: float = 0.0
    rho_d: float = 1.0
    theta_before: float = 0.0
    tau_before: float = 0.0
    lost: float = 0.0

    def step(
        self, damped: Any, turned: Any, theta_bar: float, rho_bar: float, zetas: Any
    ) -> float:
        """The length after one more iteration.

        Args:
            damped: cosine and sine of the rotation for ``damp``.
            turned: of the one for the next row.
            theta_bar: above the diagonal of the second factor.
            rho_bar: the next of its diagonal.
            zetas: the last two of the solution's coefficients.
        """
        acute = damped[0] * self.beta_dd
        self.lost += (damped[1] * self.beta_dd) ** 2
        hat = turned[0] * acute
        self.beta_dd = -turned[1] * acute
        theta = self.theta_before
        cosine, sine, rho = _rotation(self.rho_d, theta_bar)
        self.theta_before = sine * rho_bar
        self.rho_d = cosine * rho_bar
        self.beta_d = -sine * self.beta_d + cosine * hat
        self.tau_before = (zetas[0] - theta * self.tau_before) / rho
        tau = (zetas[1] - self.theta_before * self.tau_before) / self.rho_d
        return math.sqrt(self.lost + (self.beta_d - tau) ** 2 + self.beta_dd**2)


@dataclass
class _Bidiagonal:
    """Golub and Kahan's vectors: the next pair at each step."""

    operator: Any
    u: Any
    v: Any
    alpha: float
    beta: float

    @classmethod
    def of(cls, operator: Any, u: Any, dtype: Any) -> _Bidiagonal:
        """The first pair, beginning with a vector that need not be of length one."""
        beta, alpha = norm(u), 0.0
        v = call("cupy.zeros", ((operator.shape[1],), dtype), {})
        if beta:
            u = u / beta
            v = operator.rmatvec(u)
            alpha = norm(v)
        return cls(operator, u, v / alpha if alpha else v, alpha, beta)

    def step(self) -> None:
        self.u = self.operator.matvec(self.v) - self.alpha * self.u
        self.beta = norm(self.u)
        if self.beta:
            self.u = self.u / self.beta
            self.v = self.operator.rmatvec(self.u) - self.beta * self.v
            self.alpha = norm(self.v)
            if self.alpha:
                self.v = self.v / self.alpha


@dataclass
class _Tests:
    """When it is done, by the estimates of each iteration."""

    atol: float
    btol: float
    ctol: float
    whole: float
    """The right side's length."""

    def stop(self, r: float, ar: float, a: float, condition: float, x: float) -> int:
        """CuPy's number for what holds; 0: nothing does."""
        scale = self.whole + a * x
        near = r / scale if scale else 0.0
        steep = ar / (a * r) if a * r else 0.0
        flat = 1 / condition
        reasons = (
            (1, r <= self.btol * self.whole + self.atol * a * x),
            (2, steep <= self.atol),
            (3, flat <= self.ctol),
            (4, 1 + near <= 1),
            (5, 1 + steep <= 1),
            (6, 1 + flat <= 1),
        )
        return next((number for number, holds in reasons if holds), 0)


@solver("lsmr")
def lsmr(
    a: Any,
    b: Any,
    x0: Any,
    *,
    damp: float,
    atol: float,
    btol: float,
    conlim: float,
    maxiter: int | None,
) -> Any:
    """The least squares' solution, and how near it is.

    Raises:
        ValueError: the right side or the start is of another length.
    """
    operator = aslinearoperator(a)
    rows, columns = operator.shape
    if b.shape not in ((rows,), (rows, 1)):
        raise ValueError("b has incompatible dimensions")
    given = [one.dtype for one in (operator, b, x0) if one is not None]
    dtype = np.result_type(*given, float)
    right = b.ravel().astype(dtype)
    x, u = call("cupy.zeros", ((columns,), dtype), {}), right
    if x0 is not None:
        if x0.shape not in ((columns,), (columns, 1)):
            raise ValueError("x0 has incompatible dimensions")
        x = x0.astype(dtype).ravel()
        u = right - operator.matvec(x)
    pair = _Bidiagonal.of(operator, u, dtype)
    far, steep = pair.beta, pair.alpha * pair.beta
    if not steep:
        return x, 0, 0, far, steep, pair.alpha, 1, 0
    tests = _Tests(atol, btol, 1 / conlim if conlim > 0 else 0.0, norm(right))
    most = min(rows, columns) * 5 if maxiter is None else maxiter
    return _iterated(pair, x, tests, float(damp or 0), most)


def _iterated(
    pair: _Bidiagonal, x: Any, tests: _Tests, damp: float, most: int
) -> tuple[Any, ...]:
    residual = _Residual(pair.beta)
    zeta_bar, alpha_bar = pair.alpha * pair.beta, pair.alpha
    rho = rho_bar = c_bar = 1.0
    s_bar = zeta = 0.0
    h, h_bar = pair.v, call("cupy.zeros_like", (x,), {})
    square, size = pair.alpha**2, pair.alpha
    largest, smallest, condition, length = 0.0, 1e100, 1.0, 0.0
    far, done, reason = pair.beta, 0, 0
    while done < most and not reason:
        done += 1
        pair.step()
        damped = _rotation(alpha_bar, damp)
        rho_before, rho_bar_before, zeta_before = rho, rho_bar, zeta
        turned = _rotation(damped[2], pair.beta)
        rho = turned[2]
        theta, alpha_bar = turned[1] * pair.alpha, turned[0] * pair.alpha
        theta_bar, diagonal = s_bar * rho, c_bar * rho
        c_bar, s_bar, rho_bar = _rotation(diagonal, theta)
        zeta, zeta_bar = c_bar * zeta_bar, -s_bar * zeta_bar

        h_bar = h - theta_bar * rho / (rho_before * rho_bar_before) * h_bar
        x = x + zeta / (rho * rho_bar) * h_bar
        h = pair.v - theta / rho * h

        far = residual.step(damped, turned, theta_bar, rho_bar, (zeta_before, zeta))
        square += pair.beta**2
        size = math.sqrt(square)
        square += pair.alpha**2
        largest = max(largest, rho_bar_before)
        if done > 1:
            smallest = min(smallest, rho_bar_before)
        condition = max(largest, diagonal) / min(smallest, diagonal)
        length = norm(x)
        reason = tests.stop(far, abs(zeta_bar), size, condition, length)
    return (
        x.astype(np.float64),  # of complex numbers the real parts, with a warning
        reason or (7 if done else 0),
        done,
        far,
        abs(zeta_bar),
        size,
        condition,
        length,
    )
