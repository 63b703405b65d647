"""The records of a session's log: what a client asks of its device, in order.

One batch message carries any number of them. Each record has a number, its
*operation number*: the count of records before it in the whole session. Errors
name it. SPEC.md section 5 is the authority; ``native/`` writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.arrays.records import (
    ARRAY_CALL,
    ARRAY_OVER_STORAGE,
    ARRAY_REQUEST,
    DEFINE_ARRAY_DTYPE,
    DEFINE_ARRAY_OPERATION,
    FREE_ARRAYS,
    PUT_ARRAY,
    STORAGE_OVER_ARRAY,
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
    DefineArrayDtype,
    DefineArrayOperation,
    FreeArrays,
    PutArray,
    StorageOverArray,
    read_array_call,
    read_array_over_storage,
    read_array_request,
    read_define_array_dtype,
    read_define_array_operation,
    read_free_arrays,
    read_put_array,
    read_storage_over_array,
    write_array_record,
)
from xpool_protocol.errors import PeerError
from xpool_protocol.group_records import (
    COLLECTIVE,
    DEFINE_GROUP,
    FREE_GROUP,
    OPEN_MEETING,
    Collective,
    DefineGroup,
    FreeGroup,
    OpenMeeting,
    read_collective,
    read_define_group,
    read_free_group,
    read_open_meeting,
    write_group_record,
)
from xpool_protocol.kernel_records import (
    FREE_MODULE,
    KERNEL_ATTRIBUTES,
    LAUNCH_KERNEL,
    MAKE_MODULE,
    SET_KERNEL_ATTRIBUTE,
    FreeModule,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    SetKernelAttribute,
    read_free_module,
    read_kernel_attributes,
    read_launch_kernel,
    read_make_module,
    read_set_kernel_attribute,
    write_kernel_record,
)
from xpool_protocol.lane_records import (
    DOWNLOAD,
    LIST_KNOWN,
    OPEN_LANE,
    UPLOAD,
    UPLOAD_KNOWN,
    Download,
    ListKnown,
    OpenLane,
    Upload,
    UploadKnown,
    read_download,
    read_upload,
    read_upload_known,
    write_lane_record,
)
from xpool_protocol.peer_records import (
    DEFINE_PEER,
    RECEIVE,
    SEND,
    DefinePeer,
    Receive,
    Send,
    read_define_peer,
    read_receive,
    read_send,
    write_peer_record,
)
from xpool_protocol.plan_records import (
    DEFINE_PLAN,
    FREE_PLAN,
    RUN_PLAN,
    DefinePlan,
    FreePlan,
    RunPlan,
    read_define_plan,
    read_free_plan,
    read_run_plan,
    write_plan_record,
)
from xpool_protocol.values import (
    Tensor,
    Value,
    read_tensor,
    read_value,
    write_tensor,
    write_value,
)
from xpool_protocol.wire import Reader, Writer

DEFINE_OPERATION: Final = 1
CALL: Final = 2
REQUEST_CALL: Final = 3
ALLOCATE: Final = 4
FREE: Final = 5
WRITE: Final = 6
READ: Final = 7
FENCE: Final = 8
STATISTICS: Final = 9
NEW_GENERATOR: Final = 10
SEED_GENERATOR: Final = 11
READ_GENERATOR: Final = 12
WRITE_GENERATOR: Final = 13
FREE_GENERATOR: Final = 14
DEFINE_GRAPH: Final = 25
RUN_GRAPH: Final = 26
FREE_GRAPH: Final = 27


class DefineOperation(msgspec.Struct, frozen=True, gc=False):
    """Names an operation once; calls then use its number.

    Ids count up from 0 within the session. Argument names are the client's, so
    a server whose schema has further defaulted arguments still understands.
    """

    operation: int
    name: str
    """Namespace, name and overload: ``aten::add.Tensor``; no dot for the default."""
    argument_names: tuple[str, ...]


class Call(msgspec.Struct, frozen=True, gc=False):
    """Run an operation; the client has already named its results."""

    operation: int
    arguments: tuple[tuple[int, Value], ...]
    """(position in ``argument_names``, value), ascending; defaults are left out."""
    outputs: tuple[Tensor | None, ...]
    """One per tensor leaf of the results: the new storage and the geometry the
    client predicted, or None where the leaf is undefined or one of the arguments."""


class RequestCall(msgspec.Struct, frozen=True, gc=False):
    """Run an operation and tell what came out; the client waits."""

    request: int
    first_storage: int
    """Result ``i`` gets storage id ``first_storage + i``."""
    operation: int
    arguments: tuple[tuple[int, Value], ...]


class Allocate(msgspec.Struct, frozen=True, gc=False):
    """Make a storage. Its bytes are undefined; it counts against the quota."""

    storage: int
    nbytes: int


class Free(msgspec.Struct, frozen=True, gc=False):
    """The client will not name this storage again."""

    storage: int


class Write(msgspec.Struct, frozen=True, gc=False):
    """Put host bytes into a storage."""

    storage: int
    offset: int
    """In bytes."""
    nbytes: int
    payload: int
    """0: the bytes follow in the record. n: they are the payload frames of this
    message from the n-th on, cut into chunks of ``CHUNK_NBYTES``."""
    data: bytes = b""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Answer with bytes of a storage, as payload frames."""

    request: int
    storage: int
    offset: int
    nbytes: int


