"""What the patched ``torch.cuda`` asks: the session and its device library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpool_protocol.errors import PoolError

from xpool.session import RemoteFault
from xpool.torch import captures
from xpool.torch.faults import raise_local

if TYPE_CHECKING:
    from xpool.link import Mark
    from xpool.native.device import NativeDevice
    from xpool.session import Session


class DeviceProperties:
    """What ``torch.cuda.get_device_properties`` returns: the slice's figures."""

    def __init__(self, session: Session) -> None:
        welcome = session.welcome
        self.name = device_name(session)
        self.major, self.minor = 0, 0
        self.total_memory = welcome.memory_nbytes
        self.multi_processor_count = 1
        self.warp_size = 32
        self.max_threads_per_multi_processor = 1024
        self.max_threads_per_block = 1024
        self.regs_per_multiprocessor = 65536
        self.shared_memory_per_block = 48 << 10
        self.shared_memory_per_block_optin = 48 << 10
        self.shared_memory_per_multiprocessor = 64 << 10
        self.L2_cache_size = 4 << 20
        self.is_integrated = 0
        self.is_multi_gpu_board = 0
        self.gcnArchName = ""
        self.uuid = welcome.lease_id
        self.pci_bus_id = self.pci_device_id = self.pci_domain_id = 0
        # The server's own figures, for the names torch knows and no others.
        for name, value in welcome.properties.items():
            if name not in ("name", "total_memory") and hasattr(self, name):
                setattr(self, name, value)

    def __repr__(self) -> str:
        return (
            f"_CudaDeviceProperties(name='{self.name}', major={self.major},"
            f" minor={self.minor}, total_memory={self.total_memory >> 20}MB,"
            f" multi_processor_count={self.multi_processor_count})"
        )


def device_name(session: Session) -> str:
    """The device as the job sees it: what it is, how much of it, and where."""
    welcome = session.welcome
    share = "" if welcome.share_percent == 100 else f", {welcome.share_percent}%"
    return f"xpool {welcome.device_name} on {welcome.server}{share}"


class Remote:
    """One remote device of this process."""

    def __init__(self, session: Session, library: NativeDevice, index: int = 0) -> None:
        self.session = session
        self.library = library
        self.index = index
        self.properties = DeviceProperties(session)
        self.event_class: Any = None
        self._newest: tuple[int, Mark | None] = (0, None)
        """The last fence: how long the log was with it, and its mark; None: reached."""

    def mark(self) -> Mark:
        """A mark at this point of the log.

        Raises:
            RuntimeError: a CUDA graph is being captured here.
        """
        captures.refuse(self.index)
        before = self.library.position()
        mark = self.session.mark(self.library.request("fence"))
        # What other threads have recorded in between counts as not covered.
        self._newest = (before + 1, mark)
        return mark

    def is_idle(self) -> bool:
        """Whether the server has run everything so far; does not wait.

        A new fence is sent only if something was recorded since the last one: whoever
        asks again and again comes to a yes.
        """
        covered, mark = self._newest
        if covered != self.library.position():
            mark = self.mark()
        return mark is None or mark.reached.is_set()

    def synchronize(self) -> None:
        """Wait for everything; raises the first failure nobody was told of."""
        captures.refuse(self.index)
        before = self.library.position()
        try:
            request = self.library.request("fence")
            self.session.noted("synchronize", lambda: self.session.wait(request))
            self._newest = (before + 1, None)
        except (RemoteFault, PoolError) as error:
            raise_local(error)

    def statistics(self) -> dict[str, int]:
        """The server's counters for this session."""
        return self.session.statistics(self.library.request("statistics"))
