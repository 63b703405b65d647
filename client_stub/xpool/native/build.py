"""The client's native library: what it is built of, and where it is found.

    python -m xpool.native.build        builds if need be and prints the path

How it is built and kept is ``xpool_protocol.native_build``, which the server uses too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from xpool_protocol.native_build import (
    BuildFailed,
    Library,
    compiler,
    main,
    torch_folder,
    torch_version,
)

__all__ = ["LIBRARY", "BuildFailed", "build", "built_library", "compiler"]
__all__ += ["torch_folder", "torch_version"]

LIBRARY: Final = Library(
    name="xpool-torch",
    folder=Path(__file__).parent,
    links=("-lc10", "-ltorch_cpu", "-lpthread"),
    without="device 'cuda' is not available (device 'xpool' is)",
)

build = LIBRARY.build
built_library = LIBRARY.built


if __name__ == "__main__":
    sys.exit(main(LIBRARY))
