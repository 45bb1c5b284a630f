"""The equations of the page on the tightness of the bound, in float64 and without sampling error.

The linear model is held against n×n Gaussian densities of SciPy and against Gauss–Hermite sums over h (exact for its
quadratics); optima against stationarity of a loss written out anew; the many-draw bound against two-dimensional sums.
"""

import functools
import itertools
import math
from typing import Any

import numpy as np
import scipy.stats
import torch
from harness import assert_at_most, assert_close, equation
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from lecturecode import seeded
from lecturecode.vae import VAE, LatentTable, LinearGaussianVAE, SampleMoments, iwae, iwae_loss

f64 = torch.float64
SPECTRUM = np.array([5.0, 3.0, 1.0, 0.6, 0.4, 0.1])


def random_model(n=5, m=2, seed=1, sigma=0.6):
    model = LinearGaussianVAE(n, m, seeded(seed), sigma=sigma, dtype=f64)
    rng = seeded(seed + 100)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=f64))
    return model


def net(model) -> Any:
    """The encoder's module, with V and c in `mean` and log s² in `log_variance`."""
    return model.encoder.net


def arrays(model):
    """W, b, σ², V, c, s² as NumPy arrays."""
    affine = net(model)
    parts = (model.weight, model.bias, model.variance, affine.mean.weight, affine.mean.bias, affine.log_variance.exp())
    return [p.detach().numpy().copy() for p in parts]


def points(n=5, count=6, seed=3):
    return torch.randn(count, n, generator=seeded(seed), dtype=f64)


def data(spectrum=SPECTRUM, seed=2):
    """Moments with this spectrum, in random axes."""
    n = len(spectrum)
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return np.linspace(-1, 1, n), (axes * spectrum) @ axes.T, axes


def moments_of(mean, covariance):
    return SampleMoments(torch.from_numpy(mean), torch.from_numpy(covariance))


def grid(m, nodes=12):
    """Nodes and weights with Σ w f(ε) = E[f(ε)], ε ~ N(0, 1) in m dimensions."""
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    weights = np.array([math.prod(v) for v in itertools.product(w / w.sum(), repeat=m)])
    return np.array(list(itertools.product(e, repeat=m))), weights


def log_normal(x, mean, variance):
    """log N(x; mean, variance·1), summed over the last axis."""
    return (-0.5 * (x - mean) ** 2 / variance - 0.5 * np.log(2 * math.pi * variance)).sum(-1)


def log_marginal(x, W, b, variance):
    return scipy.stats.multivariate_normal(b, W @ W.T + variance * np.eye(len(b))).logpdf(x)


@equation("tight-model")
def test_the_marginal_is_gaussian():
    """∫ p(x|h) p(h) dh on a fine grid of h, m = 1, against N(b, WWᵀ + σ²); and the three modules' distributions."""
    model = random_model(n=3, m=1)
    W, b, variance, V, c, s2 = arrays(model)
    h = np.linspace(-12, 12, 4801)[:, None]
    for x in points(3).numpy():
        joint = np.exp(log_normal(h, 0.0, 1.0) + log_normal(x, h @ W.T + b, variance))
        assert_close(math.log(joint.sum() * 0.005), log_marginal(x, W, b, variance))
        q, p = model.encoder(torch.from_numpy(x)[None]), model.decoder(torch.from_numpy(h[:3]))
        assert_close(q.log_prob(torch.from_numpy(h[:3])), log_normal(h[:3], V @ x + c, s2))
        assert_close(p.log_prob(torch.from_numpy(x)), log_normal(x, h[:3] @ W.T + b, variance))


@equation("tight-posterior")
def test_posterior():
    """log p(x,h) − log p(x) by densities over x and h, against the library's posterior, at several h; and μ*."""
    model = random_model()
    W, b, variance, *_ = arrays(model)
    x, h = points(), points(2, 6, seed=4)
    bayes = log_normal(h.numpy(), 0.0, 1.0) + log_normal(x.numpy(), h.numpy() @ W.T + b, variance)
    bayes = bayes - log_marginal(x.numpy(), W, b, variance)
    posterior = model.posterior(x)
    assert_close(posterior.log_prob(h), bayes)
    gram = W.T @ W + variance * np.eye(2)
    assert_close(posterior.mean, np.linalg.solve(gram, W.T @ (x.numpy() - b).T).T)
    assert_close(posterior.covariance_matrix[0], variance * np.linalg.inv(gram))


@equation("tight-log-prob")
def test_log_prob_through_the_small_matrix():
    """The formula and the library against SciPy's density with the n×n covariance."""
    for n, m in ((5, 2), (7, 1), (4, 3)):
        model, x = random_model(n, m), points(n)
        W, b, variance, *_ = arrays(model)
        gram, r = W.T @ W + variance * np.eye(m), x.numpy() - b
        mean = np.linalg.solve(gram, W.T @ r.T).T
        squares = ((r - mean @ W.T) ** 2).sum(1) / variance + (mean**2).sum(1)
        rest = np.linalg.slogdet(gram)[1] + (n - m) * math.log(variance) + n * math.log(2 * math.pi)
        exact = log_marginal(x.numpy(), W, b, variance)
        assert_close(-0.5 * (squares + rest), exact)
        assert_close(model.log_prob(x), exact)


