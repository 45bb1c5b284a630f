"""The equations of the variational autoencoder, in float64 and without sampling error.

The library is held against plain sums; expectations under Gaussians are Gauss–Hermite sums (exact for the polynomials
here) or SciPy's quadrature, those over batches and draws are sums over every case.
"""

import itertools
import math
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.integrate
import torch
from harness import assert_at_most, assert_close, equation
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from lecturecode import kl, seeded
from lecturecode.nn import conv_decoder, conv_encoder, linear, mlp
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, Gaussian, StandardNormal, iwae

f64 = torch.float64
CHAPTER = Path(__file__).resolve().parents[2] / "book" / "vae" / "variational-autoencoder.md"


def tensor(*values):
    return torch.tensor(values, dtype=f64)


def gauss_hermite(nodes=40):
    """Values of ε and weights that sum to one: Σ w f(ε) is E[f(ε)] for ε ~ N(0, 1)."""
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    return e, w / w.sum()


def gauss_hermite_grid(m, nodes=10):
    """Nodes (nodes^m, m) and weights of the product rule: exact up to degree 2·nodes − 1 in each variable."""
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(e, repeat=m)))
    weights = np.array([math.prod(v) for v in itertools.product(w / w.sum(), repeat=m)])
    return grid, weights


def normal_density(h, mean=0.0, sigma=1.0):
    return np.exp(-0.5 * ((h - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def moments(values, weights):
    mean = (weights * values).sum()
    return mean, (weights * (values - mean) ** 2).sum()


def small_vae(n=4, m=2, seed=1):
    rng = seeded(seed)
    encoder, decoder = mlp([n, 5, 2 * m], rng, dtype=f64), mlp([m, 5, n], rng, dtype=f64)
    return VAE(Encoder(encoder), Decoder(decoder, Bernoulli()), StandardNormal(m, f64))


def network(part: nn.Module) -> nn.Module:
    """The network inside an encoder or a decoder."""
    return cast(nn.Module, part.net)


def as_lists(model, x):
    """The encoder network's answer as Python numbers: rows of μ and of log σ²."""
    rows = network(model.encoder)(x).tolist()
    m = len(rows[0]) // 2
    return [row[:m] for row in rows], [row[m:] for row in rows]


def from_chapter(name):
    """An object that a code cell of the chapter defines, so that what readers see is what is tested."""
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", CHAPTER.read_text(encoding="utf-8"), re.M | re.S)
    (cell,) = [c for c in cells if re.search(rf"^(class|def) {name}\b", c, re.M)]
    names = {"torch": torch, "nn": nn, "F": nn.functional, "Categorical": torch.distributions.Categorical}
    exec(cell, names)
    return names[name]


@equation("vae-prior")
def test_prior_is_a_product_of_standard_normals():
    """StandardNormal.log_prob against the logarithm of the product, written out."""
    h = [[0.3, -1.2, 2.0], [0.0, 0.5, -0.1]]
    product = [math.log(math.prod(math.exp(-(v**2) / 2) / math.sqrt(2 * math.pi) for v in row)) for row in h]
    assert_close(StandardNormal(3, f64)().log_prob(tensor(*h)), product)


@equation("vae-decoder")
def test_decoder_is_a_distribution_over_all_images():
    """Decoder.log_prob of all 2^4 images against the pixel sum, and the sum of their probabilities is one."""
    model, h = small_vae(), tensor([0.7, -1.1])
    y = network(model.decoder)(h)[0].tolist()
    images = list(itertools.product((0.0, 1.0), repeat=4))
    plain = [sum(x * a - math.log(1 + math.exp(a)) for x, a in zip(image, y, strict=True)) for image in images]
    library = model.decoder(h.expand(16, 2)).log_prob(tensor(*images))
    assert_close(library, plain)
    assert_close(library.exp().sum(), 1.0)
    assert_close(math.fsum(math.exp(value) for value in plain), 1.0)


@equation("vae-encoder")
def test_encoder_is_a_gaussian_with_diagonal_covariance():
    """Encoder.log_prob against torch's full-covariance Gaussian with Σ = diag σ², whose entries are not squared."""
    model, x = small_vae(), tensor([1.0, 0, 1, 1], [0.0, 0, 1, 0])
    mean, log_variance = as_lists(model, x)
    covariance = tensor(*[np.diag(np.exp(row)).tolist() for row in log_variance])
    h = tensor([0.4, -0.3], [1.5, 0.2])
    assert_close(model.encoder(x).log_prob(h), MultivariateNormal(tensor(*mean), covariance).log_prob(h))
    assert_close(torch.diag_embed(model.encoder(x).variance), covariance)


@equation("vae-diagonal-cost")
def test_cost_of_the_diagonal():
    """torch's Gaussian divergence at σ_j² = 1/Λ_jj against the formula; its gradient is zero there and KL convex."""
    for precision in (tensor([2.0, 1], [1, 2]), tensor([3.0, 1, 0.2], [1, 2, -0.5], [0.2, -0.5, 1.5]), torch.eye(2)):
        precision = precision.double()
        centre = torch.linspace(-1, 1, len(precision), dtype=f64)
        mean = centre.clone().requires_grad_()
        log_variance = (-precision.diagonal().log()).requires_grad_()
        posterior = MultivariateNormal(centre, covariance_matrix=torch.linalg.inv(precision))
        gap = kl_divergence(MultivariateNormal(mean, torch.diag(log_variance.exp())), posterior)
        formula = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision.numpy())[1])
        assert_close(gap, formula)
        for slope in torch.autograd.grad(gap, (mean, log_variance)):
            assert_close(slope, torch.zeros_like(slope))
    assert_close(formula, 0.0)  # the last precision is diagonal


@equation("vae-log-ratio")
def test_log_ratio_of_encoder_and_prior():
    """The difference of two log densities against the sum, at several h."""
    mean, sigma, h = [0.5, -1.0], [0.3, 1.5], [[0.2, 0.1], [-1.0, 2.0]]
    q, prior = Normal(tensor(*mean), tensor(*sigma)), StandardNormal(2, f64)()
    left = q.log_prob(tensor(*h)).sum(-1) - prior.log_prob(tensor(*h))
    right = [
        0.5 * sum(v**2 - (v - mu) ** 2 / s**2 - math.log(s**2) for v, mu, s in zip(row, mean, sigma, strict=True))
        for row in h
    ]
    assert_close(left, right)


@equation("vae-gaussian-kl")
def test_divergence_of_the_encoder_from_the_prior():
    """The formula, the library and Gauss–Hermite sums of log q − log p, from σ = 0.01 to σ = 3."""
    for mean, sigma in (([0.5, -1.0], [0.3, 1.5]), ([0.0, 0.0], [1.0, 1.0]), ([2.0, 0.1], [0.01, 3.0])):
        formula = 0.5 * sum(mu**2 + s**2 - 1 - math.log(s**2) for mu, s in zip(mean, sigma, strict=True))
        q = Independent(Normal(tensor(*mean), tensor(*sigma)), 1)
        e, w = gauss_hermite()
        summed = sum(
            w @ (-0.5 * e**2 - math.log(s) + 0.5 * (mu + s * e) ** 2) for mu, s in zip(mean, sigma, strict=True)
        )
        assert_close(kl(q, StandardNormal(2, f64)()), formula)
        assert_close(formula, summed)


@equation("vae-kl-slope")
def test_slopes_of_the_divergence():
    """Automatic differentiation of the library's divergence against μ and σ − 1/σ."""
    mean = tensor(0.5, -1.0, 0.0).requires_grad_()
    sigma = tensor(0.05, 1.0, 2.5).requires_grad_()
    zero, one = torch.zeros(3, dtype=f64), torch.ones(3, dtype=f64)
    along_mean, along_sigma = torch.autograd.grad(kl(Normal(mean, sigma), Normal(zero, one)).sum(), (mean, sigma))
    assert_close(along_mean, [0.5, -1.0, 0.0])
    assert_close(along_sigma, [0.05 - 20, 0.0, 2.5 - 0.4])


@equation("vae-best-variance")
def test_best_variance_of_a_code():
    """In a linear Gaussian model c_j = |A_j|²/s²; the exact ELBO (Gauss–Hermite) is stationary at 1/(1 + c_j)."""
    A, s = np.array([[1.0, 0.5], [-0.3, 2.0], [0.0, 0.0]]).T, 0.7  # three columns of length two
    c = (A**2).sum(0) / s**2
    assert_close(c[2], 0.0)
    grid, weights = (torch.from_numpy(a) for a in gauss_hermite_grid(3, 4))
    log_sigma = torch.from_numpy(-0.5 * np.log1p(c)).requires_grad_()
    residual = tensor(0.4, -0.9) - (grid * log_sigma.exp()) @ torch.from_numpy(A).mT  # any x − b − Aμ
    reconstruction = -(weights * residual.square().sum(1)).sum() / (2 * s**2)
    divergence = 0.5 * ((2 * log_sigma).exp() - 1 - 2 * log_sigma).sum()
    (slope,) = torch.autograd.grad(reconstruction - divergence, log_sigma)
    assert_close(slope, torch.zeros(3))
    best = Normal(torch.zeros(3, dtype=f64), log_sigma.detach().exp()).variance
    assert_close(best, 1 / (1 + c))
    assert_close(best[2], 1.0)


class _Bent(nn.Module):
    """A decoder network with one latent unit and three pixels."""

    def forward(self, h):
        return torch.tanh(h @ tensor([1.5, -0.7, 0.4])) * 2 + tensor(0.2, -0.1, 0.5)


class _Reader(nn.Module):
    """An encoder network for three pixels: (μ, log σ²)."""

    def forward(self, x):
        return torch.stack([0.8 * x[:, 0] - 0.6 * x[:, 1], -0.5 - 0.3 * x[:, 2]], -1)


@equation("vae-objective")
def test_objective_over_the_data_is_likelihood_less_gaps():
    """The library's two parts on a grid of h against Σ log p(x_i) − Σ KL(q_i‖posterior), both by the trapezoid rule."""
    model = VAE(Encoder(_Reader()), Decoder(_Bent(), Bernoulli()), StandardNormal(1, f64))
    data = tensor([1.0, 0, 1], [0.0, 0, 1], [1.0, 1, 0], [1.0, 0, 1])
    h = torch.linspace(-12, 12, 6001, dtype=f64)
    width = float(h[1] - h[0])
    q = model.encoder(data)
    weights = torch.stack([torch.exp(q.log_prob(v.expand(4, 1))) for v in h]) * width  # (grid, data)
    given = torch.stack([model.decoder(h[:, None]).log_prob(x) for x in data], 1)  # (grid, data)
    left = ((weights * given).sum(0) - kl(q, model.prior())).sum()

    grid = h.numpy()
    y = 2 * np.tanh(grid[:, None] * np.array([1.5, -0.7, 0.4])) + np.array([0.2, -0.1, 0.5])
    right = 0.0
    for x in data.numpy():
        on = 1 / (1 + np.exp(-y))
        joint = np.where(x == 1, on, 1 - on).prod(1) * normal_density(grid)
        evidence = joint.sum() * width
        mu, sigma = 0.8 * x[0] - 0.6 * x[1], math.exp(0.5 * (-0.5 - 0.3 * x[2]))
        code = normal_density(grid, mu, sigma)
        log_code = -0.5 * ((grid - mu) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
        gap = (code * (log_code - np.log(joint) + math.log(evidence))).sum() * width
        assert gap > 1e-3
        right += math.log(evidence) - gap
    assert_close(left, right)


@equation("vae-minibatch")
def test_mean_over_all_batches_is_the_mean_over_the_data():
    """All C(5, B) batches, for every B, against the plain mean."""
    values = [-17.3, -20.1, -9.4, -30.2, -18.8]
    for size in range(1, 6):
        batches = [math.fsum(batch) / size for batch in itertools.combinations(values, size)]
        assert_close(math.fsum(batches) / len(batches), math.fsum(values) / 5)


@equation("vae-estimator")
def test_estimator_is_the_mean_over_draws_less_the_divergence():
    """VAE.elbo against plain sums over draws, pixels and latents, with the same ε."""
    model, x, draws = small_vae(), tensor([1.0, 0, 1, 1], [0.0, 0, 1, 0], [1.0, 1, 1, 0]), 3
    found = model.elbo(x, draws, seeded(5)).value
    eps = torch.randn(draws, 3, 2, generator=seeded(5), dtype=f64).tolist()
    mean, log_variance = as_lists(model, x)
    for i in range(3):
        total = 0.0
        for one in range(draws):
            h = [mean[i][j] + math.exp(0.5 * log_variance[i][j]) * eps[one][i][j] for j in range(2)]
            y = network(model.decoder)(tensor(h))[0].tolist()
            total += sum(v * a - math.log(1 + math.exp(a)) for v, a in zip(x[i].tolist(), y, strict=True))
        divergence = sum(0.5 * (m**2 + math.exp(v) - 1 - v) for m, v in zip(mean[i], log_variance[i], strict=True))
        assert_close(found[i], total / draws - divergence)


@equation("vae-estimator-variance")
def test_variance_of_the_estimator_falls_as_one_over_draws():
    """A code with three values and given log p(x|h): all 3^M lists of draws, M = 1 … 4."""
    chance, value, divergence = np.array([0.2, 0.5, 0.3]), np.array([-3.0, -7.5, -4.0]), 1.3
    _, single = moments(value, chance)
    for draws in (1, 2, 3, 4):
        lists = np.array(list(itertools.product(range(3), repeat=draws)))
        mean, variance = moments(value[lists].mean(1) - divergence, chance[lists].prod(1))
        assert_close(variance, single / draws)
        assert_close(mean, (chance * value).sum() - divergence)


@equation("vae-linear-variance")
def test_variance_of_one_draw_for_a_linear_decoder():
    """The library's Gaussian log-likelihood on a Gauss–Hermite product grid against the closed form, m = 2 and 3."""
    rng = np.random.default_rng(3)
    for n, m, s in ((3, 2, 0.5), (4, 3, 1.3)):
        A, b, x, mean = (rng.normal(size=shape) for shape in ((n, m), n, n, m))
        sigma = np.exp(rng.normal(size=m) / 2)
        grid, weights = gauss_hermite_grid(m, 4)
        net = nn.Linear(m, n, dtype=f64)
        with torch.no_grad():
            net.weight.copy_(torch.from_numpy(A))
            net.bias.copy_(torch.from_numpy(b))
            decoder = Decoder(net, Gaussian(s, dtype=f64))
            values = decoder(torch.from_numpy(mean + grid * sigma)).log_prob(torch.from_numpy(x)).numpy()
        _, variance = moments(values, weights)
        G, r = A * sigma, x - b - A @ mean
        closed = (((G.T @ r) ** 2).sum() + 0.5 * np.trace(G.T @ G @ G.T @ G)) / s**4
        assert_close(variance, closed, relative=True)


@equation("vae-draws-or-data")
def test_two_variances_of_a_batch():
    """Three images, codes with two values: every batch and every list of draws, B and M up to 3 and 2."""
    value = np.array([[-10.0, -14.0], [-20.0, -21.0], [-15.0, -9.0]])  # log p(x|h) − KL for each x and h
    between = value.mean(1).var()
    within = value.var(1).mean()
    for images, draws in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1)):
        outcomes = []
        for batch in itertools.product(range(3), repeat=images):
            for codes in itertools.product(itertools.product(range(2), repeat=draws), repeat=images):
                outcomes.append(np.mean([value[x, list(h)].mean() for x, h in zip(batch, codes, strict=True)]))
        assert_close(np.var(outcomes), (between + within / draws) / images)


