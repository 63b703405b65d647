"""``python -m xpool_perf.demo``: one script, run in a pool and run locally.

Starts a whole pool on this machine (registry and one server on its CPU), trains
``examples/digits_cnn.py`` under ``xpool run``, then trains the same file with plain
torch, and compares.  Then the same with ``examples/kmeans_cupy.py``, which runs with
CuPy in the pool and with NumPy here.  The server's own count of operations is shown
beside the results, because equal ones alone would not prove where the work was done.

``verdict`` decides and touches nothing; the rest starts processes and prints.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xpool_protocol.quantities import text_from_nbytes

from xpool_perf.children import Children, end_on_signals
from xpool_perf.demo_arrays import (
    ArrayJob,
    array_example,
    array_job_from_json,
    array_report,
    array_verdict,
    inertia_difference,
)
from xpool_perf.pool import (
    RunFailed,
    example,
    own_environment,
    run_to_end,
    start_pool,
    xpool_run,
)

MAX_LOSS_DIFFERENCE = 1e-5
"""Both sides run the same CPU kernels on the same threads: what is left is order."""

MIN_ACCURACY = 0.95


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What all runs wrote."""

    remote: Job
    local: Job
    stats: ServerCount
    remote_arrays: ArrayJob
    local_arrays: ArrayJob
    array_stats: ServerCount


def measure(folder: Path, env: dict[str, str], epochs: int) -> Measured:
    """Run the scripts in a pool, then locally, and read what they wrote.

    Raises:
        RunFailed: a process failed, or wrote something unreadable.
    """

    def show(name: str, line: str) -> None:
        print(f"{name:<6} | {line}", flush=True)

    def job_argv(output: str) -> list[str]:
        return [str(example()), "--epochs", str(epochs), "--json", str(folder / output)]

    with Children(show) as children:
        pool = start_pool(children, folder, env)
        stats = ["--stats-json", str(folder / "stats.json")]
        remote = xpool_run(pool.registry, *stats, *job_argv("remote.json"))
        run_to_end(children, "remote", remote, env)
        stats = ["--stats-json", str(folder / "array_stats.json")]
        arrays = [str(array_example()), "--json"]
        there = [*arrays, str(folder / "remote_arrays.json")]
        run_to_end(children, "remote", xpool_run(pool.registry, *stats, *there), env)
        # The pool goes first: its threads must not slow the run it is compared with.
        children.end(pool.child)
        run_to_end(children, "local", [sys.executable, *job_argv("local.json")], env)
        here = [*arrays, str(folder / "local_arrays.json"), "--array-module", "numpy"]
        run_to_end(children, "local", [sys.executable, *here], env)

    def text(name: str) -> str:
        return (folder / name).read_text()

    try:
        return Measured(
            remote=job_from_json(text("remote.json")),
            local=job_from_json(text("local.json")),
            stats=server_count_from_json(text("stats.json")),
            remote_arrays=array_job_from_json(text("remote_arrays.json")),
            local_arrays=array_job_from_json(text("local_arrays.json")),
            array_stats=server_count_from_json(text("array_stats.json")),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunFailed(f"a run left no readable figures: {error!r}") from error


def as_json(measured: Measured, failed: list[str]) -> str:
    """Everything that was measured, as one JSON object."""
    figures: dict[str, Any] = {
        "remote": asdict(measured.remote),
        "local": asdict(measured.local),
        "server": asdict(measured.stats),
        "remote_arrays": asdict(measured.remote_arrays),
        "local_arrays": asdict(measured.local_arrays),
        "array_server": asdict(measured.array_stats),
        "failed": failed,
    }
    differences = {
        "loss_difference": loss_difference(measured.remote, measured.local),
        "inertia_difference": inertia_difference(
            measured.remote_arrays, measured.local_arrays
        ),
    }
    for name, difference in differences.items():
        # JSON has no infinity; null says that the runs cannot be compared.
        figures[name] = difference if math.isfinite(difference) else None
    return json.dumps(figures, indent=2) + "\n"


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
    end_on_signals("demo")
    try:
        with tempfile.TemporaryDirectory(prefix="xpool-demo-") as folder:
            env = own_environment(args.threads)
            measured = measure(Path(folder), env, args.epochs)
    except RunFailed as error:
        print(f"demo: failed: {error}", file=sys.stderr)
        return 1
    torch_runs = (measured.remote, measured.local, measured.stats)
    array_runs = (
        measured.remote_arrays,
        measured.local_arrays,
        measured.array_stats.executed_ops,
    )
    failed = [*verdict(*torch_runs), *array_verdict(*array_runs)]
    print(f"\n{report(*torch_runs)}\n\n{array_report(*array_runs)}\n")
    if args.json:
        args.json.write_text(as_json(measured, failed))
    for sentence in failed:
        print(f"demo: failed: {sentence}", file=sys.stderr)
    if not failed:
        print("demo: the jobs ran in the pool and gave the local results")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
