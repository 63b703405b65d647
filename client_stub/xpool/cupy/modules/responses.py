"""Frequency responses that a function of the program plots: it runs here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from xpool_protocol.arrays.api import api

from xpool.cupy.functions import OWN, call, signature_of

WHERE = "cupyx.scipy.signal"


def _response(name: str) -> Callable[..., Any]:
    """``freqz`` or ``freqs``; its ``plot`` is called with both results."""
    full = f"{WHERE}.{name}"
    signature = signature_of(api()[WHERE][name][1])
    assert isinstance(signature, inspect.Signature)

    def response(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        plot = given.arguments.pop("plot", None)
        if plot is None:
            return call(full, args, kwargs)
        found = call(full, (), given.arguments)
        plot(*found)
        return found

    return response


for _name in ("freqs", "freqz"):
    OWN[f"{WHERE}.{_name}"] = _response(_name)
