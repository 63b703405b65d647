"""A line of the pool's history says all that matters, and can be taken apart."""

from __future__ import annotations

import json
import shlex

import msgspec
from xpool_protocol.control import admin_pb2 as pb
from xpool_registry.event_lines import event_text
from xpool_registry.events import (
    Device,
    LeaseNoticed,
    NodeJoined,
    RegistryEvent,
    StartPromised,
    TenantSet,
)


def line(event: RegistryEvent, *, as_json: bool = False) -> str:
    info = pb.EventInfo(sequence=7, json=msgspec.json.encode(event).decode())
    return event_text(info, as_json=as_json)


def said(event: RegistryEvent) -> dict[str, str]:
    """What follows time and kind, as a shell would read it."""
    _, _, _, *words = shlex.split(line(event))
    return dict(word.split("=", 1) for word in words)


def test_a_promise_says_when_and_where() -> None:
    event = StartPromised(
        request_id="r",
        starts_at_s=1000.0,
        devices=(("a", 0), ("b", 3)),
        is_firm=True,
        at_s=1.0,
    )
    fields = said(event)
    assert fields["devices"] == "a/0,b/3"
    assert fields["is_firm"] == "yes"
    assert fields["starts_at_s"].endswith(":40")


def test_long_lists_are_cut_and_devices_have_names() -> None:
    event = NodeJoined(
        node_name="n",
        boot_id="b",
        address="tcp://n:1",
        version="",
        devices=tuple(
            Device(index=i, kind="cuda", name=f"gpu-{i}", memory_nbytes=1)
            for i in range(10)
        ),
        at_s=1.0,
        labels=(("zone", "x"),),
    )
    fields = said(event)
    assert fields["devices"].startswith("gpu-0,gpu-1,")
    assert fields["devices"].endswith("and 2 more")
    assert fields["labels"] == "zone/x"


def test_text_with_spaces_is_quoted_and_fractions_are_told() -> None:
    event = LeaseNoticed(
        lease_id="l", request_id="", tenant="", grace_ms=5, reason='a "b" c', at_s=1.0
    )
    assert said(event)["reason"] == 'a "b" c'
    wild = line(TenantSet(name="a\x1b[2J\nb", at_s=1.0))
    assert wild.isprintable()
    assert said(TenantSet(name="ada", weight=2.5, at_s=1.0))["weight"] == "2.5"


def test_json_is_the_whole_event() -> None:
    event = TenantSet(name="ada", weight=2.5, at_s=1.0)
    whole = json.loads(line(event, as_json=True))
    assert whole == {"sequence": 7, **json.loads(msgspec.json.encode(event))}
