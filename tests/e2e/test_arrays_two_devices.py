"""Jobs with arrays on two devices: both on one server, and on a server each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.pool import Pool

PROGRAM = Path(__file__).parent / "programs" / "arrays_two_devices.py"
XPOOL_RUN = (sys.executable, "-m", "xpool", "run")
RUN_S = 240
SIZE = "cpu,memory=256MiB"

PLACES = {
    "together": {"one": "cpu:2,memory=256MiB"},
    "apart": {"one": SIZE, "two": SIZE},
}
RUNS = {
    "together": ({"XPOOL_AUDIT": "1"}, {"XPOOL_TORCH": "off", "XPOOL_AUDIT": "1"}),
    "apart": ({}, {"XPOOL_TORCH": "off"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_arrays_on_two_devices(place: str, tmp_path: Path) -> None:
    with Pool(tmp_path, ttl="5s") as pool:
        pool.start_registry()
        for name, devices in PLACES[place].items():
            pool.start_server(name, "--threads", "1", "--devices", devices, light=False)
        for env in RUNS[place]:
            run = (*XPOOL_RUN, "--registry", pool.registry, "--devices", "2")
            ended = subprocess.run(
                [*run, str(PROGRAM)],
                env=pool.environment(env),
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout == "two devices are as they should be\n"
            # Each device has an audit of its own.
            assert ended.stderr.count(" 0 mismatches") == (
                2 if "XPOOL_AUDIT" in env else 0
            )
