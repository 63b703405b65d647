"""What torch's composites choose by device type alone, in other words.

On a device that is no CPU torch picks kernels that only GPUs have. A server whose
device lacks them gets the same mathematics by way of common operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from xpool.torch.python_device import PythonDevice

Gradient = torch.Tensor | None


class Cells:
    """LSTM and GRU cells, softmax with a conversion, CTC's choice of a library."""

    def __init__(self, device: PythonDevice) -> None:
        self._device = device

    def own(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Names and kernels of all that is implemented here."""
        yield from {
            "_thnn_fused_lstm_cell": self._otherwise(
                "_thnn_fused_lstm_cell", lstm_cell
            ),
            "_thnn_fused_lstm_cell_backward_impl": self._otherwise(
                "_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward
            ),
            "_thnn_fused_gru_cell": self._otherwise("_thnn_fused_gru_cell", gru_cell),
            "_thnn_fused_gru_cell_backward": self._otherwise(
                "_thnn_fused_gru_cell_backward", gru_cell_backward
            ),
            "_use_cudnn_ctc_loss": self._otherwise("_use_cudnn_ctc_loss", refused),
            "_use_cudnn_ctc_loss.Tensor": self._otherwise(
                "_use_cudnn_ctc_loss.Tensor", refused
            ),
        }.items()
        for name in ("_softmax", "_log_softmax"):
            yield name, self._softmax(name)
            backward = f"{name}_backward_data"
            yield backward, self._softmax_backward(backward)

    def _sender(self, name: str) -> Callable[..., Any]:
        base, _, overload = name.partition(".")
        packet = getattr(torch.ops.aten, base)
        operation = self._device.operation_of(getattr(packet, overload or "default"))
        device = self._device
        return lambda *args, **kwargs: device.dispatch(operation, args, kwargs)

    def _otherwise(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The kernel, if the server's device lacks the operation."""
        is_lacking = self._device.lacking.has_no(f"aten::{name}")
        return kernel if is_lacking else self._sender(name)

    def _softmax(self, name: str) -> Callable[..., Any]:
        """Of a half tensor into float32: GPUs convert inside, a CPU refuses."""
        send = self._sender(name)
        wants_plain = self._device.lacking.wants_plain(f"aten::{name}")

        def softmax(tensor: torch.Tensor, dim: int, half_to_float: bool) -> Any:
            if half_to_float and wants_plain:
                return send(tensor.float(), dim, False)
            return send(tensor, dim, half_to_float)

        return softmax

    def _softmax_backward(self, name: str) -> Callable[..., Any]:
        send = self._sender(name)
        wants_plain = self._device.lacking.wants_plain(f"aten::{name}")

        def softmax_backward(
            gradient: torch.Tensor,
            output: torch.Tensor,
            dim: int,
            input_dtype: torch.dtype,
        ) -> Any:
            if input_dtype != gradient.dtype and wants_plain:
                return send(gradient, output, dim, gradient.dtype).to(input_dtype)
            return send(gradient, output, dim, input_dtype)

        return softmax_backward


def refused(*_: Any, **__: Any) -> bool:
    """``_use_cudnn_ctc_loss`` where there is no such library."""
    return False


def _joined(gates: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(gates), 1)


def lstm_cell(
    inputs: torch.Tensor,
    hidden: torch.Tensor,
    cx: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``_thnn_fused_lstm_cell``: hy, cy and the gates for the way back."""
    gates = inputs + hidden
    for bias in (input_bias, hidden_bias):
        gates = gates if bias is None else gates + bias
    in_, forget, cell, out = gates.chunk(4, 1)
    in_, forget, cell, out = (
        in_.sigmoid(),
        forget.sigmoid(),
        cell.tanh(),
        out.sigmoid(),
    )
    cy = forget * cx + in_ * cell
    return out * cy.tanh(), cy, _joined([in_, forget, cell, out])


def lstm_cell_backward(
    grad_hy: Gradient,
    grad_cy: Gradient,
    cx: torch.Tensor,
    cy: torch.Tensor,
    workspace: torch.Tensor,
    has_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, Gradient]:
    """``_thnn_fused_lstm_cell_backward_impl``."""
    in_, forget, cell, out = workspace.chunk(4, 1)
    grad_hy = torch.zeros_like(cx) if grad_hy is None else grad_hy
    grad_cy = torch.zeros_like(cx) if grad_cy is None else grad_cy
    squashed = cy.tanh()
    grad_cy = grad_hy * out * (1 - squashed * squashed) + grad_cy
    gates = _joined(
        [
            grad_cy * cell * in_ * (1 - in_),
            grad_cy * cx * forget * (1 - forget),
            grad_cy * in_ * (1 - cell * cell),
            grad_hy * squashed * out * (1 - out),
        ]
    )
    return gates, grad_cy * forget, gates.sum(0) if has_bias else None


def gru_cell(
    inputs: torch.Tensor,
    hidden: torch.Tensor,
    hx: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``_thnn_fused_gru_cell``: hy and what the way back needs."""
    inputs = inputs if input_bias is None else inputs + input_bias
    hidden = hidden if hidden_bias is None else hidden + hidden_bias
    reset_i, update_i, new_i = inputs.chunk(3, 1)
    reset_h, update_h, new_h = hidden.chunk(3, 1)
    reset, update = (reset_i + reset_h).sigmoid(), (update_i + update_h).sigmoid()
    fresh = (new_i + reset * new_h).tanh()
    saved = _joined([reset, update, fresh, hx, new_h])
    return fresh + update * (hx - fresh), saved


def gru_cell_backward(
    grad: torch.Tensor, workspace: torch.Tensor, has_bias: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Gradient, Gradient]:
    """``_thnn_fused_gru_cell_backward``."""
    reset, update, fresh, hx, new_h = workspace.chunk(5, 1)
    grad_update = grad * (hx - fresh) * update * (1 - update)
    grad_in = grad * (1 - update) * (1 - fresh * fresh)
    grad_reset = grad_in * new_h * reset * (1 - reset)
    inputs = _joined([grad_reset, grad_update, grad_in])
    hidden = _joined([grad_reset, grad_update, grad_in * reset])
    return (
        inputs,
        hidden,
        grad * update,
        inputs.sum(0) if has_bias else None,
        hidden.sum(0) if has_bias else None,
    )
