"""Latent weights that methods stumble over, for the tests of several methods."""

import torch

NAMES = ("random", "tied", "outlier", "far from zero", "constant", "one weight", "mixed")


def hostile(name):
    """A float64 weight of four filters; the same at every call."""
    generator = torch.Generator().manual_seed(7)
    w = 0.05 * torch.randn(4, 3, 3, 5, generator=generator, dtype=torch.float64)
    return {
        "random": w,
        "tied": (w * 20).round() / 20,
        "outlier": torch.cat([w.flatten(1), torch.full((4, 1), 30.0, dtype=torch.float64)], dim=1),
        "far from zero": w + 5,
        "constant": torch.tensor([[0.1], [-0.3], [0.0], [1 / 3]], dtype=torch.float64).expand(4, 11).clone(),
        "one weight": w[:, :1, 0, 0],
        "mixed": torch.cat([w[:2].flatten(1), torch.full((2, 45), -0.7, dtype=torch.float64)]),
    }[name]
