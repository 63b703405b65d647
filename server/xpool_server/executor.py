"""Executes the records of one session's log, in order; returns what to send.

Whatever a record holds, ``execute`` returns messages; a failure is a ``Fault`` in
one of them and never an exception, but for a client that breaks a bound of the whole
session. Nothing here knows a socket.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import torch
from xpool_protocol import limits
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
    DefineArrayDtype,
    DefineArrayOperation,
    FreeArrays,
    PutArray,
    StorageOverArray,
)
from xpool_protocol.errors import ArgumentInvalid, PeerError, PoolError
from xpool_protocol.group_records import (
    Collective,
    DefineGroup,
    FreeGroup,
    OpenMeeting,
)
from xpool_protocol.kernel_records import (
    FreeModule,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    SetKernelAttribute,
)
from xpool_protocol.lane_records import (
    Download,
    ListKnown,
    OpenLane,
    Upload,
    UploadKnown,
    payload_of_known,
)
from xpool_protocol.messages import Fault, Payload, Reply
from xpool_protocol.peer_records import DefinePeer, Receive, Send
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan
from xpool_protocol.records import (
    STATISTICS_FIELDS,
    Allocate,
    Call,
    DefineGraph,
    DefineOperation,
    Fence,
    Free,
    FreeGenerator,
    FreeGraph,
    NewGenerator,
    Read,
    ReadGenerator,
    Record,
    RequestCall,
    RunGraph,
    SeedGenerator,
    Statistics,
    Write,
    WriteGenerator,
    read_records,
)
from xpool_protocol.values import Value

from xpool_server.arbiter.costs import Costs
from xpool_server.arbiter.turn import Turn
from xpool_server.arrays.calls import ArrayCalls
from xpool_server.arrays.opening import library_opener
from xpool_server.arrays.store import ArrayStore, DictStore
from xpool_server.calls import Calls, encoded
from xpool_server.devices.base import Backend
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.generators import Generators
from xpool_server.graphs import Graphs
from xpool_server.groups import Groups
from xpool_server.kernels import Kernels, kernel_opener
from xpool_server.known_uploads import KnownUploads, NoKnownUploads
from xpool_server.lane import Lane, NoLane, Transfer
from xpool_server.plans import Plans
from xpool_server.schema import Converters
from xpool_server.storages import Storages, charged_nbytes, upload_fault
from xpool_server.transfers import PeerDoor, Transfers
from xpool_server.vouching import Vouching

IGNORE_ALL: Final = ("ignore", None, Warning, None, 0)
"""The filter that ``warnings.simplefilter("ignore")`` puts in front."""


def _no_warnings() -> AbstractContextManager[object]:
    """What torch warns of, it warns of on the client too.

    A worker ignores warnings from the start, which costs a batch nothing.
    """
    if warnings.filters and tuple(warnings.filters[0]) == IGNORE_ALL:
        return nullcontext()
    return warnings.catch_warnings(action="ignore")


class Executor:
    """One session's state on one device."""

    def __init__(
        self,
        backend: Backend,
        quota_nbytes: int,
        lane: Lane | None = None,
        door: PeerDoor | None = None,
        known: KnownUploads | None = None,
    ) -> None:
        """A new session's state.

        Args:
            backend: the device.
            quota_nbytes: of its memory.
            lane: for bulk transfers with the client.
            door: how to reach the workers of the job's other devices.
            known: what need not be uploaded again.
        """
        self.backend = backend
        self.turn = Turn()
        self.costs: Costs | None = None
        """Estimates, where the device runs behind what is submitted."""
        """At the device; another one is set before the first record."""
        self.lane = lane or NoLane()
        self.known = known or NoKnownUploads()
        self._broken_uploads: list[Fault] = []
        self.storages = self._make_storages(quota_nbytes)
        self.generators = Generators(backend)
        self.failures = Failures(backend.kind)
        converters = Converters(self.storages, self.generators, backend.device)
        self.calls = Calls(backend, self.storages, converters, self.failures)
        self.graphs = self._make_graphs()
        self.plans = self._make_plans()
        self.transfers = Transfers(backend, self.storages, self.failures, door)
        self.groups = Groups(
            backend,
            self.storages,
            self.failures,
            "127.0.0.1" if door is None else door.host,
            (lambda: None) if door is None else door.news,
            Vouching() if door is None else door.vouching,
        )
        self.arrays = ArrayCalls(
            *(self.storages, self.failures, library_opener(backend.kind)),
            self._make_array_store,
        )
        self.kernels = Kernels(
            self.storages, self.failures, self.arrays, kernel_opener(backend.kind)
        )
        self.received_nbytes = 0
        self.sent_nbytes = 0
        self.known_nbytes = 0
        """Of uploads whose bytes did not travel."""
        self._payloads: Sequence[Payload] = ()
        self._handlers: dict[type, Callable[..., Answers | None]] = {
            Call: self.calls.call,
            RequestCall: self.calls.request_call,
            DefineOperation: self.calls.define,
            Allocate: self._allocate,
            Free: self._free,
            Write: self._write,
            Read: self._read,
            Fence: self._fence,
            Statistics: self._statistics,
            NewGenerator: self._new_generator,
            SeedGenerator: self._seed_generator,
            ReadGenerator: self._read_generator,
            WriteGenerator: self._write_generator,
            FreeGenerator: self._free_generator,
            DefinePeer: self.transfers.define,
            Send: self.transfers.send,
            Receive: self.transfers.receive,
            OpenMeeting: self.groups.open_meeting,
            DefineGroup: self.groups.define,
            Collective: self.groups.collective,
            FreeGroup: self.groups.free,
            DefineGraph: self.graphs.define,
            RunGraph: self.graphs.run,
            FreeGraph: self.graphs.free,
            DefinePlan: self.plans.define,
            FreePlan: self.plans.free,
            OpenLane: self._open_lane,
            Upload: self._upload,
            Download: self._download,
            ListKnown: self._list_known,
            UploadKnown: self._upload_known,
            DefineArrayOperation: self.arrays.define,
            DefineArrayDtype: self.arrays.define_dtype,
            ArrayCall: self.arrays.call,
            ArrayRequest: self.arrays.request,
            FreeArrays: self.arrays.free,
            PutArray: self.arrays.put,
            ArrayOverStorage: self.arrays.over_storage,
            StorageOverArray: self.arrays.storage_over,
            MakeModule: self.kernels.make,
            FreeModule: self.kernels.free,
            LaunchKernel: self.kernels.launch,
            KernelAttributes: self.kernels.attributes,
            SetKernelAttribute: self.kernels.set_attribute,
        }

    def take_turns(self, turn: Turn) -> None:
        """Share the device: run records when it is our turn."""
        self.turn = turn
        self.storages.turn = turn
        if not self.backend.is_thread_time:
            self.costs = self._make_costs()
            self.calls.costs = self.costs
            turn.estimate_by(self.costs)
            turn.note_work_by(self._note_work)

    def _make_costs(self) -> Costs:
        return Costs()

    def begin_work(self) -> None:
        """Our turn has begun: device time counts from here.

        Where work goes on behind its submission, two pieces of it may be under way, and
        what the device has measured by now is charged.
        """
        if not self.backend.is_thread_time:
            self.backend.wait_for_chunks(1)
            self._measure()
        self.backend.begin_work()

    def end_work(self) -> None:
        """Our turn ends: what was submitted in it is charged by estimate."""
        self.backend.end_work()
        if self.costs is not None:
            self.costs.end_span()
            self._measure()

    def _note_work(self, begins: bool) -> None:
        """Within a batch: others have the device before its next record."""
        if begins:
            self.begin_work()
        else:
            self.end_work()

    def _measure(self) -> None:
        """Take in what the device has finished, in place of its estimate."""
        if self.costs is not None:
            for took_ns in self.backend.take_spans():
                self.costs.measured(took_ns)
        self.turn.measured(self.backend.busy_ns)

    def _make_storages(self, quota_nbytes: int) -> Storages:
        """An empty table for this session."""
        return Storages(quota_nbytes, self.backend.device, self._broken_upload)

    def _make_array_store(self, array_type: type) -> ArrayStore:
        """Where the session's arrays are kept."""
        return DictStore()

    def _make_graphs(self) -> Graphs:
        return Graphs(
            self.backend, self.storages, self.generators, self.failures, self.calls
        )

    def _make_plans(self) -> Plans:
        return Plans(*self._plan_parts())

    def _plan_parts(
        self,
    ) -> tuple[Backend, Storages, Failures, Callable[[Read], Reply]]:
        return self.backend, self.storages, self.failures, self._reply

    @property
    def operation_count(self) -> int:
        """Records taken so far; the next record's operation number."""
        return self.failures.operation

    def advance(self, operation: int) -> None:
        """Records up to this number were executed by native code."""
        self.failures.operation = operation

    @contextmanager
    def batch(self, payloads: Sequence[Payload] = ()) -> Iterator[bool]:
        """Around the records of one batch: no autograd, no warnings, time is counted.

        Gradients are the client's business, so are a tensor's versions; and what
        torch warns of, it warns of on the client too.

        Args:
            payloads: payload frames of the message that the records came in.

        Yields:
            Whether records may run: not if the node has called while we waited.
        """
        with _no_warnings(), torch._C._AutoDispatchBelowADInplaceOrView():
            if not self.turn.begin(heeds_calls=True):
                self.turn.end()
                yield False
                return
            self._payloads = payloads
            self.begin_work()
            try:
                yield True
            finally:
                self.end_work()
                self.turn.end()
                self._payloads = ()

    def run(self, records: bytes) -> Iterator[Answers | None]:
        """Execute the records of a batch; call within ``batch``.

        Yields:
            What to send; None while a record waits for another worker: going on tries
            it again.

        Raises:
            PeerError: a record makes no sense, or has broken a bound of the session.
        """
        self.plans.begin_batch()
        for record in read_records(records):
            if self.turn.is_called:
                yield None
            if type(record) is RunPlan:
                yield from self.plans.replay(record, self.retried)
            else:
                yield from self.retried(record)

    def retried(self, record: Record) -> Iterator[Answers | None]:
        """Execute one record, again and again while it has to wait."""
        while (answers := self.execute(record)) is None:
            yield None
        yield answers

    def execute(self, record: Record) -> Answers | None:
        """Run the next record; call within ``batch``.

        Returns:
            What to send; None if the record waits for another worker, or the node
            has called: it is still the next one, and is to be executed again when
            there is news.

        Raises:
            PeerError: the session has broken a bound and must end.
        """
        if not self.turn.check(heeds_calls=True):
            return None
        answers = self._handlers[type(record)](record)
        if answers is None:
            return None
        self.failures.operation += 1
        if self._broken_uploads:
            late = [self.failures.told(fault) for fault in self._broken_uploads]
            self._broken_uploads.clear()
            answers = [one for group in (*late, answers) for one in group]
        return answers

    def _broken_upload(self, transfer: Transfer) -> Fault:
        """The fault of an upload that was waited for in vain; told after the record."""
        fault = upload_fault(transfer)
        self.failures.count += 1
        self._broken_uploads.append(fault)
        return fault

    def counters(self) -> dict[str, int]:
        """The session's counters, by the names of ``STATISTICS_FIELDS``."""
        return {
            "executed_ops": self.calls.executed_ops
            + self.arrays.executed_ops
            + self.kernels.launches,
            "failed_ops": self.failures.count,
            "received_nbytes": self.received_nbytes,
            "sent_nbytes": self.sent_nbytes,
            "allocated_nbytes": self.storages.allocated_nbytes,
            "allocated_nbytes_peak": self.storages.peak_nbytes,
            "storage_count": self.storages.live_count,
            "relaid_outputs": self.calls.binder.relaid_outputs
            + self.graphs.binder.relaid_outputs,
            "busy_ns": self.backend.busy_ns,
            "graph_runs": self.graphs.runs,
            "known_nbytes": self.known_nbytes,
        }

    def _allocate(self, record: Allocate) -> Answers:
        def run() -> None:
            if record.storage in self.storages:
                raise ArgumentInvalid(f"storage {record.storage} exists already")
            self.storages.check_room(charged_nbytes(record.nbytes))
            self.storages.adopt(record.storage, self.backend.allocate(record.nbytes))

        return self._poisoning(record.storage, run)

    def _free(self, record: Free) -> Answers:
        return self.failures.attempt(lambda: self.storages.free(record.storage))

    def _write(self, record: Write) -> Answers:
        def run() -> None:
            entry = self.storages.entry(record.storage)
            _check_range(record, entry.nbytes)
            offset = record.offset
            for data in _written_data(record, self._payloads):
                self.backend.write(entry.storage, offset, data)
                offset += len(data)

        if record.storage not in self.storages:
            return self.failures.attempt(run)
        return self._poisoning(record.storage, run)

    def _poisoning(self, storage: int, run: Callable[[], None]) -> Answers:
        """Run what fills one storage; a failure poisons it."""
        try:
            run()
        except Poisoned:
            return NOTHING
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a device may raise anything
            fault = self.failures.fault(error)
            self.storages.poison(storage, fault)
            return self.failures.told(fault)
        return NOTHING

    def _read(self, record: Read) -> Answers:
        return self.failures.answer(record.request, lambda: self._reply(record))

    def _reply(self, record: Read) -> Reply:
        entry = self.storages.entry(record.storage)
        _check_range(record, entry.nbytes)
        end = record.offset + record.nbytes
        chunks = [
            self.backend.read(entry.storage, at, min(limits.CHUNK_NBYTES, end - at))
            for at in range(record.offset, end, limits.CHUNK_NBYTES)
        ]
        return Reply(record.request, encoded(None), tuple(chunks))

    def _open_lane(self, record: OpenLane) -> Answers:
        def run() -> Reply:
            token, addresses = self.lane.open()
            where: list[Value] = [*addresses]
            return Reply(record.request, encoded([token.hex(), where]))

        return self.failures.answer(record.request, run)

    def _upload(self, record: Upload) -> Answers:
        number = self.failures.operation

        def run() -> None:
            try:
                entry = self.storages.entry(record.storage)
                _check_range(record, entry.nbytes)
            except (PoolError, Poisoned):
                self.lane.expect(number, record.nbytes, None)
                raise
            destination = self.backend.destination(entry.storage, record.offset)
            transfer = self.lane.expect(number, record.nbytes, destination)
            self.storages.expect(record.storage, transfer)

        if record.storage not in self.storages:
            return self.failures.attempt(run)
        return self._poisoning(record.storage, run)

    def _list_known(self, record: ListKnown) -> Answers:
        def run() -> Reply:
            contents = payload_of_known(self.known.listing())
            return Reply(record.request, encoded(None), (contents,))

        return self.failures.answer(record.request, run)

    def _upload_known(self, record: UploadKnown) -> Answers:
        number = self.failures.operation

        def run() -> None:
            entry = self.storages.entry(record.storage)
            _check_range(record, entry.nbytes)
            destination = self.backend.destination(entry.storage, record.offset)
            transfer = self.known.begin(number, record, destination)
            self.storages.expect(record.storage, transfer)
            self.known_nbytes += record.nbytes

        if record.storage not in self.storages:
            return self.failures.attempt(run)
        return self._poisoning(record.storage, run)

    def _download(self, record: Download) -> Answers:
        def run() -> Reply:
            try:
                entry = self.storages.entry(record.storage)
                _check_range(record, entry.nbytes)
            except (PoolError, Poisoned):
                self.lane.send_failure(record.request)
                raise
            parts = self.backend.parts(entry.storage, record.offset, record.nbytes)
            with self.turn.given_up():  # the network takes its time
                self.lane.send(record.request, record.nbytes, parts)
            return Reply(record.request, encoded(None))

        return self.failures.answer(record.request, run)

    def is_settled(self) -> bool:
        """Wait for the device; whether a fence has no more to do, and nothing to tell.

        What the device raises is told by the fence that follows.
        """
        if self.lane.is_busy or self.known.is_busy or self.failures.first_unreported:
            return False
        try:
            self.backend.synchronize()
        except Exception:  # noqa: BLE001  a device may raise anything
            return False
        return True

    def _fence(self, record: Fence) -> Answers:
        def run() -> Reply:
            if self.lane.is_busy or self.known.is_busy:
                with self.turn.given_up():
                    self.lane.wait_for_uploads()
                    self.known.wait()
            self.backend.synchronize()
            fault = self.failures.first_unreported
            if fault is not None:
                raise Poisoned(fault)
            return Reply(record.request, encoded(None))

        return self.failures.answer(record.request, run)

    def _statistics(self, record: Statistics) -> Answers:
        counters = self.counters()
        values = encoded([counters[field] for field in STATISTICS_FIELDS])
        return [Reply(record.request, values)]

    def _new_generator(self, record: NewGenerator) -> Answers:
        return self.failures.attempt(lambda: self.generators.new(record.generator))

    def _seed_generator(self, record: SeedGenerator) -> Answers:
        def run() -> None:
            self.generators.seed(record.generator, record.seed)

        return self.failures.attempt(run)

    def _read_generator(self, record: ReadGenerator) -> Answers:
        def run() -> Reply:
            state = self.generators.read(record.generator)
            return Reply(record.request, encoded(None), (state,))

        return self.failures.answer(record.request, run)

    def _write_generator(self, record: WriteGenerator) -> Answers:
        return self.failures.attempt(
            lambda: self.generators.write(record.generator, record.state)
        )

    def _free_generator(self, record: FreeGenerator) -> Answers:
        return self.failures.attempt(lambda: self.generators.free(record.generator))


def _check_range(
    record: Read | Write | Upload | Download | UploadKnown, nbytes: int
) -> None:
    if record.offset + record.nbytes > nbytes:
        raise ArgumentInvalid(
            f"{record.nbytes} bytes at offset {record.offset} reach outside storage"
            f" {record.storage} of {nbytes} bytes"
        )


def _written_data(record: Write, payloads: Sequence[Payload]) -> Sequence[Payload]:
    """The bytes of a write, in pieces, their total checked."""
    if record.payload == 0:
        pieces: Sequence[Payload] = [record.data]
    else:
        first = record.payload - 1
        count = -(-record.nbytes // limits.CHUNK_NBYTES)
        pieces = payloads[first : first + count]
    total = sum(len(piece) for piece in pieces)
    if total != record.nbytes:
        raise ArgumentInvalid(
            f"a write of {record.nbytes} bytes came with {total} bytes"
        )
    return pieces
