"""What the golden vectors in ``v1/`` hold, by file name.

The bytes were written once, by ``make.py``, and are frozen: a vector that has to
change is a new protocol version. New kinds get new vectors.
"""

from __future__ import annotations

from pathlib import Path

from xpool_protocol import values
from xpool_protocol.arrays.described import DtypeField, FieldsDtype
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
    ArrayResult,
    DefineArrayDtype,
    DefineArrayOperation,
    FreeArrays,
    PutArray,
    StorageOverArray,
)
from xpool_protocol.arrays.values import (
    ArrayMeta,
    DescribedDType,
    DescribedItems,
    Handle,
    NamedTuple,
    ObjectMeta,
)
from xpool_protocol.kernel_records import (
    ArrayArgument,
    BytesArgument,
    FreeModule,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    NullArgument,
    SetKernelAttribute,
    StorageArgument,
)
from xpool_protocol.lane_records import (
    Download,
    ListKnown,
    OpenLane,
    Upload,
    UploadKnown,
)
from xpool_protocol.messages import (
    Ack,
    Batch,
    Bye,
    Failure,
    Fault,
    Goodbye,
    Hello,
    Inquiry,
    Message,
    Ping,
    Pong,
    Redirect,
    Reply,
    Resized,
    Welcome,
)
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan
from xpool_protocol.records import (
    Allocate,
    Call,
    Collective,
    DefineGraph,
    DefineGroup,
    DefineOperation,
    DefinePeer,
    Fence,
    Free,
    FreeGenerator,
    FreeGraph,
    FreeGroup,
    NewGenerator,
    OpenMeeting,
    Read,
    ReadGenerator,
    Receive,
    Record,
    RequestCall,
    RunGraph,
    SeedGenerator,
    Send,
    Statistics,
    Write,
    WriteGenerator,
)
from xpool_protocol.values import HostTensor, SparseTensor, Tensor, Value

FOLDER = Path(__file__).parent / "v1"

MATRIX = Tensor(7, 6, (2, 3), (3, 1))
TRANSPOSED = Tensor(300, 9, (3, 2), (1, 3), 4, values.FLAG_CONJ)

VALUES: dict[str, Value] = {
    "none": None,
    "false": False,
    "true": True,
    "int": -300,
    "float": 0.1,
    "complex": complex(1.5, -2.0),
    "text": "naïve",
    "list": [None, 2.0, [], [1]],
    "ints": [0, -1, 64, 1 << 40],
    "tensor": TRANSPOSED,
    "host_tensor": HostTensor(3, (2,), bytes([1, 0, 0, 0, 2, 0, 0, 0])),
    "host_tensor_wrapped": HostTensor(7, (), bytes(8), is_wrapped=True),
    "dtype": values.DType(15),
    "device": values.Device(1),
    "layout": values.Layout(0),
    "memory_format": values.MemoryFormat(2),
    "generator": values.Generator(3),
    "sparse_coo": SparseTensor(
        1,
        (4, 5, 3),
        1,
        (Tensor(8, 4, (2, 6), (6, 1)), Tensor(9, 6, (6, 3), (3, 1))),
        is_coalesced=True,
    ),
    "sparse_csr": SparseTensor(
        2,
        (4, 5),
        0,
        (
            Tensor(8, 4, (5,), (1,)),
            Tensor(9, 4, (6,), (1,)),
            Tensor(10, 6, (6,), (1,), 2),
        ),
    ),
}

