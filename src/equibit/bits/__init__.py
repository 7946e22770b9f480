"""The definition of Equibit's bits: their order, the sign of zero, the padding, and exact references.

A set bit is +1, a clear bit -1, and sign(0) = sign(-0.0) = +1. A row of n values takes `words(n)` 64-bit
words: value i is bit `i % 8` of byte `i // 8` (little-endian), and the bits after the last value are zero. A
row of weights is one filter, in the order of the kernel axes, then the input channel (fastest).
Everything that packs, unpacks or multiplies bits, in any language, is tested against this package.
"""

from equibit.bits.dot import masked_xnor_dot, xnor_dot
from equibit.bits.layout import filters_to_rows, pixels_to_rows, rows_to_filters
from equibit.bits.packing import pack_bits, row_bytes, unpack_bits, words
from equibit.bits.reference import conv_sums, conv_transpose_sums, xnor_conv_reference, xnor_linear_reference
from equibit.bits.ternary import pack_ternary, unpack_ternary

__all__ = [
    "conv_sums",
    "conv_transpose_sums",
    "filters_to_rows",
    "masked_xnor_dot",
    "pack_bits",
    "pack_ternary",
    "pixels_to_rows",
    "row_bytes",
    "rows_to_filters",
    "unpack_bits",
    "unpack_ternary",
    "words",
    "xnor_conv_reference",
    "xnor_dot",
    "xnor_linear_reference",
]
