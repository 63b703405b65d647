"""Best fit, and refusals that say what is free."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.errors import NoCapacity
from xpool_registry.placement import (
    DeviceOffer,
    SliceRequest,
    place,
    place_group,
    shortage,
)

GIB = 1 << 30


def offer(
    name: str,
    share: int,
    free_gib: int,
    index: int = 0,
    silence_ms: int | None = None,
) -> DeviceOffer:
    return DeviceOffer(
        node_name=name,
        device_index=index,
        memory_nbytes=16 * GIB,
        free_share_percent=share,
        free_nbytes=free_gib * GIB,
        silence_ms=silence_ms,
    )


def ask(share: int, gib: int) -> SliceRequest:
    return SliceRequest(share_percent=share, memory_nbytes=gib * GIB)


@pytest.mark.parametrize(
    ("offers", "request_", "chosen"),
    [
        pytest.param(
            [offer("a", 100, 16), offer("b", 40, 16)], ask(30, 1), ("b", 0), id="fuller"
        ),
        pytest.param(
            [offer("a", 100, 16), offer("b", 20, 16)], ask(30, 1), ("a", 0), id="fits"
        ),
        pytest.param(
            [offer("a", 40, 9), offer("b", 40, 8)], ask(30, 1), ("b", 0), id="memory"
        ),
        pytest.param(
            [offer("b", 40, 8), offer("a", 40, 8)], ask(30, 1), ("a", 0), id="name"
        ),
        pytest.param(
            [offer("a", 40, 8, 2), offer("a", 40, 8, 1)],
            ask(40, 8),
            ("a", 1),
            id="index",
        ),
        pytest.param(
            [offer("a", 30, 16, silence_ms=6000), offer("b", 100, 16)],
            ask(30, 1),
            ("b", 0),
            id="dead",
        ),
        pytest.param(
            [offer("a", 50, 7), offer("b", 60, 8)],
            ask(50, 0),
            ("b", 0),
            id="same share",
        ),
    ],
)
def test_the_table(
    offers: list[DeviceOffer], request_: SliceRequest, chosen: tuple[str, int]
) -> None:
    assert place(request_, offers).key == chosen


def test_a_refusal_lists_who_has_what_and_what_is_short() -> None:
    offers = [
        offer("node-a", 40, 8),
        offer("node-b", 60, 2),
        offer("node-c", 10, 1),
        offer("node-d", 100, 16, silence_ms=7200),
    ]
    with pytest.raises(NoCapacity) as caught:
        place(ask(60, 4), offers)
    assert str(caught.value) == (
        "no device has 60% and 4 GiB free:"
        " node-b/0 has 60% and 2 GiB (too little memory);"
        " node-a/0 has 40% and 8 GiB (too little share);"
        " node-c/0 has 10% and 1 GiB (too little share and memory);"
        " node-d/0 has 100% and 16 GiB (not heard from for 7 s)"
    )


def test_a_long_refusal_is_cut() -> None:
    with pytest.raises(NoCapacity) as caught:
        place(ask(60, 4), [offer("n", 1, 1, index) for index in range(50)])
    assert str(caught.value).endswith("; and 44 more")
    assert str(caught.value).count("n/") == 6


def test_an_empty_pool_says_so() -> None:
    with pytest.raises(NoCapacity, match="no server has joined yet"):
        place(ask(1, 0), [])


OFFERS = st.lists(
    st.builds(
        offer,
        st.sampled_from("abc"),
        st.integers(0, 100),
        st.integers(0, 16),
        st.integers(0, 5),
        st.sampled_from([None, None, 6000]),
    ),
    max_size=12,
    unique_by=lambda one: one.key,
)


@given(OFFERS, st.integers(1, 100), st.integers(0, 16), st.randoms())
def test_what_is_chosen_fits_and_order_does_not_matter(
    offers: list[DeviceOffer], share: int, gib: int, rng: random.Random
) -> None:
    request = ask(share, gib)
    fitting = [one for one in offers if not shortage(request, one)]
    shuffled = rng.sample(offers, len(offers))
    if not fitting:
        refusals = []
        for order in (offers, shuffled):
            with pytest.raises(NoCapacity) as caught:
                place(request, order)
            refusals.append(str(caught.value))
        assert refusals[0] == refusals[1]
        return
    chosen = place(request, offers)
    assert chosen.silence_ms is None
    assert chosen.free_share_percent >= share
    assert chosen.free_nbytes >= request.needs_nbytes(chosen)
    assert chosen.free_share_percent == min(one.free_share_percent for one in fitting)
    assert place(request, shuffled) == chosen


# ---- several devices at once


def node(name: str, *shares: int) -> list[DeviceOffer]:
    return [offer(name, share, 16, index) for index, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("offers", "count", "chosen"),
    [
        pytest.param(
            [*node("a", 100), *node("b", 100, 100)], 2, ["b/0", "b/1"], id="one node"
        ),
        pytest.param(
            [*node("a", 100, 100, 100), *node("b", 100, 100)],
            2,
            ["b/0", "b/1"],
            id="the smaller node",
        ),
        pytest.param(
            [*node("a", 100, 100), *node("b", 50, 60)], 2, ["b/0", "b/1"], id="fuller"
        ),
        pytest.param(
            node("a", 100, 40, 30), 2, ["a/1", "a/2"], id="the fuller devices"
        ),
        pytest.param(
            [*node("a", 100), *node("b", 100, 100), *node("c", 100)],
            3,
            ["b/0", "b/1", "a/0"],
            id="two nodes",
        ),
        pytest.param([*node("a", 20), *node("b", 100)], 1, ["b/0"], id="one"),
        pytest.param(
            [*node("a", 100, 20), *node("b", 100)], 2, ["a/0", "b/0"], id="spread"
        ),
    ],
)
def test_a_group_lies_on_few_nodes(
    offers: list[DeviceOffer], count: int, chosen: list[str]
) -> None:
    placed = place_group(ask(30, 1), count, offers)
    assert [f"{one.node_name}/{one.device_index}" for one in placed] == chosen


def test_a_group_that_does_not_fit_is_told_what_does() -> None:
    with pytest.raises(NoCapacity) as caught:
        place_group(ask(30, 1), 3, [*node("a", 100, 20), *node("b", 90)])
    assert str(caught.value) == (
        "3 devices are wanted and 2 have 30% and 1 GiB free: a/0 has 100% and 16 GiB"
        " (fits); b/0 has 90% and 16 GiB (fits); a/1 has 20% and 16 GiB (too little"
        " share)"
    )
    with pytest.raises(NoCapacity, match="no server has joined yet"):
        place_group(ask(30, 1), 2, [])


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 100)), min_size=1, max_size=12
    ),
    st.integers(1, 6),
)
def test_a_groups_devices_are_distinct_and_fit(
    made: list[tuple[str, int]], count: int
) -> None:
    offers = [offer(name, share, 16, index) for index, (name, share) in enumerate(made)]
    request = ask(30, 1)
    fitting = [one for one in offers if not shortage(request, one)]
    if len(fitting) < count:
        with pytest.raises(NoCapacity):
            place_group(request, count, offers)
        return
    placed = place_group(request, count, offers)
    assert len({one.key for one in placed}) == len(placed) == count
    assert not any(shortage(request, one) for one in placed)
    # No fewer nodes would do: those with the most fitting devices hold fewer.
    sizes = sorted(
        (sum(one.node_name == name for one in fitting) for name in "abcd"), reverse=True
    )
    used = len({one.node_name for one in placed})
    assert sum(sizes[: used - 1]) < count
    shuffled = random.Random(0).sample(offers, len(offers))
    assert place_group(request, count, shuffled) == placed
