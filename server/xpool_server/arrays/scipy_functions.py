"""Where functions of ``cupyx.scipy`` differ from SciPy's of the same name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np


@functools.cache
def _linalg() -> Any:
    import scipy.linalg

    return scipy.linalg


def _check_matrix(array: Any) -> None:
    if array.ndim != 2:
        raise np.linalg.LinAlgError(
            f"{array.ndim}-dimensional array given. Array must be two-dimensional"
        )


def bandwidth(a: Any) -> tuple[int, int]:
    """How far items other than zero lie below and above the diagonal."""
    if a.size == 0:
        return 0, 0
    _check_matrix(a)
    rows, columns = np.nonzero(a)
    if not rows.size:
        return 0, 0
    far = rows - columns
    return max(int(far.max()), 0), max(-int(far.min()), 0)


def khatri_rao(a: Any, b: Any) -> Any:
    """Kronecker's product, column by column."""
    _check_matrix(a)
    _check_matrix(b)
    return _linalg().khatri_rao(a, b)


def solve_triangular(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    """``b`` with one dimension fewer than a stack of matrices is a stack of vectors."""
    solve = _linalg().solve_triangular
    if a.ndim > 2 and b.ndim == a.ndim - 1:
        return solve(a, b[..., None], *args, **kwargs)[..., 0]
    return solve(a, b, *args, **kwargs)


@functools.cache
def _ndimage() -> Any:
    import scipy.ndimage

    return scipy.ndimage


def affine_transform(*args: Any, texture_memory: bool = False, **kwargs: Any) -> Any:
    """Texture memory makes a CUDA device faster, and its result single."""
    if texture_memory:
        if "output" not in kwargs or kwargs["output"] is None:
            kwargs["output"] = np.float32
        kwargs["prefilter"] = False
    return _ndimage().affine_transform(*args, **kwargs)


_WARP: Final = 32


def _check_block_params(params: Any, size: int) -> None:
    """Refuse what a CUDA device could not cut an image into; a CPU cuts nothing.

    Raises:
        ValueError: a part is too large, or does not divide the padded image.
    """
    if len(params) != 3 or any(one < 1 for one in params):
        raise ValueError("(m1, m2, m3) in block_params must be >= 1")
    if params[1] & (params[1] - 1):
        raise ValueError("m2 must be a power of 2")
    multiple = math.lcm(_WARP, *params)
    padded = -(-size // multiple) * multiple
    for number, one in enumerate(params, 1):
        if one > padded // _WARP:
            raise ValueError(f"m{number} too large. must be <= {padded // _WARP}")


def distance_transform_edt(
    image: Any,
    sampling: Any = None,
    return_distances: bool = True,
    return_indices: bool = False,
    distances: Any = None,
    indices: Any = None,
    *,
    block_params: Any = None,
    float64_distances: bool = True,
) -> Any:
    """Distances of single precision unless they are asked for as doubles."""
    if not (return_distances or return_indices):
        raise ValueError("at least one of distances/indices must be specified")
    if image.ndim not in (2, 3):
        raise NotImplementedError("Only 2D and 3D distance transforms are supported.")
    if block_params is not None and image.ndim == 2:
        _check_block_params(block_params, max(image.shape))
    kind = np.float64 if float64_distances else np.float32
    far, where = _ndimage().distance_transform_edt(
        image, sampling, return_distances=True, return_indices=True
    )
    found = []
    for wanted, given, made, dtype, name in (
        (return_distances, distances, far, kind, "distances"),
        (return_indices, indices, where, None, "indices"),
    ):
        if not wanted:
            if given is not None:
                raise RuntimeError(f"{name} given, but not returned")
            continue
        if given is None:
            found.append(made if dtype is None else made.astype(dtype))
            continue
        if given.shape != made.shape or (dtype is not None and given.dtype != dtype):
            raise RuntimeError(f"{name} array has wrong shape or dtype")
        if given.dtype.kind not in ("iu" if dtype is None else "f"):
            raise RuntimeError(f"{name} array has wrong dtype")
        least = 2 if max(image.shape) <= np.iinfo(np.int16).max + 1 else 4
        if dtype is None and given.dtype.itemsize < least:
            raise RuntimeError(f"{name} dtype must have itemsize >= {least}")
        given[...] = made
    return None if not found else found[0] if len(found) == 1 else tuple(found)


def value_indices(
    arr: Any, *, ignore_value: Any = None, adaptive_index_dtype: bool = False
) -> Any:
    """Indices of each value; of the smallest type that holds them, if asked."""
    found = _ndimage().value_indices(arr, ignore_value=ignore_value)
    if not adaptive_index_dtype:
        return found
    kind = np.min_scalar_type(max(arr.shape, default=0))
    return {key: tuple(at.astype(kind) for at in one) for key, one in found.items()}


def query_ball_point(self: Any, x: Any, r: Any, *args: Any, **kwargs: Any) -> Any:
    """Neighbours of each point, an array each; of one point, one array."""
    found = type(self).query_ball_point(self, x, r, *args, **kwargs)
    if isinstance(found, list):
        return np.asarray(found, np.int64)
    if isinstance(found, np.ndarray) and found.dtype == object:
        return [np.asarray(one, np.int64) for one in found.ravel()]
    return found


def query_ball_tree(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Neighbours of each point in another tree, an array each."""
    found = type(self).query_ball_tree(self, *args, **kwargs)
    return [np.asarray(one, np.int64) for one in found]


_PRECISIONS: Final = {"f": 1e-6, "d": 1e-11}


def symiirorder2(
    input: Any,  # noqa: A002  CuPy's name
    r: Any,
    omega: Any,
    precision: float = -1.0,
) -> Any:
    """A smoothing filter; single input makes a double result with plain numbers."""
    import scipy.signal

    kind = np.result_type(2 * r * np.cos(omega), r)
    if not 0 < precision <= 1:
        precision = _PRECISIONS.get(input.dtype.char, precision)
    given = input.astype(kind) if input.dtype.kind == "f" else input
    return scipy.signal.symiirorder2(given, r, omega, precision)


OWN: Final[dict[str, Callable[..., Any]]] = {
    "cupyx.scipy.signal.symiirorder2": symiirorder2,
    "cupyx.scipy.linalg.bandwidth": bandwidth,
    "cupyx.scipy.linalg.khatri_rao": khatri_rao,
    "cupyx.scipy.spatial.KDTree.query_ball_point": query_ball_point,
    "cupyx.scipy.spatial.KDTree.query_ball_tree": query_ball_tree,
    "cupyx.scipy.ndimage.affine_transform": affine_transform,
    "cupyx.scipy.ndimage.distance_transform_edt": distance_transform_edt,
    "cupyx.scipy.ndimage.value_indices": value_indices,
    "cupyx.scipy.linalg.solve_triangular": solve_triangular,
}
