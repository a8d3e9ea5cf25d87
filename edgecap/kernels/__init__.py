"""Pure array functions, compiled; the only place that imports numba."""

from edgecap.kernels.compile import kernel, warm_up

__all__ = ["kernel", "warm_up"]