RECORDS: dict[str, Record] = {
    "define_operation": DefineOperation(0, "aten::add.Tensor", ("self", "other")),
    "call": Call(0, ((0, MATRIX), (1, 2), (3, "x")), (Tensor(8, 6, (2,), (1,)), None)),
    "request_call": RequestCall(5, 1000, 129, ((0, MATRIX),)),
    "allocate": Allocate(7, 24),
    "free": Free(7),
    "write": Write(7, 8, 3, 0, b"abc"),
    "write_payload": Write(7, 0, 1 << 20, 2),
    "read": Read(6, 7, 0, 24),
    "fence": Fence(9),
    "statistics": Statistics(10),
    "new_generator": NewGenerator(1),
    "seed_generator": SeedGenerator(1, 0xDEADBEEF),
    "read_generator": ReadGenerator(11, 1),
    "write_generator": WriteGenerator(1, b"\x01\x02\x03"),
    "free_generator": FreeGenerator(1),
    "define_peer": DefinePeer(1, "tcp://10.0.0.5:7811", "key", "cuda:1 on two"),
    "send": Send(7, 512, 1 << 20, bytes(range(16)), 1),
    "receive": Receive(300, 0, 1 << 20, bytes(range(16)), 0),
    "open_meeting": OpenMeeting(12),
    "define_group": DefineGroup(1, 0, 2, "10.0.0.5:7812", "secret", 600_000),
    "collective": Collective(
        *(1, 10, 0, 1, 0),
        (Tensor(7, 6, (3, 2), (2, 1)),),
        (Tensor(300, 6, (4, 2), (1, 4), 5),),
        (1, 2),
        (3, 1),
    ),
    "free_group": FreeGroup(1),
    # add(parameter 0, parameter 1) -> result 2, by operation 0
    "define_graph": DefineGraph(
        3,
        3,
        (0, 1),
        (2,),
        bytes.fromhex("020002000900060400010201090106040001020101020604000102"),
    ),
    "run_graph": RunGraph(3, (7, 300), (0, 301)),
    "free_graph": FreeGraph(3),
    # Free(7); the storage is 2 more each time
    "define_plan": DefinePlan(
        4, bytes.fromhex("0507"), bytes.fromhex("01010401010000")
    ),
    # stands for Free(9)
    "run_plan": RunPlan(4, 0, 1, 1165123102, bytes.fromhex("00")),
    "free_plan": FreePlan(4),
    "open_lane": OpenLane(12),
    "upload": Upload(7, 1 << 20, 3 << 20),
    "download": Download(13, 7, 0, 4 << 20),
    "list_known": ListKnown(14),
    "upload_known": UploadKnown(7, 1 << 20, 3 << 20, bytes(range(32))),
    "define_array_operation": DefineArrayOperation(0, "cupy.add"),
    "define_array_dtype": DefineArrayDtype(
        128,
        FieldsDtype(
            24,
            True,
            (
                DtypeField("id", "", 0, (), "<i4"),
                DtypeField("at", "place", 8, (2,), "<f8"),
            ),
        ),
    ),
    "put_described_array": PutArray(9, 129, 0, (2,), bytes(range(6))),
    "array_call_with_described": ArrayCall(
        0,
        (ArrayResult(16384, 128, (2,)),),
        (DescribedDType(128), DescribedItems(129, (), b"abc")),
        {},
    ),
    "array_call": ArrayCall(
        0, (ArrayResult(16384, 6, (2, 3)),), (Handle(7), 2.0), {"out": Handle(300)}
    ),
    "array_request": ArrayRequest(
        5,
        1 << 40,
        130,
        (Handle(7), slice(None, -1, 2), (..., None, [True, 3]), 1 << 64, b"x"),
        {"dtype": values.DType(6), "axis": int},
    ),
    "free_arrays": FreeArrays((7, 300)),
    "put_array": PutArray(9, 2, 1, (2, 1), b"\x01\x00\x02\x00"),
    "array_over_storage": ArrayOverStorage(10, True, MATRIX),
    "storage_over_array": StorageOverArray(11, 10),
    "make_module_of_source": MakeModule(
        3,
        0,
        b'extern "C" __global__ void add() {}',
        ("-std=c++17", "-DN=4"),
        ("scale<float>",),
    ),
    "make_module_of_image": MakeModule(4, 1, b"\x7fELF"),
    "free_module": FreeModule(4),
    "launch_kernel": LaunchKernel(
        3,
        "scale<float>",
        (1 << 20, 2, 1),
        (256, 1, 1),
        49152,
        1,
        (
            StorageArgument(7, 512),
            ArrayArgument(9),
            BytesArgument(bytes((0, 0, 128, 63))),
            NullArgument(),
        ),
    ),
    "kernel_attributes": KernelAttributes(12, 3, "add"),
    "set_kernel_attribute": SetKernelAttribute(3, "add", 8, 98304),
}

ARRAY_VALUES: dict[str, object] = {
    "array": ArrayMeta(1 << 40, 7, 1, (2, 3), (24, -8), 7),
    "described_array": ArrayMeta(1 << 40, "|V3", 1, (2,), (3,), 7),
    "object": ObjectMeta(7, "RandomState"),
    "named_tuple": NamedTuple("EighResult", ("w", "v"), (Handle(1), Handle(2))),
    "dict": {"a": (1, 2), "b": {}},
}

MESSAGES: dict[str, Message] = {
    "hello": Hello(1, 1, "claims.signature", "key", "xpool 0.1", "torch 2.13.0+cpu"),
    "batch": Batch(3, 17, bytes.fromhex("0507"), (b"payload", b"\x00")),
    "ping": Ping(0x0102030405060708),
    "bye": Bye("the program ended"),
    "inquiry": Inquiry("claims.signature", "key"),
    "welcome": Welcome(
        1,
        "lease-1",
        2,
        "node-a",
        "torch 2.13.0+cpu",
        "cuda",
        "A device",
        30,
        8 << 30,
        64 << 20,
        0,
        {"total_memory": 8 << 30, "name": "A device", "ratio": 0.5},
    ),
    "welcome_lacking": Welcome(
        *(1, "lease-1", 2, "node-a", "torch 2.13.0+cpu", "cpu", "A CPU", 30),
        *(8 << 30, 64 << 20, 0, {}),
        ("aten::_cudnn_rnn", "aten::_softmax?half_to_float"),
    ),
    "redirect": Redirect("tcp://10.0.0.1:7071", "key"),
    "ack": Ack(3, 64 << 20),
    "reply": Reply(6, b"\x00", (b"\x01\x02",)),
    "failure": Failure(
        0, Fault(500, "it is singular", "LinAlgError", 17, "aten::linalg_inv_ex")
    ),
    "goodbye": Goodbye(400, "lease lease-1 is over"),
    "pong": Pong(1),
    "resized": Resized(60, 12 << 30),
}


def read_lines(path: Path) -> list[bytes]:
    """The frames (or the one encoding) of a vector: a line of hex each."""
    lines = path.read_text().splitlines()
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]


def path_of(group: str, name: str) -> Path:
    return FOLDER / f"{group}_{name}.hex"
