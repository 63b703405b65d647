"""A pytest plugin: data-apis/array-api-tests over the drop-in.

Each test's outcome goes as a line of JSON to the file that ARRAY_SUITE_OUT names.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from outcomes import Outcomes

_outcomes = Outcomes(Path(os.environ["ARRAY_SUITE_OUT"]), not_ours=())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _outcomes.note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _outcomes.note_collection(report)
