"""How far two float32 results may lie apart that differ in the order of their sums only."""

import torch


def assert_rounding(got, expected):
    """float32 sums of up to 1000 terms of order 1: 4 eps sqrt(1000) sqrt(1000) is 5e-4; seen: below 3e-6."""
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-5)
