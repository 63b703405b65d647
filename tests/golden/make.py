"""Write the golden vectors that are missing: ``python tests/golden/make.py``.

A vector that exists is never written again, whatever the code says by now: if it no
longer fits, the protocol has changed, and needs a new version.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from golden.vectors import ARRAY_VALUES, MESSAGES, RECORDS, VALUES, path_of
from xpool_protocol.arrays.values import write_array_value
from xpool_protocol.codec import encode
from xpool_protocol.records import write_record
from xpool_protocol.values import write_value
from xpool_protocol.wire import Writer


def written(write: Callable[[Writer, object], None], what: object) -> list[bytes]:
    writer = Writer()
    write(writer, what)
    return [bytes(writer.buffer)]


def vectors() -> Iterator[tuple[Path, object, list[bytes]]]:
    """Path, object and lines of every vector."""
    for name, value in VALUES.items():
        yield path_of("value", name), value, written(write_value, value)  # type: ignore[arg-type]
    for name, value in ARRAY_VALUES.items():
        lines = written(write_array_value, value)
        yield path_of("array_value", name), value, lines
    for name, record in RECORDS.items():
        yield path_of("record", name), record, written(write_record, record)  # type: ignore[arg-type]
    for name, message in MESSAGES.items():
        yield path_of("message", name), message, [bytes(f) for f in encode(message, 1)]


def main() -> None:
    for path, what, lines in vectors():
        if path.exists():
            print(f"{path.name} stays as it is")
            continue
        text = f"# {what!r}, one line a frame\n"
        path.write_text(text + "".join(f"{line.hex()}\n" for line in lines))
        print(f"{path.name} is new")


if __name__ == "__main__":
    main()
