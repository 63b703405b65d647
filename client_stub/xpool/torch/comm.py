"""What ``torch.nn.parallel`` asks of torch's C++ that only a CUDA build has.

``nn.DataParallel`` moves parameters and batches by these functions. Each is made of
ordinary copies between devices, which go from server to server. Tensors come back in
the order of ``devices``, a tensor that lies there already as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch._utils

Tensors = Sequence[torch.Tensor]

_utils: Any = torch._utils


def _device(index: int | None) -> torch.device:
    if index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu") if index < 0 else torch.device("cuda", index)


def broadcast(tensor: torch.Tensor, devices: Sequence[int]) -> list[torch.Tensor]:
    """``torch._C._broadcast``: the tensor on each device."""
    return [tensor.to(_device(index)) for index in devices]


def broadcast_out(tensor: torch.Tensor, outs: Tensors) -> list[torch.Tensor]:
    """``torch._C._broadcast_out``: fills each of ``outs``.

    Raises:
        RuntimeError: one has another shape.
    """
    for out in outs:
        if out.shape != tensor.shape:
            raise RuntimeError(
                "Expected all output tensors to have same shape as the source"
                f" {list(tensor.shape)}, but got {list(out.shape)}"
            )
        out.copy_(tensor, non_blocking=True)
    return list(outs)


def broadcast_coalesced(
    tensors: Tensors, devices: Sequence[int], buffer_size: int
) -> list[list[torch.Tensor]]:
    """``torch._C._broadcast_coalesced``: all tensors on each device, few copies.

    Args:
        tensors: dense, on ``devices[0]``.
        devices: indexes.
        buffer_size: bytes that one copy moves at most, unless a tensor is larger.

    Raises:
        RuntimeError: a tensor lies elsewhere.
    """
    if any(tensor.device != _device(devices[0]) for tensor in tensors):
        raise RuntimeError("all tensors must be on devices[0]")
    results: list[list[Any]] = [list(tensors)]
    results += [[None] * len(tensors) for _ in devices[1:]]
    for bucket in _buckets(tensors, buffer_size):
        chunk = [tensors[i] for i in bucket]
        flat = _utils._flatten_dense_tensors(chunk)
        for result, index in zip(results[1:], devices[1:], strict=True):
            copies = _utils._unflatten_dense_tensors(flat.to(_device(index)), chunk)
            for i, copy in zip(bucket, copies, strict=True):
                # Its own version: one that changes in place does not spoil the others.
                result[i] = copy.data
    return results


def _buckets(tensors: Tensors, buffer_size: int) -> Iterator[list[int]]:
    """Positions of tensors of one dtype that are together small enough."""
    by_dtype: dict[torch.dtype, list[int]] = {}
    for i, tensor in enumerate(tensors):
        by_dtype.setdefault(tensor.dtype, []).append(i)
    for positions in by_dtype.values():
        bucket: list[int] = []
        nbytes = 0
        for i in positions:
            size = tensors[i].numel() * tensors[i].element_size()
            if bucket and nbytes + size > buffer_size:
                yield bucket
                bucket, nbytes = [], 0
            bucket.append(i)
            nbytes += size
        if bucket:
            yield bucket


def scatter(
    tensor: torch.Tensor,
    devices: Sequence[int],
    chunk_sizes: Sequence[int] | None = None,
    dim: int = 0,
    streams: Any = None,
) -> tuple[torch.Tensor, ...]:
    """``torch._C._scatter``: a piece of the tensor on each device."""
    if chunk_sizes is None:
        pieces: Tensors = tensor.chunk(len(devices), dim)
    else:
        pieces = torch.split(tensor, list(chunk_sizes), dim)
    return tuple(
        piece.to(_device(index), non_blocking=True)
        for piece, index in zip(pieces, devices, strict=False)
    )


def scatter_out(
    tensor: torch.Tensor, outs: Tensors, dim: int = 0, streams: Any = None
) -> tuple[torch.Tensor, ...]:
    """``torch._C._scatter_out``: fills ``outs`` with pieces of their sizes."""
    pieces = torch.split(tensor, [out.size(dim) for out in outs], dim)
    for piece, out in zip(pieces, outs, strict=True):
        out.copy_(piece, non_blocking=True)
    return tuple(outs)


def gather(
    tensors: Tensors, dim: int = 0, destination: int | None = None
) -> torch.Tensor:
    """``torch._C._gather``: the pieces as one, on a device, or -1: on the host."""
    where = _device(destination)
    return torch.cat([tensor.to(where) for tensor in tensors], dim)


def gather_out(tensors: Tensors, out: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """``torch._C._gather_out``: the pieces in ``out``.

    Raises:
        RuntimeError: they do not fill it.
    """
    ends = itertools.accumulate(tensor.size(dim) for tensor in tensors)
    if list(ends)[-1] != out.size(dim):
        raise RuntimeError(f"the pieces do not make up dimension {dim} of the output")
    at = 0
    for tensor in tensors:
        out.narrow(dim, at, tensor.size(dim)).copy_(tensor)
        at += tensor.size(dim)
    return out


def patch_comm() -> None:
    """Put the functions where ``torch.nn.parallel.comm`` looks for them."""
    core: Any = torch._C
    core._broadcast, core._broadcast_out = broadcast, broadcast_out
    core._broadcast_coalesced = broadcast_coalesced
    core._scatter, core._scatter_out = scatter, scatter_out
    core._gather, core._gather_out = gather, gather_out
    # reduce_add sums by copies where it is not there; asking would warn each time.
    nccl: Any = torch.cuda.nccl
    nccl.is_available = lambda tensors: False
