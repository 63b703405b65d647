"""Puts the remote device under ``torch`` in this process: two steps around its import.

``load_library`` must come before ``import torch``; ``install`` after the lease is
here. Between the two the process can import torch while the lease is on its way.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING

from xpool_protocol.errors import PoolError, UsageError

from xpool.native import build
from xpool.native.library import NativeLibrary
from xpool.session import RemoteFault, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.lease_pipe import Later, Lease, LeasePipe
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


def install_leased(library: NativeLibrary | None, pipe: LeasePipe) -> Remote:
    """``install``, or its Python twin, for as long as a keeper's lease lives.

    The session ends with the lease; with the interpreter, in good order.

    Raises:
        PoolError: no lease, or the session can't be opened.
    """
    import torch  # noqa: F401  takes a second, and the lease comes meanwhile

    lease = pipe.latest(pipe.wait_for_lease(None))
    if library is not None:
        remote = install(library, lease)
    else:
        from xpool.torch.python_install import install_python

        remote = install_python(lease)

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
        # Whoever wants this process to end has got it; a second Ctrl-C does it now.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
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
