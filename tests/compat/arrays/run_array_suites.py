"""Runs suites of others over ``import cupy``, through a pool of real processes.

    make conformance SUITES=DIR [CONFORMANCEARGS='--only math,fft --docs']

DIR holds checkouts that the user has made: ``cupy`` (github.com/cupy/cupy) and
``array-api-tests`` (github.com/data-apis/array-api-tests, with its submodule); CuPy's
``cupy.testing`` is taken from there. Each folder of tests runs in a session of its own,
with ``XPOOL_AUDIT=1``: every prediction is compared with the server's truth.

What fails is compared with ``xfails.txt``, which has one reason a line. Exit status 0
if nothing failed but what stands there, nothing there passes, and no prediction was
wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import array_page
from support.ending import end_in_order
from support.pool import Pool

XFAILS = HERE / "xfails.txt"
FIGURES = HERE / "figures.json"
"""Each suite's figures when it last ran with ``--docs``: they take long together."""
ARRAY_API, EXAMPLES, SKLEARN = "array_api", "examples", "sklearn"
OTHERS = (ARRAY_API, EXAMPLES, SKLEARN)
FOLDERS = (
    *(one for one in array_page.AIMS if one not in OTHERS),
    "lib",
    "cupyx_signal",
)
WHOSE = {"scipy_": "cupyx_tests/scipy_tests", "cupyx_": "cupyx_tests"}
"""Where folders of tests lie, by how a suite's name begins."""
NAMES = (ARRAY_API, *FOLDERS, EXAMPLES, SKLEARN)
AT_TIMES = "at times: "
MEMORY_GIB = {EXAMPLES: 4}
"""Of a suite's session, where one is not enough."""
TIMEOUT_S = 3_600.0
AUDITED = re.compile(r"audit: (\d+) predictions, (\d+) mismatches, (\d+) late errors")


@dataclass(slots=True)
class Sum:
    """One suite's outcomes."""

    counts: Counter[str] = field(default_factory=Counter)
    predictions: int = 0
    mismatches: int = 0
    late_errors: int = 0
    commit: str = ""
    """Of the project, when it ran."""

    @property
    def percent(self) -> float:
        """Of those that count: neither skipped nor out of scope."""
        good = self.counts["passed"] + self.counts["xfailed"]
        bad = self.counts["failed"] + self.counts["uncollected"]
        return 100 * good / (good + bad) if good + bad else 0.0


def say(text: str) -> None:
    """Show progress; stdout is for the result alone."""
    print(f"conformance: {text}", file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suites", type=Path, metavar="DIR", help="the checkouts")
    parser.add_argument(
        "--only",
        type=lambda text: tuple(one for one in text.split(",") if one),
        default=(),
        help=f"comma-separated: {', '.join(NAMES)}",
    )
    parser.add_argument("--parts", type=int, default=2, help="suites side by side")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of the server"
    )
    parser.add_argument("--no-audit", action="store_true", help="predict unwatched")
    parser.add_argument("--lines", type=Path, help="keep every line in this folder")
    parser.add_argument(
        "--judge", action="store_true", help="run nothing: judge what --lines has kept"
    )
    parser.add_argument("--docs", action="store_true", help="write docs/compat/cupy.md")
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser.parse_args()


def suites_in(folder: Path, only: tuple[str, ...]) -> list[str]:
    """What is to be run, of what is there.

    Raises:
        SystemExit: there is nothing to run, or a part of it is missing.
    """
    there = []
    if (folder / "array-api-tests").is_dir():
        if not (folder / "array-api-tests" / "array-api" / "spec").is_dir():
            sys.exit(
                "conformance: array-api-tests lacks its submodule:"
                " run 'git submodule update --init' there"
            )
        there.append(ARRAY_API)
    if (folder / "cupy" / "tests").is_dir():
        there += [*FOLDERS, EXAMPLES]
    if there:  # it is installed, and needs no checkout
        there.append(SKLEARN)
    chosen = [one for one in there if not only or one in only]
    if not chosen:
        sys.exit(f"conformance: {folder} holds none of these suites: see --help")
    return chosen


def sklearn_tests() -> list[str]:
    """Tests of the installed scikit-learn that run over each array library."""
    (root,) = importlib.util.find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr]
    return [
        str(path)
        for path in sorted(Path(root).rglob("test_*.py"))
        if "yield_namespace_device" in path.read_text()
    ]


