"""``xpool``: the root of the command line, ``run``, ``explain`` and ``up``.

Everything large is imported inside the commands: ``xpool run`` stands before every
job, and what it imports is time that the job waits.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand
from xpool_protocol.errors import PoolError, UsageError

from xpool.lazy import LazyGroup

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run AI jobs, unchanged, on accelerators that stand elsewhere.",
)


class ProgramCommand(TyperCommand):
    """Like python, takes options up to the program; the rest is the program's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Mark where the program begins, then parse as usual."""
        takes_value = {
            name
            for parameter in self.params
            for name in parameter.opts
            if not getattr(parameter, "is_flag", False)
        }
        return super().parse_args(ctx, with_program_marked(args, takes_value))


def with_program_marked(args: list[str], takes_value: set[str]) -> list[str]:
    """Put ``--`` in front of the program's first word.

    >>> with_program_marked(["--slice", "9%", "a.py", "--slice"], {"--slice"})
    ['--slice', '9%', '--', 'a.py', '--slice']
    >>> with_program_marked(["-m", "pkg", "--help"], {"--slice"})
    ['--', '-m', 'pkg', '--help']
    """
    at = 0
    while at < len(args):
        word = args[at]
        if word == "--":
            return args
        if word in ("-m", "-c") or not word.startswith("-"):
            return [*args[:at], "--", *args[at:]]
        at += 2 if word in takes_value else 1
    return args


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda wanted: _show_version() if wanted else None,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Run AI jobs, unchanged, on accelerators that stand elsewhere."""


Program: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="SCRIPT|-m MODULE|-c CODE [ARGS]...",
        help="What to run, as for python. Everything from here on is the program's"
        " own.",
        show_default=False,
    ),
]
Slice: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--slice",
        metavar="PERCENT",
        help="Share of a device's compute, 1% to 100%.",
        show_default="XPOOL_SLICE or 100%",
    ),
]
AtLeast: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENT",
        help="So little will do: it starts where there is no room for more, and is"
        " shrunk to this when others need it.",
        show_default="XPOOL_AT_LEAST or all of --slice",
    ),
]
Memory: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Device memory, for instance 8GiB.",
        show_default="XPOOL_MEMORY or the same share",
    ),
]
Devices: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="How many devices, each with such a slice: cuda:0 to cuda:N-1.",
        show_default="XPOOL_DEVICES or 1",
    ),
]
Registry: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The pool's registry.",
        show_default="XPOOL_REGISTRY or 127.0.0.1:7700",
    ),
]
Mode: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="elastic|capped",
        help="May the job use what others leave idle, or never more than its share.",
        show_default="XPOOL_MODE or elastic",
    ),
]
Priority: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="high|normal|low",
        help="Who goes first in the queue, and who may be asked to leave.",
        show_default="XPOOL_PRIORITY or normal",
    ),
]
Queue: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long to wait for a device: 10m, forever, or no.",
        show_default="XPOOL_QUEUE or forever",
    ),
]
TimeLimit: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="The job is ended after so long: those who wait can be told when, and it"
        " may go before others where it is over in time.",
        show_default="XPOOL_TIME_LIMIT or none",
    ),
]
Place: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="auto|pack|spread",
        help="Where to put it: where it is missed least, on full devices, or on"
        " empty ones.",
        show_default="XPOOL_PLACE or auto",
    ),
]
SameServer: TypeAlias = Annotated[
    bool,
    typer.Option("--same-server", help="All devices on one server, or none."),
]
Require: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Which devices will do: kind, model, arch, memory, server, label.NAME.",
        show_default="XPOOL_REQUIRE or any",
    ),
]
Near: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--near", help="Of what has room the nearest, by round trips measured now."
    ),
]
MaxRtt: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Only servers with a round trip of at most so much, for instance 2ms.",
        show_default="XPOOL_MAX_RTT or any",
    ),
]
CloseBy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL",
        help="All devices on servers with one value of this label, for instance rack.",
        show_default="XPOOL_CLOSE_BY or any",
    ),
]

OnOom: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--on-oom",
        metavar="fail|wait|wait:SECONDS",
        help="What an allocation does that the quota does not hold.",
        show_default="XPOOL_ON_OOM or fail",
    ),
]


@app.command(cls=ProgramCommand)
def run(
    program: Program,
    slice_: Slice = None,
    at_least: AtLeast = None,
    memory: Memory = None,
    devices: Devices = None,
    registry: Registry = None,
    mode: Mode = None,
    priority: Priority = None,
    queue: Queue = None,
    time_limit: TimeLimit = None,
    place: Place = None,
    same_server: SameServer = False,
    require: Require = None,
    near: Near = False,
    max_rtt: MaxRtt = None,
    close_by: CloseBy = None,
    on_oom: OnOom = None,
    stats_json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the server's counters for this job to FILE at its end.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a program on a slice of a device of the pool.

    The program needs no change: what it does on device "cuda" is done by a pool
    server. The slice is given back when the program ends. While no device has
    room the job stands in the registry's queue.
    """
    from xpool.config import job_settings
    from xpool.launched import launcher_arguments, run_launcher
    from xpool.run import exit_like, run_job

    flags = {
        **_flags(registry, slice_, memory, devices, mode),
        "at_least": at_least,
        "priority": priority,
        "queue": queue,
        "time_limit": time_limit,
        "place": place,
        "same_server": "yes" if same_server else None,
        "require": require,
        "near": "yes" if near else None,
        "max_rtt": max_rtt,
        "close_by": close_by,
        "on_oom": on_oom,
    }
    settings = job_settings(flags)
    launcher = launcher_arguments(program)
    if launcher is not None:
        exit_like(run_launcher(settings, launcher))
    exit_like(run_job(settings, program, stats_json))


