"""Memory that a worker frees is there for the next tensor, without the kernel."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, resource, sys
if sys.argv[1] == "kept":
    from xpool_server.host_memory import keep_memory
    keep_memory()
import torch
torch.set_num_threads(1)

def faults(nbytes):
    def once():
        torch.empty(nbytes, dtype=torch.uint8).fill_(1)
    once(), once()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        once()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(json.dumps([faults(20 << 20), faults(128 << 20)]))
"""

PAGES_OF_20_MIB = 20 * 256
PAGES_OF_128_MIB = 128 * 256


def faults(how: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [int(one) for one in json.loads(done.stdout)]


def has_large_pages() -> bool:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.exists() and "[never]" not in path.read_text()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
def test_the_kernel_is_asked_for_less() -> None:
    some, many = faults("kept"), faults("as it is")
    # As it is, the allocator gives back every such block or every other one.
    assert many[0] > 4 * PAGES_OF_20_MIB, "there is nothing to gain here: why?"
    assert some[0] < PAGES_OF_20_MIB
    if has_large_pages():
        assert many[1] > 5 * PAGES_OF_128_MIB
        assert some[1] < PAGES_OF_128_MIB