def command(folder: Path, name: str) -> tuple[list[str], Path, dict[str, str]]:
    """Pytest's arguments, where to run it, and what its plugin has to know."""
    usual = ["-q", "-p", "no:cacheprovider", "--tb=short"]
    if name == ARRAY_API:
        env = {"ARRAY_API_TESTS_MODULE": "array_api_compat.cupy"}
        own = ["-p", "array_api_suite", "--max-examples", "5", "--disable-deadline"]
        own += ["--hypothesis-seed", "0"]  # the same examples each time
        return [*own, *usual, "array_api_tests"], folder / "array-api-tests", env
    checkout = folder / "cupy"
    if name == SKLEARN:
        env = {"SCIPY_ARRAY_API": "1", "SKLEARN_SKIP_NETWORK_TESTS": "1"}
        own = ["-p", "sklearn_suite", "-c", "/dev/null"]
        tests = sklearn_tests()
        return (
            [*own, *usual, "--rootdir", str(Path(tests[0]).parents[2]), *tests],
            HERE,
            env,
        )
    if name == EXAMPLES:
        env = {"ARRAY_SUITE_EXAMPLES": str(checkout / "examples")}
        own = [
            "-p",
            "array_api_suite",
            "-p",
            "no:hypothesispytest",
            "-c",
            "/dev/null",
            "--rootdir",
            str(HERE),
        ]
        return [*own, *usual, "example_tests.py"], HERE, env
    whose = next((one for one in WHOSE if name.startswith(one)), "")
    tests = f"{WHOSE.get(whose, 'cupy_tests')}/{name.removeprefix(whose)}_tests"
    own = [
        *("-p", "cupy_suite", "-m", "not multi_gpu and not slow"),
        *("-o", "xfail_strict=false", "--continue-on-collection-errors"),
        *("-W", "ignore::DeprecationWarning"),
        *("-c", str(checkout / "pyproject.toml"), "--rootdir", str(checkout / "tests")),
    ]
    env = {"ARRAY_SUITE_CHECKOUT": str(checkout)}
    return [*own, *usual, tests], checkout / "tests", env


