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
from types import FrameType
from typing import Final

import torch

SIZES: Final = (96, 128, 192, 256, 320, 400, 512, 640, 800, 1024)
COUNTS: Final = tuple(round(1024**2 / n**2) for n in SIZES)
"""Of each size in a round: many short ones and few long ones."""
PARTS: Final = 6
"""A round is asked for in so many groups."""
AHEAD: Final = 24
"""Groups that may be under way: some hundred milliseconds of the device."""
HOST_S: Final = 0.025
LOG_S: Final = 0.1
LOG_STEPS: Final = 25


def say(*values: float) -> None:
    """One line for who measures."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


class Gate:
    """SIGUSR1 closes it, SIGUSR2 opens it: whoever measures lets others work now."""

    def __init__(self) -> None:
        self._is_closed = False
        signal.signal(signal.SIGUSR1, self._hear)
        signal.signal(signal.SIGUSR2, self._hear)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._is_closed = number == signal.SIGUSR1

    def wait(self) -> None:
        """Return when it is open."""
        while self._is_closed:
            time.sleep(0.1)


def saturate(seed: int) -> None:
    """Never let the device wait. Every round has the same operations."""
    draw = random.Random(seed)  # noqa: S311  a mix of work, no secret
    matrices = {n: torch.rand(n, n, device="cuda") for n in SIZES}
    outputs = {n: torch.empty(n, n, device="cuda") for n in SIZES}
    whole = [n for n, count in zip(SIZES, COUNTS, strict=True) for _ in range(count)]
    under_way: deque[tuple[torch.cuda.Event, float]] = deque()
    done, gate = 0.0, Gate()
    while True:
        draw.shuffle(whole)
        for part in range(PARTS):
            gate.wait()
            group = whole[part::PARTS]
            for n in group:
                torch.mm(matrices[n], matrices[n], out=outputs[n])
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            under_way.append((event, sum(float(n) ** 3 for n in group)))
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
    """A small model, its loss read each step, about half of the time on the device.

    What the job's own host does between two steps (read and decode a batch, and every
    ``LOG_STEPS`` write a log) is played by pauses: eight such jobs would have hosts of
    their own, and here they have one processor together.
    """
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
    ).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch, target = torch.rand(2048, 512), torch.randint(10, (2048,))
    steps, gate = 0.0, Gate()
    while True:
        gate.wait()
        time.sleep(HOST_S)
        out = model(batch.to("cuda"))
        loss = torch.nn.functional.cross_entropy(out, target.to("cuda"))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        steps += 1
        say(time.monotonic(), steps)
        if steps % LOG_STEPS == 0:
            time.sleep(LOG_S)


def misbehave(lifetime_s: float) -> None:
    """Flood the server with small operations, leak until refused, and crash."""
    began = time.monotonic()
    one, leaked = torch.ones(16, device="cuda"), []
    say(began, 0)
    while time.monotonic() - began < lifetime_s:
        say(time.monotonic(), 1)
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
