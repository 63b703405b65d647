"""A desk for executor tests: tensors go in, records are made, tensors come out.

Either executor sits at it; ``Desk.default_kind`` says which, and the tests of the
worker run with both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Failure, Fault, Reply
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineOperation,
    Fence,
    Read,
    Record,
    RequestCall,
    Write,
    read_records,
    write_record,
)
from xpool_protocol.values import (
    FLAG_CONJ,
    FLAG_NEG,
    Device,
    DType,
    HostTensor,
    MemoryFormat,
    Tensor,
    Value,
    read_value,
)
from xpool_protocol.wire import Reader, Writer
from xpool_server.devices import open_backend
from xpool_server.devices.base import Backend
from xpool_server.dtypes import DTYPE_CODES, DTYPES, MEMORY_FORMATS
from xpool_server.executor import Executor
from xpool_server.failures import Answers
from xpool_server.known_uploads import KnownUploads
from xpool_server.lane import Lane
from xpool_server.native import build
from xpool_server.native.library import NativeLibrary
from xpool_server.native_executor import NativeExecutor

QUOTA_NBYTES = 1 << 22

KINDS = ("python", "native")


@cache
def library() -> NativeLibrary:
    """The native library, built at its first use."""
    return NativeLibrary(build.LIBRARY.build())


def make_executor(
    kind: str,
    quota_nbytes: int,
    backend: Backend | None = None,
    lane: Lane | None = None,
    known: KnownUploads | None = None,
) -> Executor:
    """An executor on the CPU."""
    backend = backend or open_backend("cpu")
    if kind == "native":
        return NativeExecutor(
            backend, quota_nbytes, lane, known=known, library=library()
        )
    return Executor(backend, quota_nbytes, lane, known=known)


def bytes_from(*records: Record) -> bytes:
    """Records as a batch holds them."""
    writer = Writer()
    for record in records:
        write_record(writer, record)
    return bytes(writer.buffer)


def bytes_of(storage: torch.UntypedStorage) -> bytes:
    return bytes(storage.tolist())  # type: ignore[no-untyped-call]


def geometry(tensor: torch.Tensor, storage: int) -> Tensor:
    """How a tensor is described on the wire, as a view of the given storage."""
    return Tensor(
        storage,
        DTYPE_CODES[tensor.dtype],
        tuple(tensor.shape),
        tensor.stride(),
        int(tensor.storage_offset()),
        (FLAG_CONJ if tensor.is_conj() else 0) | (FLAG_NEG if tensor.is_neg() else 0),
    )


def host(tensor: torch.Tensor, *, is_wrapped: bool = False) -> HostTensor:
    """A tensor sent by value."""
    data = bytes_of(tensor.contiguous().clone().untyped_storage())
    code = DTYPE_CODES[tensor.dtype]
    return HostTensor(code, tuple(tensor.shape), data, is_wrapped)


def number(value: complex) -> HostTensor:
    """A Python number in the place of a tensor."""
    dtype = torch.float64 if isinstance(value, float) else None
    dtype = torch.complex128 if isinstance(value, complex) else dtype
    return host(torch.tensor(value, dtype=dtype), is_wrapped=True)


class Desk:
    """One executor and the client's numbering of what it holds."""

    default_kind = "python"

    def __init__(
        self,
        quota_nbytes: int = QUOTA_NBYTES,
        kind: str | None = None,
        backend: Backend | None = None,
    ) -> None:
        kind = kind or Desk.default_kind
        self.executor = make_executor(kind, quota_nbytes, backend)
        self.storages = self.executor.storages
        self.ids = itertools.count(1)
        self.operations: dict[str, int] = {}
        self.argument_names: dict[str, tuple[str, ...]] = {}

    def run(self, *records: Record, payloads: Sequence[bytes] = ()) -> Answers:
        """Execute one batch; the ledger is checked after every record."""
        answers: list[Reply | Failure] = []
        with self.executor.batch(payloads):
            for record in records:
                for some in self._answers(record):
                    answers += some
                self.storages.validate()
        return answers

    def _answers(self, record: Record) -> Iterable[Answers]:
        try:
            data = bytes_from(record)
            list(read_records(data))
        except (PeerError, ValueError):
            # The wire would refuse it, which the executor must not rely on.
            return [self.executor.execute(record)]
        return self.executor.run(data)

    def fault(self, *records: Record, payloads: Sequence[bytes] = ()) -> Fault:
        """The one failure that these records cause."""
        (answer,) = self.run(*records, payloads=payloads)
        assert isinstance(answer, Failure), answer
        return answer.fault

    def counter(self, name: str) -> int:
        return self.executor.counters()[name]

    # ---- values ----

    def put(self, tensor: torch.Tensor) -> Tensor:
        """Upload a tensor's whole storage; returns how to name the tensor."""
        storage = next(self.ids)
        data = bytes_of(tensor.untyped_storage())
        assert not self.run(
            Allocate(storage, len(data)), Write(storage, 0, len(data), 0, data)
        )
        return geometry(tensor, storage)

    def get(self, wire: Tensor) -> torch.Tensor:
        """Read a storage back and look at it as the wire says."""
        nbytes = self.storages.entry(wire.storage).nbytes
        (reply,) = self.run(Read(1, wire.storage, 0, nbytes))
        assert isinstance(reply, Reply)
        data = bytearray(b"".join(bytes(frame) for frame in reply.payloads))
        storage = torch.UntypedStorage(nbytes)  # type: ignore[no-untyped-call]
        if nbytes:
            storage.copy_(torch.frombuffer(data, dtype=torch.uint8).untyped_storage())
        tensor = torch.empty(0, dtype=DTYPES[wire.dtype])
        tensor.set_(storage, wire.offset, wire.sizes, wire.strides)
        if wire.flags & FLAG_CONJ:
            tensor = torch._conj(tensor)
        return torch._neg_view(tensor) if wire.flags & FLAG_NEG else tensor

    def value(self, argument: Any) -> Value:
        """A Python argument as it travels; tensors are uploaded."""
        if isinstance(argument, torch.Tensor):
            return self.put(argument)
        if isinstance(argument, torch.dtype):
            return DType(DTYPE_CODES[argument])
        if isinstance(argument, torch.device):
            return Device(0)
        if isinstance(argument, torch.memory_format):
            codes = {known: code for code, known in MEMORY_FORMATS.items()}
            return MemoryFormat(codes[argument])
        if isinstance(argument, list | tuple):
            return [self.value(one) for one in argument]
        return argument  # type: ignore[no-any-return]

    # ---- calls ----

    def define(self, name: str, names: tuple[str, ...] | None = None) -> int:
        """The number of an operation, defined with the server's argument names."""
        if name not in self.operations:
            if names is None:
                base, _, overload = name.partition(".")
                schema = torch._C._get_schema(base, overload)
                names = tuple(one.name for one in schema.arguments)
            number = len(self.operations)
            assert not self.run(DefineOperation(number, name, names))
            self.operations[name] = number
            self.argument_names[name] = names
        return self.operations[name]

    def arguments(self, name: str, given: dict[str, Any]) -> tuple[Any, ...]:
        number = self.define(name)
        names = self.argument_names[name]
        pairs = [(names.index(one), self.value(value)) for one, value in given.items()]
        return number, tuple(sorted(pairs, key=lambda pair: pair[0]))

    def make_call(
        self, name: str, outputs: Sequence[Tensor | None], /, **given: Any
    ) -> Call:
        number, arguments = self.arguments(name, given)
        return Call(number, arguments, tuple(outputs))

    def call(
        self, name: str, outputs: Sequence[Tensor | None], /, **given: Any
    ) -> Answers:
        return self.run(self.make_call(name, outputs, **given))

    def ask(self, name: str, first_storage: int = 10_000, /, **given: Any) -> Any:
        """The value that answers a RequestCall, or the Failure."""
        number, arguments = self.arguments(name, given)
        (answer,) = self.run(RequestCall(5, first_storage, number, arguments))
        assert answer.request == 5
        if isinstance(answer, Failure):
            return answer
        return read_value(Reader(answer.value))

    def fence(self) -> Reply | Failure:
        (answer,) = self.run(Fence(9))
        return answer

    def new(self, size: int, dtype: int = 6) -> Tensor:
        """A prediction: a new row of items."""
        return Tensor(next(self.ids), dtype, (size,), (1,))
