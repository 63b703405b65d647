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


def lacking(backend: Backend) -> tuple[str, ...]:
    """Operations, and ``OPERATION?ARGUMENT`` where only a plain argument is taken.

    What a client may not call anyhow is not among them.
    """
    unknown = _without_kernel(backend.dispatch_keys)
    return (*unknown, *backend.plain_arguments)[: limits.MAX_LACKING]


@cache
def _without_kernel(keys: tuple[str, ...]) -> tuple[str, ...]:
    has_kernel = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    return tuple(
        name
        for name in sorted(known_names())
        if refusal(name) is None and not any(has_kernel(name, key) for key in keys)
    )
