"""The two sums inside every training step have a backward pass of their own: held against mpmath and finite steps."""

import math

import mpmath
import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal

from lecturecode import kl, seeded
from lecturecode.vae.bounds import log_likelihood

f64 = torch.float64
Y = torch.tensor([-800.0, -40.0, -3.0, -1e-9, 0.0, 1e-9, 2.0, 35.0, 90.0, 800.0], dtype=f64)


def bits(y, axes=1):
    return Independent(Bernoulli(logits=y, validate_args=False), axes, validate_args=False)


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_one_bit_against_fifty_digits(x):
    with mpmath.workdps(400):
        for y in Y.tolist():
            exact = -mpmath.log1p(mpmath.exp(y if x == 0 else -y))
            found = log_likelihood(bits(torch.tensor([[[y]]], dtype=f64)), torch.tensor([[x]], dtype=f64))
            assert found.shape == (1, 1)
            assert abs(float(found) - float(exact)) <= 1e-14 * abs(float(exact))


@pytest.mark.parametrize("axes", [1, 2])
def test_it_is_the_likelihood_that_torch_gives(axes):
    rng = seeded(1)
    y = torch.randn((2, 5, 4) if axes == 1 else (2, 5, 3, 4), generator=rng, dtype=f64)
    x = torch.rand(y.shape[1:], generator=rng, dtype=f64).round()
    found = log_likelihood(bits(y, axes), x)
    torch.testing.assert_close(found, bits(y, axes).log_prob(x), rtol=1e-13, atol=1e-13)


def test_first_and_second_derivatives_of_the_bits():
    rng = seeded(2)
    y = torch.randn(2, 3, 4, generator=rng, dtype=f64).requires_grad_()
    x = torch.rand(3, 4, generator=rng, dtype=f64).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, x: log_likelihood(bits(y), x), (y, x))
    assert torch.autograd.gradgradcheck(lambda y, x: log_likelihood(bits(y), x), (y, x))


def test_first_and_second_derivatives_of_the_divergence_also_where_it_is_zero():
    loc, scale = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=f64), torch.tensor([[1.0, 0.5], [3.0, 1.1]], dtype=f64)
    loc_q, scale_q = torch.tensor([0.0, 0.3], dtype=f64), torch.tensor([1.0, 2.0], dtype=f64)
    inputs = tuple(t.requires_grad_() for t in (loc, scale, loc_q, scale_q))

    def divergence(a, b, c, d):
        return kl(Normal(a, b, validate_args=False), Normal(c, d, validate_args=False))

    assert torch.autograd.gradcheck(divergence, inputs)
    assert torch.autograd.gradgradcheck(divergence, inputs)


@pytest.mark.parametrize("step", [3.0, 0.1, 1e-3, 1e-5, 1e-6, 2**-23])
def test_the_divergence_in_float32_has_the_digits_of_its_inputs(step):
    """Against 50 digits at the stored numbers, for widths and means that differ by `step`."""
    wide, shifted = torch.tensor(1.0) + step, torch.tensor(step)
    found = kl(Normal(shifted, wide), Normal(torch.tensor(0.0), torch.tensor(1.0)))
    assert found.dtype == torch.float32
    with mpmath.workdps(50):
        s, m = mpmath.mpf(wide.item()), mpmath.mpf(shifted.item())
        exact = (s**2 - 1 + m**2) / 2 - mpmath.log(s)
        assert math.isclose(float(found), float(exact), rel_tol=1e-6)
