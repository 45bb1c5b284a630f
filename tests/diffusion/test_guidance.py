"""Guidance between exact denoisers: the score of p_t(x) p_t(c|x)^s, and what that is not the score of."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    GaussianMixtureDenoiser,
    Guided,
    VariancePreserving,
    ddim,
    sample,
    uniform_grid,
)
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
SCHEDULES = {"preserving": VariancePreserving(), "edm": EDM(10.0), "zero terminal": Cosine(20).zero_terminal()}


def mixture(schedule):
    half = normal((3, 2, 2), seeded(1), LIKE)
    return GaussianMixtureDenoiser(
        torch.tensor([0.2, 0.5, 0.3], dtype=F64),
        2 * normal((3, 2), seeded(2), LIKE),
        half @ half.mT + 0.05 * torch.eye(2, dtype=F64),
        schedule,
    )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, -1.0])
@pytest.mark.parametrize("components", [[1], [0, 2]])
def test_guided_has_the_score_of_the_tilted_density(name, scale, components):
    """∇ [log p_t(x) + s log p_t(c|x)] by autograd from torch's normal distributions."""
    schedule = SCHEDULES[name]
    model = mixture(schedule)
    guided = Guided(model.given(components), model, scale)
    for t in (0.05, 0.5, 1.0):
        t = t * schedule.end
        alpha, sigma = schedule(t)
        x = (3 * normal((6, 2), seeded(3), LIKE)).requires_grad_()
        spread = alpha**2 * torch.as_tensor(model.covariances) + sigma**2 * torch.eye(2, dtype=F64)
        joint = MultivariateNormal(alpha * model.means, spread).log_prob(x[:, None]) + model.weights.log()
        log_p, log_class = joint.logsumexp(1), joint[:, components].logsumexp(1)
        (slope,) = torch.autograd.grad((log_p + scale * (log_class - log_p)).sum(), x)
        score = (alpha * guided(x, t) - x) / sigma**2
        torch.testing.assert_close(score, slope, rtol=1e-9, atol=1e-9)


def noised_tilt(model, scale, t, x):
    """∇ log of p_0(x_0) p_0(c|x_0)^s after the noise, by a sum over a grid of x_0 that is fine beside σ."""
    x0 = torch.linspace(-9, 9, 36001, dtype=F64)[:, None]
    share = model.responsibilities(x0, 0.0)[:, 1]
    log_tilted = model.log_prob(x0, 0.0) + scale * share.log()
    alpha, sigma = model.schedule(t)
    logits = log_tilted - (x - alpha * x0.T).square() / (2 * sigma**2)
    mean = logits.softmax(-1) @ x0
    return (alpha * mean - x) / sigma**2


@pytest.mark.parametrize(("scale", "equal"), [(0.0, True), (1.0, True), (3.0, False)])
def test_guided_marginals_belong_to_no_noise_process(scale, equal):
    """Noise on p_0(x) p_0(c|x)^s has the guided score for s = 0 and 1 only."""
    model = GaussianMixtureDenoiser(
        torch.tensor([0.5, 0.5], dtype=F64),
        torch.tensor([[-1.0], [1.0]], dtype=F64),
        torch.tensor([0.3, 0.3], dtype=F64),
        VariancePreserving(),
    )
    x, t = torch.linspace(-2, 2, 9, dtype=F64)[:, None], 0.4
    alpha, sigma = model.schedule(t)
    guided = (alpha * Guided(model.given(1), model, scale)(x, t) - x) / sigma**2
    off = (guided - noised_tilt(model, scale, t, x)).abs().max().item()
    assert off < 1e-9 if equal else off > 0.1


def test_guidance_sharpens_what_is_drawn():
    """With s = 3 fewer draws lie near the other class than with s = 1, and they spread less."""
    model = GaussianMixtureDenoiser(
        torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5, VariancePreserving()
    )
    x = normal((4000, 1), seeded(1), LIKE)
    one, three = (
        sample(Guided(model.given(1), model, s), ddim, x, uniform_grid(model.schedule, 50)) for s in (1.0, 3.0)
    )
    assert one.std().item() == pytest.approx(math.sqrt(0.5), rel=0.1)
    assert three.std() < 0.9 * one.std()
    assert (three < 0).double().mean() < 0.2 * (one < 0).double().mean()


def test_two_schedules_are_refused():
    with pytest.raises(ValueError, match="different schedules"):
        Guided(mixture(VariancePreserving()), mixture(EDM()), 1.0)
