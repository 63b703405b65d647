"""The job of ``lease_to_first_result.py``: one number from a device yet to be leased.

What ``xpool.bootstrap`` does for a program, with a stop where torch is imported and
the lease is not there yet.
"""

from __future__ import annotations

import json
import time

from xpool.lease_pipe import LeasePipe
from xpool.torch.install import install_leased, load_library


def main() -> None:
    """Say "waiting", then the moments, in nanoseconds of CLOCK_MONOTONIC."""
    pipe = LeasePipe.from_environment()
    library = load_library()
    import torch

    print("waiting", flush=True)
    install_leased(library, pipe)
    installed_ns = time.monotonic_ns()
    value = torch.ones(1, device="cuda").item()
    first_result_ns = time.monotonic_ns()
    if value != 1:
        raise ValueError(f"the first result is {value}, not 1")
    moments = {"installed_ns": installed_ns, "first_result_ns": first_result_ns}
    print(json.dumps(moments), flush=True)


if __name__ == "__main__":
    main()
