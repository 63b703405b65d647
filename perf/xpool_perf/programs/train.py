"""Training steps of three models, remote and local.

    xpool run train.py WHAT PAIRS THREADS READ_EVERY DEVICE

``cnn`` and ``transformer`` are bound by the device: a step takes some hundred
milliseconds of one CPU core, or of a CUDA device, for which they are larger. ``small``
is bound by everything else. DEVICE is the local one: cpu or cuda.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from xpool_perf.programs.alternating import (
    Block,
    alternate_sides,
    samples_of,
    train_block,
)
from xpool_perf.programs.local_side import (
    is_local_side,
    local_side,
    remote_side,
    serve,
)

CLASSES = 10

Job: TypeAlias = tuple[nn.Module, torch.Tensor, torch.Tensor]
"""A model, a batch, and its classes."""


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


def cnn(device: str) -> Job:
    """A residual network: of width 32 on 32 images of 48 by 48; larger for CUDA."""
    width, count, side = (128, 128, 96) if device == "cuda" else (32, 32, 48)
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width),
        nn.MaxPool2d(2),
        Residual(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )
    images = torch.randn(count, 3, side, side)
    return model, images, torch.randint(CLASSES, (count,))


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


def transformer(device: str) -> Job:
    """Four layers of width 256 on 8 sequences of 128 tokens; larger for CUDA."""
    width, depth, count, length = (
        (1024, 8, 32, 512) if device == "cuda" else (256, 4, 8, 128)
    )
    return (
        Encoder(width, depth),
        torch.randint(1000, (count, length)),
        torch.randint(CLASSES, (count,)),
    )


def small(_device: str) -> Job:
    """A perceptron whose step is a matter of microseconds on any device."""
    model = nn.Sequential(
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )
    return model, torch.randn(32, 64), torch.randint(CLASSES, (32,))


MODELS: dict[str, Callable[[str], Job]] = {
    "cnn": cnn,
    "transformer": transformer,
    "small": small,
}
STEPS = {"cnn": 4, "transformer": 4, "small": 10}


def block_on(where: str, what: str, read_every: int, device: str) -> Block:
    """Training on a device, from the same weights on both; of DEVICE's size."""
    torch.manual_seed(0)
    model, x, y = MODELS[what](device)
    model, x, y = model.to(where), x.to(where), y.to(where)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return train_block(
        model,
        optimizer,
        lambda: functional.cross_entropy(model(x), y),
        STEPS[what],
        read_every,
    )


def main(what: str, pairs: int, threads: int, read_every: int, device: str) -> None:
    """Measure one model; seconds of a step."""
    torch.set_num_threads(threads)

    def blocks() -> dict[str, Block]:
        return {"train": block_on(device, what, read_every, device)}

    if is_local_side():
        serve(blocks(), device)
        return
    there = remote_side(block_on("cuda", what, read_every, device), device)
    with local_side(device, blocks) as local:
        taken = alternate_sides(there, local.side("train"), pairs)
    print(json.dumps(samples_of(*taken, STEPS[what])))


if __name__ == "__main__":
    one, two, three = map(int, sys.argv[2:5])
    main(sys.argv[1], one, two, three, sys.argv[5])
