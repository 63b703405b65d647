"""What programs do around their arrays: ask, measure, hook in."""

import contextlib
import io
import json
import threading

import cupy as cp
import cupyx
import numpy as np
import scipy.fft
from cupy.cuda import memory_hooks
from cupyx.scipy import fft as device_fft


def case_a_device_tells_its_figures():
    device = cp.cuda.Device()
    attributes = device.attributes
    properties = cp.cuda.runtime.getDeviceProperties(device.id)
    count = attributes["MultiProcessorCount"]
    assert count == properties["multiProcessorCount"] >= 1
    assert attributes["MaxThreadsPerBlock"] == properties["maxThreadsPerBlock"] > 0
    number = cp.cuda.runtime.cudaDevAttrMultiProcessorCount
    assert cp.cuda.runtime.deviceGetAttribute(number, 0) == count
    version = f"{properties['major']}{properties['minor']}"
    assert device.compute_capability == version
    assert properties["name"].decode().startswith("xpool ")
    assert len(properties["maxGridSize"]) == len(properties["maxThreadsDim"]) == 3
    assert cp.cuda.runtime.deviceGetPCIBusId(0) == device.pci_bus_id
    try:
        cp.cuda.runtime.deviceGetAttribute(-3, 0)
    except RuntimeError as error:
        assert "InvalidValue" in str(error)
    else:
        raise AssertionError("there is no attribute -3")


def case_the_configuration_is_shown():
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        cp.show_config()
    lines = [line.split(":", 1) for line in shown.getvalue().splitlines()]
    told = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
    assert told["CuPy Version"].startswith(cp.__version__)
    assert told["Device 0 Name"].startswith("xpool ")
    assert "NumPy Version" in str(cupyx.get_runtime_info(full=False))
    assert cp.cuda.nccl.available is False


class Sizes(cp.cuda.MemoryHook):
    name = "Sizes"

    def __init__(self):
        self.heard = []

    def malloc_postprocess(self, **facts):
        self.heard.append(("malloc", facts["mem_size"]))

    def free_postprocess(self, **facts):
        self.heard.append(("free", facts["mem_size"]))


def case_memory_hooks_hear_of_arrays():
    with Sizes() as hook:
        made = cp.zeros(1000)
        kept = made + 1  # predicted
        found = cp.unique(kept)  # known when the server has answered
        view = kept[:10]
        del made
    assert hook.heard == [
        ("malloc", 8192),
        ("malloc", 8192),
        ("malloc", 512),
        ("free", 8192),
    ], hook.heard
    del kept, found, view
    cp.zeros(1000)
    assert len(hook.heard) == 4
    with hook:
        try:
            with Sizes():
                raise AssertionError("two hooks have one name")
        except KeyError as error:
            assert "Sizes" in str(error)
    report = io.StringIO()
    lines = memory_hooks.LineProfileHook()
    with lines, memory_hooks.DebugPrintHook(file=report):
        cp.zeros(1000)
    printed = [json.loads(line) for line in report.getvalue().splitlines()]
    assert [one["hook"] for one in printed] == ["alloc", "malloc", "free"]
    assert printed[1]["mem_size"] == 8192
    report = io.StringIO()
    lines.print_report(file=report)
    assert report.getvalue().startswith("_root (8.00KB, 8.00KB)\n")
    assert "case_memory_hooks_hear_of_arrays (8.00KB, 8.00KB)" in report.getvalue()


def case_a_hook_may_refuse():
    class Full(cp.cuda.MemoryHook):
        name = "Full"

        def malloc_preprocess(self, **facts):
            raise MemoryError(f"no {facts['mem_size']}")

    before = cp.get_default_memory_pool().used_bytes()
    with Full():
        try:
            cp.zeros(1000)
        except MemoryError as error:
            assert str(error) == "no 8192"
        else:
            raise AssertionError("the hook had refused")
    assert cp.get_default_memory_pool().used_bytes() == before


