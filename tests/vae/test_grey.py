"""Likelihoods of grey values against mpmath, SciPy and torch's own families; their doors and their draws."""

# pyright: reportOptionalMemberAccess=false

import math

import mpmath
import pytest
import scipy.stats
import torch
from torch.distributions import Categorical

from lecturecode import seeded
from lecturecode.data import digits
from lecturecode.nn import mlp
from lecturecode.rng import draw
from lecturecode.vae import (
    VAE,
    ContinuousBernoulli,
    Decoder,
    DiscretisedGaussian,
    DiscretisedLogistic,
    Encoder,
    PixelGaussian,
    StandardNormal,
)

F64 = torch.float64
GRID = torch.arange(17, dtype=F64) / 16
YS = [0.0, 1e-12, -1e-6, 1e-3, 0.19, 0.2, 0.21, -1.0, 3.0, -40.0, 700.0]


@pytest.mark.parametrize("y", YS)
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_the_continuous_bernoulli_in_fifty_digits(y, x):
    with mpmath.workdps(50):
        t = mpmath.mpf(y)
        wanted = x * t - mpmath.log(mpmath.expm1(t) / t if t else 1)
        mean = mpmath.mpf(1) / 2 if t == 0 else 1 / (1 - mpmath.exp(-t)) - 1 / t
    p = ContinuousBernoulli()(torch.tensor(y, dtype=F64).expand(1))
    assert p.log_prob(torch.tensor([x], dtype=F64)).item() == pytest.approx(float(wanted), rel=1e-14, abs=1e-14)
    assert p.mean.item() == pytest.approx(float(mean), rel=1e-13)


@pytest.mark.parametrize("y", YS)
def test_the_slope_of_the_continuous_bernoulli_is_x_less_its_mean(y, dtype):
    logit = torch.tensor([y], dtype=dtype, requires_grad=True)
    p = ContinuousBernoulli()(logit)
    (slope,) = torch.autograd.grad(p.log_prob(torch.tensor([0.25], dtype=dtype)).sum(), logit)
    tol = 1e-12 if dtype == F64 else 3e-6
    torch.testing.assert_close(slope, (0.25 - p.mean).detach(), rtol=tol, atol=tol)


