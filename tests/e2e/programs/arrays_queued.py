"""Calls whose result the client knows: they give what NumPy's give, and none waits."""

import cupy as cp
import numpy as np
from array_checks import no_round_trip, refused, run_cases

M = np.random.default_rng(0).random((6, 6))
V, Z, F = M[0], M + 1j * M, M.astype("f")


def agree(*calls):
    """Each call of a module and its arrays gives the same with NumPy's and ours."""
    host = (M, V, Z, F)
    ours = [cp.asarray(one) for one in host]
    for call in calls:
        with no_round_trip():
            found = call(cp, *ours)
        same(found, call(np, *host))


def same(found, expected):
    if isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        return
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-6)


def case_norms_of_vectors():
    agree(
        lambda xp, m, v, z, f: xp.linalg.norm(v, 2),
        lambda xp, m, v, z, f: xp.linalg.norm(z[0], xp.inf),
        lambda xp, m, v, z, f: xp.linalg.norm(f[0], 1, keepdims=True),
    )


def case_products_by_letters():
    agree(lambda xp, m, v, z, f: xp.einsum("ij,kj", m, f, dtype=None, optimize=False))


def case_numbers_are_chosen():
    agree(
        lambda xp, m, v, z, f: xp.where(m > 0.5, 1, 0),
        lambda xp, m, v, z, f: xp.where(m > 0.5, 1, 0.5),
        lambda xp, m, v, z, f: xp.where(m > 0.5, True, False),
        lambda xp, m, v, z, f: xp.clip(f, np.float32(0.3), 0.5),
        lambda xp, m, v, z, f: xp.clip(m, np.float64(0.3), None),
    )
    refused(OverflowError, lambda: cp.where(cp.ones(2) > 0, 1 << 70, 0))


def case_views():
    agree(
        lambda xp, m, v, z, f: xp.flip(v),
        lambda xp, m, v, z, f: xp.flipud(v),
        lambda xp, m, v, z, f: xp.fliplr(m),
        lambda xp, m, v, z, f: xp.diagonal(m, np.int64(1)),
        lambda xp, m, v, z, f: xp.diag(m, -2),
        lambda xp, m, v, z, f: xp.diag(v),
        lambda xp, m, v, z, f: xp.lib.stride_tricks.sliding_window_view(m, (2, 3)),
        lambda xp, m, v, z, f: xp.lib.stride_tricks.sliding_window_view(m, 6, 0),
        lambda xp, m, v, z, f: xp.split(m, 2),
        lambda xp, m, v, z, f: xp.split(m, [2, 3], axis=1),
        lambda xp, m, v, z, f: xp.array_split(v, [1, 9]),
    )
    many = cp.asarray(M)
    first, _ = cp.split(many, 2)
    first[...] = 7
    assert (many.get()[:3] == 7).all()
    windows = cp.lib.stride_tricks.sliding_window_view
    refused(ValueError, lambda: windows(many, (7, 7)), "larger")
    refused(ValueError, lambda: cp.split(many, 4), "equal")
    refused(ValueError, lambda: cp.diag(cp.ones((2, 2, 2))))
    refused(np.exceptions.AxisError, lambda: cp.flip(many, 2))


def case_parts_of_complex_numbers():
    agree(
        lambda xp, m, v, z, f: xp.real(z),
        lambda xp, m, v, z, f: z.astype("F").imag,
        lambda xp, m, v, z, f: xp.imag(m),
        lambda xp, m, v, z, f: z.conj(),
        lambda xp, m, v, z, f: z.T.conjugate(),
        lambda xp, m, v, z, f: xp.angle(z),
        lambda xp, m, v, z, f: xp.angle(z.astype("F"), deg=True),
    )
    whole = cp.asarray(Z)
    cp.imag(whole)[0] = 5
    whole.real = 3
    assert (whole.get()[0] == 3 + 5j).all()
    plain = cp.asarray(M)
    assert cp.real(plain) is plain
    assert plain.conj() is plain


def case_items_around_and_copies():
    agree(
        lambda xp, m, v, z, f: xp.pad(m, 1),
        lambda xp, m, v, z, f: xp.pad(m, (1, 2)),
        lambda xp, m, v, z, f: xp.pad(m, ((1, 2), (0, 3)), "reflect"),
        lambda xp, m, v, z, f: xp.pad(m, ((1,), (2,)), "wrap"),
        lambda xp, m, v, z, f: xp.pad(v, 2, "edge"),
        lambda xp, m, v, z, f: xp.pad(v, 2, constant_values=1),
        lambda xp, m, v, z, f: xp.copy(m.T),
    )
    assert cp.copy(cp.asarray(M).T).flags.f_contiguous
    refused(ValueError, lambda: cp.pad(cp.ones(3), -1), "negative")
    refused(ValueError, lambda: cp.pad(cp.ones(3), 1, "nope"))
    refused(ValueError, lambda: cp.pad(cp.ones(3), 1, "edge", constant_values=1))
    bytes_ = cp.ones(3, "u1")
    assert cp.pad(bytes_, 1, constant_values=7).tolist() == [7, 1, 1, 1, 7]


def case_orders_may_be_written_small():
    agree(
        lambda xp, m, v, z, f: xp.copy(m.T, "c"),
        lambda xp, m, v, z, f: m.copy("f"),
        lambda xp, m, v, z, f: m.astype("f", order="f"),
        lambda xp, m, v, z, f: m.T.flatten("f"),
        lambda xp, m, v, z, f: m.T.ravel("k"),
    )
    many = cp.asarray(M)
    assert many.copy("f").flags.f_contiguous
    assert many.T.astype("f", order="c").flags.c_contiguous
    assert many.astype("d", order="c", copy=False) is many
    for call in (many.copy, many.flatten, many.ravel, lambda x: many.astype("f", x)):
        refused(ValueError, lambda call=call: call("x"), "order not understood")


if __name__ == "__main__":
    run_cases(globals())
