"""One session's arrays without a session: records in, answers out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayRequest,
    ArrayResult,
    DefineArrayOperation,
    PutArray,
)
from xpool_protocol.arrays.values import Handle, read_array_value
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.values import HostTensor
from xpool_protocol.wire import Reader
from xpool_server.arrays.calls import ArrayCalls
from xpool_server.arrays.opening import library_opener
from xpool_server.arrays.store import DictStore
from xpool_server.failures import Failures
from xpool_server.storages import Storages

QUOTA = 1 << 20
FLOAT32, FLOAT64 = 6, 7


class Desk:
    """One session's arrays, and names for its operations."""

    def __init__(self) -> None:
        self.storages = Storages(QUOTA, torch.device("cpu"))
        self.failures = Failures("cpu")
        self.calls = ArrayCalls(
            *(self.storages, self.failures, library_opener("cpu")),
            lambda array_type: DictStore(),
        )
        self._names: dict[str, int] = {}
        self._request = 0

    def operation(self, name: str) -> int:
        if name not in self._names:
            number = self._names[name] = len(self._names)
            assert not self.calls.define(DefineArrayOperation(number, name))
        return self._names[name]

    def put(self, number: int, values: list[float]) -> Any:
        data = np.asarray(values, np.float32)
        return self.calls.put(PutArray(number, FLOAT32, 0, data.shape, data.tobytes()))

    def call(self, name: str, results: Any, *args: Any, **kwargs: Any) -> Any:
        made = tuple(ArrayResult(*one) for one in results)
        return self.calls.call(ArrayCall(self.operation(name), made, args, kwargs))

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._request += 1
        record = ArrayRequest(
            *(self._request, 1 << 40, self.operation(name), args, kwargs)
        )
        (answer,) = self.calls.request(record)
        if isinstance(answer, Failure):
            return answer.fault
        assert isinstance(answer, Reply)
        return read_array_value(Reader(answer.value))

    def items(self, number: int) -> list[float]:
        found, said = self.ask("xpool.get", Handle(number))
        assert isinstance(found, HostTensor)
        assert said == ()
        return np.frombuffer(found.data, np.float32).tolist()
