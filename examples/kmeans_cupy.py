"""Cluster scikit-learn's 1,797 scanned digits with k-means, in CuPy.

python kmeans_cupy.py [--clusters 10] [--iterations 30] [--seed 0] [--json PATH]

With --array-module numpy the same lines run with NumPy, to compare.
"""

import argparse
import importlib
import json
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def distances(xp, points, centers):
    """Squared distances, one row a point."""
    squares = (points**2).sum(axis=1)[:, None] + (centers**2).sum(axis=1)
    return squares - 2 * points @ centers.T


def fit(xp, points, clusters, iterations, seed):
    """Centers, labels, and the inertia after each iteration."""
    first = np.random.default_rng(seed).choice(len(points), clusters, replace=False)
    centers = points[xp.asarray(first)]
    history = []
    for _ in range(iterations):
        far = distances(xp, points, centers)
        labels = far.argmin(axis=1)
        history.append(far.min(axis=1).sum())
        member = (labels[:, None] == xp.arange(clusters)).astype(points.dtype)
        counts = member.sum(axis=0)
        centers = xp.where(
            counts[:, None] > 0,
            member.T @ points / xp.maximum(counts, 1)[:, None],
            centers,
        )
    return centers, labels, [float(one) for one in history]


def purity(xp, labels, truth, clusters):
    """Share of points whose cluster's most frequent digit is theirs."""
    table = xp.zeros((clusters, 10), dtype=xp.int64)
    for digit in range(10):
        table[:, digit] = xp.bincount(labels[truth == digit], minlength=clusters)
    return float(table.max(axis=1).sum()) / len(labels)


def device_name(xp):
    if xp is np:
        return "cpu"
    return xp.cuda.runtime.getDeviceProperties(0)["name"].decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--array-module", default="cupy", choices=["cupy", "numpy"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    xp = importlib.import_module(args.array_module)
    digits = load_digits()
    points = xp.asarray(digits.data / 16)
    truth = xp.asarray(digits.target)

    began = time.perf_counter()
    centers, labels, history = fit(
        xp, points, args.clusters, args.iterations, args.seed
    )
    fit_s = time.perf_counter() - began
    score = purity(xp, labels, truth, args.clusters)
    sizes = xp.bincount(labels, minlength=args.clusters).tolist()

    print(f"device       {device_name(xp)}")
    print(f"inertia      {history[0]:.4f} at first, {history[-1]:.4f} at last")
    print(f"purity       {score:.4f}")
    print(f"clusters     {' '.join(map(str, sizes))}")
    print(f"{args.iterations} iterations in {fit_s:.2f} s")
    if args.json:
        figures = {
            "device": device_name(xp),
            "inertia": history,
            "purity": score,
            "sizes": sizes,
            "center_norm": float(xp.linalg.norm(centers)),
            "fit_s": fit_s,
        }
        args.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
