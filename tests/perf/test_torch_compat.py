"""What the runners of suites and programs print becomes figures, and why not."""

from __future__ import annotations

import pytest
from xpool_perf.figures import value_of
from xpool_perf.pool import RunFailed
from xpool_perf.torch_compat import TORCH_COMPAT, samples_from

COUNTS = {
    "run": 200,
    "passed": 199,
    "failed": 0,
    "expected_failures": 1,
    "skipped": {"no kernel": 3, "refused": 4},
}
PROGRAMS = {
    "programs_tried": 3,
    "programs_pass": 2,
    "failed": {"bert": "status 1:\n no"},
    "skipped": {"vit": "transformers is not installed"},
}
SUITES = dict.fromkeys(("op_db", "module_db", "optim_db"), COUNTS)


def test_every_figure_comes_of_the_counts() -> None:
    samples = samples_from(SUITES, PROGRAMS)
    found = {one.name: value_of(one.sources, samples) for one in TORCH_COMPAT.figures}
    assert found["op_db_pass_percent"] == 99.5
    assert (found["module_db_run"], found["module_db_skipped"]) == (200, 7)
    assert (found["programs_pass"], found["programs_tried"]) == (2, 3)
    assert samples["optim_db_skipped: no kernel"] == [3]
    assert samples["programs_failed: bert: status 1: no"] == [1]


@pytest.mark.parametrize("suites", [{}, {**SUITES, "op_db": {**COUNTS, "run": 0}}])
def test_a_suite_that_did_not_run_is_no_figure(suites: dict[str, object]) -> None:
    with pytest.raises(RunFailed, match="op_db did not run"):
        samples_from(suites, PROGRAMS)