class Fence(msgspec.Struct, frozen=True, gc=False):
    """Answer when all before it has run; the first unreported failure is the answer."""

    request: int


class Statistics(msgspec.Struct, frozen=True, gc=False):
    """Answer with the session's counters (``STATISTICS_FIELDS``)."""

    request: int


class NewGenerator(msgspec.Struct, frozen=True, gc=False):
    """Make a random generator with the framework's default seed."""

    generator: int


class SeedGenerator(msgspec.Struct, frozen=True, gc=False):
    """Seed a generator."""

    generator: int
    seed: int
    """64 bits, unsigned."""


class ReadGenerator(msgspec.Struct, frozen=True, gc=False):
    """Answer with a generator's state as one payload frame."""

    request: int
    generator: int


class WriteGenerator(msgspec.Struct, frozen=True, gc=False):
    """Set a generator's state to bytes that ``ReadGenerator`` gave."""

    generator: int
    state: bytes


class FreeGenerator(msgspec.Struct, frozen=True, gc=False):
    """The client will not name this generator again."""

    generator: int


class DefineGraph(msgspec.Struct, frozen=True, gc=False):
    """Keep records to run again and again; ``graphs.read_graph`` reads them."""

    graph: int
    storages: int
    """How many storages the records name; their numbers are the graph's own."""
    parameters: tuple[int, ...]
    """Those that are there before the graph runs."""
    results: tuple[int, ...]
    """Those that stay when it has run."""
    records: bytes


class RunGraph(msgspec.Struct, frozen=True, gc=False):
    """Run a graph on storages of the session."""

    graph: int
    parameters: tuple[int, ...]
    """One storage for each parameter of the graph."""
    results: tuple[int, ...]
    """What to call each result; 0 where nobody wants it. A storage that has the
    name already gives it up before the graph runs."""


class FreeGraph(msgspec.Struct, frozen=True, gc=False):
    """The client will not run this graph again."""

    graph: int


Record: TypeAlias = (
    DefineOperation
    | Call
    | RequestCall
    | Allocate
    | Free
    | Write
    | Read
    | Fence
    | Statistics
    | NewGenerator
    | SeedGenerator
    | ReadGenerator
    | WriteGenerator
    | FreeGenerator
    | DefinePeer
    | Send
    | Receive
    | OpenMeeting
    | DefineGroup
    | Collective
    | FreeGroup
    | DefineGraph
    | RunGraph
    | FreeGraph
    | DefinePlan
    | RunPlan
    | FreePlan
    | OpenLane
    | Upload
    | Download
    | ListKnown
    | UploadKnown
    | DefineArrayOperation
    | DefineArrayDtype
    | ArrayCall
    | ArrayRequest
    | FreeArrays
    | PutArray
    | ArrayOverStorage
    | StorageOverArray
    | MakeModule
    | FreeModule
    | LaunchKernel
    | KernelAttributes
    | SetKernelAttribute
)

