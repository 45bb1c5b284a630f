"""The equations of the page on training, in float64 and without sampling error.

Flows are solved by SciPy's Runge–Kutta of order 8 with exact denoisers written out anew; guided densities are
differentiated by autograd from formulas on this page; expectations over Gaussians are Gauss–Hermite sums.
"""

import itertools
import math

import numpy as np
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import scipy.special
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    NOISE,
    Denoiser,
    EmpiricalDenoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Guided,
    VariancePreserving,
    ddim,
    preconditioned,
    sample,
)
from lecturecode.distance import frechet, frechet_gaussian
from lecturecode.nn import ConditionalMLP, ladder, sinusoids
from lecturecode.training import Ema

f64 = torch.float64


def hermite(dimensions, nodes=8):
    """Points and weights of E[f(ε)] for ε ~ N(0, I)."""
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.array(list(itertools.product(e, repeat=dimensions)))
    return points, np.array([math.prod(v) for v in itertools.product(w / w.sum(), repeat=dimensions)])


def vp(t):
    """α and σ of the rate 0.1 + 19.9 t."""
    lost = 0.1 * t + 9.95 * t**2
    return math.exp(-lost / 2), math.sqrt(-math.expm1(-lost))


@equation("dtrain-loss")
def test_the_loss_row_by_row():
    """The package's loss against plain sums over the same draws: first the times, then the noise."""
    net = ConditionalMLP(3, 6, seeded(1), dtype=f64)
    torch.nn.init.uniform_(net.last.weight, -1, 1, generator=seeded(2))
    x0 = torch.randn(5, 3, generator=seeded(3), dtype=f64)

    def times(schedule, count, rng, like):
        return 1 - torch.rand(count, generator=rng, dtype=f64)

    model, rng, total = Denoiser(net, VariancePreserving(), NOISE, times=times), seeded(4), 0.0
    t, eps = 1 - torch.rand(5, generator=rng, dtype=f64), torch.randn(5, 3, generator=rng, dtype=f64)
    for k in range(5):
        alpha, sigma = vp(float(t[k]))
        level = torch.tensor([math.log(alpha**2 / sigma**2)], dtype=f64)
        answer = net((alpha * x0[k] + sigma * eps[k])[None], level)[0]
        total += float(((eps[k] - answer) ** 2).sum().detach()) / 3
    assert_close(model.loss(x0, seeded(4)), total / 5)


class Bent:
    """Any smooth function of x_t and t, as a denoiser."""

    schedule = VariancePreserving()

    def __call__(self, xt, t):
        return torch.tanh(1.3 * xt) + 0.2 * float(t)


@equation("dtrain-step")
def test_one_step():
    """The executor's single step against ε̂ written out; it keeps x_0 and ε where the guess is right."""
    x = torch.randn(6, 2, generator=seeded(1), dtype=f64)
    for t, r in ((1.0, 0.4), (0.4, 0.39), (0.7, 0.0)):
        (alpha_t, sigma_t), (alpha_r, sigma_r) = vp(t), vp(r)
        eps = (x - alpha_t * Bent()(x, t)) / sigma_t
        expected = alpha_r * (x - sigma_t * eps) / alpha_t + sigma_r * eps
        assert_close(sample(Bent(), ddim, x, [t, r]), expected)
    point = GaussianDenoiser(torch.tensor([0.3, -2.0], dtype=f64), 0.0, VariancePreserving())
    eps = torch.randn(6, 2, generator=seeded(2), dtype=f64)
    (alpha_t, sigma_t), (alpha_r, sigma_r) = vp(0.9), vp(0.2)
    moved = sample(point, ddim, alpha_t * point.mean + sigma_t * eps, [0.9, 0.2])
    assert_close(moved, alpha_r * point.mean + sigma_r * eps)


@equation("dtrain-embedding")
def test_the_features_one_by_one():
    level = [-20.0, -3.3, 0.0, 7.1, 20.0]
    first, last, count = 2 * math.pi / 80, 2 * math.pi / 2, 5
    omega = [first * (last / first) ** (k / (count - 1)) for k in range(count)]
    rows = [[math.sin(w * v) for w in omega] + [math.cos(w * v) for w in omega] for v in level]
    assert_close(sinusoids(torch.tensor(level, dtype=f64), ladder(count)), rows)