@equation("tight-elbo")
def test_both_terms_without_a_draw():
    """Against Gauss–Hermite sums of log p(x|h) and of log q − log p, which are quadratic in h."""
    model = random_model()
    W, b, variance, V, c, s2 = arrays(model)
    e, w = grid(2)
    bound = model.elbo(points())
    for i, x in enumerate(points().numpy()):
        mean = V @ x + c
        h = mean + np.sqrt(s2) * e
        reconstruction = w @ log_normal(x, h @ W.T + b, variance)
        divergence = w @ (log_normal(h, mean, s2) - log_normal(h, 0.0, 1.0))
        r = x - b - W @ mean
        assert_close(bound.reconstruction[i], reconstruction)
        assert_close(bound.kl[i], divergence)
        blur = (s2 * (W**2).sum(0)).sum()
        assert_close(-(r @ r + blur) / (2 * variance) - 2.5 * math.log(2 * math.pi * variance), reconstruction)
        assert_close(0.5 * (mean**2 + s2 - 1 - np.log(s2)).sum(), divergence)


@equation("tight-gap")
def test_gap():
    """log p(x) by SciPy less the bound by sums over h, against the formula and the library; zero at q = posterior."""
    model = random_model()
    W, b, variance, V, c, s2 = arrays(model)
    e, w = grid(2)
    gram = W.T @ W + variance * np.eye(2)
    for i, x in enumerate(points().numpy()):
        mean = V @ x + c
        h = mean + np.sqrt(s2) * e
        bound = w @ (log_normal(x, h @ W.T + b, variance) + log_normal(h, 0.0, 1.0) - log_normal(h, mean, s2))
        gap = log_marginal(x, W, b, variance) - bound
        d = mean - np.linalg.solve(gram, W.T @ (x - b))
        formula = (d @ gram @ d + np.diag(gram) @ s2) / variance - 2 - np.log(s2).sum()
        assert_close(0.5 * (formula - np.linalg.slogdet(gram / variance)[1]), gap, tol=1e-11)
        assert_close(model.gap(points())[i], gap, tol=1e-11)
    mean, covariance, _ = data()
    tight = LinearGaussianVAE.fitted(moments_of(mean, covariance), 2)
    assert_at_most(0.0, tight.gap(points(6)).min())
    assert_at_most(tight.gap(points(6)).max(), 0.0)


@equation("tight-mean-elbo")
def test_the_loss_through_the_moments():
    """Means over rows, one row at a time, against the traces, and the library's two ways against each other."""
    model, x = random_model(), points(5, 9)
    W, b, _, V, c, _ = arrays(model)
    rows = x.numpy()
    centre, S = rows.mean(0), np.cov(rows.T, bias=True)
    mean = V @ centre + c
    squares = np.mean([np.sum((r - b - W @ (V @ r + c)) ** 2) for r in rows])
    off = centre - b - W @ mean
    assert_close(
        off @ off + np.trace(S) - 2 * np.trace(W @ V @ S) + np.trace(W.T @ W @ V @ S @ V.T), squares, tol=1e-11
    )
    assert_close(mean @ mean + np.trace(V @ S @ V.T), np.mean([np.sum((V @ r + c) ** 2) for r in rows]))
    for weight in (1.0, 0.3):
        assert_close(model.loss(SampleMoments.of(x), weight), model.loss(x, weight), tol=1e-11)


def mean_log_prob(W, variance, S):
    """(1/N) Σ log p(x_i) for b = x̄, from C and S: differentiable."""
    n = len(S)
    C = W @ W.T + variance * torch.eye(n, dtype=f64)
    return -0.5 * (n * math.log(2 * math.pi) + torch.logdet(C) + torch.trace(torch.linalg.solve(C, S)))


@equation("tight-pca")
def test_probabilistic_pca():
    """The formula's value, the library's fit and the plain likelihood; zero slope there, also rotated; no other choice
    of m eigenvectors is better (every stationary point is one such choice)."""
    mean, covariance, axes = data()
    S = torch.from_numpy(covariance)
    for m in (1, 2, 4):
        variance = SPECTRUM[m:].mean()
        value = -0.5 * (6 * math.log(2 * math.pi) + np.log(SPECTRUM[:m]).sum() + (6 - m) * math.log(variance) + 6)
        rotation = np.linalg.qr(np.random.default_rng(m).normal(size=(m, m)))[0]
        W = torch.from_numpy((axes[:, :m] * np.sqrt(SPECTRUM[:m] - variance)) @ rotation).requires_grad_()
        level = torch.tensor(variance, dtype=f64, requires_grad=True)
        likelihood = mean_log_prob(W, level, S)
        assert_close(likelihood, value)
        for slope in torch.autograd.grad(likelihood, (W, level)):
            assert_close(slope, 0.0, tol=1e-11)
        assert_close(
            -LinearGaussianVAE.fitted(moments_of(mean, covariance), m).loss(moments_of(mean, covariance)), value
        )
        others = []
        for kept in itertools.combinations(range(6), m):
            rest = np.delete(SPECTRUM, kept)
            if SPECTRUM[list(kept)].min() >= rest.mean():
                W = torch.from_numpy(axes[:, kept] * np.sqrt(SPECTRUM[list(kept)] - rest.mean()))
                others.append(float(mean_log_prob(W, torch.tensor(rest.mean(), dtype=f64), S)))
        assert_at_most(others, value)


