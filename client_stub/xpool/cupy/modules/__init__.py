"""What is special in each of CuPy's modules; one file for a module or a few."""

from xpool.cupy import rules
from xpool.cupy.modules import cuda, extras, kernels, toplevel

__all__ = ["cuda", "extras", "kernels", "rules", "toplevel"]
