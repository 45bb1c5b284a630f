"""The doubly reparametrised gradient: the plain one's mean by quadrature, less variance, zero at the posterior."""

# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli as Bit
from torch.distributions import Independent, Normal

from lecturecode import seeded
from lecturecode.nn import mlp
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, Gaussian, StandardNormal, iwae, iwae_loss

F64 = torch.float64
W, S, X = 1.3, 0.8, 0.9  # x = w h + s ε: posterior N(w x/(w² + s²), s²/(w² + s²))


class Rows(nn.Module):
    """One (μ, log σ) for each row, so that every row has a gradient of its own."""

    def __init__(self, mean, sigma, rows):
        super().__init__()
        self.mean = nn.Parameter(torch.full((rows, 1), mean, dtype=F64))
        self.log_sigma = nn.Parameter(torch.full((rows, 1), math.log(sigma), dtype=F64))

    def forward(self, x):
        return Independent(Normal(self.mean, self.log_sigma.exp()), 1)


class Weight(nn.Module):
    """h ↦ w h, one w for each row."""

    def __init__(self, rows):
        super().__init__()
        self.w = nn.Parameter(torch.full((rows, 1), W, dtype=F64))

    def forward(self, h):
        return Independent(Normal(self.w * h, S), 1)


class Fixed(VAE):
    """A VAE whose noise is given: row i is one node of the quadrature rule."""

    def __init__(self, mean, sigma, noise):
        rows = noise.shape[1]
        super().__init__(Rows(mean, sigma, rows), Weight(rows), StandardNormal(1, F64))
        self.noise = noise

    def draw(self, distribution, count, rng):
        return distribution.mean + distribution.stddev * self.noise


def gradients(draws, mean, sigma, nodes):
    """(weights, gradients of the plain and of the doubly reparametrised bound): one row for each node."""
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    noise = torch.tensor(list(itertools.product(e, repeat=draws)), dtype=F64).mT[..., None]
    weights = torch.tensor([math.prod(v) for v in itertools.product(w / w.sum(), repeat=draws)], dtype=F64)
    x = torch.full((noise.shape[1], 1), X, dtype=F64)
    found = []
    for bound in (lambda m: iwae(m, x, draws, seeded(0)).sum(), lambda m: -len(x) * iwae_loss(m, x, draws, seeded(0))):
        model = Fixed(mean, sigma, noise)
        bound(model).backward()
        found.append(torch.cat([p.grad for p in model.parameters()], -1))  # columns μ, log σ, w
    return weights, *found


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize(("mean", "sigma"), [(0.2, 0.6), (0.8, 0.45), (0.4, 0.55)])
def test_the_mean_gradient_is_the_plain_one(draws, mean, sigma):
    """Gauss–Hermite with 60 nodes a draw: exact at K = 1; at K = 2 the ratios of weights leave 1e-9."""
    weights, plain, doubly = gradients(draws, mean, sigma, 60)
    torch.testing.assert_close(weights @ doubly, weights @ plain, rtol=1e-9, atol=1e-9)


def test_at_one_draw_the_mean_gradient_is_the_elbos():
    """E[log p(x,h)] − E[log q] has the slopes w(x − wμ)/s² − μ and −σ²(w²/s² + 1) + 1 in μ and log σ."""
    mean, sigma = 0.2, 0.6
    weights, _, doubly = gradients(1, mean, sigma, 20)
    wanted = [W * (X - W * mean) / S**2 - mean, 1 - sigma**2 * (W**2 / S**2 + 1)]
    assert (weights @ doubly)[:2].tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("draws", [1, 2])
def test_its_variance_is_smaller(draws):
    weights, plain, doubly = gradients(draws, 0.5, 0.62, 40)
    variance = [weights @ (g - weights @ g).square() for g in (plain, doubly)]
    assert (variance[1][:2] < 0.7 * variance[0][:2]).all()
    torch.testing.assert_close(doubly[:, 2], plain[:, 2], rtol=1e-12, atol=1e-12)  # θ: the same estimator


@pytest.mark.parametrize("draws", [1, 3])
def test_at_the_exact_posterior_the_encoders_gradient_is_zero(draws):
    mean, sigma = W * X / (W**2 + S**2), S / math.sqrt(W**2 + S**2)
    noise = torch.randn(draws, 50, 1, generator=seeded(1), dtype=F64)
    model = Fixed(mean, sigma, noise)
    loss = iwae_loss(model, torch.full((50, 1), X, dtype=F64), draws, seeded(0))
    loss.backward()
    exact = Normal(0.0, math.sqrt(W**2 + S**2)).log_prob(torch.tensor(X, dtype=F64))
    assert loss.item() == pytest.approx(-exact.item(), rel=1e-7)
    assert model.encoder.mean.grad.abs().max() < 1e-15
    assert model.encoder.log_sigma.grad.abs().max() < 1e-15
    plain = Fixed(mean, sigma, noise)
    iwae(plain, torch.full((50, 1), X, dtype=F64), draws, seeded(0)).mean().backward()
    assert plain.encoder.mean.grad.abs().max() > 1e-3


def small(likelihood=None):
    rng = seeded(1)
    return VAE(Encoder(mlp([6, 8, 4], rng)), Decoder(mlp([2, 8, 6], rng), likelihood or Bernoulli()), StandardNormal(2))


def test_its_value_is_the_bound_on_the_same_draws():
    x = (torch.rand(5, 6, generator=seeded(2)) < 0.5).float()
    model = small()
    wanted = -iwae(model, x, 7, seeded(3)).mean()
    torch.testing.assert_close(iwae_loss(model, x, 7, seeded(3)), wanted)
    with torch.no_grad():
        torch.testing.assert_close(iwae_loss(model, x, 7, seeded(3)), wanted.detach())


def test_every_parameter_gets_a_gradient():
    model = small(Gaussian(0.5, learned=True))
    iwae_loss(model, torch.randn(5, 6, generator=seeded(2)), 4, seeded(3)).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_draws_without_a_gradient_are_refused():
    class Bits(Encoder):
        def forward(self, x):
            return Independent(Bit(logits=self.net(x), validate_args=False), 1)

    model = small()
    model.encoder = Bits(mlp([6, 2], seeded(1)))
    with pytest.raises(ValueError, match="carry no gradient to the encoder"):
        iwae_loss(model, torch.zeros(2, 6), 3, seeded(1))
    with pytest.raises(ValueError, match="draws is 0"):
        iwae_loss(small(), torch.zeros(2, 6), 0, seeded(1))
