"""Numba's CUDA kernels over remote arrays: compiled here, launched where they are."""
