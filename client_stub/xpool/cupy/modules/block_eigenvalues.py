"""``lobpcg`` of operators of the program's own functions.

The block, its residuals and the last step's directions stay on the device; the small
matrices that they make are solved here. Each iteration waits twice.

Source: A. Knyazev, Toward the optimal preconditioned eigensolver: locally optimal block
preconditioned conjugate gradient method, SIAM J. Sci. Comput. 23 (2001).
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from xpool.cupy.functions import call
from xpool.cupy.linear_operators import aslinearoperator, conjugate
from xpool.cupy.solving import solver
from xpool.cupy.transfer import upload

FRESH_EVERY: Final = 20
"""Iterations after which the operators are applied to the block anew: what is combined
from earlier products drifts away from them."""


@dataclass
class _Block:
    """Columns on the device, and what the operators make of them."""

    columns: Any
    of_a: Any
    of_b: Any

    def combined(self, mix: Any) -> _Block:
        """Combinations of the columns; ``mix`` is on the device."""
        return _Block(self.columns @ mix, self.of_a @ mix, self.of_b @ mix)

    def chosen(self, which: Any) -> _Block:
        """Some of the columns."""
        return _Block(self.columns[:, which], self.of_a[:, which], self.of_b[:, which])

    def minus(self, other: _Block) -> _Block:
        """The difference, column by column."""
        return _Block(
            self.columns - other.columns,
            self.of_a - other.of_a,
            self.of_b - other.of_b,
        )


def _joined(blocks: Sequence[_Block]) -> _Block:
    if len(blocks) == 1:
        return blocks[0]
    return _Block(
        call("cupy.hstack", ([one.columns for one in blocks],), {}),
        call("cupy.hstack", ([one.of_a for one in blocks],), {}),
        call("cupy.hstack", ([one.of_b for one in blocks],), {}),
    )


def _adjoint(a: Any) -> Any:
    return conjugate(a).T


@dataclass
class _Problem:
    """``A x = w B x``, the larger or the smaller values."""

    n: int
    a: Any
    b: Any
    m: Any
    is_largest: bool
    constraint: Callable[[Any], Any]
    verbosity: int
    values: Any = None
    """The block's eigenvalues, on the host."""
    histories: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))
    """Of eigenvalues and of the residuals' lengths, on the device."""

    def block(self, columns: Any) -> _Block:
        """These columns, and the operators' products with them."""
        of_b = columns if self.b is None else self.b.matmat(columns)
        return _Block(columns, self.a.matmat(columns), of_b)

    def best(self, space: _Block, count: int) -> Any:
        """How the best vectors of a space are combined of its columns, on the host.

        Directions that the columns have twice are left out.

        Raises:
            LinAlgError: the space has too few directions.
        """
        left = _adjoint(space.columns)
        both = call("cupy.stack", ((left @ space.of_a, left @ space.of_b),), {}).get()
        of_a, of_b = (both + both.conj().transpose(0, 2, 1)) / 2
        lengths = of_b.diagonal().real
        if not np.isfinite(both).all() or (lengths <= 0).any():
            raise np.linalg.LinAlgError("the matrix B is not positive definite")
        scale = 1 / np.sqrt(lengths)
        weights, axes = np.linalg.eigh(of_b * scale * scale[:, None])
        least = 10 * len(weights) * np.finfo(weights.dtype).eps
        is_own = weights > least
        if is_own.sum() < count:
            raise np.linalg.LinAlgError("the block's columns are not independent")
        basis = scale[:, None] * axes[:, is_own] / np.sqrt(weights[is_own])
        values, vectors = np.linalg.eigh(basis.conj().T @ of_a @ basis)
        if self.is_largest:
            values, vectors = values[::-1], vectors[:, ::-1]
        self.values = values[:count]
        return np.ascontiguousarray(basis @ vectors[:, :count])

    def residual(self, x: _Block) -> tuple[Any, Any]:
        """What is left of each column, and its length, read."""
        r = x.of_a - x.of_b * upload(self.values)
        lengths = call("cupy.linalg.norm", (r,), {"axis": 0})
        self.histories[1].append(lengths)
        return r, lengths.get()

    def directions(self, r: Any, x: _Block) -> _Block:
        """Where to go from here: residuals, preconditioned, beside the block."""
        if self.m is not None:
            r = self.m.matmat(r)
        r = self.constraint(r)
        r = r - x.columns @ (_adjoint(x.of_b) @ r)
        lengths = call("cupy.linalg.norm", (r,), {"axis": 0, "keepdims": True})
        tiny = float(np.finfo(r.dtype).tiny)
        return self.block(r / call("cupy.maximum", (lengths, tiny), {}))

    def tell(self, number: int, active: int, lengths: Any) -> None:
        """Print an iteration, if that is wanted."""
        if self.verbosity > 0:
            _print(f"iteration {number}")
            _print(f"current block size: {active}")
            _print(f"eigenvalue(s):\n{self.values}")
            _print(f"residual norm(s):\n{lengths}")


