"""The table of CuPy's names is the one that the generator makes of the wheel."""

from __future__ import annotations

import importlib.util

import pytest
from xpool_protocol.arrays import generate


@pytest.mark.skipif(
    importlib.util.find_spec("cupy") is None, reason="CuPy is not installed here"
)
def test_the_table_is_the_wheels() -> None:
    import cupy
    from xpool_protocol.arrays.api import cupy_version

    if cupy.__version__ != cupy_version():
        pytest.skip(f"the table is of CuPy {cupy_version()}")
    assert generate.text_of(generate.table()) == generate.PATH.read_text()


def test_the_file_is_as_the_generator_writes_it() -> None:
    from xpool_protocol.arrays.api import api

    assert generate.text_of(api()) == generate.PATH.read_text()
