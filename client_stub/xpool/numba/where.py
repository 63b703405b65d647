"""The device that Numba's kernels run on: the arrays' current one."""

from __future__ import annotations

import importlib

from xpool.cupy.device import ArrayDevice, device


def current() -> ArrayDevice:
    """The current device of the process's arrays, opened if that was not done yet."""
    importlib.import_module("cupy")
    where = device()
    return where.members[where.current_index()]


def is_cuda(where: ArrayDevice) -> bool:
    """Whether it runs CUDA kernels."""
    return where.session.welcome.device_kind == "cuda"


def architecture(where: ArrayDevice, what: str) -> tuple[int, int]:
    """Major and minor compute capability of a device.

    Raises:
        NotImplementedError: it runs no CUDA kernels.
    """
    if not is_cuda(where):
        raise NotImplementedError(
            f"{what} needs a CUDA device, and this slice's device is a"
            f" {where.session.welcome.device_kind}: run the program on a slice of a"
            " CUDA device"
        )
    properties = where.session.welcome.properties
    return int(properties.get("major", 0)), int(properties.get("minor", 0))
