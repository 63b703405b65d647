"""The shape of ``a[key]`` is what NumPy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool.cupy.encoding import encode
from xpool.cupy.geometry import geometry
from xpool.cupy.indexing import (
    NoRule,
    assignment_fits,
    basic_index,
    is_mask,
    picked_shape,
    view_shape,
)

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
        assert basic_index(shape, key)[1] == encode(key)
    except (IndexError, ValueError) as error:
        found = type(error)
    except NoRule:
        return  # the server is asked
    assert found == expected


INTEGERS = st.sampled_from("bhilBHI")
PICKS = st.builds(
    lambda shape, char: np.zeros(shape, char),
    st.lists(st.integers(0, 3), max_size=2).map(tuple),
    INTEGERS,
)
PICKING_KEYS = st.lists(
    st.one_of(
        PICKS,
        PICKS,
        st.integers(-3, 2),
        st.builds(slice, PART, PART, PART),
        st.none(),
        st.just(...),
    ),
    min_size=1,
    max_size=5,
).map(tuple)


@given(SHAPES, PICKING_KEYS)
def test_shapes_of_what_is_picked_are_numpys(
    shape: tuple[int, ...], key: tuple[Any, ...]
) -> None:
    array = np.broadcast_to(np.int8(0), shape)
    known = tuple(
        geometry(one.shape, one.dtype) if isinstance(one, np.ndarray) else one
        for one in key
    )
    try:
        found = picked_shape(shape, known)
    except NoRule:
        return  # the server is asked
    except (IndexError, ValueError) as error:
        with pytest.raises(type(error)):
            array[key]
        return
    assert found == array[key].shape


def test_common_ways_to_pick_are_known() -> None:
    rows, mask = geometry((5,), np.dtype("q")), geometry((4,), np.dtype("?"))
    assert picked_shape((4, 3), (rows,)) == (5, 3)
    assert picked_shape((4, 3), (slice(None), rows)) == (4, 5)
    assert picked_shape((4, 3), (..., rows)) == (4, 5)
    assert picked_shape((4, 3), (rows, rows)) == (5,)
    assert picked_shape((4, 3), (rows, slice(1, 3))) == (5, 2)
    assert picked_shape((4, 3), (rows, None)) == (5, 1, 3)
    assert picked_shape((4, 3), (rows, 0)) == (5,)
    assert picked_shape((4, 3, 2), (slice(None), -1, rows)) == (4, 5)
    for key in (
        (mask,),
        (rows, slice(None), rows),
        (0, None, rows),
        (rows, 3),
        (rows, rows, rows),
    ):
        with pytest.raises(NoRule):
            picked_shape((4, 3), key)
    assert is_mask((4, 3), mask)
    assert not is_mask((3, 4), mask)
    assert not is_mask((4, 3), rows)


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