@equation("tight-minus-one")
def test_what_dividing_by_one_less_costs():
    """The fit to κS, asked about S; its leading term by a series, of which the next term is n/(3N³)."""
    mean, covariance, _ = data()
    right = LinearGaussianVAE.fitted(moments_of(mean, covariance), 2)
    for count in (10, 100):
        kappa = count / (count - 1)
        wrong = LinearGaussianVAE.fitted(moments_of(mean, kappa * covariance), 2)
        W, _, variance, *_ = arrays(wrong)
        S = torch.from_numpy(covariance)
        loss = -mean_log_prob(torch.from_numpy(W), torch.tensor(variance), S)
        assert_close(loss - right.loss(moments_of(mean, covariance)), 3 * (math.log(kappa) + 1 / kappa - 1), tol=1e-11)
    for count in (1e3, 1e4):
        exact = 3 * (-math.log1p(-1 / count) - 1 / count)
        assert_close(exact, 6 / (4 * count**2) + 6 / (6 * count**3), tol=1e-11)


def trapezoid_normal(step=0.01, end=12.0):
    e = np.arange(-end, end + step / 2, step)
    return e, np.exp(-(e**2) / 2) * step / math.sqrt(2 * math.pi)


def log_ratio(e, mean, s, centre, tau):
    """log ρ at h = mean + s ε."""
    return -((mean + s * e - centre) ** 2) / (2 * tau**2) - math.log(tau) + e**2 / 2 + math.log(s)


def frullani(mean, s, centre, tau, K):
    e, w = trapezoid_normal()
    u = np.arange(-40, 40, 0.05)
    below_one = np.expm1(-np.exp(u[:, None]) / K * np.exp(log_ratio(e, mean, s, centre, tau))) @ w  # φ − 1
    power = np.expm1(K * np.log1p(np.maximum(below_one, -1 + 1e-16)))
    return (np.expm1(-np.exp(u)) - power).sum() * 0.05


@equation("tight-iwae")
def test_the_bound_of_many_draws():
    """One draw against the closed divergence, two against a two-dimensional sum, three against a three-dimensional
    one, q wider and narrower than the posterior. Both sides are trapezoid sums, hence 1e-9."""
    for mean, s, centre, tau in ((0.3, 1.2, 0.0, 0.8), (0.0, 0.9, 0.2, 1.0)):
        divergence = math.log(tau / s) + (s**2 + (mean - centre) ** 2) / (2 * tau**2) - 0.5
        assert_close(frullani(mean, s, centre, tau, 1), -divergence, tol=1e-9)
        e, w = trapezoid_normal(0.05, 11.0)
        log = log_ratio(e, mean, s, centre, tau)
        pairs = np.logaddexp(log[:, None], log[None])
        assert_close(frullani(mean, s, centre, tau, 2), w @ (pairs - math.log(2)) @ w, tol=1e-9)
        e, w = trapezoid_normal(0.2, 9.0)
        log = log_ratio(e, mean, s, centre, tau)
        triples = np.logaddexp(np.logaddexp(log[:, None, None], log[None, :, None]), log[None, None]) - math.log(3)
        assert_close(frullani(mean, s, centre, tau, 3), np.einsum("i,j,k,ijk", w, w, w, triples), tol=1e-9)


@equation("tight-chi-square")
def test_the_variance_of_the_weights():
    """E[ρ²] as a sum over ε against the closed form; K times the exact gap, extrapolated in 1/K, against χ²/2."""
    for mean, s, centre, tau in ((0.3, 1.2, 0.0, 0.8), (0.0, 1.0, 0.2, 1.1)):
        e, w = trapezoid_normal(0.01, 30.0)
        second = np.exp(2 * log_ratio(e, mean, s, centre, tau)) @ w
        width = 2 * s**2 - tau**2
        assert_close(second, s**2 / (tau * math.sqrt(width)) * math.exp((mean - centre) ** 2 / width), tol=1e-11)
    gaps = [-K * frullani(0.1, 1.05, 0.0, 1.0, K) for K in (64, 128, 256)]  # ρ close to 1: the series settles soon
    width = 2 * 1.05**2 - 1
    chi = 1.05**2 / math.sqrt(width) * math.exp(0.01 / width) - 1
    first = [2 * gaps[1] - gaps[0], 2 * gaps[2] - gaps[1]]
    assert_close((4 * first[1] - first[0]) / 3, chi / 2, tol=1e-8)  # the next order, and rounding times K


