"""How latent weights are distributed and how far they are from the binary ones: pure functions."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equibit.kernels.torch_ops import widen
from equibit.standardize import centre

HISTOGRAM_BINS = 64
HISTOGRAM_REACH = 4.0  # standard deviations on either side of the mean


@dataclass(frozen=True)
class Fit:
    """A distribution fitted by maximum likelihood.

    Attributes:
        location: Of the distribution.
        scale: Of the distribution; 0 for values that are all equal.
        log_likelihood: Mean per value, in nats; the higher, the better the fit. Infinite for values that are all equal.
    """

    location: float
    scale: float
    log_likelihood: float


@torch.no_grad()
def fit_laplace(values: Tensor) -> Fit:
    """The Laplace law exp(-|w - m| / b) / (2 b): m the median (the lower of two), b = mean |w - m|.

    The mean log likelihood is -1 - ln(2 b). It is above that of `fit_gauss` exactly where
    b / std < sqrt(pi / (2 e)) = 0.760; the ratio is 0.707 for a Laplace law and 0.798 for a Gaussian one.
    """
    flat = widen(values).flatten()
    median = flat.median()
    scale = float((flat - median).abs_().mean(dtype=torch.float64))
    return Fit(float(median), scale, -1 - math.log(2 * scale) if scale else math.inf)


@torch.no_grad()
def fit_gauss(values: Tensor) -> Fit:
    """The Gaussian law with the mean and the biased standard deviation of the values.

    The mean log likelihood is -ln(2 pi e std^2) / 2.
    """
    mean, deviation = _moments(values)
    return Fit(mean, deviation, -0.5 - math.log(deviation * math.sqrt(2 * math.pi)) if deviation else math.inf)


@torch.no_grad()
def latent_histogram(values: Tensor) -> Tensor:
    """Counts in 64 equal bins from mean - 4 std to mean + 4 std; values beyond are left out.

    Returns:
        int64, shape (64,). Equal values are all in the bin above the middle.
    """
    mean, deviation = _moments(values)
    scores = (widen(values).flatten() - mean).div_(deviation or 1.0)
    return torch.histc(scores, HISTOGRAM_BINS, -HISTOGRAM_REACH, HISTOGRAM_REACH).long()


def p_star(latent: Tensor) -> Tensor:
    """p* = L* / n: the share of +1 for which SiMaN's code has the smallest angle with the magnitudes of a filter.

    With m = |w - mean(w)| in descending order, L* maximises (m_1 + ... + m_L) / sqrt(L); the smallest such L. For many
    weights of one law it is 1/e = 0.368 (Laplace), 0.5405 (Gauss) or 2/3 (uniform). Few weights raise its mean: for
    a Laplace law by 0.034 with n = 27, 0.006 with n = 144, 0.002 with n = 576. Source: SiMaN, arXiv 2102.07981.

    Args:
        latent: Filters in dim 0.

    Returns:
        float64, shape (filters,).
    """
    deviation, _ = centre(widen(latent.detach()))
    sums = _ascending(deviation.abs_().flatten(1)).flip(1).cumsum(dim=1, dtype=torch.float64)
    n = sums.shape[1]
    counts = torch.arange(1, n + 1, dtype=torch.float64, device=sums.device)
    return sums.div_(counts.sqrt()).argmax(dim=1).double().add_(1).div_(n)


def _ascending(rows: Tensor) -> Tensor:
    """Each row sorted; on a CPU by numpy, whose vectorised sort takes a quarter of the time of torch's."""
    return rows.sort(dim=1).values if rows.device.type != "cpu" else torch.from_numpy(np.sort(rows.numpy(), axis=1))


@torch.no_grad()
def angle(latent: Tensor, binary: Tensor) -> Tensor:
    """Angle in degrees between each filter of the latents and its binary weights; 90 where either is all zeros.

    1 - cos^2 is the quantisation error that is left with the best scale per filter. Methods that do not take the
    binary weight from the sign of the latent (SiMaN) have about 90 degrees by design.

    Args:
        latent: Filters in dim 0.
        binary: -1/+1 (0 where pruned), of the same shape.

    Returns:
        float64, shape (filters,).
    """
    w, b = widen(latent).flatten(1), widen(binary).flatten(1)
    norms = w.square().sum(1, dtype=torch.float64) * b.square().sum(1, dtype=torch.float64)
    inner = (w * b).sum(1, dtype=torch.float64)
    cosine = torch.where(norms > 0, inner / norms.sqrt(), 0.0)
    return torch.rad2deg(cosine.clamp(-1, 1).acos())


@torch.no_grad()
def quantization_error(latent: Tensor, effective: Tensor) -> float:
    """||w - w_eff||^2 / ||w||^2 over a layer, w_eff being what it computes with, scale * binary + offset.

    A constant scale that does not follow the latents makes it large without any harm, where a batch norm follows;
    `angle` does not depend on scales. Infinite for latents that are all 0.
    """
    w = widen(latent)
    error = (w - effective).square_().sum(dtype=torch.float64)
    energy = w.square().sum(dtype=torch.float64)
    return float(error / energy) if energy else math.inf


def _moments(values: Tensor) -> tuple[float, float]:
    """Mean and biased standard deviation; exactly 0 for values that are all equal."""
    flat = widen(values).flatten()
    low, high = flat.aminmax()
    if low == high:
        return float(low), 0.0
    mean = flat.mean(dtype=torch.float64)
    return float(mean), float((flat - mean.to(flat.dtype)).square_().mean(dtype=torch.float64).sqrt())
