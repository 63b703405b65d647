"""Digital filters with a state: CuPy's is the last inputs and outputs, SciPy's is not.

A state of ``lfilter`` holds the last ``len(b) - 1`` inputs and then the last
``len(a) - 1`` outputs, oldest first; each section of ``sosfilt`` has two of both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np


@functools.cache
def _signal() -> Any:
    import scipy.signal

    return scipy.signal


def lfilter(b: Any, a: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    """Filter along an axis; with ``zi`` also the state after it."""
    if zi is None:
        return _signal().lfilter(b, a, x, axis=axis)
    inputs, outputs = b.size - 1, a.size - 1
    if not inputs + outputs:
        return _signal().lfilter(b, a, x, axis=axis), zi
    state = np.moveaxis(np.atleast_1d(zi), axis, -1)
    if state.shape[-1] != inputs + outputs:
        raise ValueError(
            f"zi has {state.shape[-1]} items along the axis, not {inputs + outputs}"
        )
    rows = state.reshape(-1, inputs + outputs)
    theirs = np.array(
        [
            _signal().lfiltic(b, a, row[inputs:][::-1], row[:inputs][::-1])
            for row in rows
        ]
    )
    kind = np.result_type(b, a, x)
    if kind.kind in "fc":
        theirs = theirs.astype(kind)
    theirs = np.moveaxis(theirs.reshape(*state.shape[:-1], -1), -1, axis)
    found, _ = _signal().lfilter(b, a, x, axis=axis, zi=theirs)
    kept = [
        _last(np.moveaxis(new, axis, -1), old, count)
        for new, old, count in (
            (x, state[..., :inputs], inputs),
            (found, state[..., inputs:], outputs),
        )
    ]
    after = np.concatenate(kept, axis=-1).astype(found.dtype)
    return found, np.moveaxis(after, -1, axis)


def _last(new: Any, old: Any, count: int) -> Any:
    whole = np.concatenate([np.broadcast_to(old, (*new.shape[:-1], count)), new], -1)
    return whole[..., whole.shape[-1] - count :]


def lfiltic(b: Any, a: Any, y: Any, x: Any = None) -> Any:
    """The state of ``lfilter`` after these outputs and inputs, latest first."""
    if y is None and x is None:
        return None
    parts = []
    for given, count in ((x, b.size - 1), (y, a.size - 1)):
        if given is not None and count:
            missing = max(count - given.shape[-1], 0)
            padded = np.concatenate([given, np.zeros(missing)])
            parts.append(padded[:count][::-1])
    return np.concatenate(parts) if parts else np.empty(0)


def _gain(b: Any, a: Any) -> Any:
    """What a constant input is multiplied with in the end."""
    return np.sum(b) / np.sum(a)


def lfilter_zi(b: Any, a: Any) -> Any:
    """The state in which a constant 1 gives a constant output."""
    kind = np.result_type(b, a, np.float32)
    outputs = np.full(a.size - 1, _gain(b, a))
    return np.concatenate([np.ones(b.size - 1), outputs]).astype(kind)


def sosfilt(sos: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    """Filter by second-order sections; with ``zi`` also the states after them."""
    if zi is None:
        return _signal().sosfilt(sos, x, axis=axis)
    axis %= x.ndim
    wanted = (len(sos), *x.shape[:axis], 4, *x.shape[axis + 1 :])
    if zi.shape != wanted:
        raise ValueError(f"zi must have shape {wanted}, got {zi.shape}")
    states = []
    for section, state in zip(sos, zi, strict=True):
        x, after = lfilter(section[:3], section[3:], x, axis, state)
        states.append(after)
    return x, np.stack(states)


def sosfilt_zi(sos: Any) -> Any:
    """The states in which a constant 1 gives a constant output."""
    kind = np.result_type(sos, np.float32)
    rows, scale = [], 1.0
    for section in sos:
        after = scale * _gain(section[:3], section[3:])
        rows.append([scale, scale, after, after])
        scale = after
    return np.array(rows, kind)


OWN: Final[dict[str, Callable[..., Any]]] = {
    f"cupyx.scipy.signal.{one.__name__}": one
    for one in (lfilter, lfiltic, lfilter_zi, sosfilt, sosfilt_zi)
}
