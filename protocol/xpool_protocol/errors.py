"""Every error that may cross the wire, and who is expected to act on it.

    PoolError
      UsageError            100  we called the API wrongly; mend the call
      PeerError             200  the peer broke the protocol; the connection is over
        VersionUnsupported  201  no protocol version in common; upgrade one side
      ClosedError           300  we closed the path ourselves
      BrokenError           301  the path failed under us; ``__cause__`` says how
        RegistryUnreachable 302  no registry at the address, or it went away
      LeaseExpired          400  the lease ran out; every handle under it is void
      QuotaExceeded         401  the slice's memory quota does not hold this
      NoCapacity            402  no device has what was asked for, with the reasons
      TokenInvalid          403  the lease token is forged, expired or for another node
      EpochStale            404  a newer epoch of the lease exists: this one is fenced
      LeaseUnknown          405  the registry has no such lease
      WorkerLost            406  the session's worker process ended; its memory is gone
      NameTaken             407  another live server has joined under this name
      OperationFailed       500  the device ran the operation and it failed
      OperationUnknown      501  the server has no such operation, or does not allow it
      ArgumentInvalid       502  arguments break the schema, or reach outside a storage
      HandleUnknown         503  a storage or generator was named that does not exist

Four questions decide the class, in this order: did *we* misuse the API, did the
*peer* break the protocol, is the *path* gone, or did the *pool* refuse or take
back capacity? The 500s are none of these: one operation failed, its results are
poisoned, and the session goes on.

Numbers are frozen once released (SPEC.md section 9); add, never renumber.
"""

from __future__ import annotations

from typing import ClassVar


class PoolError(Exception):
    """Base of everything this project raises on purpose."""

    code: ClassVar[int] = 0
    retryable: ClassVar[bool] = False
    _by_code: ClassVar[dict[int, type[PoolError]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} must declare its wire code")
        if cls._by_code.setdefault(cls.code, cls) is not cls:
            raise TypeError(f"wire code {cls.code} is used twice")

    @staticmethod
    def from_wire(code: int, text: str) -> PoolError:
        """Rebuild a peer's error; an unknown code becomes ``PeerError``."""
        known = PoolError._by_code.get(code)
        if known is None:
            return PeerError(f"{text} (error code {code}, unknown to this version)")
        return known(text)


class UsageError(PoolError):
    """We were called wrongly: a value out of range, a call in the wrong state."""

    code = 100


class PeerError(PoolError):
    """The peer sent something we cannot accept; the connection is over."""

    code = 200


class VersionUnsupported(PeerError):  # noqa: N818  a state, as the field names it
    """The two sides have no protocol version in common."""

    code = 201


class ClosedError(PoolError):
    """The path was closed by this side; it does not mean that anything failed."""

    code = 300


class BrokenError(PoolError):
    """The path failed under us; ``__cause__`` holds the transport's error."""

    code = 301
    retryable = True


class RegistryUnreachable(BrokenError):  # noqa: N818
    """Nobody answers at the registry's address; running jobs are not affected."""

    code = 302
    retryable = True


class NotLeader(BrokenError):  # noqa: N818
    """This registry does not lead its pool; another does, or they elect one."""

    code = 303
    retryable = True

    def __init__(self, text: str, leader: str = "") -> None:
        super().__init__(text)
        self.leader = leader
        """``HOST:PORT`` of the one that leads; empty: nobody does just now."""


class LeaseExpired(PoolError):  # noqa: N818
    """The lease ran out or was ended; every handle under it is void."""

    code = 400


class QuotaExceeded(PoolError):  # noqa: N818
    """An allocation does not fit the slice's memory quota."""

    code = 401


class NoCapacity(PoolError):  # noqa: N818
    """No device can hold the slice asked for; the text lists who had how much."""

    code = 402
    retryable = True


class TokenInvalid(PoolError):  # noqa: N818
    """The lease token is missing, forged, expired, or meant for another node."""

    code = 403


class EpochStale(PoolError):  # noqa: N818
    """The lease has a newer epoch; whoever holds the older one has lost it."""

    code = 404


class LeaseUnknown(PoolError):  # noqa: N818
    """The registry holds no lease of that id (released, expired, or never given)."""

    code = 405


class WorkerLost(PoolError):  # noqa: N818
    """The process that held the session's device memory has ended."""

    code = 406


class NameTaken(PoolError):  # noqa: N818
    """Another live server has joined the registry under the same name."""

    code = 407


class OperationFailed(PoolError):  # noqa: N818
    """The device ran the operation and it raised; its results are poisoned."""

    code = 500


class OperationUnknown(PoolError):  # noqa: N818
    """The server does not know the operation, or does not allow it."""

    code = 501


class ArgumentInvalid(PoolError):  # noqa: N818
    """Arguments break the operation's schema or reach outside a storage."""

    code = 502


class HandleUnknown(PoolError):  # noqa: N818
    """A storage, generator or request was named that the session does not have."""

    code = 503
