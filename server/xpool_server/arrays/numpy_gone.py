"""What CuPy has and the NumPy and SciPy of today no longer have, or warn about."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

_WAVELETS: Final = "CuPy will no longer have wavelets, as SciPy has none any more"


@functools.cache
def _special() -> Any:
    import scipy.special

    return scipy.special


def asfarray(a: Any, dtype: Any = np.float64) -> Any:
    """An array of floating point numbers."""
    kind = np.dtype(dtype)
    return np.asarray(a, kind if kind.kind in "fc" else np.float64)


def invh(a: Any) -> Any:
    """The inverse of a Hermitian, positive definite matrix."""
    if not isinstance(a, np.ndarray) or a.ndim != 2:
        raise np.linalg.LinAlgError("a matrix is needed, an array of two axes")
    return np.linalg.inv(a)


def cho_solve(
    c_and_lower: Sequence[Any],
    b: Any,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """Solutions by a matrix's factor, or by those of a stack of them.

    Raises:
        ValueError: a number in them is none, or infinite.
    """
    factor, is_lower = c_and_lower
    triangle = np.tril(factor) if is_lower else np.triu(factor)
    if check_finite and not (np.isfinite(triangle).all() and np.isfinite(b).all()):
        raise ValueError("Input array contains NaN or infinity.")
    adjoint = triangle.conj().swapaxes(-1, -2)
    first, second = (triangle, adjoint) if is_lower else (adjoint, triangle)
    return np.linalg.solve(second, np.linalg.solve(first, b))


def sph_harm(m: Any, n: Any, theta: Any, phi: Any, out: Any = None) -> Any:
    """Spherical harmonics: of order m and degree n, the azimuth first."""
    found = _special().sph_harm_y(n, m, phi, theta)
    if out is None:
        return found
    out[...] = found
    return out


def btdtr(a: Any, b: Any, x: Any, out: Any = None) -> Any:
    """The beta distribution's cumulated density."""
    return _special().betainc(a, b, x, out=out)


def btdtri(a: Any, b: Any, p: Any, out: Any = None) -> Any:
    """Where that is ``p``."""
    return _special().betaincinv(a, b, p, out=out)


def _around_zero(count: int) -> Any:
    return np.arange(count) - (count - 1) / 2


def _warn() -> None:
    kind = np.exceptions.VisibleDeprecationWarning
    warnings.warn(_WAVELETS, kind, stacklevel=3)


def ricker(points: Any, a: float) -> Any:
    """The "Mexican hat" of width ``a``, at so many points."""
    _warn()
    x = _around_zero(int(points)) / a
    height = 2 / (math.sqrt(3 * a) * math.pi**0.25)
    return height * (1 - x**2) * np.exp(-(x**2) / 2)


def morlet(
    M: Any,  # noqa: N803  CuPy's name
    w: float = 5.0,
    s: float = 1.0,
    complete: bool = True,
) -> Any:
    """Morlet's complex wavelet between -2πs and 2πs."""
    _warn()
    x = np.linspace(-2 * math.pi * s, 2 * math.pi * s, int(M))
    wave = np.exp(1j * w * x) - (math.exp(-(w**2) / 2) if complete else 0)
    return wave * np.exp(-(x**2) / 2) * math.pi**-0.25


def morlet2(M: Any, s: float, w: float = 5) -> Any:  # noqa: N803  CuPy's name
    """Morlet's complex wavelet of width ``s``, as ``cwt`` wants it."""
    _warn()
    x = _around_zero(int(M)) / s
    return np.exp(1j * w * x - x**2 / 2) * math.pi**-0.25 / math.sqrt(s)


def qmf(hk: Any) -> Any:
    """The high-pass filter that belongs to a low-pass one."""
    _warn()
    signs = np.where(np.arange(len(hk)) % 2, -1, 1)
    return np.asarray(hk)[::-1] * signs


def _of_last_axes(name: str) -> Callable[..., Any]:
    """A transform of many axes, of the last ones if only lengths are given."""
    transform = getattr(np.fft, name)

    def run(
        a: Any, s: Sequence[int] | None = None, axes: Any = None, norm: Any = None
    ) -> Any:
        if s is not None and axes is None:
            axes = tuple(range(-len(s), 0))
        return transform(a, s, axes, norm)

    return run


OWN: Final[dict[str, Callable[..., Any]]] = {
    "cupy.asfarray": asfarray,
    "ndarray.ptp": np.ptp,
    "cupyx.linalg.cho_solve": cho_solve,
    "cupyx.linalg.invh": invh,
    "cupyx.scipy.linalg.kron": np.kron,
    "cupyx.scipy.special.sph_harm": sph_harm,
    "cupyx.scipy.special.btdtr": btdtr,
    "cupyx.scipy.special.btdtri": btdtri,
    **{
        f"cupyx.scipy.signal.{one.__name__}": one
        for one in (ricker, morlet, morlet2, qmf)
    },
    **{
        f"cupy.fft.{name}": _of_last_axes(name)
        for name in ("fftn", "ifftn", "rfftn", "irfftn")
    },
}
