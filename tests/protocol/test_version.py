"""Which versions understand each other, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.errors import VersionUnsupported
from xpool_protocol.version import MAX_VERSION, MIN_VERSION, choose_version

# Client's range, server's range, what they speak; None: nothing in common.
MATRIX: list[tuple[tuple[int, int], tuple[int, int], int | None]] = [
    ((1, 1), (1, 1), 1),
    ((1, 1), (1, 2), 1),
    ((1, 2), (1, 1), 1),
    ((1, 2), (1, 2), 2),
    ((1, 2), (2, 3), 2),
    ((2, 3), (1, 2), 2),
    ((1, 3), (2, 5), 3),
    ((1, 9), (4, 4), 4),
    ((1, 1), (2, 3), None),
    ((3, 4), (1, 2), None),
    ((2, 1), (1, 2), None),
    ((1, 2), (2, 1), None),
]


@pytest.mark.parametrize(("client", "server", "expected"), MATRIX)
def test_matrix(
    client: tuple[int, int], server: tuple[int, int], expected: int | None
) -> None:
    if expected is not None:
        assert choose_version(*client, *server) == expected
        return
    with pytest.raises(VersionUnsupported, match="no protocol version in common"):
        choose_version(*client, *server)


@pytest.mark.parametrize(
    ("client", "server", "who"),
    [((1, 1), (2, 3), "client"), ((3, 4), (1, 2), "server")],
)
def test_the_older_side_is_told_to_upgrade(
    client: tuple[int, int], server: tuple[int, int], who: str
) -> None:
    with pytest.raises(VersionUnsupported, match=f"upgrade xpool on the {who}"):
        choose_version(*client, *server)


RANGE = st.tuples(st.integers(0, 20), st.integers(0, 20))


@given(RANGE, RANGE)
def test_the_choice_is_the_newest_that_both_speak(
    client: tuple[int, int], server: tuple[int, int]
) -> None:
    common = set(range(client[0], client[1] + 1)) & set(range(server[0], server[1] + 1))
    try:
        chosen = choose_version(*client, *server)
    except VersionUnsupported:
        assert not common
    else:
        assert chosen == max(common)


def test_this_version_talks_to_the_one_before() -> None:
    assert 1 <= MIN_VERSION <= max(1, MAX_VERSION - 1)
