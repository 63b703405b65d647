"""What every test starts from: no XPOOL_* setting, one Hypothesis profile.

The examples are the same in every run where ``CI`` is set, so that a change is judged
by what it changes; elsewhere each run looks at new ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.ending import end_in_order

TESTS = Path(__file__).parent

for _name in [name for name in os.environ if name.startswith("XPOOL_")]:
    del os.environ[_name]

# gRPC lives in some of the test processes; at a fork it would write into the output
# of the process that is being started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# A run that `timeout` cuts leaves no pool behind: pytest ends its fixtures.
end_in_order(KeyboardInterrupt)

# No deadline and no complaint about slow data: two shared cores are slow at times.
settings.register_profile(
    "xpool",
    deadline=None,
    max_examples=60,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("xpool")

LONG_FIRST = ("compat", "programs", "e2e", "perf", "client_stub", "pool_registry")
"""Folders whose files take long, each for itself: at the end of a run on several
processes one of them would keep one process busy and the others idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {TESTS / name: place for place, name in enumerate(LONG_FIRST)}

    def place(item: pytest.Item) -> int:
        return min(places.get(one, len(places)) for one in item.path.parents)

    items.sort(key=place)  # within a folder they stay as they are


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--repetitions",
        type=int,
        default=1,
        help="of each case that is about a race, such as how a job ends",
    )


@pytest.fixture
def repetitions(request: pytest.FixtureRequest) -> int:
    """How often a case about a race is run: the same each time, or it is no test."""
    count: int = request.config.getoption("--repetitions")
    return count
