"""Which operations a client may call: ATen's, by exact name, less those listed here.

What is listed reads files, trusts raw pointers or sizes, changes the process rather
than a tensor, changes a storage's size or identity behind the ledger, or makes
tensors that are no strided view of one storage. A wrong prediction or a slow
operation is not listed: those harm nobody but the session itself.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch

NAMESPACE: Final = "aten::"

_STORAGE: Final = "changes a storage behind the session's ledger"
_PROCESS: Final = "changes the server's process, not a tensor"
_AUTOGRAD: Final = "belongs to autograd, which runs on the client"
_POINTER: Final = "trusts addresses or sizes inside a tensor's bytes"
_PARTS: Final = "trusts the indices of a sparse tensor"
_LAYOUT: Final = "makes or takes tensors that are not strided"
_TEST: Final = "is one of torch's own test operations"

DENIED: Final[dict[str, str]] = {
    "from_file": "reads a file of the server",
    "set_": _STORAGE,
    "set": _STORAGE,
    "set_data": _STORAGE,
    "resize_": _STORAGE,
    "resize": _STORAGE,
    "resize_as_": _STORAGE,
    "resize_as": _STORAGE,
    "_resize_output_": _STORAGE,
    "_resize_output": _STORAGE,
    "_copy_from_and_resize": _STORAGE,
    "_lazy_clone": "shares a storage's bytes until they are written",
    "record_stream": _STORAGE,
    "pin_memory": "takes pinned memory of the server's host",
    "_pin_memory": "takes pinned memory of the server's host",
    "_reshape_alias": "does not check sizes and strides against the storage",
    "_reshape_alias_copy": "does not check sizes and strides against the storage",
    "_cufft_set_plan_cache_max_size": _PROCESS,
    "_cufft_get_plan_cache_max_size": _PROCESS,
    "_cufft_get_plan_cache_size": _PROCESS,
    "_cufft_clear_plan_cache": _PROCESS,
    "_print": "writes to the server's own output",
    "_foobar": _TEST,
    "get_gradients": _AUTOGRAD,
    "_backward": _AUTOGRAD,
    "data": _AUTOGRAD,
    "requires_grad_": _AUTOGRAD,
    "retain_grad": _AUTOGRAD,
    "retains_grad": _AUTOGRAD,
    "is_leaf": _AUTOGRAD,
    "output_nr": _AUTOGRAD,
    "_version": _AUTOGRAD,
    "_fw_primal": _AUTOGRAD,
    "_fw_primal_copy": _AUTOGRAD,
    "_make_dual": _AUTOGRAD,
    "_make_dual_copy": _AUTOGRAD,
    "_unpack_dual": _AUTOGRAD,
    "_add_batch_dim": "belongs to vmap, which runs on the client",
    "_remove_batch_dim": "belongs to vmap, which runs on the client",
    "_propagate_xla_data": _PROCESS,
    "to_mkldnn": _LAYOUT,
    "_mkldnn_reshape": _LAYOUT,
    "_mkldnn_transpose": _LAYOUT,
    "_mkldnn_transpose_": _LAYOUT,
    "_wrapped_linear_prepack": _POINTER,
    "_wrapped_quantized_linear_prepacked": _POINTER,
    "_make_per_tensor_quantized_tensor": _LAYOUT,
    "_make_per_channel_quantized_tensor": _LAYOUT,
    "_empty_affine_quantized": _LAYOUT,
    "_empty_per_channel_affine_quantized": _LAYOUT,
    "empty_quantized": _LAYOUT,
    # Sparse tensors are made of parts by the client's SPARSE values alone, which are
    # checked; these trust the parts, or indices inside strided tensors.
    "sparse_resize": _PARTS,
    "sparse_resize_": _PARTS,
    "sparse_resize_and_clear": _PARTS,
    "sparse_resize_and_clear_": _PARTS,
    "_coalesced": _PARTS,
    "_coalesced_": _PARTS,
    "_sparse_coo_tensor_unsafe": _PARTS,
    "_sparse_coo_tensor_with_dims_and_tensors": _PARTS,
    "_sparse_compressed_tensor_unsafe": _PARTS,
    "_sparse_csr_tensor_unsafe": _PARTS,
    "_sparse_csc_tensor_unsafe": _PARTS,
    "_sparse_bsr_tensor_unsafe": _PARTS,
    "_sparse_bsc_tensor_unsafe": _PARTS,
    "_convert_indices_from_coo_to_csr": _PARTS,
    "_convert_indices_from_csr_to_coo": _PARTS,
    "_validate_compressed_sparse_indices": _PARTS,
    "nested_to_padded_tensor": _LAYOUT,
}
"""Base name, without namespace and overload, and why it is denied."""

DENIED_PREFIXES: Final[dict[str, str]] = {
    # These cast the bytes of a packed weight to a C++ object.
    "fbgemm_": _POINTER,
    "quantized_": _POINTER,
    "quantize_per_": _LAYOUT,
    "mkldnn_reorder_": _LAYOUT,
    # Nested tensors read their sizes and offsets from buffers without checking them.
    "_nested_": _POINTER,
    "_sparse_semi_structured_": _POINTER,
    "_to_sparse_semi_structured": _POINTER,
    "_cslt_": _POINTER,
    "_test_": _TEST,
}

REPLACED: Final = {
    # Its result has no storage, only the promise of zeros.
    "aten::_efficientzerotensor": "aten::zeros",
    "aten::_efficientzerotensor.out": "aten::zeros.out",
}


@cache
def known_names() -> frozenset[str]:
    """Every ATen operation this torch dispatches, ``aten::add.Tensor`` and so on.

    Names that only torch's scripting runtime knows (``aten::save``, for instance)
    are not among them.
    """
    names = torch._C._dispatch_get_all_op_names()
    return frozenset(name for name in names if name.startswith(NAMESPACE))


def refusal(name: str) -> str | None:
    """Why a client may not call an operation; None if it may."""
    if name not in known_names():
        return f"this server's torch {torch.__version__} has no operation {name!r}"
    base = name.removeprefix(NAMESPACE).partition(".")[0]
    reason = DENIED.get(base) or next(
        (why for prefix, why in DENIED_PREFIXES.items() if base.startswith(prefix)),
        None,
    )
    return reason and f"operation {name} is not allowed here: it {reason}"
