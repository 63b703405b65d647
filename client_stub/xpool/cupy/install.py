"""Opens arrays in a process: beside torch on its session, or alone on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpool.cupy import finder
from xpool.numba.install import install_numba

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xpool.cupy.device import ArrayDevice
    from xpool.cupy.log import ArrayLog
    from xpool.cupy.several import Current
    from xpool.native.library import NativeLibrary
    from xpool.session import Session
    from xpool.torch.python_log import PythonLog
    from xpool.torch.remote import Remote


def install_beside_torch(remotes: list[Remote]) -> None:
    """Let ``import cupy`` use torch's sessions; ``remotes[i]`` is device ``i``."""

    def opener() -> ArrayDevice:
        from xpool.cupy.log import NativeArrayLog, PythonArrayLog
        from xpool.native.device import NativeDevice

        library: Any = remotes[0].library
        if not isinstance(library, NativeDevice):
            session = remotes[0].session
            return _opened([(session, PythonArrayLog(library.log, session))], None)
        process = library.process
        return _opened(
            [(one.session, NativeArrayLog(one.library)) for one in remotes],
            lambda: _TorchsCurrent(process),
        )

    _install(opener)


class _TorchsCurrent:
    """The current device is torch's: the two have one notion of it."""

    def __init__(self, process: NativeLibrary) -> None:
        self.index, self._use = process.current_device, process.set_current_device

    def use(self, index: int) -> None:
        """Make a device, which there is, this thread's current one."""
        self._use(index)


def install_alone(opened: Sequence[tuple[Session, PythonLog]]) -> None:
    """Let ``import cupy`` use sessions that nobody else uses; one for each device."""

    def opener() -> ArrayDevice:
        from xpool.cupy.log import PythonArrayLog
        from xpool.cupy.several import CurrentHere

        logs = [(session, PythonArrayLog(log, session)) for session, log in opened]
        return _opened(logs, CurrentHere)

    _install(opener)


def _opened(
    opened: Sequence[tuple[Session, ArrayLog]], current: Callable[[], Current] | None
) -> ArrayDevice:
    from xpool.cupy.device import ArrayDevice

    if current is None or len(opened) == 1:
        return ArrayDevice(*opened[0])
    from xpool.cupy.several import Devices

    return Devices(opened, current())


def _install(opener: Callable[[], ArrayDevice]) -> None:
    finder.OPENER[:] = [opener]
    finder.install()
    install_numba()
