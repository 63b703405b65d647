"""Addresses are taken apart, or refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.errors import UsageError
from xpool_protocol.transport import connect, listen
from xpool_protocol.transport.address import address_from_uri


@pytest.mark.parametrize(
    "uri",
    [
        "tcp://127.0.0.1:7000",
        "tcp://pool-1.example.org:65535",
        "tcp://[::1]:1",
        "tcp://[fe80::1%eth0]:7000",
        "ipc:///run/xpool/w1",
        "ipc://@abstract",
        "inproc://anything",
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_good_addresses(uri: str, listening: bool) -> None:
    address = address_from_uri(uri, listening=listening)
    assert f"{address.scheme}://{address.rest}" == uri == address.uri
    assert address.is_ipv6 == ("[" in uri)


@pytest.mark.parametrize(
    "uri",
    [
        "tcp://",
        "tcp://host",
        "tcp://:7000",
        "tcp://host:",
        "tcp://host:99999",
        "tcp://host:-1",
        "tcp://host:7000/path",
        "tcp://ho st:7000",
        "tcp://::1:7000",
        "tcp://host:7000\n",
        "ipc://",
        "ipc://*",
        "ipc://" + "x" * 108,
        "ipc://a\0b",
        "inproc://",
    ],
)
@pytest.mark.parametrize("make", [connect, listen])
def test_bad_addresses_name_the_form(uri: str, make: object) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match="is not an address of the form"):
        make(uri)


@pytest.mark.parametrize("uri", ["", "host:7000", "udp://h:1", "http://h", "TCP://h:1"])
@pytest.mark.parametrize("make", [connect, listen])
def test_an_unknown_scheme_names_the_known_ones(uri: str, make: object) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match="tcp://HOST:PORT, ipc://PATH, inproc://NAME"):
        make(uri)


@pytest.mark.parametrize("uri", ["tcp://*:7000", "tcp://127.0.0.1:0"])
def test_some_addresses_are_for_listening_only(uri: str) -> None:
    assert address_from_uri(uri, listening=True).uri == uri
    with pytest.raises(UsageError):
        address_from_uri(uri, listening=False)


@given(uri=st.text() | st.text().map("tcp://".__add__), listening=st.booleans())
def test_any_text_is_an_address_or_a_usage_error(uri: str, listening: bool) -> None:
    try:
        address = address_from_uri(uri, listening=listening)
    except UsageError:
        return
    assert address.uri == uri
