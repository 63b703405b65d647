"""Which executor workers have: in C++ if it can be, otherwise in Python.

Decided once, when the server starts and before it joins: a worker must not wait for a
compiler. Does not import the framework.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import structlog
from xpool_protocol.errors import PoolError
from xpool_protocol.native_build import compiler

from xpool_server.native.build import LIBRARY

_log = structlog.get_logger(__name__)


class ExecutorKind(StrEnum):
    """What executes a session's records."""

    NATIVE = "native"
    PYTHON = "python"


def executor_library(kind: ExecutorKind | None) -> Path | None:
    """The native executor's library, built if need be; None for the one in Python.

    Args:
        kind: what was asked for; None takes what there can be.

    Raises:
        UsageError: no torch; or native was asked for, and it cannot be built.
    """
    if kind is ExecutorKind.PYTHON:
        return None
    path = LIBRARY.built()
    if path is not None:
        return path
    if kind is None and compiler() is None:
        _log.warning(
            "no C++ compiler was found: operations are executed in Python, which is"
            " several times slower for small ones (apt-get install g++)"
        )
        return None
    _log.info("building the native executor for this torch, once")
    try:
        return LIBRARY.build()
    except PoolError as error:
        if kind is ExecutorKind.NATIVE:
            raise
        _log.warning("operations are executed in Python", error=str(error))
        return None
