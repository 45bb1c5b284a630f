"""Draws: each is replicated by hand from the same seed; then one test of its distribution, 5 sigma wide."""

import math

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Cauchy,
    Exponential,
    Gumbel,
    HalfNormal,
    Independent,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
)

import lecturecode.rng as module
from lecturecode.rng import draw, normal, permutation, seeded, uniform

FACTOR = torch.tensor([[2.0, 0.0], [-0.5, 0.25]])


def families(device="cpu", dtype=torch.float32):
    """One member of each family that can be drawn, with a batch of three."""

    def t(*values):
        return torch.tensor(values, dtype=dtype, device=device)

    return {
        "Normal": Normal(t(0, 1, -2), t(1, 2, 0.5)),
        "MultivariateNormal": MultivariateNormal(
            torch.zeros(3, 2).to(device, dtype), scale_tril=FACTOR.to(device, dtype)
        ),
        "Bernoulli": Bernoulli(logits=t(-1, 0, 3)),
        "Categorical": Categorical(probs=t((0.2, 0.3, 0.5), (0, 1, 0), (0.5, 0, 0.5))),
        "Independent": Independent(Normal(t(0, 1, -2), t(1, 2, 0.5)), 1),
        "Exponential": Exponential(t(0.5, 1, 2)),
        "Uniform": Uniform(t(0, 1, 2), t(1, 3, 5)),
        "Laplace": Laplace(t(0, 1, 2), t(1, 3, 5)),
        "LogNormal": LogNormal(t(0, 1, 2), t(1, 0.5, 0.1)),
    }


NAMES = list(families())


