"""What a server says it lacks: known names are refused, and nonsense says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.leased_script import run_script
from xpool.lacking import Lacking
from xpool.native import build
from xpool_protocol.messages import Welcome

SCRIPT = Path(__file__).parent / "programs" / "lacking_cases.py"
NATIVE = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(
        build.built_library() is None and build.compiler() is None,
        reason="no native device without a C++ compiler",
    ),
)


def welcome(*lacking: str) -> Welcome:
    return Welcome(
        *(1, "l", 1, "one", "torch", "cpu", "A CPU", 100, 1 << 30, 1 << 26),
        lacking=lacking,
    )


def test_an_operation_is_sent_put_in_other_words_or_refused() -> None:
    lacking = Lacking(welcome("aten::a", "aten::b.out", "aten::c?argument"))
    assert [lacking.has_no(f"aten::{x}") for x in ("a", "b.out", "c", "b", "d")] == [
        *(True, True, False, False, False),
    ]
    assert [lacking.wants_plain(f"aten::{x}") for x in "abcd"] == [
        *(False, False, True, False),
    ]
    assert str(lacking.refusal("aten::a")) == (
        "aten::a has no kernel for the device of server 'one' (cpu: A CPU), and xpool"
        " knows no other words for it"
    )


@pytest.mark.parametrize("device", [NATIVE, "xpool"])
def test_a_hostile_list_refuses_what_it_names_and_nothing_else(device: str) -> None:
    ended = run_script(SCRIPT, device)
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr
