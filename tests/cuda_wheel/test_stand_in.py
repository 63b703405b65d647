"""The stand-in against the headers of the CUDA that torch was built for."""

from __future__ import annotations

import subprocess

import pytest
from xpool.native import build, cuda_build
from xpool_protocol import native_build

CHECK = """
#include <cstddef>
#include <driver_types.h>
#include <cstdio>
#define SAME(type, field, at) \\
  static_assert(offsetof(type, field) == at, #field);
SAME(cudaDeviceProp, name, 0)
SAME(cudaDeviceProp, totalGlobalMem, 288)
SAME(cudaDeviceProp, warpSize, 308)
SAME(cudaDeviceProp, maxThreadsPerBlock, 320)
SAME(cudaDeviceProp, major, 360)
SAME(cudaDeviceProp, minor, 364)
static_assert(sizeof(cudaDeviceProp) >= 368);
SAME(cudaPointerAttributes, type, 0)
SAME(cudaPointerAttributes, device, 4)
SAME(cudaPointerAttributes, devicePointer, 8)
SAME(cudaPointerAttributes, hostPointer, 16)
static_assert(cudaSuccess == 0 && cudaErrorInvalidValue == 1);
static_assert(cudaErrorNoDevice == 100);
static_assert(cudaErrorInvalidDevice == 101 && cudaErrorNotSupported == 801);
static_assert(cudaMemoryTypeUnregistered == 0 && cudaMemoryTypeDevice == 2);
static_assert(cudaStreamCaptureStatusNone == 0 && cudaErrorMemoryAllocation == 2);
int main() { return 0; }
"""
LIBRARIES = ("libc10_cuda.so", "libtorch_cuda.so", "libtorch_python.so")
NOT_CALLED = {
    # Registration of kernel images, and a launch's arguments: bookkeeping.
    *("__cudaPopCallConfiguration", "__cudaPushCallConfiguration", "__cudaGetKernel"),
    *("__cudaRegisterFatBinary", "__cudaRegisterFatBinaryEnd"),
    *("__cudaRegisterFunction", "__cudaRegisterVar", "__cudaUnregisterFatBinary"),
    # Parts of what cannot begin: graphs, memory pools, libraries of kernels.
    *("cudaGraphAddNode", "cudaGraphConditionalHandleCreate", "cudaGraphDestroy"),
    *("cudaGraphDebugDotPrint", "cudaGraphExecDestroy", "cudaGraphGetNodes"),
    *("cudaGraphNodeGetDependencies", "cudaStreamUpdateCaptureDependencies"),
    *("cudaMemPoolGetAttribute", "cudaMemPoolSetAccess", "cudaMemPoolSetAttribute"),
    *("cudaMemPoolTrimTo", "cudaLibraryGetKernel", "cudaLibraryUnload"),
}


def symbols(path, *flags: str) -> set[str]:
    done = subprocess.run(
        ["nm", "-D", *flags, str(path)], capture_output=True, text=True, check=True
    )
    return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}


def test_layouts_and_numbers_are_those_of_the_headers(tmp_path):
    site = build.torch_folder().parent
    folders = [path.parent for path in site.glob("nvidia/**/driver_types.h")]
    # The runtime's package lacks one header, which triton's copy has.
    folders += [path.parents[1] for path in site.glob("triton/**/crt/host_defines.h")]
    if not folders:
        pytest.skip("this environment has no headers of CUDA")
    source = tmp_path / "check.cpp"
    source.write_text(CHECK)
    includes = [f"-I{folder}" for folder in folders]
    done = subprocess.run(
        [
            native_build.required_compiler("there is no test"),
            *includes,
            "-fsyntax-only",
            str(source),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_function_that_torch_takes_from_the_runtime_is_here():
    """One that is missing would be the real one: it finds no driver, but says less."""
    offered = symbols(cuda_build.build_stand_in(), "--defined-only")
    wanted: set[str] = set()
    for name in LIBRARIES:
        path = build.torch_folder() / "lib" / name
        found = symbols(path, "--undefined-only")
        wanted |= {one for one in found if one.startswith(("cuda", "__cuda"))}
    assert wanted, "torch takes nothing from the runtime"
    assert wanted - offered - NOT_CALLED == set()