STATISTICS_FIELDS: Final = (
    "executed_ops",
    "failed_ops",
    "received_nbytes",
    "sent_nbytes",
    "allocated_nbytes",
    "allocated_nbytes_peak",
    "storage_count",
    "relaid_outputs",
    "busy_ns",
    "graph_runs",
    "known_nbytes",
)
"""What a ``Statistics`` reply holds, as a list of integers in this order."""


def _write_arguments(
    writer: Writer, arguments: tuple[tuple[int, Value], ...] | list[tuple[int, Value]]
) -> None:
    writer.uvarint(len(arguments))
    for position, value in arguments:
        writer.uvarint(position)
        write_value(writer, value)


def _write_numbers(writer: Writer, numbers: tuple[int, ...]) -> None:
    writer.uvarint(len(numbers))
    for number in numbers:
        writer.uvarint(number)


def write_record(writer: Writer, record: Record) -> None:  # noqa: C901  one case per record
    """Append one record in its canonical form.

    Raises:
        TypeError: an argument has no place on the wire.
        ValueError: a number does not fit, or there are more or fewer bytes than said.
    """
    match record:
        case Call():
            writer.uint8(CALL)
            writer.uvarint(record.operation)
            _write_arguments(writer, record.arguments)
            writer.uvarint(len(record.outputs))
            for output in record.outputs:
                if output is None:
                    writer.uint8(0)
                else:
                    writer.uint8(1)
                    write_tensor(writer, output)
        case Allocate():
            writer.uint8(ALLOCATE)
            writer.uvarint(record.storage)
            writer.uvarint(record.nbytes)
        case Free():
            writer.uint8(FREE)
            writer.uvarint(record.storage)
        case Read():
            writer.uint8(READ)
            writer.uvarint(record.request)
            writer.uvarint(record.storage)
            writer.uvarint(record.offset)
            writer.uvarint(record.nbytes)
        case Write():
            writer.uint8(WRITE)
            writer.uvarint(record.storage)
            writer.uvarint(record.offset)
            writer.uvarint(record.nbytes)
            writer.uvarint(record.payload)
            if len(record.data) != (0 if record.payload else record.nbytes):
                raise ValueError(
                    f"Write of {record.nbytes} bytes holds {len(record.data)}"
                )
            writer.raw(record.data)
        case RequestCall():
            writer.uint8(REQUEST_CALL)
            writer.uvarint(record.request)
            writer.uvarint(record.first_storage)
            writer.uvarint(record.operation)
            _write_arguments(writer, record.arguments)
        case DefineOperation():
            writer.uint8(DEFINE_OPERATION)
            writer.uvarint(record.operation)
            writer.text(record.name)
            writer.uvarint(len(record.argument_names))
            for name in record.argument_names:
                writer.text(name)
        case Fence():
            writer.uint8(FENCE)
            writer.uvarint(record.request)
        case Statistics():
            writer.uint8(STATISTICS)
            writer.uvarint(record.request)
        case NewGenerator():
            writer.uint8(NEW_GENERATOR)
            writer.uvarint(record.generator)
        case SeedGenerator():
            writer.uint8(SEED_GENERATOR)
            writer.uvarint(record.generator)
            writer.uint64(record.seed)
        case ReadGenerator():
            writer.uint8(READ_GENERATOR)
            writer.uvarint(record.request)
            writer.uvarint(record.generator)
        case WriteGenerator():
            writer.uint8(WRITE_GENERATOR)
            writer.uvarint(record.generator)
            writer.sized(record.state)
        case FreeGenerator():
            writer.uint8(FREE_GENERATOR)
            writer.uvarint(record.generator)
        case DefinePeer() | Send() | Receive():
            write_peer_record(writer, record)
        case OpenMeeting() | DefineGroup() | Collective() | FreeGroup():
            write_group_record(writer, record)
        case DefineGraph():
            writer.uint8(DEFINE_GRAPH)
            writer.uvarint(record.graph)
            writer.uvarint(record.storages)
            _write_numbers(writer, record.parameters)
            _write_numbers(writer, record.results)
            writer.sized(record.records)
        case RunGraph():
            writer.uint8(RUN_GRAPH)
            writer.uvarint(record.graph)
            _write_numbers(writer, record.parameters)
            _write_numbers(writer, record.results)
        case FreeGraph():
            writer.uint8(FREE_GRAPH)
            writer.uvarint(record.graph)
        case DefinePlan() | RunPlan() | FreePlan():
            write_plan_record(writer, record)
        case OpenLane() | Upload() | Download() | ListKnown() | UploadKnown():
            write_lane_record(writer, record)
        case (
            MakeModule()
            | FreeModule()
            | LaunchKernel()
            | KernelAttributes()
            | SetKernelAttribute()
        ):
            write_kernel_record(writer, record)
        case _:
            write_array_record(writer, record)


