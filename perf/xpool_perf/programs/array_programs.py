"""Ordinary array programs: the same lines with CuPy or NumPy, as ``xp``.

Each takes the module and its input on the host, and returns some numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

ITERATIONS: Final = 30
CENTERS: Final = 8


def page_rank(xp: Any, links: Any) -> list[float]:
    """Power iteration over a dense matrix of links, until the end."""
    matrix = xp.asarray(links)
    count = matrix.shape[0]
    degrees = matrix.sum(axis=0)
    dangling = degrees == 0
    matrix = matrix / xp.where(dangling, 1.0, degrees)
    rank = xp.full(count, 1.0 / count)
    for _ in range(ITERATIONS):
        lost = (rank * dangling).sum()
        new = 0.85 * (matrix @ rank + lost / count) + 0.15 / count
        change = xp.abs(new - rank).sum()
        rank = new
    return [float(change), *rank[:5].tolist()]


def jacobi(xp: Any, source: Any) -> list[float]:
    """A five-point stencil; every tenth iteration looks how much has changed."""
    f = xp.asarray(source)
    u = xp.zeros_like(f)
    step = 1.0 / (f.shape[0] - 1) ** 2
    changes = []
    for i in range(ITERATIONS):
        new = u.copy()
        around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
        new[1:-1, 1:-1] = 0.25 * (around - step * f[1:-1, 1:-1])
        if i % 10 == 9:
            changes.append(float(xp.abs(new - u).max()))
        u = new
    return [*changes, float(xp.linalg.norm(u))]


def logistic(xp: Any, data: Any) -> list[float]:
    """Logistic regression by mini-batches that index arrays pick."""
    x, y = xp.asarray(data[0]), xp.asarray(data[1])
    weights, bias = xp.zeros(x.shape[1]), xp.zeros(())
    losses = []
    order = np.random.default_rng(1)
    for _ in range(ITERATIONS):
        picks = xp.asarray(order.choice(len(data[1]), 256, replace=False))
        rows, truth = x[picks], y[picks]
        odds = 1 / (1 + xp.exp(-(rows @ weights + bias)))
        right, wrong = xp.log(odds + 1e-12), xp.log(1 - odds + 1e-12)
        losses.append(-(truth * right + (1 - truth) * wrong).mean())
        error = odds - truth
        weights -= 0.1 * (rows.T @ error / 256 + 1e-3 * weights)
        bias -= 0.1 * error.mean()
    return [*(float(one) for one in losses), *weights[:3].tolist()]


def lloyd(xp: Any, points: Any) -> list[float]:
    """K-means by masks, whose counts the program looks at."""
    x = xp.asarray(points)
    centers = x[:CENTERS].copy()
    for _ in range(10):
        far = ((x[:, None, :] - centers[None]) ** 2).sum(-1)
        labels = xp.argmin(far, axis=1)
        new = centers.copy()
        for k in range(CENTERS):
            mask = labels == k
            if int(mask.sum()):
                new[k] = x[mask].mean(axis=0)
        shift = float(xp.sqrt(((new - centers) ** 2).sum()))
        centers = new
    return [shift, *centers[0].tolist()]


class Program(NamedTuple):
    """One of them, its input, and how many iterations it makes."""

    run: Callable[[Any, Any], list[float]]
    data: Any
    iterations: int


def programs() -> dict[str, Program]:
    """All, with inputs that are always the same."""
    draw = np.random.default_rng(0)
    links = (draw.random((500, 500)) < 0.02).astype(float)
    grid = draw.random((256, 256))
    labelled = (draw.random((5000, 64)), (draw.random(5000) < 0.5).astype(float))
    return {
        "page_rank": Program(page_rank, links, ITERATIONS),
        "jacobi": Program(jacobi, grid, ITERATIONS),
        "logistic": Program(logistic, labelled, ITERATIONS),
        "lloyd": Program(lloyd, draw.random((2000, 8)), 10),
    }