def _true_slopes(mean, sigma):
    """d/dμ and d/dσ of E[sin h + h²] = e^{−σ²/2} sin μ + μ² + σ²."""
    damping = math.exp(-(sigma**2) / 2)
    return damping * math.cos(mean) + 2 * mean, -sigma * damping * math.sin(mean) + 2 * sigma


@equation("reparametrised-gradient")
def test_gradient_through_the_draw():
    """f = sin h + h²: Gauss–Hermite sums of f′·(1, ε), by automatic differentiation, against the exact slopes."""
    for mean, sigma in ((0.3, 0.5), (-1.2, 1.1)):
        mu, s = tensor(mean).requires_grad_(), tensor(sigma).requires_grad_()
        e, w = gauss_hermite()
        h = mu + s * torch.from_numpy(e)
        found = torch.autograd.grad((torch.from_numpy(w) * (torch.sin(h) + h**2)).sum(), (mu, s))
        assert_close(torch.cat(found), _true_slopes(mean, sigma))
        slope = np.cos(mean + sigma * e) + 2 * (mean + sigma * e)
        assert_close([w @ slope, w @ (slope * e)], _true_slopes(mean, sigma))


@equation("score-function-gradient")
def test_gradient_of_the_density():
    """f = sin h + h²: Gauss–Hermite sums of f·∇log q against the exact slopes; ∇log q from torch's log density."""
    for mean, sigma in ((0.3, 0.5), (-1.2, 1.1)):
        e, w = gauss_hermite()
        f = np.sin(mean + sigma * e) + (mean + sigma * e) ** 2
        scores = np.stack([e / sigma, (e**2 - 1) / sigma])
        assert_close((scores * f) @ w, _true_slopes(mean, sigma))
        mu, s = (torch.full((40,), value, dtype=f64, requires_grad=True) for value in (mean, sigma))
        log_q = Normal(mu, s).log_prob(torch.from_numpy(mean + sigma * e))
        assert_close(torch.stack(torch.autograd.grad(log_q.sum(), (mu, s))), scores)


