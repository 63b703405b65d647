"""Two tenants of one device: a training job with 70 %, an inference job with 30 %.

    xpool up                      # in another terminal
    python examples/two_tenants.py --seconds 60

Both are started and stopped at random for as long as is asked for, and until they have
competed for some seconds. Both check what they compute. At the end it says which part
of the device each got of what both used while both had work: a server meters how long a
job held the device and how long it waited for it, and a job that did one or the other
nearly all of the time had work. The jobs are ordinary PyTorch; everything about the
pool is in ``xpool run --slice`` and ``xpool admin leases``.
"""

import argparse
import collections
import json
import random
import subprocess
import sys
import time

SHARES = {"train": 70, "infer": 30}


HAD_WORK = 0.8
"""A job had work in this part of the time, at least, if the time is to count."""

COMPETING_S = 6.0
"""Device time of such times until it is enough."""


def train() -> None:
    """Fit a linear map, again and again; a fit that misses is an error."""
    import torch

    losses: collections.deque[torch.Tensor] = collections.deque()
    while True:
        torch.manual_seed(0)
        x = torch.randn(16384, 256, device="cuda")
        w = torch.rand(256, 64, device="cuda")
        y = x @ w
        model = torch.nn.Linear(256, 64, bias=False, device="cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(60):
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
        if len(losses) > 1:  # the device never waits for a loss to be looked at
            last = losses.popleft().item()
            assert last < 1, last
            print("fitted", flush=True)


def infer() -> None:
    """Answer requests in batches, some ahead; the answers are known."""
    import torch

    identity = torch.eye(256, device="cuda")
    model = torch.nn.Linear(256, 256, bias=False, device="cuda")
    answers: collections.deque[torch.Tensor] = collections.deque()
    with torch.no_grad():
        model.weight.copy_(identity)
        while True:
            rows = torch.rand(512, 256, device="cuda")
            out = rows
            for _ in range(40):
                out = model(out)
            answers.append((out == rows).all())
            if len(answers) > 8:
                assert answers.popleft().item()
                print("answered", flush=True)


class Job:
    """A job under ``xpool run``, and how often it said that it was right."""

    def __init__(self, what: str, registry: str) -> None:
        self.share = SHARES[what]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "xpool", "run", "--registry", registry),
                *("--slice", f"{self.share}%", "--memory", "256MiB"),
                *(__file__, "--job", what),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()  # the first result: it is under way

    def stop(self) -> int:
        """End the job; how many results it had."""
        assert self.process.poll() is None, "a job has failed: see above"
        self.process.terminate()
        said, _ = self.process.communicate(timeout=30)
        return 1 + len(said.splitlines())


class Competition:
    """What the pool's server has metered while both jobs had work."""

    def __init__(self, registry: str) -> None:
        self.registry = registry
        self.device_ns = dict.fromkeys(SHARES.values(), 0)

    @property
    def device_s(self) -> float:
        """Device time of both."""
        return sum(self.device_ns.values()) / 1e9

    def metered(self) -> dict[int, dict[str, int]]:
        """Each lease's counters, by promised share."""
        shown = subprocess.run(
            [
                *(sys.executable, "-m", "xpool", "admin", "leases", "--json"),
                *("--registry", self.registry),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return {
            one["share_percent"]: {
                name: one[name] or 0 for name in ("device_ns", "held_ns", "waiting_ns")
            }
            for one in json.loads(shown.stdout)
        }

    def watch(self, seconds: float) -> None:
        """Count the next seconds if both have work."""
        began, before = time.monotonic_ns(), self.metered()
        time.sleep(seconds)
        ended, after = time.monotonic_ns(), self.metered()
        spent = {
            share: {name: after[share][name] - before[share][name] for name in counters}
            for share, counters in before.items()
        }
        if all(
            one["held_ns"] + one["waiting_ns"] >= HAD_WORK * (ended - began)
            for one in spent.values()
        ):
            for share, one in spent.items():
                self.device_ns[share] += one["device_ns"]


def main() -> None:
    """Run the two until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", default="127.0.0.1:7700")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patience",
        type=float,
        default=120,
        help="seconds beyond, to see them compete",
    )
    parser.add_argument("--job", choices=("train", "infer"))
    args = parser.parse_args()
    if args.job:
        {"train": train, "infer": infer}[args.job]()
    draw = random.Random(args.seed)
    jobs: dict[str, Job] = {}
    results = dict.fromkeys(SHARES, 0)
    competition = Competition(args.registry)
    for what in SHARES:  # each works at least once
        results[what] += Job(what, args.registry).stop()
    until = time.monotonic() + args.seconds
    while time.monotonic() < until or competition.device_s < COMPETING_S:
        assert time.monotonic() < until + args.patience, "they never both had work"
        what = draw.choice(list(SHARES))
        if len(jobs) == 2 or what in jobs:
            results[what] += jobs.pop(what).stop()
            continue
        jobs[what] = Job(what, args.registry)
        if len(jobs) == 2:
            time.sleep(1.5)  # until the server has told of both
            for _ in range(draw.randint(2, 4)):
                competition.watch(2.5)
    for what, job in jobs.items():
        results[what] += job.stop()
    got = competition.device_ns
    report = {
        "results": results,
        "got_percent": {
            what: round(got[share] / 1e7 / competition.device_s, 1)
            for what, share in SHARES.items()
        },
        "device_s": round(competition.device_s, 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