def case_a_stream_calls_back():
    called, main = [], threading.get_ident()
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        values = cp.arange(1000) * 2
    stream.launch_host_func(lambda what: called.append((what, int(values[3]))), "first")
    stream.add_callback(
        lambda where, status, what: called.append((where is stream, status, what)), 7
    )
    stream.launch_host_func(lambda _: called.append(threading.get_ident() != main), 0)
    stream.synchronize()
    assert called == [("first", 6), (True, 0, 7), True], called
    stream.launch_host_func(lambda _: called.clear(), None)
    cp.cuda.Device().synchronize()
    assert not called


def case_plans_are_made_once_and_passed_on():
    values = cp.random.rand(8, 16).astype(cp.complex64)
    plan = device_fft.get_fft_plan(values, axes=(1,), value_type="C2C")
    expected = np.fft.fft(cp.asnumpy(values), axis=1)
    found = device_fft.fft(values, axis=1, plan=plan)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-4, atol=1e-4)
    with plan:
        found = cp.fft.fft(values, axis=1)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-4, atol=1e-4)
    both = device_fft.get_fft_plan(values)
    assert device_fft.fftn(values, plan=both).shape == (8, 16)
    for kind, text, run in (
        (ValueError, "several axes", lambda: device_fft.fft(values, plan=both)),
        (ValueError, "dimensions", lambda: device_fft.fft(values[0], plan=plan)),
        (ValueError, "different lengths", lambda: _plan(values, (4,), (0, 1))),
        (ValueError, "contiguous", lambda: _plan(values[:, ::2], None, None)),
        (TypeError, "get_fft_plan", lambda: device_fft.fft(values, plan=3)),
    ):
        try:
            run()
        except kind as error:
            assert text in str(error), error
        else:
            raise AssertionError(text)
    with scipy.fft.set_backend(device_fft):
        assert isinstance(scipy.fft.fft(values), cp.ndarray)


def _plan(values, shape, axes):
    return device_fft.get_fft_plan(values, shape, axes)


def case_the_plan_cache_is_spoken_to():
    cache = cp.fft.config.get_plan_cache()
    cache.set_size(0)
    assert cache.get_size() == cp.fft.config.get_plan_cache_size() == 0
    cp.fft.config.set_plan_cache_size(64)
    assert cp.fft.config.get_plan_cache().get_size() == 64
    cache.clear()
    cp.fft.config.clear_plan_cache()
    with contextlib.redirect_stdout(io.StringIO()):
        cp.fft.config.show_plan_cache_info()


def case_old_names_are_there():
    assert cp._default_memory_pool is cp.get_default_memory_pool()
    cp._default_memory_pool.free_all_blocks()
    cp._default_pinned_memory_pool.free_all_blocks()
    assert cp._core.core.ndarray is cp.ndarray
    with cp.cuda.profile():
        cp.ones(2)


def case_arrays_are_listed():
    def listed(*given):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            cp.who(*given)
        return [line.split() for line in out.getvalue().splitlines()]

    wide, narrow = cp.ones((2, 5)), cp.ones(20, "i")
    found = listed({"y": narrow, "x": wide, "z": wide, "no": np.ones(3)})
    assert found[0] == ["Name", "Shape", "Bytes", "Type"]
    assert found[3:6] == [
        ["x", "2", "x", "5", "80", "float64"],
        ["y", "20", "80", "int32"],
        ["z", "(x)", "2", "x", "5", "80", "float64"],
    ]
    total = ["Upper", "bound", "on", "total", "bytes", "="]
    assert found[6:] == [[], [*total, "160"]]
    assert listed({}) == [[], [*total, "0"]]
    globals()["LISTED"] = narrow
    try:
        assert ["LISTED", "20", "80", "int32"] in listed()
    finally:
        del globals()["LISTED"]
    try:
        cp.disp("text")
    except RuntimeError as error:
        assert "print" in str(error)
    else:
        raise AssertionError("disp printed nothing")


for _name, _case in list(globals().items()):
    if _name.startswith("case_"):
        _case()
        print(_name.removeprefix("case_"))