@equation("vae-gradient-variances")
def test_variances_of_the_two_gradients():
    """f = h²: means and variances of all four estimators by Gauss–Hermite sums (polynomials of degree 8)."""
    e, w = gauss_hermite(10)
    for mu, s in ((1.0, 0.5), (-0.4, 1.3), (0.0, 1.0)):
        h = mu + s * e
        cases = (
            (2 * h, 2 * mu, 4 * s**2),
            (2 * h * e, 2 * s, 4 * mu**2 + 8 * s**2),
            (h**2 * e / s, 2 * mu, mu**4 / s**2 + 14 * mu**2 + 15 * s**2),
            (h**2 * (e**2 - 1) / s, 2 * s, 2 * mu**4 / s**2 + 60 * mu**2 + 74 * s**2),
        )
        for values, mean, variance in cases:
            found = moments(values, w)
            assert_close(found[0], mean)
            assert_close(found[1], variance)


@equation("vae-score-dimension")
def test_score_function_pays_for_every_dimension():
    """f = |h|² at μ = 0: both variances on Gauss–Hermite product grids, m = 1 … 4."""
    for m, sigma in ((1, 0.6), (2, 1.0), (3, 1.7), (4, 0.2)):
        grid, weights = gauss_hermite_grid(m, 5)
        _, path = moments(2 * sigma * grid[:, 0], weights)
        _, score = moments(sigma**2 * (grid**2).sum(1) * grid[:, 0] / sigma, weights)
        assert_close(path, 4 * sigma**2)
        assert_close(score, sigma**2 * (m + 2) * (m + 4))


