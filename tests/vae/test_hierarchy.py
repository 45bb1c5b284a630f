"""Hierarchies of Gaussian levels against the chain that can be solved, and against a VAE where there is one level."""

# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from lecturecode import kl, seeded
from lecturecode.nn import mlp
from lecturecode.vae import (
    VAE,
    Bernoulli,
    BottomUp,
    Concatenated,
    Decoder,
    Encoder,
    GaussianChain,
    HierarchicalVAE,
    LinearGaussian,
    StandardNormal,
    TopDown,
    iwae,
)
from lecturecode.vae.hierarchy import LevelPosterior

F64 = torch.float64
WIDTHS = (4, 3, 2, 2)


def chain(levels=3, seed=1):
    rng = seeded(seed)
    weights = [torch.randn(a, b, generator=rng, dtype=F64) for a, b in itertools.pairwise(WIDTHS[: levels + 1])]
    return GaussianChain(weights, [0.5, 0.7, 0.6][:levels])


def joint(c):
    """(mean 0, covariance) of (x, h_1, …, h_L), assembled from all independent noises at once."""
    rows, top = [], c.weights[-1].shape[1]
    sizes = [len(w) for w in c.weights] + [top]
    for i in range(len(sizes)):
        row = []
        for j in range(len(sizes)):  # level i = … + (W_i ⋯ W_{j−1}) σ_j ε_j
            path = torch.eye(sizes[i], dtype=F64)
            for w in c.weights[i:j]:
                path = path @ w
            sigma = (*c.sigmas, 1.0)[j]
            row.append(sigma * path if j >= i else torch.zeros(sizes[i], sizes[j], dtype=F64))
        rows.append(torch.cat(row, 1))
    root = torch.cat(rows)
    return root @ root.mT, sizes


