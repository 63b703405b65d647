"""Attention on the pure-Python device takes the fused kernel that a CPU server has.

The native device's ``native/attention.cpp`` does the same, and more: it asks a CUDA
server which of its kernels to take. Here such a server gets the unfused operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch._C import DispatchKey

if TYPE_CHECKING:
    from xpool.torch.python_device import PythonDevice

KEYS: Final = ("PrivateUse1", "AutogradPrivateUse1")
FLASH: Final = "aten::_scaled_dot_product_flash_attention_for_cpu"
_FLASH_ATTENTION: Final = 1
"""torch's number for it among the backends of attention."""

_aten: Any = torch.ops.aten


def register_attention(device: PythonDevice) -> torch.library.Library:
    """Take attention for the device; the registration lives as long as the result."""
    composite = _aten.scaled_dot_product_attention.default._op_dk
    rules = _aten._fused_sdp_choice.default._op_dk
    has_kernel = device.session.welcome.device_kind == "cpu"
    has_kernel = has_kernel and not device.lacking.has_no(FLASH)

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """``scaled_dot_product_attention``."""
        given = (query, key, value, attn_mask, dropout_p, is_causal)
        named = {"scale": scale, "enable_gqa": enable_gqa}
        # The rules for a CPU look at no bytes, so they may be asked of these tensors.
        if (
            has_kernel
            and _is_sound(query, key, value, attn_mask, is_causal)
            and rules(DispatchKey.CPU, *given, **named) == _FLASH_ATTENTION
        ):
            return _aten._scaled_dot_product_flash_attention_for_cpu(
                *(query, key, value, dropout_p, is_causal),
                attn_mask=_added(attn_mask, query),
                scale=scale,
            )[0]
        return composite(DispatchKey.CompositeImplicitAutograd, *given, **named)

    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for dispatch_key in KEYS:
        library.impl("scaled_dot_product_attention", attention, dispatch_key)
    return library  # type: ignore[no-any-return]


def _is_sound(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    is_causal: bool,
) -> bool:
    """Whether torch's composite, which has the words for it, refuses nothing."""
    masks = (torch.bool, torch.float32, query.dtype)
    return (
        (mask is None or (mask.dtype in masks and not is_causal))
        and query.dim() >= 2
        and all(
            one.dtype is query.dtype
            and one.device == query.device
            and one.dim() >= 2
            and not one.is_nested
            for one in (query, key, value)
        )
    )


def _added(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """A mask as what is added to the scores."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    allowed, denied = (
        torch.scalar_tensor(value, dtype=query.dtype, device=query.device)
        for value in (0.0, float("-inf"))
    )
    return torch.where(mask, allowed, denied)
