"""What a scenario is: figures, and a function that takes the samples for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from xpool_perf.figures import Figure, Samples

Say: TypeAlias = Callable[[str], None]
"""Shows one line of progress."""

DEFAULT_RUNS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line chooses, for any scenario."""

    device: str = "cpu"
    """Of the server and of the local side: "cpu" or "cuda"."""

    runs: int = DEFAULT_RUNS
    """Samples of each kind, or pairs of samples."""

    threads: int = 1
    """CPU threads of every process, in the pool and beside it."""

    epochs: int = 4
    """Of the training loop."""

    steps: int = 100
    """Training steps that the costs of an operation are averaged over: some 4,500
    operations, and far less than a client may queue."""

    nodes: int = 1000
    """Servers of a fleet that is played."""

    plot: str = ""
    """File for a picture, where a scenario draws one."""

    only: tuple[str, ...] = ()
    """Which parts of a scenario that has some; none: all of them."""

    path: Path | None = None
    """Of what the scenario reads, if it reads anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of ``__main__``'s table."""

    name: str
    summary: str
    """One line for the help."""

    figures: tuple[Figure, ...]
    cuda_figures: tuple[Figure, ...] = ()
    """Further ones where the device is a CUDA device: by the device's own clock."""

    devices: tuple[str, ...] = ("cpu",)
    """That it can be run with."""

    measure: Callable[[Settings, Say], Samples]
    """Raises ``RunFailed``."""

    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Parts that can be measured alone, with the names of their figures; a part that
    fails says so, and its figures are missing."""

    default_runs: int = DEFAULT_RUNS
    """As many as the whole scenario can be asked for and be waited for."""

    has_nodes: bool = False
    """Whether ``Settings.nodes`` means anything."""

    path_help: str = ""
    """What ``Settings.path`` names; empty: the scenario reads nothing."""

    def chosen(self, settings: Settings) -> tuple[Figure, ...]:
        """The figures of the parts that were chosen."""
        if not settings.only:
            return self.figures
        names = {name for part in settings.only for name in self.parts[part]}
        return tuple(one for one in self.figures if one.name in names)
