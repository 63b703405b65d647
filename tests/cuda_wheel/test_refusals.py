"""A run that could use a device of this host unnoticed is refused in one sentence."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from xpool.native import build, cuda_build
from xpool_protocol import native_build

DRIVER = """
#include <cstdio>
#include <cstdlib>
// A driver that tells of being loaded: on this host there is a GPU, so to speak.
__attribute__((constructor)) static void loaded() {
  if (FILE *file = fopen(getenv("DRIVER_LOADED"), "a")) {
    fprintf(file, "loaded\\n");
    fclose(file);
  }
}
extern "C" int cuInit(unsigned) { return 0; }
"""
USES_CUDA = (
    "import xpool\nxpool.init()\nimport torch\n"
    "print(torch.cuda.get_device_name(), torch.ones(2, device='cuda').sum().item())\n"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library that passes for the CUDA driver of a host with a GPU."""
    folder = tmp_path_factory.mktemp("driver")
    source, library = folder / "driver.cpp", folder / "libcuda.so.1"
    source.write_text(DRIVER)
    flags = ("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")
    compiler = native_build.required_compiler("there is no test")
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return folder


def refused(ended, *words: str) -> None:
    assert ended.returncode == 1, ended.stdout + ended.stderr
    last = ended.stderr.splitlines()[-1]
    for word in words:
        assert word in last, ended.stderr


def test_torch_imported_before(run_python):
    refused(
        run_python("-c", "import torch, xpool\nxpool.init()\n"),
        "before `import torch`",
    )


def test_torch_imported_before_by_the_interpreter(run_python, tmp_path):
    """A site hook that imports torch: ``xpool run`` is too late."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'xpool.bootstrap' in sys.orig_argv: import torch\n"
    )
    refused(
        run_python(
            *("-m", "xpool", "run", "-c", "print('ran')"),
            env={"PYTHONPATH": str(tmp_path)},
        ),
        "torch is imported already",
    )


def test_a_driver_is_mapped(run_python, driver, tmp_path):
    env = {"DRIVER_LOADED": str(tmp_path / "loaded")}
    code = f"import ctypes\nctypes.CDLL({str(driver / 'libcuda.so.1')!r})\n{USES_CUDA}"
    refused(run_python("-c", code, env=env), "libcuda.so.1", "local device unnoticed")


def test_the_real_runtime_comes_first(run_python):
    """What was loaded for all to see before us is what torch would find."""
    found = sorted(build.torch_folder().parent.glob("nvidia/**/libcudart.so.*"))
    assert found, "the CUDA build has brought no runtime"
    code = (
        "import ctypes\n"
        f"ctypes.CDLL({str(found[0])!r}, mode=ctypes.RTLD_GLOBAL)\n{USES_CUDA}"
    )
    refused(run_python("-c", code), "this host's CUDA runtime")


def test_a_local_driver_is_never_loaded(run_python, driver, tmp_path):
    """On a host with a GPU: torch finds the stand-in where it looks for the driver."""
    loaded = tmp_path / "loaded"
    env = {"LD_LIBRARY_PATH": str(driver), "DRIVER_LOADED": str(loaded)}
    ended = run_python("-c", USES_CUDA, env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("xpool ")
    assert ended.stdout.endswith(" 2.0\n")
    assert not loaded.exists()


def test_without_xpool_the_driver_is_found(run_python, driver, tmp_path):
    """What the test above would miss if torch never looked for a driver."""
    loaded = tmp_path / "loaded"
    env = {"LD_LIBRARY_PATH": str(driver), "DRIVER_LOADED": str(loaded)}
    run_python("-c", "import torch\ntorch.cuda.is_available()\n", env=env)
    assert loaded.exists()


@pytest.mark.parametrize("visible", ["", "0", "5,6"])
def test_visible_devices_are_of_another_host(run_python, visible):
    """The variable chooses among local devices, of which none is used."""
    ended = run_python("-c", USES_CUDA, env={"CUDA_VISIBLE_DEVICES": visible})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith(" 2.0\n")


def test_the_server_has_no_stand_in(pool):
    """Its worker computes: it must see the devices that are there."""
    stand_in = str(cuda_build.stand_in_path())
    for pid in pool.workers("one"):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" in maps
        assert stand_in not in maps
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"LD_PRELOAD" not in environment or b"LD_PRELOAD" in os.environb


def test_an_escape_raises_and_is_counted(run_python):
    code = (
        "import xpool\nxpool.init()\nimport ctypes, torch\n"
        "torch.ones(1, device='cuda')\n"
        "runtime = ctypes.CDLL('libcuda.so.1')\n"
        "assert runtime.cudaLaunchKernel() == 801\n"
        "assert runtime.cudaPeekAtLastError() == 801\n"
        "assert (runtime.cudaGetLastError(), runtime.cudaGetLastError()) == (801, 0)\n"
        "library = xpool.current_remote().library\n"
        "print(library.escaped_launches(), library.last_escape())\n"
    )
    ended = run_python("-c", code)
    assert ended.stdout == "1 cudaLaunchKernel\n", ended.stderr
