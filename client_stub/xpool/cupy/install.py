"""Opens arrays in a process: beside torch on its session, or alone on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpool.cupy import finder

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.cupy.device import ArrayDevice
    from xpool.session import Session
    from xpool.torch.python_log import PythonLog
    from xpool.torch.remote import Remote


def install_beside_torch(remotes: list[Remote]) -> None:
    """Let ``import cupy`` use the session of the first device."""

    def opener() -> ArrayDevice:
        from xpool.cupy.device import ArrayDevice
        from xpool.cupy.log import NativeArrayLog, PythonArrayLog
        from xpool.native.device import NativeDevice

        remote = remotes[0]
        library: Any = remote.library
        if isinstance(library, NativeDevice):
            return ArrayDevice(remote.session, NativeArrayLog(library))
        return ArrayDevice(remote.session, PythonArrayLog(library.log, remote.session))

    _install(opener)


def install_alone(session: Session, log: PythonLog) -> None:
    """Let ``import cupy`` use a session that nobody else uses."""

    def opener() -> ArrayDevice:
        from xpool.cupy.device import ArrayDevice
        from xpool.cupy.log import PythonArrayLog

        return ArrayDevice(session, PythonArrayLog(log, session))

    _install(opener)


def _install(opener: Callable[[], ArrayDevice]) -> None:
    finder.OPENER[:] = [opener]
    finder.install()
