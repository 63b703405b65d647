"""Interpolations of images: what CuPy refuses of a value for points outside."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy.functions import call, own, signature_of
from xpool.cupy.ndarray import ndarray

WHERE = "cupyx.scipy.ndimage"


def _interpolation(name: str) -> Callable[..., Any]:
    full = f"{WHERE}.{name}"
    signature = signature_of(api()[WHERE][name][1])
    assert isinstance(signature, inspect.Signature)

    def interpolate(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        _check_cval(given.arguments)
        return call(full, args, kwargs)

    return interpolate


def _check_cval(given: dict[str, Any]) -> None:
    """Refuse a value that no integer is.

    Raises:
        NotImplementedError: it is infinite, or no number, and the result has integers.
    """
    cval, output = given["cval"], given["output"]
    if given["mode"] != "constant" or np.all(np.isfinite(cval)):
        return
    if isinstance(output, ndarray):
        dtype = output.dtype
    else:
        dtype = np.dtype(given["input"].dtype if output is None else output)
    if dtype.kind in "iu":
        raise NotImplementedError(
            "Non-finite cval is not supported for outputs with integer dtype."
        )


for _name in ("shift", "zoom", "rotate", "affine_transform", "map_coordinates"):
    own(f"{WHERE}.{_name}")(_interpolation(_name))
