"""A pytest plugin: CuPy's own tests, from a checkout, over the drop-in.

``cupy.testing`` comes from the checkout; what the tests take from CuPy's insides is put
in place here, as far as it says something about arrays. Everything else of the insides
is a name whose use raises ``OutOfScope``, which marks a test as none of ours.

Each test's outcome goes as a line of JSON to the file that ARRAY_SUITE_OUT names.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from insides import INSIDES
from outcomes import Outcomes
from xpool.cupy import finder
from xpool.cupy.modules import random as drop_in_random
from xpool_protocol.arrays.api import api

CHECKOUT = Path(os.environ["ARRAY_SUITE_CHECKOUT"])


class OutOfScope(NotImplementedError):
    """A test asks for CuPy's insides, a device pointer or a plan of a CUDA library."""


class Inside:
    """The base of classes that tests derive from classes of the insides."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OutOfScope(type(self).__name__)


class Missing:
    """What an inside has in the place of a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise OutOfScope(self._name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}")

    def __add__(self, other: object) -> Any:
        return self

    __radd__ = __mul__ = __rmul__ = __sub__ = __add__

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (Inside,)

    def __enter__(self) -> Any:
        raise OutOfScope(self._name)

    def __exit__(self, *_: object) -> None: ...


NOT_OURS = (
    "OutOfScope",
    "memory of the device has no address",
    "cuda_array_interface",
    "CudaArrayInterface",
    "mdspan",
    "plans of cuFFT",
    "get_fft_plan",
    "TestPlanCtxManager",
    "TestIncludesCompileCUDA",
    "backend='nvcc'",
)
"""In a failure's text: it asks for CuPy's insides, a device pointer, a plan of cuFFT,
or for a compiler of CUDA source."""


def lenient(module: types.ModuleType) -> None:
    """Let every other name of a module be one that is out of scope."""
    missing = Missing(module.__name__)

    def find(name: str) -> Any:
        full = f"{module.__name__}.{name}"
        if full in finder.MAKERS:  # `from package import module`
            return importlib.import_module(full)
        return getattr(missing, name)

    module.__getattr__ = find  # type: ignore[method-assign]


def nothing(*args: Any, **kwargs: Any) -> None:
    return None


def size_of(size: Any) -> tuple[int, ...]:
    """A shape, however it is given."""
    return () if size is None else size if isinstance(size, tuple) else (size,)


def is_integer_output(output: Any, given: Any) -> bool:
    """Whether a filter's result, by what it was asked for, holds integers."""
    import numpy as np

    wanted = given if output is None else output
    dtype = wanted if isinstance(wanted, type) else getattr(wanted, "dtype", wanted)
    return np.dtype(dtype).kind in "iu"


def fill_ndimage_util(m: types.ModuleType) -> None:
    """By which tests choose how near a result must be."""
    fill_public(m)
    m._is_integer_output = is_integer_output


def fill_core(m: types.ModuleType) -> None:
    import cupy

    m.get_size = size_of
    m.create_reduction_func = lambda *_, **__: Missing("cupy._core's reductions")
    for name in ("internal", "flags", "_accelerator", "_fusion_kernel", "_gufuncs"):
        setattr(m, name, importlib.import_module(f"cupy._core.{name}"))
    fill_by(m, cupy)


def fill_accelerator(m: types.ModuleType) -> None:
    for kind in ("elementwise", "reduction", "routine"):
        setattr(m, f"set_{kind}_accelerators", nothing)
        setattr(m, f"get_{kind}_accelerators", list)
    m.ACCELERATOR_CUB, m.ACCELERATOR_CUTENSOR, m.ACCELERATOR_CUTENSORNET = 1, 2, 3


def fill_driver(m: types.ModuleType) -> None:
    m.get_build_version = lambda: 13000
    lenient(m)


def fill_runtime(m: types.ModuleType) -> None:
    m.is_hip = m._is_hip_environment = False
    m.CUDARuntimeError = RuntimeError
    m.getDeviceCount, m.getDevice = (lambda: 1), (lambda: 0)
    m.runtimeGetVersion = m.driverGetVersion = lambda: 13000
    lenient(m)


def fill_util(m: types.ModuleType) -> None:
    m.experimental = nothing
    m.PerformanceWarning = type("PerformanceWarning", (Warning,), {})
    lenient(m)


def fill_cusolver(m: types.ModuleType) -> None:
    m.check_availability = lambda name: True
    lenient(m)


def fill_cuda_cusolver(m: types.ModuleType) -> None:
    """Files ask for the version where they are imported."""
    m._getVersion = lambda: (12, 0, 0)
    lenient(m)


def fill_cusparse(m: types.ModuleType) -> None:
    """Tests ask for the version in which some function of cuSPARSE was wrong."""
    m.getVersion = lambda: 12000
    lenient(m)


def fill_rbf(m: types.ModuleType) -> None:
    """Tables of names, which SciPy's module has, too."""
    import scipy.interpolate._rbfinterp as theirs

    fill_public(m)
    for name in ("_AVAILABLE", "_SCALE_INVARIANT", "_NAME_TO_MIN_DEGREE"):
        setattr(m, name, getattr(theirs, name))


def fill_gufuncs(m: types.ModuleType) -> None:
    from xpool.cupy import gufunc

    m._GUFunc = gufunc.GeneralizedUFunc
    m._parse_gufunc_signature = gufunc.parse_signature


def fill_fusion_kernel(m: types.ModuleType) -> None:
    # Tests put something else in its place, and look at the results alone.
    m.FusedKernel = type("FusedKernel", (Inside,), {"__module__": m.__name__})
    lenient(m)