def start(
    pool: Pool, folder: Path, name: str, out: Path, *, is_audited: bool
) -> subprocess.Popen[bytes]:
    """Begin one suite."""
    arguments, where, own = command(folder, name)
    lines = out / f"{name}.jsonl"
    lines.unlink(missing_ok=True)
    lines.touch()
    env = {
        **own,
        "ARRAY_SUITE_OUT": str(lines),
        "PYTHONPATH": str(HERE),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
    }
    if is_audited:
        env["XPOOL_AUDIT"] = "1"
    (out / f"{name}.commit").write_text(commit_of(HERE))
    log = (out / f"{name}.log").open("wb")
    run = [sys.executable, "-m", "xpool", "run", "--registry", pool.registry]
    memory = f"{MEMORY_GIB.get(name, 1)}GiB"
    return subprocess.Popen(
        [*run, "--memory", memory, "--slice", "10%", "-m", "pytest", *arguments],
        cwd=where,
        env=pool.environment(env),
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def run(
    folder: Path,
    names: list[str],
    out: Path,
    parts: int,
    *,
    device: str,
    is_audited: bool,
) -> None:
    """Run suites, some at a time."""
    waiting, running = list(names), dict[str, subprocess.Popen[bytes]]()
    with Pool(out, ttl="30s") as pool:
        pool.start_registry()
        devices = "cuda:0" if device == "cuda" else f"cpu,memory={4 * parts}GiB"
        server = ("--threads", "1", "--devices", devices)
        pool.start_server("suites", *server, light=False)
        deadline = time.monotonic() + TIMEOUT_S * len(names)
        try:
            while waiting or running:
                while waiting and len(running) < parts:
                    name = waiting.pop(0)
                    say(f"running {name}")
                    running[name] = start(
                        pool, folder, name, out, is_audited=is_audited
                    )
                for name in [one for one, p in running.items() if p.poll() is not None]:
                    del running[name]
                    say(f"{name}: {summed(out, name).percent:.2f} %")
                if time.monotonic() > deadline:
                    sys.exit("conformance: the suites take too long")
                time.sleep(0.5)
        finally:
            for process in running.values():
                process.kill()
                process.wait()


def lines_of(out: Path, name: str) -> list[dict[str, str]]:
    """What the plugin wrote; the last word on a test counts."""
    found = {}
    for text in (out / f"{name}.jsonl").read_text().splitlines():
        line = json.loads(text)
        found[line["id"]] = line
    return list(found.values())


def summed(out: Path, name: str) -> Sum:
    """One suite's outcomes; a suite that wrote nothing has failed as a whole."""
    found = Sum(Counter(line["outcome"] for line in lines_of(out, name)))
    ran_at = out / f"{name}.commit"
    found.commit = ran_at.read_text() if ran_at.exists() else ""
    if not found.counts:
        found.counts["uncollected"] = 1
    audited = AUDITED.search((out / f"{name}.log").read_text(errors="replace"))
    if audited is not None:
        found.predictions, found.mismatches, found.late_errors = map(
            int, audited.groups()
        )
    return found


def expected() -> dict[str, str]:
    """Tests that are known to fail, and why: ``suite::test  # reason`` a line.

    A name that ends with ``*`` stands for all that begin so; with ``* ~ text`` for
    those whose error has this text. A reason that begins with ``at times:`` is one of
    a test that draws, and may pass.

    Raises:
        SystemExit: a line has no reason, or one stands twice.
    """
    found: dict[str, str] = {}
    if not XFAILS.exists():
        return found
    for line in XFAILS.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        test, mark, reason = line.partition("  # ")
        if not mark or not reason.strip() or test in found:
            sys.exit(f"conformance: a line of {XFAILS.name} is wrong: {line}")
        found[test] = reason
    return found


def stands_for(pattern: str, test: str, line: dict[str, str]) -> bool:
    """Whether a line with ``*`` is about this failure."""
    beginning, _, text = pattern.partition(" ~ ")
    return test.startswith(beginning[:-1]) and text in line.get("error", "")


def judged(out: Path, names: list[str]) -> list[str]:
    """What is wrong, a line each."""
    known, wrong = expected(), []
    prefixes = [one for one in known if one.partition(" ~ ")[0].endswith("*")]
    for name in names:
        used: set[str] = set()
        states = {f"{name}::{one['id']}": one for one in lines_of(out, name)}
        for test, line in states.items():
            is_bad = line["outcome"] in ("failed", "uncollected")
            fitting = {one for one in prefixes if stands_for(one, test, line)}
            if is_bad and test not in known and fitting:
                used |= fitting
            elif is_bad and test not in known:
                error = " ".join(line.get("error", "").split())
                wrong.append(f"{line['outcome']} {test}  # {error[:160]}")
            is_left = line["outcome"] == "skipped" or known.get(test, "").startswith(
                AT_TIMES
            )
            if not is_bad and test in known and not is_left:
                wrong.append(f"stale in {XFAILS.name}: {test}")
        wrong += [
            f"stale in {XFAILS.name}: {one}"
            for one in prefixes
            if one.startswith(f"{name}::") and one not in used
        ]
        total = summed(out, name)
        if total.mismatches:
            wrong.append(f"{name}: {total.mismatches} predictions were wrong")
    return wrong


def main() -> int:
    end_in_order()
    options, began = parsed(), datetime.now(UTC)
    folder = options.suites.resolve()
    names = suites_in(folder, options.only)
    with tempfile.TemporaryDirectory() as temporary:
        out = (options.lines or Path(temporary)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        is_audited = not options.no_audit
        if options.judge:
            names = [name for name in names if (out / f"{name}.jsonl").exists()]
        else:
            run(
                *(folder, names, out, options.parts),
                device=options.device,
                is_audited=is_audited,
            )
        sums = {name: summed(out, name) for name in names}
        wrong = judged(out, names)
    if options.docs:
        page = array_page.write(kept(sums, began), expected(), began, versions(folder))
        say(f"wrote {page}")
    if options.json:
        print(json.dumps(array_page.figures(sums)))
    else:
        print("\n".join(wrong + array_page.table(sums)))
    return 1 if wrong else 0


def kept(sums: dict[str, Sum], began: datetime) -> dict[str, Sum]:
    """Every suite's last figures: these now, and those that ran at another time."""
    figures = array_page.figures(sums)
    before = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    now = {
        name: {
            **one,
            "date": f"{began:%Y-%m-%d}",
            "commit": sums[name].commit,
            "counts": dict(sums[name].counts),
        }
        for name, one in figures.items()
    }
    every = {
        name: one for name in NAMES if (one := {**before, **now}.get(name)) is not None
    }
    FIGURES.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")
    return {
        name: Sum(
            Counter(one["counts"]),
            *(one["predictions"], one["mismatches"], one["late_errors"]),
            commit=one.get("commit", ""),
        )
        for name, one in every.items()
    }


def versions(folder: Path) -> dict[str, str]:
    """The commits of the checkouts."""
    return {
        name: commit_of(folder / name)
        for name in ("cupy", "array-api-tests")
        if (folder / name / ".git").exists()
    }


def commit_of(folder: Path) -> str:
    """What a folder was checked out at, a ``+`` behind it if files were changed."""
    argv = ["git", "-C", str(folder), "describe", "--always", "--exclude=*"]
    argv += ["--abbrev=9", "--dirty=+"]
    ran = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ))
    return ran.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
