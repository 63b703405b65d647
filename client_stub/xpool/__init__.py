"""Run AI jobs, unchanged, on accelerators that stand elsewhere.

A program needs nothing from here: ``xpool run train.py`` is all. In a notebook, or a
program that is started by something else, call ``xpool.init()`` before torch is
imported; from then on ``device="cuda"`` is a slice of the pool.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from xpool_protocol.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.torch.remote import Remote

__all__ = ["capture", "current_remote", "current_remotes", "init"]

Step = TypeVar("Step", bound="Callable[..., Any]")

_remotes: list[Remote] = []


def init(
    *,
    registry: str | None = None,
    slice: str | None = None,  # noqa: A002  the flag's name, which users know
    memory: str | None = None,
    devices: int | None = None,
    mode: str | None = None,
    priority: str | None = None,
    queue: str | None = None,
    time_limit: str | None = None,
    require: str | None = None,
) -> None:
    """Lease slices and make them this process's CUDA devices.

    A keeper process holds the leases; it is released when this process ends. Calling
    again while the session lives does nothing.

    Args:
        registry: ``HOST:PORT``; as for every argument, None means: from the
            environment (``XPOOL_REGISTRY``), ``xpool.toml``, or the default.
        slice: share of a device's compute, ``"30%"``.
        memory: quota, ``"8GiB"``.
        devices: how many devices, each with such a slice.
        mode: ``"elastic"`` or ``"capped"``.
        priority: ``"high"``, ``"normal"`` or ``"low"``.
        queue: how long to wait for a device: ``"10m"``, ``"forever"`` or ``"no"``.
        time_limit: the session is ended after so long: ``"2h"``.
        require: which devices will do: ``"model=a100,memory=40GiB"``.

    Raises:
        UsageError: torch is imported already, or a value makes no sense.
        PoolError: no registry, no capacity, or no server.
    """
    if _remotes:
        ends = [remote.session.link.over for remote in _remotes]
        over = next((end for end in ends if end is not None), None)
        if over is None:
            return
        raise UsageError(f"the session is over ({over}); start the process again")
    from xpool.config import job_settings
    from xpool.cupy import alone
    from xpool.cupy.alone import install_leased_alone
    from xpool.cupy.install import install_beside_torch
    from xpool.keeper import start_keeper
    from xpool.torch.install import install_leased, load_library

    flags = {
        "registry": registry,
        "slice": slice,
        "memory": memory,
        "devices": None if devices is None else str(devices),
        "mode": mode,
        "priority": priority,
        "queue": queue,
        "time_limit": time_limit,
        "require": require,
    }
    settings = job_settings(flags, os.environ, Path.cwd())
    if alone.is_wanted():
        remember(install_leased_alone(start_keeper(settings)))
        return
    library = load_library()
    remember(install_leased(library, start_keeper(settings)))
    install_beside_torch(_remotes)


def capture(step: Step) -> Step:
    """Make a whole training step one message: forward, backward and optimizer.

    The first call with inputs of a geometry runs as always, the second one captures
    the step as a CUDA graph, and from then on a call is one record and a copy of each
    input. As in ``torch.cuda.graph`` Python does not run again: numbers, such as a
    learning rate that is no tensor, stay what they were, and the step must not read
    anything on the host. Results are copies
    without gradients.

    Args:
        step: takes tensors on the device, and values that are hashable.

    Returns:
        The same as a callable; ``step`` itself where torch's ``cuda`` is not remote.
    """
    from xpool.native.device import NativeDevice

    if not _remotes or not isinstance(_remotes[0].library, NativeDevice):
        return step
    from xpool.torch.whole_steps import CapturedStep

    return cast("Step", CapturedStep(step))


def current_remote() -> Remote:
    """The first remote device of this process: session, link, statistics.

    Raises:
        UsageError: none is open; start with ``xpool run`` or ``xpool.init()``.
    """
    if not _remotes:
        raise UsageError(
            "no remote device is open here: start the program with `xpool run`,"
            " or call xpool.init() before torch is imported"
        )
    return _remotes[0]


def current_remotes() -> list[Remote]:
    """All remote devices of this process, ``cuda:0`` first; empty if none is open."""
    return list(_remotes)


def remember(remotes: list[Remote]) -> None:
    """Make devices the process's own; called by whoever opened them."""
    _remotes[:] = remotes
