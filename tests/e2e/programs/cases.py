"""Runs the cases of one module on a device and prints a JSON line for each.

    xpool run cases.py MODULE DEVICE

A case is a function ``case_NAME(device: str)`` that asserts. They share one process,
because importing torch and opening a session cost more than most of them.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def case_names(path: Path) -> list[str]:
    """Names of the cases of a file, without importing it."""
    lines = path.read_text().splitlines()
    return [line[9:].split("(")[0] for line in lines if line.startswith("def case_")]


def is_real_gpu(device: str) -> bool:
    """Whether a CUDA device executes, where an index out of range ends the process."""
    import torch

    return device == "cuda" and torch.cuda.get_device_capability()[0] > 0


def run(name: str, case: Callable[[str], None], device: str) -> dict[str, object]:
    try:
        case(device)
    except Exception:
        return {"name": name, "error": traceback.format_exc(limit=-8)}
    return {"name": name, "error": None}


def main() -> None:
    module_name, device = sys.argv[1:3]
    module = importlib.import_module(module_name)
    for name in case_names(Path(str(module.__file__))):
        outcome = run(name, getattr(module, f"case_{name}"), device)
        print("CASE " + json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
