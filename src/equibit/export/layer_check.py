"""The comparison of one layer of a file with the model's."""

from dataclasses import dataclass

import numpy as np

from equibit.export.graph import Array

# Float32 sums in another order differ by a few eps of their terms: measured about 1e-6 of the largest output in
# lenet5 and resnet18. 1e-3 leaves room for deeper networks; a wrong bit in a layer is found by comparing bits, whatever
# it does to the outputs.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class LayerCheck:
    """One layer on the file's inputs to it: are the bits equal, and how far apart are the outputs?

    For a float layer in 8 bits `bits_equal` says that weights and biases are the model's, each at most half a step
    off, with batch norm folded in; the output is compared with the exact sums of what the file holds.

    `max_abs_error` and `tolerance` are of the file's layer output, which holds what was folded and fused into it.
    `input_ok` says whether the file's inputs are, within the tolerance, what the model computes there. A layer that
    gives signs has the tolerance 0: they are those of its integer thresholds. Whether these are the model's says
    `input_ok` of the next layer.
    """

    name: str
    bits_equal: bool
    max_abs_error: float
    tolerance: float
    input_ok: bool

    @property
    def ok(self) -> bool:
        """Bits equal and both errors within the tolerance."""
        return self.bits_equal and self.input_ok and self.max_abs_error <= self.tolerance < np.inf


def distance(found: Array, expected: Array) -> float:
    """Largest difference; infinite where one of the two is not finite, or the shapes differ."""
    if found.shape != expected.shape:
        return np.inf
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - expected)
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def magnitude(values: Array) -> float:
    """Largest absolute value; never 0."""
    return max(float(np.abs(values).max(initial=0.0)), 1e-6)