class Given(VAE):
    """The linear model with one unit and given noise; each row has its own mean and log s, hence its own gradient."""

    def __init__(self, model, mean, s, noise):
        encoder: Any = torch.nn.Module()
        rows = torch.ones(noise.shape[1], 1, dtype=f64)
        encoder.mean = torch.nn.Parameter(mean * rows)
        encoder.log_s = torch.nn.Parameter(math.log(s) * rows)
        encoder.forward = lambda x: Independent(Normal(encoder.mean, encoder.log_s.exp()), 1)
        super().__init__(encoder, model.decoder, model.prior)
        self.noise = torch.from_numpy(noise)[..., None]

    def draw(self, distribution, count, rng):
        return distribution.mean + distribution.stddev * self.noise

    def slopes(self, bound):
        """The gradient of the sum of the rows' bounds, one column for each row."""
        return torch.stack(torch.autograd.grad(bound, list(self.encoder.parameters())))[..., 0]


def weights_and_slopes(model, x, mean, s, noise):
    """log w, and b and the score for (mean, log s), each written out: arrays of draws by rows."""
    W, b, variance, *_ = arrays(model)
    h = mean + s * noise
    residual = x - h[..., None] * W[:, 0] - b
    log = log_normal(x, h[..., None] * W[:, 0] + b, variance) + log_normal(h[..., None], 0.0, 1.0)
    log = log - log_normal(h[..., None], mean, s**2)
    slope = residual @ W[:, 0] / variance - h + noise / s
    return log, slope * np.stack([np.ones_like(h), s * noise]), np.stack([noise / s, noise**2 - 1])


def shares(log):
    return np.exp(log - np.logaddexp.reduce(log, 0))


GIVEN = ((0.4, 0.5), (-0.3, 0.9))


@equation("tight-iwae-gradient")
def test_the_gradient_of_a_logarithm_of_a_mean():
    """The library's bound, differentiated draw by draw, against the shares and the slopes written out."""
    model, x = random_model(n=3, m=1), points(3)[0].numpy()
    noise = np.random.default_rng(4).normal(size=(4, 7))
    for mean, s in GIVEN:
        log, slope, score = weights_and_slopes(model, x, mean, s, noise)
        given = Given(model, mean, s, noise)
        found = given.slopes(iwae(given, torch.from_numpy(x).expand(7, 3), 4, seeded(0)).sum())
        assert_close(found, (shares(log) * (slope - score)).sum(1), tol=1e-11)


def all_pairs(step=0.1, end=10.0):
    """Every pair of nodes as two draws, and the pair's weight."""
    e, w = trapezoid_normal(step, end)
    first, second = np.meshgrid(e, e)
    return np.stack([first.ravel(), second.ravel()]), np.outer(w, w).ravel()


@equation("tight-score-again")
def test_the_score_reparametrised_again():
    """Both means for two draws, by two-dimensional sums, for the mean and for log s."""
    model, x = random_model(n=3, m=1), points(3)[0].numpy()
    noise, weight = all_pairs()
    for mean, s in GIVEN:
        log, slope, score = weights_and_slopes(model, x, mean, s, noise)
        share = shares(log)
        assert_close((share * score).sum(1) @ weight, ((share - share**2) * slope).sum(1) @ weight, tol=1e-11)


@equation("tight-doubly")
def test_the_doubly_reparametrised_gradient():
    """The library's, draw by draw, against Σ ŵ²b; its mean for two draws against differences of the exact bound."""
    model, x = random_model(n=3, m=1), points(3)[0].numpy()
    some = np.random.default_rng(4).normal(size=(4, 7))
    noise, weight = all_pairs()
    posterior = model.posterior(torch.from_numpy(x)[None])
    centre, tau = posterior.mean.item(), posterior.variance.sqrt().item()
    for mean, s in GIVEN:
        log, slope, _ = weights_and_slopes(model, x, mean, s, some)
        given = Given(model, mean, s, some)
        found = given.slopes(-7 * iwae_loss(given, torch.from_numpy(x).expand(7, 3), 4, seeded(0)))
        assert_close(found, (shares(log) ** 2 * slope).sum(1), tol=1e-11)
        log, slope, _ = weights_and_slopes(model, x, mean, s, noise)
        average = (shares(log) ** 2 * slope).sum(1) @ weight
        d = 1e-3  # fourth-order differences: an error of d⁴ times the fifth derivative, over 30
        by_mean, by_log_s = (
            [frullani(mean + k * d * first, s * math.exp(k * d * (1 - first)), centre, tau, 2) for k in (-2, -1, 1, 2)]
            for first in (1, 0)
        )
        slopes = [(8 * (v[2] - v[1]) - (v[3] - v[0])) / (12 * d) for v in (by_mean, by_log_s)]
        assert_close(average, slopes, tol=1e-8)


def of_one_draw(delta, s, step=0.05):
    """For a posterior N(0, 1) and q = N(δ, s²): weights of the nodes, ρ, a and b for the gradient in δ."""
    e, w = trapezoid_normal(step, 14.0)
    h = delta + s * e
    return w, np.exp(log_ratio(e, delta, s, 0.0, 1.0)), -h, -h + e / s


