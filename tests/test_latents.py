"""Distributions of latent weights and their distance from the binary ones, against closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from equibit import analysis
from equibit.analysis import angle, fit_gauss, fit_laplace, latent_histogram, p_star, quantization_error
from equibit.methods import SiMaN

N = 100_000  # midpoints of as many equal shares of a law: its moments to about 1e-4, its order exactly
LAWS = {"laplace": stats.laplace, "gauss": stats.norm, "uniform": stats.uniform(-1, 2)}


def points(law, scale=1.0, shift=0.0):
    """A shuffled filter of N weights distributed as the law."""
    values = shift + scale * LAWS[law].ppf((np.arange(N) + 0.5) / N)
    return torch.from_numpy(np.random.default_rng(0).permutation(values))[None]


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_fits_of_their_own_laws(shift):
    laplace, gauss = fit_laplace(points("laplace", 0.1, shift)), fit_gauss(points("gauss", 0.1, shift))
    assert (laplace.location, laplace.scale) == pytest.approx((shift, 0.1), abs=1e-4)
    assert laplace.log_likelihood == pytest.approx(-1 - math.log(0.2), abs=1e-3)
    assert (gauss.location, gauss.scale) == pytest.approx((shift, 0.1), abs=1e-4)
    assert gauss.log_likelihood == pytest.approx(-0.5 * math.log(2 * math.pi * math.e * 0.01), abs=1e-3)


@pytest.mark.parametrize("n", [2, 3, 10, 999])
def test_fits_are_those_of_scipy(n):
    values = torch.from_numpy(np.random.default_rng(n).standard_t(3, n))
    for fit, law in ((fit_laplace, stats.laplace), (fit_gauss, stats.norm)):
        found, (location, scale) = fit(values), law.fit(values.numpy())
        best = law.logpdf(values.numpy(), location, scale).mean()
        assert found.scale == pytest.approx(scale, rel=1e-12)  # any median of an even number gives the same scale
        assert found.log_likelihood == pytest.approx(best, rel=1e-12)
        at = law.logpdf(values.numpy(), found.location, found.scale).mean()
        assert found.log_likelihood == pytest.approx(at, rel=1e-12)


@pytest.mark.parametrize("law", ["laplace", "gauss"])
def test_the_right_law_fits_better_and_by_the_ratio_that_the_docstring_says(law):
    values = points(law)
    laplace, gauss = fit_laplace(values), fit_gauss(values)
    assert (laplace.log_likelihood > gauss.log_likelihood) == (law == "laplace")
    ratio = laplace.scale / gauss.scale
    assert ratio == pytest.approx({"laplace": math.sqrt(0.5), "gauss": math.sqrt(2 / math.pi)}[law], abs=1e-3)
    limit = math.sqrt(math.pi / (2 * math.e))
    assert limit == pytest.approx(0.760, abs=1e-3)
    assert (ratio < limit) == (law == "laplace")


def test_equal_values_and_half_types():
    equal = torch.full((3, 7), 0.3)
    assert (fit_gauss(equal).scale, fit_laplace(equal).scale) == (0.0, 0.0)
    assert fit_gauss(equal).log_likelihood == fit_laplace(equal).log_likelihood == math.inf
    assert latent_histogram(equal)[32] == 21
    assert p_star(equal).tolist() == [1 / 7] * 3
    values = torch.randn(4, 9, generator=torch.manual_seed(0)).bfloat16()
    for function in (fit_gauss, fit_laplace):
        assert function(values) == function(values.float())
    assert torch.equal(p_star(values), p_star(values.float()))


def test_histogram():
    values = points("gauss", 0.2, -1)
    counts = latent_histogram(values)
    assert counts.shape == (64,)
    edges = np.linspace(-4, 4, 65)
    inside = np.abs((values.numpy() - values.numpy().mean()) / values.numpy().std()) <= 4
    assert counts.sum() == inside.sum() < N
    expected = N * np.diff(stats.norm.cdf(edges))
    assert counts.numpy() == pytest.approx(expected, abs=1.5)  # midpoints: within one of the exact count on either side


@pytest.mark.parametrize(("law", "expected"), [("laplace", 1 / math.e), ("gauss", 0.5405), ("uniform", 2 / 3)])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_p_star_of_the_laws(law, expected, shift):
    assert float(p_star(points(law, 0.3, shift))) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 7), (4, 3, 3, 3), (16, 301)])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros"])
def test_p_star_is_the_share_of_the_optimal_code(shape, kind):
    weight = torch.randn(shape, generator=torch.manual_seed(1))
    weight = {"normal": weight, "ties": weight.round(), "zeros": weight * 0}[kind]
    code = SiMaN("optimal").binary(weight)
    assert torch.equal(p_star(weight), analysis.bit_ratio(code))


def test_small_filters_raise_p_star_as_the_docstring_says():
    generator = np.random.default_rng(0)
    for n, bias in ((27, 0.034), (144, 0.006), (576, 0.002)):
        weights = torch.from_numpy(generator.laplace(size=(5_000, n)))
        # The mean of 5000 filters, whose p* deviate by 0.14 at n = 27, has a standard error of 0.002.
        assert float(p_star(weights).mean()) - 1 / math.e == pytest.approx(bias, abs=0.006)


def test_angle():
    ones = torch.ones(1, 4)
    latent = torch.tensor([[1.0, 1, 1, 1], [-2, -2, -2, -2], [1, -1, 1, -1], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert angle(latent, ones.expand(5, 4)).tolist() == pytest.approx([0, 180, 90, 60, 90], abs=1e-5)
    # sign(w) of a Gaussian filter: cos = E|w| / sqrt(E w^2) = sqrt(2 / pi); of a Laplace one sqrt(1 / 2)
    for law, cosine in (("gauss", math.sqrt(2 / math.pi)), ("laplace", math.sqrt(0.5))):
        w = points(law)
        assert float(angle(w, w.sign())) == pytest.approx(math.degrees(math.acos(cosine)), abs=0.02)


def test_quantization_error():
    w = points("gauss").reshape(4, -1)
    best = w.abs().mean()
    cosine = math.sqrt(2 / math.pi)
    assert quantization_error(w, best * w.sign()) == pytest.approx(1 - cosine**2, abs=1e-3)
    assert quantization_error(w, w) == 0
    assert quantization_error(w, torch.zeros_like(w)) == 1
    assert quantization_error(torch.zeros(2, 2), torch.ones(2, 2)) == math.inf
