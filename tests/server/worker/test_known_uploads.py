"""Contents that the next session need not upload."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from support.executor_desk import Desk, bytes_from, make_executor
from xpool_protocol import lane as wire
from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.lane_records import (
    Known,
    ListKnown,
    OpenLane,
    Upload,
    UploadKnown,
    known_from,
    payload_of_known,
)
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.records import Allocate, Fence, Read, Record
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader
from xpool_server.failures import Answers
from xpool_server.known_uploads import Stored, UploadFolder, to_remove
from xpool_server.lane import SocketLane

NBYTES = limits.LANE_NBYTES
BUDGET_NBYTES = 8 * NBYTES


def content(seed: int, nbytes: int = NBYTES) -> bytes:
    return blake3(bytes([seed])).digest(length=nbytes)


def known(data: bytes) -> Known:
    return Known(len(data), blake3(data).digest())


class Job:
    """One session with its lane, from its first record to its end."""

    def __init__(self, folder: UploadFolder, tenant: str, way: str = "tcp") -> None:
        self.lane = SocketLane("127.0.0.1")
        self.uploads = folder.of_tenant(tenant)
        self.lane.keep = self.uploads.keeping
        self.executor = make_executor(
            Desk.default_kind, 1 << 28, lane=self.lane, known=self.uploads
        )
        [reply] = self.run(OpenLane(1))
        assert isinstance(reply, Reply)
        token, addresses = read_value(Reader(reply.value))
        address = next(one for one in addresses if one.startswith(way))
        self.stream = self.connected(address, bytes.fromhex(token))

    def connected(self, address: str, token: bytes) -> socket.socket:
        kind, _, where = address.partition(":")
        if kind == "unix":
            stream = socket.socket(socket.AF_UNIX)
            stream.connect("\0" + where.removeprefix("@"))
        else:
            stream = socket.create_connection(("127.0.0.1", int(where)), 10)
        stream.settimeout(10)
        stream.sendall(wire.greeting(token))
        assert stream.recv(1) == wire.ACCEPTED
        return stream

    def run(self, *records: Record) -> Answers:
        with self.executor.batch():
            answers = self.executor.run(bytes_from(*records))
            return tuple(one for some in answers for one in some)

    def upload(self, storage: int, data: bytes) -> None:
        self.run(Allocate(storage, len(data)))
        number = self.executor.operation_count
        self.run(Upload(storage, 0, len(data)))
        self.stream.sendall(wire.header_bytes(wire.Header(number, len(data))) + data)
        assert isinstance(self.run(Fence(2))[-1], Reply)

    def offered(self) -> list[Known]:
        [reply] = self.run(ListKnown(3))
        assert isinstance(reply, Reply)
        return known_from(reply.payloads)

    def name(self, storage: int, data: bytes) -> Answers:
        self.run(Allocate(storage, len(data)))
        return self.run(UploadKnown(storage, 0, *known(data)))

    def bytes_of(self, storage: int, nbytes: int) -> bytes:
        answer = self.run(Read(99, storage, 0, nbytes))[-1]
        assert isinstance(answer, Reply), answer
        return b"".join(bytes(part) for part in answer.payloads)

    def close(self) -> None:
        self.lane.close()
        self.uploads.close()
        self.stream.close()


MakeJob = Callable[..., Job]


@pytest.fixture
def folder(tmp_path: Path) -> UploadFolder:
    return UploadFolder(tmp_path / "uploads", BUDGET_NBYTES)


@pytest.fixture
def job(folder: UploadFolder) -> Iterator[MakeJob]:
    jobs: list[Job] = []

    def make(tenant: str = "anna", way: str = "tcp") -> Job:
        jobs.append(Job(folder, tenant, way))
        return jobs[-1]

    yield make
    for one in jobs:
        one.close()


def test_the_next_job_of_a_tenant_need_not_send_it(job: MakeJob) -> None:
    weights = content(1, 5 * NBYTES // 2)
    first = job()
    assert first.offered() == []
    first.upload(7, weights)
    assert first.offered() == []  # the list of a session does not grow
    first.close()
    second = job()
    assert second.offered() == [known(weights)]
    assert second.name(7, weights) == ()
    assert second.bytes_of(7, len(weights)) == weights
    assert second.executor.counters()["known_nbytes"] == len(weights)


def test_other_tenants_do_not_learn_of_it(job: MakeJob) -> None:
    weights = content(1)
    job().upload(7, weights)
    other = job("bert")
    assert other.offered() == []
    [failure] = other.name(7, weights)
    assert isinstance(failure, Failure)
    assert "was offered to this session" in failure.fault.text


def test_what_never_left_the_host_is_not_kept(
    job: MakeJob, folder: UploadFolder
) -> None:
    job(way="unix").upload(7, content(1))
    assert folder.files() == []


def test_what_was_not_asked_for_may_not_be_named(job: MakeJob) -> None:
    weights = content(1)
    job().upload(7, weights)
    [failure] = job().name(7, weights)
    assert isinstance(failure, Failure)


@pytest.mark.parametrize("damage", ["a byte", "the end"])
def test_a_damaged_content_poisons_its_storage_and_is_forgotten(
    job: MakeJob, folder: UploadFolder, damage: str
) -> None:
    weights = content(1)
    job().upload(7, weights)
    [file] = folder.files()
    second = job()
    assert second.offered() == [known(weights)]
    if damage == "a byte":
        with file.path.open("r+b") as stream:
            stream.seek(NBYTES // 2)
            stream.write(bytes([weights[NBYTES // 2] ^ 1]))
    else:
        os.truncate(file.path, NBYTES - 1)
    assert second.name(7, weights) == ()
    answers = second.run(Read(99, 7, 0, 4))
    assert all(isinstance(one, Failure) for one in answers)
    assert "damaged" in answers[-1].fault.text
    second.run(Allocate(8, 4))
    assert second.bytes_of(8, 4) is not None  # the session goes on
    assert folder.files() == []
    assert job().offered() == []


def test_an_upload_that_breaks_off_leaves_nothing(
    job: MakeJob, folder: UploadFolder
) -> None:
    first = job()
    first.run(Allocate(7, NBYTES))
    number = first.executor.operation_count
    first.run(Upload(7, 0, NBYTES))
    first.stream.sendall(wire.header_bytes(wire.Header(number, NBYTES)) + bytes(5))
    first.stream.close()
    first.run(Fence(2))
    first.close()
    assert list(folder.path.glob("*/*")) == []


def test_one_job_adds_at_most_half(job: MakeJob, folder: UploadFolder) -> None:
    first = job()
    for seed in range(6):  # the weights come first, then batches
        first.upload(seed + 1, content(seed))
    wanted = {known(content(seed)) for seed in range(4)}
    assert set(job().offered()) == wanted
    assert sum(file.nbytes for file in folder.files()) == BUDGET_NBYTES // 2


def test_what_was_used_longest_ago_goes_and_stays_readable(
    job: MakeJob, folder: UploadFolder
) -> None:
    first = job()
    for seed in range(4):
        first.upload(seed + 1, content(seed))
    holder = job()
    assert len(holder.offered()) == 4
    for number, file in enumerate(sorted(folder.files(), key=str)):
        os.utime(file.path, ns=(number, number))
    second = job()
    for seed in range(4, 8):
        second.upload(seed + 1, content(seed))
    third = job()
    for seed in range(8, 11):
        third.upload(seed + 1, content(seed))
    assert sum(file.nbytes for file in folder.files()) <= BUDGET_NBYTES
    now = set(job().offered())
    assert now >= {known(content(seed)) for seed in range(4, 11)}
    for seed in range(4):
        holder.name(seed + 1, content(seed))
        assert holder.bytes_of(seed + 1, NBYTES) == content(seed)


def test_without_room_on_the_disk_nothing_is_kept(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path, BUDGET_NBYTES, min_free_nbytes=1 << 60)
    one = Job(folder, "anna")
    one.upload(7, content(1))
    one.close()
    assert folder.files() == []


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    one = Job(UploadFolder(tmp_path / "taken", BUDGET_NBYTES), "anna")
    one.upload(7, content(1))
    assert one.bytes_of(7, NBYTES) == content(1)
    one.close()


def test_what_killed_workers_left_is_cleaned(folder: UploadFolder) -> None:
    part = folder.path / "tenant" / "0123.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    (part.parent / "README").write_bytes(b"not ours")
    folder.clean()
    assert not part.exists()
    assert folder.files() == []
    assert (part.parent / "README").exists()


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9))), st.integers(0, 200))
def test_what_stays_fits(files: list[tuple[int, int]], budget: int) -> None:
    stored = [Stored(Path(str(i)), *file) for i, file in enumerate(files)]
    removed = set(to_remove(stored, budget))
    assert sum(one.nbytes for one in stored if one not in removed) <= budget
    if sum(one.nbytes for one in stored) <= budget:
        assert not removed


@pytest.mark.parametrize(
    "payloads",
    [
        [bytes(39)],
        [bytes(40), bytes(40)],
        [bytes(40) * (limits.MAX_KNOWN + 1)],
    ],
)
def test_a_malformed_list_is_the_servers_fault(payloads: list[bytes]) -> None:
    with pytest.raises(PeerError):
        known_from(payloads)


@given(
    st.lists(
        st.builds(
            Known, st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32)
        ),
        max_size=limits.MAX_KNOWN,
    )
)
def test_a_list_survives_the_wire(contents: list[Known]) -> None:
    payload = payload_of_known(contents)
    assert known_from([payload] if contents else []) == contents
