"""Records about arrays that C++ and Python are to treat alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from xpool_protocol.arrays.numpy_dtypes import describe
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
    ArrayResult,
    DefineArrayDtype,
    DefineArrayOperation,
    FreeArrays,
    PutArray,
)
from xpool_protocol.arrays.values import DescribedDType, Handle
from xpool_protocol.records import Allocate, Record, Write
from xpool_protocol.values import DType, HostTensor, Tensor
from xpool_server.executor import Executor

QUOTA = 1 << 22
FLOAT32, FLOAT64, INT64, BOOL = 6, 7, 4, 11
NAMES = (
    *("cupy.add", "cupy.multiply", "ndarray.__getitem__", "ndarray.__setitem__"),
    *("cupy.sum", "cupy.where", "ndarray.reshape", "cupy.linalg.cholesky"),
    *("cupy.no_such_function", "cupy.arange", "ndarray.astype", "cupy.negative"),
    *("cupyx.scipy.sparse.eye", "cupyx.scipy.sparse.dia_matrix.setdiag"),
    *("xpool.get", "cupy.mean", "cupy.array_split", "cupy.nonzero", "xpool.describe"),
)
NUMBER = {name: number for number, name in enumerate(NAMES)}
DEFINED = tuple(DefineArrayOperation(NUMBER[name], name) for name in NAMES)


def put(number: int, *shape: int) -> PutArray:
    items = np.arange(np.prod(shape), dtype=np.float32)
    return PutArray(number, FLOAT32, 0, shape, items.tobytes())


def call(
    name: str, result: tuple[int, int, tuple[int, ...]] | None, *args: Any, **kw: Any
) -> ArrayCall:
    results = () if result is None else (ArrayResult(*result),)
    return ArrayCall(NUMBER[name], results, args, kw)


def ask(name: str, number: int, *args: Any) -> ArrayRequest:
    return ArrayRequest(number, number, NUMBER[name], args, {})


def all_once() -> tuple[Record, ...]:
    """Every operation once: what Python has run, C++ may."""
    one = (1, 1)
    records: list[Record] = [
        *DEFINED,
        put(900, 2, 2),
        call("cupy.add", (901, FLOAT32, (2, 2)), Handle(900), Handle(900)),
        call("cupy.multiply", (902, FLOAT32, (2, 2)), Handle(900), 2.0),
        call("ndarray.__getitem__", (903, FLOAT32, (2,)), Handle(900), 0),
        call("ndarray.__setitem__", None, Handle(902), 0, 1.0),
        call("cupy.sum", (904, FLOAT32, (2,)), Handle(900), axis=0),
        call("cupy.where", (905, FLOAT32, (2, 2)), *[Handle(900)] * 3),
        call("ndarray.reshape", (906, FLOAT32, (4,)), Handle(900), (4,)),
        call("cupy.linalg.cholesky", (907, FLOAT32, one), Handle(910)),
        call("cupy.arange", (908, INT64, (3,)), 3),
        call("ndarray.astype", (909, FLOAT64, (2, 2)), Handle(900), DType(FLOAT64)),
        call("cupy.negative", (911, FLOAT32, (2, 2)), Handle(900)),
    ]
    records.append(ask("xpool.get", 900, Handle(900)))
    records.insert(len(DEFINED) + 1, put(910, 1, 1))
    records.insert(
        len(DEFINED) + 2, call("ndarray.__setitem__", None, Handle(910), ..., 1.0)
    )
    return tuple(records)


def tables(executor: Executor) -> dict[int, Any]:
    """Every number, and what it names as plain values."""
    arrays = executor.arrays.arrays
    arrays.validate()
    executor.storages.validate()
    return {
        number: (one.dtype, one.shape, one.tolist())
        if isinstance(one, np.ndarray)
        else one
        for number, one in sorted(arrays.items())
    }


CASES: dict[str, tuple[Record, ...]] = {
    "values": (
        put(1, 4, 3),
        call("cupy.add", (2, FLOAT32, (4, 3)), Handle(1), True),
        call("cupy.multiply", (3, FLOAT32, (4, 3)), Handle(2), -3),
        call("ndarray.__getitem__", (4, FLOAT32, (2,)), Handle(3), (slice(1, 3), -1)),
        call("ndarray.__setitem__", None, Handle(4), (..., None), 7.5),
        call("ndarray.__getitem__", (5, FLOAT32, (3,)), Handle(1), [0, 1, 2]),
        call("cupy.sum", (6, FLOAT32, ()), Handle(1)),
        call("cupy.sum", (7, FLOAT64, (4,)), Handle(1), axis=1, dtype=DType(FLOAT64)),
        call("ndarray.astype", (8, INT64, (4, 3)), Handle(1), int),
        call("ndarray.reshape", (9, FLOAT32, (12,)), Handle(1), (-1,), order="F"),
        call("cupy.arange", (10, FLOAT64, (4,)), 0.0, 2.0, 0.5),
    ),
    "a described dtype among a row": (
        put(1, 4, 3),
        call("cupy.add", (2, FLOAT32, (4, 3)), Handle(1), 1.0),
        DefineArrayDtype(128, describe(np.dtype("i4,f4"))),
        PutArray(3, 128, 0, (2,), bytes(range(16))),
        call("ndarray.__getitem__", (4, 128, (1,)), Handle(3), slice(1, None)),
        call("ndarray.__getitem__", (5, FLOAT32, (2,)), Handle(3), "f1"),
        call("cupy.add", (6, FLOAT32, (2,)), Handle(5), 1.0),
        call("ndarray.__getitem__", (7, 129, (1,)), Handle(3), slice(1, None)),
        call("ndarray.astype", (8, 128, (4, 3)), Handle(1), DescribedDType(128)),
        FreeArrays((3, 5)),
    ),
    "a scalar by value": (
        put(1, 3),
        call(
            "cupy.add",
            (2, FLOAT32, (3,)),
            Handle(1),
            HostTensor(FLOAT32, (), np.float32(2).tobytes()),
        ),
    ),
    "views share a charge": (
        put(1, 8),
        call("ndarray.__getitem__", (2, FLOAT32, (4,)), Handle(1), slice(4)),
        call("ndarray.__getitem__", (3, FLOAT32, (2,)), Handle(2), slice(2)),
        FreeArrays((1,)),
        FreeArrays((3, 2)),
    ),
    "a wrong shape": (
        put(1, 3),
        call("cupy.add", (2, FLOAT32, (4,)), Handle(1), 1.0),
        call("cupy.add", (3, FLOAT32, (4,)), Handle(2), 1.0),
        FreeArrays((2, 3)),
    ),
    "a wrong dtype": (put(1, 3), call("cupy.add", (2, BOOL, (3,)), Handle(1), 1.0)),
    "what raises": (
        put(1, 2, 3),  # not square: an error whatever errstate says
        call("cupy.linalg.cholesky", (2, FLOAT32, (2, 3)), Handle(1)),
        call("cupy.add", (3, FLOAT32, (2, 3)), Handle(2), 1),
    ),
    "what raises poisons what it writes": (
        put(1, 3),
        put(2, 4),
        call("cupy.add", None, Handle(2), 1.0, out=Handle(1)),
        call("ndarray.__setitem__", None, Handle(2), slice(2), Handle(2)),
    ),
    "unknown numbers": (
        call("cupy.add", (2, FLOAT32, (3,)), Handle(77), 1.0),
        FreeArrays((78,)),
        put(1, 3),
        FreeArrays((1, 79)),
        put(2, 3),
        FreeArrays((2, 2)),
    ),
    "a number in use": (
        put(1, 3),
        call("cupy.add", (1, FLOAT32, (3,)), Handle(1), 1.0),
    ),
    "an unknown name": (
        put(1, 3),
        call("cupy.no_such_function", (2, FLOAT32, (3,)), Handle(1)),
        call("cupy.no_such_function", (3, FLOAT32, (3,)), Handle(1)),
    ),
    "objects that are no arrays": (
        put(1, 2),
        ask("cupyx.scipy.sparse.eye", 1 << 40, 1 << 10),
        call("cupyx.scipy.sparse.dia_matrix.setdiag", None, Handle(1 << 40), 1.0, 3),
        call("cupyx.scipy.sparse.dia_matrix.setdiag", None, Handle(1 << 40), 1.0, 5),
        FreeArrays((1, 1 << 40)),
    ),
    "items": (
        PutArray(1, FLOAT64, 1, (2, 3), np.arange(6.0).tobytes()),
        PutArray(2, BOOL, 0, (), b"\1"),
        PutArray(3, FLOAT32, 0, (0, 4), b""),
        ask("xpool.get", 1, Handle(1)),
        ask("xpool.get", 2, Handle(2), [1, 1, 3, 77, -1, 2]),
        call("ndarray.__getitem__", (4, FLOAT64, (2,)), Handle(1), (..., 1)),
        ask("xpool.get", 3, Handle(4), []),
        call("cupy.arange", (5, INT64, (9,)), 9),
        call("cupy.arange", (6, INT64, (8193,)), 8193),
        ask("xpool.get", 4, Handle(3), [5, 4, 6]),
        ask("xpool.get", 5, Handle(6)),
        ask("xpool.get", 6, Handle(78)),
        ask("xpool.get", 7, Handle(1), 5),
        ask("xpool.get", 8, Handle(1), [1] * 257),
        call("cupy.add", (7, FLOAT32, (9,)), Handle(5), 1.0),
        ask("xpool.get", 9, Handle(7)),
        ask("xpool.get", 10, Handle(1), [7, 5.0]),
    ),
    "requests": (
        put(1, 4, 3),
        ask("ndarray.__getitem__", 1 << 40, Handle(1), (Ellipsis, 1)),
        ask("cupy.nonzero", 1 << 41, Handle(1)),
        call("cupy.add", (2, FLOAT32, (4, 3)), Handle(1), Handle(1)),
        ask("cupy.add", 1 << 42, Handle(2), 1.0),
        FreeArrays((1 << 40, 1 << 42)),
        ask("xpool.describe", 1 << 43, [Handle(1), Handle(2), Handle(1)]),
        call("cupy.add", (3, FLOAT32, (4, 3)), Handle(1 << 42), 1.0),
    ),
    "requests that fail": (
        put(1, 2, 3),
        ask("cupy.linalg.cholesky", 1 << 40, Handle(1)),
        ask("cupy.add", 1 << 41, Handle(77), 1.0),
        call("cupy.linalg.cholesky", (2, FLOAT32, (2, 3)), Handle(1)),
        ask("cupy.add", 1 << 42, Handle(2), 1.0),
        ask("cupy.no_such_function", 1 << 43, Handle(1)),
        ask("cupy.add", 1, Handle(1), 1.0),
        call("cupy.add", (4, FLOAT32, (2, 3)), Handle(1), 1.0),
        ArrayRequest(9, 1 << 44, 4000, (), {}),
    ),
    "a request that warns": (
        put(1, 0),
        ask("cupy.mean", 1 << 40, Handle(1)),
        ask("cupy.mean", 1 << 41, Handle(1)),
        FreeArrays((1 << 40, 1 << 41)),  # NaNs, which equal nothing
    ),
    "requests that are long, and long answers": (
        call("cupy.arange", (1, INT64, (4000,)), 4000),
        ask("cupy.array_split", 1 << 40, Handle(1), 4000),
        ask(
            *("cupy.negative", 1 << 41),
            HostTensor(FLOAT32, (20_000,), np.arange(20_000, dtype="f4").tobytes()),
        ),
        ask("cupy.array_split", 1 << 42, Handle(1), 4000),
        FreeArrays(tuple(range(1 << 40, (1 << 40) + 4000))),
        ask("cupy.array_split", 1 << 43, Handle(1), 5000),
    ),
    "bytes that are no array": (
        PutArray(1, FLOAT32, 0, (1 << 13,), bytes(1 << 15)),
        PutArray(1, FLOAT32, 0, (1,), bytes(4)),
        *(PutArray(n, FLOAT32, 0, (1 << 13,), bytes(1 << 15)) for n in range(2, 200)),
    ),
    "arrays over storages": (
        Allocate(50, 24),
        Write(50, 0, 24, 0, np.arange(6, dtype="f4").tobytes()),
        ArrayOverStorage(1, False, Tensor(50, FLOAT32, (2, 3), (3, 1))),
        call("cupy.add", (2, FLOAT32, (2, 3)), Handle(1), 1.0),
        Write(50, 0, 4, 0, b"\x00\x00\x80\x3f"),
        ask("xpool.get", 3, Handle(1)),
        ArrayOverStorage(4, True, Tensor(50, FLOAT32, (3, 2), (1, 3))),
        call("cupy.add", (5, FLOAT32, (3, 2)), Handle(4), 1.0),
        FreeArrays((1,)),
    ),
    "arrays over storages that can't be": (
        Allocate(50, 24),
        Write(50, 0, 24, 0, bytes(24)),
        put(1, 2),
        ArrayOverStorage(1, False, Tensor(50, FLOAT32, (6,), (1,))),
        ArrayOverStorage(2, False, Tensor(50, FLOAT32, (7,), (1,))),
        call("cupy.negative", (3, FLOAT32, (7,)), Handle(2)),
        ArrayOverStorage(4, False, Tensor(51, FLOAT32, (6,), (1,))),
        ArrayOverStorage(5, True, Tensor(50, FLOAT32, (6,), (1,), 1)),
        ArrayOverStorage(6, True, Tensor(50, FLOAT32, (6,), (1,))),
        ArrayOverStorage(7, True, Tensor(50, FLOAT32, (6,), (1,))),
    ),
    "no room": (
        put(1, 2),
        call("cupy.arange", (2, INT64, (1 << 20,)), 1 << 20),
        call("cupy.arange", (3, INT64, (1 << 18,)), 1 << 18),
        call("cupy.arange", (4, INT64, (1 << 18,)), 1 << 18),
    ),
}
