"""``xpool.init()``: a program that nobody started with ``xpool run``."""

from __future__ import annotations

import subprocess
import sys

from support.pool import Pool
from support.waiting import eventually


def python(pool: Pool, program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=pool.environment({"XPOOL_REGISTRY": pool.registry, **env}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_init_makes_cuda_remote(pool: Pool):
    ended = python(
        pool,
        "import xpool\n"
        "xpool.init(slice='40%', memory='256MiB')\n"
        "xpool.init()\n"
        "import torch\n"
        "assert torch.cuda.get_device_properties(0).total_memory == 256 << 20\n"
        "assert '40%' in torch.cuda.get_device_name()\n"
        "print(torch.ones(3, device='cuda').sum().item())\n"
        "print(xpool.current_remote().statistics()['executed_ops'] > 0)\n",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "3.0\nTrue\n"
    eventually(lambda: not pool.leases(), "the lease is released", 10)


def test_init_after_torch_is_refused(pool: Pool):
    ended = python(pool, "import torch, xpool\nxpool.init()\n")
    assert ended.returncode == 1
    assert "before `import torch`" in ended.stderr
    assert not pool.leases()


def test_init_without_a_registry(pool: Pool):
    ended = python(
        pool,
        "import xpool\n"
        "from xpool_protocol.errors import RegistryUnreachable\n"
        "try: xpool.init()\n"
        "except RegistryUnreachable as error: print(error)\n",
        XPOOL_REGISTRY="127.0.0.1:1",
    )
    assert ended.returncode == 0, ended.stderr
    assert "127.0.0.1:1" in ended.stdout


def test_init_refuses_shares_that_are_none(pool: Pool):
    ended = python(
        pool,
        "import xpool\n"
        "from xpool_protocol.errors import UsageError\n"
        "for share in ('0', '101', '12.5', 'abc'):\n"
        "    try: xpool.init(slice=share)\n"
        "    except UsageError as error: print(error)\n"
        "xpool.init(slice='5%', memory='64MiB')\n"
        "print(xpool.current_remote() is not None)\n",
    )
    assert ended.returncode == 0, ended.stderr
    *refused, works = ended.stdout.splitlines()
    assert len(refused) == 4
    assert all("is not a slice" in one for one in refused)
    assert works == "True"
