"""``python -m xpool_perf.demo``: one script, run in a pool and run locally.

Starts a whole pool on this machine (registry and one server on its CPU), trains
``examples/digits_cnn.py`` under ``xpool run``, then trains the same file with plain
torch, and compares.  The server's own count of operations is shown beside the
result, because equal losses alone would not prove where the work was done.

``verdict`` decides and touches nothing; the rest starts processes and prints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from xpool_protocol.quantities import text_from_nbytes

from xpool_perf.children import ENDING_SIGNALS, Child, Children, ChildTimeout

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "digits_cnn.py"

MAX_LOSS_DIFFERENCE = 1e-5
"""Both sides run the same CPU kernels on the same threads: what is left is order."""

MIN_ACCURACY = 0.95

READY_TIMEOUT_S = 120.0
"""Importing torch from a cold disk takes up to a minute."""

JOB_TIMEOUT_S = 600.0
"""The local job takes about 5 s; a machine a hundred times slower still passes."""

POOL_READY = re.compile(r"pool ready: registry (\S+:\d+)")


class DemoFailed(Exception):  # noqa: N818  a state, as the project's errors are
    """One sentence: what failed, where, and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one run of the script wrote about itself."""

    device: str
    losses: list[float]
    """Mean loss of each epoch."""

    accuracy: float
    train_s: float
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCount:
    """What the server counted for the lease, as ``xpool run`` was told it."""

    server: str
    device: str
    lease_id: str
    executed_ops: int
    allocated_nbytes_peak: int
    received_nbytes: int


def loss_difference(remote: Job, local: Job) -> float:
    """Largest difference of an epoch's losses; infinite if the epochs differ.

    A loss that is not a number makes it infinite too.
    """
    if len(remote.losses) != len(local.losses) or not remote.losses:
        return math.inf
    pairs = zip(remote.losses, local.losses, strict=True)
    differences = [abs(here - there) for here, there in pairs]
    return max(math.inf if math.isnan(one) else one for one in differences)


def verdict(remote: Job, local: Job, stats: ServerCount) -> list[str]:
    """What failed, a sentence each; empty when the demonstration succeeded."""
    failed = []
    difference = loss_difference(remote, local)
    if difference > MAX_LOSS_DIFFERENCE:
        failed.append(
            f"the losses differ by {difference:.3g}, more than {MAX_LOSS_DIFFERENCE:g}"
        )
    for where, job in (("in the pool", remote), ("locally", local)):
        if not job.accuracy >= MIN_ACCURACY:
            failed.append(
                f"the accuracy {where} is {job.accuracy:.4f}, below {MIN_ACCURACY}"
            )
    if remote.device == local.device:
        failed.append(f"the job in the pool saw {remote.device!r}, the local device")
    if stats.executed_ops <= 0:
        failed.append("the server executed no operation: the job did not run there")
    return failed


def job_from_json(text: str) -> Job:
    """Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    fields = json.loads(text)
    return Job(
        device=str(fields["device"]),
        losses=[float(loss) for loss in fields["losses"]],
        accuracy=float(fields["accuracy"]),
        train_s=float(fields["train_s"]),
        threads=int(fields["threads"]),
    )


