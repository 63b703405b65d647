"""``torch.compile`` on a remote device: compiled regions are graphs on the server.

Dynamo finds the regions and AOTAutograd makes functional graphs of ATen operations of
them, forward and backward, as for every backend. Here such a graph is run once with
its operations captured (``native/regions.cpp``), and then is one record a call. What
can't be captured runs operation by operation, as without ``torch.compile``.

Inductor, torch's own default, compiles for a device of this machine. Its name, and
those of its modes, lead here when a region has tensors on a remote device.
"""

from __future__ import annotations

import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from xpool.torch import captures
from xpool.torch.layouts import keep_layouts

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

FREE_CAPTURES: Final = 8
"""Geometries of one region that are captured when they are first seen; later ones
when they are seen again, for they may be as many as there are batches."""

MAX_SEEN: Final = 256
MAX_FAILURES: Final = 2
"""Captures of one region that may fail before it is left alone."""

_NAMESPACES: Final = frozenset({"aten", "prims"})
_RESHAPING: Final = frozenset({"set_", "resize_", "resize_as_", "resize_storage_bytes"})


class Region:
    """One functional graph, captured for each geometry of its inputs."""

    def __init__(self, module: GraphModule, device: int | None) -> None:
        self._boxed_call = True
        """AOTAutograd: call it with one list, which may be emptied."""

        self._module = module
        self._device = device
        """The one device that the graph uses; None if it can't be captured."""
        kinds = [_kind(node) for node in module.graph.nodes if node.op == "placeholder"]
        self._tensors = [at for at, kind in enumerate(kinds) if kind != "number"]
        self._numbers = [at for at, kind in enumerate(kinds) if kind == "number"]
        self._scalars = [at for at, kind in enumerate(kinds) if kind == "scalar"]
        """Tensors on the host without dimensions: sent with each run."""

        self._templates: dict[Any, list[Any]] = {}
        """Outputs that are no tensors, by the numbers and shapes of the inputs."""
        self._has_numbers_out = not all(map(_is_tensor, _outputs(module)))
        self._captures = self._failures = 0
        self._seen: OrderedDict[Any, None] = OrderedDict()
        self._number = 0
        self._run: Any = None
        if device is not None:
            self._run = captures.operations().region_run.default
            self._number = captures.operations().region_new()
            end = weakref.finalize(
                self, captures.operations().region_free, self._number
            )
            end.atexit = False

    def __call__(self, arguments: list[Any]) -> Sequence[Any]:
        """Run on these inputs; the list is emptied."""
        inputs = list(arguments)
        arguments.clear()
        if self._device is None or captures.is_capturing(self._device):
            return self._by_operation(inputs)
        for at in self._scalars:
            inputs[at] = inputs[at].to(torch.device("cuda", self._device))
        tensors, numbers = self._split(inputs)
        found, outputs = self._run(self._number, self._device, tensors, numbers)
        if not found and self._capture(inputs, tensors, numbers):
            found, outputs = self._run(self._number, self._device, tensors, numbers)
        if not found:
            return self._by_operation(inputs)
        return self._assembled(outputs, tensors, numbers)

    def _split(self, inputs: list[Any]) -> tuple[list[Any], list[int]]:
        if not self._numbers:
            return inputs, []
        return (
            [inputs[at] for at in self._tensors],
            [int(inputs[at]) for at in self._numbers],
        )

    def _by_operation(self, inputs: list[Any]) -> Sequence[Any]:
        outputs: Sequence[Any] = self._module(*inputs)
        return outputs

    def _capture(
        self, inputs: list[Any], tensors: list[Any], numbers: list[int]
    ) -> bool:
        if self._failures >= MAX_FAILURES or not self._is_worth(tensors, numbers):
            return False
        own = captures.operations()
        if not own.region_begin(self._device, tensors, numbers):
            return False
        try:
            outputs = list(self._module(*inputs))
            own.region_finish(
                self._number,
                tensors,
                numbers,
                [one for one in outputs if isinstance(one, torch.Tensor)],
            )
        except Exception:  # noqa: BLE001  whatever it is: by operation it shows again
            self._failures += 1
            return False
        finally:
            own.region_abort()
        if self._has_numbers_out:
            self._templates[_geometry(tensors, numbers)] = [
                None if isinstance(one, torch.Tensor) else (one,) for one in outputs
            ]
        self._captures += 1
        return True

    def _is_worth(self, tensors: list[Any], numbers: list[int]) -> bool:
        if len(self._templates) >= MAX_SEEN:
            return False
        if self._captures < FREE_CAPTURES:
            return True
        geometry = _geometry(tensors, numbers)
        if geometry in self._seen:
            return True
        self._seen[geometry] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return False

    def _assembled(
        self, outputs: list[Any], tensors: list[Any], numbers: list[int]
    ) -> list[Any]:
        if not self._has_numbers_out:
            return outputs
        rest = iter(outputs)
        template = self._templates[_geometry(tensors, numbers)]
        return [next(rest) if kept is None else kept[0] for kept in template]


def _geometry(tensors: list[Any], numbers: list[int]) -> Any:
    return (*numbers, *(tuple(one.shape) for one in tensors))


def _is_tensor(output: Any) -> bool:
    return isinstance(_value(output), torch.Tensor)


def _value(node: Any) -> Any:
    meta = getattr(node, "meta", {})
    return meta.get("val")