def _print(text: str) -> None:
    """On the program's output, as its ``verbosityLevel`` asks."""
    sys.stdout.write(text + "\n")


def _constraint(y: Any, b: Any) -> Callable[[Any], Any]:
    """Takes from columns, where they stand, what they have of ``y``."""
    if y is None:
        return lambda columns: columns
    of_b = y if b is None else b.matmat(y)
    gram = _adjoint(y) @ of_b

    def without(columns: Any) -> Any:
        parts = call("cupy.linalg.solve", (gram, _adjoint(of_b) @ columns), {})
        columns -= y @ parts
        return columns

    return without


def _begin(given: dict[str, Any]) -> bool:
    """Check the operators, and free the start of the constraints where it stands.

    CuPy does that to the program's own array, and so does this.

    Returns:
        Whether something is to be printed, which can only be done here.

    Raises:
        ValueError: an operator or the start has the wrong shape.
    """
    x, y, b = given["X"], given.get("Y"), given.get("B")
    if len(x.shape) != 2:
        raise ValueError("expected rank-2 array for argument X")
    n, count = x.shape
    for one in (given["A"], b, given.get("M")):
        if one is not None and aslinearoperator(one).shape != (n, n):
            raise ValueError("operator has invalid shape")
    if y is not None and n - y.shape[1] >= 5 * count:
        _constraint(y, None if b is None else aslinearoperator(b))(x)
    return bool(given.get("verbosityLevel"))


@solver("lobpcg", _begin)
def lobpcg(a: Any, x: Any, *, largest: Any, tol: Any, maxiter: Any, **how: Any) -> Any:
    """Eigenvalues and vectors, beginning with the columns of ``x``.

    Raises:
        NotImplementedError: constraints, and columns enough for a dense solver.
    """
    n, count = x.shape
    operators = [
        None if one is None else aslinearoperator(one)
        for one in (a, how["B"], how["M"])
    ]
    of_a, of_b, of_m = operators
    assert of_a is not None
    kind = np.result_type(x.dtype, np.float32, of_a.dtype)
    given, verbosity = how["Y"], how["verbosityLevel"]
    without = _constraint(given, of_b)
    problem = _Problem(n, of_a, of_b, of_m, bool(largest), without, verbosity)
    if n - (0 if given is None else given.shape[1]) < 5 * count:
        if given is not None:
            raise NotImplementedError(
                "The dense eigensolver does not support constraints."
            )
        return _dense(problem, min(count, n), kind)
    if verbosity:
        _print(f"Solving an eigenvalue problem of size {n}, {count} columns at a time")
    limit = n * math.sqrt(1e-15) if tol is None or tol <= 0 else float(tol)
    most = 20 if maxiter is None else int(maxiter)
    found = _iterated(problem, x.astype(kind), limit, most)
    values, norms = problem.histories
    wanted = (
        (values, how["retLambdaHistory"]),
        (norms, how["retResidualNormsHistory"]),
    )
    return (values[-1], found, *(one for one, is_wanted in wanted if is_wanted))


def _dense(problem: _Problem, count: int, kind: Any) -> Any:
    """All vectors at once: a block of many columns in a small space."""
    whole = problem.block(call("cupy.eye", (problem.n,), {"dtype": kind}))
    mix = problem.best(whole, count)
    return upload(problem.values), upload(mix)


def _iterated(problem: _Problem, start: Any, limit: float, most: int) -> Any:
    count = start.shape[1]
    x = problem.block(start)
    x = x.combined(upload(problem.best(x, count)))
    problem.histories[0].append(upload(problem.values))
    active = np.ones(count, bool)
    p: _Block | None = None
    number = 0
    while True:
        r, lengths = problem.residual(x)
        active &= lengths > limit
        problem.tell(number, int(active.sum()), lengths)
        if not active.any() or number > most:
            return x.columns
        which = upload(np.flatnonzero(active))
        w = problem.directions(r[:, which], x)
        parts = [x, w]
        if p is not None:
            p = p.chosen(which)
            parts.append(p.minus(x.combined(_adjoint(x.of_b) @ p.columns)))
        space = _joined(parts)
        try:
            mix = problem.best(space, count)
        except np.linalg.LinAlgError as error:
            warnings.warn(f"lobpcg ends early: {error}", UserWarning, stacklevel=5)
            return x.columns
        step = mix.copy()
        step[:count] = 0
        p, x = space.combined(upload(step)), space.combined(upload(mix))
        number += 1
        if not number % FRESH_EVERY:
            x = problem.block(x.columns)
        problem.histories[0].append(upload(problem.values))
