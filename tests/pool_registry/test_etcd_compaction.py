"""A log in a real etcd is put into short while it is written, and leaders change."""

from __future__ import annotations

import grpc
import pytest
from aetcd import rpc
from pool_registry.pool_model import PoolModel
from support.etcd import EtcdServer, term_of
from support.waiting import eventually
from xpool_protocol.errors import BrokenError, NotLeader, UsageError
from xpool_registry.compaction import compacted
from xpool_registry.etcd import Ambiguous, Etcd
from xpool_registry.etcd_compaction import Compaction, Upkeep
from xpool_registry.etcd_store import EtcdStore
from xpool_registry.events import RegistryEvent
from xpool_registry.settings import Settings
from xpool_registry.state import State

SETTINGS = Settings(compact_after=50)


def history(jobs: int) -> list[RegistryEvent]:
    """Of a pool with one device, one live lease at the end."""
    pool = PoolModel()
    pool.join("a", devices=1)
    for number in range(jobs):
        assert pool.ask(f"r{number}", 100)
        pool.end(f"r{number}")
    assert pool.ask("last", 100)
    return pool.store.load()


def compaction_of(etcd: Etcd, store: EtcdStore) -> Compaction:
    return Compaction(etcd, store, SETTINGS, lambda: 1000.0)


def live(events: list[RegistryEvent]) -> tuple[list[str], int, int]:
    """Leases, the last epoch, and the number of ends that are remembered."""
    state = State.from_events(events, 0, 1000.0)
    return list(state.leases), state.last_epoch, len(state.ended)


def keys(etcd: Etcd, folder: str) -> list[str]:
    first = f"{etcd.place.prefix}/{folder}/"
    return [one.key for one in etcd.span(first, f"{first[:-1]}0")]


def test_a_long_log_becomes_short_and_says_the_same(etcd: Etcd) -> None:
    events = history(40)
    store = EtcdStore(etcd, term_of(etcd))
    store.load()
    compaction = compaction_of(etcd, store)
    for event in events[:-1]:
        store.append([event])
    assert compaction.is_due()
    assert compaction.run() == 1
    assert not compaction.is_due()
    assert keys(etcd, "log") == []
    store.append(events[-1:])
    assert len(keys(etcd, "log")) == 1
    again = EtcdStore(etcd, term_of(etcd))
    assert live(again.load()) == live(events)
    # And once more, over the first short form.
    for event in history(30)[2:-1]:
        again.append([event])
    assert compaction_of(etcd, again).run() == 1
    assert len(keys(etcd, "base")) == 1
    assert live(EtcdStore(etcd, term_of(etcd)).load())[1] == 41


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_leader_that_is_cut_off_at_any_step_leaves_a_whole_log(
    etcd: Etcd, steps: int
) -> None:
    events = history(40)
    old = EtcdStore(etcd, term_of(etcd))
    for event in events:
        old.append([event])
    compaction = compaction_of(etcd, old)
    base = None
    if steps > 0:
        base = compaction.write(events[:1], old.page_count)
    if steps > 1 and base is not None:
        base = compaction.write(compacted(events, 1000.0, SETTINGS), old.page_count)
        compaction.switch_to(base)
    if steps > 2:
        etcd.delete_span_if(
            old.page_key(0), old.page_key(30), [(old.term.key, old.term.revision)]
        )
    new = EtcdStore(etcd, term_of(etcd, b"b"))
    assert live(new.load()) == live(events)
    # Whatever the old one still believes, it changes nothing.
    if base is not None:
        with pytest.raises(NotLeader):
            compaction.switch_to(base)
    with pytest.raises(NotLeader):
        compaction.run()
    with pytest.raises(NotLeader):
        compaction.remove_what_is_unread()
    new.append([events[-1]])
    compaction_of(etcd, new).run()
    assert keys(etcd, "log") == []
    assert len(keys(etcd, "base")) == 1
    assert live(EtcdStore(etcd, term_of(etcd, b"c")).load()) == live(events)


def test_appends_go_on_meanwhile(etcd: Etcd) -> None:
    events = history(300)
    store = EtcdStore(etcd, term_of(etcd))
    upkeep = Upkeep(etcd, compaction_of(etcd, store), 0.05, 0.01)
    try:
        for event in events:
            store.append([event])
        eventually(lambda: len(keys(etcd, "log")) < 50, "it is short", 20)
    finally:
        upkeep.stop()
    assert live(EtcdStore(etcd, term_of(etcd, b"b")).load()) == live(events)


def test_a_part_that_is_missing_or_damaged_is_refused(etcd: Etcd) -> None:
    store = EtcdStore(etcd, term_of(etcd))
    for event in history(40):
        store.append([event])
    compaction_of(etcd, store).run()
    part = etcd.span(f"{store.base_key}/", f"{store.base_key}0")[0]
    for value, sentence in (
        (part.value.replace(b'"r', b'"s', 1), "cannot be read"),
        (part.value[:-9], "cannot be read"),
    ):
        if value == part.value:
            value = part.value.replace(b"a", b"b", 1)
        assert etcd.put_if([(part.key, value)])
        with pytest.raises(UsageError, match=sentence):
            EtcdStore(etcd, store.term).load()
    term = (store.term.key, store.term.revision)
    assert etcd.delete_span_if(part.key, f"{part.key}0", [term])
    with pytest.raises(UsageError, match="is missing"):
        EtcdStore(etcd, store.term).load()


class Silent(Etcd):
    """Loses each answer to a write, which may have happened."""

    def put_if(self, puts, *, absent=(), created_at=(), lease=0) -> bool:  # type: ignore[no-untyped-def]
        super().put_if(puts, absent=absent, created_at=created_at, lease=lease)
        raise Ambiguous("lost")


def test_an_answer_that_was_lost_harms_nothing(etcd: Etcd) -> None:
    events = history(40)
    store = EtcdStore(etcd, term_of(etcd))
    for event in events:
        store.append([event])
    silent = Silent(etcd.place)
    try:
        with pytest.raises(BrokenError, match="lost"):
            compaction_of(silent, store).run()
    finally:
        silent.close()
    assert live(EtcdStore(etcd, store.term).load()) == live(events)


def in_use(server: EtcdServer) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = rpc.MaintenanceStub(channel).Status(rpc.StatusRequest())
        return int(answer.dbSizeInUse)


def test_etcd_grows_to_a_size_and_no_further(etcd: Etcd, server: EtcdServer) -> None:
    """Days of a pool: without any of this it keeps all that was ever written."""
    store = EtcdStore(etcd, term_of(etcd))
    store.load()
    compaction = compaction_of(etcd, store)
    upkeep = Upkeep(etcd, compaction, 3600.0, 3600.0)
    page = [one for one in history(60) for _ in range(3)]
    before, written = in_use(server), 0
    try:
        for _ in range(12):
            for _ in range(4):
                store.append(page)
                written += len(store.page_of(page))
            compaction.run()
            for _ in range(2):
                upkeep.forget()
    finally:
        upkeep.stop()
    # It lets go of what is forgotten a little later.
    eventually(lambda: in_use(server) - before < written / 4, "it has let go", 20)
