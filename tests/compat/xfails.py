"""``torch_xfails.txt``: entries that do not agree with the local CPU, each with why.

A line is an entry's four words, two spaces or more, ``#`` and the reason.
"""

from __future__ import annotations

from pathlib import Path

XFAILS = Path(__file__).with_name("torch_xfails.txt")
WORDS = 4
MIN_REASON = 10


def load(path: Path = XFAILS) -> dict[str, str]:
    """Reasons by entry.

    Raises:
        ValueError: a line is not of this form, or stands there twice.
    """
    reasons: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        entry, _, reason = line.partition("#")
        words, reason = entry.split(), reason.strip()
        where = f"{path.name}, line {number}"
        if len(words) != WORDS or len(reason) < MIN_REASON:
            raise ValueError(f"{where}: write SUITE NAME DTYPE VARIANT  # reason")
        if " ".join(words) in reasons:
            raise ValueError(f"{where}: {' '.join(words)} stands there twice")
        reasons[" ".join(words)] = reason
    return reasons
