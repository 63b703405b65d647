"""What samples say: medians, ratios of medians, and how sure one may be of them.

Pure: the randomness of the bootstrap is an argument.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Samples: TypeAlias = Mapping[str, Sequence[float]]
"""Every single measurement, by what was measured."""

RESAMPLES: Final = 2000
"""The interval's ends then vary by less than what they say."""

CONFIDENCE: Final = 0.95

MIN_SAMPLES: Final = 5
"""With fewer, a bootstrap of the median only repeats the extremes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a scenario, and how it comes about."""

    name: str
    unit: str
    method: str
    """One sentence: what is measured, and where the clock stands."""

    sources: tuple[str, ...]
    """Names of samples: of one the median; of two the ratio of the medians."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Between these the true value lies, with ``CONFIDENCE``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A figure before and after."""

    before: float
    after: float
    interval: Interval | None
    """Of ``relative``; None when there are too few samples to tell."""

    @property
    def relative(self) -> float:
        """0.1 is ten percent more than before."""
        return relative_change(self.before, self.after)

    @property
    def verdict(self) -> str:
        """One word or three: ``changed``, ``noise`` or ``too few samples``."""
        if self.interval is None:
            return "too few samples"
        is_noise = self.interval.low <= 0 <= self.interval.high
        return "noise" if is_noise else "changed"


def value_of(sources: Sequence[str], samples: Samples) -> float:
    """The median of one kind of samples, or the ratio of the medians of two.

    Raises:
        ValueError: no sample, no or too many sources, or a value that is not finite.
    """
    if len(sources) not in (1, 2):
        raise ValueError(f"a figure has one source or two, not {len(sources)}")
    medians = []
    for name in sources:
        values = samples.get(name, ())
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError(f"the samples of {name} are not numbers: {list(values)}")
        medians.append(statistics.median(values))
    if len(medians) == 1:
        return medians[0]
    if medians[1] == 0:
        raise ValueError(f"the median of {sources[1]} is 0: there is no ratio to it")
    return medians[0] / medians[1]


def relative_change(before: float, after: float) -> float:
    """How much more ``after`` is, as a part of ``before``; infinite from zero."""
    if before == after:
        return 0.0
    return math.inf if before == 0 else after / before - 1


def interval_of(
    sources: Sequence[str], samples: Samples, rng: random.Random
) -> Interval | None:
    """Bootstrap interval of a figure; None with fewer than ``MIN_SAMPLES``."""
    if not _is_enough(sources, samples):
        return None
    return _bootstrap(lambda: value_of(sources, _resampled(sources, samples, rng)))


def change_of(
    sources: Sequence[str], before: Samples, after: Samples, rng: random.Random
) -> Change:
    """How a figure changed, with the bootstrap interval of its relative change.

    Raises:
        ValueError: as ``value_of``.
    """
    interval = None
    if _is_enough(sources, before) and _is_enough(sources, after):
        interval = _bootstrap(
            lambda: relative_change(
                value_of(sources, _resampled(sources, before, rng)),
                value_of(sources, _resampled(sources, after, rng)),
            )
        )
    return Change(
        before=value_of(sources, before),
        after=value_of(sources, after),
        interval=interval,
    )


def _is_enough(sources: Sequence[str], samples: Samples) -> bool:
    return all(len(samples.get(name, ())) >= MIN_SAMPLES for name in sources)


def _bootstrap(draw: Callable[[], float]) -> Interval:
    """Percentile interval of what ``draw`` returns for fresh resamples."""
    drawn = sorted(draw() for _ in range(RESAMPLES))
    tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Interval(drawn[tail], drawn[-1 - tail])


def _resampled(
    sources: Sequence[str], samples: Samples, rng: random.Random
) -> dict[str, list[float]]:
    """As many samples again, drawn with replacement.

    Samples of equal count were taken in pairs, one after the other: they stay
    together, because what slowed one down slowed the other down too.
    """
    counts = {len(samples[name]) for name in sources}
    if len(counts) == 1:
        count = counts.pop()
        places = rng.choices(range(count), k=count)
        return {name: [samples[name][place] for place in places] for name in sources}
    return {name: rng.choices(samples[name], k=len(samples[name])) for name in sources}