def test_the_continuous_bernoulli_is_torchs_where_torch_is_sharp():
    y = torch.tensor([-5.0, -1.0, 2.0, 8.0], dtype=F64)
    theirs = torch.distributions.ContinuousBernoulli(logits=y)
    x = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=F64)
    mine = ContinuousBernoulli()(y)
    torch.testing.assert_close(mine.log_prob(x), theirs.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine.mean, theirs.mean, rtol=1e-12, atol=0)
    u = torch.tensor([0.01, 0.4, 0.6, 0.99], dtype=F64)
    torch.testing.assert_close(mine.icdf(u), theirs.icdf(u), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("y", [0.0, 1e-9, -1e-3, 5.0, -30.0, 800.0])
def test_the_inverse_distribution_function_inverts(y):
    level = torch.tensor([0.0, 1e-3, 0.5, 0.9, 1.0], dtype=F64)
    x = ContinuousBernoulli()(torch.full_like(level, y)).icdf(level)
    with mpmath.workdps(60):
        found = [float(mpmath.expm1(mpmath.mpf(y) * v) / mpmath.expm1(y)) if y else v for v in x.tolist()]
    assert found == pytest.approx(level.tolist(), abs=1e-12)


CELLS = {DiscretisedGaussian: scipy.stats.norm, DiscretisedLogistic: scipy.stats.logistic}


@pytest.mark.parametrize("family", CELLS)
@pytest.mark.parametrize("sigma", [0.02, 0.1, 1.0, 30.0])
def test_levels_have_the_mass_of_their_cells(family, sigma):
    """Against SciPy's distribution and survival functions, the smaller of the two on each side."""
    y = torch.tensor([-0.4, 0.0, 0.33, 0.5, 1.2], dtype=F64)
    p = family(sigma, dtype=F64)(y[:, None])
    F = CELLS[family]
    for i, centre in enumerate(y.tolist()):
        edges = [-math.inf, *((k - 0.5) / 16 for k in range(1, 17)), math.inf]
        for k in range(17):
            a, b = ((e - centre) / sigma for e in edges[k : k + 2])
            wanted = F.cdf(b) - F.cdf(a) if b < 0 else F.sf(a) - F.sf(b) if a > 0 else 1 - F.cdf(a) - F.sf(b)
            found = p.log_prob(GRID[k]).exp()[i].item()
            assert found == pytest.approx(wanted, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("family", CELLS)
def test_the_seventeen_levels_sum_to_one_exactly(family, dtype):
    y = torch.linspace(-3, 4, 101, dtype=dtype)
    for sigma in (0.01, 0.1, 1.0, 100.0):
        total = family(sigma, dtype=dtype)(y[:, None]).log_prob(GRID.to(dtype)).exp().sum(-1)
        tol = 1e-13 if dtype == F64 else 2e-4 if sigma == 100 else 1e-5
        torch.testing.assert_close(total, torch.ones_like(y), rtol=tol, atol=tol)


@pytest.mark.parametrize("family", CELLS)
def test_far_levels_keep_their_logarithm_and_gradient(family, dtype):
    """Φ((½ + 1/16)/0.01) is rounded to one, and its complement is not lost: log P and its slope stay finite."""
    y = torch.tensor([0.0], dtype=dtype, requires_grad=True)
    p = family(0.01, learned=True, dtype=dtype)
    log = p(y).log_prob(torch.ones(1, dtype=dtype))
    edge = (15.5 / 16) / 0.01
    wanted = CELLS[family].logsf(edge)
    assert log.item() == pytest.approx(wanted, rel=1e-5)
    log.backward()
    assert y.grad.isfinite().all()
    assert y.grad.item() > 0
    assert p.log_sigma.grad.isfinite()


@pytest.mark.parametrize("family", CELLS)
def test_levels_draw_as_often_as_they_say(family):
    """5 standard errors of 100,000 draws, for each level."""
    y = torch.tensor([0.1, 0.9], dtype=F64)
    p = family(0.1, dtype=F64)(y)
    x = draw(p, 100_000, seeded(4))
    for k in range(17):
        wanted = p.log_prob(GRID[k]).exp()
        error = (wanted * (1 - wanted) / 100_000).sqrt()
        assert (((x == GRID[k]).double().mean(0) - wanted).abs() <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("family", CELLS)
def test_levels_agree_with_a_categorical_of_the_same_masses(family):
    y = torch.rand(3, 5, generator=seeded(2), dtype=F64)
    p = family(0.2, dtype=F64)(y)
    same = Categorical(probs=p.log_prob(GRID[:, None, None]).exp().permute(1, 2, 0))
    k = torch.randint(17, (3, 5), generator=seeded(3))
    torch.testing.assert_close(p.log_prob(k / 16.0), same.log_prob(k), rtol=1e-12, atol=1e-12)
    mean = (same.probs * GRID).sum(-1)
    torch.testing.assert_close(p.mean, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(p.variance, (same.probs * GRID**2).sum(-1) - mean**2, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("family", CELLS)
@pytest.mark.parametrize("learned", [False, True])
def test_the_scale_is_a_parameter_only_where_it_is_learned(family, learned):
    assert [name for name, _ in family(0.3, learned).named_parameters()] == ["log_sigma"] * learned
    assert family(0.3, learned).state_dict()["log_sigma"].exp().item() == pytest.approx(0.3, rel=1e-6)
    with pytest.raises(ValueError, match="sigma has the value -1; it must be above zero"):
        family(-1.0)


@pytest.mark.parametrize(
    ("likelihood", "outside", "words"),
    [
        (ContinuousBernoulli(), 1.5, r"x\[0, 1\] is 1.5, .* scale x"),
        (ContinuousBernoulli(), math.nan, r"x\[0, 1\] is nan"),
        (DiscretisedGaussian(0.1), 0.3, r"x\[0, 1\] is 0.3, .*levels / 16"),
        (DiscretisedLogistic(0.1), 16.0, r"x\[0, 1\] is 16, .*levels / 16"),
        (DiscretisedLogistic(0.1), math.nan, r"x\[0, 1\] is nan"),
    ],
)
def test_values_outside_are_refused(likelihood, outside, words):
    likelihood.check(torch.tensor([[0.0, 0.5, 1.0]]))
    with pytest.raises(ValueError, match=words):
        likelihood.check(torch.tensor([[0.0, outside, 1.0]]))


@pytest.mark.parametrize(
    "likelihood", [ContinuousBernoulli(), DiscretisedGaussian(0.2, True), DiscretisedLogistic(0.1, True)]
)
def test_a_model_of_the_digits_levels_takes_them(likelihood):
    rng, x = seeded(1), digits("test").grey[:20]
    vae = VAE(Encoder(mlp([64, 8, 4], rng)), Decoder(mlp([2, 8, 64], rng), likelihood), StandardNormal(2))
    vae.loss(x, rng).backward()
    assert all(p.grad.isfinite().all() for p in vae.parameters())
    assert vae.sample(3, rng).shape == vae.reconstruct(x[:3]).shape == (3, 64)
    likelihood.check(vae.sample(50, rng))


def test_the_pixel_gaussian_takes_mean_and_variance_from_the_network(dtype):
    output = torch.randn(4, 10, generator=seeded(1), dtype=dtype)
    p = PixelGaussian(0.1)(output)
    wanted = torch.distributions.Normal(output[:, :5], (output[:, 5:].exp() + 0.01).sqrt())
    x = torch.randn(4, 5, generator=seeded(2), dtype=dtype)
    torch.testing.assert_close(p.log_prob(x), wanted.log_prob(x))
    assert PixelGaussian(0.1)(torch.full((2,), -80.0, dtype=dtype)).stddev.item() == pytest.approx(0.1, rel=1e-6)
    with pytest.raises(ValueError, match="gives 9 numbers; it needs 2n"):
        PixelGaussian()(output[:, :9])
    with pytest.raises(ValueError, match="floor has the value 0"):
        PixelGaussian(0.0)
    with pytest.raises(ValueError, match=r"x\[0\] is nan"):
        PixelGaussian().check(torch.tensor([math.nan]))


def test_a_decoder_with_two_numbers_a_pixel():
    rng = seeded(1)
    vae = VAE(Encoder(mlp([5, 4], rng)), Decoder(mlp([2, 10], rng), PixelGaussian()), StandardNormal(2))
    bound = vae.elbo(torch.randn(3, 5, generator=rng), 2, rng)
    assert bound.value.shape == (3,)
    assert vae.sample(4, rng).shape == (4, 5)
