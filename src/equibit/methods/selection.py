"""What every selection by rank starts with."""

from equibit.kernels.torch_ops import widen

__all__ = ["widen"]
