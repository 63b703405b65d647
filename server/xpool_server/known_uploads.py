"""Contents of uploads that outlive their session, so that the next need not send them.

A node's workers share a folder: one subfolder for each tenant, one file for each
content, named by length and digest. What arrives over the network is written there
on its way to the device; a later session of the tenant names it (``UploadKnown``), and
it is read from here. SPEC.md section 13.

The folder is bounded: what was used longest ago goes first, and one session adds at
most half of it, so that a job's batches do not drive out its weights, which come first.
A session holds what it has offered open: what goes meanwhile stays readable for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import secrets
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol

from blake3 import blake3
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, BrokenError
from xpool_protocol.lane_records import Known, UploadKnown
from xpool_protocol.native_build import cache_folder

from xpool_server.lane import PART_NBYTES, Destination, Keeping, Transfer

MIN_FREE_NBYTES: Final = 1 << 30
"""Disk space that is left alone."""

MAX_OPEN: Final = 512
"""Contents offered to one session; each is an open file. Below ``limits.MAX_KNOWN``."""

_UNFINISHED: Final = ".part"


def uploads_folder(node_name: str) -> Path:
    """Where a node keeps them: in the user's cache folder, by the node's name."""
    name = hashlib.sha256(node_name.encode()).hexdigest()[:16]
    return cache_folder() / "uploads" / name


def room_for_files() -> None:
    """Let this process open as many files as a session may be offered, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Stored(NamedTuple):
    """A file in the folder."""

    path: Path
    nbytes: int
    used_ns: int
    """When it was written or read last, wall clock."""


def to_remove(files: Iterable[Stored], budget_nbytes: int) -> list[Stored]:
    """What has to go so that the rest fits: what was used longest ago.

    >>> a, b = Stored(Path("a"), 6, 1), Stored(Path("b"), 6, 2)
    >>> to_remove([b, a], 10) == [a]
    True
    """
    kept, removed = 0, []
    for file in sorted(files, key=lambda one: one.used_ns, reverse=True):
        if kept + file.nbytes <= budget_nbytes:
            kept += file.nbytes
        else:
            removed.append(file)
    return removed


class KnownUploads(Protocol):
    """What the executor asks; ``NoKnownUploads`` is its simplest form."""

    def listing(self) -> Sequence[Known]:
        """What this session may name."""

    def begin(
        self, number: int, record: UploadKnown, destination: Destination
    ) -> Transfer:
        """Fill a destination with a content; raises ``ArgumentInvalid``."""

    @property
    def is_busy(self) -> bool:
        """``wait`` would block."""

    def wait(self) -> None:
        """Block until nothing that was begun is under way."""


class NoKnownUploads:
    """For workers that keep nothing."""

    is_busy = False

    def listing(self) -> Sequence[Known]:
        """Nothing."""
        return ()

    def begin(
        self, number: int, record: UploadKnown, destination: Destination
    ) -> Transfer:
        """Never works."""
        raise ArgumentInvalid("this server keeps no contents of uploads")

    def wait(self) -> None:
        """Nothing is ever under way."""


class UploadFolder:
    """The folder that a node's workers share."""

    def __init__(
        self, path: Path, budget_nbytes: int, min_free_nbytes: int = MIN_FREE_NBYTES
    ) -> None:
        self.path = path
        self.budget_nbytes = budget_nbytes
        self._min_free_nbytes = min_free_nbytes

    def of_tenant(self, tenant: str) -> SessionUploads:
        """What one session of a tenant sees of it."""
        name = hashlib.sha256(tenant.encode()).hexdigest()[:32]
        return SessionUploads(self, self.path / name)

    def clean(self) -> None:
        """Remove what killed workers left unfinished; when their node starts."""
        for path in self.path.glob(f"*/*{_UNFINISHED}"):
            path.unlink(missing_ok=True)

    def files(self) -> list[Stored]:
        """Every finished content of every tenant."""
        return [one for path in self.path.glob("*/*") if (one := _stored(path))]

    def fit(self) -> None:
        """Remove what is too much; other workers may do the same meanwhile."""
        for file in to_remove(self.files(), self.budget_nbytes):
            file.path.unlink(missing_ok=True)

    def has_room(self, nbytes: int) -> bool:
        """The disk has room for so much more."""
        free = shutil.disk_usage(self.path).free
        return free - nbytes >= self._min_free_nbytes


