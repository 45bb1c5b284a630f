"""The noise and its reverse against Gaussian conditioning done with matrices and fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    FromBetas,
    Gaussian,
    Linear,
    VarianceExploding,
    VariancePreserving,
    forward,
    levels,
    marginal,
    noise_end,
    posterior,
    terminal_snr,
    transition,
)

F64 = torch.float64
ALL = {
    "linear": Linear(40, 0.001, 0.2),
    "cosine": Cosine(40),
    "zero terminal": Linear(40, 0.001, 0.2).zero_terminal(),
    "preserving": VariancePreserving(),
    "exploding": VarianceExploding(),
    "edm": EDM(),
}
PAIRS = [(0.1, 0.2), (0.25, 0.9), (0.5, 0.525), (0.9, 1.0)]


def points(count=6, d=3, dtype=F64):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, d, generator=rng, dtype=dtype), torch.randn(count, d, generator=rng, dtype=dtype)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("pair", PAIRS)
def test_the_posterior_by_conditioning_a_covariance_matrix(name, pair):
    """(x_r, x_t) given x_0 is jointly Gaussian: its conditional from the 2×2 covariance matrix, by NumPy."""
    schedule = ALL[name]
    r, t = pair[0] * schedule.end, pair[1] * schedule.end
    (ar, sr), (at, st) = ([float(v) for v in schedule(u)] for u in (r, t))
    x0, xt = points()
    share = at / ar
    cov = np.array([[sr**2, share * sr**2], [share * sr**2, st**2]])
    gain = cov[0, 1] / cov[1, 1]
    mean = ar * x0.numpy() + gain * (xt.numpy() - at * x0.numpy())
    variance = np.linalg.det(cov) / cov[1, 1]
    found = posterior(schedule, x0, xt, r, t)
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-10, atol=1e-12 * np.abs(mean).max())
    assert found.variance.item() == pytest.approx(variance, rel=1e-9)


def test_hos_posterior_in_fractions():
    """Ho, Jain & Abbeel (2020), eq. 7, with rational betas: no rounding on one side at all."""
    betas = [Fraction(k, 50) for k in (1, 3, 4, 7)]
    bars = [Fraction(1)]
    for beta in betas:
        bars.append(bars[-1] * (1 - beta))
    x0, xt = points(1, 1)
    for t in range(1, 5):
        variance = (1 - bars[t - 1]) / (1 - bars[t]) * betas[t - 1]
        mean = (
            math.sqrt(bars[t - 1]) * float(betas[t - 1] / (1 - bars[t])) * x0
            + math.sqrt(1 - betas[t - 1]) * float((1 - bars[t - 1]) / (1 - bars[t])) * xt
        )
        found = posterior(FromBetas([float(b) for b in betas]), x0, xt, t - 1, t)
        torch.testing.assert_close(found.mean, mean, rtol=1e-13, atol=1e-14)
        assert float(found.variance) == pytest.approx(float(variance), rel=1e-13, abs=0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("pair", PAIRS)
def test_bayes_rule_holds_between_step_marginal_and_posterior(name, pair):
    """q(x_t|x_r) q(x_r|x_0) = q(x_r|x_t,x_0) q(x_t|x_0) at any points: four densities, in nats."""
    schedule = ALL[name]
    r, t = pair[0] * schedule.end, pair[1] * schedule.end
    x0, eps = points()
    xr = forward(schedule, x0, eps, r)
    xt = transition(schedule, xr, r, t).mean + 0.3 * transition(schedule, xr, r, t).variance.sqrt()
    left = transition(schedule, xr, r, t).log_prob(xt) + marginal(schedule, x0, r).log_prob(xr)
    right = posterior(schedule, x0, xt, r, t).log_prob(xr) + marginal(schedule, x0, t).log_prob(xt)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_two_steps_are_one(name):
    """Chapman–Kolmogorov: means multiply, variances add after the second step's factor."""
    schedule = ALL[name]
    r, s, t = (u * schedule.end for u in (0.2, 0.45, 0.8))
    one = torch.ones(1, 1, dtype=F64)
    first, second, both = (transition(schedule, one, *pair) for pair in ((r, s), (s, t), (r, t)))
    torch.testing.assert_close(first.mean * second.mean, both.mean, rtol=1e-12, atol=0)
    added = (first.variance * second.mean**2 + second.variance).item()
    assert added == pytest.approx(both.variance.item(), rel=1e-11)


def test_a_step_from_the_data_is_the_marginal_and_back_is_the_data():
    x0, xt = points()
    for schedule in ALL.values():
        step, direct = transition(schedule, x0, 0, 0.5 * schedule.end), marginal(schedule, x0, 0.5 * schedule.end)
        torch.testing.assert_close(step.mean, direct.mean)
        torch.testing.assert_close(step.variance, direct.variance)
        back = posterior(schedule, x0, xt, 0, 0.5 * schedule.end)
        assert torch.equal(back.mean, x0)
        assert back.variance == 0


def test_the_smallest_step_keeps_its_digits():
    """σ²_{t|r} for t − r = 1e-9: differences of levels lose nine digits, differences of log SNRs do not."""
    schedule = VariancePreserving()
    t, h = 0.5, 2.0**-30
    rate = schedule.rates(t + h / 2)[1].item()
    found = transition(schedule, torch.ones(1, 1, dtype=F64), t, t + h).variance.item()
    assert found == pytest.approx(-math.expm1(-rate * h), rel=1e-6)


def test_each_row_may_have_its_own_time(device, dtype):
    x0, eps = (x.to(device, dtype) for x in points(4))
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=dtype, device=device)
    schedule = VariancePreserving()
    together = forward(schedule, x0, eps, t)
    for k, u in enumerate(t.tolist()):
        alone = forward(schedule, x0[k : k + 1], eps[k : k + 1], u)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-5 if dtype != F64 else 1e-12, atol=1e-6)
    assert together.dtype == dtype
    assert levels(schedule, t, x0.reshape(4, 3, 1, 1))[0].shape == (4, 1, 1, 1)
    back = posterior(schedule, x0, together, t / 2, t)
    assert back.mean.dtype == dtype
    assert back.variance.shape == (4, 1)


def test_the_noise_end_is_the_marginal_of_unit_data():
    like = torch.zeros(1, dtype=F64)
    assert noise_end(VariancePreserving(), (2, 3), like).variance == pytest.approx(1, rel=1e-14)
    assert noise_end(EDM(), (2, 3), like).variance == 6401
    drawn = noise_end(EDM(3.0), (40_000, 1), like).sample(seeded(0))
    assert abs(drawn.var().item() - 10) < 5 * 10 * math.sqrt(2 / 40_000)  # 5 standard errors


def test_gaussians_against_torch():
    rng = torch.Generator().manual_seed(2)
    m, n = torch.randn(2, 5, 4, generator=rng, dtype=F64)
    v, w = torch.rand(2, 5, 4, generator=rng, dtype=F64) + 0.1
    p, q = Gaussian(m, v), Gaussian(n, w)
    theirs = torch.distributions.Normal(m, v.sqrt()), torch.distributions.Normal(n, w.sqrt())
    torch.testing.assert_close(p.log_prob(n), theirs[0].log_prob(n).sum(1), rtol=1e-13, atol=0)
    torch.testing.assert_close(p.kl(q), torch.distributions.kl_divergence(*theirs).sum(1), rtol=1e-12, atol=0)
    flat = Gaussian(m, torch.tensor(0.3, dtype=F64))
    wide = torch.distributions.Normal(m, torch.full_like(m, math.sqrt(0.3)))
    torch.testing.assert_close(flat.log_prob(n), wide.log_prob(n).sum(1), rtol=1e-13, atol=0)


def test_bad_input_is_refused():
    x0, xt = points()
    schedule = VariancePreserving()
    with pytest.raises(ValueError, match="is not before"):
        posterior(schedule, x0, xt, 0.5, 0.5)
    with pytest.raises(ValueError, match="swap them"):
        transition(schedule, x0, 0.6, 0.5)
    with pytest.raises(ValueError, match="one for each row"):
        forward(schedule, x0, xt, torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match="outside the schedule"):
        marginal(schedule, x0, 1.5)
    assert terminal_snr(schedule) > 0
