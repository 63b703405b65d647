"""CuPy's names on a CUDA device: CuPy itself."""

# ruff: noqa: D102  the interface in library.py documents the methods

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from xpool_protocol.arrays.api import api
from xpool_protocol.errors import ArgumentInvalid

from xpool_server.arrays.library import (
    ArrayLibrary,
    check_linalg,
    lacks,
    overridden,
)
from xpool_server.kernel_sources import check_options, check_source

MAX_KERNELS: Final = 4096
_OF_MATRICES: Final = ("data", "shape", "has_canonical_format", "has_sorted_indices")
"""Attributes of every sparse matrix that may be set."""


class CupyLibrary(ArrayLibrary):
    """Arrays are ``cupy.ndarray`` objects, in memory from torch's allocator."""

    def __init__(self) -> None:
        super().__init__()
        self._kernels: dict[Any, Any] = {}
        try:
            self._cupy = importlib.import_module("cupy")
        except ImportError as error:
            raise lacks("CuPy", f"torch without CuPy: {error}") from error
        self.array_type = self._cupy.ndarray  # type: ignore[misc]
        # One allocator for the slice: its limit and its statistics hold for both.
        self._cupy.cuda.set_allocator(
            self._cupy.cuda.PythonFunctionAllocator(_allocate, _free).malloc
        )

    def _look_up(self, name: str) -> Callable[..., Any]:
        if name == "xpool.raising":
            return self._raising
        if name == "xpool.elementwise":
            return self._elementwise
        if name == "xpool.reduction":
            return self._reduction
        if name == "ndarray.astype":
            return _as_type
        if name.startswith("ndarray."):
            return self._member(self.array_type, name.removeprefix("ndarray."), name)
        owner, _, last = name.rpartition(".")
        if owner in api():
            return self._member(importlib.import_module(owner), last, name)
        outer, _, middle = owner.rpartition(".")
        found = self._member(importlib.import_module(outer), middle, name)
        return overridden(found, last, self._member(found, last, name))

    def _raising(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of ``cupy.linalg`` that checks what it has computed."""
        check_linalg(name)
        run = self.operation(name)
        with importlib.import_module("cupyx").errstate(linalg="raise"):
            return run(*args, **kwargs)

    def _elementwise(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        arguments: Any,
        size: Any = None,
        out: Any = (),
        **extras: Any,
    ) -> Any:
        """Run an ``ElementwiseKernel`` of this source; its output, or a tuple."""
        what = (in_params, out_params, operation)
        kernel = self._kernel("ElementwiseKernel", what, extras)
        return kernel(*arguments, *out, **({} if size is None else {"size": size}))

    def _reduction(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: Any,
        arguments: Any,
        axis: Any = None,
        keepdims: bool = False,
        out: Any = None,
        **extras: Any,
    ) -> Any:
        """Run a ``ReductionKernel`` of this source."""
        what = (in_params, out_params, map_expr, reduce_expr, post_map_expr, identity)
        kernel = self._kernel("ReductionKernel", what, extras)
        return kernel(*arguments, out=out, axis=axis, keepdims=keepdims)

    def _kernel(self, name: str, what: tuple[Any, ...], extras: dict[str, Any]) -> Any:
        """A kernel object, kept by its source: it keeps what is compiled."""
        key = (name, what, tuple(sorted(extras.items())))
        found = self._kernels.get(key)
        if found is None:
            for text in (*what, *extras.values()):
                if isinstance(text, str):
                    check_source(text.encode())
            check_options(extras.get("options", ()))
            if len(self._kernels) >= MAX_KERNELS:
                self._kernels.clear()
            found = self._kernels[key] = getattr(self._cupy, name)(*what, **extras)
        return found

    def _member(self, owner: Any, last: str, whole: str) -> Any:
        found = getattr(owner, last, None)
        if found is None or not callable(found):
            raise lacks(whole, f"CuPy {self._cupy.__version__}")
        return found

    def as_result(self, found: Any) -> Any:
        return self._cupy.asarray(found) if isinstance(found, np.generic) else found

    def set_attribute(self, found: Any, name: str, value: Any) -> None:
        is_sparse = type(found).__module__.startswith("cupyx.scipy.sparse.")
        if is_sparse and name in _OF_MATRICES:
            setattr(found, name, value)
        else:
            super().set_attribute(found, name, value)

    def from_bytes(
        self, dtype: np.dtype[Any], sizes: tuple[int, ...], order: str, data: bytes
    ) -> Any:
        flat = np.frombuffer(data, dtype)
        return self._cupy.array(flat.reshape(sizes, order=order), order="K")  # type: ignore[call-overload]

    def to_bytes(self, array: Any) -> bytes:
        return bytes(array.get(order="C").tobytes())

    def over(self, tensor: torch.Tensor) -> Any:
        return self._cupy.from_dlpack(tensor.resolve_conj().resolve_neg())

    def storage_over(self, array: Any) -> torch.UntypedStorage:
        if not array.flags.c_contiguous:
            raise ArgumentInvalid("only a contiguous array can be a storage")
        flat = array.reshape(-1).view(np.uint8)
        return torch.utils.dlpack.from_dlpack(flat).untyped_storage()

    def extent(self, array: Any) -> tuple[int, int]:
        memory, begin = array.data.mem, array.data.ptr
        return memory.ptr - begin, memory.ptr + memory.size - begin

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def argument(
        self, dtype: np.dtype[Any], sizes: tuple[int, ...], data: bytes
    ) -> Any:
        flat = np.frombuffer(data, dtype)
        return self._cupy.asarray(flat.reshape(sizes)) if sizes else flat[0]


def _as_type(array: Any, dtype: Any, order: str, casting: str) -> Any:
    """``ndarray.astype``: CuPy casts unsafely and refuses to be told to."""
    if casting != "unsafe":
        raise ArgumentInvalid(f"casting {casting!r} is the client's to check")
    return array.astype(dtype, order=order)


def _allocate(nbytes: int, device: int) -> int:
    return int(torch.cuda.caching_allocator_alloc(nbytes, device))


def _free(address: int, device: int) -> None:
    torch.cuda.caching_allocator_delete(address)  # type: ignore[no-untyped-call]
