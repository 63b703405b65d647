"""Triton beside the remote torch of this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import PoolError

from xpool.import_hook import when_imported
from xpool.kernel_log import KernelLog
from xpool.session import RemoteFault

if TYPE_CHECKING:
    from xpool.native.device import NativeDevice
    from xpool.session import Session
    from xpool.torch.remote import Remote


MODULE: Final = "triton.runtime.driver"
"""Where Triton keeps which driver is active."""


def install_triton(remotes: Sequence[Remote]) -> None:
    """Let ``import triton`` find the remote devices; ``remotes[i]`` is ``cuda:i``."""

    def make_driver() -> Any:
        from xpool.triton.driver import Device, RemoteDriver

        devices = [
            Device(
                kernel_log(remote.library, remote.session),
                vars(remote.properties),
                _locator(remote.library),
            )
            for remote in remotes
        ]
        process = remotes[0].library.process
        return RemoteDriver(lambda index: devices[index], process.current_device)

    def activate(module: Any) -> None:
        module.driver.set_active(make_driver())

    when_imported(MODULE, activate)


def kernel_log(device: NativeDevice, session: Session) -> KernelLog:
    """Kernels' records of a device of the native library."""
    from xpool.cupy.log import NativeArrayLog

    log = NativeArrayLog(device)

    def append(record: bytes) -> int:
        log.leave_room()
        return log.append(record)

    return KernelLog(append, log.next_request, lambda request: ask(session, request))


def ask(session: Session, request: int) -> bytes:
    """Wait for an answer about a kernel; its value's bytes."""
    from xpool.torch.faults import raise_local

    try:
        return session.noted("kernel", lambda: session.wait(request)).value
    except (RemoteFault, PoolError) as error:
        raise_local(error)


def _locator(device: NativeDevice) -> Callable[[Any], tuple[int, int]]:
    library = ctypes.PyDLL(str(device.process.path))
    find = library.xpool_kernel_argument
    find.argtypes = [ctypes.c_void_p, ctypes.c_uint64 * 3]
    find.restype = ctypes.c_char_p

    def locate(tensor: Any) -> tuple[int, int]:
        found = (ctypes.c_uint64 * 3)()
        error = find(tensor._cdata, found)
        if error is not None:
            raise ValueError(f"xpool: {error.decode(errors='replace')}")
        if found[0] != device.index:
            raise ValueError(
                f"xpool: a kernel on cuda:{device.index} was given a tensor on"
                f" cuda:{found[0]}"
            )
        return int(found[1]), int(found[2])

    return locate