def chebyshev(f, k, t):
    """The polynomial of degree below k through f at the Chebyshev points of [0, 1], at t, by Lagrange's formula."""
    nodes = 0.5 * (1 + np.cos((2 * np.arange(1, k + 1) - 1) / (2 * k) * math.pi))
    value = np.zeros_like(t)
    for j in range(k):
        value += f(nodes[j]) * math.prod([(t - nodes[i]) / (nodes[j] - nodes[i]) for i in range(k) if i != j])
    return value


@equation("dtrain-chebyshev")
def test_the_error_of_interpolation():
    """For t^k the bound is attained; sines and cosines stay below it."""
    t = np.linspace(0, 1, 2001)
    for k in range(1, 7):
        bound = 2 / (4**k * math.factorial(k))
        errors = [np.abs(t**k - chebyshev(lambda u, k=k: u**k, k, t)).max() / math.factorial(k)]
        for omega in (1.0, 0.5, 0.01):
            for f in (np.sin, np.cos):
                off = f(omega * t) - chebyshev(lambda u, f=f, w=omega: f(w * u), k, t)
                errors.append(np.abs(off).max() / omega**k if omega > 0.1 else np.abs(off).max())
        assert_at_most(errors, bound)


@equation("dtrain-rank")
def test_the_singular_values_of_the_usual_ladder():
    """The parts of the bound as equalities, and the bound for ladders of 8 and 64 frequencies."""
    t = np.linspace(0, 1, 301)
    for count in (8, 64):
        omega = 1e4 ** (-np.arange(count) / count)
        table = np.concatenate([np.sin(np.outer(t, omega)), np.cos(np.outer(t, omega))], 1)
        norm = np.linalg.norm(table)
        assert_close(norm**2, len(t) * count)
        values = np.linalg.svd(table, compute_uv=False)
        for k in range(1, 7):
            entry = 2 / (4**k * math.factorial(k))
            bound = 2 * math.sqrt(2) / (4**k * math.factorial(k)) * norm
            assert_close(entry * math.sqrt(2 * count * len(t)), bound)
            low = np.stack([chebyshev(f, k, t) for f in columns(omega)], 1)
            assert np.linalg.matrix_rank(low, tol=1e-9) <= k
            assert np.abs(table - low).max() <= entry
            assert values[k] <= np.linalg.norm(table - low) + 1e-12 <= bound + 1e-12


def columns(omega):
    return [lambda u, w=w: np.sin(w * u) for w in omega] + [lambda u, w=w: np.cos(w * u) for w in omega]


@equation("dtrain-precondition")
def test_the_straight_line_through_x_t():
    """E(x_0 − c x_t)² over a table of data and a Gauss–Hermite sum of noise, at c and beside it; and the package's."""
    data, e_w = np.array([-0.9, -0.2, 0.3, 0.8]), hermite(1)
    s0 = math.sqrt((data**2).mean())
    assert_close(data.mean(), 0.0)
    for alpha, sigma in ((1.0, 0.2), (0.6, 0.8), (0.05, 1.3)):
        xt = alpha * data[:, None] + sigma * e_w[0][:, 0]

        def error(c, xt=xt):
            return float((((data[:, None] - c * xt) ** 2) @ e_w[1]).mean())

        total = alpha**2 * s0**2 + sigma**2
        c, least = alpha * s0**2 / total, s0**2 * sigma**2 / total
        assert_close(error(c), least)
        assert_close((error(c + 0.1) + error(c - 0.1)) / 2 - error(c), 0.01 * total)
        assert_close(error(c + 0.1), error(c - 0.1))
        asked, levels = preconditioned(s0), (torch.tensor(alpha, dtype=f64), torch.tensor(sigma, dtype=f64))
        one = torch.ones((), dtype=f64)
        assert_close(asked.clean(0 * one, one, *levels), c)
        assert_close(asked.clean(one, 0 * one, *levels), math.sqrt(least))
        assert_close(asked.scale(*levels), 1 / math.sqrt(total))


