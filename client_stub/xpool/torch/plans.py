"""Where the geometry of a call's new results comes from: plans, kept by key.

A plan is made by the operation's meta kernel at the first call of a geometry, or
learned from what the server answered. Meta kernels take up to half a millisecond, so
they never run for a geometry that is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from xpool.torch.operation import Operation, is_number

MAX_PLANS: Final = 200_000
"""Beyond it all are forgotten: a program that never repeats a geometry."""


class Leaf(NamedTuple):
    """Geometry of one new tensor, row 0 of its own storage."""

    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


Prediction: TypeAlias = Leaf | list["Leaf | None"] | None
"""One return: a tensor, an undefined one, or a list of them. None also stands for a
return that is one of the arguments."""

Plan: TypeAlias = tuple[Prediction, ...]


class Plans:
    """All plans of a session, with counters."""

    def __init__(self) -> None:
        self.hits = self.misses = self.requests = 0
        self._plans: dict[tuple[Hashable, ...], Plan] = {}

    def find(self, key: tuple[Hashable, ...]) -> Plan | None:
        """The plan of a geometry seen before."""
        plan = self._plans.get(key)
        if plan is None:
            self.misses += 1
        else:
            self.hits += 1
        return plan

    def remember(self, key: tuple[Hashable, ...], plan: Plan) -> None:
        """Keep a plan."""
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = plan

    def forget(self) -> None:
        """Drop all plans."""
        self._plans.clear()

    def counters(self) -> dict[str, int]:
        """How results' shapes were found: from a plan, by inference, by asking."""
        return {"hits": self.hits, "misses": self.misses, "requests": self.requests}


def _leaf(tensor: torch.Tensor | None) -> Leaf | None:
    if tensor is None:
        return None
    return Leaf(tensor.dtype, tuple(tensor.shape), tensor.stride())


def plan_from(operation: Operation, results: Sequence[Any]) -> Plan | None:
    """Geometry of the new results; None if some result is no tensor."""
    plan: list[Prediction] = []
    for argument, result in zip(operation.return_to_argument, results, strict=True):
        if argument is not None or result is None:
            plan.append(None)
        elif isinstance(result, torch.Tensor):
            plan.append(_leaf(result))
        elif isinstance(result, (list, tuple)):
            plan.append([_leaf(one) for one in result])
        else:
            return None
    return tuple(plan)


def results_of(operation: Operation, returned: Any) -> Sequence[Any]:
    """What a torch function returned, as one item per return of the schema."""
    count = len(operation.return_to_argument)
    if count == 1:
        return (returned,)
    return returned if count else ()


def meta_of(value: Any) -> Any:
    """An argument as shape inference wants it: no bytes, nobody's storage."""
    if isinstance(value, torch.Tensor):
        return _meta_tensor(value)
    if type(value) in (list, tuple):
        return [meta_of(one) for one in value]
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, torch.Generator):
        return None
    return value


def _meta_tensor(tensor: torch.Tensor) -> torch.Tensor:
    meta = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
    )
    if tensor.is_conj():
        meta = torch._conj(meta)
    return torch._neg_view(meta) if tensor.is_neg() else meta


def _number_like(number: Any, values: Sequence[Any]) -> torch.Tensor:
    """A number in a tensor's place: of the dtype that it has beside the tensors."""
    tensors = [one for one in values if isinstance(one, torch.Tensor)]
    widest = max(tensors, key=lambda one: one.dim(), default=torch.empty(0))
    dtype = torch.result_type(_meta_tensor(widest), number)
    return torch.empty((), dtype=dtype, device="meta")


def run_meta(operation: Operation, values: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Run an operation on meta tensors: what it returned, and its arguments.

    Raises:
        Exception: there is no meta kernel, or it refuses these arguments.
    """
    metas = [meta_of(value) for value in values]
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for value, meta, parameter in zip(values, metas, operation.parameters, strict=True):
        wanted = meta
        if not operation.takes_numbers and parameter.is_tensor and is_number(value):
            wanted = _number_like(value, values)
        if not parameter.is_keyword_only:
            positional.append(wanted)
        elif value is not parameter.default:
            keywords[parameter.name] = wanted
    if operation.takes_device:
        keywords["device"] = torch.device("meta")
    # A torch.device used as a context would send Python meta kernels elsewhere.
    with torch._C.DisableTorchFunction():
        return operation.function(*positional, **keywords), metas