@functools.cache
def share_moments(delta, s, n, K):
    """Mean and second moment of Σ v/(Σ ρ)ⁿ by the integrals over t, with v = ρa for n = 1 and ρ²b for n = 2."""
    w, rho, a, b = of_one_draw(delta, s)
    u = np.arange(-45, 45, 0.05)
    damped, v = np.exp(-np.exp(u)[:, None] * rho) * w, (rho * a, rho**2 * b)[n - 1]
    psi, first, second = damped.sum(1), damped @ v, damped @ v**2
    mean = K / math.gamma(n) * (0.05 * np.exp(n * u) * first * psi ** (K - 1)).sum()
    both = second * psi ** (K - 1) + (K - 1) * first**2 * psi ** (K - 2)
    return mean, K / math.gamma(2 * n) * (0.05 * np.exp(2 * n * u) * both).sum()


@equation("tight-share-moments")
def test_the_moments_of_a_ratio_of_sums():
    """One-dimensional integrals against sums over all pairs and all triples of nodes."""
    for delta, s in ((0.5, 1.2), (-0.3, 1.0)):
        for K, step in ((2, 0.1), (3, 0.25)):
            w, rho, a, b = of_one_draw(delta, s, step)
            axes = [v.reshape([-1 if k == i else 1 for k in range(K)]) for i in range(K) for v in (rho, rho * a)]
            double = [v.reshape([-1 if k == i else 1 for k in range(K)]) for i in range(K) for v in (rho**2 * b,)]
            weight = math.prod(w.reshape([-1 if k == i else 1 for k in range(K)]) for i in range(K))
            total = sum(axes[::2])
            for n, sums in ((1, sum(axes[1::2])), (2, sum(double))):
                ratio = sums / total**n
                found = [(weight * ratio).sum(), (weight * ratio**2).sum()]
                assert_close(share_moments(delta, s, n, K), found, tol=1e-9)


@equation("tight-signal")
def test_signal_and_noise_for_many_draws():
    """K times the mean and the variance, and K³ times the other variance, extrapolated in 1/K from the exact values;
    1e-8 for the rounding of second moment less squared mean, times K³."""
    counts = (32, 64, 128, 256, 512)
    for delta, s in ((0.1, 1.05), (0.2, 1.1), (0.3, 1.0)):
        w, rho, a, b = of_one_draw(delta, s)
        m = w @ (rho**2 * b)
        spread = rho**2 * b - 2 * m * rho
        ordinary, doubly = ([share_moments(delta, s, n, K) for K in counts] for n in (1, 2))
        rows = [
            [K * mean for K, (mean, _) in zip(counts, ordinary, strict=True)],
            [K * mean for K, (mean, _) in zip(counts, doubly, strict=True)],
            [K * (square - mean**2) for K, (mean, square) in zip(counts, ordinary, strict=True)],
            [K**3 * (square - mean**2) for K, (mean, square) in zip(counts, doubly, strict=True)],
        ]
        wanted = [m, m, w @ (rho * a) ** 2, w @ spread**2 - (w @ spread) ** 2]
        for row, limit in zip(rows, wanted, strict=True):
            for order in range(1, len(counts)):
                row = [(2**order * y - x) / (2**order - 1) for x, y in itertools.pairwise(row)]
            assert_close(row[0], limit, tol=1e-8)


@equation("tight-amortisation")
def test_the_two_gaps():
    """log p less the bound for q, against the divergence of the best diagonal q and the difference of two bounds."""
    model, x = random_model(), points()
    posterior = model.posterior(x)
    precision = posterior.precision_matrix[0].detach().numpy()
    total = model.log_prob(x) - model.elbo(x).value
    star = MultivariateNormal(posterior.mean, torch.diag(torch.from_numpy(1 / np.diag(precision))))
    approximation = kl_divergence(star, posterior)
    shared = model.elbo(x).value
    model.encode_best()
    amortisation = model.elbo(x).value - shared
    assert_close(approximation + amortisation, total, tol=1e-11)
    found = model.encoder(x)
    assert_close(found.mean, star.mean)
    assert_close(found.variance[0], 1 / np.diag(precision))
    turned = random_model(m=1)  # one unit: the family holds the posterior, and both gaps are zero after encode_best
    turned.encode_best()
    assert_at_most(turned.gap(x).max(), 0.0)
    assert (approximation > 0.01).all()
    assert (amortisation > 0.01).all()


@equation("tight-blind")
def test_the_blind_encoder():
    """The formula against the least-squares solution found row by row; zero slope of the exact loss in V_A and c."""
    model, x = random_model(), points(5, 40)
    with torch.no_grad():
        model.encode_best()
    seeing = model.elbo(x).value.mean()
    W, b, variance, V, *_ = arrays(model)
    rows, S = x.numpy(), np.cov(x.numpy().T, bias=True)
    known = [0, 2]
    left = S - S[:, known] @ np.linalg.solve(S[np.ix_(known, known)], S[known])
    precision = (W.T @ W + variance * np.eye(2)) / variance
    formula = 0.5 * np.trace(precision @ V @ left @ V.T)
    design = np.column_stack([rows[:, known], np.ones(len(rows))])
    target = (rows - b) @ V.T
    fit = np.linalg.lstsq(design, target, rcond=None)[0]
    error = target - design @ fit
    assert_close(0.5 * np.mean([d @ precision @ d for d in error]), formula, tol=1e-11)
    affine = net(model).mean
    with torch.no_grad():
        affine.weight.zero_()[:, known] = torch.from_numpy(fit[:2].T.copy())
        affine.bias.copy_(torch.from_numpy(fit[2]))
    assert_close(seeing - model.elbo(x).value.mean(), formula, tol=1e-11)
    slopes = torch.autograd.grad(model.loss(x), (affine.weight, affine.bias, net(model).log_variance))
    assert_close(slopes[0][:, known], 0.0, tol=1e-11)
    assert_close(slopes[1], 0.0, tol=1e-11)
    assert_close(slopes[2], 0.0, tol=1e-11)


