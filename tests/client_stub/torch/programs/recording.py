"""Runs programs on a device and writes down every batch that it sends.

    recording.py cuda|xpool FILE [MODULE]

The programs are those of MODULE, which is ``recorded_programs`` if none is named.
Without a lease in ``$LEASE`` nobody answers: the programs in ``BATCHED`` run, and all
that they record is taken at their end. With one, all programs run against its worker.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from xpool.lease_pipe import Lease
from xpool.outbox import Outbox, QueuedBatch
from xpool.session import open_session
from xpool_protocol.errors import PoolError
from xpool_protocol.messages import Resized, Welcome

# The twin has no bulk lane: large tensors stand in the log on both devices.
os.environ["XPOOL_LANE"] = "off"

Recorded = list[tuple[bytes, int, list[tuple[int, str]]]]
"""Per batch: records, their number, and length and digest of each payload."""

MEMORY_NBYTES = 1 << 32
LACKING = (
    "aten::_thnn_fused_gru_cell",
    "aten::_thnn_fused_gru_cell_backward",
    "aten::_thnn_fused_lstm_cell",
    "aten::_thnn_fused_lstm_cell_backward_impl",
    "aten::_use_cudnn_ctc_loss",
    "aten::_use_cudnn_ctc_loss.Tensor",
    "aten::_softmax?half_to_float",
    "aten::_log_softmax?half_to_float",
    "aten::_softmax_backward_data?input_dtype",
    "aten::_log_softmax_backward_data?input_dtype",
)
"""What the device of a CPU server lacks of the operations that the programs use."""


class NoAnswers:
    """The link of a session that nobody answers."""

    over = None

    def on_over(self, call: Callable[[PoolError], None]) -> None:
        """It is never over."""

    def tell_resized(self, call: Callable[[Resized], None]) -> None:
        """The slice never changes."""

    def wait_for_room(self) -> None:
        """There is always room: the recording takes no notice of bytes."""


class RecordedSession:
    """What a device asks of its session, where no answer is needed."""

    is_traced = False
    is_over = False
    peer = ("", "")

    def __init__(self) -> None:
        self.link = NoAnswers()
        self.welcome = Welcome(
            version=1,
            lease_id="lease",
            epoch=1,
            server="nobody",
            framework="none",
            device_kind="cpu",
            device_name="nothing",
            share_percent=100,
            memory_nbytes=MEMORY_NBYTES,
            window_nbytes=MEMORY_NBYTES,
            lacking=LACKING,
        )

    def noted(self, what: str, wait: Callable[[], None]) -> None:
        """Nobody watches what is waited for."""
        wait()

    def wait(self, request: int) -> None:
        raise AssertionError(f"request {request} can't be answered")


class Tap:
    """An outbox that writes down what is taken from another one."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.recorded: Recorded = []

    @property
    def wake_fileno(self) -> int:
        return self._outbox.wake_fileno

    def queued_nbytes(self) -> int:
        return self._outbox.queued_nbytes()

    def ring_at(self, nbytes: int) -> int:
        return self._outbox.ring_at(nbytes)

    def take(self) -> QueuedBatch | None:
        batch = self._outbox.take()
        if batch is not None:
            payloads = [
                (len(one), hashlib.sha256(one).hexdigest()) for one in batch.payloads
            ]
            self.recorded.append((batch.records, batch.record_count, payloads))
        return batch

    def native_link(self, *_: object) -> None:
        """None: what native code takes would pass by here."""

    def drain(self) -> Recorded:
        """All that is left in the outbox, and what was taken before."""
        while self.take() is not None:
            pass
        recorded, self.recorded = self.recorded, []
        return recorded


def install_cuda(lease: Lease | None) -> tuple[Tap, Any]:
    from xpool.torch.install import load_library, patch_torch

    library = load_library()
    assert library is not None, "XPOOL_DEVICE asks for the other device"
    import torch  # noqa: F401  between loading and registering
    from xpool.torch.remote import Remote

    library.register()
    device = library.device(0)
    tap = Tap(device)
    session: Any = RecordedSession()
    if lease is not None:
        session = open_session(lease, tap, "torch")
    device.attach(session)
    library.connect([device])
    remote = Remote(session, device)
    patch_torch(library, [remote])
    return tap, remote


def install_xpool(lease: Lease | None) -> tuple[Tap, Any]:
    from xpool.torch.python_install import install_python_device
    from xpool.torch.python_log import PythonLog

    log = PythonLog()
    tap = Tap(log)
    session: Any = RecordedSession()
    if lease is not None:
        session = open_session(lease, tap, "torch")
    return tap, install_python_device(session, log)


def main() -> None:
    device, file = sys.argv[1:3]
    module = sys.argv[3] if len(sys.argv) > 3 else "recorded_programs"
    text = os.environ.get("LEASE")
    lease = msgspec.json.decode(text, type=Lease) if text else None
    tap, remote = {"cuda": install_cuda, "xpool": install_xpool}[device](lease)

    import torch

    programs = importlib.import_module(module)
    warnings.simplefilter("ignore")
    recorded: dict[str, Recorded] = {}
    torch.empty(1, device="meta").add(1)  # imports keep the frames of whoever is first
    gc.disable()  # frees come from reference counts alone, at the same places
    for name in programs.PROGRAMS if lease else programs.BATCHED:
        torch.manual_seed(0)
        programs.PROGRAMS[name](device)
        if lease:
            try:
                remote.synchronize()  # the link has taken all there is
            except RuntimeError as error:
                raise RuntimeError(f"program {name}: {error}") from None
            recorded[name], tap.recorded = tap.recorded, []
        else:
            recorded[name] = tap.drain()
    Path(file).write_bytes(msgspec.msgpack.encode(recorded))
    if lease:
        remote.session.leave("the recording is over")
    sys.stdout.flush()
    os._exit(0)  # nothing that ends later may record any more


if __name__ == "__main__":
    main()
