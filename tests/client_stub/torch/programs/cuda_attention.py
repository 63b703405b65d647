"""A session whose server has a CUDA device, or says so: what attention asks and sends.

The server's answers are written by hand. Each choice is asked for once for a geometry,
and so is what the kernel returns; from then on nothing waits.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
import recording
from xpool_protocol.messages import Reply
from xpool_protocol.records import Call, DefineOperation, RequestCall, read_records
from xpool_protocol.values import Tensor, Value, write_value
from xpool_protocol.wire import Writer

MATH, FLASH, EFFICIENT = 0, 1, 2
CHOICE = "aten::_fused_sdp_choice"
KERNEL = "aten::_scaled_dot_product_flash_attention"
UINT64, FLOAT32 = 29, 6
NAMES: dict[int, str] = {}


class CudaSession(recording.RecordedSession):
    """Answers what is asked of attention."""

    tap: recording.Tap

    def __init__(self) -> None:
        super().__init__()
        self.welcome = msgspec.structs.replace(
            self.welcome, device_kind="cuda", lacking=()
        )
        self.choice = FLASH
        self.asked: list[str] = []

    def wait(self, request: int) -> Reply:
        records = records_of(self.tap.drain())
        (call,) = [one for one in records if isinstance(one, RequestCall)]
        assert call.request == request
        name = NAMES[call.operation]
        self.asked.append(name)
        if name == CHOICE:
            return replied(request, [[self.choice], []])
        assert name == KERNEL
        query = call.arguments[0][1]
        return replied(request, [flash_results(query, call.first_storage), []])


def flash_results(query: Tensor, first: int) -> list[Value]:
    """As torch's kernel returns them: the random state is two numbers and one."""
    batch, heads, length, width = query.sizes
    sizes = (batch, heads, length, width)
    strides = (length * heads * width, width, heads * width, 1)
    state = Tensor(first + 2, UINT64, (2,), (1,)), Tensor(first + 3, UINT64, (), ())
    logs = Tensor(first + 1, FLOAT32, sizes[:3], (heads * length, length, 1))
    out = Tensor(first, query.dtype, sizes, strides)
    return [out, logs, None, None, length, length, *state, None]


def replied(request: int, value: Value) -> Reply:
    writer = Writer()
    write_value(writer, value)
    return Reply(request, bytes(writer.buffer))


def records_of(batches: recording.Recorded) -> list[Any]:
    found = [one for data, _, _ in batches for one in read_records(data)]
    NAMES.update(
        (one.operation, one.name) for one in found if isinstance(one, DefineOperation)
    )
    return found


def main() -> None:
    sessions: list[CudaSession] = []

    def made() -> CudaSession:
        sessions.append(CudaSession())
        return sessions[0]

    recording.RecordedSession = made  # type: ignore[assignment,misc]
    tap, _ = recording.install_cuda(None)
    session = sessions[0]
    session.tap = tap

    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(width: int = 8, **named: Any) -> set[str]:
        """The operations that attention has recorded, once nothing waits any more."""
        q = torch.empty(1, 2, 4, width, device="cuda", requires_grad=True)
        F.scaled_dot_product_attention(q, q, q, **named)
        del session.asked[:]
        records_of(tap.drain())
        result = F.scaled_dot_product_attention(q, q, q, **named)
        assert result.shape == q.shape
        assert not session.asked, session.asked
        records = records_of(tap.drain())
        return {NAMES[one.operation] for one in records if isinstance(one, Call)}

    q = torch.empty(1, 2, 4, 8, device="cuda")
    result = F.scaled_dot_product_attention(q, q, q)
    assert session.asked == [CHOICE, KERNEL], session.asked
    assert result.stride() == (64, 8, 16, 1)
    assert KERNEL in attend()
    assert attend(is_causal=True) >= {KERNEL}
    with sdpa_kernel(SDPBackend.MATH):
        assert KERNEL not in attend()
    efficient = "aten::_scaled_dot_product_efficient_attention"
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        assert efficient in attend()
    assert efficient in attend(256), "flash attention has no way back for it everywhere"
    session.choice = MATH
    assert not attend(24) & {KERNEL, efficient}
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        try:
            attend(24)
        except RuntimeError as error:
            assert "No available kernel" in str(error)
        else:
            raise AssertionError("nothing that is allowed takes it")
    sys.stdout.write("well\n")
    sys.stdout.flush()
    os._exit(0)  # there is no server to leave


if __name__ == "__main__":
    main()
