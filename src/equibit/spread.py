"""Repeated measurements in five numbers."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (n - 1; None of one value), lowest and highest of `n` values."""

    n: int
    mean: float
    std: float | None
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value; the mean does not depend on their order."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(len(values), math.fsum(values) / len(values), std, min(values), max(values))
