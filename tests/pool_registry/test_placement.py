"""Best fit, and refusals that say what is free."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.errors import NoCapacity
from xpool_registry.placement import DeviceOffer, SliceRequest, place, shortage

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
