"""What recording costs the client: ``xpool run training_costs.py EXAMPLE STEPS``.

Runs the example's own ``train_one_epoch`` over batches that lie on the device
already, so that nothing but the training step itself is recorded.  Twice: once with
sending held back, to time the recording alone; once as always, to count the bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xpool

if TYPE_CHECKING:
    from xpool.torch.remote import Remote

HELD_AT_MOST_S = 60.0
"""A program that waits for the server while nothing is sent would wait forever."""

WARM_UP_STEPS = 20
"""By then every shape is known: no operation has to ask for its result's."""


@contextlib.contextmanager
def sending_held(remote: Remote) -> Iterator[Callable[[], None]]:
    """Nothing is sent before what this gives is called, whatever is recorded.

    Raises:
        TimeoutError: it was not called in time; something waited for the server.
    """
    link = remote.session.link

    def let_go() -> None:
        link.hold(False)

    watchdog = threading.Timer(HELD_AT_MOST_S, let_go)
    link.hold(True)
    watchdog.start()
    try:
        yield let_go
        if not watchdog.is_alive():
            raise TimeoutError("the training step waited for the server while held")
    finally:
        watchdog.cancel()
        let_go()
        remote.synchronize()


class Batches:
    """Batches on the device, over and over, in the place of a DataLoader."""

    def __init__(self, loader: Any, steps: int, device: str) -> None:
        """Take full batches only: all steps are alike.

        Args:
            loader: the example's; iterated once.
            steps: how many batches one iteration gives.
            device: where to put them.
        """
        size = loader.batch_size
        self._batches = [
            (images.to(device), labels.to(device))
            for images, labels in loader
            if len(labels) == size
        ]
        self.dataset = range(steps * size)
        self.steps = steps
        self.on_end: Callable[[], None] = _nothing
        """Called when the last step has returned, before anything is read."""
        self.seconds = 0.0
        """From the first step's begin to the last one's return."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batches = itertools.islice(itertools.cycle(self._batches), self.steps)
        started = time.perf_counter()
        yield from batches
        self.seconds = time.perf_counter() - started
        self.on_end()


def _nothing() -> None:
    """The usual ``on_end``."""


class Training:
    """The example's training, an epoch of any number of steps at a time."""

    def __init__(self, example: Any, loader: Any, total_steps: int) -> None:
        torch.manual_seed(0)
        self._example = example
        self._loader = loader
        self._model = example.make_model().to("cuda")
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=3e-3)
        self._scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=1e-2, total_steps=total_steps
        )

    def batches(self, steps: int) -> Batches:
        """What ``run`` takes."""
        return Batches(self._loader, steps, "cuda")

    def run(self, batches: Batches) -> None:
        """One epoch, as the example runs it."""
        self._example.train_one_epoch(
            self._model, batches, self._optimizer, self._scheduler, "cuda"
        )


def issue_us_per_op(remote: Remote, training: Training, batches: Batches) -> float:
    """Microseconds of the program's thread per operation, without sending."""
    before = remote.statistics()["executed_ops"]
    asked = remote.library.plan_counters()["requests"]
    with sending_held(remote) as let_go:
        batches.on_end = let_go
        training.run(batches)
    batches.on_end = _nothing
    if remote.library.plan_counters()["requests"] != asked:
        raise ValueError("an operation asked the server for its result's shape")
    ops = remote.statistics()["executed_ops"] - before
    return batches.seconds * 1e6 / ops


def bytes_per_op(remote: Remote, training: Training, batches: Batches) -> float:
    """Bytes of batch messages per operation, sent as they are recorded."""
    before = remote.statistics()["executed_ops"]
    sent_nbytes = remote.session.link.sent_nbytes
    training.run(batches)
    remote.synchronize()
    nbytes = remote.session.link.sent_nbytes - sent_nbytes
    return nbytes / (remote.statistics()["executed_ops"] - before)


def load(path: Path) -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: Path, steps: int) -> None:
    """Measure once."""
    remote = xpool.current_remote()
    example = load(path)
    loader, _ = example.make_loaders(batch_size=64, seed=0)
    training = Training(example, loader, WARM_UP_STEPS + 2 * steps)
    training.run(training.batches(WARM_UP_STEPS))
    batches = training.batches(steps)
    remote.synchronize()
    figures = {
        "client_us_per_op": issue_us_per_op(remote, training, batches),
        "bytes_per_op": bytes_per_op(remote, training, batches),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
