"""A whole step as one graph: ``xpool.capture``.

Forward, backward and optimizer, with all that they write, are captured as a CUDA graph
(``cuda_graphs.py``) at the second call with inputs of a geometry, and are one record
from then on. What torch asks of a captured step holds here, too: Python runs once, so
numbers, branches and modes are those of the capture; nothing is read on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch.utils import _pytree as pytree

MAX_CAPTURES: Final = 16
"""Geometries of one step that are kept as graphs; others run by operation."""


class _Captured:
    """One step's graph, with the tensors that it reads and makes."""

    def __init__(self, step: Callable[..., Any], leaves: list[Any], spec: Any) -> None:
        self._inputs = [_own(leaf) for leaf in leaves]
        self._graph = torch.cuda.CUDAGraph()
        arguments, keywords = pytree.tree_unflatten(self._inputs, spec)
        try:
            with torch.cuda.graph(self._graph):
                self._outputs = step(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001  told with its first cause
            # The end of a capture that has failed raises once more, and says less.
            first = error.__context__ or error
            raise RuntimeError(
                f"xpool.capture: the step can't be captured: {first}"
            ) from first

    def __call__(self, leaves: list[Any]) -> Any:
        with torch.no_grad():
            for own, given in zip(self._inputs, leaves, strict=True):
                if isinstance(own, torch.Tensor):
                    own.copy_(given)
            self._graph.replay()
            # The next replay writes the graph's own ones.
            return pytree.tree_map_only(
                torch.Tensor, lambda one: one.detach().clone(), self._outputs
            )


def _own(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.detach().clone().requires_grad_(leaf.requires_grad)


class CapturedStep:
    """A callable that runs a step as a graph; see ``xpool.capture``."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self._step = step
        self._captured: dict[Any, _Captured | None] = {}
        """By geometry; None after the first call, which runs by operation."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the step.

        Raises:
            RuntimeError: it does what can't be captured.
        """
        leaves, spec = pytree.tree_flatten((arguments, keywords))
        key = _geometry(leaves, spec)
        if key not in self._captured:
            if len(self._captured) < MAX_CAPTURES:
                self._captured[key] = None
            # As later: copies have no gradients, and what this call has saved for its
            # own must be gone when the step is captured.
            return pytree.tree_map_only(
                torch.Tensor, torch.Tensor.detach, self._step(*arguments, **keywords)
            )
        captured = self._captured[key]
        if captured is None:
            captured = self._captured[key] = _Captured(self._step, leaves, spec)
        return captured(leaves)


def _geometry(leaves: list[Any], spec: Any) -> Any:
    """What a graph is good for.

    Raises:
        TypeError: an argument is neither a tensor on the device nor hashable.
    """
    described: list[Any] = []
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            hash(leaf)
            described.append((type(leaf), leaf))
            continue
        if not leaf.is_cuda:
            raise TypeError(
                "xpool.capture: a captured step takes tensors on the device; copy"
                f" this one, on {leaf.device}, before the call"
            )
        described.append(
            (leaf.device, leaf.dtype, leaf.shape, leaf.stride(), leaf.requires_grad)
        )
    modes = torch.is_grad_enabled(), torch.is_autocast_enabled("cuda")
    return (*described, *modes, str(spec))
