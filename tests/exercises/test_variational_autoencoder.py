"""The answers, the plausible wrong answers and the solutions' claims of the page on the variational autoencoder."""

import math
import tomllib
from importlib.resources import files

import pytest
import torch
from answers import assert_computed, assert_hints
from torch.distributions import MultivariateNormal, Normal, kl_divergence

f64 = torch.float64
TABLE = tomllib.loads(files("lecturecode").joinpath("answers/variational_autoencoder.toml").read_text(encoding="utf-8"))


def gauss_hermite(f):
    """E[f(ε)] for ε ~ N(0, 1): exact for polynomials below degree 40."""
    nodes, weights = (torch.from_numpy(a) for a in _nodes())
    return float(weights @ f(nodes) / weights.sum())


def _nodes():
    from numpy.polynomial.hermite_e import hermegauss

    return hermegauss(20)


def divergence(mean, variance):
    """KL to N(0, 1), summed, by torch's own rule for pairs of distributions."""
    q = Normal(torch.tensor(mean, dtype=f64), torch.tensor(variance, dtype=f64).sqrt())
    one = torch.ones(len(mean), dtype=f64)
    return float(kl_divergence(q, Normal(0 * one, one)).sum())


def diagonal_gap(variance):
    """KL of the diagonal Gaussian with this common variance from the posterior of the exercise."""
    precision = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=f64)
    zero = torch.zeros(2, dtype=f64)
    q = MultivariateNormal(zero, variance * torch.eye(2, dtype=f64))
    return float(kl_divergence(q, MultivariateNormal(zero, precision_matrix=precision)))


def batch_variance(images, draws, between=18.0, within=6.0):
    return (between + within / draws) / images


def bits(levels, nats, pixels=64):
    return (pixels * math.log(levels) - nats) / (pixels * math.log(2))


MU, SIGMA = 1.0, 0.5
WEIGHTED = gauss_hermite(lambda e: (MU + SIGMA * e) ** 2 * (e / SIGMA) ** 2)

COMPUTED = {
    "vae-kl": (
        divergence([1.0, 0.0], [4.0, 0.25]),
        [
            2 * divergence([1.0, 0.0], [4.0, 0.25]),
            0.5 * (1**2 + 4 + 0.25 - math.log(4 * 0.25) - 1),  # one −1 for both units
            divergence([1.0, 0.0], [16.0, 0.0625]),
        ],
    ),
    "vae-baseline": (
        WEIGHTED / gauss_hermite(lambda e: (e / SIGMA) ** 2),
        [gauss_hermite(lambda e: (MU + SIGMA * e) ** 2), WEIGHTED],
    ),
    "vae-calls": (
        batch_variance(8, 8) / batch_variance(64, 1),
        [
            batch_variance(64, 1) / batch_variance(8, 8),
            (24 / (8 * 8)) / (24 / 64),
            batch_variance(8, 1) / batch_variance(64, 1),
        ],
    ),
    "vae-two-means": (28 * 28 / 20, [28.0 * 28, 20 / 28**2, 28.0 * 28 * 20]),
    "vae-bits": (bits(17, 40), [-40 / (64 * math.log(2)), bits(17, 40) * math.log(2), bits(16, 40)]),
    "vae-diagonal": (diagonal_gap(1 / 2), [diagonal_gap(2 / 3), 2 * diagonal_gap(1 / 2)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_baseline_the_variances():
    def variance(c):
        first = gauss_hermite(lambda e: ((MU + SIGMA * e) ** 2 - c) * e / SIGMA)
        return gauss_hermite(lambda e: (((MU + SIGMA * e) ** 2 - c) * e / SIGMA) ** 2) - first**2

    best = TABLE["vae-baseline"]["answer"]
    assert [variance(0.0), variance(best)] == pytest.approx([21.75, 9.5], rel=1e-12)
    assert variance(best) < min(variance(best - 0.01), variance(best + 0.01))
    path = gauss_hermite(lambda e: (2 * (MU + SIGMA * e)) ** 2) - (2 * MU) ** 2
    assert path == pytest.approx(1.0, rel=1e-12)


def test_solution_of_the_calls_by_the_two_parts():
    assert [batch_variance(8, 8), batch_variance(64, 1)] == pytest.approx([150 / 64, 24 / 64], rel=1e-14)


def test_solution_of_the_bits_a_positive_elbo_saves():
    assert bits(17, 40) < math.log2(17)
    assert [math.log2(17), 40 / (64 * math.log(2)), bits(17, 40)] == pytest.approx([4.0875, 0.9017, 3.1858], abs=5e-5)


def test_solution_of_the_diagonal_no_common_variance_is_nearer():
    gaps = torch.tensor([diagonal_gap(v) for v in torch.linspace(0.3, 0.9, 61).tolist()])
    assert float(gaps.min()) >= diagonal_gap(0.5) - 1e-12
    assert diagonal_gap(0.5) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)
    assert diagonal_gap(2 / 3) == pytest.approx(1 / 3 + 0.5 * math.log(3 / 4), rel=1e-12)
