"""The native device and its Python twin record the same bytes of the same programs.

The native device has no oracle but this one: each was written from SPEC.md alone.
"""

from __future__ import annotations

import math
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from support.leased_script import run_leased, run_script
from support.recorded import (
    Recorded,
    comparable,
    encoded,
    explained,
    loaded,
    named_calls,
    records_of,
)
from xpool.native import build
from xpool.torch.codes import DTYPES, MEMORY_FORMAT_CODES
from xpool.torch.operation import ABSENT, ArgumentEncoder, Operation
from xpool_protocol.records import (
    Call,
    DefineOperation,
    RequestCall,
)
from xpool_protocol.values import (
    FLAG_CONJ,
    FLAG_NEG,
    Device,
    DType,
    Generator,
    HostTensor,
    Layout,
    MemoryFormat,
    Tensor,
)

SCRIPTS = Path(__file__).parent / "programs"
RECORDING = SCRIPTS / "recording.py"
sys.path.insert(0, str(SCRIPTS))

from recorded_programs import BATCHED, DIFFERENT, PROGRAMS

pytestmark = pytest.mark.skipif(
    build.built_library() is None and build.compiler() is None,
    reason="no native device without a C++ compiler",
)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a device has sent to a worker, per program; ``recorded("cuda")``."""
    folder = tmp_path_factory.mktemp("recorded")

    @cache
    def of(device: str) -> Recorded:
        file = folder / device
        ended = run_leased(RECORDING, device, str(file), memory_nbytes=1 << 31)
        return loaded(file, ended)

    return of


def test_every_program_is_recorded(recorded: Any) -> None:
    for device in ("cuda", "xpool"):
        assert list(recorded(device)) == list(PROGRAMS)
    assert DIFFERENT.keys() < PROGRAMS.keys()


@pytest.mark.parametrize("device", ["cuda", "xpool"])
def test_bytes_are_canonical(recorded: Any, device: str) -> None:
    """Decoded and encoded again by the protocol's own code: the same bytes."""
    for name, batches in recorded(device).items():
        again = b"".join(map(encoded, records_of(batches)))
        assert again == b"".join(data for data, _, _ in batches), name


@pytest.mark.parametrize(
    "program", [name for name in PROGRAMS if name not in DIFFERENT]
)
def test_both_devices_record_the_same(recorded: Any, program: str) -> None:
    """To the last number: storages, operations, requests and generators too."""
    native = comparable(recorded("cuda")[program])
    twin = comparable(recorded("xpool")[program])
    assert native, "nothing was recorded"
    if native != twin:
        assert explained(native) == explained(twin)
    assert native == twin


@pytest.mark.parametrize("program", list(DIFFERENT))
def test_the_table_of_differences_is_true(recorded: Any, program: str) -> None:
    """A program that no longer differs leaves the table."""
    native = [str(one) for one in named_calls(recorded("cuda"), program)]
    twin = [str(one) for one in named_calls(recorded("xpool"), program)]
    assert native != twin


def test_batches_are_cut_alike(tmp_path: Path) -> None:
    """With nobody taking them meanwhile: same bytes, counts and payloads in each."""
    both = {}
    for device in ("cuda", "xpool"):
        file = tmp_path / device
        both[device] = loaded(file, run_script(RECORDING, device, str(file)))
    assert list(both["cuda"]) == list(BATCHED)
    for name in BATCHED:
        native, twin = both["cuda"][name], both["xpool"][name]
        assert [len(data) for data, _, _ in native] == [len(d) for d, _, _ in twin]
        assert native == twin, name
    assert len(both["cuda"]["many_small_calls"]) > 2
    assert len(both["cuda"]["large_copies"]) > 2


# ---- arguments from the full list, defaults filled in from the schema


