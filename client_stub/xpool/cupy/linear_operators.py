"""``LinearOperator``: a matrix that is only what it does, by functions of the program.

They run here, over arrays of the device, and so does everything that is made of an
operator; a product of two operators is two calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpool.cupy.answers import RemoteObject
from xpool.cupy.functions import call
from xpool.cupy.geometry import check_dtype
from xpool.cupy.ndarray import as_shape, ndarray


def conjugate(x: ndarray) -> ndarray:
    """Complex items conjugated; others as they are."""
    found: ndarray = x.conj()
    return found


class LinearOperator:
    """What takes vectors of length ``shape[1]`` to vectors of length ``shape[0]``.

    A program passes functions, or derives a class with ``_matvec`` or ``_matmat`` and,
    for what needs the adjoint, ``_rmatvec`` or ``_adjoint``.
    """

    ndim = 2
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One made of functions, unless a class is derived."""
        return object.__new__(_OfFunctions if cls is LinearOperator else cls)

    def __init__(self, dtype: Any, shape: Any) -> None:
        """Keep the geometry.

        Raises:
            ValueError: the shape has not two lengths.
        """
        self.dtype = None if dtype is None else check_dtype(dtype)
        self.shape = as_shape(shape)
        if len(self.shape) != 2:
            raise ValueError(f"invalid shape {shape!r} (must be 2-d)")

    def _init_dtype(self) -> None:
        """Find the dtype by a product with ones, if it was not given."""
        if self.dtype is None:
            ones = call("cupy.ones", ((self.shape[1],), np.dtype(float)), {})
            self.dtype = self.matvec(ones).dtype

    # ---- what a derived class defines

    def _matvec(self, x: ndarray) -> Any:
        return self.matmat(x.reshape(-1, 1))

    def _matmat(self, x: ndarray) -> Any:
        columns = [self.matvec(x[:, i]).reshape(-1, 1) for i in range(x.shape[1])]
        return call("cupy.hstack", (columns,), {})

    def _rmatvec(self, x: ndarray) -> Any:
        if type(self)._adjoint is LinearOperator._adjoint:
            raise NotImplementedError("rmatvec is not defined")
        return self.H.matvec(x)

    def _rmatmat(self, x: ndarray) -> Any:
        columns = [self.rmatvec(x[:, i]).reshape(-1, 1) for i in range(x.shape[1])]
        return call("cupy.hstack", (columns,), {})

    def _adjoint(self) -> LinearOperator:
        return _OfFunctions(
            self.shape[::-1], self.rmatvec, self.matvec, self.rmatmat, self.dtype
        )

    # ---- products

    def matvec(self, x: ndarray) -> ndarray:
        """The product with a vector, of shape ``(n,)`` or ``(n, 1)``."""
        return self._vector(self._matvec, x, *self.shape)

    def rmatvec(self, x: ndarray) -> ndarray:
        """The adjoint's product with a vector."""
        return self._vector(self._rmatvec, x, *self.shape[::-1])

    def matmat(self, x: ndarray) -> ndarray:
        """The product with a matrix."""
        return self._matrix(self._matmat, x, self.shape[1])

    def rmatmat(self, x: ndarray) -> ndarray:
        """The adjoint's product with a matrix."""
        return self._matrix(self._rmatmat, x, self.shape[0])

    def _vector(self, run: Any, x: ndarray, rows: int, columns: int) -> ndarray:
        if x.shape not in ((columns,), (columns, 1)):
            raise ValueError("dimension mismatch")
        found: ndarray = run(x)
        return found.reshape(rows) if x.ndim == 1 else found.reshape(rows, 1)

    def _matrix(self, run: Any, x: ndarray, rows: int) -> ndarray:
        if x.ndim != 2 or x.shape[0] != rows:
            raise ValueError(f"dimension mismatch: {self.shape!r}, {x.shape!r}")
        found: ndarray = run(x)
        return found

    def dot(self, x: Any) -> Any:
        """The product with a number, an operator, a vector or a matrix."""
        if isinstance(x, LinearOperator):
            if self.shape[1] != x.shape[0]:
                raise ValueError(f"shape mismatch: {self.shape}, {x.shape}")
            return _combined(
                (self.shape[0], x.shape[1]),
                lambda v: self.matvec(x.matvec(v)),
                lambda v: x.rmatvec(self.rmatvec(v)),
                self,
                x,
            )
        if np.isscalar(x):
            factor: Any = x
            return _combined(
                self.shape,
                lambda v: self.matvec(v) * factor,
                lambda v: self.rmatvec(v) * np.conj(factor),
                self,
                factor=factor,
            )
        if not isinstance(x, ndarray) or x.ndim not in (1, 2):
            raise ValueError(f"expected a 1-d or 2-d array, not {x!r}")
        return self.matvec(x) if x.ndim == 1 else self.matmat(x)

    __mul__ = __call__ = dot

    def __rmul__(self, x: Any) -> Any:
        return self.dot(x) if np.isscalar(x) else NotImplemented

    def __matmul__(self, x: Any) -> Any:
        if np.isscalar(x):
            raise ValueError("Scalar operands are not allowed, use '*' instead")
        return self.dot(x)

    def __add__(self, x: Any) -> Any:
        if not isinstance(x, LinearOperator):
            return NotImplemented
        if self.shape != x.shape:
            raise ValueError(f"shape mismatch: {self.shape}, {x.shape}")
        return _combined(
            self.shape,
            lambda v: call("cupy.add", (self.matvec(v), x.matvec(v)), {}),
            lambda v: call("cupy.add", (self.rmatvec(v), x.rmatvec(v)), {}),
            self,
            x,
        )

    def __neg__(self) -> Any:
        return self.dot(-1)

    def __sub__(self, x: Any) -> Any:
        return self + (-x)

    def __pow__(self, power: int) -> Any:
        if self.shape[0] != self.shape[1] or not isinstance(power, int) or power < 0:
            raise ValueError("a power is a whole number, of a square operator")

        def times(product: Callable[[ndarray], ndarray], x: ndarray) -> ndarray:
            for _ in range(power):
                x = product(x)
            return x

        return _combined(
            self.shape,
            lambda v: times(self.matvec, v),
            lambda v: times(self.rmatvec, v),
            self,
        )

    def adjoint(self) -> LinearOperator:
        """The conjugate transpose."""
        return self._adjoint()

    def transpose(self) -> LinearOperator:
        """The transpose."""
        return _combined(
            self.shape[::-1],
            lambda v: conjugate(self.rmatvec(conjugate(v))),
            lambda v: conjugate(self.matvec(conjugate(v))),
            self,
        )

    H = property(adjoint)
    T = property(transpose)

    def __repr__(self) -> str:
        rows, columns = self.shape
        name = "LinearOperator" if type(self) is _OfFunctions else type(self).__name__
        kind = "unspecified dtype" if self.dtype is None else f"dtype={self.dtype}"
        return f"<{rows}x{columns} {name} with {kind}>"