@equation("tight-aggregate")
def test_rate_is_information_and_mismatch():
    """Three sums over a table, each written out; and no mismatch for the model's own data and posterior."""
    prior, likelihood = np.array([0.5, 0.3, 0.2]), np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    table = LatentTable(torch.from_numpy(prior), torch.from_numpy(likelihood))
    q = np.array([[0.5, 0.25, 0.25], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    for seen, code in ((np.array([0.2, 0.5, 0.3]), q), (prior @ likelihood, table.posterior().numpy())):
        together = seen @ code
        cells = list(itertools.product(range(3), repeat=2))
        rate = sum(seen[x] * code[x, h] * math.log(code[x, h] / prior[h]) for x, h in cells)
        information = sum(seen[x] * code[x, h] * math.log(code[x, h] / together[h]) for x, h in cells)
        mismatch = sum(together[h] * math.log(together[h] / prior[h]) for h in range(3))
        assert_close(rate, information + mismatch)
        assert_close(seen @ table.elbo(torch.from_numpy(code)).kl.numpy(), rate)
    assert_close(mismatch, 0.0)


@equation("tight-aggregate-gaussian")
def test_the_aggregate_of_a_linear_encoder():
    """h = Vx + c + sε: moments by a Gauss–Hermite sum over x; information from the joint covariance of (x, h); no
    mismatch at the optimum, where the mean divergence is all information."""
    model = random_model(n=3, m=2)
    _, _, _, V, c, s2 = arrays(model)
    mean, S, _ = data(np.array([2.0, 1.0, 0.5]))
    e, w = grid(3, 6)
    h = (mean + e @ np.linalg.cholesky(S).T) @ V.T + c
    centre = w @ h
    together = (w[:, None] * (h - centre)).T @ (h - centre) + np.diag(s2)
    assert_close(centre, V @ mean + c)
    assert_close(together, V @ S @ V.T + np.diag(s2))
    joint = np.block([[S, S @ V.T], [V @ S, together]])
    information = 0.5 * (np.linalg.slogdet(S)[1] + np.linalg.slogdet(together)[1] - np.linalg.slogdet(joint)[1])
    assert_close(0.5 * (np.linalg.slogdet(V @ S @ V.T + np.diag(s2))[1] - np.log(s2).sum()), information)
    mean, S, _ = data()
    best = LinearGaussianVAE.fitted(moments_of(mean, S), 2)
    _, _, _, V, c, s2 = arrays(best)
    assert_close(V @ mean + c, 0.0)
    assert_close(V @ S @ V.T + np.diag(s2), np.eye(2))
    rate = 0.5 * np.mean(np.sum(V @ S @ V.T * np.eye(2), 0) + s2 - 1 - np.log(s2)) * 2
    assert_close(rate, -0.5 * np.log(s2).sum())


def at_level(level, m, sigma2, centre, covariance):
    """The linear autoencoder of the water-filling formulas, and its moments."""
    model = LinearGaussianVAE(len(centre), m, seeded(1), sigma=math.sqrt(sigma2), dtype=f64)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:m].copy(), vectors[:, ::-1][:, :m].copy()
    w = np.sqrt(np.maximum(values - level, 0))
    V = (w / np.maximum(values, level))[:, None] * vectors.T
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(vectors * w))
        model.bias.copy_(torch.from_numpy(centre))
        net(model).mean.weight.copy_(torch.from_numpy(V))
        net(model).mean.bias.copy_(torch.from_numpy(-V @ centre))
        net(model).log_variance.copy_(torch.from_numpy(np.log(np.minimum(1, level / values))))
    return model


@equation("tight-water")
def test_reverse_water_filling():
    """Rate and distortion of the model with these w_j and s_j, by traces, against the sums; the weighted loss is
    stationary there and its value is that of Shannon's function, whose slope dD/dR is −2ϑ."""
    centre, S, _ = data()
    sigma2, m = 0.25, 4
    for level in (0.5, 0.8, 2.0, 6.0):
        model = at_level(level, m, sigma2, centre, S)
        W, _, _, V, _, s2 = arrays(model)
        left = np.eye(6) - W @ V
        rate = 0.5 * (np.diag(V @ S @ V.T) + s2 - 1 - np.log(s2)).sum()
        distortion = np.trace(left @ S @ left.T) + (s2 * (W**2).sum(0)).sum()
        assert_close(rate, 0.5 * np.log(np.maximum(SPECTRUM[:m] / level, 1)).sum())
        assert_close(distortion, np.minimum(SPECTRUM[:m], level).sum() + SPECTRUM[m:].sum())
        loss = model.loss(moments_of(centre, S), kl_weight=level / sigma2)
        assert_close(loss, distortion / (2 * sigma2) + level / sigma2 * rate + 3 * math.log(2 * math.pi * sigma2))
        free = [p for p in model.parameters() if p.ndim]
        for slope in torch.autograd.grad(loss, free):
            assert_close(slope, 0.0, tol=1e-11)

    def curve(level):
        return np.minimum(SPECTRUM, level).sum(), 0.5 * np.log(np.maximum(SPECTRUM / level, 1)).sum()

    for level in (0.5, 2.0):
        (d1, r1), (d0, r0) = curve(level + 3e-5), curve(level - 3e-5)
        assert_close((d1 - d0) / (r1 - r0), -2 * level, tol=1e-8)  # a central difference: error 2·(3e-5/level)²/3


