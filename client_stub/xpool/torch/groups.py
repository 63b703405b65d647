"""``torch.distributed`` on remote devices: collectives that run among the servers.

Each rank is a process of its own with a device of the pool. A collective on tensors
there becomes one record in that device's log; the workers carry it out among
themselves, by gloo on CPUs and NCCL on GPUs. Nothing waits on this side: whatever
uses a result comes later in the log. If a rank is lost, what the collective would have
written is poisoned, and whoever reads it is told.

Collectives on host tensors go by torch's own gloo, as ever. The ranks' workers find one
another through the store of the program's own process group.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed
from xpool_protocol.errors import PeerError, PoolError
from xpool_protocol.group_records import COLLECTIVES
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader

from xpool.session import RemoteFault
from xpool.torch.remote import Remote

Tensors = Sequence[torch.Tensor]

dist: Any = torch.distributed  # what it exports is not what its types say

NAME: Final = "xpool"
NCCL_TIMEOUT: Final = timedelta(minutes=10)
"""What torch takes for NCCL where it has it."""

SERVED: Final = ("nccl", "gloo", "undefined")
"""Backends that programs name, and get this one for."""

_CODES: Final = {name: code for code, name in enumerate(COLLECTIVES)}
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
_numbers = itertools.count(1)
_remotes: list[Remote] = []


def _work(value: Any) -> Any:
    """A collective that is on its way: its results may be used at once."""
    core: Any = torch._C._distributed_c10d
    future: Any = torch.futures.Future()
    future.set_result(value)
    return core._create_work_from_future(future)


def _reduction(op: Any) -> int:
    for code, known in enumerate(_REDUCTIONS):
        if op == known:
            return code
    raise ValueError(f"xpool: a process group on remote devices cannot reduce by {op}")


def _is_remote(tensors: Tensors) -> bool:
    return any(tensor.device.type == "cuda" for tensor in tensors)


class RemoteProcessGroup(dist.ProcessGroup):  # type: ignore[misc]
    """One process group of this process; its device is that of the first tensor."""

    def __init__(
        self, store: Any, rank: int, size: int, timeout: timedelta | None
    ) -> None:
        """Join a group; every rank must do so.

        Args:
            store: the program's, under a prefix of this group's own.
            rank: of this process in the group.
            size: how many ranks there are.
            timeout: of each collective; None: torch's default.
        """
        super().__init__(rank, size)
        self._store = store
        self._timeout = timeout or dist.distributed_c10d.default_pg_timeout
        host_store = dist.PrefixStore("host/", store)
        self._host: Any = dist.ProcessGroupGloo(host_store, rank, size, self._timeout)
        self._device: int | None = None
        self._number = next(_numbers)

    # ---- what torch asks of a group

    supports_splitting = False

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu"), torch.device("cuda")]

    def _get_backend(self, device: torch.device) -> Any:
        return self

    def getBackendName(self) -> str:  # noqa: N802  torch's name
        """For people."""
        return NAME

    def _set_default_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout

    def _start_coalescing(self, device: Any) -> None:
        """Nothing to do: what is recorded is on its way."""

    def _end_coalescing(self, device: Any) -> Any:
        return _work([])

    def shutdown(self) -> None:
        """Leave; the other ranks' next collective fails."""
        if self._device is not None:
            device, self._device = self._device, None
            if not _remotes[device].session.is_over:
                torch.ops.xpool.free_group(device, self._number)

    def abort(self) -> None:
        """As ``shutdown``: nothing is under way on this side."""
        self.shutdown()

    # ---- collectives

    def allreduce(self, tensors: Any, opts: Any = None) -> Any:
        """Each tensor becomes the reduction of all ranks'."""
        opts = opts if opts is not None else dist.AllreduceOptions()
        if not _is_remote(tensors):
            return self._host.allreduce(tensors, opts)
        self._record("all_reduce", [], tensors, reduction=opts.reduceOp)
        return _work(list(tensors))

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> Any:
        """As ``allreduce``, several tensors at once."""
        if not _is_remote(tensors):
            return self._host.allreduce_coalesced(tensors, opts)
        return self.allreduce(tensors, opts)

    def broadcast(self, tensors: Any, opts: Any = None) -> Any:
        """Each tensor becomes the root's."""
        opts = opts if opts is not None else dist.BroadcastOptions()
        if not _is_remote(tensors):
            return self._host.broadcast(tensors, opts)
        self._record("broadcast", [], tensors, root=opts.rootRank)
        return _work(list(tensors))

    def reduce(self, tensors: Any, opts: Any) -> Any:
        """The root's tensor becomes the reduction of all ranks'."""
        if not _is_remote(tensors):
            return self._host.reduce(tensors, opts)
        self._record("reduce", [], tensors, reduction=opts.reduceOp, root=opts.rootRank)
        return _work(list(tensors))

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """``outputs[i]`` becomes rank i's input."""
        if not _is_remote(inputs):
            return self._host.allgather(outputs, inputs)
        for made, given in zip(outputs, inputs, strict=True):
            self._record("all_gather", [given], made)
        return _work(outputs)

    def allgather_coalesced(self, output_lists: Any, inputs: Any, opts: Any) -> Any:
        """``output_lists[i]`` becomes rank i's inputs."""
        if not _is_remote(inputs):
            return self._host.allgather_coalesced(output_lists, inputs, opts)
        for i, given in enumerate(inputs):
            self._record("all_gather", [given], [made[i] for made in output_lists])
        return _work(output_lists)

    def all_gather_single(self, output: Any, given: Any, opts: Any = None) -> Any:
        """The output becomes all ranks' inputs, one behind the other."""
        if not _is_remote([given]):
            return self._host._allgather_base(output, given)
        self._record("all_gather_into_tensor", [given], [output])
        return _work(output)

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(
        self, outputs: Any, inputs: Any, opts: Any = None
    ) -> Any:
        """As ``all_gather_single``, several at once."""
        for output, given in zip(outputs, inputs, strict=True):
            self.all_gather_single(output, given).wait()
        return _work(outputs)

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def reduce_scatter(self, outputs: Any, input_lists: Any, opts: Any = None) -> Any:
        """The output becomes the reduction of all ranks' inputs for this rank."""
        opts = opts if opts is not None else dist.ReduceScatterOptions()
        if not _is_remote(outputs):
            return self._host.reduce_scatter(outputs, input_lists, opts)
        for output, given in zip(outputs, input_lists, strict=True):
            self._record("reduce_scatter", given, [output], reduction=opts.reduceOp)
        return _work(outputs)

    def reduce_scatter_single(self, output: Any, given: Any, opts: Any = None) -> Any:
        """As ``reduce_scatter``, the inputs one behind the other."""
        opts = opts if opts is not None else dist.ReduceScatterOptions()
        if not _is_remote([given]):
            return self._host._reduce_scatter_base(output, given, opts)
        reduction = opts.reduceOp
        self._record("reduce_scatter_tensor", [given], [output], reduction=reduction)
        return _work(output)

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(
        self, outputs: Any, inputs: Any, opts: Any = None
    ) -> Any:
        """As ``reduce_scatter_single``, several at once."""
        for output, given in zip(outputs, inputs, strict=True):
            self.reduce_scatter_single(output, given, opts).wait()
        return _work(outputs)

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def gather(self, output_lists: Any, inputs: Any, opts: Any) -> Any:
        """The root gets every rank's input."""
        if not _is_remote(inputs):
            return self._host.gather(output_lists, inputs, opts)
        outputs = output_lists[0] if output_lists else []
        self._record("gather", inputs, outputs, root=opts.rootRank)
        return _work(output_lists)

    def scatter(self, outputs: Any, input_lists: Any, opts: Any) -> Any:
        """Every rank gets one of the root's inputs."""
        if not _is_remote(outputs):
            return self._host.scatter(outputs, input_lists, opts)
        given = input_lists[0] if input_lists else []
        self._record("scatter", given, outputs, root=opts.rootRank)
        return _work(outputs)

    def alltoall(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """``outputs[i]`` becomes rank i's input for this rank."""
        if not _is_remote(inputs):
            return self._host.alltoall(outputs, inputs, opts)
        self._record("all_to_all", inputs, outputs)
        return _work(outputs)

    def all_to_all_single(
        self,
        output: Any,
        given: Any,
        output_splits: Any,
        input_splits: Any,
        opts: Any = None,
    ) -> Any:
        """As ``alltoall``, the pieces one behind the other."""
        if not _is_remote([given]):
            return self._host.alltoall_base(output, given, output_splits, input_splits)
        self._record(
            "all_to_all_single",
            [given],
            [output],
            splits=(list(input_splits), list(output_splits)),
        )
        return _work(output)

    alltoall_base = all_to_all_single

    def send(self, tensors: Any, dst: int, tag: int) -> Any:
        """A tensor to another rank, which receives it."""
        if not _is_remote(tensors):
            return self._host.send(tensors, dst, tag)
        self._record("send", tensors, [], root=dst, tag=tag)
        return _work(list(tensors))

    def recv(self, tensors: Any, src: int, tag: int) -> Any:
        """A tensor that another rank sends."""
        if not _is_remote(tensors):
            return self._host.recv(tensors, src, tag)
        self._record("recv", [], tensors, root=src, tag=tag)
        return _work(list(tensors))

    def recv_anysource(self, tensors: Any, tag: int) -> Any:
        """A tensor from whoever sends first: for host tensors only.

        Raises:
            NotImplementedError: a remote tensor.
        """
        if not _is_remote(tensors):
            return self._host.recv_anysource(tensors, tag)
        raise NotImplementedError("xpool: recv on a remote device needs src")

    def barrier(self, opts: Any = None) -> Any:
        """Wait until every rank's device has come so far.

        Raises:
            RuntimeError: a rank is lost.
        """
        if self._device is not None:
            _remotes[self._device].synchronize()
        return self._host.barrier()

    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> Any:
        """As ``barrier``, naming the ranks that are missing."""
        waited = self._timeout if timeout is None else timeout
        return self._host.monitored_barrier(waited, wait_all_ranks)

    # ---- records

    def _record(
        self,
        what: str,
        inputs: Tensors,
        outputs: Tensors,
        *,
        reduction: Any = dist.ReduceOp.SUM,
        root: int = 0,
        tag: int = 0,
        splits: tuple[list[int], list[int]] = ([], []),
    ) -> None:
        tensors = [*inputs, *outputs]
        device = next(one.device.index for one in tensors if one.device.type == "cuda")
        if self._device is None:
            self._join(device)
        elif self._device != device:
            raise RuntimeError(
                f"xpool: this rank is in the process group with cuda:{self._device}; a"
                f" tensor on cuda:{device} cannot take part"
            )
        code = _reduction(reduction)
        with torch.no_grad():
            torch.ops.xpool.collective(
                inputs,
                outputs,
                *(device, self._number, _CODES[what], code, root, tag, *splits),
            )

    def _join(self, device: int) -> None:
        """Have this rank's worker meet the others': rank 0's says where."""
        if self.rank() == 0:
            try:
                place = f"{_meeting(_remotes[device])} {secrets.token_urlsafe(18)}"
            except (PoolError, RemoteFault) as error:
                self._store.set("meeting", f"! {error}")
                raise RuntimeError(f"xpool: {error}") from error
            self._store.set("meeting", place)
        else:
            place = self._store.get("meeting").decode()
        address, _, secret = place.partition(" ")
        if address == "!":
            raise RuntimeError(f"xpool: rank 0 has no process group: {secret}")
        timeout_ms = min(self._timeout // timedelta(milliseconds=1), 86_400_000)
        torch.ops.xpool.define_group(
            *(device, self._number, self.rank(), self.size()),
            *(address, secret, timeout_ms),
        )
        self._device = device


def _meeting(remote: Remote) -> str:
    """Where the worker of a device lets the workers of a group meet."""
    reply = remote.session.wait(remote.library.request("open_meeting"))
    place = read_value(Reader(reply.value))
    if not isinstance(place, str) or " " in place:
        raise PeerError("the place where a group is to meet is malformed")
    return place


def patch_distributed(remotes: list[Remote]) -> None:
    """Let ``init_process_group`` and ``new_group`` make groups of remote devices."""
    _remotes[:] = remotes
    core: Any = dist.distributed_c10d
    helper = core._new_process_group_helper

    def made(store: Any, rank: int, size: int, timeout: Any) -> RemoteProcessGroup:
        return RemoteProcessGroup(store, rank, size, timeout)

    def new_group(
        size: int, rank: int, ranks: Any, backend: Any, *args: Any, **named: Any
    ) -> Any:
        asked = core.Backend(str(backend))
        if not _serves(str(asked)):
            return helper(size, rank, ranks, backend, *args, **named)
        # Options and an eager connection are the library's beneath, on the servers.
        named.pop("device_id", None)
        named["backend_options"] = None
        ours = core.Backend(NAME)
        group, place = helper(size, rank, ranks, ours, *args, **named)
        if group is not core.GroupMember.NON_GROUP_MEMBER:
            # Programs ask for the name that they gave.
            _, kept = core._world.pg_map[group]
            core._world.pg_map[group] = (asked, kept)
            config = str(core.BackendConfig(asked))
            core._world.pg_backend_config[group] = config
        return group, place

    core.default_pg_nccl_timeout = NCCL_TIMEOUT
    core.Backend.register_backend(NAME, made, devices=["cpu", "cuda"])
    core._new_process_group_helper = new_group
    for module in (dist, core):
        module.is_nccl_available = lambda: True
    # Asked for in error reports; which library the servers have is their business.
    native: Any = torch._C
    native._nccl_version = lambda: 0
    native._nccl_version_suffix = lambda: b""


def _serves(backend: str) -> bool:
    """``nccl``, ``gloo``, ``cpu:gloo,cuda:nccl`` and the like."""
    return all(part.rpartition(":")[2] in SERVED for part in backend.split(","))