def _read_arguments(reader: Reader) -> tuple[tuple[int, Value], ...]:
    count = reader.uvarint(limits.MAX_ARGUMENTS, "number of arguments")
    arguments: list[tuple[int, Value]] = []
    before = -1
    for _ in range(count):
        position = reader.uvarint(limits.MAX_ARGUMENTS - 1, "argument position")
        if position <= before:
            raise PeerError("argument positions must ascend")
        before = position
        arguments.append((position, read_value(reader)))
    return tuple(arguments)


def _read_output(reader: Reader) -> Tensor | None:
    mark = reader.uint8()
    if mark > 1:
        raise PeerError(f"output mark {mark} is unknown")
    return read_tensor(reader) if mark else None


def _read_call(reader: Reader) -> Call:
    operation = _operation(reader)
    arguments = _read_arguments(reader)
    count = reader.uvarint(limits.MAX_OUTPUTS, "number of outputs")
    return Call(
        operation, arguments, tuple([_read_output(reader) for _ in range(count)])
    )


def _read_request_call(reader: Reader) -> RequestCall:
    return RequestCall(
        _request(reader),
        _storage(reader),
        _operation(reader),
        _read_arguments(reader),
    )


def _read_define(reader: Reader) -> DefineOperation:
    operation = _operation(reader)
    name = reader.text(limits.MAX_NAME_NBYTES, "operation name")
    count = reader.uvarint(limits.MAX_ARGUMENTS, "number of arguments")
    names = [reader.text(limits.MAX_NAME_NBYTES, "name") for _ in range(count)]
    return DefineOperation(operation, name, tuple(names))


def _read_write(reader: Reader) -> Write:
    storage = _storage(reader)
    offset = reader.uvarint(limits.MAX_STORAGE_NBYTES, "offset")
    nbytes = reader.uvarint(limits.TRANSFER_NBYTES, "number of bytes")
    payload = reader.uvarint(limits.MAX_FRAMES - 1, "payload frame")
    if payload:
        return Write(storage, offset, nbytes, payload)
    if nbytes > limits.INLINE_NBYTES:
        raise PeerError(f"{nbytes} bytes are too many to travel inside a record")
    return Write(storage, offset, nbytes, 0, reader.raw(nbytes, "written bytes"))


def _request(reader: Reader) -> int:
    request = reader.uvarint(limits.MAX_STORAGE_ID, "request id")
    if request == 0:
        raise PeerError("request id 0 means that nobody waits")
    return request


def _operation(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_OPERATIONS - 1, "operation")


def _storage(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "storage id")


def _generator(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "generator id")


def _nbytes(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_NBYTES, "number of bytes")


def _read_read(reader: Reader) -> Read:
    return Read(
        _request(reader),
        _storage(reader),
        reader.uvarint(limits.MAX_STORAGE_NBYTES, "offset"),
        reader.uvarint(limits.TRANSFER_NBYTES, "number of bytes"),
    )


def _read_state(reader: Reader) -> WriteGenerator:
    return WriteGenerator(
        _generator(reader),
        reader.sized(limits.MAX_GENERATOR_STATE_NBYTES, "generator state"),
    )


def _graph(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "graph id")


def _read_numbers(reader: Reader, limit: int, what: str) -> tuple[int, ...]:
    count = reader.uvarint(limits.MAX_GRAPH_STORAGES, f"number of {what}s")
    return tuple([reader.uvarint(limit, what) for _ in range(count)])


