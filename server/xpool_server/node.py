"""Runs a node: observes what happens, asks ``NodeState``, does what it says.

One thread waits for everything at once: messages at the front door, lines and ends
of workers, signals, facts from the registry's thread. Whatever clients send, the
loop goes on.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import structlog
from msgspec.structs import replace
from xpool_protocol import transport
from xpool_protocol.connection import goodbye, redirect
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import NoCapacity, PoolError, WorkerLost
from xpool_protocol.quantities import text_from_nbytes
from xpool_protocol.transport.base import Buffer, Listener, PeerId

from xpool_server.addresses import (
    PortRange,
    advertised_uri,
    check_reachability,
    host_of,
    worker_uri,
)
from xpool_server.arbiter.desk import WATCH_NS, Desk, Terms
from xpool_server.arbiter.policies import PolicyName
from xpool_server.arbiter.tenant import Settings
from xpool_server.control import EndSession, OpenSession
from xpool_server.front_door import MAX_QUESTION_NBYTES, FrontDoor
from xpool_server.known_uploads import UploadFolder
from xpool_server.load_report import LoadMeter, session_report
from xpool_server.metering import Meter, Reading
from xpool_server.metrics import NodeCollector, SessionFigures, Snapshot, serve
from xpool_server.node_facts import (
    Fact,
    GiveUp,
    Instruction,
    KillWorker,
    LeaseRevoked,
    NodeStarted,
    ReportEnded,
    ReportSoon,
    SendGoodbye,
    SendRedirect,
    SetTerms,
    ShutdownAsked,
    SliceChanged,
    StartWorker,
    TellWorker,
    TimePassed,
    WorkerExited,
    WorkerId,
)
from xpool_server.node_records import Session
from xpool_server.node_state import NodeState
from xpool_server.processors import leave_to_devices
from xpool_server.registry_link import (
    Identity,
    Joined,
    JoinRefused,
    RegistryLink,
    UsageHeard,
)
from xpool_server.spares import WorkerCommand, WorkerProcesses

if TYPE_CHECKING:  # at run time it would bring the framework into this process
    from xpool_server.devices.device_info import DeviceInfo

_log = structlog.get_logger(__name__)

REPORT_NS: Final = 500_000_000
"""How often the figures for the heartbeat are renewed."""

END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What an operator chose."""

    registry: str
    listen: str = "tcp://127.0.0.1:0"
    name: str
    devices: Sequence[DeviceInfo]
    spares: int = 1
    threads: int | None = None
    """CPU threads of each worker; None: the framework's default."""

    executor_library: Path | None = None
    """Of the native executor; None: workers execute in Python."""

    is_insecure: bool = False
    advertise: str | None = None
    """Host that clients reach this one by; None: the one of ``listen``."""

    worker_ports: PortRange | None = None
    """What workers listen on; None: any free ports."""

    uploads_folder: Path | None = None
    """Where contents of uploads are kept for the next job; None: nowhere."""

    uploads_nbytes: int = 0
    """Largest size of that folder."""

    arbiter: PolicyName = PolicyName.PRIORITY
    """How the tenants of a device take turns."""

    metrics: str = ""
    """``HOST:PORT`` for Prometheus; empty: none."""

    turns: Settings = field(default_factory=Settings)
    """How long their turns are."""

    mps_pipe: Path | None = None
    """Of the MPS control daemon that keeps slices apart; None: the arbiter does."""

    accelerator_modules: Sequence[str] = ()
    """Python modules that bring the devices' kind."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What its operator says of it; jobs may ask for them."""


