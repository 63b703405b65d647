"""Memory that a worker frees is there for the next tensor, without the kernel."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xpool_server.native.build import LIBRARY

PROGRAM = """
import json, resource, sys
if sys.argv[1] == "kept":
    from xpool_server.host_memory import keep_memory
    keep_memory()
import torch
torch.set_num_threads(1)
if sys.argv[2:]:
    from pathlib import Path
    from xpool_server.native_executor import keep_large_memory
    keep_large_memory(Path(sys.argv[2]))

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


LARGE = """
import json, random, resource, sys, threading
from pathlib import Path
import torch
from xpool_server.native.library import NativeLibrary

MIB = 1 << 20
MOST = 256 * MIB
library = NativeLibrary(Path(sys.argv[1]))
early = torch.ones(64 * MIB, dtype=torch.uint8)
library.keep_memory(MOST)
told = {}

def tensor(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8)

del early  # torch's own block is torch's to free
told["early"] = library.kept_nbytes
small = tensor(31)
del small
told["small"] = library.kept_nbytes

# What the allocator keeps, beside a model of it: of what fits the least is taken
# again, what was freed longest ago goes first.
rng, live, kept, wrong, again = random.Random(0), [], [], 0, 0
for _ in range(2000):
    if live and rng.random() < 0.5:
        one, size = live.pop(rng.randrange(len(live)))
        at = one.data_ptr()
        del one
        if size * MIB <= MOST:
            while sum(size for _, size in kept) + size > 256:
                kept.pop(0)
            kept.append((at, size))
    elif len(live) < 8:
        mib = rng.choice([32, 33, 40, 41, 64, 70, 100, 128, 256, 258])
        one = tensor(mib)
        fitting = [b for b in kept if b[1] >= mib and b[1] - mib <= b[1] / 5]
        size = mib + mib % 2
        if fitting:
            best = min(fitting, key=lambda b: b[1])
            kept.remove(best)
            wrong += one.data_ptr() != best[0]
            again, size = again + 1, best[1]
        wrong += one.data_ptr() % (2 * MIB) != 0
        live.append((one, size))
    wrong += library.kept_nbytes != sum(size for _, size in kept) * MIB
told["wrong"], told["again"] = wrong, again
live.clear()

def work(number):
    for step in range(50):
        one = tensor(32 + step % 4)
        one.fill_(number)
        told["mixed"] = told.get("mixed", 0) + int((one[:: 4096] != number).any())

threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[one.start() for one in threads], [one.join() for one in threads]

whole = tensor(256)
del whole
told["full"] = library.kept_nbytes == MOST
# Where there is no room but for what is kept, that is given up.
kib = dict(line.split(":", 1) for line in open("/proc/self/status"))["VmData"]
limit = int(kib.split()[0]) * 1024 + 64 * MIB
resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
there = tensor(300)
told["given up"] = library.kept_nbytes
try:
    tensor(300)
except RuntimeError as error:
    told["refused"] = str(error)
library.keep_memory(0)
del there
told["off"] = library.kept_nbytes
print(json.dumps(told))
"""


def run(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def faults(*how: str) -> list[int]:
    return [int(one) for one in run(PROGRAM, *how)]


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
    none = faults("kept", str(LIBRARY.build()))
    assert none[0] < PAGES_OF_20_MIB
    assert none[1] < 100, "large blocks come again without a fault"


def test_large_blocks_are_kept_as_far_as_they_may() -> None:
    told = run(LARGE, str(LIBRARY.build()))
    assert "can't allocate memory" in told.pop("refused")
    assert told.pop("again") > 100
    assert told == {
        "early": 0,
        "small": 0,
        "wrong": 0,
        "mixed": 0,
        "full": True,
        "given up": 0,
        "off": 0,
    }
