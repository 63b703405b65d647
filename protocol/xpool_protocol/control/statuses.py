"""Errors on their way through gRPC: into a status, and out of one again.

gRPC publishes no types, so its ``Any`` stays in the files beside this one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from xpool_protocol.errors import (
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    NotLeader,
    PeerError,
    PoolError,
    RegistryUnreachable,
    TokenInvalid,
    UsageError,
)

CODE_KEY = "xpool-code"
LEADER_KEY = "xpool-leader"
"""Where a registry that does not lead tells who does."""

# gRPC puts the sentence into a trailer, and trailers are limited to 8 KiB after
# percent-encoding, which makes three characters of one.
MAX_DETAIL_CHARS = 2000

_STATUS: tuple[tuple[type[PoolError], Any], ...] = (
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (NoCapacity, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TokenInvalid, grpc.StatusCode.UNAUTHENTICATED),
    (LeaseUnknown, grpc.StatusCode.NOT_FOUND),
    (LeaseExpired, grpc.StatusCode.FAILED_PRECONDITION),
    (EpochStale, grpc.StatusCode.ABORTED),
    (NameTaken, grpc.StatusCode.ALREADY_EXISTS),
    (NotLeader, grpc.StatusCode.UNAVAILABLE),
    (PoolError, grpc.StatusCode.INTERNAL),
)


class Status(NamedTuple):
    """What a refused call ends with."""

    code: Any
    """A ``grpc.StatusCode``, for tools that know only gRPC."""

    details: str
    metadata: tuple[tuple[str, str], ...]


def status_from_error(error: PoolError) -> Status:
    """How ``error`` leaves the registry."""
    code = next(code for kind, code in _STATUS if isinstance(error, kind))
    details = str(error)
    if len(details) > MAX_DETAIL_CHARS:
        details = details[: MAX_DETAIL_CHARS - 3] + "..."
    metadata = [(CODE_KEY, str(error.code))]
    if isinstance(error, NotLeader) and error.leader:
        metadata.append((LEADER_KEY, error.leader))
    return Status(code, details, tuple(metadata))


def error_from_rpc(error: Any, address: str) -> PoolError:
    """The ``PoolError`` behind a ``grpc.RpcError`` raised by a call to ``address``."""
    details = str(error.details() or "")
    told = {
        key: value
        for key, value in error.trailing_metadata() or ()
        if isinstance(value, str)
    }
    if told.get(CODE_KEY, "").isdecimal():
        known = PoolError.from_wire(int(told[CODE_KEY][:9]), details)
        if isinstance(known, NotLeader):
            known.leader = told.get(LEADER_KEY, "")
        return known
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE:
        return RegistryUnreachable(
            f"no registry answers at {address}:"
            ' start one with "xpool registry" or "xpool up", or name another address'
        )
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RegistryUnreachable(
            f"the registry at {address} did not answer in time: if it is not running,"
            ' start one with "xpool registry" or "xpool up"'
        )
    if status is grpc.StatusCode.CANCELLED:  # not by us: we only close
        return RegistryUnreachable(
            f"the registry at {address} dropped the call: more calls wait there than it"
            " can keep; try again"
        )
    return PeerError(f"the registry at {address} broke the call: {status}, {details}")