def server_count_from_json(text: str) -> ServerCount:
    """Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    fields = json.loads(text)
    return ServerCount(
        server=str(fields["server"]),
        device=str(fields["device"]),
        lease_id=str(fields["lease_id"]),
        executed_ops=int(fields["executed_ops"]),
        allocated_nbytes_peak=int(fields["allocated_nbytes_peak"]),
        received_nbytes=int(fields["received_nbytes"]),
    )


def report(remote: Job, local: Job, stats: ServerCount) -> str:
    """The comparison as aligned text."""
    rows = [("", "in the pool", "local")]
    rows.append(("device", remote.device, local.device))
    losses = zip(remote.losses, local.losses, strict=False)
    for epoch, (there, here) in enumerate(losses, start=1):
        rows.append((f"loss, epoch {epoch}", f"{there:.6f}", f"{here:.6f}"))
    rows += [
        ("test accuracy", f"{remote.accuracy:.4f}", f"{local.accuracy:.4f}"),
        ("training loop", f"{remote.train_s:.2f} s", f"{local.train_s:.2f} s"),
        ("threads of the job", str(remote.threads), str(local.threads)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {there:>{widths[1]}}  {here:>{widths[2]}}".rstrip()
        for name, there, here in rows
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"largest loss difference  {loss_difference(remote, local):.3g}",
            f"counted by the server    {stats.executed_ops:,} operations executed, "
            f"{text_from_nbytes(stats.allocated_nbytes_peak)} allocated at the peak, "
            f"{text_from_nbytes(stats.received_nbytes)} received",
            f"                         by {stats.server} on {stats.device}, "
            f"lease {stats.lease_id}",
        ]
    )


def start_pool(children: Children, folder: Path, env: dict[str, str]) -> Child:
    """Start ``xpool up`` with a store of its own and a free port."""
    argv = [sys.executable, "-m", "xpool", "up", "--registry-listen", "127.0.0.1:0"]
    return children.start("pool", [*argv, "--store", str(folder / "registry.db")], env)


def wait_for_pool(children: Children, pool: Child, seen: list[str]) -> str:
    """The registry's address, once the pool has printed it.

    Raises:
        DemoFailed: the pool ended or said nothing in time.
    """

    def is_ready_or_over() -> bool:
        return bool(seen) or pool.status is not None

    try:
        children.pump(is_ready_or_over, READY_TIMEOUT_S, "'pool ready'")
    except ChildTimeout as error:
        raise DemoFailed(f"the pool did not start: {error}") from error
    if not seen:
        raise DemoFailed(
            f"the pool did not start: `xpool up` ended with status {pool.status};"
            " its own words stand above"
        )
    return seen[0]


def run_job(
    children: Children, name: str, argv: list[str], env: dict[str, str]
) -> None:
    """Run one job to its end.

    Raises:
        DemoFailed: it took too long or ended with an error.
    """
    try:
        status = children.wait(children.start(name, argv, env), JOB_TIMEOUT_S)
    except ChildTimeout as error:
        raise DemoFailed(f"the {name} run is stuck: {error}") from error
    if status != 0:
        raise DemoFailed(
            f"the {name} run ended with status {status}; its own words stand above"
        )


def measure(
    folder: Path, env: dict[str, str], epochs: int
) -> tuple[Job, Job, ServerCount]:
    """Run the script in a pool, then locally, and read what both wrote.

    Raises:
        DemoFailed: a process failed, or wrote something unreadable.
    """
    ready: list[str] = []

    def show(name: str, line: str) -> None:
        print(f"{name:<6} | {line}", flush=True)
        found = POOL_READY.match(line)
        if name == "pool" and found:
            ready.append(found[1])

    def job_argv(output: str) -> list[str]:
        return [str(SCRIPT), "--epochs", str(epochs), "--json", str(folder / output)]

    with Children(show) as children:
        pool = start_pool(children, folder, env)
        registry = wait_for_pool(children, pool, ready)
        xpool_run = [sys.executable, "-m", "xpool", "run", "--registry", registry]
        xpool_run += ["--stats-json", str(folder / "stats.json")]
        run_job(children, "remote", [*xpool_run, *job_argv("remote.json")], env)
        # The pool goes first: its threads must not slow the run it is compared with.
        children.end(pool)
        run_job(children, "local", [sys.executable, *job_argv("local.json")], env)
    try:
        return (
            job_from_json((folder / "remote.json").read_text()),
            job_from_json((folder / "local.json").read_text()),
            server_count_from_json((folder / "stats.json").read_text()),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DemoFailed(f"a run left no readable figures: {error!r}") from error


def child_environment(threads: int | None) -> dict[str, str]:
    """The caller's environment; with ``threads``, the same count for every child."""
    env = dict(os.environ, PYTHONUNBUFFERED="1")
    if threads is not None:
        env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    return env


def as_json(remote: Job, local: Job, stats: ServerCount, failed: list[str]) -> str:
    """Everything that was measured, as one JSON object."""
    figures: dict[str, Any] = {
        "remote": asdict(remote),
        "local": asdict(local),
        "server": asdict(stats),
        "failed": failed,
    }
    difference = loss_difference(remote, local)
    # JSON has no infinity; null says that the losses cannot be compared.
    figures["loss_difference"] = difference if math.isfinite(difference) else None
    return json.dumps(figures, indent=2) + "\n"


def leave(number: int, _frame: FrameType | None) -> NoReturn:
    """Signal handler: unwind, so that every child is ended on the way out."""
    print(f"demo: {signal.Signals(number).name}, ending the pool", file=sys.stderr)
    sys.exit(128 + number)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def main() -> int:
    """Run the demonstration; 0 only if everything that it claims was true."""
    parser = argparse.ArgumentParser(prog="xpool_perf.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--epochs", type=positive, default=8, help="default: 8")
    parser.add_argument(
        "--threads",
        type=positive,
        help="CPU threads of each process (default: torch's)",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures")
    args = parser.parse_args()
    for number in ENDING_SIGNALS:
        signal.signal(number, leave)
    try:
        with tempfile.TemporaryDirectory(prefix="xpool-demo-") as folder:
            env = child_environment(args.threads)
            remote, local, stats = measure(Path(folder), env, args.epochs)
    except DemoFailed as error:
        print(f"demo: failed: {error}", file=sys.stderr)
        return 1
    failed = verdict(remote, local, stats)
    print("\n" + report(remote, local, stats) + "\n")
    if args.json:
        args.json.write_text(as_json(remote, local, stats, failed))
    for sentence in failed:
        print(f"demo: failed: {sentence}", file=sys.stderr)
    if not failed:
        print("demo: the job ran in the pool and gave the local result")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