def test_a_seed_is_a_start():
    assert torch.equal(torch.randn(5, generator=seeded(3)), torch.randn(5, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(torch.randn(5, generator=seeded(3)), torch.randn(5, generator=seeded(4)))
    assert seeded(0, "cpu").device.type == "cpu"


def test_a_generator_lives_where_it_was_asked_for(device):
    assert seeded(1, device).device.type == device.type


def test_draws_are_made_on_the_generators_device_and_moved(device, dtype):
    like = torch.zeros(2, dtype=dtype, device=device)
    for function, plain in ((normal, torch.randn), (uniform, torch.rand)):
        found = function((4, 3), seeded(5), like)
        assert (found.dtype, found.device) == (dtype, like.device)
        assert torch.equal(found.cpu(), plain((4, 3), generator=torch.Generator().manual_seed(5), dtype=dtype))
    order = permutation(50, seeded(6), device)
    assert order.device == like.device
    assert torch.equal(order.cpu(), torch.randperm(50, generator=torch.Generator().manual_seed(6)))
    assert sorted(order.tolist()) == list(range(50))


@pytest.mark.parametrize("name", NAMES)
def test_one_cpu_seed_gives_the_same_numbers_on_every_device(name, device, dtype):
    here = draw(families("cpu", dtype)[name], 7, seeded(11))
    there = draw(families(device, dtype)[name], 7, seeded(11))
    assert there.device.type == device.type
    torch.testing.assert_close(there.cpu(), here, rtol=0 if device.type == "cpu" else 1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtypes(name, dtype):
    family = families("cpu", dtype)[name]
    found = draw(family, 7, seeded(1))
    assert found.shape == (7, *family.batch_shape, *family.event_shape)
    assert found.dtype == (torch.int64 if name == "Categorical" else dtype)
    assert family.support.check(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_moves_on(name):
    family, rng = families()[name], seeded(2)
    first, second = draw(family, 200, rng), draw(family, 200, rng)
    assert not torch.equal(first, second)


def test_a_normal_draw_is_mean_plus_scale_times_noise():
    mean, scale = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    noise = torch.randn(6, 2, generator=torch.Generator().manual_seed(9))
    found = draw(Normal(mean, scale), 6, seeded(9))
    torch.testing.assert_close(found, mean + scale * noise, rtol=1e-6, atol=1e-6)


def test_a_multivariate_normal_draw_is_mean_plus_factor_times_noise():
    mean = torch.tensor([1.0, -2.0])
    noise = torch.randn(6, 2, generator=torch.Generator().manual_seed(9))
    by_factor = draw(MultivariateNormal(mean, scale_tril=FACTOR), 6, seeded(9))
    by_covariance = draw(MultivariateNormal(mean, FACTOR @ FACTOR.mT), 6, seeded(9))
    for found in (by_factor, by_covariance):
        torch.testing.assert_close(found, mean + noise @ FACTOR.mT, rtol=1e-5, atol=1e-5)


def test_discrete_draws_invert_the_distribution_function():
    level = torch.rand(1000, 1, generator=torch.Generator().manual_seed(9))
    bits = draw(Bernoulli(probs=torch.tensor([0.3])), 1000, seeded(9))
    assert torch.equal(bits, (level < 0.3).float())
    digits = draw(Categorical(probs=torch.tensor([[0.125, 0.0, 0.5, 0.375, 0.0]])), 1000, seeded(9))
    assert torch.equal(digits, torch.where(level < 0.125, 0, torch.where(level < 0.625, 2, 3)))


def test_continuous_draws_invert_the_distribution_function():
    level = torch.rand(1000, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    found = draw(Exponential(torch.tensor(2.0, dtype=torch.float64)), 1000, seeded(9))
    torch.testing.assert_close(found, -torch.log1p(-level) / 2, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("family", [Laplace, Gumbel, Cauchy, Normal, LogNormal, HalfNormal], ids=lambda f: f.__name__)
def test_the_lowest_and_the_highest_level_give_finite_draws(family, dtype, monkeypatch):
    ends = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    monkeypatch.setattr(module, "uniform", lambda shape, rng, like: ends)
    monkeypatch.setattr(module, "_RULES", {})  # also Normal by its inverse
    one = torch.ones(2, dtype=dtype)
    found = draw(family(one) if family is HalfNormal else family(one, one), 1, seeded(0))
    assert found.isfinite().all()


def test_zero_and_one_are_certain():
    bits = draw(Bernoulli(probs=torch.tensor([0.0, 1.0])), 1000, seeded(1))
    assert torch.equal(bits, torch.tensor([0.0, 1.0]).expand(1000, 2))


@pytest.mark.parametrize("level", [0.0, 1 - 2**-24])
def test_a_category_without_probability_is_never_drawn(level, monkeypatch):
    monkeypatch.setattr(module, "uniform", lambda shape, rng, like: torch.full(shape, level))
    weights = torch.rand(2000, 5, generator=seeded(3)) * torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    found = draw(Categorical(probs=weights), 1, seeded(0))
    assert (found == (1 if level == 0 else 3)).all()


@pytest.mark.parametrize("name", ["Normal", "MultivariateNormal", "Independent", "Exponential", "Laplace"])
def test_gradients_reach_the_parameters(name):
    rng = seeded(4)
    parameter = torch.rand(3, 2, generator=rng, dtype=torch.float64) + 0.5
    build = {
        "Normal": lambda p: Normal(p, p),
        "MultivariateNormal": lambda p: MultivariateNormal(p, scale_tril=torch.diag_embed(p)),
        "Independent": lambda p: Independent(Normal(p, p.square()), 1),
        "Exponential": Exponential,
        "Laplace": lambda p: Laplace(p, p),
    }[name]
    parameter.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: draw(build(p), 4, seeded(5)), (parameter,))


def test_the_gradient_of_a_normal_draw_is_one_and_the_noise():
    mean, scale = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    draw(Normal(mean, scale), 1, seeded(8)).sum().backward()
    assert torch.equal(mean.grad, torch.ones(3))
    assert torch.equal(scale.grad, torch.randn(1, 3, generator=torch.Generator().manual_seed(8))[0])


@pytest.mark.parametrize("name", NAMES)
def test_first_moments_within_five_sigma(name):
    """200,000 draws: each mean lies within 5 standard errors of its own value (a false alarm in 1.7 million)."""
    count = 200_000
    family = families(dtype=torch.float64)[name]
    found = draw(family, count, seeded(2026)).double()
    if name == "Categorical":
        found = torch.nn.functional.one_hot(found.long(), 3).double()
        mean, variance = family.probs, family.probs * (1 - family.probs)
    else:
        mean, variance = family.mean, family.variance
    bound = 5 * (variance / count).sqrt()
    assert ((found.mean(0) - mean).abs() <= bound + 1e-12).all()


def test_covariance_of_a_multivariate_normal_within_five_sigma():
    """200,000 draws; Var[x_i x_j] = Σ_ii Σ_jj + Σ_ij² for mean zero."""
    count = 200_000
    factor = FACTOR.double()
    found = draw(MultivariateNormal(torch.zeros(2).double(), scale_tril=factor), count, seeded(1))
    cov = factor @ factor.mT
    bound = 5 * ((cov.diagonal()[:, None] * cov.diagonal() + cov**2) / count).sqrt()
    assert ((found.mT @ found / count - cov).abs() < bound).all()


@pytest.mark.parametrize("family", [Poisson(torch.tensor(3.0)), Beta(torch.tensor(2.0), torch.tensor(3.0))])
def test_a_family_without_inverse_is_refused(family):
    with pytest.raises(ValueError, match=f"cannot draw from {type(family).__name__} with a generator.*use Normal"):
        draw(family, 3, seeded(0))


@pytest.mark.parametrize("count", [0, -1])
def test_no_draws_are_refused(count):
    with pytest.raises(ValueError, match=f"count is {count}; ask for at least one draw"):
        draw(families()["Normal"], count, seeded(0))


def test_standard_normal_draws_have_the_right_tails():
    """1,000,000 draws: the share beyond 3 is erfc(3/√2) within 5 standard errors."""
    count = 1_000_000
    found = normal((count,), seeded(77), torch.zeros(())).abs() > 3
    share = math.erfc(3 / math.sqrt(2))
    assert abs(found.double().mean().item() - share) < 5 * math.sqrt(share * (1 - share) / count)
