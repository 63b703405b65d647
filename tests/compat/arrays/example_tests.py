"""CuPy's own examples, unchanged, small: a suite of ``run_array_suites``.

Each is run in the session's process as a script would be. Those that check themselves
fail by an exception; of the others what they print is checked. Those whose source is
CUDA's say so on a CPU.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(os.environ["ARRAY_SUITE_EXAMPLES"])

RUN = {
    "cg/cg.py": "--max-iter 20",
    "finance/black_scholes.py": "-n 5000",
    "finance/monte_carlo.py": "--n-options 20 --n-samples-per-thread 200"
    " --n-threads-per-option 1000",
    "finance/monte_carlo_multigpu.py": "--n-options 20 --n-samples-per-thread 200"
    " --n-threads-per-option 1000",
    "gmm/gmm.py": "--num 2000 --max-iter 30",
    "kmeans/kmeans.py": "--num 5000",
    "peer/peer_matrix.py": "",
    **{
        f"stream/{name}.py": ""
        for name in (
            *("cublas", "cufft", "cupy_event", "cupy_kernel", "cupy_memcpy"),
            *("curand", "cusolver", "cusparse", "map_reduce", "thrust"),
        )
    },
}
VARIANTS = {"kmeans/kmeans.py": "--num 5000 --use-custom-kernel"}
KERNELS = "RawKernel|RawModule"
REFUSED = {
    **{
        f"cufft/callback/{name}.py": "callbacks of cuFFT"
        for name in ("jit_string", "jit_string2", "legacy")
    },
    "cufft/callback/jit_r2c_c2r_string.py": "memory of the device has no address",
    **{
        f"cutensor/{name}.py": "cuTENSOR"
        for name in (
            *("contraction", "reduction"),
            *("elementwise_binary", "elementwise_trinary"),
        )
    },
    "gemm/sgemm.py": KERNELS,
    "custom_struct/builtin_vectors.py": KERNELS,
    "custom_struct/complex_struct.py": KERNELS,
    "custom_struct/packed_matrix.py": KERNELS,
    "jit/elmentwise_op.py": "cupyx.jit",
    "jit/reduction_atomic.py": "cupyx.jit",
    "jit/reduction_simple.py": "cupyx.jit",
}


def run(path: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example as a script."""
    script = EXAMPLES / path
    if "matplotlib" in script.read_text():
        pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", [str(script), *arguments.split()])
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.chdir(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        assert not end.code
    finally:
        import cupy

        cupy.cuda.Stream.null.use()
        cupy.cuda.Device().synchronize()


def runs_kernels() -> bool:
    """Whether the pool's device is one of CUDA."""
    import cupy

    return bool(cupy.cuda.runtime.getDeviceProperties(0)["major"])


def numbers(text: str, name: str) -> list[float]:
    """What a run printed after a name."""
    return [float(one) for one in re.findall(rf"{name}\s*:?\s*([-\d.e]+)", text)]


@pytest.mark.parametrize(
    ("path", "arguments"), [*RUN.items(), *VARIANTS.items()], ids=lambda one: str(one)
)
def test_it_runs(
    path: str,
    arguments: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(path, arguments, monkeypatch)
    said = capsys.readouterr().out
    if path.startswith("cg/"):
        # How far from the answer NumPy is after some steps, and then CuPy, three times.
        far = [float(one) for one in re.findall(r"^([\d.e+-]+)$", said, re.MULTILINE)]
        assert len(far) == 6
        assert far[1::2] == pytest.approx(far[::2], rel=1e-3)
    elif path.startswith("gmm/"):
        accuracies = numbers(said, "accuracy")
        assert len(accuracies) == 4
        assert min(accuracies) > 0.9
    elif path.startswith("finance/monte"):
        (error,) = numbers(said, "Error")
        assert abs(error) < 0.5


@pytest.mark.parametrize("path", REFUSED)
def test_cuda_source_needs_a_cuda_device(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if REFUSED[path] == KERNELS and runs_kernels():
        run(path, "", monkeypatch)  # each compares its result itself
        return
    with pytest.raises(NotImplementedError, match=REFUSED[path]):
        run(path, "", monkeypatch)
