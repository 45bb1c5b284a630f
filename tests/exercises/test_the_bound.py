"""The answers, the plausible wrong answers and the solutions' claims of the page on the bound of a diffusion model."""

import math
import tomllib
from importlib.resources import files

import pytest
import scipy.integrate
import torch
from answers import assert_computed, assert_hints

from lecturecode.diffusion import GaussianData, Linear, VariancePreserving

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/the_bound.toml").read_text(encoding="utf-8"))


def step(high, low, error):
    """The divergence of two reverse steps whose x_0 differ by √error, on levels with α² + σ² = 1."""
    (ar, sr), (at, st) = ((math.sqrt(s / (1 + s)), 1 / math.sqrt(1 + s)) for s in (high, low))
    kept = st**2 - (at / ar * sr) ** 2
    return (ar * kept / st**2) ** 2 * error / (2 * kept * sr**2 / st**2)


def trap(steps, n, beta):
    """Nats by which the consistency form is too large: the covariance of neighbours that it drops, over the width."""
    dropped = math.sqrt(1 - beta) * beta  # Cov(x_r, x_t | level below)
    return (steps - 1) * n * math.sqrt(1 - beta) * dropped / beta


def snr_of_ratio(ratio):
    """The SNR at which 1/σ² is `ratio` times α²/σ², by bisection over σ²."""
    low, high = 1e-9, 1 - 1e-9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / (1 - middle) < ratio else (low, middle)
    return (1 - low) / low


def information(c, snr):
    return scipy.integrate.quad(lambda s: c / (1 + c * s) / 2, 0, snr, epsabs=1e-13)[0]


def lost(c, ar2, at2):
    """(nats with the variance of the step, with that of the posterior) for data of variance c."""
    kept = (1 - at2) - at2 / ar2 * (1 - ar2)
    true = kept * (ar2 * c + 1 - ar2) / (at2 * c + 1 - at2)
    widths = kept, kept * (1 - ar2) / (1 - at2)
    return [0.5 * (true / w - 1 - math.log(true / w)) for w in widths]


def end(alpha2, n, square):
    """KL(N(αx_0, σ²) ‖ N(0, 1)), summed over n numbers."""
    sigma2 = 1 - alpha2
    return 0.5 * (n * (sigma2 - 1 - math.log(sigma2)) + alpha2 * square)


COMPUTED = {
    "dbound-step": (step(4, 1, 0.3), [2 * step(4, 1, 0.3), 0.5 * math.log(4) * 0.3, 0.5 * 4 * 0.3]),
    "dbound-trap": (trap(1000, 64, 0.01), [trap(1000, 1, 0.01), trap(1001, 64, 0.01), trap(1000, 64, 0.01) * 0.01]),
    "dbound-velocity": (
        math.log(snr_of_ratio(3)),
        [-math.log(snr_of_ratio(3)), snr_of_ratio(3), math.log(snr_of_ratio(3)) / 2],
    ),
    "dbound-gaussian": (information(3, 5), [2 * information(3, 5), information(1, 5), 0.5 * 5 * 3]),
    "dbound-variance": (lost(4, 0.5, 0.4)[0], [lost(4, 0.5, 0.4)[1], 2 * lost(4, 0.5, 0.4)[0], lost(2, 0.5, 0.4)[0]]),
    "dbound-end": (end(0.048, 64, 64), [2 * end(0.048, 64, 64), end(0.048, 64, 0), 0.5 * 0.048 * 64]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_trap_each_term():
    assert trap(2, 1, 0.01) == pytest.approx(0.99, rel=1e-14)


def test_solution_of_the_two_ends_what_the_first_term_is():
    """The package's bound of one number, its two parts, up to the signal that its schedule leaves at the end."""
    schedule = VariancePreserving()
    data = GaussianData(torch.zeros(1, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64))
    bound = data.continuous_elbo(schedule, schedule.time(math.log(5)))
    assert float(bound.steps) == pytest.approx(2 * math.log(2), abs=1e-4)
    assert -float(bound.reconstruction) == pytest.approx(0.5820, abs=5e-5)


def test_solution_of_the_variances_both_are_too_narrow():
    schedule = Linear(2, 0.5, 0.2)  # α² = 1/2, then 2/5
    data = GaussianData(torch.zeros(1, dtype=torch.float64), torch.full((1, 1), 4.0, dtype=torch.float64))
    found = [float(data.gap(schedule, torch.arange(3.0), name).steps) for name in ("step", "posterior")]
    assert found == pytest.approx(lost(4, 0.5, 0.4), rel=1e-10)
    assert found == pytest.approx([0.0043, 0.0267], abs=5e-5)
    kept = 0.6 - 0.8 * 0.5
    assert kept * (0.5 * 4 + 0.5) / (0.4 * 4 + 0.6) > kept > kept * 0.5 / 0.6


def test_solution_of_the_end_with_more_steps():
    assert end(4e-5, 64, 64) == pytest.approx(0.0013, abs=5e-5)
