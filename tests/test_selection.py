"""Counting and selection against the obvious reference: a full stable sort, and brute-force optimal transport."""

import itertools
from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equibit.errors import InputError
from equibit.kernels.torch_ops import lowest
from equibit.methods import BiHalf
from equibit.methods.counting import CountingRule

TIED = st.sampled_from([-2.5, -1.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 3.0])
ROWS = st.integers(1, 40).flatmap(lambda n: st.lists(st.lists(TIED, min_size=n, max_size=n), min_size=1, max_size=4))


def by_sorting(rows: torch.Tensor, count: int) -> torch.Tensor:
    order = (rows + 0.0).argsort(dim=1, stable=True)  # -0.0 + 0.0 is 0.0
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order[:, :count], True)


@given(ROWS, st.floats(0, 1))
@settings(deadline=None)
def test_lowest_equals_a_stable_sort_under_ties(rows, share):
    tensor = torch.tensor(rows)
    count = round(share * tensor.shape[1])
    assert torch.equal(lowest(tensor, count), by_sorting(tensor, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lowest_equals_a_stable_sort_on_large_rows(dtype):
    rows = torch.randn(7, 4609, dtype=dtype).mul(50).round()  # about 300 distinct values: many ties
    for count in (0, 1, 2304, 4608, 4609):
        assert torch.equal(lowest(rows, count), by_sorting(rows, count))


@given(st.integers(1, 5000), st.integers(0, 100), st.integers(1, 100))
def test_counts_are_exact_rationals(n, ratio, density):
    rule = CountingRule.of(ratio / 100, density / 100)
    p, d = Fraction(ratio, 100), Fraction(density, 100)
    counts = rule.counts(n)
    assert counts == (floor(d * (1 - p) * n), n - floor(d * (1 - p) * n) - ceil(d * p * n), ceil(d * p * n))
    assert sum(counts) == n
    assert min(counts) >= 0


def test_counts_where_floats_are_wrong():
    assert int((1 - 0.9) * 10) == 0  # what floats give
    assert CountingRule.of(0.9, 1.0).counts(10) == (1, 0, 9)
    assert CountingRule.of(0.5, 1.0).counts(9) == (4, 0, 5)
    assert CountingRule.of(0.5, 0.2).counts(10) == (1, 8, 1)


@pytest.mark.parametrize(
    ("ratio", "density"), [(-0.1, 1), (1.1, 1), (0.5, 0), (0.5, 1.5), ("half", 1), (float("nan"), 1)]
)
def test_counting_rule_refuses_what_is_no_share(ratio, density):
    with pytest.raises(InputError, match=r"ratio|density"):
        CountingRule.of(ratio, density)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_bi_half_is_the_optimal_transport_solution(n, ratio):
    """Among all assignments with the same counts none is closer to the latents, sum_i (w_i - b_i)^2."""
    for seed in range(5):
        w = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found = BiHalf(ratio).binary(w[None])[0]
        positive = int((found > 0).sum())
        costs = []
        for plus in itertools.combinations(range(n), positive):
            b = -torch.ones(n, dtype=torch.float64)
            b[list(plus)] = 1
            costs.append(float((w - b).square().sum()))
        # The sums are of at most eight terms below 16, so 1e-12 is thousands of roundings.
        assert float((w - found).square().sum()) <= min(costs) + 1e-12
