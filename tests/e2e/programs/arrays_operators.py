"""Operators of a program's own functions, and solvers that call them."""

import cupy as cp
import cupyx.scipy.sparse as sparse
import cupyx.scipy.sparse.linalg as solvers
import numpy as np
from array_checks import refused

SIZE = 40
LAPLACE = sparse.diags(
    [-cp.ones(SIZE - 1), 2.5 * cp.ones(SIZE), -cp.ones(SIZE - 1)],
    [-1, 0, 1],
    format="csr",
)
RIGHT = cp.sin(cp.arange(SIZE))
EXPECTED = np.linalg.solve(LAPLACE.toarray().get(), RIGHT.get())
OPERATOR = solvers.LinearOperator((SIZE, SIZE), matvec=lambda v: LAPLACE @ v)
INVERSE = solvers.LinearOperator((SIZE, SIZE), matvec=lambda v: v / LAPLACE.diagonal())
SOLVERS = (solvers.cg, solvers.bicgstab, solvers.cgs, solvers.gmres)


def case_solvers_take_operators():
    for solve in SOLVERS:
        for matrix, inverse in (
            (OPERATOR, None),
            (OPERATOR, INVERSE),
            (LAPLACE, INVERSE),
        ):
            found, info = solve(matrix, RIGHT, M=inverse, rtol=1e-10)
            assert info == 0, solve
            np.testing.assert_allclose(found.get(), EXPECTED, rtol=1e-6, atol=1e-8)


def case_solvers_agree_with_the_servers_own():
    for solve in SOLVERS:
        there, _ = solve(LAPLACE, RIGHT, rtol=1e-10)
        here, _ = solve(solvers.aslinearoperator(LAPLACE), RIGHT, rtol=1e-10)
        np.testing.assert_allclose(here.get(), there.get(), rtol=1e-7, atol=1e-9)


def case_callbacks_see_each_step():
    for solve in SOLVERS[:3]:
        seen = []
        found, info = solve(
            LAPLACE, RIGHT, callback=lambda x, seen=seen: seen.append(x)
        )
        assert info == 0
        assert len(seen) > 3
        assert seen[-1].shape == RIGHT.shape
        np.testing.assert_allclose(seen[-1].get(), found.get())
    far = []
    _, info = solvers.gmres(LAPLACE, RIGHT, restart=5, callback=far.append, rtol=1e-8)
    assert info == 0
    assert sorted(far, reverse=True) == far
    assert far[-1] <= 1e-8


def case_a_solver_that_gives_up_says_so():
    for solve in SOLVERS[:3]:
        _, info = solve(OPERATOR, RIGHT, maxiter=2)
        assert info == 2
    _, info = solvers.gmres(OPERATOR, RIGHT, restart=2, maxiter=2)
    assert info == 2
    zeros, info = solvers.cg(OPERATOR, cp.zeros(SIZE))
    assert info == 0
    assert not zeros.any()


def case_complex_and_single_systems():
    rng = np.random.default_rng(0)
    half = rng.standard_normal((12, 12)) + 1j * rng.standard_normal((12, 12))
    whole = half @ half.conj().T + 12 * np.eye(12)
    right = rng.standard_normal(12) + 0j
    matrix = cp.asarray(whole)
    operator = solvers.LinearOperator(whole.shape, lambda v: matrix @ v, dtype=complex)
    for solve in SOLVERS:
        found, info = solve(operator, cp.asarray(right), rtol=1e-10)
        assert info == 0
        np.testing.assert_allclose(found.get(), np.linalg.solve(whole, right), 1e-6)
    single = solvers.LinearOperator((SIZE, SIZE), lambda v: 2 * v, dtype=cp.float32)
    found, _ = solvers.cg(single, RIGHT.astype(cp.float32))
    assert found.dtype == cp.float32
    column, _ = solvers.cg(OPERATOR, RIGHT.reshape(-1, 1))
    assert column.shape == (SIZE, 1)


def case_operators_compute():
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((4, 6)), rng.standard_normal((6, 4))
    a = solvers.aslinearoperator(cp.asarray(left))
    b = solvers.aslinearoperator(cp.asarray(right))
    vector = cp.asarray(rng.standard_normal(4))
    given = vector.get()
    for found, expected in (
        ((a * b) @ vector, left @ right @ given),
        ((a @ b).rmatvec(vector), (left @ right).T @ given),
        ((2 * b)(vector), 2 * right @ given),
        ((b + a.T) @ vector, (right + left.T) @ given),
        ((b - a.H) @ vector, (right - left.T) @ given),
        ((a * b) ** 3 @ vector, np.linalg.matrix_power(left @ right, 3) @ given),
        (a.T @ vector, left.T @ given),
        (a.matmat(cp.asarray(right)), left @ right),
        (a.H.matmat(cp.eye(4)), left.T),
        ((-a).rmatmat(cp.eye(4)), -left.T),
    ):
        np.testing.assert_allclose(found.get(), expected, rtol=1e-10, atol=1e-12)
    assert repr(a * b) == "<4x4 LinearOperator with dtype=float64>"


class Shift(solvers.LinearOperator):
    def __init__(self, size):
        super().__init__(cp.float64, (size, size))

    def _matvec(self, x):
        return cp.roll(x, 1)

    def _rmatvec(self, x):
        return cp.roll(x, -1)


def case_derived_classes():
    shift = Shift(5)
    assert (shift @ cp.arange(5)).tolist() == [4, 0, 1, 2, 3]
    assert (shift.H @ cp.arange(5)).tolist() == [1, 2, 3, 4, 0]
    assert (shift @ cp.eye(5)).get()[1, 0] == 1
    assert repr(shift) == "<5x5 Shift with dtype=float64>"


def case_what_is_wrong_is_said():
    wide = solvers.LinearOperator((3, 4), matvec=lambda v: v[:3])
    refused(ValueError, lambda: solvers.cg(wide, cp.ones(3)), "square")
    refused(ValueError, lambda: solvers.cg(OPERATOR, cp.ones(3)), "incompatible")
    refused(ValueError, lambda: OPERATOR.matvec(cp.ones(3)), "mismatch")
    refused(ValueError, lambda: OPERATOR * wide, "mismatch")
    refused(ValueError, lambda: solvers.LinearOperator((3,), lambda v: v, None), "2-d")
    refused(TypeError, lambda: solvers.aslinearoperator("A"), "not understood")
    refused(NotImplementedError, lambda: OPERATOR.rmatvec(RIGHT), "rmatvec")
    failing = solvers.LinearOperator((2, 2), lambda v: 1 // 0, dtype=float)
    refused(ZeroDivisionError, lambda: solvers.cg(failing, cp.ones(2)))
    refused(
        ValueError,
        lambda: solvers.gmres(LAPLACE, RIGHT, callback_type="legacy"),
        "callback_type",
    )


for _name, _case in list(globals().items()):
    if _name.startswith("case_"):
        _case()
        print(_name.removeprefix("case_"))
