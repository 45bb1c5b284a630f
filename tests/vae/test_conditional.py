"""Conditional VAEs: one VAE for each label, with the same weights; exact in the linear Gaussian case."""

# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from lecturecode import seeded
from lecturecode.nn import linear, mlp
from lecturecode.training import Batches, adam, fit
from lecturecode.vae import (
    VAE,
    Bernoulli,
    Concatenated,
    ConditionalVAE,
    Decoder,
    Encoder,
    Gaussian,
    StandardNormal,
    iwae,
)

F64 = torch.float64
X = (torch.rand(6, 4, generator=seeded(5)) < 0.5).float()
Y = torch.tensor([0, 1, 2, 2, 1, 0])


def small(dtype=torch.float32):
    rng = seeded(1)
    encoder, decoder = mlp([4 + 3, 8, 4], rng, dtype=dtype), mlp([2 + 3, 8, 4], rng, dtype=dtype)
    return ConditionalVAE(Encoder(encoder), Decoder(decoder, Bernoulli()), StandardNormal(2, dtype), 3)


def test_it_is_the_formula_with_a_one_hot_code(dtype):
    model, x = small(dtype), X.to(dtype)
    code = torch.eye(3, dtype=dtype)[Y]
    mean, log_variance = model.encoder.net(torch.cat([x, code], -1)).chunk(2, -1)
    noise = torch.randn(5, 6, 2, generator=seeded(2), dtype=dtype)
    h = mean + (log_variance / 2).exp() * noise
    y = model.decoder.net(torch.cat([h, code.expand(5, -1, -1)], -1))
    found = model.elbo(x, Y, 5, seeded(2))
    torch.testing.assert_close(found.reconstruction, (x * y - torch.log1p(y.exp())).sum(-1).mean(0))
    torch.testing.assert_close(found.kl, 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1))


def test_loss_is_the_bound_of_a_batch_of_pairs():
    model = small()
    one = model.elbo(X, Y, 1, seeded(2))
    torch.testing.assert_close(model.loss((X, Y), seeded(2), 0.5), (0.5 * one.kl - one.reconstruction).mean())


class Exact(nn.Module):
    """p(h|x, y) of x = W h + c_y + s ε."""

    def __init__(self, w, offsets, s):
        super().__init__()
        self.w, self.offsets, self.s = w, offsets, s

    def forward(self, both):
        x, code = both[..., :3], both[..., 3:]
        precision = torch.eye(2, dtype=F64) + self.w.mT @ self.w / self.s**2
        mean = torch.linalg.solve(precision, self.w.mT @ (x - code @ self.offsets).mT / self.s**2).mT
        return MultivariateNormal(mean, precision_matrix=precision)


def test_linear_gaussian_conditionals_are_exact():
    """x = W h + c_y + s ε: log p(x|y) = log N(x; c_y, WWᵀ + s²), which every draw gives with the exact posterior."""
    rng, s = seeded(3), 0.6
    net = linear(2 + 2, 3, rng, F64)
    with torch.no_grad():
        net.bias.zero_()
    w, offsets = net.weight[:, :2].detach(), net.weight[:, 2:].detach().mT
    model = ConditionalVAE(Exact(w, offsets, s), Decoder(net, Gaussian(s, dtype=F64)), StandardNormal(2, F64), 2)
    x, y = torch.randn(5, 3, generator=rng, dtype=F64), torch.tensor([0, 1, 1, 0, 1])
    wanted = MultivariateNormal(offsets[y], w @ w.mT + s**2 * torch.eye(3, dtype=F64)).log_prob(x)
    for draws in (1, 3):
        torch.testing.assert_close(iwae(model.given(y), x, draws, rng).detach(), wanted, rtol=1e-11, atol=1e-11)


def test_a_label_that_decides_is_learned():
    """All ones for label 1 and all zeros for label 0: after training, samples by label are that."""
    rng = seeded(1)
    model = ConditionalVAE(
        Encoder(mlp([4 + 2, 8, 2], rng)), Decoder(mlp([1 + 2, 8, 4], rng), Bernoulli()), StandardNormal(1), 2
    )
    y = torch.arange(40) % 2
    x = y[:, None].expand(-1, 4).float().contiguous()
    for step in fit(lambda pair: model.loss(pair, rng), Batches((x, y), 20, rng, steps=300), adam(model, 2e-2)):
        last = step
    assert last.value < 0.1
    labels = torch.tensor([0, 1]).repeat(50)
    agree = (model.sample(labels, rng) == labels[:, None]).double().mean()
    assert agree > 0.98


def test_given_is_a_vae_with_the_same_weights():
    model = small()
    one = model.given(Y)
    assert isinstance(one, VAE)
    assert {id(p) for p in one.parameters()} == {id(p) for p in model.parameters()}
    assert one.sample(6, seeded(1)).shape == model.sample(Y, seeded(1)).shape == (6, 4)
    assert one.reconstruct(X).shape == (6, 4)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X, torch.tensor([0, 1, 2, 3, 0, 0]), r"y\[3\] is 3; the labels are 0 … 2"),
        (X, torch.tensor([0, -1, 2, 3, 0, 0]), r"y\[1\] is -1"),
        (X / 3, Y, "binarise"),
        (X.double(), Y, "x is torch.float64"),
    ],
)
def test_the_door(x, y, words):
    with pytest.raises(ValueError, match=words):
        small().elbo(x, y, 1, seeded(1))
    with pytest.raises(ValueError, match="x has 6 rows and y 4 labels"):
        small().given(Y[:4]).elbo(X, 1, seeded(1))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="classes is 1"):
        ConditionalVAE(nn.Identity(), nn.Identity(), StandardNormal(1), 1)


def test_concatenation_broadcasts_draws(dtype):
    a, b = torch.randn(5, 6, 2, generator=seeded(1), dtype=dtype), torch.ones(6, 4, dtype=dtype)
    joined = Concatenated(Encoder(nn.Identity()))(a, b)
    torch.testing.assert_close(joined.mean, torch.cat([a, b.expand(5, 6, 4)[..., :1]], -1))
