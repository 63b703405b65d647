"""The local side of a comparison in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

APART = str(Path(__file__).parent / "programs" / "apart.py")


def test_it_sees_this_hosts_devices_and_no_pool(xpool_run):
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PERF_VISIBLE_DEVICES": "5"}
    ended = xpool_run(APART, env=hidden)
    assert ended.returncode == 0, ended.stderr
    theirs, ours, said, samples = json.loads(ended.stdout)
    assert theirs == 3.0
    sum_there, visible, device, settings = ours
    assert (sum_there, visible, settings) == (3.0, "5", [])
    assert not device.startswith("xpool")
    assert said == "the local side ended with 1"
    assert {name: len(values) for name, values in samples.items()} == {
        "remote_s": 3,
        "local_s": 3,
    }
    assert all(value > 0 for values in samples.values() for value in values)
