"""The counting rule: how many weights of a filter become -1, 0 and +1, in exact rational arithmetic."""

from fractions import Fraction
from typing import NamedTuple

from equibit.errors import InputError


class Counts(NamedTuple):
    """Numbers of -1, 0 and +1 among the n weights of one filter; they sum to n."""

    negative: int
    zero: int
    positive: int


def share(name: str, value: float, *, zero: bool) -> Fraction:
    """`value` as the exact rational that its decimal form says, checked to lie in [0, 1] (or (0, 1]).

    Floats would miscount: 1 - 0.9 in floats times 10 is below 1, so ten weights at ratio 0.9 would get no -1.

    Raises:
        InputError: Not a number, or outside the range.
    """
    try:
        exact = Fraction(str(value))
    except ValueError:
        raise InputError(f"{name} is {value!r}; give a number such as 0.5.") from None
    if not (0 <= exact <= 1) or (exact == 0 and not zero):
        raise InputError(f"{name} is {value!r}; it must lie in {'[0, 1]' if zero else '(0, 1]'}.")
    return exact


class CountingRule(NamedTuple):
    """The exact shares of -1 and +1 as integer fractions, so that a traced graph sees plain integer arithmetic."""

    negative: tuple[int, int]
    positive: tuple[int, int]

    @classmethod
    def of(cls, ratio: float, density: float) -> "CountingRule":
        """The rule for a share `ratio` of +1 among a share `density` of kept weights.

        Raises:
            InputError: `ratio` outside [0, 1] or `density` outside (0, 1].
        """
        p, d = share("ratio", ratio, zero=True), share("density", density, zero=False)
        return cls((d * (1 - p)).as_integer_ratio(), (d * p).as_integer_ratio())

    def counts(self, n: int) -> Counts:
        """floor(density (1 - ratio) n) times -1, ceil(density ratio n) times +1, the rest 0, of n weights."""
        (a, b), (c, d) = self
        negative, positive = a * n // b, -(-c * n // d)
        return Counts(negative, n - negative - positive, positive)