def _plain_parts(model, x, eps):
    """Reconstruction loss and divergence for each image, by loops over pixels and latents."""
    mean, log_variance = as_lists(model, x)
    sums, divergences = [], []
    for i, image in enumerate(x.tolist()):
        h = [mu + math.exp(0.5 * v) * e for mu, v, e in zip(mean[i], log_variance[i], eps[i], strict=True)]
        y = network(model.decoder)(tensor(h))[0].tolist()
        sums.append(math.fsum(math.log(1 + math.exp(a)) - v * a for v, a in zip(image, y, strict=True)))
        pairs = zip(mean[i], log_variance[i], strict=True)
        divergences.append(math.fsum(0.5 * (mu**2 + math.exp(v) - 1 - v) for mu, v in pairs))
    return sums, divergences


@equation("vae-loss")
def test_loss_is_a_sum_over_pixels_and_latents_and_a_mean_over_data():
    """VAE.loss, and the loss of the chapter's plain torch, against loops in Python; kl_weight multiplies the KL."""
    model, x = small_vae(), tensor([1.0, 0, 1, 1], [0.0, 0, 1, 0], [1.0, 1, 1, 0])
    eps = torch.randn(3, 2, generator=seeded(6), dtype=f64)
    sums, divergences = _plain_parts(model, x, eps.tolist())
    assert_close(model.loss(x, seeded(6)), (math.fsum(sums) + math.fsum(divergences)) / 3)
    assert_close(model.loss(x, seeded(6), 2.5), (math.fsum(sums) + 2.5 * math.fsum(divergences)) / 3)

    def forward(x, eps):
        mean, log_variance = network(model.encoder)(x).chunk(2, -1)
        return network(model.decoder)(mean + torch.exp(0.5 * log_variance) * eps), mean, log_variance

    assert_close(from_chapter("plain_loss")(forward, x, eps), (math.fsum(sums) + math.fsum(divergences)) / 3)