def fill_public(m: types.ModuleType) -> None:
    """An inside whose functions the public module has, too."""
    fill_by(m, importlib.import_module(m.__name__.rpartition(".")[0]))


def fill_by(m: types.ModuleType, public: types.ModuleType) -> None:
    """Let public names of a module be those of another one."""
    missing = Missing(m.__name__)

    def find(name: str) -> Any:
        if not name.startswith("_") and hasattr(public, name):
            return getattr(public, name)
        return getattr(missing, name)

    m.__getattr__ = find  # type: ignore[method-assign]


class GeneratorInside(types.ModuleType):
    """Where tests put other states in the place of the module's."""

    @property
    def _random_states(self) -> object:
        return dict(drop_in_random.states)

    @_random_states.setter
    def _random_states(self, states: object) -> None:
        drop_in_random.states.clear()
        drop_in_random.states.update(states if isinstance(states, dict) else {})


def fill_generator(m: types.ModuleType) -> None:
    fill_public(m)
    m.__class__ = GeneratorInside


FILLED = {
    "cupy.random._distributions": fill_public,
    "cupy.random._generator": fill_generator,
    "cupy.random._bit_generator": fill_public,
    "cupy.random._sample": fill_public,
    "cupy.random._permutations": fill_public,
    "cupy.random.generator": fill_public,
    "cupyx.cusolver": fill_cusolver,
    "cupyx.cusparse": fill_cusparse,
    "cupy.cuda.cusolver": fill_cuda_cusolver,
    "cupy._core": fill_core,
    "cupy._core.core": fill_core,
    "cupy._core._accelerator": fill_accelerator,
    "cupy._core._gufuncs": fill_gufuncs,
    "cupy._core._fusion_kernel": fill_fusion_kernel,
    "cupy.cuda.driver": fill_driver,
    "cupy_backends.cuda.api.driver": fill_driver,
    "cupy_backends.cuda.api.runtime": fill_runtime,
    "cupy._util": fill_util,
}


def insides_of_scipy() -> dict[str, Any]:
    """Every private module below ``cupyx.scipy``: it has what its public one has."""
    found = {}
    for path in (CHECKOUT / "cupyx/scipy").rglob("_*.py"):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        if parts[-1] != "__init__":
            found[".".join(parts)] = fill_public
    return found


def prepare() -> None:
    """Before anything of CuPy is imported."""
    FILLED.update(insides_of_scipy())
    FILLED["cupyx.scipy.interpolate._rbfinterp"] = fill_rbf
    FILLED["cupyx.scipy.ndimage._util"] = fill_ndimage_util
    early = []
    for name in (*INSIDES, *insides_of_scipy()):
        is_core = name in FILLED and name.startswith(("cupy._core", "cupyx.cusparse"))
        if is_core or name not in finder.MAKERS:
            fill = FILLED.get(name, lenient)
            finder.MAKERS.setdefault(name, []).append(fill)
            if name in sys.modules:  # another plugin has imported cupy
                early.append((fill, sys.modules[name]))
    finder.LEFT_ALONE.update(
        f"cupy.testing{path and '.' + path}"
        for path in (
            "",
            *(one.stem for one in (CHECKOUT / "cupy/testing").glob("_*.py")),
        )
    )
    for fill, made in early:
        fill(made)
    import cupy

    cupy.__path__.append(str(CHECKOUT / "cupy"))
    cupy._core = importlib.import_module("cupy._core")
    cupy._util = importlib.import_module("cupy._util")
    cuda = cupy.cuda
    for name in ("driver", "memory", "cufft", "cub", "compiler", "nvrtc", "cusolver"):
        if not hasattr(cuda, name):
            setattr(cuda, name, importlib.import_module(f"cupy.cuda.{name}"))
    runtime = sys.modules["cupy.cuda.runtime"]
    for name in ("is_hip", "_is_hip_environment"):
        setattr(runtime, name, False)
    for name in ("runtimeGetVersion", "driverGetVersion"):
        setattr(runtime, name, lambda: 13000)
    cuda.device.get_compute_capability = lambda: "90"
    cuda.cub.available = cuda.cub_enabled = False
    cuda.get_local_runtime_version = lambda: 13000
    cuda.runtime.deviceGetAttribute = lambda *_: 0
    cuda.get_nvcc_path = lambda: "nvcc"
    cuda.compiler._run_cc = lambda *_: "release 13.0"  # asked for at an import
    import cupyx.scipy

    cupyx.scipy._scipy_available = True
    scipy = [
        importlib.import_module(name)
        for name in api()
        if name.startswith("cupyx.scipy")
    ]
    for module in (runtime, cuda, cupy, cupy.fft, cupy.random, cupy.linalg, *scipy):
        fallback(module)
    for name in ("memory", "device", "stream", "compiler"):
        lenient(sys.modules[f"cupy.cuda.{name}"])
    sys.modules.pop("cupy.testing", None)  # pytest's own options may have named cupy
    cupy.testing = importlib.import_module("cupy.testing")


def fallback(module: types.ModuleType) -> None:
    """A private name that a public module lacks is an inside, too."""
    public = module.__dict__.get("__getattr__")

    def find(name: str) -> Any:
        if f"{module.__name__}.{name}" in finder.MAKERS:
            return importlib.import_module(f"{module.__name__}.{name}")
        if name.startswith("_") and not name.startswith("__"):
            return Missing(f"{module.__name__}.{name}")
        if public is None:
            raise AttributeError(name)
        return public(name)

    module.__getattr__ = find  # type: ignore[method-assign]


prepare()

_outcomes = Outcomes(Path(os.environ["ARRAY_SUITE_OUT"]), NOT_OURS, CHECKOUT)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _outcomes.note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _outcomes.note_collection(report)
