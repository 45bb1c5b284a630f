"""Each likelihood against its formula in plain Python, and its door."""

# pyright: reportOptionalMemberAccess=false

import math

import pytest
import torch

from lecturecode import seeded
from lecturecode.vae import Bernoulli, Gaussian
from lecturecode.vae.likelihoods import Likelihood


def test_bernoulli_is_its_formula(dtype):
    y = torch.tensor([-3.0, 0.0, 0.5, 20.0], dtype=dtype)
    for x in (0.0, 1.0):
        found = Bernoulli()(y).log_prob(torch.full_like(y, x))
        wanted = [x * v - math.log1p(math.exp(v)) for v in y.tolist()]
        torch.testing.assert_close(
            found, torch.tensor(wanted, dtype=dtype), rtol=1e-5 if dtype.itemsize == 4 else 1e-13, atol=1e-12
        )


@pytest.mark.parametrize("logit", [-700.0, 700.0])
def test_bernoulli_is_finite_far_out(logit):
    y = torch.tensor([logit], requires_grad=True)
    both = Bernoulli()(y).log_prob(torch.tensor([[0.0], [1.0]]))
    assert both.min().item() == -700
    assert both.max().item() == 0
    both.sum().backward()
    assert y.grad.isfinite().all()


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("learned", [False, True])
def test_gaussian_is_its_formula(sigma, learned, dtype):
    y, x = (torch.randn(5, generator=seeded(k), dtype=dtype) for k in (1, 2))
    found = Gaussian(sigma, learned, dtype)(y).log_prob(x)
    wanted = [
        -((a - b) ** 2) / (2 * sigma**2) - math.log(sigma) - math.log(2 * math.pi) / 2
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    tol = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.detach(), torch.tensor(wanted, dtype=dtype), rtol=tol, atol=tol)
    assert found.requires_grad == learned


def test_a_fixed_sigma_is_no_parameter_and_is_saved():
    fixed, learned = Gaussian(0.5), Gaussian(0.5, learned=True)
    assert list(fixed.parameters()) == []
    assert [name for name, _ in learned.named_parameters()] == ["log_sigma"]
    other = Gaussian(2.0)
    other.load_state_dict(fixed.state_dict())
    assert other.log_sigma.item() == fixed.log_sigma.item()
    learned.load_state_dict(fixed.state_dict())


def test_the_best_sigma_is_the_root_mean_square_residual():
    """The gradient of the mean log p over log σ vanishes at σ² = mean (x − y)²."""
    y, x = (torch.randn(1000, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    best = (x - y).square().mean().sqrt().item()
    for sigma, sign in ((best * 0.9, 1), (best, 0), (best * 1.1, -1)):
        likelihood = Gaussian(sigma, learned=True, dtype=torch.float64)
        likelihood(y).log_prob(x).mean().backward()
        slope = likelihood.log_sigma.grad.item()
        assert abs(slope) < 1e-13 if sign == 0 else slope * sign > 0.1


def test_both_are_likelihoods():
    assert isinstance(Bernoulli(), Likelihood)
    assert isinstance(Gaussian(1.0), Likelihood)
    assert not isinstance(torch.nn.ReLU(), Likelihood)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_sigmas_that_are_refused(sigma):
    with pytest.raises(ValueError, match=r"^sigma(\[\])? (is|has the value)"):
        Gaussian(sigma)


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, math.nan, math.inf, 1 - 1e-7])
def test_grey_values_into_a_bernoulli_are_refused(value):
    x = torch.tensor([[0.0, 1.0], [1.0, value]])
    with pytest.raises(
        ValueError, match=r"x\[1, 1\] is .*, and a Bernoulli likelihood is for 0 and 1: binarise .* Gaussian"
    ):
        Bernoulli().check(x)
    Bernoulli().check((x >= 0.5).float())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_into_a_gaussian_is_refused(value):
    with pytest.raises(ValueError, match=rf"x\[1\] is {value}: 1 of 2 values are not finite"):
        Gaussian(1.0).check(torch.tensor([0.3, value]))
    Gaussian(1.0).check(torch.tensor([0.3, -1e30]))