@equation("vae-mean-over-pixels")
def test_mean_over_pixels_multiplies_the_weight_by_their_number():
    """torch's mean-reduced cross-entropy plus KL against VAE.loss with kl_weight = n, divided by n."""
    model, x = small_vae(), tensor([1.0, 0, 1, 1], [0.0, 0, 1, 0], [1.0, 1, 1, 0])
    eps = torch.randn(3, 2, generator=seeded(6), dtype=f64)
    mean, log_variance = network(model.encoder)(x).chunk(2, -1)
    y = network(model.decoder)(mean + torch.exp(0.5 * log_variance) * eps)
    averaged = nn.functional.binary_cross_entropy_with_logits(y, x, reduction="mean")
    sums, divergences = _plain_parts(model, x, eps.tolist())
    left = averaged + math.fsum(divergences) / 3
    assert_close(left, model.loss(x, seeded(6), kl_weight=4.0) / 4)
    assert_close(left, (math.fsum(sums) + 4 * math.fsum(divergences)) / 3 / 4)


@equation("vae-iwae")
def test_bound_rises_with_the_number_of_draws():
    """A table with three codes: all 3^K lists for K = 1 … 5, tight at the posterior; the library with known ε."""
    prior, given = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.4, 0.7])
    evidence = (prior * given).sum()

    def bound(q, draws):
        ratio = prior * given / q
        lists = np.array(list(itertools.product(range(3), repeat=draws)))
        return (q[lists].prod(1) * np.log(ratio[lists].mean(1))).sum()

    elsewhere, posterior = np.array([0.2, 0.2, 0.6]), prior * given / evidence
    chains = [[bound(q, k) for k in range(1, 6)] for q in (elsewhere, posterior)]
    for k in range(4):
        assert_at_most([c[k] for c in chains], [c[k + 1] for c in chains])
    assert_at_most([c[4] for c in chains], [math.log(evidence)] * 2)
    assert_close(chains[0][0], (elsewhere * np.log(prior * given / elsewhere)).sum())  # K = 1 is the ELBO

    model, x = small_vae(), tensor([1.0, 0, 1, 1])
    found = iwae(model, x, 3, seeded(2))
    eps = torch.randn(3, 1, 2, generator=seeded(2), dtype=f64)
    (mean,), (log_variance,) = (np.array(a) for a in as_lists(model, x))
    ratios = []
    for e in eps[:, 0].numpy():
        h = mean + np.exp(0.5 * log_variance) * e
        y = network(model.decoder)(torch.from_numpy(h)[None])[0].detach().numpy()
        likelihood = np.prod(np.where(x[0].numpy() == 1, 1, np.exp(-y)) / (1 + np.exp(-y)))
        code = normal_density(h, mean, np.exp(0.5 * log_variance)).prod()
        ratios.append(likelihood * normal_density(h).prod() / code)
    assert_close(found, math.log(np.mean(ratios)))


