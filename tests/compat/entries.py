"""What the suites run: entries, and what became of each.

An entry is one operation, module or optimizer with one dtype in one variant. Its name
is four words, and stands so in ``torch_xfails.txt``: ``op_db add float32 backward``.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["pass", "fail", "skip", "none"]
"""``none``: there is no such variant of it, which only running it could tell."""

SUITES = ("op_db", "module_db", "optim_db")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a suite."""

    suite: str
    name: str
    dtype: str
    variant: str
    info: Any = field(compare=False, repr=False)
    """What torch's list holds: an OpInfo, a ModuleInfo, an OptimizerInfo."""

    def __str__(self) -> str:
        return f"{self.suite} {self.name} {self.dtype} {self.variant}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an entry."""

    state: State
    samples: int = 0
    reason: str = ""


class SampleSkipped(Exception):
    """The sample can't be compared; the text says why."""


class NoSuchVariant(Exception):
    """The sample has nothing that this variant is about."""


class Tally:
    """Counts an entry's samples, and turns the counts into its outcome."""

    def __init__(self) -> None:
        self._agreed = 0
        self._reasons: collections.Counter[str] = collections.Counter()

    @property
    def agreed(self) -> int:
        return self._agreed

    def outcome_of(self, samples: Iterable[Callable[[], None]]) -> Outcome:
        """Run samples until one disagrees."""
        for sample in samples:
            try:
                sample()
            except SampleSkipped as reason:
                self._reasons[str(reason)] += 1
            except NoSuchVariant:
                continue
            except Exception as error:  # whatever it is, the CPU did not raise it
                text = f"{type(error).__name__}: {error}"
                return Outcome("fail", self._agreed, text[:600])
            else:
                self._agreed += 1
        if self._agreed:
            return Outcome("pass", self._agreed)
        if self._reasons:
            return Outcome("skip", 0, self._reasons.most_common(1)[0][0])
        return Outcome("none")
