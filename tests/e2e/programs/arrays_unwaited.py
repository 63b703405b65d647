"""Results whose shape and dtype are known here, of functions that used to ask."""

from __future__ import annotations

import cupy as cp
import numpy as np
import scipy.ndimage as host_ndi
from array_checks import no_round_trip, refused, run_cases
from cupyx.scipy import ndimage

RNG = np.random.default_rng(0)


def same(near, far):
    for one, other in zip(near, far, strict=True):
        assert one.dtype == other.dtype
        assert np.allclose(one.get(), other)


def case_parts_of_complex_arrays():
    drawn = RNG.normal(size=(6, 5)) + 1j * RNG.normal(size=(6, 5))
    for kind in "FD":
        host = drawn.astype(kind)
        there = cp.asarray(host)
        with no_round_trip():
            parts = [there.real, there.imag, cp.real(there), cp.imag(there)]
            others = [there.conj(), there.conjugate(), there.T.conj()]
            angles = [cp.angle(there), cp.angle(there, deg=True)]
        same(parts, [host.real, host.imag] * 2)
        same(others, [host.conj(), host.conj(), host.T.conj()])
        same(angles, [np.angle(host), np.angle(host, deg=True)])
        assert parts[0].strides == host.real.strides
        assert not parts[0].flags.owndata
        parts[0][0] = 7
        there.imag = 0
        there[1:3].real[...] = 2
        assert (there[0] == 7).all()
        assert (there[1:3] == 2).all()
        assert parts[0].base is there
        assert there[1:3].real.base is there


def case_a_real_array_is_its_own_conjugate():
    there = cp.arange(3.0)
    assert there.conj() is there
    assert there.conjugate() is there


def case_one_number_or_another():
    mask = cp.asarray(RNG.random((8, 8)) < 0.3)
    with no_round_trip():
        found = [cp.where(mask, *pair) for pair in ((1, 0), (1.0, 0), (-1, 2.5))]
    host = mask.get()
    same(found, [np.where(host, *pair) for pair in ((1, 0), (1.0, 0), (-1, 2.5))])
    refused(OverflowError, lambda: cp.where(mask, 1 << 70, 0))


def case_filters_of_integers():
    for kind in "bhilBHILfd":
        image = cp.asarray(RNG.integers(0, 9, (8, 8)).astype(kind))
        for weights in (cp.ones((3, 3), kind), cp.ones((3, 3))):
            with no_round_trip():
                found = ndimage.convolve(image, weights, mode="wrap")
            wanted = host_ndi.convolve(image.get(), weights.get(), mode="wrap")
            same([found], [wanted])


def case_numbers_beside_arrays_in_an_index():
    there = cp.asarray(RNG.normal(size=(9, 7, 5)))
    host = there.get()

    def read(x, rows):
        return [
            *(x[[3, 6, 7], -1], x[0, [1, 2]], x[:, 2, [0, 4, 4]], x[[1, 2], 0, 3]),
            *(x[..., [1, 2], 0], x[1, rows]),
        ]

    def write(x):
        x[[1, 5, 8], 0] = x[[3, 7, 6], 1] * 2
        x[[0, 2], -1] = 4
        x[:, 1, [0, 2]] = x[:, [3, 4], 1]

    rows = cp.asarray([[0, 1]])
    with no_round_trip():
        found = read(there, rows)
        write(there)
    same(found, read(host, rows.get()))
    write(host)
    same([there], [host])
    same([there[[0, 99], 2]], [host[[0, 0], 2]])
    refused(IndexError, lambda: there[[0, 1], 7])


def case_a_stack_is_solved_and_sorted():
    left = cp.asarray(RNG.normal(size=(4, 3, 3)))
    right = cp.asarray(RNG.normal(size=(4, 3, 2)))
    with no_round_trip():
        solved = cp.linalg.solve(left, right)
        order = cp.argsort(left, axis=1)
        ordered = cp.take_along_axis(left, order, 1)
        first = cp.take_along_axis(left, order[:, :1], axis=1)
    same([solved], [np.linalg.solve(left.get(), right.get())])
    same([ordered, first], [np.sort(left.get(), 1), left.get().min(1, keepdims=True)])


def case_grids():
    lines = [cp.arange(3), cp.arange(4.0), cp.arange(2)]
    hosts = [one.get() for one in lines]
    with no_round_trip():
        made = [
            *cp.meshgrid(*lines[:2]),
            *cp.meshgrid(*lines, indexing="ij"),
            *cp.meshgrid(*lines),
        ]
    wanted = [
        *np.meshgrid(*hosts[:2]),
        *np.meshgrid(*hosts, indexing="ij"),
        *np.meshgrid(*hosts),
    ]
    same(made, wanted)
    same(cp.meshgrid(lines[0]), hosts[:1])
    made[0][0, 0] = 5
    assert made[0][1, 0] == 0


if __name__ == "__main__":
    run_cases(globals())
