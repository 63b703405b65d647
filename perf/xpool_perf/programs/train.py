"""Training steps of three models, remote and local: ``xpool run train.py WHAT PAIRS``.

``cnn`` and ``transformer`` are bound by the device: a step takes some hundred
milliseconds of one CPU core. ``small`` is bound by everything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from xpool_perf.programs.alternating import Block, alternate, per, train_block

CLASSES = 10


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        return functional.relu(x + self.body(x))


def cnn() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A small residual network on 32 images of 48 by 48."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Residual(32),
        nn.MaxPool2d(2),
        Residual(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
    return model, torch.randn(32, 3, 48, 48), torch.randint(CLASSES, (32,))


class Encoder(nn.Module):
    """Token embedding, transformer encoder, one class per sequence."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, classes)."""
        out: torch.Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
        return out


def transformer() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Four layers of width 256 on 8 sequences of 128 tokens."""
    return (
        Encoder(256, 4),
        torch.randint(1000, (8, 128)),
        torch.randint(CLASSES, (8,)),
    )


def small() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A perceptron whose step is a matter of microseconds on any device."""
    model = nn.Sequential(
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )
    return model, torch.randn(32, 64), torch.randint(CLASSES, (32,))


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor, torch.Tensor]]] = {
    "cnn": cnn,
    "transformer": transformer,
    "small": small,
}
STEPS = {"cnn": 4, "transformer": 4, "small": 10}


def block_on(device: str, what: str, read_every: int) -> Block:
    """Training on a device, from the same weights on both."""
    torch.manual_seed(0)
    model, x, y = MODELS[what]()
    model, x, y = model.to(device), x.to(device), y.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return train_block(
        model,
        optimizer,
        lambda: functional.cross_entropy(model(x), y),
        STEPS[what],
        read_every,
    )


def main(what: str, pairs: int, threads: int, read_every: int) -> None:
    """Measure one model; seconds of a step."""
    torch.set_num_threads(threads)
    remote, local = alternate(
        block_on("cuda", what, read_every), block_on("cpu", what, read_every), pairs
    )
    steps = STEPS[what]
    print(json.dumps({"remote_s": per(steps, remote), "local_s": per(steps, local)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
