"""Runs torch's OpInfo samples through a pool of real processes and sums up.

    python tests/compat/run_op_suite.py [--dtypes float32,int64] [--ops add,mm]

Starts a registry and a server, runs ``op_suite.py`` under ``xpool run``, and goes on
after the operation in which a process died. Prints the share of entries that agree
with the local CPU, and those that do not. Exit 0 if at least ``--least`` percent do.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.pool import Pool

SUITE = str(HERE / "op_suite.py")
LAST = 10_000
"""Past the end of the list, which holds about 700."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_suite(pool: Pool, path: Path, arguments: list[str]) -> None:
    """Run from the first operation to the last, past every crash."""
    first = 0
    while True:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "xpool", "run", "--registry", pool.registry),
                *(SUITE, str(path), str(first), str(LAST), *arguments),
            ],
            # As many threads as the server has: sums in another order differ.
            env=pool.environment({"OMP_NUM_THREADS": "1"}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        lines = lines_of(path)
        if not lines:
            raise SystemExit(f"the suite did not start:\n{ended.stderr[-2000:]}")
        if lines[-1]["state"] == "end":
            return
        crash = {
            "i": lines[-1]["i"],
            "op": lines[-1]["op"],
            "dtype": "any",
            "variant": "any",
            "state": "crash",
            "error": f"status {ended.returncode}: {ended.stderr[-300:]}",
        }
        with path.open("a") as file:
            file.write(json.dumps(crash) + "\n")
        first = crash["i"] + 1
        print(f"went on after {crash['op']}", file=sys.stderr)


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    counts = collections.Counter(line["state"] for line in lines)
    ran = counts["pass"] + counts["fail"] + counts["crash"]
    return {
        "entries": ran,
        "passed": counts["pass"],
        "skipped": counts["skip"],
        "crashed": counts["crash"],
        "pass_percent": round(100 * counts["pass"] / max(1, ran), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dtypes", default="float32", help="comma-separated")
    parser.add_argument("--ops", default="", help="only these, comma-separated")
    parser.add_argument("--least", type=float, default=0.0, help="percent")
    parser.add_argument("--json", type=Path, help="keep every line here")
    options = parser.parse_args()
    arguments = options.dtypes.split(",")
    arguments += [f"only={name}" for name in options.ops.split(",") if name]
    with tempfile.TemporaryDirectory() as folder:
        path = options.json or Path(folder) / "lines.jsonl"
        path.write_text("")
        with Pool(Path(folder)) as pool:
            pool.start_registry()
            server = ("--threads", "1", "--devices", "cpu,memory=4GiB")
            pool.start_server("one", *server, light=False)
            run_suite(pool, path, arguments)
        lines = lines_of(path)
    for line in lines:
        if line["state"] in ("fail", "crash"):
            what = f"{line['op']} {line['dtype']} {line['variant']}"
            print(f"{what}: {line['error'].splitlines()[0][:160]}")
    totals = summary(lines)
    print(json.dumps(totals))
    return 0 if totals["pass_percent"] >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
