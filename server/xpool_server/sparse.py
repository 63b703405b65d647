"""Sparse tensors: put together from a client's parts, and taken apart for it.

Rule 1: torch's kernels trust indices, so every index is checked before one sees it,
each time: the client may have written to the parts since the last call. Rule 2: the
parts that a kernel gets are contiguous, whatever strides they came with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from xpool_protocol.errors import ArgumentInvalid
from xpool_protocol.values import (
    LAYOUT_COO,
    SparseTensor,
    Tensor,
    row_major_strides,
)

LAYOUTS: Final[dict[int, torch.layout]] = {
    0: torch.strided,
    LAYOUT_COO: torch.sparse_coo,
    2: torch.sparse_csr,
    4: torch.sparse_csc,
    5: torch.sparse_bsr,
    6: torch.sparse_bsc,
}
LAYOUT_CODES: Final = {layout: code for code, layout in LAYOUTS.items()}

_BY_ROW: Final = (torch.sparse_csr, torch.sparse_bsr)
_IN_BLOCKS: Final = (torch.sparse_bsr, torch.sparse_bsc)


def assembled(wire: SparseTensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sparse tensor that a client describes; its values share the client's.

    Raises:
        ArgumentInvalid: the parts are no sparse tensor of these sizes.
    """
    if any(part.flags for part in wire.parts):
        raise ArgumentInvalid(
            "a part of a sparse tensor can't be conjugated or negated"
        )
    parts = [part.contiguous() for part in parts]
    aten: Any = torch.ops.aten
    made: torch.Tensor
    if wire.layout == LAYOUT_COO:
        _check_coo(wire, *parts)
        made = aten._sparse_coo_tensor_unsafe(
            *parts, wire.sizes, is_coalesced=wire.is_coalesced
        )
    else:
        layout = LAYOUTS[wire.layout]
        _check_compressed(wire, layout, *parts)
        made = aten._sparse_compressed_tensor_unsafe(
            *(*parts, wire.sizes),
            dtype=parts[2].dtype,
            layout=layout,
            device=parts[2].device,
        )
    return made


def _check_coo(wire: SparseTensor, indices: torch.Tensor, values: torch.Tensor) -> None:
    sparse_dim = len(wire.sizes) - wire.dense_dim
    sizes = wire.sizes[:sparse_dim]
    if (
        values.dim() != 1 + wire.dense_dim
        or values.shape[1:] != wire.sizes[sparse_dim:]
    ):
        raise ArgumentInvalid(
            f"values of sizes {list(values.shape)} are not those of a sparse tensor of"
            f" sizes {list(wire.sizes)} with {wire.dense_dim} dense dimensions"
        )
    count = values.shape[0]
    if indices.dtype is not torch.int64 or indices.shape != (sparse_dim, count):
        raise ArgumentInvalid(
            f"indices must be int64 of sizes {[sparse_dim, count]}, not"
            f" {indices.dtype} of {list(indices.shape)}"
        )
    if count == 0:
        return
    if sparse_dim:
        ends = torch.tensor(sizes, device=indices.device).unsqueeze(1)
        _check_within(indices, ends)
    if wire.is_coalesced and count > 1:
        flat = torch.zeros(count, dtype=torch.int64, device=indices.device)
        for row, step in zip(indices, row_major_strides(sizes), strict=True):
            flat += row * step
        if not bool((flat[1:] > flat[:-1]).all()):
            raise ArgumentInvalid(
                "the tensor is said to be coalesced, and its indices are not sorted or"
                " not unique"
            )


