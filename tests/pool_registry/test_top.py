"""The rows of ``xpool admin top``, from what the registry lists."""

from __future__ import annotations

import io

from rich.console import Console
from xpool_protocol.control import registry_pb2 as pb
from xpool_registry.top import Looks, table_from_rows


def info(lease_id: str, waiting_ns: int | None, share: int = 30) -> pb.LeaseInfo:
    lease = pb.Lease(
        lease_id=lease_id,
        node_name="n",
        share_percent=share,
        memory_nbytes=1 << 30,
        mode="capped",
    )
    if waiting_ns is None:
        return pb.LeaseInfo(lease=lease, tenant="[red]")
    session = pb.SessionReport(
        lease_id=lease_id, waiting_ns=waiting_ns, got_percent=29.5, state="open"
    )
    return pb.LeaseInfo(lease=lease, tenant="[red]", session=session)


def test_waiting_is_taken_between_two_looks() -> None:
    looks = Looks()
    (first,) = looks.rows([info("a", 0)], 10.0)
    assert (first.got_percent, first.waiting_percent) == (29.5, None)
    (second,) = looks.rows([info("a", 500_000_000)], 11.0)
    assert second.waiting_percent == 50.0
    # No news since: the next look is compared with the last one that had some.
    looks.rows([info("a", 500_000_000)], 11.5)
    (fourth,) = looks.rows([info("a", 1_000_000_000)], 12.0)
    assert fourth.waiting_percent == 50.0


def test_a_lease_without_a_session_and_an_order() -> None:
    rows = Looks().rows([info("a", None, 10), info("b", 0, 60)], 0.0)
    assert [row.lease_id for row in rows] == ["b", "a"]
    assert rows[1].got_percent is None
    assert rows[1].figures()["state"] == "-"


def test_the_table_shows_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=120)
    rows = Looks().rows([info("a", 0), info("b", None)], 0.0)
    with console.capture() as captured:
        console.print(table_from_rows(rows))
    assert "[red]" in captured.get()
    assert "30% capped" in captured.get()
    assert "29.5%" in captured.get()


def test_the_table_fits_80_columns_with_whole_ids_and_figures() -> None:
    rows = Looks().rows([info("0123456789abcdef", 0), info("b" * 16, None)], 0.0)
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        console.print(table_from_rows(rows))
    head, *lines = captured.get().splitlines()
    assert head.split()[:6] == ["lease", "tenant", "device", "share", "got", "waits"]
    text = "\n".join(lines)
    for whole in ("0123456789abcdef", "b" * 16, "30% capped", "29.5%"):
        assert whole in text
    assert max(map(len, lines)) <= 80