@equation("dtrain-ema")
def test_the_average_is_the_weighted_sum():
    layer, path = torch.nn.Linear(3, 1, dtype=f64), torch.randn(12, 3, generator=seeded(1), dtype=f64)
    for d in (0.0, 0.5, 0.97):
        ema = Ema(layer, d)
        for k in range(1, 13):
            with torch.no_grad():
                layer.weight.copy_(path[k - 1][None])
            ema.update()
            weights = [(1 - d) * d ** (k - j) / (1 - d**k) for j in range(1, k + 1)]
            assert_close(sum(weights), 1.0)
            with ema.weights():
                assert_close(layer.weight[0], sum(w * path[j] for j, w in enumerate(weights)))


@equation("dtrain-ema-variance")
def test_the_variance_of_an_average():
    """The double sum to its end, and the stationary covariance of (θ, θ̄) by Lyapunov's equation."""
    for d, a in ((0.9, 0.8), (0.97, 0.5), (0.95, 0.0), (0.5, -0.3)):
        closed = (1 - d) / (1 + d) * (1 + a * d) / (1 - a * d)
        i = np.arange(1500)
        powers = scipy.linalg.toeplitz(a ** i.astype(float))
        assert_close((1 - d) ** 2 * (d**i @ powers @ d**i), closed)
        step = np.array([[a, 0.0], [(1 - d) * a, d]])
        push = np.array([[1.0], [1 - d]])
        covariance = scipy.linalg.solve_discrete_lyapunov(step, push @ push.T)
        assert_close(covariance[1, 1] / covariance[0, 0], closed)
        assert_close(covariance[0, 0], 1 / (1 - a**2))


def root_of(matrix) -> np.ndarray:
    return np.real(np.asarray(scipy.linalg.sqrtm(matrix)))


@equation("dtrain-frechet")
def test_the_distance_by_the_root_of_the_product():
    """SciPy's root of C_1 C_2; the coupling w = Au with A = C_1^{-½} (C_1^½ C_2 C_1^½)^½ C_1^{-½} has this cost."""
    rng = np.random.default_rng(1)
    for d in (2, 5):
        m1, m2 = rng.normal(size=(2, d))
        c1, c2 = (half @ half.T + 0.1 * np.eye(d) for half in rng.normal(size=(2, d, d)))
        expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root_of(c1 @ c2))
        found = frechet_gaussian(*(torch.from_numpy(part) for part in (m1, c1, m2, c2)))
        assert_close(found, expected, tol=1e-11)
        root = root_of(c1)
        carry = np.linalg.solve(root, root_of(root @ c2 @ root)) @ np.linalg.inv(root)
        assert_close(carry @ c1 @ carry.T, c2, tol=1e-11)
        off = np.eye(d) - carry
        assert_close(((m1 - m2) ** 2).sum() + np.trace(off @ c1 @ off.T), expected, tol=1e-11)
        points = rng.normal(size=(7, d)), rng.normal(size=(9, d))
        (n1, s1), (n2, s2) = ((p.mean(0), np.cov(p.T)) for p in points)
        direct = ((n1 - n2) ** 2).sum() + np.trace(s1 + s2) - 2 * np.trace(root_of(s1 @ s2))
        assert_close(frechet(*(torch.from_numpy(p) for p in points)), direct, tol=1e-11)


