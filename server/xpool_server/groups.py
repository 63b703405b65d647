"""Process groups among workers: collectives by torch's own gloo (CPU) or NCCL (CUDA).

A collective blocks its own log and nothing else: a thread carries it out while the
worker's loop still hears its node. The loop itself touches neither the tensors nor the
group meanwhile, since the records behind the collective wait.

Whoever knows a meeting's port could speak to it: torch's store asks for no password. So
it listens where the worker does, and a group's entries stand under its secret.
"""

from __future__ import annotations

import contextlib
import queue
import socket
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, OperationFailed, PeerError
from xpool_protocol.group_records import (
    COLLECTIVES,
    Collective,
    DefineGroup,
    FreeGroup,
    OpenMeeting,
)
from xpool_protocol.messages import Fault, Reply
from xpool_protocol.values import Tensor

from xpool_server.calls import encoded
from xpool_server.devices.base import Backend
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.group_backends import made_backend
from xpool_server.peers import start_thread
from xpool_server.storages import Storages
from xpool_server.vouching import Vouching

Tensors = Sequence[torch.Tensor]

dist: Any = torch.distributed  # what it exports is not what its types say

_NO_REDUCTION: Final[Any] = dist.ReduceOp.SUM
_REDUCTIONS: Final[Sequence[Any]] = (
    dist.ReduceOp.SUM,
    dist.ReduceOp.AVG,
    dist.ReduceOp.PRODUCT,
    dist.ReduceOp.MIN,
    dist.ReduceOp.MAX,
    dist.ReduceOp.BAND,
    dist.ReduceOp.BOR,
    dist.ReduceOp.BXOR,
)
_AVG: Final = 1

MAX_SENDING: Final = 16
"""Sends of a group under way at once, each with a copy of what it sends."""

_STACK_NBYTES: Final = 8 << 20
"""Operations of torch run in that thread."""


class Task:
    """Something that another thread does for the loop."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self.is_over = False
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """In the other thread."""
        try:
            self.result = self._act()
        except Exception as error:  # noqa: BLE001  told by whoever waits for the task
            self.error = error
        self.is_over = True


class Group:
    """One process group, as long as all its ranks are in it."""

    def __init__(self, backend: Any, size: int) -> None:
        self.backend = backend
        self.size = size
        self.fault: Fault | None = None
        """Why it is over; the first one stays."""
        self.sending: deque[tuple[Any, torch.Tensor]] = deque()
        """Sends under way, with what they send."""

    def end(self, fault: Fault) -> None:
        """Leave, so that the other ranks learn of it at once."""
        self.fault = self.fault or fault
        backend, self.backend = self.backend, None
        if backend is not None:
            with contextlib.suppress(RuntimeError):  # it may be broken already
                backend.abort()
        del backend


class Groups:
    """The process groups of one session."""

    def __init__(
        self,
        backend: Backend,
        storages: Storages,
        failures: Failures,
        host: str,
        on_news: Callable[[], None],
        vouching: Vouching,
    ) -> None:
        """No groups yet.

        Args:
            backend: the device.
            storages: of the session.
            failures: of the session.
            host: where to listen for other workers.
            on_news: wakes the loop; called from another thread.
            vouching: for the places where workers meet.
        """
        self._backend = backend
        self._storages = storages
        self._failures = failures
        self._host = host
        self._vouching = vouching
        self._on_news = on_news
        self._groups: dict[int, Group] = {}
        self._meeting: Any = None
        self._port = 0
        self._task: Task | None = None
        self._tasks: queue.SimpleQueue[Task | None] | None = None

    # ---- records

    def open_meeting(self, record: OpenMeeting) -> Answers:
        """Open this worker's store, once, and tell where it is."""

        def run() -> Reply:
            if self._meeting is None:
                self._meeting, self._port = opened_store(self._host)
            place = f"{self._vouching.host}:{self._port}"
            return Reply(record.request, encoded(self._vouching.sealed(place)))

        return self._failures.answer(record.request, run)

    def define(self, record: DefineGroup) -> Answers | None:
        """Meet the other ranks; None: they are not all there yet."""
        if self._task is None:
            if record.group in self._groups or len(self._groups) >= limits.MAX_GROUPS:
                error = ArgumentInvalid(f"group {record.group} cannot be made")
                return self._failures.told(self._failures.fault(error))
            self._start(lambda: self._joined(record))
        task = self._finished()
        if task is None:
            return None
        group = Group(task.result, record.size)
        self._groups[record.group] = group
        if task.error is None:
            return NOTHING
        fault = self._failures.fault(_explained(task.error, "join its process group"))
        group.end(fault)
        return self._failures.told(fault)

    def collective(self, record: Collective) -> Answers | None:
        """Take part in a collective; None: it is not over."""
        group = self._groups.get(record.group)
        try:
            if self._task is None:
                self._begin(record, group)
            task = self._finished()
            if task is None:
                return None
            if task.error is not None:
                raise _explained(task.error, COLLECTIVES[record.what])
        except Poisoned as poisoned:
            self._fail(record, group, poisoned.fault)
            return NOTHING
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a library beneath may raise anything
            fault = self._failures.fault(error, f"c10d::{COLLECTIVES[record.what]}")
            self._fail(record, group, fault)
            return self._failures.told(fault)
        return NOTHING

    def free(self, record: FreeGroup) -> Answers:
        """Leave a group."""
        group = self._groups.pop(record.group, None)
        if group is not None:
            group.end(Fault(OperationFailed.code, "the process group was left"))
        if not self._groups and self._tasks is not None:
            self._tasks.put(None)
            self._tasks = None
        return NOTHING

    # ---- the other thread

    def _start(self, act: Callable[[], Any]) -> None:
        if self._tasks is None:
            tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
            self._tasks = tasks
            start_thread(lambda: self._work(tasks), "collectives", _STACK_NBYTES)
        self._task = Task(act)
        self._tasks.put(self._task)

    def _finished(self) -> Task | None:
        """The task if it is over; it is then no longer the current one."""
        task = self._task
        if task is None or not task.is_over:
            return None
        self._task = None
        return task

    def _work(self, tasks: queue.SimpleQueue[Task | None]) -> None:
        while (task := tasks.get()) is not None:
            task.run()
            self._on_news()

    def _joined(self, record: DefineGroup) -> Any:
        host, _, port = self._vouching.opened(record.address).rpartition(":")
        if not port.isdecimal():
            raise ArgumentInvalid(f"{record.address!r} is no place to meet")
        timeout = timedelta(milliseconds=record.timeout_ms)
        store = dist.TCPStore(
            host.strip("[]"), int(port), is_master=False, timeout=timeout
        )
        ours = dist.PrefixStore(record.secret, store)
        return made_backend(
            self._backend.kind, ours, record.rank, record.size, timeout, self._host
        )

    # ---- one collective

    def _begin(self, record: Collective, group: Group | None) -> None:
        if group is None:
            raise ArgumentInvalid(f"group {record.group} was never defined")
        if group.fault is not None:
            raise Poisoned(group.fault)
        inputs = [self._tensor(one) for one in record.inputs]
        outputs = [self._tensor(one) for one in record.outputs]
        self._backend.synchronize()
        self._start(lambda: carry_out(group, record, inputs, outputs))

    def _tensor(self, wire: Tensor) -> torch.Tensor:
        return self._storages.own_tensor(wire)

    def _fail(self, record: Collective, group: Group | None, fault: Fault) -> None:
        """Poison what would have been written; the group is over for all its ranks."""
        for output in record.outputs:
            if self._storages.is_live(output.storage):
                self._storages.poison(output.storage, fault)
        if group is not None:
            group.end(fault)


