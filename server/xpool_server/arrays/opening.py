"""Which library executes a device's array operations."""

from __future__ import annotations

from collections.abc import Callable

from xpool_protocol.errors import OperationUnknown

from xpool_server.arrays.library import ArrayLibrary


def library_opener(device_kind: str) -> Callable[[], ArrayLibrary]:
    """Imports the library for a kind of device; to be called at the first use.

    Args:
        device_kind: as ``Backend.kind`` has it.
    """

    def open_library() -> ArrayLibrary:
        if device_kind == "cuda":
            from xpool_server.arrays.cupy_library import CupyLibrary

            return CupyLibrary()
        if device_kind != "cpu":
            raise OperationUnknown(
                "CuPy's arrays need a CUDA device or a CPU, and this server's device is"
                f" of the kind {device_kind}: run the program on a slice of another,"
                " with --require kind=cuda or kind=cpu"
            )
        from xpool_server.arrays.numpy_library import NumpyLibrary

        return NumpyLibrary()

    return open_library
