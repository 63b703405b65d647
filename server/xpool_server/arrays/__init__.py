"""Array operations: CuPy's names, run by NumPy and SciPy on a CPU, by CuPy on CUDA."""
