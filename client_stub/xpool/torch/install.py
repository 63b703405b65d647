"""Puts the remote device under ``torch`` in this process: two steps around its import.

``load_library`` must come before ``import torch``; ``install`` after the lease is
here. Between the two the process imports torch while a thread gets the lease and opens
the session.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from xpool_protocol.errors import PoolError, UsageError

from xpool.lease_pipe import LeaseOver
from xpool.native import build, cuda_build
from xpool.native.library import NativeLibrary
from xpool.session import Reached, reach_all
from xpool.torch.leaving import Leaving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xpool.lease_pipe import Later, LeasePipe
    from xpool.torch.remote import Remote


def load_library() -> NativeLibrary | None:
    """Load the native library, building it the first time.

    None where the pure-Python device is to be used: ``XPOOL_DEVICE=python`` asks for
    it, or there is neither a built library nor a compiler.

    Raises:
        UsageError: no torch, torch is imported already, or an unknown XPOOL_DEVICE.
        BuildFailed: the compiler refused.
    """
    chosen = os.environ.get("XPOOL_DEVICE") or "native"
    if chosen not in ("native", "python"):
        raise UsageError(f"XPOOL_DEVICE is {chosen!r}: write native or python")
    if chosen == "python":
        return None
    path = build.built_library()
    if path is None and build.compiler() is None:
        print(  # noqa: T201  the program would otherwise wonder where cuda is
            "xpool: no C++ compiler was found, so device 'cuda' is not available and"
            " device 'xpool' is: apt-get install g++",
            file=sys.stderr,
            flush=True,
        )
        return None
    if path is None:
        print(  # noqa: T201  progress: this takes half a minute, once
            "xpool: building the native library for this torch, once…",
            file=sys.stderr,
            flush=True,
        )
        path = build.build()
    torch_folder = build.torch_folder()
    version = cuda_build.cuda_version(torch_folder)
    if version is None:
        return NativeLibrary(path, torch_folder)
    stand_in = cuda_build.StandIn(cuda_build.build_stand_in(), version)
    return NativeLibrary(path, torch_folder, stand_in)


def install(library: NativeLibrary, reached: Sequence[Reached]) -> list[Remote]:
    """Make torch's ``cuda`` devices the leased slices.

    Args:
        library: loaded, before torch was imported.
        reached: ``reached[i]`` becomes ``cuda:i``.
    """
    library.register()
    devices = [library.device(i) for i in range(len(reached))]
    for device, one in zip(devices, reached, strict=True):
        device.attach(one.begin(device))
    library.connect(devices)

    from xpool.torch.remote import Remote

    remotes = [Remote(device.session, device, device.index) for device in devices]
    patch_torch(library, remotes)
    return remotes


def patch_torch(library: NativeLibrary, remotes: list[Remote]) -> None:
    """Make torch's Python side tell of the remote devices; ``remotes[i]`` is cuda:i."""
    import torch

    from xpool.torch.comm import patch_comm
    from xpool.torch.compiling import patch_compile
    from xpool.torch.cuda import patch_torch_cuda
    from xpool.torch.prefetch import patch_pinning
    from xpool.torch.storage_methods import (
        patch_storage_methods,
        patch_untyped_storage,
    )

    patch_torch_cuda(remotes)
    patch_storage_methods("cuda")
    patch_untyped_storage(library)
    patch_compile()
    patch_comm()
    patch_pinning(remotes)
    if torch.distributed.is_available():
        from xpool.torch.groups import patch_distributed

        patch_distributed(remotes)
    from xpool.triton.install import install_triton

    install_triton(remotes)
    if library.is_cuda_build:
        from xpool.torch.cuda_build import patch_cuda_build

        patch_cuda_build(library)


class Reaching:
    """The leases' workers, reached by a thread while torch is imported.

    Importing takes a second or two, the dialogue some round trips: whoever stands far
    away waits for the longer of the two and not for both.
    """

    def __init__(self, pipe: LeasePipe) -> None:
        self._reached: list[Reached] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(pipe,), name="xpool-opening", daemon=True
        )
        self._thread.start()

    def _run(self, pipe: LeasePipe) -> None:
        framework = f"torch {build.torch_version(build.torch_folder())}"
        try:
            leases = pipe.latest(pipe.wait_for_leases(None))
            self._reached = reach_all(leases, framework)
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            self._error = error

    def result(self) -> list[Reached]:
        """Wait for it.

        Raises:
            PoolError: no lease, or a worker can't be reached.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._reached


def install_leased(
    library: NativeLibrary | None,
    pipe: LeasePipe,
    let_go: Callable[[], None] | None = None,
) -> list[Remote]:
    """``install``, or its Python twin, for as long as a keeper's leases live.

    A session ends with its lease; with the interpreter, in good order.

    Args:
        library: what ``load_library`` returned.
        pipe: to the keeper.
        let_go: called at the interpreter's end, while the device still works.

    Raises:
        PoolError: no lease, or a session can't be opened.
    """
    leaving = Leaving()
    reaching = Reaching(pipe)
    import torch  # noqa: F401  takes a second, and the sessions open meanwhile

    reached = reaching.result()
    if library is not None:
        remotes = install(library, reached)
    else:
        from xpool.torch.python_install import install_python

        if len(reached) > 1:
            raise UsageError(
                "the pure-Python device is one device: leave out --devices, or use"
                " device 'cuda'"
            )
        remotes = [install_python(reached[0])]
    by_lease = {remote.session.lease.lease_id: remote for remote in remotes}

    def later(what: Later) -> None:
        if isinstance(what, PoolError):
            for remote in remotes:
                remote.session.link.end_with(what)
        elif isinstance(what, LeaseOver) and what.lease_id in by_lease:
            by_lease[what.lease_id].session.link.end_with(what.error)

    pipe.watch(later)
    leaving.remotes, leaving.let_go = remotes, let_go
    leaving.on_statistics = pipe.send_statistics if pipe.wants_statistics else None
    return remotes
