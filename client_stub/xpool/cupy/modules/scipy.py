"""``cupyx.scipy``: sparse matrices and other objects that live on the server."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy import transfer
from xpool.cupy.finder import module
from xpool.cupy.functions import own
from xpool.cupy.remote_classes import RemoteClass, remote_class

FORMATS: Final = ("coo", "csr", "csc", "dia")
OTHER: Final = {
    "cupyx.scipy.interpolate": (
        *("Akima1DInterpolator", "BPoly", "BSpline", "BarycentricInterpolator"),
        *("CloughTocher2DInterpolator", "CubicHermiteSpline", "CubicSpline"),
        *("InterpolatedUnivariateSpline", "KroghInterpolator", "NdPPoly"),
        *("LSQUnivariateSpline", "LinearNDInterpolator", "NdBSpline", "PPoly"),
        *("NearestNDInterpolator", "PchipInterpolator", "RBFInterpolator"),
        *("RegularGridInterpolator", "UnivariateSpline", "interp1d", "pchip"),
    ),
    "cupyx.scipy.signal": (
        *("CZT", "StateSpace", "TransferFunction", "ZerosPolesGain", "ZoomFFT"),
        *("dlti", "lti"),
    ),
    "cupyx.scipy.spatial": ("Delaunay", "KDTree"),
    "cupyx.scipy.sparse.linalg": ("SuperLU",),
}


def _is_host_sparse(value: Any) -> bool:
    return type(value).__module__.startswith("scipy.sparse") and hasattr(
        value, "format"
    )


def _parts(value: Any) -> tuple[Any, ...]:
    """What a host's sparse matrix is made of, uploaded."""
    if value.format in ("csr", "csc"):
        return tuple(
            transfer.upload(one) for one in (value.data, value.indices, value.indptr)
        )
    if value.format == "dia":
        return transfer.upload(value.data), transfer.upload(value.offsets)
    coo = value.tocoo()
    return transfer.upload(coo.data), tuple(
        transfer.upload(one) for one in (coo.row, coo.col)
    )


def sent(value: Any) -> Any:
    """A host's sparse matrix as one on the server; everything else as it is."""
    if not _is_host_sparse(value):
        return value
    layout = value.format if value.format in FORMATS else "coo"
    made = SPARSE[layout, "matrix"]
    return made(_parts(value), shape=value.shape)


class _Sparse(RemoteClass):
    """What sparse matrices have beside the table's members."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return (
            tuple(sent(one) for one in args),
            {name: sent(one) for name, one in kwargs.items()},
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored items."""
        found: np.dtype[Any] = self._attribute("dtype")
        return found

    @property
    def device(self) -> Any:
        """The device on which it lies."""
        from xpool.cupy.cuda import Device

        return Device(0)

    def get(self, stream: Any = None) -> Any:
        """A copy as SciPy's own class, on the host."""
        import scipy.sparse

        kind = getattr(scipy.sparse, type(self).__name__)
        layout, shape = type(self).__name__[:3], self._attribute("shape")
        names = {"coo": ("row", "col"), "dia": ("offsets",)}.get(
            layout, ("indices", "indptr")
        )
        data, *rest = (self._attribute(one).get() for one in ("data", *names))
        indices = tuple(rest) if layout == "coo" else None
        parts = (data, indices) if indices else (data, *rest)
        return kind(parts, shape=shape)

    def __len__(self) -> int:
        raise TypeError("sparse matrix length is ambiguous; use getnnz()")

    def __iter__(self) -> Any:
        return (self[i] for i in range(self._attribute("shape")[0]))  # type: ignore[index]

    def __reduce__(self) -> Any:
        return sent, (self.get(),)

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())


SPARSE: Final[dict[tuple[str, str], Any]] = {}
for _format in FORMATS:
    for _kind in ("matrix", "array"):
        SPARSE[_format, _kind] = remote_class(
            f"cupyx.scipy.sparse.{_format}_{_kind}", _Sparse
        )


class _Callable(RemoteClass):
    """Takes host arrays, as CuPy's classes do."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        def up(value: Any) -> Any:
            if isinstance(value, np.ndarray) and value.ndim:
                return transfer.upload(value)
            return value

        return tuple(map(up, args)), {name: up(one) for name, one in kwargs.items()}


for _module, _names in OTHER.items():
    for _name in _names:
        if _name in api()[_module]:
            remote_class(f"{_module}.{_name}", _Callable)


@own("cupyx.scipy.sparse.issparse", "cupyx.scipy.sparse.isspmatrix")
def issparse(x: Any) -> bool:
    """Whether it is a sparse matrix of the drop-in's."""
    return isinstance(x, _Sparse)


for _format in FORMATS:

    def _is_format(x: Any, _format: str = _format) -> bool:
        """Whether it is a matrix of this format."""
        return isinstance(x, SPARSE[_format, "matrix"])

    own(f"cupyx.scipy.sparse.isspmatrix_{_format}")(_is_format)


@module("cupyx.scipy.sparse")
def fill(m: ModuleType) -> None:
    """The common bases."""
    m.spmatrix = m.sparray = _Sparse  # type: ignore[attr-defined]
