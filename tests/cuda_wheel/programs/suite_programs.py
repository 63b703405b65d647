"""Entries of torch's own suites as programs, to compare what two clients send of them.

One sample each: how many fit would depend on the clock.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "compat"))

import module_entries
import op_entries
import optim_entries
import torch
from entries import Entry

EVERY = 13
"""A prime: the choice walks through all dtypes and variants."""


def run(suite: Callable[..., object], entry: Entry, device: str) -> None:
    assert device == "cuda"
    # What the memory of a new host tensor held would be uploaded.
    empty_like, torch.empty_like = torch.empty_like, torch.zeros_like
    try:
        suite(entry, 1)
    finally:
        torch.empty_like = empty_like
    gc.collect()  # what went wrong has kept its frames


PROGRAMS = {
    str(entry): partial(run, suite.run, entry)
    for suite in (op_entries, module_entries, optim_entries)
    for entry in suite.all_entries()[::EVERY]
}
BATCHED = ()
gc.freeze()  # a collection need not look at torch's lists each time
