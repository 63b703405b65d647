"""The device ``"xpool"``: PrivateUse1 in pure Python, where no compiler is at hand.

The twin of ``native/dispatch.cpp``: same wire, same server, some five times slower per
call. ``PythonDevice.dispatch`` gets every ATen call on a device tensor that no
composite kernel took apart; ``python_kernels`` holds what is more than "send it".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from xpool_protocol import limits
from xpool_protocol.errors import PoolError
from xpool_protocol.records import Fence, Read, Statistics
from xpool_protocol.values import Tensor

from xpool.lacking import Lacking
from xpool.session import RemoteFault
from xpool.torch.codes import dtype_code
from xpool.torch.faults import raise_local
from xpool.torch.operation import (
    ArgumentEncoder,
    Encoded,
    Operation,
    bytes_view,
    flat_tensor,
    is_gather,
)
from xpool.torch.plans import Leaf, Plan, Plans, plan_from, results_of, run_meta
from xpool.torch.python_generator import Generators
from xpool.torch.python_memory import MemoryLedger
from xpool.torch.python_replies import Replied
from xpool.torch.python_storage import Handle, Storages, span_items, tensor_over
from xpool.waits import ROOM

if TYPE_CHECKING:
    from xpool_protocol.messages import Reply

    from xpool.session import Session
    from xpool.torch.python_log import PythonLog

DEVICE_TYPE: Final = "xpool"
_RECORDS: Final[dict[str, Callable[[int], Fence | Statistics]]] = {
    "fence": Fence,
    "statistics": Statistics,
}


class PythonDevice:
    """One remote device; also what ``Remote`` asks of a device library."""

    def __init__(self, session: Session, log: PythonLog) -> None:
        self.session = session
        self.log = log
        self.device = torch.device(DEVICE_TYPE, 0)
        self.lacking = Lacking(session.welcome)
        self.ledger = MemoryLedger(session.welcome.memory_nbytes)
        session.link.tell_resized(
            lambda slice_: self.ledger.resize(slice_.memory_nbytes)
        )
        self.storages = Storages(log, self.ledger, self.device)
        self.plans = Plans()
        session.link.on_contradicted = self._learn
        self.generators = Generators(self)
        self.encoder = ArgumentEncoder(
            DEVICE_TYPE, self.storage_number, self.upload, self.generators.number_of
        )
        self.is_forked = False
        self._operations: dict[Any, Operation] = {}
        os.register_at_fork(after_in_child=self._forget_session)

    def _learn(self, name: str) -> None:
        """Ask for an operation's results from now on; what was known is forgotten."""
        for operation in list(self._operations.values()):
            if operation.name == name:
                operation.must_learn = True
        self.plans.forget()

    def _forget_session(self) -> None:
        self.is_forked = True
        self.log.close_copy()

    # ---- calls

    def operation_of(self, function: Any) -> Operation:
        """What the schema of an ``OpOverload`` says, worked out once."""
        operation = self._operations.get(function)
        if operation is None:
            operation = self._operations[function] = Operation(function)
        return operation

    def fallback(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """The boxed fallback of the dispatch key."""
        return self.dispatch(self.operation_of(function), args, kwargs)

    def dispatch(
        self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Send one call; wait only if nobody but the server knows its results."""
        self.check_usable()
        if self.lacking.has_no(operation.name):
            raise self.lacking.refusal(operation.name)
        values = operation.full(args, kwargs)
        if operation.is_view and isinstance(values[0], torch.Tensor):
            return self._views(operation, values)
        if operation.needs_no_plan or self._sizes_what_is_filled(operation, values):
            return self.call_writing(operation, values)
        return _returned(self._planned(operation, values))

    def _sizes_what_is_filled(
        self, operation: Operation, values: Sequence[Any]
    ) -> bool:
        """Give the fresh tensor that a factory fills its size; False if it is none."""
        filled = values[operation.written[0]] if operation.fills_out else None
        if (
            not isinstance(filled, torch.Tensor)
            or filled.device.type != DEVICE_TYPE
            or filled.dim() != 1
            or filled.numel()
        ):
            return False
        try:
            _, metas = run_meta(operation, values)
            meta: torch.Tensor = metas[operation.written[0]]
            if not meta.is_contiguous():
                return False
            filled.resize_(meta.shape)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001  the server's error is the true one
            return False
        return True

    def call_writing(self, operation: Operation, values: Sequence[Any]) -> Any:
        """A call whose results are all arguments: nothing to predict."""
        encoded = self.encoder.encode(operation, values)
        plan = (None,) * len(operation.return_to_argument)
        return _returned(self._predicted(operation, values, encoded, plan))

    def _planned(self, operation: Operation, values: Sequence[Any]) -> list[Any]:
        encoded = self.encoder.encode(operation, values)
        if (
            operation.returns_number
            or operation.grows_written
            or (operation.is_dynamic and not is_gather(operation, values))
        ):
            return self._requested(operation, values, encoded)
        plan = self.plans.find(encoded.key)
        may_mark = _may_mark_written(operation, values)
        if plan is None and not may_mark:
            plan = self._infer(operation, values)
            if plan is not None:
                self.plans.remember(encoded.key, plan)
        if plan is not None:
            return self._predicted(operation, values, encoded, plan)
        results = self._requested(operation, values, encoded)
        is_steady = not operation.has_out or (
            may_mark and self.encoder.encode(operation, values).key == encoded.key
        )
        learned = plan_from(operation, results) if is_steady else None
        if learned is not None:
            self.plans.remember(encoded.key, learned)
        return results

    def _infer(self, operation: Operation, values: Sequence[Any]) -> Plan | None:
        """A plan by the meta kernel, if it can."""
        if operation.must_learn:
            return None
        try:
            returned, metas = run_meta(operation, values)
            if operation.has_out and self._resizes_written(operation, values, metas):
                return None
            return plan_from(operation, results_of(operation, returned))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001  none, or it refuses these arguments
            # The server decides, and its error is the true one.
            return None

    def _resizes_written(
        self, operation: Operation, values: Sequence[Any], metas: Sequence[Any]
    ) -> bool:
        """Whether an out= tensor is resized: only the server knows the layout."""
        return any(
            tensor.shape != meta.shape and not tensor.is_cpu
            for position in operation.written
            for tensor, meta in zip(
                _leaves(values[position]), _leaves(metas[position]), strict=True
            )
        )

    def _predicted(
        self,
        operation: Operation,
        values: Sequence[Any],
        encoded: Encoded,
        plan: Plan,
    ) -> list[Any]:
        """Record a call with named results."""
        outputs: list[Tensor | None] = []
        results: list[Any] = []
        made: list[Handle] = []
        for argument, prediction in zip(
            operation.return_to_argument, plan, strict=True
        ):
            if argument is not None:
                results.append(values[argument])
                outputs += [None] * sum(1 for _ in _places(values[argument]))
            elif isinstance(prediction, list):
                results.append([self._result(one, outputs, made) for one in prediction])
            else:
                results.append(self._result(prediction, outputs, made))
        self.leave_room()
        self.log.append_call(
            operation.name,
            operation.argument_names,
            encoded.arguments,
            tuple(outputs),
        )
        for handle in made:
            handle.is_recorded = True
        return results

    def _result(
        self, leaf: Leaf | None, outputs: list[Tensor | None], made: list[Handle]
    ) -> torch.Tensor | None:
        if leaf is None:
            outputs.append(None)
            return None
        dtype, sizes, strides = leaf
        storage = self.storages.unrecorded(span_items(sizes, strides) * dtype.itemsize)
        handle = self.storages.handle_of(storage)
        made.append(handle)
        outputs.append(Tensor(handle.number, dtype_code(dtype), sizes, strides))
        return tensor_over(storage, dtype, sizes, strides)

    def _requested(
        self, operation: Operation, values: Sequence[Any], encoded: Encoded
    ) -> list[Any]:
        """Record a call and wait for what came out."""
        self.plans.requests += 1
        self.leave_room()
        request = self.log.append_request_call(
            operation.name, operation.argument_names, encoded.arguments
        )
        replied = Replied(self.storages, [*_tensors(values), *encoded.uploads])
        results = replied.results(
            self.answer(request).value,
            len(operation.return_to_argument),
            [one for i in operation.written for one in _leaves(values[i])],
        )
        for i, argument in enumerate(operation.return_to_argument):
            if argument is not None:
                results[i] = values[argument]
        return results

    def _views(self, operation: Operation, values: Sequence[Any]) -> Any:
        """Views are made here alone: they share the storage, which is the handle."""
        base: torch.Tensor = values[0]
        returned, _ = run_meta(operation, values)

        def over_base(meta: torch.Tensor) -> torch.Tensor:
            skipped = int(base.storage_offset()) * base.element_size()
            offset = int(meta.storage_offset()) + skipped // meta.element_size()
            view = tensor_over(
                base.untyped_storage(), meta.dtype, meta.shape, meta.stride(), offset
            )
            view = torch._conj(view) if meta.is_conj() else view
            return torch._neg_view(view) if meta.is_neg() else view

        if isinstance(returned, torch.Tensor):
            return over_base(returned)
        return [over_base(one) for one in returned]

    # ---- the session

    def check_usable(self) -> None:
        """Refuse what can't be recorded any more.

        Raises:
            RuntimeError: in a forked child, or after the session.
        """
        if not self.log.is_closed and self.session.link.over is None:
            return
        if self.is_forked:
            raise RuntimeError(
                "Cannot re-initialize xpool in forked subprocess. To use xpool with"
                " multiprocessing, you must use the 'spawn' start method"
            )
        if self.session.link.over is not None:
            raise_local(self.session.link.over)
        raise RuntimeError(
            "xpool: the session is closed; no remote operation can run any more"
        )

    def leave_room(self) -> None:
        """Before a record: wait while the network is behind."""
        if self.log.queued_nbytes() > limits.TRANSFER_NBYTES:
            self.session.noted(ROOM, self.session.link.wait_for_room)

    def answer(self, request: int) -> Reply:
        """The answer to a request, or the exception a local device would raise."""
        try:
            return self.session.noted("read", lambda: self.session.wait(request))
        except (RemoteFault, PoolError) as error:
            raise_local(error)

    # ---- bytes

    def storage_number(self, tensor: torch.Tensor) -> int:
        """The server's id of a device tensor's storage."""
        return self.storages.number_of(tensor.untyped_storage())

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        """A new row-major device tensor with a host tensor's values."""
        strides = torch.empty(host.shape, device="meta").stride()
        storage = self.storages.allocate(host.numel() * host.element_size())
        remote = tensor_over(storage, host.dtype, host.shape, strides)
        self.write(remote, host)
        return remote

    def write(self, remote: torch.Tensor, host: torch.Tensor) -> None:
        """Put a host tensor's bytes where a row-major device tensor begins."""
        self.leave_room()
        dense = flat_tensor(host)
        offset = int(remote.storage_offset()) * remote.element_size()
        self.log.append_write(self.storage_number(remote), offset, bytes_view(dense))

    def read(self, remote: torch.Tensor, host: torch.Tensor) -> None:
        """Fetch the bytes of a row-major device tensor into a row-major host one."""
        self.check_usable()
        number = self.storage_number(remote)
        start = int(remote.storage_offset()) * remote.element_size()
        target = bytes_view(host)
        requests = []
        for at in range(0, target.nbytes, limits.TRANSFER_NBYTES):
            nbytes = min(limits.TRANSFER_NBYTES, target.nbytes - at)
            request = self.log.next_request()
            self.log.append(Read(request, number, start + at, nbytes))
            requests.append((request, target[at : at + nbytes]))
        for request, part in requests:
            _fill(part, self.answer(request))

    # ---- what Remote asks of a device library

    def request(self, what: str) -> int:
        """Record a ``fence`` or ``statistics``; the id to wait for."""
        request = self.log.next_request()
        self.log.append(_RECORDS[what](request))
        return request

    def position(self) -> int:
        """How many records the log has."""
        return self.log.position()

    def memory(self) -> dict[str, int]:
        """Bytes allocated now, at most, allowed, and the count of allocations."""
        return self.ledger.counters()

    def reset_peak_memory(self) -> None:
        """Let the peak begin again at what is allocated now."""
        self.ledger.reset_peak()

    def plan_counters(self) -> dict[str, int]:
        """How results' shapes were found: from a plan, by inference, by asking."""
        return self.plans.counters()

    def hold_other_threads(self) -> None:
        """Nothing here: they run Python, and end with it."""

    def close(self) -> None:
        """Record nothing any more: the interpreter ends."""
        self.log.close()


def _may_mark_written(operation: Operation, values: Sequence[Any]) -> bool:
    """Whether a kernel may leave the conjugate mark on an out= tensor.

    ``linalg.lu_solve`` does; meta kernels do not say so.
    """
    return operation.has_out and any(
        tensor.is_complex()
        for position in operation.written
        for tensor in _leaves(values[position])
    )


def _returned(results: Sequence[Any]) -> Any:
    """Results as torch wants them back from a Python kernel."""
    if not results:
        return None
    return results[0] if len(results) == 1 else tuple(results)


def _places(value: Any) -> Iterator[Any]:
    """The tensors that an argument may hold, defined or not."""
    if isinstance(value, (list, tuple)):
        yield from value
    else:
        yield value


def _leaves(value: Any) -> list[torch.Tensor]:
    return [one for one in _places(value) if isinstance(one, torch.Tensor)]


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    return [one for value in values for one in _leaves(value)]


def _fill(part: memoryview, reply: Reply) -> None:
    at = 0
    for payload in reply.payloads:
        end = at + len(payload)
        if end > part.nbytes:
            raise RuntimeError("xpool: the server sent more bytes than were asked for")
        part[at:end] = payload
        at = end
    if at != part.nbytes:
        raise RuntimeError(
            f"xpool: the server sent {at} bytes where {part.nbytes} were asked for"
        )