class SessionUploads:
    """One session's view: what it may name, and what it adds."""

    def __init__(self, shared: UploadFolder, folder: Path) -> None:
        self._shared = shared
        self._folder = folder
        self._allowance_nbytes = shared.budget_nbytes // 2
        self._offered: dict[Known, IO[bytes]] | None = None
        self._reader = ThreadPoolExecutor(1, "xpool-known-uploads")
        self._changed = threading.Condition()
        self._under_way = 0

    # ---- what it may name

    def listing(self) -> Sequence[Known]:
        """What this session may name, the one used last first; opened now, once."""
        if self._offered is None:
            found = [one for path in self._folder.glob("*") if (one := _stored(path))]
            found.sort(key=lambda one: one.used_ns, reverse=True)
            self._offered = {}
            for file in found[: min(MAX_OPEN, limits.MAX_KNOWN)]:
                with contextlib.suppress(OSError):  # another worker has removed it
                    self._offered[_known(file.path)] = file.path.open("rb")
        return list(self._offered)

    def begin(
        self, number: int, record: UploadKnown, destination: Destination
    ) -> Transfer:
        """Fill a destination with a content, by a thread of its own.

        Raises:
            ArgumentInvalid: it was never offered.
        """
        content = Known(record.nbytes, record.digest)
        file = (self._offered or {}).get(content)
        if file is None:
            raise ArgumentInvalid(
                f"this server has no content of {record.nbytes} bytes with the digest"
                f" {record.digest.hex()[:16]}… that was offered to this session"
            )
        transfer = Transfer(number, record.nbytes, destination)
        with self._changed:
            self._under_way += 1
        self._reader.submit(self._fill, transfer, file, content)
        return transfer

    @property
    def is_busy(self) -> bool:
        """``wait`` would block."""
        return bool(self._under_way)

    def wait(self) -> None:
        """Block until nothing that was begun is under way."""
        with self._changed:
            while self._under_way:
                self._changed.wait()

    def _fill(self, transfer: Transfer, file: IO[bytes], content: Known) -> None:
        error: Exception | None = None
        try:
            assert transfer.destination is not None
            with contextlib.closing(transfer.destination) as destination:
                _read_into(destination, file, content)
            os.utime(file.fileno())
        except BrokenError as caught:
            error = caught
            self._path(content).unlink(missing_ok=True)
        except Exception as caught:  # noqa: BLE001  a device may raise anything
            error = caught
        with self._changed:
            self._under_way -= 1
            transfer.end(error)
            self._changed.notify_all()

    def _path(self, content: Known) -> Path:
        return self._folder / f"{content.nbytes}-{content.digest.hex()}"

    # ---- what it adds

    def keeping(self, nbytes: int) -> Keeping | None:
        """Takes the bytes of an upload; None: this one is not kept."""
        if not limits.LANE_NBYTES <= nbytes <= self._allowance_nbytes:
            return None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._shared.has_room(nbytes):
                return None
            path = self._folder / f"{secrets.token_hex(16)}{_UNFINISHED}"
            file = path.open("xb", buffering=0)
        except OSError:
            return None  # no place for it: the next job sends it again
        self._allowance_nbytes -= nbytes
        return _Kept(self, file, path, nbytes)

    def close(self) -> None:
        """Let go of what was offered; idempotent."""
        self._reader.shutdown()
        for file in (self._offered or {}).values():
            file.close()
        self._offered = {}

    def add(self, path: Path, content: Known) -> None:
        """A file is complete: give it its name, and make room for it."""
        path.replace(self._path(content))
        self._shared.fit()


class _Kept:
    """One content that is being written."""

    def __init__(
        self, uploads: SessionUploads, file: IO[bytes], path: Path, nbytes: int
    ) -> None:
        self._uploads = uploads
        self._file = file
        self._path = path
        self._nbytes = nbytes
        self._hasher = blake3()
        self._is_good = True

    def add(self, part: memoryview) -> None:
        """The next bytes; a disk that is full ends the keeping, not the upload."""
        if not self._is_good:
            return
        try:
            self._hasher.update(part)
            while len(part):
                part = part[self._file.write(part) :]
        except OSError:
            self._is_good = False

    def end(self, *, is_whole: bool) -> None:
        """All bytes were added, or no more will come."""
        try:
            self._file.close()
            if is_whole and self._is_good:
                content = Known(self._nbytes, self._hasher.digest())
                self._uploads.add(self._path, content)
            else:
                self._path.unlink(missing_ok=True)
        except OSError:
            self._path.unlink(missing_ok=True)


def _read_into(destination: Destination, file: IO[bytes], content: Known) -> None:
    hasher, at = blake3(max_threads=blake3.AUTO), 0
    while at < content.nbytes:
        room = destination.room(at, min(PART_NBYTES, content.nbytes - at))
        count = os.preadv(file.fileno(), [room], at)
        if not count:
            break
        hasher.update(room[:count])
        destination.filled(at, count)
        at += count
    if at != content.nbytes or hasher.digest() != content.digest:
        raise BrokenError(
            "the server's copy of these bytes was damaged and is removed: start the job"
            " again, which uploads them anew"
        )


def _known(path: Path) -> Known:
    nbytes, _, digest = path.name.partition("-")
    return Known(int(nbytes), bytes.fromhex(digest))


def _stored(path: Path) -> Stored | None:
    """A finished content; None for what is none, or is gone meanwhile."""
    try:
        nbytes, digest = _known(path)
        facts = path.stat()
    except (ValueError, OSError):
        return None
    is_whole = len(digest) == hashlib.sha256().digest_size and facts.st_size == nbytes
    return Stored(path, nbytes, facts.st_mtime_ns) if is_whole else None
