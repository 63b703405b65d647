"""Two tenants of one device: a training job with 70 %, an inference job with 30 %.

    xpool up                      # in another terminal
    python examples/two_tenants.py --seconds 60

Both are started and stopped at random for as long as is asked for, and until they have
met. Both check what they compute. At the end it says which part of the device each got
of what both used while both had work. The jobs are ordinary PyTorch; everything about
the pool is in ``xpool run --slice`` and ``xpool admin leases``.
"""

import argparse
import json
import random
import subprocess
import sys
import time

SHARES = {"train": 70, "infer": 30}


def train() -> None:
    """Fit a linear map, again and again; a fit that misses is an error."""
    import torch

    while True:
        torch.manual_seed(0)
        x = torch.randn(16384, 256, device="cuda")
        w = torch.rand(256, 64, device="cuda")
        y = x @ w
        model = torch.nn.Linear(256, 64, bias=False, device="cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(60):  # so large that the device is the limit, not the host
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 1, loss
        print("fitted", flush=True)


def infer() -> None:
    """Answer requests in batches; the answers are known."""
    import torch

    identity = torch.eye(256, device="cuda")
    model = torch.nn.Linear(256, 256, bias=False, device="cuda")
    with torch.no_grad():
        model.weight.copy_(identity)
        while True:
            rows = torch.rand(512, 256, device="cuda")
            out = rows
            for _ in range(40):
                out = model(out)
            assert torch.equal(out, rows)
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


def used(registry: str) -> dict[int, int]:
    """Device time in ns by promised share, as the pool tells it."""
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "xpool", "admin", "leases", "--json"),
            *("--registry", registry),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        one["share_percent"]: one["device_ns"] or 0 for one in json.loads(shown.stdout)
    }


def main() -> None:
    """Run the two until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", default="127.0.0.1:7700")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", choices=("train", "infer"))
    args = parser.parse_args()
    if args.job:
        {"train": train, "infer": infer}[args.job]()
    draw = random.Random(args.seed)
    jobs: dict[str, Job] = {}
    results = dict.fromkeys(SHARES, 0)
    together = dict.fromkeys(SHARES.values(), 0)
    for what in SHARES:  # each works at least once
        results[what] += Job(what, args.registry).stop()
    until = time.monotonic() + args.seconds
    while time.monotonic() < until or not any(together.values()):
        what = draw.choice(list(SHARES))
        if len(jobs) == 2 or what in jobs:
            results[what] += jobs.pop(what).stop()
            continue
        jobs[what] = Job(what, args.registry)
        if len(jobs) == 2:
            time.sleep(1.5)  # until the server has told of both
            before = used(args.registry)
            time.sleep(max(4.0, draw.uniform(4, 8)))
            after = used(args.registry)
            for share in together:
                together[share] += after[share] - before[share]
    for what, job in jobs.items():
        results[what] += job.stop()
    whole = sum(together.values())
    report = {
        "results": results,
        "got_percent": {
            what: round(100 * together[share] / whole, 1) if whole else None
            for what, share in SHARES.items()
        },
        "device_s": round(whole / 1e9, 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
