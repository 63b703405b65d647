"""The layouts that a compiled graph was traced with, kept where a server's differ.

AOTAutograd traces with kernels that model CUDA. A server of another kind may lay a
result out otherwise, which eager code sees and a traced graph does not: it holds views
and assumptions of the layouts of its tracing.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node


def keep_layouts(module: GraphModule) -> None:
    """Copy results into the order of dimensions that was traced, where they differ."""
    for node in list(module.graph.nodes):
        order = _order(node) if _makes_a_tensor(node) else None
        if order is None:
            continue
        with module.graph.inserting_after(node):
            laid_out = module.graph.call_function(ordered, (node, order))
        laid_out.meta = dict(node.meta)
        node.replace_all_uses_with(laid_out, lambda user, own=laid_out: user is not own)
    module.recompile()


def ordered(tensor: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The tensor, or a copy, dense with its dimensions in this order, widest first."""
    sizes, strides = tensor.shape, tensor.stride()
    wanted, step = [0] * len(order), 1
    is_as_wanted = True
    for dimension in reversed(order):
        wanted[dimension] = step
        size = sizes[dimension]
        if size > 1 and strides[dimension] != step:
            is_as_wanted = False
        step *= max(size, 1)
    if is_as_wanted or tensor.numel() == 0:
        return tensor
    copy = torch.empty_strided(sizes, wanted, dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)


def _makes_a_tensor(node: Node) -> bool:
    """Whether a node is a new result: no view, no argument that was written."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        maker = node.args[0]
        return getattr(maker, "op", "") == "call_function" and _makes_anew(maker)
    return _makes_anew(node)


def _makes_anew(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and all(one.alias_info is None for one in schema.returns)


def _order(node: Node) -> tuple[int, ...] | None:
    """Dimensions of what a node gives, widest stride first; None if it is not dense."""
    traced = node.meta.get("val")
    if not isinstance(traced, torch.Tensor) or traced.device.type != "cuda":
        return None
    if traced.layout is not torch.strided or traced.dim() < 2:
        return None
    sizes = [_hint(one) for one in traced.shape]
    strides = [_hint(one) for one in traced.stride()]
    if None in sizes or None in strides:
        return None
    order = sorted(range(traced.dim()), key=lambda at: -int(strides[at] or 0))
    step = 1
    for dimension in reversed(order):
        size = int(sizes[dimension] or 0)
        if size > 1 and strides[dimension] != step:
            return None
        step *= max(size, 1)
    return tuple(order)


def _hint(number: Any) -> int | None:
    """An integer, or what a symbolic one was when the graph was traced."""
    if isinstance(number, torch.SymInt):
        hint = number.node.hint
        return None if hint is None else int(hint)
    return int(number)
