"""CuPy's structured arrays beside NumPy's. Run by test_structured_arrays.py."""

import sys

import cupy as cp
import numpy as np
from array_checks import refused

PAIR = np.dtype("i4,f4")


def same(remote, host):
    assert isinstance(remote, cp.ndarray), type(remote)
    assert remote.dtype == host.dtype, (remote.dtype, host.dtype)
    np.testing.assert_array_equal(remote.get(), host)


def both(run):
    same(run(cp), run(np))


def case_making():
    both(lambda xp: xp.zeros((2, 3), "i,f8"))
    both(lambda xp: xp.ones(3, PAIR))
    both(lambda xp: xp.full(3, 7, PAIR))
    both(lambda xp: xp.array([(1, 2.5), (3, 4.5)], PAIR))
    both(lambda xp: xp.array([b"abcd", b"ef"], "V4"))
    named = np.dtype([("when", "M8[us]"), ("who", "U3"), ("at", ">f4", (2,))])
    host = np.zeros(3, named)
    host["at"], host["who"] = 1.5, "ada"
    same(cp.asarray(host), host)
    assert cp.empty_like(cp.asarray(host)).dtype == named
    same(cp.asarray(np.zeros((2, 3), PAIR, "F")), np.zeros((2, 3), PAIR, "F"))


def case_large():
    host = np.zeros((300, 400), [("a", "f8"), ("b", "i8", (2,))])
    host["a"] = np.arange(120_000).reshape(300, 400)
    same(cp.asarray(host), host)
    same(cp.asarray(host).T, host.T)
    same(cp.asarray(np.asfortranarray(host)), host)


def case_fields():
    host = np.array([(1, 2.5), (3, 4.5), (5, 6.5)], PAIR)
    a = cp.asarray(host)
    field = a["f1"]
    assert field.base is a
    field += 1
    a["f0"][1:] = 9
    a["f0"][0] = cp.int32(8)
    host["f1"] += 1
    host["f0"] = [8, 9, 9]
    same(a, host)
    same(a["f1"].sum(), host["f1"].sum())
    same(a[["f1", "f0"]], host[["f1", "f0"]])
    same(a[1:]["f0"], host[1:]["f0"])
    same(a[1], host[1:2].reshape(()))
    a[["f1", "f0"]] = cp.array([(1, 2), (3, 4), (5, 6)], PAIR)
    assert a.tolist() == [(2, 1.0), (4, 3.0), (6, 5.0)]
    refused(ValueError, lambda: a["none"], "no field name")
    inner = cp.zeros(2, [("in", PAIR), ("more", "i4", (3,))])
    inner["in"]["f1"] = 3
    assert inner.tolist()[0][0] == (0, 3.0)
    refused(ValueError, lambda: inner["more"], "nested subarrays")


def case_copies_and_casts():
    host = np.array([(1, 2.5), (3, 4.5)], PAIR)
    a = cp.asarray(host)
    same(a.copy(), host)
    same(a.astype("f8,i8"), host.astype("f8,i8"))
    same(a.view("i8"), host.view("i8"))
    same(a.view("V8"), host.view("V8"))
    same(cp.concatenate([a, a]), np.concatenate([host, host]))
    same(a[::-1], host[::-1])
    same(a[cp.array([1, 1])], host[[1, 1]])
    same(cp.asarray(a, PAIR), host)
    a.fill((7, 8.5))
    assert a.tolist() == [(7, 8.5)] * 2
    a[0] = np.array((1, 1.5), PAIR)[()]
    assert a.tolist() == [(1, 1.5), (7, 8.5)]
    assert repr(a) == repr(a.get())


def case_comparing():
    host, other = (np.array([(1, 2.5), (3, x)], PAIR) for x in (4.5, 0))
    a, b = cp.asarray(host), cp.asarray(other)
    same(a == b, host == other)
    same(cp.not_equal(a, b), host != other)
    refused(TypeError, lambda: a == 1, "structured")
    refused(TypeError, lambda: a + b, "Wrong type")
    refused(TypeError, lambda: a < b, "Wrong type")


def case_alignment():
    packed = np.dtype("?,f8")
    a = cp.array([(True, 2.5), (False, 1.5)], packed)
    same(a, np.array([(True, 2.5), (False, 1.5)], packed))
    refused(ValueError, lambda: a["f1"], "sufficiently aligned")
    refused(ValueError, lambda: cp.ones(3, packed), "not aligned to 8")
    refused(ValueError, lambda: a.fill((True, 1.5)), "not aligned to 8")
    good = cp.make_aligned_dtype(packed)
    assert (good.itemsize, cp.make_aligned_dtype("?,c16").itemsize) == (16, 32)
    same(cp.ones(3, good)["f1"], np.ones(3))
    refused(ValueError, lambda: cp.make_aligned_dtype("f8"), "structured")


def case_refused():
    for bad in ("O", "i,O", "U3", "S3", "M8[us]", "V0", "(3,)i4", "g"):
        for make in (cp.zeros, cp.empty, cp.ndarray):
            refused(ValueError, lambda bad=bad, make=make: make(3, bad), "Unsupported")
    for values in (["text"], [None], [object()], np.zeros(2, "i,O")):
        refused(ValueError, lambda values=values: cp.array(values), "Unsupported")
    refused(ValueError, lambda: cp.zeros(3).astype(object), "Unsupported")
    refused(ValueError, lambda: cp.zeros(3).view("O"), "Unsupported")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name, run in list(globals().items()):
        if name.startswith("case_") and (not wanted or name in wanted):
            run()
            print(name.removeprefix("case_"))
