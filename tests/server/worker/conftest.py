"""Fixtures of the executor's tests."""

from __future__ import annotations

import pytest
from support.executor_desk import Desk


@pytest.fixture
def desk() -> Desk:
    """A new executor on the CPU with a quota of 4 MiB."""
    return Desk()
