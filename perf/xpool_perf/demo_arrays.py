"""The demonstration's second half: CuPy in the pool, NumPy here, the same lines.

``array_verdict`` decides and touches nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from xpool_perf.pool import repository

MAX_INERTIA_DIFFERENCE = 1e-9
"""Relative: both sides run NumPy's kernels, perhaps on other threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayJob:
    """What one run of ``kmeans_cupy.py`` wrote about itself."""

    device: str
    inertia: list[float]
    """Sum of squared distances, after each iteration."""

    purity: float
    sizes: list[int]
    """Points of each cluster."""

    fit_s: float


def array_example() -> Path:
    """The script."""
    return repository() / "examples" / "kmeans_cupy.py"


def array_job_from_json(text: str) -> ArrayJob:
    """Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    fields = json.loads(text)
    return ArrayJob(
        device=str(fields["device"]),
        inertia=[float(one) for one in fields["inertia"]],
        purity=float(fields["purity"]),
        sizes=[int(one) for one in fields["sizes"]],
        fit_s=float(fields["fit_s"]),
    )


def inertia_difference(remote: ArrayJob, local: ArrayJob) -> float:
    """Largest relative difference; infinite if the iterations differ."""
    if len(remote.inertia) != len(local.inertia) or not remote.inertia:
        return math.inf
    pairs = zip(remote.inertia, local.inertia, strict=True)
    differences = [abs(one - other) / abs(other) for one, other in pairs]
    return max(math.inf if math.isnan(one) else one for one in differences)


def array_verdict(remote: ArrayJob, local: ArrayJob, executed_ops: int) -> list[str]:
    """What failed, a sentence each; empty when the arrays agreed."""
    failed = []
    difference = inertia_difference(remote, local)
    if difference > MAX_INERTIA_DIFFERENCE:
        failed.append(
            f"the inertias differ by {difference:.3g} of their value, more than"
            f" {MAX_INERTIA_DIFFERENCE:g}"
        )
    if remote.sizes != local.sizes:
        failed.append(f"the clusters are {remote.sizes}, and locally {local.sizes}")
    if remote.device == local.device:
        failed.append(f"the arrays in the pool were on {remote.device!r}")
    if executed_ops <= 0:
        failed.append("the server executed no array operation")
    return failed


def array_report(remote: ArrayJob, local: ArrayJob, executed_ops: int) -> str:
    """The comparison as aligned text."""
    rows = [
        ("", "CuPy in the pool", "NumPy here"),
        ("device", remote.device, local.device),
        ("inertia, first", f"{remote.inertia[0]:.6f}", f"{local.inertia[0]:.6f}"),
        ("inertia, last", f"{remote.inertia[-1]:.6f}", f"{local.inertia[-1]:.6f}"),
        ("purity", f"{remote.purity:.4f}", f"{local.purity:.4f}"),
        ("iterations", f"{remote.fit_s:.2f} s", f"{local.fit_s:.2f} s"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {there:>{widths[1]}}  {here:>{widths[2]}}".rstrip()
        for name, there, here in rows
    ]
    counted = f"counted by the server  {executed_ops:,} operations executed"
    return "\n".join([*lines, "", counted])
