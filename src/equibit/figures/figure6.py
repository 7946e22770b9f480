"""Figure 6 of Equal Bits: how many different decision boundaries a network of 12 binary weights has.

Inputs x in R^2, three hidden sigmoid units, one sigmoid output without a bias: 6 + 3 + 3 weights of -1 or +1. A network
is its class (output above 1/2) at the 250 x 250 points of the grid. Two networks whose classes are the same, or
opposite, at all points have the same boundary; one whose class never changes has none. All 4096 networks are
enumerated; nothing is trained and nothing is random.

Of the 16 units (8 choices of weights and bias, times the sign of the output weight) a network has three, in any order:
816 different networks, each summed once, in one order, so that rounding cannot tell equal ones apart.

Source: Y. Li, S.-L. Pintea, J. C. van Gemert, "Equal Bits", arXiv:2112.03406.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from equibit.figures.kind import Drawing, Kind
from equibit.figures.plan import Found
from equibit.figures.style import BLUE, GREY, ORANGE, WIDTH

GRID = np.arange(-5, 5, 0.04)  # the 250 points of the authors, with their rounding; the exact ones give the same counts
WEIGHTS = 12
_BITS = tuple(itertools.product((1, -1), repeat=3))  # of a hidden unit: two weights and the bias

Units = tuple[int, int, int]  # a network: unit u has the weights _BITS[u // 2] and the output weight (1, -1)[u % 2]


@dataclass(frozen=True)
class Count:
    """The networks with one number of negative weights.

    Attributes:
        negatives: That number.
        combinations: Networks.
        constant: Those whose class is the same everywhere.
        boundaries: The different boundaries of the others, each by its class map, and a network that has it.
    """

    negatives: int
    combinations: int
    constant: int
    boundaries: Mapping[bytes, Units]

    def row(self) -> dict[str, int]:
        """A row of 6.csv."""
        return {
            "negatives": self.negatives,
            "combinations": self.combinations,
            "constant": self.constant,
            "unique": len(self.boundaries),
        }


def enumerate_networks() -> list[Count]:
    """All 4096 networks, by their number of negative weights, from 0 to 12."""
    maps = class_maps()
    groups: list[list[Units]] = [[] for _ in range(WEIGHTS + 1)]
    for units in itertools.product(range(2 * len(_BITS)), repeat=3):
        groups[sum(map(_negatives, units))].append((units[0], units[1], units[2]))
    counts = []
    for negatives, group in enumerate(groups):
        boundaries: dict[bytes, Units] = {}
        for units in group:
            found = maps[_ordered(units)]
            if found is not None:
                boundaries.setdefault(found, _ordered(units))
        constant = sum(maps[_ordered(units)] is None for units in group)
        counts.append(Count(negatives, len(group), constant, boundaries))
    return counts


def class_maps() -> dict[Units, bytes | None]:
    """The classes of every network on the grid, one bit a point, or their complement where the first is 1.

    None for a network whose class never changes.
    """
    hidden = _hidden().reshape(len(_BITS), -1)
    maps: dict[Units, bytes | None] = {}
    for units in itertools.combinations_with_replacement(range(2 * len(_BITS)), 3):
        classes = _output(hidden, units) > 0  # the sigmoid of the output is above 1/2
        canonical = np.packbits(classes ^ classes[0])
        maps[units] = canonical.tobytes() if canonical.any() else None
    return maps


def _hidden() -> NDArray[np.float64]:
    """Values of the 8 hidden units on the grid: (8, 250, 250), the second input along the rows."""
    first, second = np.meshgrid(GRID, GRID)
    values: NDArray[np.float64] = np.stack([1 / (1 + np.exp(-(a * first + b * second + s))) for a, b, s in _BITS])
    return values


def _output(hidden: NDArray[np.float64], units: Sequence[int]) -> NDArray[np.float64]:
    """The output before its sigmoid."""
    one, two, three = ((1 - 2 * (unit % 2)) * hidden[unit // 2] for unit in units)
    total: NDArray[np.float64] = one + two + three
    return total


def _ordered(units: Units) -> Units:
    one, two, three = sorted(units)
    return one, two, three


def _negatives(unit: int) -> int:
    return _BITS[unit // 2].count(-1) + unit % 2


def _compose(found: Sequence[Found]) -> Drawing:
    counts = enumerate_networks()
    every: dict[bytes, Units] = {}
    for count in counts:
        every |= {key: units for key, units in count.boundaries.items() if key not in every}
    half = counts[WEIGHTS // 2]
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    left, middle, right = np.asarray(figure.subfigures(1, 3))
    hidden, combinations = _hidden(), sum(count.combinations for count in counts)
    _boundaries(left.subplots(), hidden, every, half.boundaries, f"(a) all: {combinations} networks")
    _boundaries(
        middle.subplots(), hidden, half.boundaries, half.boundaries, f"(b) equal bits: {half.combinations} networks"
    )
    _counts(right.subplots(2, 1, sharex=True), counts)
    facts = {
        "full_combinations": combinations,
        "full_unique": len(every),
        "half_combinations": half.combinations,
        "half_unique": len(half.boundaries),
    }
    return Drawing(figure, [count.row() for count in counts], facts)


def _boundaries(
    axis: Axes, hidden: NDArray[np.float64], shown: Mapping[bytes, Units], half: Mapping[bytes, Units], title: str
) -> None:
    """The curves on which the output is 1/2: those that equal bits has too, and over them the others."""
    for key, units in sorted(shown.items(), key=lambda item: item[0] not in half):
        common = key in half
        style: dict[str, Any] = {"colors": BLUE if common else ORANGE, "linestyles": "-" if common else "--"}
        axis.contour(GRID, GRID, _output(hidden, units), levels=[0], linewidths=0.7 if common else 1.2, **style)
    lost = len(shown.keys() - half.keys())
    axis.set_title(f"{title},\n{len(shown)} boundaries" + (f" ({lost} orange: not in b)" if lost else ""))
    axis.set(xlabel="first input", ylabel="second input", aspect="equal", xticks=[-5, 0, 5], yticks=[-5, 0, 5])


def _counts(axes: Sequence[Axes], counts: Sequence[Count]) -> None:
    """Networks and different boundaries against the number of negative weights."""
    numbers = [count.negatives for count in counts]
    for axis, values, label in (
        (axes[0], [count.combinations for count in counts], "networks"),
        (axes[1], [len(count.boundaries) for count in counts], "boundaries"),
    ):
        axis.bar(numbers, values, color=[BLUE if n == WEIGHTS // 2 else GREY for n in numbers])
        axis.set(ylabel=label, ylim=(0, 1.2 * max(values)))
        axis.text(WEIGHTS // 2, max(values), str(values[WEIGHTS // 2]), ha="center", va="bottom", fontsize=8)
    axes[0].set_title("(c) by negative weights\n(blue: equal bits)")
    axes[1].set(xlabel="negative weights of 12")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


FIGURE = Kind(
    "6",
    "Decision boundaries of a network of 12 binary weights",
    "All 4096 networks with 2 inputs, 3 sigmoid units and 1 output, on a grid of 250 x 250 points; exact, not trained.",
    lambda quick: (),
    _compose,
)