@equation("tight-threshold")
def test_curvature_of_a_collapsed_unit():
    """Second derivatives by automatic differentiation of f, the determinant, and its sign on both sides."""
    for variance, level in ((0.3, 1.0), (2.0, 0.5), (1.5, 1.5)):

        def objective(v, variance=variance, level=level):
            w, e, s = v
            reconstruction = variance * (1 - w * e) ** 2 + w**2 * s**2
            return -reconstruction / (2 * level) - 0.5 * (e**2 * variance + s**2 - 1 - torch.log(s**2))

        at = torch.tensor([0.0, 0.0, 1.0], dtype=f64)
        matrix: Any = torch.autograd.functional.hessian(objective, at)
        ratio = variance / level
        assert_close(matrix[:2, :2], [[-1 / level, ratio], [ratio, -variance]])
        assert_close(torch.linalg.det(matrix[:2, :2]), ratio * (1 - ratio))
        assert_close(torch.autograd.functional.jacobian(objective, at), 0.0)
        top = torch.linalg.eigvalsh(matrix[:2, :2])[-1].item()
        assert (top > 1e-3) == (ratio > 1)


@equation("tight-learned-level")
def test_the_level_that_sets_itself():
    """The slope of the loss in log σ vanishes at σ² = D/n; the fixed point of σ² ← D(σ²)/n is the discarded mean."""
    centre, S, _ = data()
    for sigma2 in (0.3, 1.2):
        model = random_model(6, 2, sigma=math.sqrt(sigma2))
        W, b, _, V, c, s2 = arrays(model)
        left, off = np.eye(6) - W @ V, centre - b - W @ (V @ centre + c)
        distortion = np.trace(left @ S @ left.T) + (s2 * (W**2).sum(0)).sum() + off @ off
        log_sigma = dict(model.named_parameters())["decoder.likelihood.log_sigma"]
        with torch.no_grad():
            log_sigma.fill_(0.5 * math.log(distortion / 6))
        (slope,) = torch.autograd.grad(model.loss(moments_of(centre, S)), log_sigma)
        assert_close(slope, 0.0, tol=1e-11)
    for m in (1, 2, 4):
        level = 1.0
        for _ in range(400):
            level = (np.minimum(SPECTRUM[:m], level).sum() + SPECTRUM[m:].sum()) / 6
        assert_close(level, SPECTRUM[m:].mean())
        assert_close(LinearGaussianVAE.fitted(moments_of(centre, S), m).variance, level)
    flat = np.array([3.0, 1.0, 1.0, 1.0])  # equal from λ_m on: the bound ϑ ≤ λ_m is an equality
    assert_at_most(flat[2:].mean(), flat[1])


@equation("tight-weights")
def test_the_weight_that_a_loss_uses():
    """The scaled loss is stationary at the level ρσ²/κ and nowhere else near; the units that are on are counted."""
    centre, S, _ = data()
    sigma2 = 0.25
    for rho, kappa in ((1, 1), (6, 1), (1, 4), (6, 4), (0.25, 1)):
        level = rho / kappa * sigma2
        model = at_level(level, 4, sigma2, centre, S)
        bound = model.elbo(points(6))
        scaled = -bound.reconstruction / rho + bound.kl / kappa
        assert_close(scaled, (-bound.reconstruction + rho / kappa * bound.kl) / rho)
        mean = -model.loss(moments_of(centre, S), 0.0)
        divergence = model.loss(moments_of(centre, S), 1.0) + mean
        loss = -mean / rho + divergence / kappa
        for slope in torch.autograd.grad(loss, [p for p in model.parameters() if p.ndim]):
            assert_close(slope, 0.0, tol=1e-11)
        on = (model.weight.square().sum(0) > 0).sum()
        assert_close(float(on), float((SPECTRUM[:4] > level).sum()))