def _check_compressed(
    wire: SparseTensor,
    layout: torch.layout,
    compressed: torch.Tensor,
    plain: torch.Tensor,
    values: torch.Tensor,
) -> None:
    batch = len(wire.sizes) - 2 - wire.dense_dim
    block_dim = 2 if layout in _IN_BLOCKS else 0
    if batch < 0 or values.dim() != batch + 1 + block_dim + wire.dense_dim:
        raise ArgumentInvalid(
            f"values of {values.dim()} dimensions are not those of a {layout} tensor of"
            f" {len(wire.sizes)} dimensions, {wire.dense_dim} of them dense"
        )
    block = tuple(values.shape[batch + 1 : batch + 3]) if block_dim else (1, 1)
    rows, columns = wire.sizes[batch : batch + 2]
    if 0 in block or rows % block[0] or columns % block[1]:
        raise ArgumentInvalid(
            f"{rows} by {columns} items can't be cut into blocks {block}"
        )
    extents = (rows // block[0], columns // block[1])
    lines, line_nitems = extents if layout in _BY_ROW else extents[::-1]
    count = values.shape[batch]
    sizes = wire.sizes[:batch]
    dense = wire.sizes[batch + 2 :]
    if compressed.dtype is not plain.dtype or plain.dtype not in (
        torch.int32,
        torch.int64,
    ):
        raise ArgumentInvalid(
            f"indices must both be int32 or int64, not {compressed.dtype} and"
            f" {plain.dtype}"
        )
    expected = {
        "compressed indices": (compressed, (*sizes, lines + 1)),
        "plain indices": (plain, (*sizes, count)),
        "values": (values, (*sizes, count, *block[: block_dim or 0], *dense)),
    }
    for name, (part, shape) in expected.items():
        if part.shape != shape:
            raise ArgumentInvalid(
                f"{name} must have sizes {list(shape)}, not {list(part.shape)}"
            )
    if compressed.numel():
        _check_ascending(compressed, count)
    if plain.numel():
        _check_within(plain, line_nitems)


def _check_within(indices: torch.Tensor, ends: torch.Tensor | int) -> None:
    if bool(((indices < 0) | (indices >= ends)).any()):
        raise ArgumentInvalid("an index of a sparse tensor lies outside its dimension")


def _check_ascending(compressed: torch.Tensor, count: int) -> None:
    is_wrong = (compressed[..., 0] != 0) | (compressed[..., -1] != count)
    falls = (compressed[..., 1:] < compressed[..., :-1]).any()
    if bool(is_wrong.any() | falls):
        raise ArgumentInvalid(
            f"compressed indices must ascend from 0 to the {count} items that there are"
        )


def taken_apart(
    tensor: torch.Tensor, described: Callable[[torch.Tensor], Tensor]
) -> SparseTensor:
    """How a sparse tensor is described on the wire, its parts by ``described``."""
    parts: tuple[torch.Tensor, ...]
    if tensor.layout is torch.sparse_coo:
        parts = (tensor._indices(), tensor._values())
        is_coalesced = tensor.is_coalesced()
    else:
        by_row = tensor.layout in _BY_ROW
        parts = (
            tensor.crow_indices() if by_row else tensor.ccol_indices(),
            tensor.col_indices() if by_row else tensor.row_indices(),
            tensor.values(),
        )
        is_coalesced = False
    return SparseTensor(
        LAYOUT_CODES[tensor.layout],
        tuple(tensor.shape),
        tensor.dense_dim(),
        tuple(described(part.resolve_conj().resolve_neg()) for part in parts),
        is_coalesced,
    )


def _mm_reduce_backward(
    self: torch.Tensor,
    grad_out: torch.Tensor,
    weight: torch.Tensor,
    reduce: str,
    arg_out: torch.Tensor,
    output_mask: list[bool],
) -> Any:
    """``_sparse_mm_reduce_impl_backward``, whose kernel trusts sizes and ``arg_out``.

    ``arg_out`` holds, for each item of the product, which item of ``self`` was the
    largest or least, and their count where a row has none. torch's forward makes it
    only where it knows of a gradient, which is not here: the client makes it.
    """
    if self.layout is not torch.sparse_csr or self.dim() != 2 or weight.dim() != 2:
        raise ArgumentInvalid("a product with a CSR matrix is of two matrices")
    shape = (self.shape[0], weight.shape[1])
    if weight.shape[0] != self.shape[1] or grad_out.shape != shape:
        raise ArgumentInvalid(
            f"sizes {list(grad_out.shape)} are not those of a product of"
            f" {list(self.shape)} and {list(weight.shape)}"
        )
    if not self.dtype is weight.dtype is grad_out.dtype:
        raise ArgumentInvalid("the gradient of a product has the dtype of its factors")
    if reduce in ("amax", "amin") or arg_out.numel():
        if arg_out.shape != shape or arg_out.dtype is not torch.int64:
            raise ArgumentInvalid(f"arg_out must be int64 of sizes {list(shape)}")
        if arg_out.numel():
            _check_within(arg_out, self.values().shape[0] + 1)
    aten: Any = torch.ops.aten
    return aten._sparse_mm_reduce_impl_backward(
        self,
        grad_out.contiguous(),
        weight.contiguous(),
        reduce,
        arg_out.contiguous(),
        output_mask,
    )


GUARDED: Final[dict[str, Callable[..., Any]]] = {
    "aten::_sparse_mm_reduce_impl_backward": _mm_reduce_backward,
}
"""Operations that check here what their kernels do not."""
