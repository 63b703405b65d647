"""Rows of array records: C++ and Python leave the same arrays, the same ledger, and say
the same."""

from __future__ import annotations

import numpy as np
import pytest
from support.array_cases import (
    CASES,
    FLOAT32,
    FLOAT64,
    INT64,
    QUOTA,
    all_once,
    call,
    put,
    tables,
)
from support.executor_desk import bytes_from, make_executor
from xpool_protocol.arrays.records import (
    FreeArrays,
)
from xpool_protocol.arrays.values import Handle
from xpool_protocol.records import Record
from xpool_protocol.values import DType
from xpool_server import native_arrays
from xpool_server.executor import Executor
from xpool_server.failures import Answers
from xpool_server.native_executor import NativeExecutor


def run(executor: Executor, *records: Record) -> list[Answers]:
    with executor.batch():
        found = list(executor.run(bytes_from(*records)))
    assert None not in found
    return [one for one in found if one is not None]


def both(*batches: tuple[Record, ...]) -> NativeExecutor:
    """Run batches with both executors, and compare; the native one."""
    found = []
    executors = [make_executor(kind, QUOTA) for kind in ("python", "native")]
    for executor in executors:
        (said_once,) = [one for one in run(executor, *all_once()) if one]
        assert len(said_once) == 1  # the items that were asked for
        said = [
            [one for answers in run(executor, *batch) for one in answers]
            for batch in batches
        ]
        counters = executor.counters()
        counters.pop("busy_ns")
        counters.pop("allocated_nbytes_peak")
        found.append((said, tables(executor), executor.operation_count, counters))
    assert found[0] == found[1]
    native = executors[1]
    assert isinstance(native, NativeExecutor)
    return native


@pytest.mark.parametrize("name", CASES)
def test_both_do_the_same(name: str) -> None:
    both(CASES[name])


def test_both_do_the_same_in_pieces() -> None:
    for records in CASES.values():
        both(*((one,) for one in records))


def test_results_are_looked_at_by_their_fields() -> None:
    """Where they say what attributes say; else the same is done by attributes."""
    assert both(CASES[next(iter(CASES))]).native_arrays.looks_inside


def test_both_do_the_same_without_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_arrays, "_probes", lambda _: ())
    for records in CASES.values():
        assert not both(records).native_arrays.looks_inside
    assert both(chain((3,))).native_arrays.reused == 1


def test_a_probe_that_differs_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no plain array: what lies in it is not known."""
    probes = (np.zeros(3), np.zeros(3).view(np.recarray))
    monkeypatch.setattr(native_arrays, "_probes", lambda _: probes)
    assert not both(chain((3,))).native_arrays.looks_inside


def chain(freed: tuple[int, ...]) -> tuple[Record, ...]:
    size = 1 << 16
    return (
        call("cupy.arange", (1, INT64, (size,)), size),
        call("ndarray.astype", (2, FLOAT32, (size,)), Handle(1), DType(FLOAT32)),
        FreeArrays((1,)),
        call("cupy.multiply", (3, FLOAT32, (size,)), Handle(2), 0.5),
        call("cupy.add", (4, FLOAT32, (size,)), Handle(3), Handle(2)),
        FreeArrays(freed),
    )


def test_a_result_takes_memory_that_is_freed_next() -> None:
    assert both(chain((3,))).native_arrays.reused == 1
    assert both(chain((900, 3))).native_arrays.reused == 1


def test_nobody_else_loses_memory() -> None:
    size = 1 << 16
    made = chain((3,))
    # Freed, but not next.
    assert both((*made[:5], put(5, 1), made[5])).native_arrays.reused == 0
    # Freed in the next batch.
    assert both(made[:5], made[5:]).native_arrays.reused == 0
    # A view has another number.
    view = call("ndarray.__getitem__", (5, FLOAT32, (2,)), Handle(3), slice(2))
    assert both((*made[:4], view, *made[4:])).native_arrays.reused == 0
    # A view is what is freed.
    reshaped = call("ndarray.reshape", (5, FLOAT32, (size,)), Handle(3), (size,))
    last = call("cupy.add", (6, FLOAT32, (size,)), Handle(5), 1.0)
    assert both((*made[:4], reshaped, last, FreeArrays((5,)))).native_arrays.reused == 0
    # Another layout, another dtype, another shape.
    square = call("ndarray.reshape", (5, FLOAT32, (256, 256)), Handle(3), (256, 256))
    wider = call("cupy.add", (6, FLOAT32, (256, 256)), Handle(5), 1.0)
    assert both((*made[:4], square, wider, FreeArrays((5,)))).native_arrays.reused == 0
    double = call("cupy.add", (6, FLOAT64, (size,)), Handle(1), Handle(3))
    assert (
        both(
            (*made[:2], made[3], double, FreeArrays((3,))),
        ).native_arrays.reused
        == 0
    )


def test_an_argument_that_stands_twice() -> None:
    made = chain((3,))
    twice = call("cupy.add", (4, FLOAT32, (1 << 16,)), Handle(3), Handle(3))
    assert both((*made[:4], twice, made[5])).native_arrays.reused == 1
