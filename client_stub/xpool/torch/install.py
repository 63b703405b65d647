"""Puts the remote device under ``torch`` in this process: two steps around its import.

``load_library`` must come before ``import torch``; ``install`` after the lease is
here. Between the two the process can import torch while the lease is on its way.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from xpool_protocol.errors import PoolError

from xpool.native import build
from xpool.native.library import NativeLibrary
from xpool.session import RemoteFault, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.lease_pipe import Later, Lease, LeasePipe
    from xpool.torch.remote import Remote


def load_library() -> NativeLibrary:
    """Load the native library, building it the first time.

    Raises:
        UsageError: no torch, no compiler, or torch is imported already.
    """
    path = build.built_library()
    if path is None:
        print(  # noqa: T201  progress: this takes half a minute, once
            "xpool: building the native library for this torch, once…",
            file=sys.stderr,
            flush=True,
        )
        path = build.build()
    return NativeLibrary(path, build.torch_folder())


def install(library: NativeLibrary, lease: Lease) -> Remote:
    """Open the session and make torch's ``cuda`` device the leased slice.

    Raises:
        PoolError: the session can't be opened.
    """
    import torch

    library.register()
    session = open_session(lease, library, f"torch {torch.__version__}")
    library.connect(session)

    from xpool.torch.cuda import patch_torch_cuda
    from xpool.torch.remote import Remote
    from xpool.torch.storage_methods import patch_storage_methods

    remote = Remote(session, library)
    patch_torch_cuda(remote)
    patch_storage_methods("cuda")
    return remote


def install_leased(library: NativeLibrary, pipe: LeasePipe) -> Remote:
    """``install`` with the lease that a keeper sends, for as long as that lives.

    The session ends with the lease; with the interpreter, in good order.

    Raises:
        PoolError: no lease, or the session can't be opened.
    """
    import torch  # noqa: F401  takes a second, and the lease comes meanwhile

    remote = install(library, pipe.latest(pipe.wait_for_lease(None)))

    def later(what: Later) -> None:
        if isinstance(what, PoolError):
            remote.session.link.end_with(what)

    pipe.watch(later)
    leave_at_exit(remote, pipe.send_statistics if pipe.wants_statistics else None)
    return remote


def leave_at_exit(
    remote: Remote, on_statistics: Callable[[dict[str, int]], None] | None
) -> None:
    """At the interpreter's end: report late failures, say goodbye, record no more."""
    owner = os.getpid()

    def leave() -> None:
        if os.getpid() != owner:
            return  # a forked child has no session to leave
        try:
            if not remote.session.is_over:
                counters = remote.statistics()
                if on_statistics is not None:
                    on_statistics(counters)
            for text in remote.session.take_faults():
                print(  # noqa: T201  nobody else is left to tell
                    f"xpool: an operation failed and nothing read its result: {text}",
                    file=sys.stderr,
                )
        except (PoolError, RemoteFault) as error:
            print(f"xpool: {error}", file=sys.stderr)  # noqa: T201
        finally:
            remote.library.close()
            remote.session.leave("the program ended")

    atexit.register(leave)
