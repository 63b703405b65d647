"""The log in a real etcd: shared by several registries, written by one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from support.etcd import term_of
from xpool_protocol.errors import BrokenError, NotLeader, UsageError
from xpool_registry.etcd import Ambiguous, Entry, Etcd, place_from_text
from xpool_registry.etcd_store import EtcdStore, shared_key
from xpool_registry.events import LeaseEnded, RegistryCreated, RegistryEvent

CREATED = RegistryCreated(registry_id="r", public_key_hex="00", at_s=1.5)


def ended(number: int) -> RegistryEvent:
    return LeaseEnded(lease_id=f"l{number}", epoch=1, reason='"ä\n"', at_s=3.0)


def test_what_goes_in_comes_out_in_order(etcd: Etcd) -> None:
    store = EtcdStore(etcd, term_of(etcd))
    assert store.load() == []
    store.append([CREATED])
    store.append([ended(1), ended(2)])
    store.append([])
    assert store.load() == [CREATED, ended(1), ended(2)]


def test_more_pages_than_one_answer_brings(etcd: Etcd) -> None:
    store = EtcdStore(etcd, term_of(etcd))
    events = [ended(number) for number in range(600)]
    for event in events:
        store.append([event])
    again = EtcdStore(etcd, term_of(etcd))
    assert again.load() == events
    again.append([CREATED])
    assert again.load() == [*events, CREATED]


def test_who_leads_no_more_writes_nothing(etcd: Etcd) -> None:
    lost: list[str] = []
    old = EtcdStore(etcd, term_of(etcd), lambda: lost.append("old"))
    old.append([CREATED])
    new = EtcdStore(etcd, term_of(etcd, b"b"))
    assert new.load() == [CREATED]
    with pytest.raises(NotLeader):
        old.append([ended(1)])
    assert lost == ["old"]
    new.append([ended(2)])
    assert new.load() == [CREATED, ended(2)]


class Forgetful(Etcd):
    """Loses answers: of a transaction that happened, or that did not."""

    def __init__(self, etcd: Etcd, losses: Sequence[str]) -> None:
        super().__init__(etcd.place)
        self.losses = list(losses)

    def put_if(self, puts, *, absent=(), created_at=(), lease=0) -> bool:  # type: ignore[no-untyped-def]
        loss = self.losses.pop(0) if self.losses else ""
        if loss == "before":
            raise Ambiguous("lost before")
        done = super().put_if(puts, absent=absent, created_at=created_at, lease=lease)
        if loss == "after":
            raise Ambiguous("lost after")
        return done


@pytest.mark.parametrize(
    "losses", [["before"], ["after"], ["after", "before"], ["before", "after"] * 2]
)
def test_an_answer_that_was_lost_stores_once(etcd: Etcd, losses: list[str]) -> None:
    forgetful = Forgetful(etcd, losses)
    try:
        store = EtcdStore(forgetful, term_of(etcd))
        store.append([CREATED])
        store.append([ended(1)])
        assert store.load() == [CREATED, ended(1)]
    finally:
        forgetful.close()


def test_a_cluster_that_never_answers_ends_the_term(etcd: Etcd) -> None:
    forgetful = Forgetful(etcd, ["before"] * 5)
    lost: list[str] = []
    try:
        store = EtcdStore(forgetful, term_of(etcd), lambda: lost.append("lost"))
        with pytest.raises(BrokenError, match="does not answer"):
            store.append([CREATED])
    finally:
        forgetful.close()
    assert lost == ["lost"]


def change(etcd: Etcd, number: int, value: bytes) -> None:
    assert etcd.put_if([(f"{etcd.place.prefix}/log/{number:016d}", value)])


def page(etcd: Etcd, number: int) -> Entry:
    entry = etcd.get(f"{etcd.place.prefix}/log/{number:016d}")
    assert entry is not None
    return entry


def test_a_damaged_log_is_refused_and_left(etcd: Etcd) -> None:
    store = EtcdStore(etcd, term_of(etcd))
    store.append([CREATED])
    store.append([ended(1)])
    whole = page(etcd, 2).value
    for damaged, sentence in [
        (whole.replace(b"l1", b"l2"), "fails its checksum"),
        (b"nonsense", "cannot be read"),
        (whole.replace(b'"format":1', b'"format":9'), "has format 9"),
    ]:
        change(etcd, 2, damaged)
        with pytest.raises(UsageError, match=sentence):
            store.load()
        assert page(etcd, 2).value == damaged
    change(etcd, 2, whole)
    etcd.delete_if(page(etcd, 1).key, page(etcd, 1).create_revision)
    with pytest.raises(UsageError, match="page 1 is missing"):
        store.load()


def test_all_registries_of_a_pool_sign_with_one_key(etcd: Etcd) -> None:
    first = shared_key(etcd)
    assert shared_key(etcd).public_key == first.public_key
    name = f"{etcd.place.prefix}/signing-key"
    assert etcd.put_if([(name, b"nonsense")])
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        shared_key(etcd)


def test_nobody_there(tmp_path: Path) -> None:
    etcd = Etcd(place_from_text("etcd://127.0.0.1:1,127.0.0.1:2"))
    try:
        with pytest.raises(BrokenError, match="start etcd, or name other members"):
            etcd.get("x")
    finally:
        etcd.close()


@pytest.mark.parametrize(
    "text", ["etcd:127.0.0.1:2379", "etcd://", "etcd://host", "etcd://h:x", "/a/file"]
)
def test_what_names_no_place(text: str) -> None:
    with pytest.raises(UsageError, match="is no store"):
        place_from_text(text)


def test_a_page_says_what_it_is(etcd: Etcd) -> None:
    """What another release must be able to read."""
    store = EtcdStore(etcd, term_of(etcd))
    store.append([CREATED])
    written = msgspec.json.decode(page(etcd, 1).value)
    assert set(written) == {"format", "term", "crc32", "events"}
    assert written["events"][0]["event"] == "registry_created"
