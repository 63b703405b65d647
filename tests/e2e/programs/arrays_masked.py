"""Masks: how many items one picks is asked for once, as long as nothing changes it."""

from __future__ import annotations

import cupy as cp
import numpy as np
from array_checks import run_cases
from xpool.cupy.device import device

HOST = np.arange(24.0).reshape(6, 4)


def waits(count):
    """Check how often something was asked for since the last time; audits ask, too."""
    found = device().asked - waits.before
    waits.before = device().asked
    assert device().audit is not None or found == count, (found, count)


waits.before = 0


def made():
    """An array and a mask of its rows, of which 3 hold."""
    a = cp.asarray(HOST)
    mask = a[:, 0] > 10
    waits.before = device().asked
    return a, mask


def case_one_mask_picks_from_many():
    a, mask = made()
    first = a[mask]
    waits(1)
    second, third = (a * 2)[mask], a[:, 1][mask]
    result = cp.zeros((6, 4))
    result[mask] = second
    fourth = result[mask] + first
    waits(0)
    host = HOST[:, 0] > 10
    assert (second.shape, third.shape) == ((3, 4), (3,))
    assert np.array_equal(fourth.get(), HOST[host] * 3)
    assert np.array_equal(third.get(), HOST[host, 1])


def case_a_mask_of_the_whole():
    a, _ = made()
    mask = a % 5 == 0
    assert a[mask].shape == (5,)
    waits(1)
    assert np.array_equal((a + 1)[mask].get(), HOST[HOST % 5 == 0] + 1)
    none = a < 0
    assert a[none].shape == a.T[none.T].shape == a[none].shape == (0,)


def changes(mask, other):
    """Each way to write into a mask."""
    yield lambda: mask.__setitem__(0, True)
    yield lambda: mask[1:].__setitem__(slice(None), True)
    yield lambda: mask.__ior__(other)
    yield lambda: cp.logical_or(mask, other, out=mask)
    yield lambda: mask.fill(True)
    yield lambda: cp.copyto(mask, other)
    yield lambda: mask.set(np.ones(6, bool))
    yield lambda: cp.put(mask, cp.asarray([0]), cp.asarray([True]))
    yield lambda: mask.reshape(2, 3).__setitem__((0, 0), True)
    yield lambda: cp.ElementwiseKernel("", "T z", "z = true")(mask)
    yield lambda: mask.__setitem__(other, True)
    yield lambda: mask.__setitem__(mask, False)
    yield lambda: cp.logical_not(mask, mask)
    yield lambda: cp.place(mask, other, cp.asarray([True]))
    yield lambda: mask.sort()
    yield lambda: cp.add.at(mask, cp.asarray([0]), True)


def case_a_mask_that_changes_is_asked_again():
    other = cp.asarray([True, False, True, False, False, True])
    for at in range(len([*changes(other, other)])):
        a, mask = made()
        assert a[mask].shape == (3, 4)
        [*changes(mask, other)][at]()
        found, host = a[mask], mask.get()
        assert found.shape == (int(host.sum()), 4), at
        assert np.array_equal(found.get(), HOST[host]), at
        assert np.array_equal((a * 2)[mask].get(), HOST[host] * 2), at


def case_a_view_changes_with_what_it_shows():
    a, _ = made()
    flags = cp.asarray([True, False, True, False, False, True, True])
    mask = flags[1:]
    assert a[mask].shape == (3, 4)
    flags[1] = True
    assert a[mask].shape == (4, 4)


def case_what_does_not_fit_is_refused_at_the_call():
    a, mask = made()
    assert a[mask].shape == (3, 4)
    for value in (cp.zeros((2, 4)), cp.zeros(3)):
        try:
            a[mask] = value
        except ValueError:
            continue
        raise AssertionError("a value of another shape was taken")
    assert np.array_equal(a.get(), HOST)


if __name__ == "__main__":
    run_cases(globals())
