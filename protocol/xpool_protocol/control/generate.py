"""Writes the messages, their stubs and the gRPC glue from the ``.proto`` files.

Run it after every change of the schema, with the ``dev`` extra installed::

    python -m xpool_protocol.control.generate

The schema is compiled by its path below the source root, so that the generated
files import each other absolutely and agree wherever they are installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parents[2]
NAMES = ("registry", "admin")
SCHEMAS = tuple(f"xpool_protocol/control/{name}.proto" for name in NAMES)
GENERATED = tuple(
    f"{name}{ending}"
    for name in NAMES
    for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
)

# The generator keeps its own style; ours is for what people write.
_HEADER = """\
# Written by python -m xpool_protocol.control.generate; change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: ignore-errors
"""


def generate(output_root: Path) -> None:
    """Compile the schemas; files land in ``output_root/xpool_protocol/control``.

    Raises:
        subprocess.CalledProcessError: protoc refused the schema (it says why on
            stderr), or grpcio-tools is not installed.
    """
    kinds = ("python", "pyi", "grpc_python")
    outputs = [f"--{kind}_out={output_root}" for kind in kinds]
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCE_ROOT}"]
    subprocess.run([*compiler, *outputs, *SCHEMAS], check=True)
    for name in GENERATED:
        path = output_root / Path(SCHEMAS[0]).parent / name
        path.write_text(_HEADER + path.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    generate(SOURCE_ROOT)
