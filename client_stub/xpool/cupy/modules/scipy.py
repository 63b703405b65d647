"""``cupyx.scipy``: sparse matrices and other objects that live on the server."""

from __future__ import annotations

import importlib
import importlib.util
import math
import types
import warnings
from types import ModuleType
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy import sparse_products, transfer
from xpool.cupy.answers import REMOTE_CLASSES
from xpool.cupy.device import WARNINGS
from xpool.cupy.filling import CLASSES
from xpool.cupy.finder import module
from xpool.cupy.functions import call, own
from xpool.cupy.ndarray import ndarray
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
    return transfer.upload(coo.data), tuple(map(transfer.upload, coo.coords))


def sent(value: Any) -> Any:
    """A host's sparse matrix as one on the server; everything else as it is."""
    if not _is_host_sparse(value):
        return value
    layout = value.format if value.format in FORMATS else "coo"
    made = SPARSE[
        layout, "array" if type(value).__name__.endswith("array") else "matrix"
    ]
    return made(_parts(value), shape=value.shape)


class _Sparse(RemoteClass):
    """What sparse matrices have beside the table's members."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return (
            tuple(sent(one) for one in args),
            {name: sent(one) for name, one in kwargs.items()},
        )

    def _set_attribute(self, name: str, value: Any) -> None:
        sparse_products.forget(self)
        super()._set_attribute(name, value)

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
        if layout == "coo":
            names = names[-len(shape) :]
        data, *rest = (self._attribute(one).get() for one in ("data", *names))
        indices = tuple(rest) if layout == "coo" else None
        parts = (data, indices) if indices else (data, *rest)
        return kind(parts, shape=shape)

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __round__(self, ndigits: int = 0) -> Any:
        """With the stored items rounded."""
        made = self.copy()  # type: ignore[attr-defined]
        made.data = call("cupy.around", (self.data, ndigits), {})
        return made

    @property
    def mT(self) -> Any:  # noqa: N802  CuPy's name
        """Transposed."""
        return self.transpose()  # type: ignore[attr-defined]

    @property
    def data(self) -> Any:
        """The stored items: the matrix's own memory."""
        return self._attribute("data")

    @data.setter
    def data(self, value: Any) -> None:
        self._set_attribute("data", value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        found: tuple[int, ...] = self._attribute("shape")
        return found

    @shape.setter
    def shape(self, value: Any) -> None:
        self._set_attribute("shape", tuple(value))

    @property
    def has_canonical_format(self) -> bool:
        """Whether indices are sorted, and none stands twice."""
        return bool(self._attribute("has_canonical_format"))

    @has_canonical_format.setter
    def has_canonical_format(self, value: Any) -> None:
        self._set_attribute("has_canonical_format", bool(value))

    @property
    def has_sorted_indices(self) -> bool:
        """Whether indices are sorted within each row or column."""
        return bool(self._attribute("has_sorted_indices"))

    @has_sorted_indices.setter
    def has_sorted_indices(self, value: Any) -> None:
        self._set_attribute("has_sorted_indices", bool(value))

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


class spmatrix(_Sparse):  # noqa: N801  CuPy's name
    """Base of the matrices, whose ``*`` is the product of matrices."""

    @property
    def A(self) -> Any:  # noqa: N802  CuPy's name
        """A dense array; deprecated."""
        _warn("A", "toarray()")
        return self.toarray()  # type: ignore[attr-defined]

    @property
    def H(self) -> Any:  # noqa: N802  CuPy's name
        """Transposed and conjugated; deprecated."""
        _warn("H", "T.conj()")
        return self.transpose().conj()  # type: ignore[attr-defined]


class sparray(_Sparse):  # noqa: N801  CuPy's name
    """Base of the arrays, whose ``*`` goes by items."""


def _warn(name: str, instead: str) -> None:
    warnings.warn(
        f"`spmatrix.{name}` is deprecated; use `.{instead}` instead",
        DeprecationWarning,
        stacklevel=3,
    )


BASES: Final = {"matrix": spmatrix, "array": sparray}
for _base in BASES.values():
    _base.__module__ = "cupyx.scipy.sparse"
SPARSE: Final[dict[tuple[str, str], Any]] = {}
for _format in FORMATS:
    for _kind in ("matrix", "array"):
        SPARSE[_format, _kind] = remote_class(
            f"cupyx.scipy.sparse.{_format}_{_kind}", BASES[_kind]
        )
        sparse_products.remember(SPARSE[_format, _kind])


class _Callable(RemoteClass):
    """Takes host arrays, as CuPy's classes do."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        def up(value: Any) -> Any:
            if isinstance(value, np.ndarray) and value.ndim:
                return transfer.upload(value)
            return value

        return tuple(map(up, args)), {name: up(one) for name, one in kwargs.items()}


class _PiecewisePolynomial(_Callable):
    """A class of piecewise polynomials."""

    @classmethod
    def from_spline(cls, tck: Any, extrapolate: Any = None) -> Any:
        """The polynomials between a spline's knots, by its derivatives there.

        Args:
            tck: a spline, or its knots, coefficients and degree.
            extrapolate: past the first and last knot; None: as the spline does.
        """
        spline_class = CLASSES["cupyx.scipy.interpolate.BSpline"]
        spline = tck if isinstance(tck, spline_class) else spline_class(*tck)
        if extrapolate is None:
            extrapolate = spline.extrapolate
        knots, _, degree = spline.tck
        rows = [
            spline(knots[:-1], nu=order) / math.factorial(order)
            for order in range(degree, -1, -1)
        ]
        return cls(call("cupy.stack", (rows,), {}), knots, extrapolate)


_BASES: Final = {"PPoly": _PiecewisePolynomial}
for _module, _names in OTHER.items():
    for _name in _names:
        if _name in api()[_module]:
            remote_class(f"{_module}.{_name}", _BASES.get(_name, _Callable))


def _systems() -> None:
    """Classes of systems that a form and a kind of time make together."""
    where = "cupyx.scipy.signal"
    for form in ("StateSpace", "TransferFunction", "ZerosPolesGain"):
        for time, base in (("Continuous", "lti"), ("Discrete", "dlti")):
            parents = CLASSES[f"{where}.{form}"], CLASSES[f"{where}.{base}"]
            made: Any = type(form + time, parents, {"__module__": where})
            REMOTE_CLASSES[form + time] = made._revived


_systems()


@own("cupyx.scipy.sparse.issparse")
def issparse(x: Any) -> bool:
    """Whether it is a sparse matrix or array of the drop-in's."""
    return isinstance(x, _Sparse)


@own("cupyx.scipy.sparse.matrix_transpose")
def matrix_transpose(A: Any) -> Any:  # noqa: N803  CuPy's name
    """Transposed."""
    if not isinstance(A, _Sparse):
        raise TypeError("matrix_transpose expected a sparse object")
    return A.transpose()  # type: ignore[attr-defined]


@own("cupyx.scipy.get_array_module")
def get_array_module(*args: Any) -> Any:
    """``cupyx.scipy`` if one argument lives on the device, otherwise ``scipy``."""
    is_remote = any(isinstance(one, ndarray | _Sparse) for one in args)
    return importlib.import_module("cupyx.scipy" if is_remote else "scipy")


@own("cupyx.scipy.sparse.isspmatrix")
def isspmatrix(x: Any) -> bool:
    """Whether it is a sparse matrix of the drop-in's."""
    return isinstance(x, spmatrix)


for _format in FORMATS:

    def _is_format(x: Any, _format: str = _format) -> bool:
        """Whether it is a matrix of this format."""
        return isinstance(x, SPARSE[_format, "matrix"])

    own(f"cupyx.scipy.sparse.isspmatrix_{_format}")(_is_format)


@own("cupyx.scipy.sparse.linalg.factorized")
def factorized(A: Any) -> Any:  # noqa: N803  CuPy's name
    """What solves systems with this matrix, which is decomposed once."""
    return call("cupyx.scipy.sparse.linalg.splu", (A,), {}).solve


@own("cupyx.scipy.sparse.random")
def random(
    m: int,
    n: int,
    density: float = 0.01,
    format: str = "coo",  # noqa: A002  CuPy's name
    dtype: Any = None,
    random_state: Any = None,
    data_rvs: Any = None,
) -> Any:
    """A matrix whose items stand at random places; ``data_rvs`` runs here."""
    if dtype is not None and np.dtype(dtype).char not in "?fdFD":
        raise NotImplementedError(f"type {dtype} is not supported")
    given = {"density": density, "format": format, "dtype": dtype}
    if random_state is not None:
        given["random_state"] = random_state
    made = call("cupyx.scipy.sparse.random", (m, n), given)
    if data_rvs is not None:
        made.data = transfer.as_array(data_rvs(made.nnz)).astype(made.dtype)
    return made


_WARNINGS: Final = ("SparseWarning", "SparseEfficiencyWarning")


@module("cupyx.scipy.sparse")
def fill(m: ModuleType) -> None:
    """The common bases, and SciPy's warnings if it is there, as CuPy has them."""
    m.spmatrix, m.sparray = spmatrix, sparray  # type: ignore[attr-defined]
    if importlib.util.find_spec("scipy") is not None:
        theirs = importlib.import_module("scipy.sparse")
        for name in _WARNINGS:
            setattr(m, name, getattr(theirs, name))
            WARNINGS[name] = getattr(theirs, name)
