"""The server's native library: what it is built of, and where it is found.

python -m xpool_server.native.build        builds if need be and prints the path
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from xpool_protocol.native_build import Library, main

LIBRARY: Final = Library(
    name="xpool-executor",
    folder=Path(__file__).parent,
    links=("-lc10", "-ltorch_cpu", "-ltorch_python", "-lpthread"),
    without="records are executed in Python",
)


if __name__ == "__main__":
    sys.exit(main(LIBRARY))
