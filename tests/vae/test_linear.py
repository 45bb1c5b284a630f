"""The linear Gaussian VAE: exact numbers, its fit, its training, and what it refuses."""

import re
from itertools import repeat

import pytest
import torch
from torch.distributions import MultivariateNormal

from lecturecode import seeded
from lecturecode.data import digits
from lecturecode.training import adam, fit
from lecturecode.vae import LinearGaussianVAE, SampleMoments, iwae

F64 = torch.float64


@pytest.fixture(scope="module")
def x():
    return digits("training").grey.to(F64)


@pytest.fixture
def model():
    return LinearGaussianVAE(6, 2, seeded(1), sigma=0.5, dtype=F64)


def rows(count=7, n=6, seed=2):
    return torch.randn(count, n, generator=seeded(seed), dtype=F64)


def test_moments_are_divided_by_n():
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0]], dtype=F64)
    moments = SampleMoments.of(x)
    assert moments.mean.tolist() == [1.0, 1.0]
    assert moments.covariance.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_log_prob_keeps_its_digits_where_the_noise_is_small():
    """σ = 1e-4: rᵀr − rᵀWM⁻¹Wᵀr would cancel eight digits; against a Cholesky factor of the n×n covariance."""
    model = LinearGaussianVAE(6, 2, seeded(1), sigma=1e-4, dtype=F64)
    with torch.no_grad():
        x = torch.randn(5, 2, generator=seeded(3), dtype=F64) @ model.weight.mT + model.bias + 1e-4 * rows(5)
        C = model.weight @ model.weight.mT + model.variance * torch.eye(6, dtype=F64)
        torch.testing.assert_close(model.log_prob(x), MultivariateNormal(model.bias, C).log_prob(x), rtol=1e-7, atol=0)


def test_bound_and_gap_add_up(model):
    x = rows()
    torch.testing.assert_close(model.elbo(x).value + model.gap(x), model.log_prob(x), rtol=1e-12, atol=1e-11)
    assert (model.gap(x) > 0).all()


def test_the_loss_is_the_mean_of_minus_the_bound_for_rows_and_for_moments(model):
    x = rows()
    for weight in (1.0, 0.0, 3.0):
        parts = model.elbo(x)
        expected = (weight * parts.kl - parts.reconstruction).mean()
        torch.testing.assert_close(model.loss(x, weight), expected, rtol=1e-13, atol=0)
        torch.testing.assert_close(model.loss(SampleMoments.of(x), weight), expected, rtol=1e-12, atol=0)


def test_both_losses_have_one_gradient(model):
    x = rows()
    gradients = [torch.autograd.grad(model.loss(d), list(model.parameters())) for d in (x, SampleMoments.of(x))]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_the_loss_has_the_right_gradient():
    model = LinearGaussianVAE(3, 1, seeded(4), sigma=0.8, dtype=F64)
    names, values = zip(*model.named_parameters(), strict=True)
    moments = SampleMoments.of(rows(5, 3))

    def loss(*values):
        return torch.func.functional_call(
            _Loss(model), dict(zip(map("model.{}".format, names), values, strict=True)), moments
        )

    assert torch.autograd.gradcheck(loss, tuple(v.detach().clone().requires_grad_() for v in values))


class _Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, data):
        return self.model.loss(data)


def test_the_best_encoder_is_where_the_loss_is_stationary(model):
    x = rows()
    before = model.loss(x).item()
    model.encode_best()
    assert model.loss(x).item() < before
    for slope in torch.autograd.grad(model.loss(x), list(model.encoder.parameters())):
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)


def test_the_fit_is_a_stationary_point_with_no_gap(x):
    model = LinearGaussianVAE.fitted(x, 8)
    assert model.gap(x).max() < 1e-12
    torch.testing.assert_close(model.loss(x), -model.log_prob(x).mean(), rtol=1e-12, atol=0)
    for slope in torch.autograd.grad(model.loss(SampleMoments.of(x)), list(model.parameters())):
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)


def test_the_fit_is_a_maximum():
    """200 random steps of length 0.1 away from it, each of which loses."""
    data = rows(40)
    best = LinearGaussianVAE.fitted(data, 2)
    start, value, rng = [p.detach().clone() for p in best.parameters()], best.log_prob(data).mean(), seeded(5)
    with torch.no_grad():
        for _ in range(200):
            for p, s in zip(best.parameters(), start, strict=True):
                p.copy_(s + 0.1 * torch.randn(s.shape, generator=rng, dtype=F64))
            assert best.log_prob(data).mean() < value


