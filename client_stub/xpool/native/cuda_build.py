"""A CUDA build of torch as a client: the stand-in for the CUDA runtime, and its checks.

Plain ``pip install torch`` brings such a build. Its libraries find the stand-in
(``cuda_stand_in/runtime.cpp``) before the CUDA runtime and the driver, because it is
loaded first, for all to see, under the driver's name. So nothing of this process
reaches a device of this host, whether there is one or not.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from xpool_protocol import native_build as build
from xpool_protocol.errors import UsageError

SOURCE: Final = Path(__file__).parent / "cuda_stand_in" / "runtime.cpp"
FLAGS: Final = (*build.FLAGS, "-shared", "-Wl,-soname,libcuda.so.1")
ABI: Final = 1
SUPPORTED: Final = (12, 13)
"""CUDA's major versions whose structures the stand-in has been written for."""

_DRIVER: Final = re.compile(r"/libcuda\.so[.0-9]*$")
_PRELOADED: Final = ("libtorch_global_deps.so", "libtorch_cuda.so")


def cuda_version(torch_folder: Path) -> tuple[int, int] | None:
    """CUDA's major and minor version if torch is built for it; does not import torch.

    Raises:
        UsageError: the version makes no sense.
    """
    text = build.version_fields(torch_folder).get("cuda", "None")
    if text == "None":
        return None
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"torch says that it is built for CUDA {text!r}")
    return int(parts[0]), int(parts[1])


def stand_in_path() -> Path:
    """The file that holds the stand-in made from this source."""
    name = f"xpool-cuda-{build.digest((SOURCE,), FLAGS)}.so"
    return build.cache_folder() / name


def build_stand_in() -> Path:
    """Builds the stand-in unless it is there; about a second.

    Raises:
        UsageError: no C++ compiler.
        BuildFailed: the compiler refused.
    """
    path = stand_in_path()
    if path.exists():
        return path
    cxx = build.required_compiler("device 'cuda' is not available")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        build.run([cxx, *FLAGS, str(SOURCE), "-o", str(made), "-ldl"], SOURCE.name)
        made.rename(path)
    return path


def mapped_drivers(maps: str, but: Path) -> list[str]:
    """Files of a CUDA driver in the text of ``/proc/self/maps``, the stand-in apart."""
    found = {
        fields[5]
        for line in maps.splitlines()
        if len(fields := line.split(maxsplit=5)) == 6
        and _DRIVER.search(fields[5].removesuffix(" (deleted)"))
    }
    return sorted(found - {str(but)})


class StandIn:
    """The loaded stand-in; torch's CUDA libraries are loaded after it, and see it."""

    def __init__(self, path: Path, version: tuple[int, int]) -> None:
        """Load it.

        Raises:
            UsageError: it would not be found first, or was made from other sources.
        """
        if version[0] not in SUPPORTED:
            known = " and ".join(map(str, SUPPORTED))
            raise UsageError(
                f"torch is built for CUDA {version[0]}.{version[1]}; xpool works with"
                f" builds for CUDA {known} and with CPU builds"
            )
        self._path = path
        self._refuse_other_driver("is loaded in this process already")
        self._library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self._library.xpool_stand_in_escapes.restype = ctypes.c_uint64
        self._library.xpool_stand_in_asked.restype = ctypes.c_uint64
        self._library.xpool_stand_in_last_escape.restype = ctypes.c_char_p
        self._library.xpool_stand_in_expect.argtypes = [ctypes.c_int, ctypes.c_uint64]
        if self._library.xpool_stand_in_abi() != ABI:
            raise UsageError(f"{path} was built from other sources: remove it")
        self._version = version[0] * 1000 + version[1] * 10
        self.describe(0)

    def load_torch(self, torch_folder: Path) -> None:
        """Load torch's own CUDA libraries, so that ours can come after them.

        Raises:
            UsageError: a library they need is missing.
        """
        for name in _PRELOADED:
            path = torch_folder / "lib" / name
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise UsageError(f"torch's {name} can't be loaded: {error}") from error

    def describe(self, memory_nbytes: int) -> None:
        """What host code that asks the runtime itself is told of the device."""
        self._library.xpool_stand_in_expect(self._version, memory_nbytes)

    def check(self) -> None:
        """To be called when torch is imported: nothing can reach a local device.

        Raises:
            UsageError: torch's libraries found another CUDA runtime, or a driver.
        """
        import torch

        torch._C._cuda_getDeviceCount()  # torch asks its runtime, once
        if not self._library.xpool_stand_in_asked():
            raise UsageError(
                "torch uses this host's CUDA runtime, so a program would run on a"
                " local device unnoticed: start it with `xpool run`, or call"
                " xpool.init() before everything else"
            )
        self._refuse_other_driver("was loaded while torch was imported")
        if os.path.exists("/dev/nvidiactl"):
            # A spawned worker is a new interpreter without the stand-in: it sees no
            # device, as on a host without one.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def escapes(self) -> int:
        """How many launches, copies and allocations came here past the dispatcher."""
        return int(self._library.xpool_stand_in_escapes())

    def last_escape(self) -> str:
        """The CUDA function that the last one of them called."""
        return str(self._library.xpool_stand_in_last_escape().decode())

    def _refuse_other_driver(self, what: str) -> None:
        if sys.platform != "linux":
            return
        found = mapped_drivers(Path("/proc/self/maps").read_text(), self._path)
        if found:
            raise UsageError(
                f"a CUDA driver ({found[0]}) {what}, so a program would run on a local"
                " device unnoticed: start it with `xpool run`, or call xpool.init()"
                " before everything else"
            )
