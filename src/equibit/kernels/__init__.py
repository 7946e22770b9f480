"""The kernels of `equibit.bits` in C++: the same functions, fast, at the best level this CPU runs.

Every level gives the same integers; the environment variable `EQUIBIT_KERNEL` forces one by name.
"""

from equibit.kernels.levels import active, available, cpu_name
from equibit.kernels.packing import pack_bits, unpack_bits
from equibit.kernels.xnor import xnor_conv2d, xnor_linear

__all__ = [
    "active",
    "available",
    "cpu_name",
    "pack_bits",
    "unpack_bits",
    "xnor_conv2d",
    "xnor_linear",
]
