"""The answers, the plausible wrong answers and the solutions' claims of the page on the tightness of the bound."""

import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
import torch
from answers import assert_computed, assert_hints

from lecturecode import seeded
from lecturecode.data import digits
from lecturecode.vae import LinearGaussianVAE, SampleMoments

f64 = torch.float64
TABLE = tomllib.loads(files("lecturecode").joinpath("answers/how_tight_is_the_bound.toml").read_text(encoding="utf-8"))
SPECTRUM = np.array([5.0, 3.0, 1.0, 0.6, 0.4, 0.1])


def rate(level):
    return float(sum(0.5 * math.log(max(v / level, 1)) for v in SPECTRUM[:5]))


def variance_of_weights(ratio, step=0.001):
    """E_q[ρ²] − 1 by a sum, for equal means and s² = ratio·τ²."""
    e = np.arange(-40, 40, step)
    log = -ratio * e**2 / 2 + e**2 / 2 + 0.5 * math.log(ratio)
    return float((np.exp(2 * log - e**2 / 2) * step).sum() / math.sqrt(2 * math.pi)) - 1


def blind_gap(slope, variance=1 / 3):
    """Mean ELBO of the seeing encoder less that of μ = slope·x₁, over S, written out with every expectation."""

    def mean_elbo(v, s2):
        v, S, W = np.array(v), np.array([[2.0, 1], [1, 2]]), np.ones(2)
        left = np.eye(2) - np.outer(W, v)
        return -0.5 * (np.trace(left @ S @ left.T) + 2 * s2) - 0.5 * (v @ S @ v + s2 - 1 - math.log(s2))

    return mean_elbo([1 / 3, 1 / 3], 1 / 3) - mean_elbo([slope, 0], variance)


def draws_for_a_tenth(delta, step=0.001):
    """K at which the leading ratio m/√(E[ρ²a²] K) is a tenth, by sums, for equal widths."""
    e = np.arange(-30, 30, step)
    weight = np.exp(-(e**2) / 2) * step / math.sqrt(2 * math.pi)
    rho = np.exp(-delta * e - delta**2 / 2)
    signal, noise = weight @ (rho**2 * delta), weight @ (rho * (delta + e)) ** 2
    return float(100 * signal**2 / noise)


COMPUTED = {
    "tight-units": (rate(1.0), [rate(0.5), 2 * rate(1.0), 0.5 * np.log(SPECTRUM[:5]).sum()]),
    "tight-noise": (SPECTRUM[2:].mean(), [SPECTRUM[2:].sum() / 6, SPECTRUM[2:].sum(), SPECTRUM.mean()]),
    "tight-draws": (
        variance_of_weights(2) / 2e-3,
        [variance_of_weights(2) / 1e-3, (variance_of_weights(2) + 1) / 2e-3, variance_of_weights(4) / 2e-3],
    ),
    "tight-signal": (
        draws_for_a_tenth(1.0),
        [math.sqrt(draws_for_a_tenth(1.0) * 100) / 10, 2 * draws_for_a_tenth(1.0), draws_for_a_tenth(1.0) / math.e],
    ),
    "tight-blind": (
        blind_gap(0.5),
        [2 * blind_gap(0.5), 0.5 * 3 / 9 * 2, 0.5 * math.log((1 / 2) / (1 / 3))],
    ),
    "tight-loss": (64 / 4, [64.0, 64.0 * 4, 4 / 64]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_units_two_are_on():
    assert [v > 1 for v in SPECTRUM[:5]] == [True, True, False, False, False]
    assert rate(1.0) == pytest.approx(0.5 * math.log(15), rel=1e-14)


def test_solution_of_the_noise_by_the_fit():
    moments = SampleMoments(torch.zeros(6, dtype=f64), torch.diag(torch.from_numpy(SPECTRUM)))
    assert LinearGaussianVAE.fitted(moments, 2).variance.item() == pytest.approx(0.525, rel=1e-12)


def test_solution_of_the_draws_what_one_draw_leaves():
    gap = 0.5 * (2 - 1 - math.log(2))
    assert [gap, variance_of_weights(2) / 2] == pytest.approx([0.1534, 0.0774], abs=5e-5)


def test_solution_of_the_signal_in_closed_form():
    assert draws_for_a_tenth(1.0) == pytest.approx(50 * math.e, rel=1e-10)
    e = math.exp
    assert e(6) - 4 * e(4) + 4 * e(3) - e(2) == pytest.approx(258.0, abs=0.05)
    assert e(1) * math.sqrt(50 * e(1) / (e(6) - 4 * e(4) + 4 * e(3) - e(2))) == pytest.approx(1.97, abs=0.005)


def test_solution_of_the_blind_encoder_is_the_best_one():
    """No other slope and no other variance is better; the conditional variance of h given x₁ alone is ½."""
    assert blind_gap(0.5) == pytest.approx(0.25, rel=1e-12)
    others = [blind_gap(0.5 + d, v) for d in (-0.01, 0.01) for v in (1 / 3, 0.5)]
    assert min([*others, blind_gap(0.5, 0.32), blind_gap(0.5, 0.35)]) > 0.25
    assert 1 - 1 / 2 == 0.5  # Var h − Cov(h, x₁)²/Var x₁ with Var x₁ = 2
    model = LinearGaussianVAE(2, 1, seeded(1), dtype=f64)
    with torch.no_grad():
        model.weight.fill_(1.0)
    assert model.posterior(torch.zeros(1, 2, dtype=f64)).variance.item() == pytest.approx(1 / 3, rel=1e-12)


def test_solution_of_the_loss_nothing_lives():
    largest = torch.linalg.eigvalsh(SampleMoments.of(digits("training").grey.double()).covariance)[-1].item()
    assert largest < 16 * 0.05
