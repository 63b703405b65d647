"""``python -m xpool_perf``: run a scenario, compare two results, render them all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from xpool_perf import report, results
from xpool_perf.array_ops import ARRAY_OPS
from xpool_perf.children import end_on_signals
from xpool_perf.fleet import FLEET
from xpool_perf.gpu_host import MISSING, Missing, device_name
from xpool_perf.machine import commit_of, this_machine
from xpool_perf.main_job import MAIN_JOB
from xpool_perf.path_scenarios import DECODE, TRAIN, TRANSFER
from xpool_perf.placement_replay import PLACEMENT_REPLAY
from xpool_perf.pool import RunFailed, repository
from xpool_perf.registry_faults import REGISTRY_FAULTS
from xpool_perf.results import Result, ResultUnreadable
from xpool_perf.scenario import Scenario, Settings
from xpool_perf.shares import SHARES
from xpool_perf.startup import STARTUP
from xpool_perf.torch_compat import TORCH_COMPAT
from xpool_perf.torch_ops import TORCH_OPS

SCENARIOS: Final = {
    one.name: one
    for one in (
        *(MAIN_JOB, TORCH_OPS, TRAIN, DECODE, TRANSFER, STARTUP, TORCH_COMPAT),
        *(PLACEMENT_REPLAY, FLEET, REGISTRY_FAULTS, ARRAY_OPS, SHARES),
    )
}
COMMANDS: Final = (*SCENARIOS, "compare", "render")
PROGRAM: Final = "xpool_perf"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{PROGRAM}: {message}\n")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    whole = Parser(
        prog=f"python -m {PROGRAM}",
        description="Measure the pool against the same work done locally.",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for scenario in SCENARIOS.values():
        options = commands.add_parser(scenario.name, help=scenario.summary)
        add_scenario(options, scenario)
        if scenario.has_nodes:
            options.add_argument(
                "--nodes",
                type=positive,
                default=Settings().nodes,
                metavar="N",
                help=f"servers that are played (default: {Settings().nodes})",
            )
        if scenario.parts:
            options.add_argument(
                "--only",
                action="append",
                choices=tuple(scenario.parts),
                default=[],
                help="measure this part alone; may be repeated",
            )
        if scenario.path_help:
            options.add_argument(
                "path", nargs="?", type=Path, metavar="PATH", help=scenario.path_help
            )
    compare = commands.add_parser(
        "compare", help="show what changed between two results, and what is noise"
    )
    compare.add_argument("before", type=Path, metavar="A.json")
    compare.add_argument("after", type=Path, metavar="B.json")
    commands.add_parser("render", help="write perf/RESULTS.md from perf/results/")
    return whole


def add_scenario(options: argparse.ArgumentParser, scenario: Scenario) -> None:
    """The options that every scenario has."""
    usual = Settings(runs=scenario.default_runs)
    options.add_argument(
        "--device",
        choices=scenario.devices,
        default=usual.device,
        help=f"of the server and of the local side (default: {usual.device})",
    )
    options.add_argument(
        "--plot", default="", metavar="FILE", help="draw a picture (shares only)"
    )
    options.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    options.add_argument(
        "--keep",
        action="store_true",
        help="write the result to perf/results/ and render perf/RESULTS.md",
    )
    for name, what in (
        ("runs", "samples of each kind"),
        ("threads", "CPU threads of each process"),
        ("epochs", "epochs of the training loop"),
        ("steps", "training steps that an operation's costs are averaged over"),
    ):
        default: int = getattr(usual, name)
        options.add_argument(
            f"--{name}",
            type=positive,
            default=default,
            metavar="N",
            help=f"{what} (default: {default})",
        )


def say(text: str) -> None:
    """Show progress; stdout is for the result alone."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def run(scenario: Scenario, settings: Settings) -> Result:
    """Measure.

    Raises:
        RunFailed: a process failed.
    """
    # Before it takes minutes: what is edited meanwhile is not what runs.
    commit, now = commit_of(repository()), datetime.now(UTC)
    figures, device = scenario.chosen(settings), ""
    if settings.device == "cuda":
        figures += scenario.cuda_figures
        device = device_name()
    samples = scenario.measure(settings, say)
    if scenario.parts:  # what could not be measured has been told
        figures = tuple(one for one in figures if {*one.sources} <= samples.keys())
    chosen = {k: v for k, v in asdict(settings).items() if isinstance(v, int)}
    if not scenario.has_nodes:
        del chosen["nodes"]
    machine = this_machine(device)
    return results.result_from_samples(
        scenario.name, figures, samples, chosen, machine, commit, now
    )


def run_scenario(args: argparse.Namespace) -> None:
    """Measure, show, and keep if that was asked for."""
    end_on_signals(PROGRAM)
    settings = Settings(
        device=args.device,
        runs=args.runs,
        threads=args.threads,
        epochs=args.epochs,
        steps=args.steps,
        nodes=getattr(args, "nodes", Settings().nodes),
        plot=args.plot,
        only=tuple(getattr(args, "only", ())),
        path=getattr(args, "path", None),
    )
    scenario = SCENARIOS[args.command]
    result = run(scenario, settings)
    text = results.json_from_result(result) if args.json else report.table(result)
    print(text, end="")
    expected = scenario.chosen(settings)
    missing = [one.name for one in expected if one.name not in result.figures]
    if missing:
        raise RunFailed(f"not measured, see above: {', '.join(missing)}")
    if args.keep:
        say(f"kept in {results.save(result, results_folder())}")
        render()


def render() -> None:
    """Write perf/RESULTS.md anew."""
    path = results_folder().with_name("RESULTS.md")
    path.write_text(report.markdown(results.load_all(results_folder())))
    say(f"rendered {path}")


def results_folder() -> Path:
    """Where results are kept.

    Raises:
        RunFailed: this package is not in a checkout.
    """
    folder = repository() / "perf" / "results"
    if not folder.parent.is_dir():
        raise RunFailed(
            f"{folder.parent} does not exist: results are kept in a checkout of the"
            " repository only"
        )
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] not in (*COMMANDS, "-h", "--help"):
        known = ", ".join(COMMANDS)
        say(f"{arguments[0]!r} is no scenario and no command: write one of {known}")
        return 2
    args = parser().parse_args(arguments)
    try:
        match args.command:
            case "compare":
                before, after = results.load(args.before), results.load(args.after)
                print(report.comparison(before, after), end="")
            case "render":
                render()
            case _:
                run_scenario(args)
    except Missing as what:
        say(str(what))
        return MISSING
    except (RunFailed, ResultUnreadable, ValueError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
