"""Random numbers, linear algebra and `einsum`: no wait, and errors as CuPy has them."""

from __future__ import annotations

import os

import cupy as cp
import cupyx
import numpy as np
from array_checks import is_real_gpu, no_round_trip, refused, run_cases
from xpool.cupy.device import device


def case_draws_do_not_wait():
    state, generator = cp.random.RandomState(1), cp.random.default_rng(1)
    cp.random.seed(0)
    with no_round_trip():
        drawn = [
            cp.random.rand(2, 3),
            cp.random.randn(4, dtype=np.float32),
            cp.random.randint(0, 10, (5,)),
            cp.random.permutation(6),
            cp.random.choice(4, 3),
            state.normal(1.0, 2.0, (2,)),
            state.poisson(3.0, 4, np.int32),
            generator.standard_normal((2, 2), dtype=np.float32),
            generator.integers(5, size=3),
            generator.uniform(),
        ]
    shapes = [(2, 3), (4,), (5,), (6,), (3,), (2,), (4,), (2, 2), (3,), ()]
    assert [one.shape for one in drawn] == shapes
    assert [one.dtype.char for one in drawn] == list("dfllld") + list("ifld")
    assert sorted(drawn[3].get()) == list(range(6))


def case_what_arrays_pick_does_not_wait():
    host, rows = np.arange(12.0).reshape(4, 3), np.array([3, 0, 3])
    x, picks = cp.asarray(host), cp.asarray(rows)
    mask = cp.asarray(host > 5)
    with no_round_trip():
        found = [
            x[picks],
            x[rows],
            x[[2, -1]],
            x[1:, cp.asarray([0, 2])],
            x[..., picks % 3, None],
            x[picks, picks % 3],
        ]
        x[picks] = 7
        x[mask] = cp.asarray(-1.0)
        x[:, [0]] = x[:, 1:2] * 2
    expected = [
        host[rows],
        host[rows],
        host[[2, -1]],
        host[1:, [0, 2]],
        host[..., rows % 3, None],
        host[rows, rows % 3],
    ]
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.get(), wanted)
    wanted = host.copy()
    wanted[rows] = 7
    wanted[host > 5] = -1
    wanted[:, [0]] = wanted[:, 1:2] * 2
    np.testing.assert_array_equal(x.get(), wanted)
    assert x[cp.asarray([5])].get().tolist() == [wanted[1].tolist()]  # it wraps around
    assert x[mask].shape == (6,)
    refused(ValueError, lambda: x.__setitem__(picks, cp.zeros(2)))


def case_numbers_beside_arrays_do_not_wait():
    host = np.array([[1.5, -2.0], [0.25, 4.0]], np.float32)
    x, small = cp.asarray(host), cp.arange(4, dtype=cp.int8)
    with no_round_trip():
        found = [
            cp.where(x > 0, x, 0),
            cp.where(x > 0, -1.0, x),
            cp.where(small > 1, small, 7),
            cp.exp(x),
            cp.maximum(x, 1),
            cp.subtract(2.5, x),
            cp.power(x, 2),
            -x,
            abs(x),
            ~small,
        ]
        y, z = x.copy(), small.copy()
        y -= x * 2
        y *= 3
        z += 1
        z += z
    narrow = np.arange(4, dtype=np.int8)
    expected = [
        np.where(host > 0, host, 0),
        np.where(host > 0, -1.0, host),
        np.where(narrow > 1, narrow, 7),
        np.exp(host),
        np.maximum(host, 1),
        np.subtract(2.5, host),
        host * host,
        -host,
        abs(host),
        ~narrow,
    ]
    for one, wanted in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(one.get(), wanted, rtol=1e-6)
    np.testing.assert_array_equal(y.get(), host * -3)
    np.testing.assert_array_equal(z.get(), (narrow + 1) * 2)
    for call in (lambda: small.__iadd__(1.5), lambda: cp.exp(), lambda: cp.add(x)):
        refused(TypeError, call)
    refused(OverflowError, lambda: cp.add(small, 300))
    refused(ValueError, lambda: cp.add(x, cp.zeros(3)))
    refused(ValueError, lambda: x.__iadd__(cp.zeros((3, 2, 2), np.float32)))


def case_one_number_has_the_dtype_that_is_asked_for():
    generator, state = cp.random.default_rng(1), cp.random.RandomState(1)
    for name in ("random", "standard_normal", "standard_exponential"):
        for kind in (np.float32, np.float64):
            drawn = getattr(generator, name)(dtype=kind)
            assert (drawn.shape, drawn.get().dtype) == ((), kind), name
    for kind in (np.int8, np.int32, np.int64):
        for drawn in (generator.integers(5, dtype=kind), state.randint(5, dtype=kind)):
            assert (drawn.shape, drawn.get().dtype) == ((), kind)
    assert state.poisson(3.0, dtype=np.int32).get().dtype == np.int32
    assert state.uniform(dtype=np.float32).get().dtype == np.float32


def case_seeds_repeat():
    for make in (cp.random.RandomState, cp.random.default_rng):
        first, second = make(7).uniform(size=5).get(), make(7).uniform(size=5).get()
        assert (first == second).all()
    os.environ["CUPY_SEED"] = "6"
    cp.random.reset_states()
    with_variable = cp.random.rand(3).get()
    assert (with_variable == cp.random.RandomState(6).rand(3).get()).all()
    mine = cp.random.RandomState(9)
    cp.random.set_random_state(mine)
    assert cp.random.get_random_state() is mine
    refused(TypeError, lambda: cp.random.set_random_state(np.random.RandomState()))
    generator = cp.random.Generator(cp.random.XORWOW(3))
    first = generator.random(4).get()
    generator.bit_generator = cp.random.XORWOW(3)
    assert (generator.random(4).get() == first).all()