def test_training_reaches_the_closed_form(x):
    """From random weights within 1e-5 nats: the figure of the chapter, with another seed."""
    data = SampleMoments.of(x)
    closed = LinearGaussianVAE.fitted(data, 4).loss(data).item()
    model = LinearGaussianVAE(64, 4, seeded(2), sigma=0.3, dtype=F64)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=1500, history_size=30, tolerance_grad=1e-8, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = model.loss(data)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert -1e-10 < model.loss(data).item() - closed < 1e-5
    assert -1e-10 < -model.log_prob(x).mean().item() - closed < 1e-5


def test_training_by_fit_and_adam_reaches_the_closed_form():
    """Six numbers, well conditioned: 2,000 steps with a rate that decays to zero."""
    data = SampleMoments.of(rows(50) * torch.tensor([3.0, 2.0, 1.0, 0.8, 0.7, 0.6], dtype=F64))
    model = LinearGaussianVAE(6, 2, seeded(3), dtype=F64)
    optimizer = adam(model, 0.02)
    for step in fit(model.loss, repeat(data, 2000), optimizer):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step.number / 2000)
    assert 0 <= model.loss(data).item() - LinearGaussianVAE.fitted(data, 2).loss(data).item() + 1e-12 < 1e-5


def test_an_ordinary_vae_shares_its_parameters(model):
    """Estimated bounds agree with the exact one: 20,000 draws, five standard errors."""
    x = rows(1)
    values = iwae(model.sampled(), x.expand(20_000, -1), 1, seeded(6))
    exact = model.elbo(x).value[0]
    assert abs(values.mean() - exact) < 5 * values.std() / 20_000**0.5
    parts = model.sampled().elbo(x.expand(20_000, -1), 1, seeded(7))
    spread = parts.reconstruction.std() / 20_000**0.5
    assert abs(parts.reconstruction.mean() - model.elbo(x).reconstruction[0]) < 5 * spread
    assert {id(p) for p in model.sampled().parameters()} == {id(p) for p in model.parameters()}


def test_it_saves_and_loads(model):
    other = LinearGaussianVAE(6, 2, seeded(9), dtype=F64)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.log_prob(rows()), model.log_prob(rows()))


def test_it_follows_dtype_and_device(dtype, device):
    x = rows().to(device=device, dtype=dtype)
    model = LinearGaussianVAE.fitted(x, 2)
    for value in (model.log_prob(x), model.elbo(x).value, model.gap(x), model.loss(SampleMoments.of(x))):
        assert (value.dtype, value.device.type) == (dtype, device.type)


def test_it_works_where_the_width_is_large():
    """n = 20,000: a matrix of n×n would take 3.2 GB."""
    model = LinearGaussianVAE(20_000, 3, seeded(1), sigma=0.5)
    x = torch.randn(2, 20_000, generator=seeded(2))
    torch.testing.assert_close(model.elbo(x).value + model.gap(x), model.log_prob(x), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: LinearGaussianVAE(3, 3, seeded(1)), "m is 3 and n is 3; choose m from 1 to n − 1"),
        (lambda: LinearGaussianVAE(3, 0, seeded(1)), "m is 0"),
        (lambda: LinearGaussianVAE(3, 1, seeded(1), sigma=0.0), "sigma has the value 0; it must be above zero"),
        (lambda: LinearGaussianVAE.fitted(rows(2), 1), "no variance outside 1 directions"),
        (lambda: SampleMoments.of(torch.full((2, 3), torch.nan)), "x[0, 0] is nan"),
        (lambda: LinearGaussianVAE(6, 2, seeded(1)).log_prob(rows()), "x is torch.float64 and the model torch.float32"),
        (lambda: LinearGaussianVAE(5, 2, seeded(1), dtype=F64).elbo(rows()), "x has shape (7, 6), not (any, 5)"),
        (lambda: LinearGaussianVAE(6, 2, seeded(1), dtype=F64).posterior(rows()[:0]), "x is empty"),
        (lambda: LinearGaussianVAE(6, 2, seeded(1), dtype=F64).loss(rows() / 0), "x[0, 0] is"),
    ],
)
def test_it_refuses_at_the_door(act, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        act()