@equation("dtrain-floor")
def test_the_parts_of_the_floor():
    """The second order of the distance by extrapolation; the variances that enter it by Gauss–Hermite sums."""
    rng, d = np.random.default_rng(2), 3
    e1, e2 = ((a + a.T) / 2 for a in rng.normal(size=(2, d, d)))
    zero, eye = torch.zeros(d, dtype=f64), np.eye(d)

    def curvature(h):
        def f(h):
            return float(frechet_gaussian(zero, torch.from_numpy(eye + h * e1), zero, torch.from_numpy(eye + h * e2)))

        return (f(h) + f(-h)) / (2 * h**2)

    # odd orders cancel, h⁴ by the extrapolation; the rest is of order h⁴ = 1e-9, and rounding 1e-16/h²
    second = (4 * curvature(0.003) - curvature(0.006)) / 3
    assert_close(second, np.trace((e1 - e2) @ (e1 - e2)) / 4, tol=1e-8)
    points, weights = hermite(4, 4)
    for n, z in ((2, points[:, None, :2]), (3, points.reshape(-1, 2, 2))):  # n − 1 independent vectors in D = 2
        scatter = np.einsum("gki,gkj->gij", z, z) / (n - 1) - np.eye(2)
        assert_close(np.einsum("g,gij->ij", weights, scatter**2), (1 + np.eye(2)) / (n - 1))
        assert_close(weights @ (scatter**2).sum((1, 2)), 2 * 3 / (n - 1))
    means = points[:, :3].mean(1) - points[:, 3]  # n_1 = 3 and n_2 = 1, D = 1
    assert_close(weights @ means**2, 1 / 3 + 1)
    for d, n1, n2 in ((10, 1200, 297), (128, 1200, 300)):
        exact_parts = d * (1 / n1 + 1 / n2) + d * (d + 1) / 4 * (1 / (n1 - 1) + 1 / (n2 - 1))
        leading = (d + d * (d + 1) / 4) * (1 / n1 + 1 / n2)
        assert abs(exact_parts / leading - 1) < 1 / min(n1, n2)


@equation("dtrain-empirical")
def test_the_exact_minimiser_for_a_data_set():
    """Sums in NumPy; and the mean that belongs to the score of the mixture of N Gaussians, by autograd."""
    data, x = (torch.randn(n, 3, generator=seeded(n), dtype=f64) for n in (7, 5))
    denoiser = EmpiricalDenoiser(data, VariancePreserving())
    for t in (0.05, 0.3, 0.9):
        alpha, sigma = vp(t)
        squares = ((x.numpy()[:, None] - alpha * data.numpy()) ** 2).sum(-1)
        weights = scipy.special.softmax(-squares / (2 * sigma**2), axis=1)
        expected = weights @ data.numpy()
        assert_close(denoiser(x, t), expected, tol=1e-11)
        y = x.clone().requires_grad_()
        log = torch.logsumexp(-((y[:, None] - alpha * data) ** 2).sum(-1) / (2 * sigma**2), 1)
        (score,) = torch.autograd.grad(log.sum(), y)
        assert_close((y.detach() + sigma**2 * score) / alpha, expected, tol=1e-10)


WEIGHTS, MEANS, SPREAD = (0.3, 0.5, 0.2), ((-1.0, 0.5), (1.0, 0.0), (0.2, -1.5)), 0.4


def log_density(x, alpha, variance, classes=(0, 1, 2)):
    """log p_t(x | k ∈ classes) of the three Gaussians, written out."""
    total = sum(WEIGHTS[k] for k in classes)
    logs = []
    for k in classes:
        spread = alpha**2 * SPREAD + variance
        square = ((x - alpha * torch.tensor(MEANS[k], dtype=f64)) ** 2).sum(-1)
        logs.append(math.log(WEIGHTS[k] / total) - square / (2 * spread) - torch.log(2 * math.pi * spread))
    return torch.logsumexp(torch.stack(logs), 0)


@equation("dtrain-guided-score")
def test_the_guided_score_at_each_level():
    """Autograd of log p_t(x) + s log p_t(c|x) against (α x̂_0 − x)/σ² of the package's guided denoiser."""
    both = GaussianMixtureDenoiser(
        torch.tensor(WEIGHTS, dtype=f64), torch.tensor(MEANS, dtype=f64), SPREAD, VariancePreserving()
    )
    x = torch.randn(6, 2, generator=seeded(1), dtype=f64).requires_grad_()
    for t, s in ((0.1, 3.0), (0.4, 0.5), (0.8, -1.0)):
        alpha, sigma = vp(t)
        variance = torch.tensor(sigma**2, dtype=f64)
        marginal, given = log_density(x, alpha, variance), log_density(x, alpha, variance, (1, 2))
        label = given + math.log(WEIGHTS[1] + WEIGHTS[2]) - marginal  # log p_t(c|x) by Bayes
        (expected,) = torch.autograd.grad((marginal + s * label).sum(), x)
        guided = Guided(both.given([1, 2]), both, s)
        assert_close((alpha * guided(x.detach(), t) - x.detach()) / sigma**2, expected)