class StandIns:
    """Python arguments that stand for wire values: tensors on meta, real generators."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}
        self.generators: list[tuple[torch.Generator, int]] = []
        self.kept: list[torch.Tensor] = []
        self.encoder = ArgumentEncoder(
            "meta",
            lambda tensor: self.storages[id(tensor)],
            self.refuse_upload,
            self.number_of,
        )

    def refuse_upload(self, tensor: torch.Tensor) -> torch.Tensor:
        raise AssertionError("what was sent by value is small")

    def number_of(self, generator: torch.Generator) -> int:
        return next(n for one, n in self.generators if one is generator)

    def of(self, value: Any) -> Any:
        match value:
            case Tensor():
                return self.tensor(value)
            case HostTensor():
                return host_value(value)
            case DType():
                return DTYPES[value.code]
            case Device():
                return torch.device("meta", value.index)
            case Layout():
                assert value.code == 0
                return torch.strided
            case MemoryFormat():
                return {c: f for f, c in MEMORY_FORMAT_CODES.items()}[value.code]
            case Generator():
                self.generators.append((torch.Generator(), value.id))
                return self.generators[-1][0]
            case list():
                return [self.of(one) for one in value]
            case _:
                return value

    def tensor(self, value: Tensor) -> torch.Tensor:
        dtype = DTYPES[value.dtype]
        tensor = torch.empty(0, dtype=dtype, device="meta")
        make: Any = torch.UntypedStorage
        storage = make(1 << 40, device="meta")
        tensor.set_(storage, value.offset, value.sizes, value.strides)
        if value.flags & FLAG_CONJ:
            tensor = torch._conj(tensor)
        if value.flags & FLAG_NEG:
            tensor = torch._neg_view(tensor)
        self.storages[id(tensor)] = value.storage
        self.kept.append(tensor)
        return tensor


def host_value(value: HostTensor) -> Any:
    """The number that was wrapped, or a tensor of these bytes."""
    if value.is_wrapped:
        formats = {11: "<?", 4: "<q", 7: "<d", 10: "<dd"}
        parts = struct.unpack(formats[value.dtype], value.data)
        return complex(*parts) if len(parts) == 2 else parts[0]
    dtype = DTYPES[value.dtype]
    if not value.data:
        return torch.empty(value.sizes, dtype=dtype)
    return torch.frombuffer(bytearray(value.data), dtype=dtype).reshape(value.sizes)


def filled_in(operation: Operation, kinds: list[str], record: Any) -> list[Any]:
    """The whole list of arguments as a caller may have given it."""
    given = dict(record.arguments)
    values = []
    for position, parameter in enumerate(operation.parameters):
        if position in given:
            values.append(given[position])
            continue
        default = parameter.default
        assert default is not ABSENT or not parameter.is_tensor, parameter
        if isinstance(default, int) and "ScalarType" in kinds[position]:
            default = DType(default)
        elif isinstance(default, int) and "MemoryFormat" in kinds[position]:
            default = MemoryFormat(default)
        elif isinstance(default, list):
            default = list(default)
        elif isinstance(default, float):
            default = math.fsum([default])  # equal, and another object
        values.append(default)
    return values


@pytest.mark.parametrize("device", ["cuda", "xpool"])
def test_arguments_follow_from_the_full_list(recorded: Any, device: str) -> None:
    """The Python encoder, given all arguments with their defaults, leaves out the same
    and writes the rest to the same bytes."""
    operations: dict[int, tuple[Operation, list[str]]] = {}
    seen: set[bytes] = set()
    calls = 0
    for batches in recorded(device).values():
        for record in records_of(batches):
            if isinstance(record, DefineOperation):
                operations[record.operation] = resolved(record)
            elif isinstance(record, Call | RequestCall):
                if encoded(record)[:64] in seen:
                    continue
                seen.add(encoded(record)[:64])
                calls += 1
                check_call(record, *operations[record.operation])
    assert calls > 500


def resolved(record: DefineOperation) -> tuple[Operation, list[str]]:
    base, _, overload = record.name.removeprefix("aten::").partition(".")
    function = getattr(getattr(torch.ops.aten, base), overload or "default")
    operation = Operation(function)
    assert operation.name == record.name
    assert operation.argument_names == record.argument_names
    return operation, [str(one.real_type) for one in function._schema.arguments]


def check_call(
    record: Call | RequestCall, operation: Operation, kinds: list[str]
) -> None:
    stand_ins = StandIns()
    values = [stand_ins.of(one) for one in filled_in(operation, kinds, record)]
    again = stand_ins.encoder.encode(operation, values)
    remade = msgspec.structs.replace(record, arguments=again.arguments)
    assert encoded(remade) == encoded(record), (operation.name, again, record)
