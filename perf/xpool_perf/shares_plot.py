"""A picture of shares over time against the promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xpool_perf.pool import RunFailed
from xpool_perf.shares_windows import Reading, windows


def plot(readings: Sequence[Reading], promised: Sequence[int], path: Path) -> None:
    """Draw what each tenant got by second, and what it was promised.

    Raises:
        RunFailed: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise RunFailed("--plot needs matplotlib: pip install 'xpool[plot]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    by_second = list(windows(readings, 1))
    for at, share in enumerate(promised):
        got = [
            100 * window.used_ns[at] / max(1, sum(window.used_ns))
            for window in by_second
        ]
        (line,) = axes.plot(range(1, len(got) + 1), got, label=f"{share} % promised")
        axes.axhline(share, color=line.get_color(), linestyle="--", linewidth=0.8)
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of the device's time, %")
    axes.set_ylim(0, max(promised) + 15)
    axes.legend(loc="upper right", ncols=2)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
