"""Lists that the native device and its Python twin both keep are the same lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from xpool.torch.operation import FILLING, GROWING, HOST_INDICES, LEARNED

OPERATION = Path(__file__).parents[3] / "client_stub/xpool/native/operation.cpp"


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        *(("kLearned", LEARNED), ("kHostIndices", HOST_INDICES)),
        *(("kGrowing", GROWING), ("kFilling", FILLING)),
    ],
)
def test_the_native_list_is_the_python_list(name: str, twin: frozenset[str]) -> None:
    block = re.search(rf"{name} = {{(.*?)}};", OPERATION.read_text(), re.DOTALL)
    assert block is not None
    assert set(re.findall(r'"(aten::[^"]+)"', block[1])) == twin
