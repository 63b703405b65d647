"""What a device has no kernel for, told to the client when a session opens.

torch's composites choose kernels by the type of the client's device, and so may choose
one that the server's device lacks. A client that knows puts the call in other words.
"""

from __future__ import annotations

from functools import cache

import torch
from xpool_protocol import limits

from xpool_server.allowed import known_names, refusal
from xpool_server.devices.base import Backend
from xpool_server.devices.cpu import CpuBackend


def lacking(backend: Backend) -> tuple[str, ...]:
    """Operations, and ``OPERATION?ARGUMENT`` where only a plain argument is taken.

    What a client may not call anyhow is not among them.
    """
    unknown = _without_kernel(backend.dispatch_keys)
    key = backend.dispatch_keys[0]
    of_fallback = (
        one
        for one in CpuBackend.plain_arguments
        if is_on_cpu(one.partition("?")[0], key)
    )
    plain = (*backend.plain_arguments, *of_fallback)
    return (*unknown, *plain)[: limits.MAX_LACKING]


@cache
def _without_kernel(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        name
        for name in sorted(known_names())
        if refusal(name) is None and not any(_can_run(name, key) for key in keys)
    )


def _can_run(name: str, key: str) -> bool:
    """Whether there is a kernel; a fallback has those that the CPU has, and no more."""
    has_kernel = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    return has_kernel(name, key) and (
        not is_on_cpu(name, key) or has_kernel(name, "CPU")
    )


def is_on_cpu(name: str, key: str) -> bool:
    """Whether a device leaves an operation to its fallback, which computes on the CPU.

    Vendors' extensions have one for what they have no kernel for.
    """
    return has_fallback(key) and not (
        torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    )


@cache
def has_fallback(key: str) -> bool:
    """Whether a device computes on the CPU what it has no kernel for."""
    return torch._C._dispatch_has_backend_fallback(torch._C._dispatch_key_parse(key))
