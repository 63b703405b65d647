"""SPEC.md and the code say the same: each table is compared with what it describes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from xpool_protocol import errors, limits, records, values
from xpool_protocol.arrays import values as array_values
from xpool_protocol.codec import HEADER, MAGIC
from xpool_protocol.connection import LEGAL_FOR_CLIENT, LEGAL_FOR_SERVER, State
from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import PoolError
from xpool_protocol.messages import EXCEPTIONS, Fault, Message
from xpool_protocol.records import Record
from xpool_protocol.version import MAX_VERSION

SPEC = (Path(__file__).parents[2] / "protocol" / "SPEC.md").read_text()
SECTIONS = {
    int(number): text
    for number, text in re.findall(
        r"^## (\d+) .*?\n(.*?)(?=^## |\Z)", SPEC, re.MULTILINE | re.DOTALL
    )
}


def table(section: int, first_header: str) -> list[list[str]]:
    """The rows of the table whose first column has this header."""
    blocks = re.findall(r"(?:^\|.*\n)+", SECTIONS[section], re.MULTILINE)
    for block in blocks:
        lines = [line.strip("|").split("|") for line in block.splitlines()]
        header, _, *rows = [[cell.strip() for cell in line] for line in lines]
        if header[0] == first_header:
            assert all(len(row) == len(header) for row in rows), block
            return rows
    raise AssertionError(f"section {section} has no table of {first_header}")


def names_in(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def name_of(cell: str) -> str:
    return names_in(cell)[0]


def error_kinds(kind: type[PoolError] = PoolError) -> list[type[PoolError]]:
    children = [
        one for one in kind.__subclasses__() if one.__module__ == errors.__name__
    ]
    return children + [deeper for one in children for deeper in error_kinds(one)]


def test_every_section_is_there() -> None:
    assert sorted(SECTIONS) == list(range(1, 17))
    assert f"version {MAX_VERSION}\n" in SPEC.splitlines(keepends=True)[0]


def test_header() -> None:
    rows = [(int(offset), int(nbytes)) for offset, nbytes, _ in table(2, "offset")]
    at = 0
    for offset, nbytes in rows:
        assert offset == at
        at += nbytes
    assert at == HEADER.size
    assert f"`{MAGIC.decode()}`" in table(2, "offset")[0][2]


def test_messages() -> None:
    rows = {name_of(row[0]): int(row[1], 16) for row in table(2, "message")}
    kinds: tuple[type[Message], ...] = get_args(Message)
    assert rows == {kind.__name__: kind.kind for kind in kinds}


@pytest.mark.parametrize("kind", get_args(Message), ids=lambda kind: kind.__name__)
def test_packed_fields(kind: type[Message]) -> None:
    row = next(row for row in table(2, "message") if name_of(row[0]) == kind.__name__)
    if "packed" not in row[4]:
        assert not kind.__struct_config__.array_like
        return
    packed = Fault if kind.__name__ == "Failure" else kind
    named = [name for name in names_in(row[4]) if name != "Fault"]
    assert named == [field.name for field in msgspec.structs.fields(packed)]


def test_value_tags() -> None:
    rows = {name_of(row[1]): int(row[0]) for row in table(4, "tag")}
    tags = {
        name.removeprefix("TAG_"): value
        for name, value in vars(values).items()
        if name.startswith("TAG_")
    }
    assert rows == tags


def test_array_value_tags() -> None:
    rows = {name_of(row[1]): int(row[0]) for row in table(15, "array tag")}
    tags = {
        name.removeprefix("ARRAY_TAG_"): value
        for name, value in vars(array_values).items()
        if name.startswith("ARRAY_TAG_")
    }
    assert rows == {"LIST": values.TAG_LIST, **tags}


def test_array_dtypes() -> None:
    text = SECTIONS[15][SECTIONS[15].index("Dtypes of arrays are") :]
    assert "0 to 7, 9,\n10, 11 and 27 to 29" in text
    assert {*range(8), 9, 10, 11, 27, 28, 29} == array_values.ARRAY_DTYPES


def test_flags() -> None:
    rows = {name_of(row[1]): int(row[0]) for row in table(4, "flag")}
    for name in ("FLAG_WRAPPED", "FLAG_COALESCED"):
        in_text = re.search(rf"\((\d), `{name}`", SECTIONS[4])
        assert in_text is not None
        rows[name] = int(in_text[1])
    flags = {
        name: value for name, value in vars(values).items() if name.startswith("FLAG_")
    }
    assert rows == flags


def test_dtypes() -> None:
    rows = {int(row[0]): int(row[2]) for row in table(4, "dtype code")}
    assert rows == values.ITEM_NBYTES


def test_dtypes_have_torch_names_and_sizes() -> None:
    torch = pytest.importorskip("torch")
    for _, name, nbytes in table(4, "dtype code"):
        assert getattr(torch, name).itemsize == int(nbytes)


def test_records() -> None:
    rows = {int(row[0]): name_of(row[1]) for row in table(5, "kind")}
    kinds = {
        "".join(part.capitalize() for part in name.split("_")): value
        for name, value in vars(records).items()
        if name.isupper() and not name.startswith("_") and type(value) is int
    }
    assert {name: kind for kind, name in rows.items()} == kinds
    assert set(rows.values()) == {kind.__name__ for kind in get_args(Record)}
    assert set(rows) == set(records._READERS)


@pytest.mark.parametrize("kind", get_args(Record), ids=lambda kind: kind.__name__)
def test_record_fields(kind: type[Record]) -> None:
    row = next(row for row in table(5, "kind") if name_of(row[1]) == kind.__name__)
    named = list(dict.fromkeys(names_in(row[2])))
    assert named == [field.name for field in msgspec.structs.fields(kind)]
    has_request = "request" in named
    assert has_request == bool(row[3])


def test_statistics() -> None:
    rows = [name_of(row[1]) for row in table(5, "index")]
    assert tuple(rows) == records.STATISTICS_FIELDS
    assert [int(row[0]) for row in table(5, "index")] == list(range(len(rows)))


def states(first_header: str) -> dict[State, set[str]]:
    told: dict[State, set[str]] = {}
    state = State.NEW
    for name, messages, _ in table(7, first_header):
        if name:
            state = State[name.split()[0]]
        told.setdefault(state, set()).update(names_in(messages))
    return told


@pytest.mark.parametrize(
    ("first_header", "legal"),
    [("client's state", LEGAL_FOR_CLIENT), ("server's state", LEGAL_FOR_SERVER)],
)
def test_states(
    first_header: str, legal: dict[State, tuple[type[Message], ...]]
) -> None:
    assert states(first_header) == {
        state: {kind.__name__ for kind in kinds} for state, kinds in legal.items()
    }


def test_limits() -> None:
    rows = {name_of(row[0]): int(row[1].split()[0]) for row in table(8, "constant")}
    constants = {
        name: value for name, value in vars(limits).items() if type(value) is int
    }
    assert rows == constants
    assert all(row[2] for row in table(8, "constant")), "a limit gives its reason"


def test_sizes_for_people_are_right() -> None:
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
    for _, value, _ in table(8, "constant"):
        size = re.fullmatch(r"(\d+) \((\d+) ([KMGT]iB)\)", value)
        if size is not None:
            assert int(size[1]) == int(size[2]) * units[size[3]]
        power = re.fullmatch(r"(\d+) \(2\^(\d+)( - 1)?\)", value)
        if power is not None:
            assert int(power[1]) == (1 << int(power[2])) - bool(power[3])


def test_errors() -> None:
    rows = {name_of(row[1]): int(row[0]) for row in table(9, "code")}
    assert rows == {kind.__name__: kind.code for kind in error_kinds()}


def test_exceptions() -> None:
    text = SECTIONS[9][SECTIONS[9].index("`Fault.exception` is one of") :]
    assert set(names_in(text)) - {"Fault.exception"} == EXCEPTIONS


def test_claims() -> None:
    rows = [name_of(row[0]) for row in table(11, "claim")]
    assert rows == [field.name for field in msgspec.structs.fields(LeaseClaims)]


def test_every_section_that_is_cited_exists() -> None:
    folder = Path(__file__).parents[2] / "protocol" / "xpool_protocol"
    cited = [
        int(number)
        for path in folder.rglob("*.py")
        for number in re.findall(r"SPEC\.md sections? (\d+)", path.read_text())
    ]
    assert cited
    assert set(cited) <= set(SECTIONS)