@equation("dtrain-guided-defect")
def test_the_tilted_densities_do_not_diffuse():
    """∂f/∂σ² − ½Δf by autograd, in the plane, with α = 1; and both ingredients do diffuse."""
    x = torch.randn(5, 2, generator=seeded(2), dtype=f64)
    for variance, s in ((0.2, 3.0), (1.4, 1.5), (0.6, 0.5), (0.4, 1.0), (0.4, 0.0)):
        y, clock = x.clone().requires_grad_(), torch.full((5,), variance, dtype=f64).requires_grad_()
        marginal, given = log_density(y, 1.0, clock), log_density(y, 1.0, clock, (1,))
        f = torch.exp((1 - s) * marginal + s * given)
        (slope,) = torch.autograd.grad((given - marginal).sum(), y, create_graph=True)
        expected = s * (1 - s) / 2 * (slope**2).sum(-1) * f
        assert_close(defect(f, y, clock), expected.detach())
        assert_close(defect(given.exp(), y, clock), torch.zeros(5))


def defect(f, y, clock):
    """∂f/∂σ² − ½Δf, one number a row."""
    (rate,) = torch.autograd.grad(f.sum(), clock, create_graph=True)
    (slope,) = torch.autograd.grad(f.sum(), y, create_graph=True)
    laplacian = sum(torch.autograd.grad(slope[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(2))
    return (rate - laplacian / 2).detach()


def flow(denoise, starts, first, last):
    """Ends of dx/dlog σ = x − x̂_0(x, σ) by DOP853, one path for each start."""
    found = scipy.integrate.solve_ivp(
        lambda u, x: x - denoise(x, math.exp(u)),
        (math.log(first), math.log(last)),
        np.asarray(starts, dtype=float),
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
    )
    return found.y[:, -1]


def gaussian_label(v, s, mean):
    """x̂_0 of the guided denoiser for x ~ N(0, 1) and x|c ~ N(mean, v), written out."""
    return lambda x, sigma: (1 - s) * x / (1 + sigma**2) + s * (mean + v / (v + sigma**2) * (x - mean))


@equation("dtrain-guided-gaussian")
def test_variances_of_sampler_and_tilted_density():
    """The flow solved numerically from σ = 1e6, where the noise end is exact to 1e-12; curvature of log q."""
    schedule, first = EDM(1e6), 1e6
    for v, s, mean in ((0.5, 3.0, 0.8), (0.2, 1.7, -0.3), (0.7, 0.4, 0.5)):
        given = GaussianDenoiser(torch.tensor([mean], dtype=f64), v, schedule)
        guided = Guided(given, GaussianDenoiser(torch.zeros(1, dtype=f64), 1.0, schedule), s)
        ours = gaussian_label(v, s, mean)
        x = torch.linspace(-2, 2, 5, dtype=f64)[:, None]
        assert_close(guided(x, 0.7), ours(x, 0.7))
        for sigma in (3.0, 0.5, 1e-5):
            low, high = flow(ours, [-first, first], first, sigma)
            sampled = ((high - low) / 2) ** 2
            assert_close(sampled, (1 + sigma**2) ** (1 - s) * (v + sigma**2) ** s, tol=1e-9, relative=True)
            y = torch.zeros(1, dtype=f64, requires_grad=True)
            log = -(1 - s) * y**2 / (2 * (1 + sigma**2)) - s * (y - mean) ** 2 / (2 * (v + sigma**2))
            (slope,) = torch.autograd.grad(log, y, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, y)
            tilted = 1 / ((1 - s) / (1 + sigma**2) + s / (v + sigma**2))
            assert_close(tilted, -1 / curvature)
            assert sampled < tilted if s > 1 else sampled > tilted
    assert_close([0.5**3, 1 / (-2 + 3 / 0.5)], [1 / 8, 1 / 4])


@equation("dtrain-guided-mean")
def test_where_the_guided_sampler_ends():
    """The path that starts in the middle of the noise, from σ = 1e10, against the integral by quadrature."""
    for v, s in ((0.5, 3.0), (0.2, 1.7), (0.7, 0.4), (0.3, 1.0)):
        middle = flow(gaussian_label(v, s, 1.0), [0.0], 1e10, 1e-6)[0]
        integral, _ = scipy.integrate.quad(
            lambda u, v=v, s=s: math.exp(u) * (v + math.exp(u)) ** (-1 - s / 2) * (1 + math.exp(u)) ** ((s - 1) / 2),
            -45, 90, epsabs=1e-13, epsrel=1e-12, limit=400,
        )  # fmt: skip
        found = v ** (s / 2) * s / 2 * integral
        assert_close(found, middle, tol=1e-8)
        if s in (1.0, 3.0):
            assert_close(found, {1.0: 1.0, 3.0: 1 + 2 * v}[s], tol=1e-10)
    for v, s in ((0.5, 3.0), (0.2, 1.7)):  # the tilted density's mean: where (1−s) x + s (x − 1)/v = 0
        peak = s / (s + (1 - s) * v)
        assert_close((1 - s) * peak + s * (peak - 1) / v, 0.0)


def pair(x, sigma, s):
    """x̂_0 and dx̂_0/dx of the guided pair: N(∓1, ½) with equal weights, class 1; by Bayes and Var[x_0|x]/σ²."""
    spread = 0.5 + sigma**2
    means = [m + 0.5 / spread * (x - m) for m in (-1.0, 1.0)]
    share = 1 / (1 + np.exp(-2 * x / spread))
    within = 0.5 * sigma**2 / spread
    both = (1 - share) * means[0] + share * means[1]
    variance = within + share * (1 - share) * (means[1] - means[0]) ** 2
    return (1 - s) * both + s * means[1], ((1 - s) * variance + s * within) / sigma**2


@equation("dtrain-guided-quantile")
def test_quantiles_are_kept_and_give_the_density():
    """Density along the path by its own equation, dlog p/dlog σ = −(1 − dx̂_0/dx); its integral is Φ."""
    s, first, z = 3.0, 50.0, np.linspace(-6, 6, 601)
    scale = math.sqrt(1 + first**2)
    mixture = GaussianMixtureDenoiser(
        torch.tensor([0.5, 0.5], dtype=f64), torch.tensor([[-1.0], [1.0]], dtype=f64), 0.5, EDM(first)
    )
    x = torch.linspace(-3, 3, 7, dtype=f64)[:, None]
    assert_close(Guided(mixture.given(1), mixture, s)(x, 0.6)[:, 0], pair(x[:, 0].numpy(), 0.6, s)[0])

    def rates(u, state):
        x, _ = np.split(state, 2)
        answer, slope = pair(x, math.exp(u), s)
        return np.concatenate([x - answer, slope - 1])

    phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    start = np.concatenate([scale * z, np.log(phi / scale)])
    span = (math.log(first), math.log(1e-4))
    found = scipy.integrate.solve_ivp(rates, span, start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    ends, density = found[:601], np.exp(found[601:])
    assert (np.diff(ends) > 0).all()
    slope = scipy.interpolate.make_interp_spline(z, ends, k=7).derivative()(z)
    middle = slice(60, 541)  # a spline's ends are less sharp
    assert_close(phi[middle] / slope[middle], density[middle], tol=1e-8)
    below = scipy.interpolate.make_interp_spline(ends, density, k=5).antiderivative()
    share = scipy.special.ndtr(z) - scipy.special.ndtr(-6)
    assert_close(below(ends) - below(ends[0]), share, tol=1e-8)


@equation("dtrain-overshoot-by-hand")
def test_solution_of_the_overshoot():
    """The integral at s = 5 by quadrature, its three powers, and the polynomial."""
    for v in (0.5, 0.2, 0.9):
        integral, _ = scipy.integrate.quad(lambda w, v=v: (v + w) ** -3.5 * (1 + w) ** 2, 0, math.inf, epsrel=1e-12)
        d = 1 - v
        powers = 2 * v**-0.5 + 4 / 3 * d * v**-1.5 + 2 / 5 * d**2 * v**-2.5
        assert_close(2.5 * v**2.5 * powers, 2.5 * v**2.5 * integral, tol=1e-10)
        assert_close(5 * v**2 + 10 / 3 * v * d + d**2, 2.5 * v**2.5 * powers)