class _OfFunctions(LinearOperator):
    """One of a program's functions."""

    def __init__(
        self,
        shape: Any,
        matvec: Callable[..., Any],
        rmatvec: Callable[..., Any] | None = None,
        matmat: Callable[..., Any] | None = None,
        dtype: Any = None,
        rmatmat: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(dtype, shape)
        self._functions = matvec, rmatvec, matmat, rmatmat
        self._init_dtype()

    def _matvec(self, x: ndarray) -> Any:
        return self._functions[0](x)

    def _rmatvec(self, x: ndarray) -> Any:
        function = self._functions[1]
        if function is None:
            raise NotImplementedError("rmatvec is not defined")
        return function(x)

    def _matmat(self, x: ndarray) -> Any:
        function = self._functions[2]
        return super()._matmat(x) if function is None else function(x)

    def _rmatmat(self, x: ndarray) -> Any:
        function = self._functions[3]
        return super()._rmatmat(x) if function is None else function(x)


def _combined(
    shape: tuple[int, ...],
    matvec: Callable[..., Any],
    rmatvec: Callable[..., Any],
    *parts: LinearOperator,
    factor: Any = None,
) -> LinearOperator:
    dtypes = [one.dtype for one in parts if one.dtype is not None]
    if factor is not None:
        dtypes.append(np.result_type(factor) if np.iscomplexobj(factor) else dtypes[0])
    dtype = np.result_type(*dtypes) if dtypes else None
    return _OfFunctions(shape, matvec, rmatvec, None, dtype)


class MatrixOperator(LinearOperator):
    """One of a matrix that lives on the device, dense or sparse."""

    def __init__(self, matrix: Any) -> None:
        """Of a matrix."""
        super().__init__(matrix.dtype, matrix.shape)
        self.A = matrix

    def _matvec(self, x: ndarray) -> Any:
        return self.A @ x

    def _matmat(self, x: ndarray) -> Any:
        return self.A @ x

    def _adjoint(self) -> LinearOperator:
        transposed = self.A.T
        return MatrixOperator(
            transposed.conj() if self.A.dtype.kind == "c" else transposed
        )


def aslinearoperator(A: Any) -> LinearOperator:  # noqa: N803  CuPy's name
    """An operator of a matrix, or of what has ``shape`` and ``matvec``.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, ndarray):
        if A.ndim > 2:
            raise ValueError("array must have ndim <= 2")
        return MatrixOperator(call("cupy.atleast_2d", (A,), {}))
    if isinstance(A, RemoteObject):
        return MatrixOperator(A)
    if hasattr(A, "shape") and hasattr(A, "matvec"):
        return _OfFunctions(
            A.shape,
            A.matvec,
            getattr(A, "rmatvec", None),
            None,
            getattr(A, "dtype", None),
        )
    raise TypeError("type not understood")


LinearOperator.__module__ = "cupyx.scipy.sparse.linalg"
