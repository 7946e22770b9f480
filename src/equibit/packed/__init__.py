"""1-bit modules, `pack`, and the packed checkpoint."""

from equibit.packed.checkpoint import load_packed, save_packed
from equibit.packed.modules import PackedConv, PackedConvTranspose, PackedLayer, PackedLinear, Spec
from equibit.packed.pack import pack, packed_layers

__all__ = [
    "PackedConv",
    "PackedConvTranspose",
    "PackedLayer",
    "PackedLinear",
    "Spec",
    "load_packed",
    "pack",
    "packed_layers",
    "save_packed",
]
