"""Tokens of a GPT-2-shaped model: ``xpool run decode.py PAIRS THREADS DEVICE``.

DEVICE is the local one: cpu or cuda.

Random weights in the shape of GPT-2 (12 layers of width 768, 124 million parameters).
Each token is chosen on the device and then looked at by the program, as generation
loops do to see whether the text is finished: one read a token.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from xpool_perf.programs.alternating import alternate_sides, samples_of
from xpool_perf.programs.local_side import (
    Work,
    is_local_side,
    local_side,
    remote_side,
    serve,
)

LAYERS, WIDTH, HEADS, VOCABULARY, CONTEXT = 12, 768, 12, 50_257, 1024
PROMPT = 32
TOKENS = 16
FIRST = 4
END = VOCABULARY - 1

Cache: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Layer(nn.Module):
    """Attention over everything so far, then a perceptron; norms come first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(
        self, x: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, Cache]:
        """Hidden states of shape (1, length, width), and the cache that has grown."""
        length = x.shape[1]
        query, key, value = (
            part.view(1, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.attention(self.norm_1(x)).split(WIDTH, dim=2)
        )
        if cache is not None:
            key = torch.cat((cache[0], key), dim=2)
            value = torch.cat((cache[1], value), dim=2)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=cache is None
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(1, length, WIDTH))
        x = x + self.down(functional.gelu(self.up(self.norm_2(x)), approximate="tanh"))
        return x, (key, value)


class Decoder(nn.Module):
    """The model; the head shares its weights with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(
        self, tokens: torch.Tensor, start: int, caches: list[Cache] | None
    ) -> tuple[torch.Tensor, list[Cache]]:
        """Logits of the last token, and the caches."""
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        grown = []
        for number, layer in enumerate(self.layers):
            x, cache = layer(x, caches[number] if caches else None)
            grown.append(cache)
        return functional.linear(self.norm(x[:, -1]), self.tokens.weight), grown


@torch.inference_mode()
def generate(model: nn.Module, prompt: torch.Tensor, count: int) -> list[int]:
    """The likeliest next tokens, one by one."""
    tokens, caches, start, chosen = prompt, None, 0, []
    for _ in range(count):
        logits, caches = model(tokens, start, caches)
        start += tokens.shape[1]
        tokens = logits.argmax(-1, keepdim=True)
        chosen.append(int(tokens.item()))
        if chosen[-1] == END:
            break
    return chosen


def model_on(device: str) -> tuple[nn.Module, torch.Tensor]:
    """The model and its prompt: the same numbers on every device."""
    torch.manual_seed(0)
    model = Decoder().eval()
    prompt = torch.randint(VOCABULARY, (1, PROMPT))
    return model.to(device), prompt.to(device)


def blocks_on(device: str) -> dict[str, Work]:
    """A few tokens, which come back to be compared, and those that are timed."""
    model, prompt = model_on(device)
    return {
        "first": partial(generate, model, prompt, FIRST),
        "all": partial(generate, model, prompt, TOKENS),
    }


def main(pairs: int, threads: int, device: str) -> None:
    """Measure; seconds of a token."""
    torch.set_num_threads(threads)
    if is_local_side():
        serve(blocks_on(device), device)
        return
    there = blocks_on("cuda")
    with local_side(device, partial(blocks_on, device)) as local:
        if there["first"]() != local.side("first")().result:
            raise ValueError("the remote model chose other tokens than the local one")
        remote = remote_side(there["all"], device)
        taken = alternate_sides(remote, local.side("all"), pairs, warm_up=1)
    print(json.dumps(samples_of(*taken, TOKENS)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
