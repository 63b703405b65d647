"""``cupy.testing``: its assertions, which compare on this host."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from xpool.cupy import testing_loops
from xpool.cupy.functions import own
from xpool.cupy.testing_compared import host


def _assertion(name: str) -> None:
    function = getattr(np.testing, name)

    def check(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("strides_check", None)
        return function(*map(host, args), **kwargs)

    check.__doc__ = f"As ``numpy.testing.{name}``."
    own(f"cupy.testing.{name}")(check)


for _name in (
    *("assert_allclose", "assert_array_equal", "assert_array_almost_equal"),
    *("assert_array_almost_equal_nulp", "assert_array_less", "assert_array_max_ulp"),
):
    _assertion(_name)


@own("cupy.testing.assert_array_list_equal")
def assert_array_list_equal(xlist: Any, ylist: Any, **kwargs: Any) -> None:
    """Lists of arrays, one by one."""
    for one, other in zip(host(xlist), host(ylist), strict=True):
        np.testing.assert_array_equal(one, other, **kwargs)


LOOPS: Final = testing_loops
"""Its decorators register themselves."""
