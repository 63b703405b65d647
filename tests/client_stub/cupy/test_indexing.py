"""The shape of ``a[key]`` is what NumPy says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from xpool.cupy.indexing import NoRule, assignment_fits, view_shape

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
PART = st.none() | st.integers(-6, 6)
KEYS = st.one_of(
    st.integers(-5, 5),
    st.builds(slice, PART, PART, PART),
    st.none(),
    st.just(...),
    st.lists(
        st.integers(-5, 5)
        | st.builds(slice, PART, PART, PART)
        | st.none()
        | st.just(...),
        max_size=5,
    ).map(tuple),
)


@given(SHAPES, KEYS)
def test_shapes_and_errors_are_numpys(shape: tuple[int, ...], key: object) -> None:
    array = np.broadcast_to(np.int8(0), shape)
    try:
        expected: object = array[key].shape  # type: ignore[index]
    except (IndexError, ValueError) as error:
        expected = type(error)
    try:
        found: object = view_shape(shape, key)
    except (IndexError, ValueError) as error:
        found = type(error)
    except NoRule:
        return  # the server is asked
    assert found == expected


@given(SHAPES, SHAPES)
def test_what_is_said_to_fit_can_be_assigned(
    shape: tuple[int, ...], given_shape: tuple[int, ...]
) -> None:
    target, value = np.zeros(shape), np.ones(given_shape)
    fits = assignment_fits(target.dtype, shape, value, given_shape)
    try:
        target[...] = value
    except ValueError:
        assert not fits


def test_numbers_that_a_dtype_does_not_hold() -> None:
    small, real = np.dtype("b"), np.dtype("d")
    assert assignment_fits(small, (3,), 127, ())
    assert not assignment_fits(small, (3,), 128, ())
    assert not assignment_fits(real, (3,), 1j, ())
    assert assignment_fits(np.dtype("D"), (3,), 1j, ())
