"""Spectra of segments that a function of the program detrends: it runs here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy import transfer
from xpool.cupy.axes import normalized_axis
from xpool.cupy.functions import call, own, signature_of

WHERE = "cupyx.scipy.signal"


def _spectrum(name: str, operands: int) -> Callable[..., Any]:
    """``welch`` or its kin; without a function it is the server's."""
    full = f"{WHERE}.{name}"
    signature = signature_of(api()[WHERE][name][1])
    assert isinstance(signature, inspect.Signature)

    def spectrum(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        if not callable(given.arguments.get("detrend")):
            return call(full, args, kwargs)
        given.apply_defaults()
        signals = [transfer.as_array(one) for one in given.args[:operands]]
        rest = dict(list(given.arguments.items())[operands:])
        if not all(one.size for one in signals):
            rest["detrend"] = False
            return call(full, signals, rest)
        detrend, axis = rest["detrend"], normalized_axis(rest["axis"], signals[0].ndim)
        lines = _padded([call("cupy.moveaxis", (one, axis, -1), {}) for one in signals])
        nperseg, noverlap = _lengths(rest, lines[0].shape[-1])
        # Segments laid side by side are segments that do not overlap.
        parts = [_detrended(one, nperseg, noverlap, detrend, axis) for one in lines]
        if signals[0] is signals[-1]:  # a signal and itself have a real spectrum
            parts = [parts[0]] * operands
        is_named = isinstance(rest["window"], str | tuple)
        rest |= {"nperseg": nperseg if is_named else None, "noverlap": 0}
        rest |= {"detrend": False, "axis": -1}
        frequencies, found = call(full, parts, rest)
        return frequencies, call("cupy.moveaxis", (found, -1, axis), {})

    return spectrum


def _padded(lines: list[Any]) -> list[Any]:
    """Signals of one length: the shorter ones end with zeros."""
    longest = max(one.shape[-1] for one in lines)
    return [
        call(
            "cupy.pad",
            (one, [(0, 0)] * (one.ndim - 1) + [(0, longest - one.shape[-1])]),
            {},
        )
        if one.shape[-1] < longest
        else one
        for one in lines
    ]


def _lengths(rest: dict[str, Any], length: int) -> tuple[int, int]:
    """Of a segment, and of what it shares with the next one.

    Raises:
        ValueError: they do not fit together.
    """
    nperseg, noverlap, window = rest["nperseg"], rest["noverlap"], rest["window"]
    if not isinstance(window, str | tuple):
        nperseg = np.shape(window)[0] if nperseg is None else nperseg
    nperseg = min(256 if nperseg is None else int(nperseg), length)
    noverlap = nperseg // 2 if noverlap is None else int(noverlap)
    if nperseg < 1:
        raise ValueError("nperseg must be a positive integer")
    if not 0 <= noverlap < nperseg:
        raise ValueError("noverlap must be less than nperseg.")
    return nperseg, noverlap


def _detrended(
    line: Any, nperseg: int, noverlap: int, detrend: Callable[[Any], Any], axis: int
) -> Any:
    step = nperseg - noverlap
    count = (line.shape[-1] - noverlap) // step
    line = call("cupy.ascontiguousarray", (line,), {})
    shape = (*line.shape[:-1], count, nperseg)
    strides = (*line.strides[:-1], step * line.strides[-1], line.strides[-1])
    name = "cupy.lib.stride_tricks.as_strided"
    segments = call(name, (line, shape, strides), {}).copy()
    if axis == line.ndim - 1:
        segments = detrend(segments)
    else:
        moved = detrend(call("cupy.moveaxis", (segments, -1, axis), {}))
        segments = call("cupy.moveaxis", (moved, axis, -1), {})
    return segments.reshape(*line.shape[:-1], count * nperseg)


for _name, _operands in (("welch", 1), ("csd", 2), ("coherence", 2)):
    own(f"{WHERE}.{_name}")(_spectrum(_name, _operands))