def _read_define_graph(reader: Reader) -> DefineGraph:
    graph = _graph(reader)
    storages = reader.uvarint(limits.MAX_GRAPH_STORAGES, "number of storages")
    return DefineGraph(
        graph,
        storages,
        _read_numbers(reader, limits.MAX_GRAPH_STORAGES - 1, "parameter"),
        _read_numbers(reader, limits.MAX_GRAPH_STORAGES - 1, "result"),
        reader.sized(limits.MAX_GRAPH_NBYTES, "graph"),
    )


def _read_run_graph(reader: Reader) -> RunGraph:
    return RunGraph(
        _graph(reader),
        _read_numbers(reader, limits.MAX_STORAGE_ID, "parameter"),
        _read_numbers(reader, limits.MAX_STORAGE_ID, "result"),
    )


_READERS: Final[dict[int, Callable[[Reader], Record]]] = {
    DEFINE_OPERATION: _read_define,
    CALL: _read_call,
    REQUEST_CALL: _read_request_call,
    ALLOCATE: lambda reader: Allocate(_storage(reader), _nbytes(reader)),
    FREE: lambda reader: Free(_storage(reader)),
    WRITE: _read_write,
    READ: _read_read,
    FENCE: lambda reader: Fence(_request(reader)),
    STATISTICS: lambda reader: Statistics(_request(reader)),
    NEW_GENERATOR: lambda reader: NewGenerator(_generator(reader)),
    SEED_GENERATOR: lambda reader: SeedGenerator(_generator(reader), reader.uint64()),
    READ_GENERATOR: lambda reader: ReadGenerator(_request(reader), _generator(reader)),
    WRITE_GENERATOR: _read_state,
    FREE_GENERATOR: lambda reader: FreeGenerator(_generator(reader)),
    DEFINE_PEER: read_define_peer,
    SEND: read_send,
    RECEIVE: read_receive,
    OPEN_MEETING: read_open_meeting,
    DEFINE_GROUP: read_define_group,
    COLLECTIVE: read_collective,
    FREE_GROUP: read_free_group,
    DEFINE_GRAPH: _read_define_graph,
    RUN_GRAPH: _read_run_graph,
    FREE_GRAPH: lambda reader: FreeGraph(_graph(reader)),
    DEFINE_PLAN: read_define_plan,
    RUN_PLAN: read_run_plan,
    FREE_PLAN: read_free_plan,
    OPEN_LANE: lambda reader: OpenLane(_request(reader)),
    UPLOAD: read_upload,
    DOWNLOAD: lambda reader: read_download(reader, _request(reader)),
    LIST_KNOWN: lambda reader: ListKnown(_request(reader)),
    UPLOAD_KNOWN: read_upload_known,
    DEFINE_ARRAY_OPERATION: read_define_array_operation,
    DEFINE_ARRAY_DTYPE: read_define_array_dtype,
    ARRAY_CALL: read_array_call,
    ARRAY_REQUEST: lambda reader: read_array_request(reader, _request(reader)),
    FREE_ARRAYS: read_free_arrays,
    PUT_ARRAY: read_put_array,
    ARRAY_OVER_STORAGE: read_array_over_storage,
    STORAGE_OVER_ARRAY: read_storage_over_array,
    MAKE_MODULE: read_make_module,
    FREE_MODULE: read_free_module,
    LAUNCH_KERNEL: read_launch_kernel,
    KERNEL_ATTRIBUTES: lambda reader: read_kernel_attributes(reader, _request(reader)),
    SET_KERNEL_ATTRIBUTE: read_set_kernel_attribute,
}


def read_record(reader: Reader) -> Record:
    """Take one record, or raise ``PeerError``."""
    kind = reader.uint8()
    read = _READERS.get(kind)
    if read is None:
        raise PeerError(f"record kind {kind} is unknown")
    return read(reader)


def read_records(data: bytes | memoryview) -> Iterator[Record]:
    """The records of one batch in order; ``PeerError`` where they make no sense."""
    reader = Reader(data)
    while not reader.is_exhausted:
        yield read_record(reader)
