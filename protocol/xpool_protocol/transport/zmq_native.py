"""What native code needs to use a socket of pyzmq's without Python.

pyzmq's extension module has libzmq among its dependencies, bundled in its wheel or the
system's; ``dlsym`` over that module finds the very functions that pyzmq calls. Where
they are not found (a static libzmq, another backend) there is no native use.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Final

import zmq

FUNCTIONS: Final = (
    "zmq_msg_init",
    "zmq_msg_init_size",
    "zmq_msg_init_data",
    "zmq_msg_send",
    "zmq_msg_recv",
    "zmq_msg_close",
    "zmq_msg_move",
    "zmq_msg_data",
    "zmq_msg_size",
    "zmq_msg_more",
)
"""In the order of ``NativeSockets.functions``."""

STABLE_MAJOR: Final = 4
"""libzmq promises one C interface within a major version."""


def zmq_functions() -> tuple[int, ...] | None:
    """Addresses of ``FUNCTIONS`` in the libzmq that pyzmq uses; None if not found."""
    try:
        module = importlib.import_module("zmq.backend.cython._zmq")
        library = ctypes.CDLL(str(module.__file__))
        numbers = (ctypes.c_int(), ctypes.c_int(), ctypes.c_int())
        library.zmq_version(*map(ctypes.byref, numbers))
        addresses = tuple(
            ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
            for name in FUNCTIONS
        )
    except (ImportError, OSError, AttributeError):
        return None
    version = tuple(number.value for number in numbers)
    if version != zmq.zmq_version_info() or version[0] != STABLE_MAJOR:
        return None
    return addresses if all(addresses) else None
