"""What every test starts from: no XPOOL_* setting, one Hypothesis profile.

The examples are the same in every run where ``CI`` is set, so that a change is judged
by what it changes; elsewhere each run looks at new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for _name in [name for name in os.environ if name.startswith("XPOOL_")]:
    del os.environ[_name]

# gRPC lives in some of the test processes; at a fork it would write into the output
# of the process that is being started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# No deadline and no complaint about slow data: two shared cores are slow at times.
settings.register_profile(
    "xpool",
    deadline=None,
    max_examples=60,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("xpool")
