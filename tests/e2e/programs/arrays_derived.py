"""Classes derived from cupy.ndarray, powers and truth, beside NumPy's."""

import gc
import sys
import warnings

import cupy as cp
import cupyx
import numpy as np


class Named(cp.ndarray):
    """An array with a name, which it passes on."""

    def __new__(cls, *args, name=None, **kwargs):
        found = super().__new__(cls, *args, **kwargs)
        found.name = name
        return found

    def __array_finalize__(self, source):
        if source is not None:
            self.name = getattr(source, "name", None)


class NamedToo(Named):
    """One that has an operator of its own."""

    def __add__(self, other):
        return "mine"


def same(remote, host):
    assert isinstance(remote, cp.ndarray), type(remote)
    assert remote.dtype == host.dtype, (remote.dtype, host.dtype)
    np.testing.assert_array_equal(remote.get(), host)


def named(values, name="a", kind=Named):
    found = cp.array(values).view(kind)
    found.name = name
    return found


def case_making():
    made = Named((2, 3), dtype="f4", name="new")
    assert (type(made), made.name, made.shape) == (Named, "new", (2, 3))
    assert isinstance(made, cp.ndarray)
    view = cp.arange(3).view(Named)
    assert (type(view), view.name) == (Named, None)
    view[0] = 7
    assert view.base[0] == 7
    assert type(view.view(cp.ndarray)) is cp.ndarray
    assert type(cp.arange(3).view(type=Named)) is Named
    for refused in (np.ndarray, int):
        try:
            cp.arange(3).view(type=refused)
        except ValueError:
            continue
        raise AssertionError("a class of another library was taken")


def case_operators():
    a, b = named([1, 2, 3]), named([4, 5, 6], "b")
    plain = cp.array([7, 8, 9])
    for found, name in ((a + b, "a"), (plain - b, "b"), (2 * b, "b"), (-a, "a")):
        assert (type(found), found.name) == (Named, name), (found, found.name)
    same(a + b, np.array([5, 7, 9]))
    same(plain - b, np.array([3, 3, 3]))
    same(a == b, np.array([False] * 3))
    same(cp.sin(a), np.sin([1, 2, 3]))
    assert cp.add(plain, b).name == np.add(plain, b).name == "b"
    quotient, rest = divmod(b, 4)
    assert (quotient.name, rest.name) == ("b", "b")
    kept = a
    a += b
    assert a is kept
    same(a, np.array([5, 7, 9]))
    out = cp.empty(3, int)
    assert cp.add(a, 1, out=out) is out
    same(out, np.array([6, 8, 10]))
    same(cp.add(plain, 1, out=b), np.array([8, 9, 10]))
    own = named([1, 2], kind=NamedToo)
    assert own + 1 == "mine"
    assert type(own * 2) is NamedToo


def case_views_and_functions():
    a = named([[1, 2], [3, 4]])
    for view in (a[0], a.T, a.reshape(4), a.ravel(), a[:, None]):
        assert (type(view), view.name) == (Named, "a")
    assert type(a.copy()) is type(a.sum()) is cp.ndarray
    same(a.sum(axis=0), np.array([4, 6]))
    same(cp.concatenate([a, a]), np.array([[1, 2], [3, 4]] * 2))
    same(a @ a, np.array([[7, 10], [15, 22]]))
    same(a[cp.array([1])], np.array([[3, 4]]))


def case_numbers_are_freed_once():
    pool = cp.get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    for _ in range(5):
        a = named(np.zeros(1 << 16))
        (a + 1).sum().get()
    del a
    assert pool.used_bytes() == before


def case_powers():
    for dtype in ("i1", "i8", "?"):
        a = cp.array([-1, 1, 2, -3, 0], dtype)
        expected = [-1, 1, 0, 0, 0] if dtype != "?" else [1, 1, 1, 1, 0]
        assert (a**-1).tolist() == expected
        assert (a**-1).dtype == (a**1).dtype
        assert cp.power(a, cp.full(5, -2, "i1")).tolist() == [abs(x) for x in expected]
    mixed = cp.power(cp.array([2, 2, -1], "i4"), cp.array([3, -3, -3], "i2"))
    same(mixed, np.array([8, 0, -1], "i4"))
    same(2 ** cp.array([-1, 3]), np.array([0, 8]))
    out = cp.array([2, -1])
    cp.power(out, -1, out=out)
    same(out, np.array([0, -1]))
    same(cp.array([4.0]) ** -1, np.array([0.25]))


def case_generalized_ufuncs():
    seen = []

    def spread(x, y):
        seen.append(x.shape)
        return x.max() - y.min()

    f = cupyx.GeneralizedUFunc(spread, "(i),(i)->()")
    x = np.arange(24.0).reshape(2, 3, 4)
    a = cp.asarray(x)
    same(f(a, a[0]), x.max(-1) - x[0].min(-1))
    assert seen == [(4,)] * 6
    same(f(a, a, axis=1), np.ptp(x, 1))
    same(f(a, a, axis=1, keepdims=True), np.ptp(x, 1, keepdims=True))
    out = cp.empty((2, 3))
    assert f(a, a, out=out) is out
    product = cupyx.GeneralizedUFunc(
        lambda x, y, out: cp.matmul(x, y, out=out),
        "(i,j),(j,k)->(i,k)",
        supports_batched=True,
        supports_out=True,
    )
    same(product(a, a.swapaxes(1, 2)), x @ x.swapaxes(1, 2))
    moved = product(a, a.swapaxes(1, 2), axes=[(-2, -1), (-2, -1), (0, 1)])
    same(moved, np.moveaxis(x @ x.swapaxes(1, 2), (-2, -1), (0, 1)))
    for wrong in (lambda: f(a), lambda: f(a, a[:, :, :2]), lambda: f(a, a, out=a)):
        try:
            wrong()
        except ValueError:
            continue
        raise AssertionError("a wrong call was taken")
    try:
        cupyx.GeneralizedUFunc(spread, "(i)(i)->()")
    except ValueError as error:
        assert "signature" in str(error)
    else:
        raise AssertionError("a wrong signature was taken")


def case_names_of_the_core():
    from cupy._core import internal

    assert internal.complete_slice(slice(-11, 8, -1), 10) == slice(-1, -1, -1)
    assert internal.get_contiguous_strides((2, 3), 8) == cp.zeros((2, 3)).strides
    assert internal.get_c_contiguity((3, 1), (4, 9), 4)
    assert [internal.clp2(n) for n in (0, 1, 3, 8)] == [0, 1, 4, 8]
    assert cp._core.core.ndarray is cp.ndarray
    assert cp.min_scalar_type([cp.arange(2, dtype="i2")]) == np.dtype("i2")
    assert cp.ndarray((2, 3), order="fortran").flags.f_contiguous


def case_truth_of_nothing():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not cp.array(())
    assert [one.category for one in said] == [DeprecationWarning]


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name, run in list(globals().items()):
        if name.startswith("case_") and (not wanted or name in wanted):
            run()
            print(name.removeprefix("case_"))