def case_wrong_parameters_are_refused_at_the_call():
    refused(ValueError, lambda: cp.random.randint(3, 3, size=0))
    refused(ValueError, lambda: cp.random.default_rng(0).integers(4, 3))
    refused(TypeError, lambda: cp.random.rand(2, other=1))
    if is_real_gpu():
        return  # kernels on a CUDA device do not look at their parameters
    for call in (
        lambda: cp.random.normal(0, -1),
        lambda: cp.random.poisson(None),
        lambda: cp.random.logseries(cp.zeros(())),
        lambda: cp.random.hypergeometric(10, 10, 0),
    ):
        refused(ValueError, call)


def case_multinomial():
    found = cp.random.multinomial(20, cp.array([0.2, 0.3, 0.5]), (4,)).get()
    assert found.shape == (4, 3)
    assert (found.sum(1) == 20).all()


def case_linear_algebra_does_not_wait():
    host = np.random.RandomState(0).rand(3, 3) + 3 * np.eye(3)
    a, b = cp.asarray(host), cp.asarray(host[0])
    with no_round_trip():
        found = [
            cp.linalg.inv(a),
            cp.linalg.solve(a, b),
            cp.linalg.det(a),
            cp.linalg.norm(a),
            cp.linalg.norm(a, axis=1),
            cp.linalg.matrix_power(a, 3),
            cp.linalg.cholesky(a @ a.T),
            cp.trace(a),
            cp.einsum("ij,jk->ik", a, a),
            cp.einsum("ij,j", a, b),
        ]
        q, r = cp.linalg.qr(a)
        u, s, vh = cp.linalg.svd(a, full_matrices=False)
        values = cp.linalg.eigh(a @ a.T).eigenvalues
    wanted = [
        np.linalg.inv(host),
        np.linalg.solve(host, host[0]),
        np.linalg.det(host),
        np.linalg.norm(host),
        np.linalg.norm(host, axis=1),
        np.linalg.matrix_power(host, 3),
        np.linalg.cholesky(host @ host.T),
        np.trace(host),
        host @ host,
        host @ host[0],
    ]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.get(), other, rtol=1e-10)
    np.testing.assert_allclose((q @ r).get(), host)
    np.testing.assert_allclose(((u * s) @ vh).get(), host)
    np.testing.assert_allclose(values.get(), np.linalg.eigvalsh(host @ host.T))


def case_a_singular_matrix_is_an_error_if_the_program_says_so():
    stack = cp.asarray(np.stack([np.zeros((2, 2)), np.eye(2)]))
    found = cp.linalg.inv(stack).get()
    assert np.isnan(found[0]).all()
    assert (found[1] == np.eye(2)).all()
    assert np.isnan(cp.linalg.cholesky(-cp.eye(2)).get()).all()
    with cupyx.errstate(linalg="raise"):
        for call in (
            lambda: cp.linalg.inv(stack),
            lambda: cp.linalg.solve(cp.zeros((2, 2)), cp.ones(2)),
            lambda: cp.linalg.cholesky(-cp.eye(2)),
        ):
            refused(np.linalg.LinAlgError, call)
    refused(np.linalg.LinAlgError, lambda: cp.linalg.inv(cp.ones((2, 3))))
    refused(
        NotImplementedError,
        lambda: device().call("xpool.raising", ("cupy.add", 1, 2), {}),
    )


def case_views_that_numpy_makes_read_only():
    a = cp.arange(3.0)
    wide = cp.broadcast_to(a, (2, 3))
    wide[0, 0] = 7
    assert a.get()[0] == 7
    square = cp.zeros((2, 2))
    cp.diagonal(square)[...] = 1
    assert (square.get() == np.eye(2)).all()


def case_host_arrays_and_waiting():
    a = cp.zeros((2, 3))
    refused(ValueError, lambda: a.__setitem__(slice(None), np.ones((2, 3), "f")))
    refused(ValueError, lambda: a.fill(np.ones(1)))
    refused(RuntimeError, lambda: a.get(out=np.empty((2, 6))[:, ::2]))
    a[:] = np.ones((2, 3))
    assert bytes(a) == np.ones((2, 3)).tobytes()
    with cupyx.allow_synchronize(False):
        refused(cupyx.DeviceSynchronized, a.get)
    assert (a.get() == 1).all()


def case_kernels_say_over_what_they_loop():
    make = cp.ElementwiseKernel
    refused(ValueError, lambda: make("T x", "T y", "y = x", "1"))
    raw = make("raw T x", "T y", "y = x[i]", "raw_kernel")
    refused(ValueError, lambda: raw(cp.ones(2)))
    assert raw(cp.ones(2), size=2).get().tolist() == [1, 1]
    plain = make("T x", "T y", "y = x", "plain_kernel")
    refused(ValueError, lambda: plain(cp.ones(2), size=2))


def case_vectorized_functions_may_call_cupy():
    add = cp.vectorize(lambda x, y: cp.add(x, y))
    found = add(cp.arange(3, dtype="f"), cp.ones(3, "f"))
    assert found.dtype == np.float32
    assert found.get().tolist() == [1, 2, 3]
    uneven = cp.vectorize(lambda x: x if x > 0 else np.float64(0))
    refused(TypeError, lambda: uneven(cp.array([1, -1], "f")))


if __name__ == "__main__":
    run_cases(globals())
