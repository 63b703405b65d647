"""``torch.autocast("xpool")``: torch's own lists, for a key that has none.

The lists and policies are those of ATen/autocast_mode.h, which every in-tree device
uses. Unlike there, weights that were cast are not kept until the context ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

import torch
from torch._C import DispatchKey, DispatchKeySet

KEY: Final = "AutocastPrivateUse1"

LOWER_PRECISION: Final = (
    "_convolution.deprecated",
    "_convolution",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "convolution",
    "prelu",
    "addmm",
    "addmv",
    "addr",
    "matmul",
    "einsum",
    "mm",
    "mv",
    "linalg_vecdot",
    "linear",
    "addbmm",
    "baddbmm",
    "bmm",
    "chain_matmul",
    "linalg_multi_dot",
    "_thnn_fused_lstm_cell",
    "_thnn_fused_gru_cell",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
    "_scaled_dot_product_flash_attention",
    "scaled_dot_product_attention",
)

FLOAT32: Final = (
    "acos",
    "asin",
    "cosh",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log2",
    "log1p",
    "reciprocal",
    "rsqrt",
    "sinh",
    "tan",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
    "pow.Scalar",
    "softplus",
    "layer_norm",
    "native_layer_norm",
    "rms_norm",
    "group_norm",
    "frobenius_norm.dim",
    "nuclear_norm",
    "nuclear_norm.dim",
    "cosine_similarity",
    "poisson_nll_loss",
    "cosine_embedding_loss",
    "nll_loss",
    "nll_loss2d",
    "hinge_embedding_loss",
    "kl_div",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "mse_loss",
    "margin_ranking_loss",
    "multilabel_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "multi_margin_loss",
    "binary_cross_entropy_with_logits",
    "dist",
    "pdist",
    "cdist",
    "renorm",
    "logsumexp",
    "upsample_nearest1d",
    "_upsample_nearest_exact1d",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "_upsample_bicubic2d_aa",
)

FLOAT32_UNLESS_DTYPE: Final = (
    "prod",
    "prod.dim_int",
    "softmax.int",
    "log_softmax.int",
    "cumprod",
    "cumsum",
    "linalg_vector_norm",
    "linalg_matrix_norm",
    "linalg_matrix_norm.str_ord",
    "sum",
    "sum.dim_IntList",
)

WITH_DTYPE: Final = {
    "norm.Scalar": "norm.ScalarOpt_dtype",
    "norm.ScalarOpt_dim": "norm.ScalarOpt_dim_dtype",
}
"""Overloads without a dtype, and where they go with one."""

PROMOTED: Final = (
    "addcdiv",
    "addcmul",
    "atan2",
    "bilinear",
    "cross",
    "dot",
    "vdot",
    "grid_sampler",
    "index_put",
    "tensordot",
    "scatter_add",
)

Kernel = Callable[..., Any]
_AUTOCAST: Any = DispatchKey.AutocastPrivateUse1  # type: ignore[attr-defined]


def register_autocast(
    device_type: str, overload_named: Callable[[str], Any]
) -> list[torch.library.Library]:
    """Give the key its lists; they live as long as what is returned."""
    library: Any = torch.library.Library
    boxed = library("_", "IMPL")
    boxed.fallback(torch.library.fallthrough_kernel, KEY)
    aten = library("aten", "IMPL")
    casts = _Casts(device_type)
    for names, policy in (
        (LOWER_PRECISION, casts.lower_precision),
        (FLOAT32, casts.float32),
        (FLOAT32_UNLESS_DTYPE, casts.float32_unless_dtype),
        (PROMOTED, casts.promoted),
    ):
        for name in names:
            aten.impl(name, policy(overload_named(name)), KEY)
    for name, target in WITH_DTYPE.items():
        aten.impl(name, casts.with_dtype(overload_named(target)), KEY)
    aten.impl("binary_cross_entropy", _refuse_binary_cross_entropy, KEY)
    return [boxed, aten]


class _Casts:
    """The policies: each makes a kernel that casts and calls on."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._without = DispatchKeySet(_AUTOCAST)

    def lower_precision(self, op: Kernel) -> Kernel:
        """All in the context's dtype."""
        return self._casting(op, lambda _: self._lower())

    def float32(self, op: Kernel) -> Kernel:
        """All in float32."""
        return self._casting(op, lambda _: torch.float32)

    def promoted(self, op: Kernel) -> Kernel:
        """All in the widest dtype among the arguments."""

        def widest(args: Sequence[Any]) -> torch.dtype:
            eligible = (one.dtype for one in _flat(args) if self._is_eligible(one))
            return torch.float32 if torch.float32 in eligible else self._lower()

        return self._casting(op, widest)

    def float32_unless_dtype(self, op: Any) -> Kernel:
        """A result in float32, unless the call names a dtype."""
        names = [argument.name for argument in op._schema.arguments]
        position = names.index("dtype")

        def kernel(*args: Any, **kwargs: Any) -> Any:
            given = args[position] if len(args) > position else kwargs.get("dtype")
            with torch._C._ExcludeDispatchKeyGuard(self._without):
                if given is not None or not self._is_eligible(args[0]):
                    return op(*args, **kwargs)
                return op(*args[:position], **{**kwargs, "dtype": torch.float32})

        return kernel

    def with_dtype(self, op: Kernel) -> Kernel:
        """The overload that takes a dtype, told float32."""
        keepdim_at = 3

        def kernel(
            tensor: torch.Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False
        ) -> Any:
            dtype = torch.float32 if self._is_eligible(tensor) else tensor.dtype
            args = (tensor, p, dim, keepdim)[: 2 if dim is None else keepdim_at + 1]
            with torch._C._ExcludeDispatchKeyGuard(self._without):
                return op(*args, dtype=dtype)

        return kernel

    def _casting(
        self, op: Kernel, choose: Callable[[Sequence[Any]], torch.dtype]
    ) -> Kernel:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            dtype = choose((*args, *kwargs.values()))
            with torch._C._ExcludeDispatchKeyGuard(self._without):
                return op(
                    *(self._cast(one, dtype) for one in args),
                    **{name: self._cast(one, dtype) for name, one in kwargs.items()},
                )

        return kernel

    def _lower(self) -> torch.dtype:
        return torch.get_autocast_dtype(self._device_type)

    def _is_eligible(self, value: Any) -> bool:
        return (
            isinstance(value, torch.Tensor)
            and value.is_floating_point()
            and value.dtype is not torch.float64
            and value.device.type == self._device_type
        )

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._cast(one, dtype) for one in value]
        return value.to(dtype) if self._is_eligible(value) else value


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _refuse_binary_cross_entropy(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(
        "torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to"
        " autocast: use binary_cross_entropy_with_logits or BCEWithLogitsLoss, which"
        " are safe"
    )
