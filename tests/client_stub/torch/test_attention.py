"""Attention on a CUDA server: asked once for a geometry, and then without waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.leased_script import run_script
from xpool.native import build

SCRIPT = Path(__file__).parent / "programs" / "cuda_attention.py"


@pytest.mark.skipif(
    build.built_library() is None and build.compiler() is None,
    reason="no native device without a C++ compiler",
)
def test_a_cuda_server_chooses_its_kernel_and_the_program_may_forbid_it() -> None:
    ended = run_script(SCRIPT)
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr
