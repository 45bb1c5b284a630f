"""Predictions: each is the inverse of its target, the published formulas hold, weights belong to errors."""

import math

import numpy as np
import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import (
    CLEAN,
    EDM,
    NOISE,
    SCORE,
    VELOCITY,
    Linear,
    LogNormalTimes,
    UniformTimes,
    VariancePreserving,
    min_snr,
    of_prediction,
    preconditioned,
    simple,
)

F64 = torch.float64
ALL = {
    "clean": CLEAN,
    "noise": NOISE,
    "score": SCORE,
    "velocity": VELOCITY,
    "half": preconditioned(0.5),
    "two": preconditioned(2.0),
}


def setting(preserving=True):
    rng = torch.Generator().manual_seed(3)
    x0, eps, other = torch.randn(3, 50, 4, generator=rng, dtype=F64)
    angle = torch.linspace(0.01, 1.56, 50, dtype=F64)[:, None]
    alpha, sigma = (angle.cos(), angle.sin()) if preserving else (torch.ones_like(angle), 80 * angle)
    return x0, eps, alpha * x0 + sigma * eps, alpha, sigma, other


@pytest.mark.parametrize("preserving", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_the_target_gives_back_the_data(name, preserving):
    x0, eps, xt, alpha, sigma, _ = setting(preserving)
    kind = ALL[name]
    torch.testing.assert_close(
        kind.clean(kind.target(x0, eps, alpha, sigma), xt, alpha, sigma), x0, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("preserving", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_of_is_the_inverse_of_clean_at_any_answer(name, preserving):
    _, _, xt, alpha, sigma, answer = setting(preserving)
    kind = ALL[name]
    there = kind.of(kind.clean(answer, xt, alpha, sigma), xt, alpha, sigma)
    torch.testing.assert_close(there, answer, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("goal", ALL)
def test_all_conversions_go_round(source, goal):
    _, _, xt, alpha, sigma, answer = setting()
    a, b = ALL[source], ALL[goal]
    there = b.of(a.clean(answer, xt, alpha, sigma), xt, alpha, sigma)
    back = a.of(b.clean(there, xt, alpha, sigma), xt, alpha, sigma)
    torch.testing.assert_close(back, answer, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("preserving", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_error_is_the_slope_of_the_answer(name, preserving):
    x0, _, xt, alpha, sigma, other = setting(preserving)
    kind = ALL[name]
    apart = kind.of(x0, xt, alpha, sigma) - kind.of(other, xt, alpha, sigma)
    wanted = kind.error(alpha, sigma) * (x0 - other).abs()
    torch.testing.assert_close(apart.abs(), wanted, rtol=1e-8, atol=1e-8)


def test_the_published_forms():
    """Ho's x_0 from ε (eq. 15), Salimans & Ho's v = αε − σx and x = αz − σv, Karras' table 1, in NumPy."""
    x0, eps, xt, alpha, sigma, y = setting()
    a, s, x, z, answer = (v.numpy() for v in (alpha, sigma, x0, xt, y))
    np.testing.assert_allclose(NOISE.clean(y, xt, alpha, sigma), (z - np.sqrt(1 - a**2) * answer) / a, rtol=1e-10)
    np.testing.assert_allclose(VELOCITY.target(x0, eps, alpha, sigma), a * eps.numpy() - s * x, rtol=1e-12)
    np.testing.assert_allclose(VELOCITY.clean(y, xt, alpha, sigma), a * z - s * answer, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(SCORE.target(x0, eps, alpha, sigma), -(z - a * x) / s**2, rtol=1e-8, atol=1e-8)
    x0, eps, xt, alpha, sigma, y = setting(preserving=False)
    s, d = sigma.numpy(), 0.5
    skip, out, scale = d**2 / (s**2 + d**2), s * d / np.sqrt(d**2 + s**2), 1 / np.sqrt(s**2 + d**2)
    kind = preconditioned(d)
    np.testing.assert_allclose(kind.clean(y, xt, alpha, sigma), skip * xt.numpy() + out * y.numpy(), rtol=1e-10)
    np.testing.assert_allclose(kind.scale(alpha, sigma).numpy(), scale, rtol=1e-13)
    np.testing.assert_allclose(of_prediction(kind)(alpha, sigma), (s**2 + d**2) / (s * d) ** 2, rtol=1e-12)  # eq. 8


def test_unit_preconditioning_is_the_velocity_turned_round():
    x0, eps, xt, alpha, sigma, y = setting()
    kind = preconditioned(1.0)
    torch.testing.assert_close(kind.target(x0, eps, alpha, sigma), -VELOCITY.target(x0, eps, alpha, sigma))
    torch.testing.assert_close(kind.clean(y, xt, alpha, sigma), VELOCITY.clean(-y, xt, alpha, sigma))
    torch.testing.assert_close(kind.scale(alpha, sigma), torch.ones_like(alpha))


def test_preconditioning_keeps_unit_variance_at_every_level():
    """Data of variance 0.25: the variances of the network's input and target, from those of x_0 and ε."""
    alpha = torch.tensor([1.0, 0.9, 0.3, 1.0], dtype=F64)
    sigma = torch.tensor([1e-3, 0.4, 2.0, 80.0], dtype=F64)
    kind, zero, one = preconditioned(0.5), torch.zeros(4, dtype=F64), torch.ones(4, dtype=F64)
    of_x, of_eps = kind.target(one, zero, alpha, sigma), kind.target(zero, one, alpha, sigma)
    torch.testing.assert_close(0.25 * of_x**2 + of_eps**2, one)
    torch.testing.assert_close(kind.scale(alpha, sigma) ** 2 * (0.25 * alpha**2 + sigma**2), one)


def test_pure_noise_can_be_asked_for_x0_and_velocity_only():
    alpha, sigma = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    y, xt = torch.tensor([0.7], dtype=F64), torch.tensor([0.2], dtype=F64)
    for kind in ALL.values():
        assert kind.clean(y, xt, alpha, sigma).isfinite().all() == kind.answers_pure_noise


def test_the_weights():
    alpha, sigma = torch.tensor([0.8, 0.6], dtype=F64), torch.tensor([0.1, 0.8], dtype=F64)
    torch.testing.assert_close(simple(alpha, sigma), of_prediction(NOISE)(alpha, sigma))
    assert simple(alpha, sigma).tolist() == pytest.approx([64.0, 0.5625])
    assert min_snr(5.0)(alpha, sigma).tolist() == pytest.approx([5.0, 0.5625])
    torch.testing.assert_close(of_prediction(CLEAN)(alpha, sigma), torch.ones(2, dtype=F64))
    with pytest.raises(ValueError, match="gamma"):
        min_snr(0.0)
    with pytest.raises(ValueError, match="data_std"):
        preconditioned(-1.0)


@pytest.mark.parametrize("schedule", [Linear(), VariancePreserving(), EDM()], ids=["linear", "vp", "edm"])
def test_times_are_spread_evenly(schedule):
    """One time in each of `count` equal parts: sorted, the k-th lies in the k-th part, whatever was drawn."""
    like = torch.zeros(1, dtype=F64)
    t = UniformTimes(start=0.0)(schedule, 64, seeded(0), like).sort().values / schedule.end
    edges = torch.arange(65, dtype=F64) / 64
    assert ((t >= edges[:-1] - 1e-12) & (t <= edges[1:] + 1e-12)).all()
    whole = UniformTimes(steps=True)(Linear(64), 64, seeded(1), like)
    assert whole.sort().values.tolist() == list(range(1, 65))
    late = UniformTimes(start=0.1)(schedule, 1000, seeded(2), like)
    assert late.min() >= 0.1 * schedule.end
    assert late.max() <= schedule.end


def test_log_normal_times_are_normal_in_log_noise():
    like = torch.zeros(1, dtype=F64)
    schedule = EDM(1e4)
    t = LogNormalTimes(-1.2, 1.2)(schedule, 999, seeded(0), like)
    level = (t.log() + 1.2) / 1.2
    parts = 0.5 * (1 + torch.erf(level.sort().values / math.sqrt(2)))
    edges = torch.arange(1000, dtype=F64) / 999
    assert ((parts >= edges[:-1] - 1e-9) & (parts <= edges[1:] + 1e-9)).all()
    assert LogNormalTimes(5.0, 1.0)(EDM(2.0), 10, seeded(0), like).max() == 2.0
    with pytest.raises(ValueError, match="std"):
        LogNormalTimes(0.0, 0.0)
    with pytest.raises(ValueError, match="start"):
        UniformTimes(1.0)
