"""One tenant of a shared device: keeps it busy, or asks it now and then.

``tenant.py saturate SEED``: products of matrices that take 0.05 to 20 ms on one core of
a CPU, without a pause, a few tens of milliseconds ahead of the device. After each
group of them one line: the moment and the work done so far, in multiply-adds.
``tenant.py train SEED`` and ``misbehave SECONDS``: below.
``tenant.py ask PAUSE_MS``: a small inference, its answer read, a pause; one line each:
the moment and the seconds from its first operation to its answer.

Lines are JSON; the clock is monotonic, so that all processes of a machine share it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import deque
from typing import Final

import torch

SIZES: Final = (96, 128, 192, 256, 320, 400, 512, 640, 800, 1024)
AHEAD: Final = 16
"""Groups that may be under way."""
GROUP_FLOP: Final = 2e9


def say(*values: float) -> None:
    """One line for who measures."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def saturate(seed: int) -> None:
    """Never let the device wait."""
    draw = random.Random(seed)  # noqa: S311  a mix of work, no secret
    matrices = {n: torch.rand(n, n, device="cuda") for n in SIZES}
    outputs = {n: torch.empty(n, n, device="cuda") for n in SIZES}
    # As often as each takes a like part of the time: many short ones, few long ones.
    weights = [1 / n**2 for n in SIZES]
    under_way: deque[tuple[torch.cuda.Event, float]] = deque()
    done = 0.0
    while True:
        work = 0.0
        while work < GROUP_FLOP:
            n = draw.choices(SIZES, weights)[0]
            torch.mm(matrices[n], matrices[n], out=outputs[n])
            work += float(n) ** 3
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        under_way.append((event, work))
        if len(under_way) >= AHEAD:
            first, work = under_way.popleft()
            first.synchronize()
            done += work
            say(time.monotonic(), done)


def ask(pause_s: float) -> None:
    """A few layers for one row, again and again."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(256, 256) for _ in range(4)]
    model = torch.nn.Sequential(*layers).to("cuda")
    row = torch.rand(8, 256).to("cuda")
    with torch.no_grad():
        while True:
            began = time.monotonic()
            model(row).sum().item()
            ended = time.monotonic()
            say(ended, ended - began)
            time.sleep(pause_s)


def train(seed: int) -> None:
    """A small model on batches that take a while to come, its loss read each step."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    ).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps = 0.0
    while True:
        time.sleep(0.02)  # a loader that reads and decodes
        batch, target = torch.rand(256, 64), torch.randint(10, (256,))
        out = model(batch.to("cuda"))
        loss = torch.nn.functional.cross_entropy(out, target.to("cuda"))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        steps += 1
        say(time.monotonic(), steps)


def misbehave(lifetime_s: float) -> None:
    """Flood the server with small operations, leak until refused, and crash."""
    began = time.monotonic()
    one, leaked = torch.ones(16, device="cuda"), []
    say(began, 0)
    while time.monotonic() - began < lifetime_s:
        for _ in range(2000):
            one.add_(1)
        try:
            leaked.append(torch.ones(1 << 18, device="cuda"))
        except torch.OutOfMemoryError:
            one.sum().item()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Work until somebody ends this process."""
    what, value = sys.argv[1:]
    match what:
        case "saturate":
            saturate(int(value))
        case "ask":
            ask(float(value) / 1000)
        case "train":
            train(int(value))
        case "misbehave":
            misbehave(float(value))


if __name__ == "__main__":
    main()
