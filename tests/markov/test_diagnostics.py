"""Diagnostics: against ArviZ number by number, against chains whose autocorrelations are known, and their coverage.

The AR(1) chain x′ = ρx + √(1−ρ²) ξ has N(0, 1) as its stationary density, autocorrelations ρ^t and
τ = (1 + ρ)/(1 − ρ).
"""

import math

import numpy as np
import pytest
import torch
from arviz_stats.base.array import array_stats

from lecturecode import seeded
from lecturecode.boltzmann import SPIN, ising
from lecturecode.markov import (
    autocorrelation,
    autocorrelation_time,
    effective_sample_size,
    flip,
    metropolis,
    r_hat,
    run,
    standard_error,
)

f64 = torch.float64


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ar1(rho, shape, seed):
    """A stationary AR(1) chain along the first axis."""
    noise = torch.randn(shape, generator=seeded(seed), dtype=f64)
    rows = [noise[0]]
    for step in noise[1:]:
        rows.append(rho * rows[-1] + math.sqrt(1 - rho**2) * step)
    return torch.stack(rows)


def far_apart():
    x = ar1(0.5, (300, 3), 5)
    x[:, 0] += 2
    return x


def spins():
    """Ties: a two-valued chain."""
    return torch.where(ar1(0.8, (400, 2), 6) > 0.3, 1.0, -1.0).double()


CHAINS = {
    "independent": lambda: ar1(0.0, (500, 4), 1),
    "slow": lambda: ar1(0.95, (1000, 4), 2),
    "slower than the run": lambda: ar1(0.999, (200, 2), 3),
    "antithetic": lambda: ar1(-0.7, (600, 4), 4),
    "far apart": far_apart,
    "spins": spins,
    "heavy tails": lambda: torch.tan(1.5 * ar1(0.6, (500, 4), 7).erf()),
    "a drift": lambda: ar1(0.3, (401, 3), 8) + torch.linspace(0, 2, 401, dtype=f64)[:, None],
    "one chain": lambda: ar1(0.4, (257, 1), 9),
    "odd length": lambda: ar1(0.6, (333, 5), 10),
    "ten steps": lambda: ar1(0.3, (10, 2), 11),
    "five steps": lambda: ar1(0.3, (5, 3), 12),
    "four steps": lambda: ar1(0.3, (4, 2), 13),
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_number_is_that_of_arviz(name):
    """Within 1e-10 relative: both sum the same numbers by FFTs of different lengths."""
    x = CHAINS[name]()
    theirs = x.numpy().T
    for kind in ("bulk", "tail", "mean"):
        tails = {"prob": (0.05, 0.95)} if kind == "tail" else {}
        expected = array_stats.ess(theirs, chain_axis=0, draw_axis=1, method=kind, **tails)
        assert effective_sample_size(x, kind).item() == pytest.approx(float(expected), rel=1e-10), kind
    error = array_stats.mcse(theirs, chain_axis=0, draw_axis=1, method="mean")
    assert standard_error(x).item() == pytest.approx(float(error), rel=1e-10)
    if x.shape[1] > 1:  # for one chain ArviZ gives no R-hat; see below
        expected = array_stats.rhat(theirs, chain_axis=0, draw_axis=1, method="rank")
        assert r_hat(x).item() == pytest.approx(float(expected), rel=1e-10)


def test_one_chain_is_compared_with_itself():
    """Its halves are the chains: the same number as for two chains of half the length that are not split again."""
    x = ar1(0.4, (256, 1), 9)
    assert r_hat(x).item() == r_hat(x[:, 0]).item()
    halves = torch.cat([x[:128], x[128:]], 1).numpy().T
    folded = np.abs(halves - np.median(halves))
    expected = max(array_stats._rhat(array_stats._z_scale(part)) for part in (halves, folded))
    assert r_hat(x).item() == pytest.approx(float(expected), rel=1e-12)
    drifting = x + torch.linspace(0, 3, 256, dtype=f64)[:, None]
    assert r_hat(drifting) > 1.1 > r_hat(x)


def test_observables_are_taken_one_by_one():
    """Axes beyond the second: the same numbers as each alone."""
    x = ar1(0.6, (200, 3, 2, 4), 1)
    for measure in (autocorrelation_time, effective_sample_size, r_hat, standard_error):
        both = measure(x)
        assert both.shape == (2, 4)
        assert both[1, 2].item() == pytest.approx(measure(x[:, :, 1, 2]).item(), rel=1e-12)
    assert autocorrelation(x).shape == (200, 2, 4)


def test_a_constant_is_known_without_error():
    x = torch.full((100, 3, 2), 0.3, dtype=f64)
    x[:, :, 1] = ar1(0.5, (100, 3), 2)
    assert effective_sample_size(x, "mean")[0] == 300
    assert standard_error(x)[0] == pytest.approx(0, abs=1e-15)
    assert autocorrelation_time(x)[0] == 1
    assert r_hat(x)[0].isnan()
    assert r_hat(x)[1].isfinite()


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.5])
def test_the_time_of_a_known_chain(rho):
    """50 chains of 4000 steps: τ̂ within 10 % of (1+ρ)/(1−ρ), five times its spread; ρ̂_t within 5/√N_eff of ρ^t."""
    x = ar1(rho, (4000, 50), 3)
    exact = (1 + rho) / (1 - rho)
    assert autocorrelation_time(x).item() == pytest.approx(exact, rel=0.1)
    assert effective_sample_size(x, "mean").item() == pytest.approx(200_000 / autocorrelation_time(x).item(), rel=1e-12)
    found = autocorrelation(x)[:8]
    assert found[0] == 1
    assert (found - rho ** torch.arange(8, dtype=f64)).abs().max() < 5 * math.sqrt(max(exact, 1) / 200_000)