def layer_of(net, kind) -> nn.Module:
    """The one convolution in a package's network, with weights that nobody rounded."""
    (layer,) = (part for part in net if isinstance(part, kind))
    return layer


def down_by_hand(x, w, beta):
    """Six loops: x (A, s, s), w (B, A, 4, 4)."""
    side = x.shape[-1]
    out = np.zeros((len(w), side // 2, side // 2))
    for c, i, j in itertools.product(range(len(w)), range(side // 2), range(side // 2)):
        out[c, i, j] = beta[c]
        for a, k, m in itertools.product(range(len(x)), range(4), range(4)):
            r, s = 2 * i + k - 1, 2 * j + m - 1
            if 0 <= r < side and 0 <= s < side:
                out[c, i, j] += w[c, a, k, m] * x[a, r, s]
    return out


def encoder_layer(A=1, B=3, side=6):
    """The package's convolution from A maps to B: its first where A is one, else its second."""
    net = conv_encoder(side if A == 1 else 2 * side, [B] if A == 1 else [A, B], 1, seeded(3), dtype=f64)
    layer = [part for part in net if isinstance(part, nn.Conv2d)][-1]
    images = torch.randn(A, side, side, generator=seeded(4), dtype=f64)
    return layer, images, layer.weight.detach().numpy(), cast(torch.Tensor, layer.bias).detach().numpy()


@equation("vae-convolution")
def test_a_convolution_is_a_sum_over_a_window():
    """The package's layers, from one map and from two, against six loops."""
    for A in (1, 2):
        layer, images, w, beta = encoder_layer(A)
        assert_close(layer(images[None])[0], down_by_hand(images.numpy(), w, beta))


@equation("vae-convolution-count")
def test_a_convolution_has_few_numbers():
    """Counted in the package's layers and in the dense layer of the same shapes."""
    for A, B, side in ((1, 3, 6), (2, 3, 6), (1, 16, 28)):
        layer, *_ = encoder_layer(A, B, side)
        assert_close(float(sum(p.numel() for p in layer.parameters())), 16.0 * A * B + B)
        shared = nn.Linear(A * side**2, B * side**2 // 4, device="meta")
        assert_close(float(sum(p.numel() for p in shared.parameters())), (A * side**2 + 1) * B * side**2 / 4)
    assert_close([16.0 * 16 + 16, (784.0 + 1) * 16 * 784 / 4], [272.0, 2461760.0])


@equation("vae-convolution-shift")
def test_a_moved_image_has_moved_maps():
    layer, images, *_ = encoder_layer(2)
    images[:, -2:] = 0  # no ink leaves the frame
    moved = torch.zeros_like(images)
    moved[:, 2:] = images[:, :-2]
    assert_close(layer(moved[None])[0, :, 1:], layer(images[None])[0, :, :-1])


@equation("vae-convolution-adjoint")
def test_the_transposed_convolution_is_the_adjoint():
    """The sum over whole indices, the package's layer, the two scalar products; the start, ±1/√(4·3) for three maps."""
    net = conv_decoder(2, [3], 8, seeded(5), maps=2, dtype=f64)
    layer: Any = layer_of(net, nn.ConvTranspose2d)
    w, small = layer.weight.detach().numpy(), np.random.default_rng(6).normal(size=(3, 4, 4))
    up = np.zeros((2, 8, 8))
    for a, r, s, k, m in itertools.product(range(2), range(8), range(8), range(4), range(4)):
        i, j = r + 1 - k, s + 1 - m
        if i % 2 == j % 2 == 0 and 0 <= i < 8 and 0 <= j < 8:
            up[a, r, s] += w[:, a, k, m] @ small[:, i // 2, j // 2]
    assert_close(layer(torch.from_numpy(small)[None])[0] - layer.bias[:, None, None], up)
    large = np.random.default_rng(7).normal(size=(2, 8, 8))
    assert_close((small * down_by_hand(large, w, np.zeros(3))).sum(), (up * large).sum())
    first = linear(2, 3 * 16, again := seeded(5), f64)
    assert_close(layer.weight, (2 * torch.rand(3, 2, 4, 4, generator=again, dtype=f64) - 1) / math.sqrt(4 * 3))
    assert_close(net[0].weight, first.weight)


@equation("vae-checkerboard")
def test_how_many_weights_reach_a_pixel():
    """Images of ones through kernels of ones, at all inner pixels, against products of the counts along the axes."""
    for width, pattern in ((4, (2, 2)), (3, (1, 2))):
        counts = [sum((r + 1 - k) % 2 == 0 for k in range(width)) for r in range(10)]
        assert_close(counts, pattern * 5)
        kernel = torch.ones(1, 1, width, width, dtype=f64)
        reach = F.conv_transpose2d(torch.ones(1, 1, 5, 5, dtype=f64), kernel, stride=2, padding=1)[0, 0]
        inner = slice(1, 8)
        assert_close(reach[inner, inner], np.outer(counts, counts)[inner, inner])


@equation("vae-grey-mass")
def test_bernoulli_expression_does_not_integrate_to_one():
    """SciPy's quadrature of exp(torch's Bernoulli log_prob) over [0, 1] against tanh(y/2)/y, at most one half."""
    logits = [-6.0, -1.0, 1e-4, 0.5, 3.0, 8.0]
    masses = []
    for y in logits:
        pixel = torch.distributions.Bernoulli(logits=tensor(y)[0], validate_args=False)
        value, _ = scipy.integrate.quad(
            lambda x, pixel=pixel: float(pixel.log_prob(tensor(x)[0]).exp()), 0, 1, epsabs=1e-13, epsrel=1e-13
        )
        masses.append(value)
    closed = [math.tanh(y / 2) / y for y in logits]
    assert_close(masses, closed)
    assert_at_most([*closed, math.tanh(5e-9) / 1e-8], 0.5)  # equal in the limit y → 0


@equation("vae-random-binary")
def test_grey_expression_is_the_mean_over_random_binary_images():
    """All 2³ black and white images with their probabilities against the expression at the grey image."""
    grey, y = [0.25, 0.9, 0.5], [0.7, -1.2, 2.0]
    model = Decoder(_Given(tensor(*y)), Bernoulli())
    total = 0.0
    for image in itertools.product((0.0, 1.0), repeat=3):
        chance = math.prod(g if b else 1 - g for g, b in zip(grey, image, strict=True))
        total = total + chance * model(tensor([0.0])).log_prob(tensor(*image))
    assert_close(total, sum(g * a - math.log(1 + math.exp(a)) for g, a in zip(grey, y, strict=True)))


class _Given(nn.Module):
    """A network with one answer."""

    def __init__(self, y):
        super().__init__()
        self.y = y

    def forward(self, h):
        return self.y.expand(len(h), -1)


@equation("vae-learned-sigma")
def test_learned_sigma_is_the_root_mean_square_residual():
    """A linear decoder: at the closed-form residual |r|² + tr GGᵀ the library's σ has no slope (product grid)."""
    rng = np.random.default_rng(5)
    A, b = rng.normal(size=(3, 2)), rng.normal(size=3)
    x, mean, spread = rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), np.exp(rng.normal(size=(4, 2)) / 2)
    residuals = ((x - b - mean @ A.T) ** 2).sum(1) + ((A[None] * spread[:, None]) ** 2).sum((1, 2))
    best = math.sqrt(residuals.sum() / (3 * 4))
    likelihood = Gaussian(best, learned=True, dtype=f64)
    grid, weights = gauss_hermite_grid(2, 4)
    total, squares = torch.zeros((), dtype=f64), 0.0
    for i in range(4):
        y = torch.from_numpy((mean[i] + grid * spread[i]) @ A.T + b)
        log_prob = likelihood(y).log_prob(torch.from_numpy(x[i])).sum(-1)
        total = total + (torch.from_numpy(weights) * log_prob).sum()
        squares += float((weights * ((x[i] - y.numpy()) ** 2).sum(1)).sum())
    (slope,) = torch.autograd.grad(total, likelihood.log_sigma)
    assert_close(slope, 0.0)
    assert_close(squares / 12, best**2)


@equation("vae-dequantisation")
def test_dequantised_density_bounds_the_probability_of_a_level():
    """Two pixels, Gaussian densities: SciPy's quadrature against erf; tight for a density that is flat in each cell."""
    sigma, centre = 0.06, (0.41, 0.7)
    smaller, larger, total = [], [], 0.0
    for k in itertools.product((5, 7, 11), repeat=2):
        mean_log, mean, mass = 0.0, 1.0, 1.0
        for level, mu in zip(k, centre, strict=True):
            density = lambda u, level=level, mu=mu: normal_density((level + u) / 17, mu, sigma)  # noqa: E731
            mean_log += scipy.integrate.quad(lambda u, d=density: math.log(d(u)), 0, 1, epsabs=1e-13)[0]
            mean *= scipy.integrate.quad(density, 0, 1, epsabs=1e-14, epsrel=1e-13)[0]
            edges = [(edge - mu) / (sigma * math.sqrt(2)) for edge in (level / 17, (level + 1) / 17)]
            mass *= 0.5 * (math.erfc(edges[0]) - math.erfc(edges[1]))
        # erfc differences lose digits in the far cells: 1e-9 relative covers the smallest mass here
        assert_close(math.log(mean) - 2 * math.log(17), math.log(mass), tol=1e-9)
        smaller.append(mean_log - 2 * math.log(17))
        larger.append(math.log(mass))
        total += mass
    assert total < 1
    flat = np.arange(1.0, 18.0) / np.arange(1.0, 18.0).sum()  # probability of each level, density 17·flat in its cell
    tight = np.log(17 * flat) - math.log(17)
    assert_at_most([*smaller, *tight], [*larger, *np.log(flat)])


@equation("vae-levels")
def test_probabilities_of_levels():
    """The chapter's Levels in float64 against SciPy's quadrature of the density over each cell; the sum is one."""
    likelihood = from_chapter("Levels")().double()
    likelihood.log_sigma.data.fill_(math.log(0.15))
    y, floor = [-0.8, 0.0, 0.37, 1.2], 1e-6
    found = likelihood(tensor(*y)).probs
    assert_close(found.sum(-1), torch.ones(4))
    edges = [-20.0, *((k - 0.5) / 16 for k in range(1, 17)), 20.0]
    for i, centre in enumerate(y):
        for k in range(17):
            low, high = edges[k], edges[k + 1]
            inside = [low, *(p for p in (centre - 2, centre, centre + 2) if low < p < high), high]
            mass = sum(
                scipy.integrate.quad(normal_density, a, b, args=(centre, 0.15), epsabs=1e-14, epsrel=1e-12)[0]
                for a, b in itertools.pairwise(inside)
            )
            assert_close(found[i, k], (mass + floor) / (1 + 17 * floor))


@equation("vae-kl-by-hand")
def test_divergence_of_the_exercise():
    """torch's divergence of the pair against 13/8."""
    q = Normal(tensor(1.0, 0.0), tensor(2.0, 0.5))
    by_hand = 0.5 * ((1 + 4 - 1 - math.log(4)) + (0 + 0.25 - 1 - math.log(0.25)))
    assert_close(kl_divergence(q, Normal(tensor(0.0, 0.0), tensor(1.0, 1.0))).sum(), by_hand)
    assert_close(by_hand, 13 / 8)


@equation("vae-score-baseline")
def test_best_baseline():
    """The ratio E[f s²]/E[s²] and the variance with that baseline, by Gauss–Hermite sums, against the formulas."""
    e, w = gauss_hermite(10)
    for mu, s in ((1.0, 0.5), (-0.4, 1.3)):
        h, score, best = mu + s * e, e / s, mu**2 + 3 * s**2
        assert_close((w @ (h**2 * score**2)) / (w @ score**2), best)
        _, variance = moments((h**2 - best) * score, w)
        assert_close(variance, 8 * mu**2 + 6 * s**2)
        before = mu**4 / s**2 + 14 * mu**2 + 15 * s**2
        assert_close(before - best**2 / s**2, variance)


@equation("vae-calls-ratio")
def test_ratio_of_the_exercise():
    """The mean over a batch, its variance added up term by term, against the fraction."""
    between, within = 18.0, 6.0
    spread, full = (math.fsum([(between + within / m) / b**2] * b) for b, m in ((8, 8), (64, 1)))
    assert_close(spread / full, (8 * between + within) / (between + within))
    assert_close(spread / full, 6.25)


@equation("vae-two-means-weight")
def test_weight_of_the_exercise():
    """torch's two mean reductions, times n, against the sums with the weight n/m."""
    generator = seeded(4)
    n, m = 784, 20
    losses, divergences = (torch.rand(size, generator=generator, dtype=f64) for size in ((3, n), (3, m)))
    left = n * (losses.mean() + divergences.mean())
    assert_close(left, losses.sum(1).mean() + 39.2 * divergences.sum(1).mean())
    assert_close(n / m, 39.2)


@equation("vae-bits-per-pixel")
def test_bits_of_the_exercise():
    """Nats to bits, a pixel at a time, against both forms and the four digits printed."""
    nats_per_pixel = math.log(17) - 40 / 64
    form = (64 * math.log(17) - 40) / (64 * math.log(2))
    assert_close(nats_per_pixel / math.log(2), form)
    assert_close(math.log2(17) - 40 / (64 * math.log(2)), form)
    assert_close([round(v, 4) for v in (math.log2(17), 40 / (64 * math.log(2)), form)], [4.0875, 0.9017, 3.1858])


@equation("vae-diagonal-by-hand")
def test_gaps_of_the_exercise():
    """torch's divergences of the two diagonal encoders from the posterior against the two closed forms."""
    zero = torch.zeros(2, dtype=f64)
    posterior = MultivariateNormal(zero, precision_matrix=tensor([2.0, 1], [1, 2]))
    narrow, marginal = (
        kl_divergence(MultivariateNormal(zero, v * torch.eye(2, dtype=f64)), posterior) for v in (1 / 2, 2 / 3)
    )
    assert_close(narrow, 0.5 * (2 * math.log(2) - math.log(3)))
    assert_close(narrow, 0.5 * math.log(4 / 3))
    assert_close(marginal, 0.5 * (2 * (4 / 3 - 1 - math.log(2 / 3)) - math.log(3)))
    assert_close(marginal, 1 / 3 + 0.5 * math.log(3 / 4))
    assert_close([round(float(v), 4) for v in (narrow, marginal)], [0.1438, 0.1895])
