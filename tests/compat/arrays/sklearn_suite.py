"""A pytest plugin: of scikit-learn's own tests, those that it runs over CuPy's arrays.

Each test's outcome goes as a line of JSON to the file that ARRAY_SUITE_OUT names.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from outcomes import Outcomes

_outcomes = Outcomes(Path(os.environ["ARRAY_SUITE_OUT"]), not_ours=())


def _is_over_cupy(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    return call is not None and "cupy" in str(list(call.params.values()))


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    others = [one for one in items if not _is_over_cupy(one)]
    items[:] = [one for one in items if _is_over_cupy(one)]
    config.hook.pytest_deselected(items=others)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _outcomes.note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _outcomes.note_collection(report)