def test_the_autocorrelations_are_the_plain_sums():
    """Against double loops, without FFT."""
    x = ar1(0.7, (30, 3), 4)
    mean = x.mean(0)
    pairs = [[(x[s] - mean) * (x[s + t] - mean) for s in range(30 - t)] for t in range(30)]
    gamma = [torch.stack(products).sum(0) / 30 for products in pairs]
    within = gamma[0].mean() * 30 / 29
    spread = within * 29 / 30 + (mean - mean.mean()).square().sum() / 2
    expected = torch.stack([1 - (within - g.mean()) / spread for g in gamma[1:]])
    assert torch.allclose(autocorrelation(x)[1:], expected, rtol=0, atol=1e-13)


REPEATS = 200


def share_bound(share):
    """Five standard deviations of a share of 200."""
    return 5 * math.sqrt(share * (1 - share) / REPEATS)


@pytest.mark.parametrize("rho", [0.0, 0.9, -0.5])
def test_the_error_bar_covers_a_known_mean(rho):
    """200 repeats of 4 chains of 1000 steps: 68 % within one error bar, 95 % within two, each to 5σ of such a share;
    and the error bar is the spread of the 200 means, to 5σ of a standard deviation (25 %)."""
    x = ar1(rho, (1000, 4, REPEATS), 5)
    bar, mean = standard_error(x), x.mean((0, 1))
    for width, share in ((1, 0.683), (2, 0.954)):
        assert abs((mean.abs() < width * bar).double().mean() - share) < share_bound(share)
    assert bar.mean().item() == pytest.approx(mean.std().item(), rel=5 / math.sqrt(2 * REPEATS))


def test_the_error_bar_covers_an_energy_and_the_naive_one_does_not():
    """200 runs of the 3×3 magnet at β = 0.4, 3000 Metropolis steps each and every third kept: 95 % of ⟨E⟩ within two
    error bars (5σ of such a share)."""
    magnet = ising(3, 3, coupling=0.4).requires_grad_(False)
    exact = magnet.thermodynamics(1.0).energy
    start = torch.ones(REPEATS, 9, dtype=f64)
    states = run(metropolis(magnet.energy, flip(SPIN)), start, 3000, seeded(6), burn_in=300, thin=3)
    energies = torch.stack([magnet.energy(x) for x in states])[:, None]
    miss = (energies.mean((0, 1)) - exact).abs()
    assert abs((miss < 2 * standard_error(energies)).double().mean() - 0.954) < share_bound(0.954)
    naive = energies[:, 0].std(0) / math.sqrt(1000)
    assert (miss < 2 * naive).double().mean() < 0.954 - share_bound(0.954)


def test_devices_and_precisions(device, dtype):
    """float32 within 1e-3 of float64; the result lives where x lives."""
    if device.type == "mps":
        pytest.skip("no FFT of every length there")
    exact = ar1(0.8, (500, 4, 2), 7)
    x = exact.to(dtype).to(device)
    for measure in (autocorrelation_time, effective_sample_size, r_hat, standard_error):
        found = measure(x)
        assert found.dtype == dtype
        assert found.device.type == device.type
        assert torch.allclose(found.double().cpu(), measure(exact), rtol=1e-3)


X = torch.zeros(10, 2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: r_hat(X[:3]), r"x has shape \(3, 2\); pass at least four steps"),
        (lambda: r_hat(X[:, :0]), r"x has shape \(10, 0\)"),
        (lambda: standard_error(torch.tensor(1.0)), r"x has shape \(\); pass at least four steps"),
        (lambda: autocorrelation_time(X.where(torch.arange(10)[:, None] != 4, math.nan)), r"x\[4, 0\] is nan"),
        (lambda: effective_sample_size(X, "median"), "kind is 'median'; give 'bulk', 'tail' or 'mean'"),
    ],
)
def test_errors_at_the_door(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
