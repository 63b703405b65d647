"""Both stores of arrays keep the same, whatever is done to them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.executor_desk import library
from xpool_protocol.limits import MAX_STORAGE_ID
from xpool_server.arrays.store import ABSENT, DictStore
from xpool_server.native_array_store import NativeArrayStore

# Few numbers, so that they meet; some of them a table's size apart, some the largest.
NUMBERS = st.one_of(
    st.integers(0, 12),
    st.integers(0, 12).map(lambda one: MAX_STORAGE_ID - (one << 8)),
    st.integers(0, 900),
)
OWNERS = tuple(np.zeros(size) for size in range(5))
OBJECTS = (*OWNERS, *(one[:] for one in OWNERS), "a fault", 3.0)
STEPS = st.one_of(
    st.tuples(st.just("find"), NUMBERS),
    st.tuples(st.just("contains"), NUMBERS),
    st.tuples(st.just("remove"), NUMBERS),
    st.tuples(st.just("set"), NUMBERS, st.integers(0, len(OBJECTS) - 1)),
    st.tuples(st.just("hold"), st.integers(0, 4)),
    st.tuples(st.just("release"), st.integers(0, 4)),
)


def owner_of(found: Any) -> Any:
    if not isinstance(found, np.ndarray):
        return None
    return found if found.base is None else found.base


def take(store: DictStore | NativeArrayStore, step: tuple[Any, ...]) -> Any:
    """What one step answers; memory is held first where the store asks for it."""
    match step:
        case "find", number:
            return store.find(number)
        case "contains", number:
            return number in store
        case "remove", number:
            return store.remove(number)
        case "set", number, index:
            found = OBJECTS[index]
            owner = owner_of(found)
            if owner is not None and not store.hold(owner):
                store.add_owner(owner, 100 + owner.nbytes)
            store.set(number, found, owner)
        case "hold", index:
            return store.hold(OWNERS[index])
        case "release", index:
            try:
                return store.release(OWNERS[index])
            except KeyError:
                return KeyError
    return None


@given(st.lists(STEPS, max_size=200))
def test_both_keep_the_same(steps: list[tuple[Any, ...]]) -> None:
    stores = DictStore(), NativeArrayStore(library(), np.ndarray)
    for step in steps:
        python, native = (take(store, step) for store in stores)
        assert python is native or python == native
        assert len(stores[0]) == len(stores[1])
    found = [sorted(store.items(), key=lambda one: one[0]) for store in stores]
    assert [number for number, _ in found[0]] == [number for number, _ in found[1]]
    for (_, python), (_, native) in zip(*found, strict=True):
        assert python is native
    assert stores[0].holds() == stores[1].holds()


def test_many_numbers() -> None:
    """More than a table begins with, taken out again from the middle."""
    store = NativeArrayStore(library(), np.ndarray)
    for number in range(5_000):
        store.set(number * 256, number)
    for number in range(0, 5_000, 3):
        assert store.remove(number * 256) == number
    for number in range(5_000):
        expected = ABSENT if number % 3 == 0 else number
        found = store.find(number * 256)
        assert found is expected or found == expected
    assert len(store) == 5_000 - len(range(0, 5_000, 3))


def test_objects_go_with_their_store() -> None:
    held = np.zeros(3)
    before = sys.getrefcount(held)
    store = NativeArrayStore(library(), np.ndarray)
    store.set(1, held)
    store.set(2, held)
    store.set(2, 5)
    assert sys.getrefcount(held) == before + 1
    del store
    assert sys.getrefcount(held) == before