class Node:
    """One server process; ``run`` returns its exit status."""

    def __init__(
        self,
        options: NodeOptions,
        on_ready: Callable[[str], None],
        worker_command: WorkerCommand | None = None,
    ) -> None:
        """Bind the front door; nothing is started before ``run``.

        Args:
            options: what the operator chose.
            on_ready: called once with a sentence, joined and with warm workers.
            worker_command: how workers are started, if not as usual.

        Raises:
            UsageError: an address that cannot be listened on.
        """
        check_reachability(options.listen, is_insecure=options.is_insecure)
        leave_to_devices(core for one in options.devices for core in one.cores)
        self._collector, self._metrics = _served_metrics(options)
        self._options = options
        if options.uploads_folder is not None:
            UploadFolder(options.uploads_folder, options.uploads_nbytes).clean()
        self._on_ready: Callable[[str], None] | None = on_ready
        self._listener: Listener = transport.listen(
            options.listen, max_message_nbytes=MAX_QUESTION_NBYTES
        )
        self._address = advertised_uri(self._listener.uri, options.advertise)
        self._state = NodeState(
            options.name,
            {device.index: device.memory_nbytes for device in options.devices},
            options.spares,
            lambda: secrets.token_urlsafe(24),
            slices_are_fixed=options.mps_pipe is not None,
        )
        self._desks = {
            device.index: Desk(
                options.arbiter, options.turns, interrupts=bool(device.cores)
            )
            for device in options.devices
        }
        self._workers = WorkerProcesses(worker_command or self._worker_command)
        self._listener.watch(self._workers.fileno())
        identity = Identity(
            options.name,
            secrets.token_hex(16),
            self._address,
            tuple(_device_to_wire(device) for device in options.devices),
            _version(),
            options.labels,
        )
        self._link = RegistryLink(options.registry, identity, self._listener.wake)
        self._meter = LoadMeter(time.monotonic_ns())
        self._meters: dict[WorkerId, Meter] = {}
        self._last_reports: dict[str, pb.SessionReport] = {}
        self._reported_ns = 0
        self._watched_ns = 0
        self._door: FrontDoor | None = None
        self._door_key = b""
        self._signals: list[int] = []
        self._failure: PoolError | None = None

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            PoolError: why the node could not go on; its workers have ended.
        """
        before = {number: signal.signal(number, self._note) for number in END_SIGNALS}
        try:
            self._link.start()
            self._handle(NodeStarted())
            while not self._state.is_over:
                self._turn()
            self._link.stop()
        finally:
            self._workers.close()
            self._listener.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._failure is not None:
            raise self._failure

    def _turn(self) -> None:
        """Wait for something to happen, and see to it."""
        question = self._listener.receive(self._patience_s())
        if self._signals and not self._state.is_closing:
            name = signal.Signals(self._signals[0]).name
            _log.info("shutting down", node=self._options.name, signal=name)
            self._handle(ShutdownAsked())
        # Before the question: who asks for a dead worker must hear that it is dead.
        for fact in self._workers.poll():
            self._handle(fact)
        self._hear_registry()
        if question is not None:
            self._answer(*question)
        self._handle(TimePassed())
        self._watch()
        self._report()
        self._announce()

    def _patience_s(self) -> float:
        now_ns = time.monotonic_ns()
        until_ns = self._reported_ns + REPORT_NS
        if any(desk.needs_watching() for desk in self._desks.values()):
            until_ns = min(until_ns, self._watched_ns + WATCH_NS)
        deadline_ns = self._state.next_deadline_ns()
        if deadline_ns is not None:
            until_ns = min(until_ns, deadline_ns)
        return max(0, until_ns - now_ns) / 1e9

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler; the loop takes it from here."""
        self._signals.append(number)
        self._listener.wake()

    # ---- observing ----

    def _hear_registry(self) -> None:
        for fact in self._link.take():
            match fact:
                case SliceChanged():
                    _log.info(
                        "slice changes",
                        lease=fact.lease_id,
                        share=fact.share_percent,
                        memory_nbytes=fact.memory_nbytes,
                    )
                    self._handle(fact)
                case UsageHeard():
                    self._acknowledge(fact.until_s)
                case LeaseRevoked():
                    _log.info("lease ended", lease=fact.lease_id, reason=fact.reason)
                    self._handle(fact)
                case Joined():
                    _log.info("joined", registry=self._link.registry_address)
                    self._door = FrontDoor(fact.public_key)
                    self._door_key = fact.door_key
                case JoinRefused():
                    self._give_up(fact.error)

    def _answer(self, peer: PeerId, frames: Sequence[Buffer]) -> None:
        if self._door is None:
            text = f"the server {self._options.name} has not joined a registry yet"
            self._listener.send(peer, goodbye(NoCapacity(f"{text}: try again soon")))
            return
        try:
            fact = self._door.fact_from_frames(peer, frames, time.time_ns() / 1e9)
        except PoolError as error:
            _log.warning("question refused", peer=peer.hex(), error=str(error))
            self._listener.send(peer, goodbye(error))
            return
        self._handle(fact)

    def _watch(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._watched_ns < WATCH_NS:
            return
        self._watched_ns = now_ns
        for index, desk in self._desks.items():
            for worker, verdict in desk.watch(now_ns):
                _log.warning(
                    "turn passed on", device=index, worker=worker, why=verdict.value
                )

    def _report(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._reported_ns >= REPORT_NS:
            self._reported_ns = now_ns
            loads = self._meter.loads(self._state, now_ns)
            figures = self._session_figures(now_ns)
            self._link.publish(loads, [one.report for one in figures])
            if self._collector is not None:
                self._collector.publish(Snapshot(loads, figures, self._passed_on()))

    def _passed_on(self) -> list[tuple[int, str, int]]:
        return [
            (index, verdict.value, count)
            for index, desk in self._desks.items()
            for verdict, count in desk.passed_on.items()
        ]

    def _session_figures(self, now_ns: int) -> list[SessionFigures]:
        figures = []
        for worker, process, session in self._state.sessions():
            meter = self._read(worker, session, now_ns)
            is_stalled = worker in self._desks[process.device_index].stalled
            report = session_report(session, meter, is_stalled=is_stalled)
            figures.append(
                SessionFigures(session.claims.tenant, process.device_index, report)
            )
        return figures

    def _acknowledge(self, until_s: Mapping[str, int]) -> None:
        """Use that the registry has stored need not be told again."""
        for worker_id, _, session in self._state.sessions():
            meter = self._meters.get(worker_id)
            at_s = until_s.get(session.claims.lease_id)
            if meter is not None and at_s is not None:
                meter.acknowledged(at_s)

    def _read(self, worker: WorkerId, session: Session, now_ns: int) -> Meter:
        """The session's meter, with what it has used by now."""
        at_s = time.time_ns() // 1_000_000_000
        meter = self._meters.get(worker)
        if meter is None:
            meter = self._meters[worker] = Meter(now_ns, at_s)
        usage = self._desk_of(worker).usage(worker)
        meter.read(Reading.of(usage, session.counters), now_ns, at_s)
        return meter

    def _bury(self, worker: WorkerId) -> None:
        """A worker's process is gone: read what it has used, and free its slot."""
        process = self._state.workers.get(worker)
        if process is None:
            return
        if process.session is not None:
            meter = self._read(worker, process.session, time.monotonic_ns())
            meter.close_second(time.time_ns() // 1_000_000_000)
            report = session_report(process.session, meter, is_stalled=False)
            self._last_reports[process.session.claims.lease_id] = report
        self._meters.pop(worker, None)
        self._desk_of(worker).forget(worker)

    def _announce(self) -> None:
        if self._on_ready and self._door is not None and self._state.has_spares:
            devices = ", ".join(
                f"{one.kind} ({one.name}, {text_from_nbytes(one.memory_nbytes)})"
                for one in self._options.devices
            )
            self._on_ready(
                f"server {self._options.name} ready on {self._address}: {devices},"
                f" joined {self._options.registry}"
            )
            self._on_ready = None

    # ---- doing ----

    def _handle(self, fact: Fact) -> None:
        if isinstance(fact, WorkerExited):
            self._bury(fact.worker)
            _log.info("worker ended", worker=fact.worker, status=fact.status)
        for instruction in self._state.handle(fact, time.monotonic_ns()):
            self._do(instruction)

    def _do(self, instruction: Instruction) -> None:
        match instruction:
            case StartWorker():
                self._start(instruction)
            case TellWorker(worker, OpenSession() as message):
                self._workers.tell(worker, self._completed(worker, message))
            case TellWorker(worker, EndSession() as message):
                self._workers.tell(worker, message)
                self._desk_of(worker).dismiss(worker)
                self._desk_of(worker).call(worker)
            case TellWorker(worker, message):
                self._workers.tell(worker, message)
                self._desk_of(worker).call(worker)
            case KillWorker(worker, reason):
                _log.info("ending worker", worker=worker, reason=reason)
                self._workers.kill(worker)
            case SendRedirect(peer, address, session_key):
                reachable = advertised_uri(address, self._options.advertise)
                self._listener.send(peer, redirect(reachable, session_key))
            case SendGoodbye(peer, error):
                _log.info("client told", peer=peer.hex(), error=str(error))
                self._listener.send(peer, goodbye(error))
            case ReportEnded(lease_id, epoch, reason):
                _log.info("session over", lease=lease_id, reason=reason)
                last = self._last_reports.pop(lease_id, None)
                self._link.report_ended(lease_id, epoch, reason, last)
            case ReportSoon():
                self._reported_ns = 0  # it is to say how things are now
                self._report()
                self._link.hurry()
            case SetTerms(worker):
                self._set_terms(worker)
            case GiveUp(text):
                self._give_up(WorkerLost(text))

    def _completed(self, worker: WorkerId, message: OpenSession) -> OpenSession:
        """With its slot at the device, and what the worker's own doors need."""
        host = host_of(self._address) or message.host
        desk, process = self._desk_of(worker), self._state.workers[worker]
        slot = desk.assign(worker)
        desk.started(worker, process.pid)
        self._set_terms(worker)
        return replace(message, host=host, door_key=self._door_key.hex(), slot=slot)

    def _set_terms(self, worker: WorkerId) -> None:
        session = self._state.workers[worker].session
        assert session is not None
        self._desk_of(worker).admit(
            worker, Terms.of(session.claims), time.monotonic_ns()
        )

    def _desk_of(self, worker: WorkerId) -> Desk:
        return self._desks[self._state.workers[worker].device_index]

    def _start(self, instruction: StartWorker) -> None:
        try:
            page = self._desks[instruction.device_index].page
            self._workers.start(
                instruction.worker, instruction.device_index, [page.fileno]
            )
        except OSError as error:
            _log.error("cannot start a worker", error=str(error))
            self._handle(WorkerExited(instruction.worker, 1))

    def _give_up(self, error: PoolError) -> None:
        if not self._state.is_closing:
            self._failure = error
            self._handle(ShutdownAsked())

    def _worker_command(self, control_fd: int, device_index: int) -> Sequence[str]:
        device = next(one for one in self._options.devices if one.index == device_index)
        threads, ports = self._options.threads, self._options.worker_ports
        threads = threads or len(device.cores) or None
        library, mps_pipe = self._options.executor_library, self._options.mps_pipe
        return [
            *(sys.executable, "-m", "xpool_server.leash", str(os.getpid())),
            "xpool_server.worker",
            *("--control-fd", str(control_fd)),
            *("--device", device.torch_device),
            *("--arbiter-fd", str(self._desks[device_index].page.fileno)),
            *("--listen", worker_uri(self._options.listen, control_fd)),
            *(() if threads is None else ("--threads", str(threads))),
            *(("--visible", device.visible) if device.visible else ()),
            *(("--mps-pipe", str(mps_pipe)) if mps_pipe is not None else ()),
            *(("--cores", ",".join(map(str, device.cores))) if device.cores else ()),
            *(() if ports is None else ("--ports", str(ports))),
            *(() if library is None else ("--executor-library", str(library))),
            *self._uploads_arguments(),
            *self._module_arguments(),
        ]

    def _module_arguments(self) -> Sequence[str]:
        names = self._options.accelerator_modules
        return ("--accelerator-modules", ",".join(names)) if names else ()

    def _uploads_arguments(self) -> Sequence[str]:
        folder = self._options.uploads_folder
        if folder is None:
            return ()
        nbytes = str(self._options.uploads_nbytes)
        return ("--uploads", str(folder), "--uploads-nbytes", nbytes)


def _served_metrics(options: NodeOptions) -> tuple[NodeCollector | None, object]:
    """What is published to, and what keeps answering."""
    if not options.metrics:
        return None, None
    uri = f"tcp://{options.metrics}"
    check_reachability(uri, is_insecure=options.is_insecure)
    collector = NodeCollector()
    host, _, port = options.metrics.rpartition(":")
    port_number, answering = serve(collector, host.strip("[]"), int(port))
    _log.info("metrics", url=f"http://{host}:{port_number}/metrics")
    return collector, answering


def _device_to_wire(device: DeviceInfo) -> pb.Device:
    return pb.Device(
        index=device.index,
        kind=device.kind,
        name=device.name,
        memory_nbytes=device.memory_nbytes,
        architecture=device.architecture,
    )


def _version() -> str:
    try:
        return importlib.metadata.version("xpool")
    except importlib.metadata.PackageNotFoundError:  # run from a bare source tree
        return "unknown"
