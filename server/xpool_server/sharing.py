"""What keeps the slices of a node's CUDA devices apart while the node runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from xpool_protocol.errors import UsageError

from xpool_server.arbiter.policies import PolicyName
from xpool_server.devices.mps import CudaSharing, MpsControl
from xpool_server.node import NodeOptions


@contextmanager
def shared(options: NodeOptions, sharing: CudaSharing) -> Iterator[NodeOptions]:
    """What the node is to run with, for as long as the block lasts.

    With MPS jobs run at the same time, so that nobody takes turns any more.

    Raises:
        UsageError: MPS is not here, or a device is not NVIDIA's.
        PoolError: its daemon did not start.
    """
    if sharing is CudaSharing.TIME:
        yield options
        return
    others = {one.kind for one in options.devices if one.kind != "cuda"}
    if others:
        raise UsageError(
            f"--cuda-sharing mps shares CUDA devices, and {', '.join(sorted(others))}"
            " is offered: name what is meant, for instance --devices cuda"
        )
    with MpsControl() as control:
        yield replace(options, arbiter=PolicyName.NULL, mps_pipe=control.pipe)