def _outputs(module: GraphModule) -> Sequence[Any]:
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    outputs = output.args[0]
    return outputs if isinstance(outputs, list | tuple) else (outputs,)


def _kind(node: Node) -> str:
    """What an input is: a tensor, a scalar on the host, an integer, or another."""
    value = _value(node)
    if isinstance(value, torch.Tensor):
        if value.device.type == "cuda":
            return "tensor"
        return "scalar" if value.dim() == 0 else "other"
    return "number" if isinstance(value, torch.SymInt | int) else "other"


def device_of(module: GraphModule) -> int | None:
    """The one remote device of a graph; None if the graph can't be captured.

    It can't if an input on the host has dimensions, is written or has results there; if
    it has operations that are not ATen's; if it draws random numbers on the host; or if
    it changes its inputs' storages.
    """
    scalars = {
        node
        for node in module.graph.nodes
        if node.op == "placeholder" and _kind(node) == "scalar"
    }
    if scalars and not all(map(_is_remote_or_none, _outputs(module))):
        return None
    devices: set[int | None] = set()
    for node in module.graph.nodes:
        value = _value(node)
        if node.op == "placeholder" and _kind(node) == "other":
            return None
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, torch.Tensor):
                if one.device.type == "cuda":
                    devices.add(one.device.index or 0)
                elif _is_random(node):
                    return None
        if node.op == "call_function" and not _is_plain(node.target):
            return None
        if node.op in ("call_module", "call_method") or _writes(node, scalars):
            return None
    return devices.pop() if len(devices) == 1 else None


def _is_plain(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.partition("::")[2]
        return target.namespace in _NAMESPACES and name not in _RESHAPING
    module = getattr(target, "__module__", "")
    return module in (operator.__name__, "_operator", "math", "torch") and callable(
        target
    )


def _is_remote_or_none(output: Any) -> bool:
    value = _value(output)
    return not isinstance(value, torch.Tensor) or value.device.type == "cuda"


def _writes(node: Node, scalars: set[Node]) -> bool:
    """Whether a call writes one of these inputs."""
    schema = getattr(node.target, "_schema", None)
    if not scalars or schema is None or not schema.is_mutable:
        return False
    return any(one in scalars for one in node.all_input_nodes)


def _is_random(node: Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def compile_graph(module: GraphModule, inputs: Sequence[Any], **_: Any) -> Any:
    """The backend that Dynamo calls: a region with some tensor on a remote device."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import default_partition

    def compile_region(region: GraphModule, _: Sequence[Any]) -> Region:
        device = device_of(region)
        keep_layouts(region)
        return Region(region, device)

    # The partition is eager's: what backward needs is kept, not computed again, for
    # computing it again would only pay if operations were fused.
    return aot_autograd(
        fw_compiler=compile_region,
        bw_compiler=compile_region,
        inference_compiler=compile_region,
        partition_fn=default_partition,
        keep_inference_input_mutations=True,
    )(module, inputs)


def is_remote(module: GraphModule, inputs: Sequence[Any], device_type: str) -> bool:
    """Whether a region that Dynamo found has a tensor on the remote device."""
    found = [one for one in inputs if isinstance(one, torch.Tensor)]
    for node in module.graph.nodes:
        value = node.meta.get("example_value")
        found += [
            one
            for one in (value if isinstance(value, list | tuple) else (value,))
            if isinstance(one, torch.Tensor)
        ]
    return any(one.device.type == device_type for one in found)


def patch_compile(device_type: str = "cuda") -> None:
    """Lead ``torch.compile`` here for regions on the remote device."""
    base: Any = torch._TorchCompileInductorWrapper
    named: Any = torch._TorchCompileWrapper
    host_call, host_config = base.__call__, base.get_compiler_config
    host_init = named.__init__

    def call(self: Any, model_: Any, inputs_: Any, **options: Any) -> Any:
        if is_remote(model_, inputs_, device_type):
            return compile_graph(model_, inputs_)
        return host_call(self, model_, inputs_, **options)

    def get_compiler_config(self: Any) -> Any:
        # Only asked for to be shown; the original imports all of Inductor.
        return dict(self.config) if type(self) is base else host_config(self)

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        _register(device_type)
        host_init(self, *arguments, **options)

    base.__call__, base.get_compiler_config = call, get_compiler_config
    named.__init__ = init


REPLACED: Final = ("cudagraphs", "aot_eager")
"""Torch's own backends that would not do for a remote region: the first captures on a
device of this machine, the second takes the server's layouts for those it traced."""


def _register(device_type: str) -> None:
    """Backends by name: ``xpool``, and those of ``REPLACED`` for remote regions."""
    from torch._dynamo.backends import registry

    registry._lazy_import()
    if "xpool" in registry._COMPILER_FNS:
        return
    for name in REPLACED:
        chosen = _chosen(registry.lookup_backend(name), device_type)
        # Named anew, not registered: this one takes the place of torch's own.
        registry._COMPILER_FNS[name] = registry.register_backend(
            chosen, name=f"xpool_{name}"
        )
    registry.register_backend(compile_graph, name="xpool")


def _chosen(host: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """A backend that is ours for remote regions and torch's for others."""

    def backend(module: Any, inputs: Any, **options: Any) -> Any:
        chosen = compile_graph if is_remote(module, inputs, device_type) else host
        return chosen(module, inputs, **options)

    return backend