@equation("tight-draws")
def test_where_the_one_over_m_stands():
    """Two draws, all pairs of Gauss–Hermite nodes: outside the logarithm, inside it, and left out."""
    model = random_model(n=3, m=1)
    W, b, variance, V, c, s2 = arrays(model)
    x = points(3)[0].numpy()
    e, w = trapezoid_normal(0.05, 10.0)
    mean, s = (V @ x + c)[0], math.sqrt(s2[0])
    h = (mean + s * e)[:, None]
    likelihood = log_normal(x, h @ W.T + b, variance)
    log = likelihood + log_normal(h, 0.0, 1.0) - log_normal(h, mean, s2)
    pairs = w[:, None] * w[None]
    bound = model.elbo(torch.from_numpy(x)[None])
    assert_close((pairs * (log[:, None] + log[None]) / 2).sum(), bound.value[0], tol=1e-11)
    posterior = model.posterior(torch.from_numpy(x)[None])
    centre, tau = posterior.mean.item(), posterior.variance.sqrt().item()
    two = (pairs * (np.logaddexp(log[:, None], log[None]) - math.log(2))).sum()
    assert_close(two, model.log_prob(torch.from_numpy(x)[None]).item() + frullani(mean, s, centre, tau, 2), tol=1e-9)
    model.encode_best()
    same = model.elbo(torch.from_numpy(x)[None]).value[0]  # at the posterior one draw is worth as much as two
    assert_at_most(same, model.log_prob(torch.from_numpy(x)[None])[0])
    left_out = (pairs * (likelihood[:, None] + likelihood[None])).sum() - bound.kl.item()
    assert_close(left_out, 2 * (bound.reconstruction - bound.kl / 2).item(), tol=1e-11)


# --- the solutions ---------------------------------------------------------------------------------------------------


@equation("tight-units-by-hand")
def test_solution_of_the_units():
    centre, S, _ = data()
    model = at_level(1.0, 5, 0.5, centre, S)
    weighted, plain = (model.loss(moments_of(centre, S), weight) for weight in (2.0, 1.0))
    assert_close(weighted - plain, 0.5 * math.log(15), tol=1e-11)
    assert_close(0.5 * math.log(5) + 0.5 * math.log(3), 0.5 * math.log(15))
    assert_close(round(0.5 * math.log(15), 4), 1.3540)


@equation("tight-noise-by-hand")
def test_solution_of_the_noise():
    centre, S, _ = data()
    assert_close(LinearGaussianVAE.fitted(moments_of(centre, S), 2).variance, 0.525)
    assert_close((1 + 0.6 + 0.4 + 0.1) / 4, 0.525)
    assert_close((2 * 0.525 + 2.1) / 6, 0.525)


@equation("tight-draws-by-hand")
def test_solution_of_the_draws():
    e, w = trapezoid_normal()
    chi = np.exp(2 * log_ratio(e, 0.0, math.sqrt(2), 0.0, 1.0)) @ w - 1
    assert_close(chi, 2 / math.sqrt(3) - 1)
    assert_close([round(float(chi), 4), round(float(chi) / 2e-3, 2)], [0.1547, 77.35])
    assert_close(-frullani(0.0, math.sqrt(2), 0.0, 1.0, 1), 0.5 * (1 - math.log(2)), tol=1e-9)
    assert_close(round(0.5 * (1 - math.log(2)), 4), 0.1534)


@equation("tight-signal-by-hand")
def test_solution_of_the_signal():
    """The closed forms for equal widths against sums over ε, and the two numbers."""
    for delta in (0.4, 1.0):
        w, rho, a, b = of_one_draw(delta, 1.0)
        m = w @ (rho**2 * b)
        spread = rho**2 * b - 2 * m * rho
        noise = w @ spread**2 - (w @ spread) ** 2
        square = delta**2
        assert_close(m, -delta * math.exp(square))
        assert_close(w @ (rho * a) ** 2, (1 + square) * math.exp(square), tol=1e-11)
        powers = math.exp(6 * square) - 4 * math.exp(4 * square) + 4 * math.exp(3 * square) - math.exp(2 * square)
        assert_close(noise, square * powers, tol=1e-11)
    assert_close(abs(m) / math.sqrt(w @ (rho * a) ** 2 * 50 * math.e), 0.1)
    assert_close([round(noise, 1), round(50 * math.e, 1)], [258.0, 135.9])
    assert_close(round(abs(m) * math.sqrt(50 * math.e / noise), 2), 1.97)


@equation("tight-blind-by-hand")
def test_solution_of_the_blind_encoder():
    """The exact loss, minimised over the slope of μ = a x₁ on its parabola, less the loss of the seeing encoder."""
    model = LinearGaussianVAE(2, 1, seeded(1), dtype=f64)
    moments = moments_of(np.zeros(2), np.array([[2.0, 1.0], [1.0, 2.0]]))
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.zero_()
        model.encode_best()
        seeing = float(model.loss(moments))
        at = []
        for a in (0.0, 0.5, 1.0):
            net(model).mean.weight.copy_(torch.tensor([[a, 0.0]]))
            at.append(float(model.loss(moments)))
    second = at[0] - 2 * at[1] + at[2]
    assert_close(at[0], at[2])  # the vertex lies at a = ½
    assert_close(second, 4 * (at[0] - at[1]) / 2)
    assert_close(at[1] - seeing, 0.25)
    assert_close(0.5 * 3 * (1 / 9) * 1.5, 0.25)


@equation("tight-loss-by-hand")
def test_solution_of_the_loss():
    """A loss written as the program writes it, against 1/16 of the loss with weight 16, for one x."""
    model = random_model(n=64, m=2)
    bound = model.elbo(points(64))
    program = 4 * (-bound.reconstruction / 64) + bound.kl
    assert_close(program, (-bound.reconstruction + 16 * bound.kl) / 16)
    assert_close(64 / 4, 16.0)