@app.command(cls=ProgramCommand)
def explain(
    program: Program,
    slice_: Slice = None,
    memory: Memory = None,
    devices: Devices = None,
    registry: Registry = None,
    mode: Mode = None,
    lines: Annotated[
        int, typer.Option(min=1, help="How many lines of source to show.")
    ] = 20,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object; the program's own output goes to stderr.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw a picture, for instance out.png.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a program and show where it waited for the network.

    By line of source: how often, how long, how many bytes; and what the same run
    would take at other distances. The program runs as under "xpool run".
    """
    from xpool.config import job_settings
    from xpool.explain import explain_job

    settings = job_settings(_flags(registry, slice_, memory, devices, mode))
    explain_job(settings, program, as_json=as_json, plot=plot, lines=lines)


def _flags(
    registry: str | None,
    slice_: str | None,
    memory: str | None,
    devices: str | None,
    mode: str | None,
) -> dict[str, str | None]:
    """A job's settings by the keys of ``config.SETTINGS``."""
    return {
        "registry": registry,
        "slice": slice_,
        "memory": memory,
        "devices": devices,
        "mode": mode,
    }


@app.command()
def up(
    registry_listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the registry listens; port 0 takes any free one.",
        ),
    ] = "127.0.0.1:7700",
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the registry keeps its leases.",
            show_default="as for xpool registry",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="What to offer, for instance 'cuda' or 'cpu:2,memory=4GiB'.",
            show_default="every CUDA device, otherwise the CPU",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads of each worker.", show_default="the framework's"
        ),
    ] = None,
    spares: Annotated[
        int, typer.Option(min=0, max=64, help="Warm workers to keep for each device.")
    ] = 1,
) -> None:
    """Start a whole pool on this machine: a registry and one server.

    For trying out: both listen on this machine only, and both end on Ctrl-C.
    """
    from xpool.up import PoolOptions, run_pool

    options = PoolOptions(
        registry_listen=registry_listen,
        store=store,
        devices=devices,
        threads=threads,
        spares=spares,
    )
    run_pool(options, say=typer.echo)


def _show_version() -> None:
    try:
        version = importlib.metadata.version("xpool")
    except importlib.metadata.PackageNotFoundError:  # run from a bare source tree
        version = "unknown"
    typer.echo(f"xpool {version}")
    raise typer.Exit


def main() -> None:
    """Run the command line; never returns."""
    try:
        app(prog_name="xpool")
    except PoolError as error:
        typer.echo(f"xpool: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