def opened_store(host: str) -> tuple[Any, int]:
    """A store for a group to meet at, and its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared only
    store = dist.TCPStore(
        here,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    return store, port


def _explained(error: Exception, what: str) -> Exception:
    """The library's text begins with where in its source it stood."""
    lines = str(error).splitlines() or [type(error).__name__]
    text = lines[0]
    _, found, rest = text.rpartition("] ")
    return OperationFailed(
        f"xpool: a device could not {what}: another rank has ended, failed or is too"
        f" late ({rest if found else text})"
    )


def carry_out(
    group: Group, record: Collective, inputs: Tensors, outputs: Tensors
) -> None:
    """Run a collective to its end; what it writes is in ``outputs``.

    A send goes on with a copy: two ranks may send to each other and receive then.
    """
    if COLLECTIVES[record.what] == "send":
        while len(group.sending) >= MAX_SENDING or (
            group.sending and group.sending[0][0].is_completed()
        ):
            group.sending.popleft()[0].wait()
        kept = inputs[0].clone(memory_format=torch.contiguous_format)
        work = group.backend.send([kept], record.root, record.tag)
        group.sending.append((work, kept))
        return
    # Libraries want rows of items. What is not laid out so is copied, and copied back.
    dense_in = [tensor.contiguous() for tensor in inputs]
    dense_out = [tensor.contiguous() for tensor in outputs]
    _run(group.backend, group.size, record, dense_in, dense_out)
    for tensor, dense in zip(outputs, dense_out, strict=True):
        if tensor.data_ptr() != dense.data_ptr():
            tensor.copy_(dense)


def _run(  # noqa: C901  one case per collective
    backend: Any,
    size: int,
    record: Collective,
    inputs: list[torch.Tensor],
    outputs: list[torch.Tensor],
) -> None:
    is_average = record.reduction == _AVG
    reduction = _NO_REDUCTION if is_average else _REDUCTIONS[record.reduction]
    match COLLECTIVES[record.what]:
        case "all_reduce":
            options = dist.AllreduceOptions()
            options.reduceOp = reduction
            for tensor in outputs:
                backend.allreduce([tensor], options).wait()
        case "broadcast":
            options = dist.BroadcastOptions()
            options.rootRank = record.root
            for tensor in outputs:
                backend.broadcast([tensor], options).wait()
        case "reduce":
            options = dist.ReduceOptions()
            options.reduceOp, options.rootRank = reduction, record.root
            backend.reduce(outputs, options).wait()
        case "all_gather":
            backend.allgather([outputs], inputs).wait()
        case "all_gather_into_tensor":
            backend._allgather_base(outputs[0], inputs[0]).wait()
        case "reduce_scatter":
            options = dist.ReduceScatterOptions()
            options.reduceOp = reduction
            backend.reduce_scatter(outputs, [inputs], options).wait()
        case "reduce_scatter_tensor":
            options = dist.ReduceScatterOptions()
            options.reduceOp = reduction
            backend._reduce_scatter_base(outputs[0], inputs[0], options).wait()
        case "gather":
            options = dist.GatherOptions()
            options.rootRank = record.root
            backend.gather([outputs] if outputs else [], inputs, options).wait()
        case "scatter":
            options = dist.ScatterOptions()
            options.rootRank = record.root
            backend.scatter(outputs, [inputs] if inputs else [], options).wait()
        case "all_to_all":
            backend.alltoall(outputs, inputs).wait()
        case "all_to_all_single":
            backend.alltoall_base(
                outputs[0],
                inputs[0],
                list(record.output_splits),
                list(record.input_splits),
            ).wait()
        case "recv":
            backend.recv(outputs, record.root, record.tag).wait()
    if is_average:
        for tensor in outputs:
            tensor.div_(size)