X = torch.randn(6, 4, generator=seeded(9), dtype=F64)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_chain_is_its_joint_gaussian(levels):
    c = chain(levels)
    covariance, sizes = joint(c)
    starts = [0, *itertools.accumulate(sizes)]
    for i, found in enumerate(c.covariances()):
        part = slice(starts[i], starts[i + 1])
        torch.testing.assert_close(found, covariance[part, part], rtol=1e-12, atol=1e-12)
    wanted = MultivariateNormal(torch.zeros(4, dtype=F64), covariance[:4, :4]).log_prob(X)
    torch.testing.assert_close(c.log_prob(X), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_the_exact_posterior_the_bound_is_log_p_draw_by_draw(levels, seed):
    """log p(x,h) − log q(h|x) = log p(x), whatever was drawn: for one draw, and for the bound of many."""
    c = chain(levels)
    for draws in (1, 4):
        torch.testing.assert_close(c.model().iwae(X, draws, seeded(seed)), c.log_prob(X), rtol=1e-10, atol=1e-10)


def exact_bound(c, q):
    """E_q[log p(x,h) − log q(h|x)] by the joint covariance of q, as a full Gaussian: −E log q is its entropy."""
    covariance, sizes = joint(c)
    n = sizes[0]
    precision = torch.linalg.inv(covariance)
    mean, spread = q
    full = torch.cat([X, mean], -1)
    quadratic = (full @ precision * full).sum(-1) + (precision[n:, n:] * spread).sum()
    size = len(covariance)
    log_joint = -0.5 * (quadratic + torch.logdet(covariance) + size * math.log(2 * math.pi))
    return log_joint + 0.5 * (torch.logdet(spread) + (size - n) * (1 + math.log(2 * math.pi)))


def encoders(seed=3):
    """Two linear Gaussian factors that are not the posterior."""
    rng = seeded(seed)
    first = LinearGaussian(torch.randn(3, 4, generator=rng, dtype=F64) / 3, 0.3 * torch.eye(3, dtype=F64))
    second = LinearGaussian(torch.randn(2, 3, generator=rng, dtype=F64) / 3, 0.5 * torch.eye(2, dtype=F64))
    return first, second


def test_the_bottom_up_bound_is_its_expectation():
    """Within 5 standard errors of 40,000 draws for one x; the exact one is log p(x) less the divergence."""
    c, (first, second) = chain(2), encoders()
    a, b = first.weight, second.weight
    noise = torch.block_diag(0.3 * torch.eye(3, dtype=F64), 0.5 * torch.eye(2, dtype=F64))
    up = torch.eye(5, dtype=F64)
    up[3:, :3] = b
    q = (torch.cat([X @ a.mT, X @ a.mT @ b.mT], -1), up @ noise @ up.mT)
    exact = exact_bound(c, q)
    covariance, _ = joint(c)
    gain = covariance[4:, :4] @ torch.linalg.inv(covariance[:4, :4])
    posterior = MultivariateNormal(X @ gain.mT, covariance[4:, 4:] - gain @ covariance[:4, 4:])
    gap = kl(MultivariateNormal(q[0], q[1]), posterior)
    torch.testing.assert_close(c.log_prob(X) - exact, gap, rtol=1e-9, atol=1e-9)
    model = c.model(BottomUp([first, second]))
    rows = X[:1].expand(40_000, -1)
    values = model.elbo(rows, 1, seeded(5)).value
    assert (values.mean() - exact[0]).abs() < 5 * values.std() / 200
    torch.testing.assert_close(
        model.elbo(X[:1], 40_000, seeded(5)).value[0], exact[0], rtol=0, atol=float(5 * values.std() / 200)
    )


class Side(nn.Module):
    """(h above, x) ↦ N(B h + A x, 0.3): a linear Gaussian factor of a top-down posterior."""

    def __init__(self, b, a):
        super().__init__()
        self.b, self.a = b, a

    def forward(self, h, x):
        mean = h @ self.b.mT + x @ self.a.mT
        return Independent(Normal(mean, torch.full_like(mean, 0.3**0.5)), 1)


def test_the_top_down_bound_is_its_expectation_and_its_terms_are_divergences():
    c, rng = chain(2), seeded(4)
    top = LinearGaussian(torch.randn(2, 4, generator=rng, dtype=F64) / 3, 0.5 * torch.eye(2, dtype=F64))
    b, a = (torch.randn(3, k, generator=rng, dtype=F64) / 3 for k in (2, 4))
    mean_top = X @ top.weight.mT
    down = torch.eye(5, dtype=F64)
    down[:3, 3:] = b
    noise = torch.block_diag(0.3 * torch.eye(3, dtype=F64), 0.5 * torch.eye(2, dtype=F64))
    exact = exact_bound(c, (torch.cat([mean_top @ b.mT + X @ a.mT, mean_top], -1), down @ noise @ down.mT))
    model = c.model(TopDown([Side(b, a), top]))
    rows = X[:1].expand(40_000, -1)
    values = model.elbo(rows, 1, seeded(5))
    assert (values.value.mean() - exact[0]).abs() < 5 * values.value.std() / 200
    assert (values.kl >= 0).all()
    torch.testing.assert_close(values.kl[1], kl(top(rows), StandardNormal(2, F64)()), rtol=1e-12, atol=0)


def test_bottom_up_terms_below_the_top_may_be_negative():
    """x says nothing and h_2 says much about h_1: then KL_1 = −I(h_1; h_2) = ½ log(1 − a²), KL_2 the opposite."""
    a = 0.8
    weights = [torch.tensor([[w]], dtype=F64) for w in (1e-9, a)]
    terms = GaussianChain(weights, [1.0, math.sqrt(1 - a**2)]).model().elbo(X[:1, :1], 100_000, seeded(1)).kl[:, 0]
    information = -0.5 * math.log(1 - a**2)
    assert terms.tolist() == pytest.approx([-information, information], abs=5 * a / math.sqrt(100_000))
    assert terms[0] < 0


def small(top_down=False, dtype=torch.float32, seed=1):
    rng = seeded(seed)

    def net(*widths):
        return Encoder(mlp(widths, rng, dtype=dtype))

    q = TopDown([Concatenated(net(2 + 6, 8, 6)), net(6, 8, 4)]) if top_down else BottomUp([net(6, 8, 6), net(3, 8, 4)])
    decoder = Decoder(mlp([3, 8, 6], rng, dtype=dtype), Bernoulli())
    return HierarchicalVAE(q, decoder, [net(2, 8, 6), StandardNormal(2, dtype)])


BITS = (torch.rand(5, 6, generator=seeded(5)) < 0.5).float()


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("form", [BottomUp, TopDown])
def test_one_level_is_the_variational_autoencoder(form, draws, dtype):
    rng = seeded(1)
    parts = [Encoder(mlp([6, 8, 4], rng, dtype=dtype)), Decoder(mlp([2, 8, 6], rng, dtype=dtype), Bernoulli())]
    vae = VAE(*parts, StandardNormal(2, dtype))
    one = HierarchicalVAE(form([parts[0]]), parts[1], [StandardNormal(2, dtype)])
    x = BITS.to(dtype)
    a, b = vae.elbo(x, draws, seeded(2)), one.elbo(x, draws, seeded(2))
    torch.testing.assert_close(b.value, a.value)
    torch.testing.assert_close(b.kl[0], a.kl)
    torch.testing.assert_close(one.iwae(x, draws, seeded(2)), iwae(vae, x, draws, seeded(2)))
    torch.testing.assert_close(one.loss(x, seeded(2), 0.5), vae.loss(x, seeded(2), 0.5))
    assert torch.equal(one.sample(4, seeded(3)), vae.sample(4, seeded(3)))


@pytest.mark.parametrize("top_down", [False, True])
def test_shapes_gradients_and_the_loss(top_down, dtype):
    model, x = small(top_down, dtype), BITS.to(dtype)
    bound = model.elbo(x, 3, seeded(1))
    assert (bound.reconstruction.shape, bound.kl.shape, bound.value.shape) == ((5,), (2, 5), (5,))
    torch.testing.assert_close(bound.value, bound.reconstruction - bound.kl[0] - bound.kl[1])
    assert isinstance(model.posterior, LevelPosterior)
    one = model.elbo(x, 1, seeded(2))
    torch.testing.assert_close(
        model.loss(x, seeded(2), kl_weight=0.3), (0.3 * one.kl.sum(0) - one.reconstruction).mean()
    )
    model.loss(x, seeded(2)).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.sample(7, seeded(3)).shape == (7, 6)
    assert model.elbo(x, 1, seeded(4)).value.dtype == dtype


@pytest.mark.parametrize("top_down", [False, True])
def test_both_estimators_of_the_divergences_agree_in_the_mean(top_down):
    """elbo's closed forms against iwae with one draw, which takes no closed form: 5 standard errors of 20,000."""
    model, x = small(top_down, F64), BITS[:1].double().expand(20_000, -1)
    a, b = model.elbo(x, 1, seeded(1)).value, model.iwae(x, 1, seeded(2))
    assert (a.mean() - b.mean()).abs() < 5 * (a.var() + b.var()).sqrt() / 20_000**0.5


def test_samples_of_the_chain_have_its_covariance():
    """5 standard errors, √((C_ii C_jj + C_ij²)/N), of 50,000 draws."""
    c = chain(3)
    x = c.model().sample(50_000, seeded(1))
    wanted = c.covariances()[0]
    d = wanted.diagonal()
    error = ((d[:, None] * d + wanted**2) / 50_000).sqrt()
    assert ((x.mT @ x / 50_000 - wanted).abs() < 5 * error).all()


def test_the_door():
    model = small()
    for x, words in (
        (BITS[:0], "at least one example"),
        (BITS.double(), r"x is torch.float64 and the model torch.float32"),
        (BITS / 2 + 0.1, "binarise"),
    ):
        with pytest.raises(ValueError, match=words):
            model.elbo(x, 1, seeded(1))
    with pytest.raises(ValueError, match="draws is 0"):
        model.iwae(BITS, 0, seeded(1))
    with pytest.raises(ValueError, match="the posterior has 2 levels and priors 1"):
        HierarchicalVAE(model.posterior, model.decoder, [StandardNormal(2)])
    wide = HierarchicalVAE(model.posterior, model.decoder, [model.priors[0], StandardNormal(3)])
    with pytest.raises(ValueError, match="give both the same m"):
        wide.elbo(BITS, 1, seeded(1))


def test_the_door_of_the_chain():
    w = torch.ones(3, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"weights\[1\] has shape \(3, 2\), not \(2, any\)"):
        GaussianChain([w, w], [1.0, 1.0])
    with pytest.raises(ValueError, match="there are 1 weights and 2 sigmas"):
        GaussianChain([w], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"sigmas\[0\] has the value 0"):
        GaussianChain([w], [0.0])
    with pytest.raises(ValueError, match="not positive definite"):
        LinearGaussian(w, -torch.eye(3, dtype=F64))
    assert [name for name, _ in LinearGaussian(w, torch.eye(3, dtype=F64), learned=True).named_parameters()] == [
        "weight"
    ]
