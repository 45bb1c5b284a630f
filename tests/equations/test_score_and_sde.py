"""The equations of the page on the score, in float64 and without sampling error.

The mixtures are written out anew and differentiated by autograd; expectations are sums over fine grids, which converge
faster than any power for smooth densities, Gauss–Hermite sums, or finite sums; flows are solved by SciPy.
"""

import math

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
import sympy
import torch
from harness import assert_at_most, assert_close, assert_zero, equation

from lecturecode.diffusion import GaussianMixtureDenoiser, VariancePreserving, follow, log_likelihood

f64 = torch.float64
W, M, V = (torch.tensor(v, dtype=f64) for v in ([0.3, 0.7], [-2.0, 1.5], [0.16, 0.25]))
M2 = torch.tensor([[-1.0, 0.5], [1.2, 0.3]], dtype=f64)
C2 = torch.tensor([[[0.4, 0.1], [0.1, 0.3]], [[0.2, -0.1], [-0.1, 0.5]]], dtype=f64)
LIBRARY = GaussianMixtureDenoiser(W, M[:, None], V, VariancePreserving())
DX = 0.02
LINE = DX * torch.arange(-700, 701, dtype=f64)


def number(x):
    return torch.as_tensor(x, dtype=f64)


def beta(t):
    return 0.1 + 19.9 * t


def levels(t):
    kept = torch.exp(-(0.1 * number(t) + 9.95 * number(t) ** 2))
    return kept.sqrt(), (1 - kept).sqrt()


def log_normal(x, mean, var):
    return -((x - mean) ** 2) / (2 * var) - (2 * math.pi * number(var)).log() / 2


def log_p(x, t, weights=W):
    """The mixture on the line; x and t broadcast."""
    alpha, sigma = (v[..., None] for v in levels(t))
    return (weights.log() + log_normal(x[..., None], alpha * M, alpha**2 * V + sigma**2)).logsumexp(-1)


def log_p2(x, t):
    """The mixture in the plane, x (..., 2)."""
    alpha, sigma = levels(t)
    alpha = alpha[..., None, None]
    cov = alpha[..., None] ** 2 * C2 + sigma[..., None, None, None] ** 2 * torch.eye(2, dtype=f64)
    off = x[..., None, :] - alpha * M2
    square = (off * torch.linalg.solve(cov, off)).sum(-1)
    return (W.log() - square / 2 - torch.logdet(cov) / 2 - math.log(2 * math.pi)).logsumexp(-1)


def slope(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def leaves(*values):
    return [number(v).clone().requires_grad_() for v in values]


def plane(count=5):
    x, y, t = torch.meshgrid(
        *(torch.linspace(a, b, count, dtype=f64) for a, b in ((-2, 2), (-1, 2), (0.05, 0.6))), indexing="ij"
    )
    return leaves(torch.stack([x, y], -1), t)


def divergence(field, x):
    return slope(field[..., 0], x)[..., 0] + slope(field[..., 1], x)[..., 1]


def points_and_times():
    x, t = torch.meshgrid(torch.linspace(-4, 4, 17, dtype=f64), torch.linspace(0.05, 1, 7, dtype=f64), indexing="ij")
    return leaves(x, t)


def score_on(x, t, weights=W):
    """∂ log p_t(x) for plain tensors, by hand."""
    alpha, sigma = (v[..., None] for v in levels(t))
    var = alpha**2 * V + sigma**2
    share = (weights.log() + log_normal(x[..., None], alpha * M, var)).softmax(-1)
    return -(share * (x[..., None] - alpha * M) / var).sum(-1)


def hermite(nodes):
    e, w = np.polynomial.hermite_e.hermegauss(nodes)
    return number(e), number(w / w.sum())


def legendre(a, b, nodes=120):
    u, w = np.polynomial.legendre.leggauss(nodes)
    return number((b - a) / 2 * u + (a + b) / 2), number((b - a) / 2 * w)


def clean_moments(x, t):
    """E[x_0 | x] and Cov[x_0 | x] by sums over x_0."""
    alpha, sigma = levels(t)
    logits = log_p(LINE, number(0.0)) + log_normal(x[:, None], alpha * LINE, sigma**2)
    weight = logits.softmax(-1)
    mean = weight @ LINE
    return mean, (weight * (LINE - mean[:, None]) ** 2).sum(-1)


@equation("dscore-mixture")
def test_density_and_score_of_a_mixture():
    """The package's density and score in the plane, full covariances, against sums and autograd."""
    x, t = plane(3)
    data = GaussianMixtureDenoiser(W, M2, C2, VariancePreserving())
    flat, times = x.detach().reshape(-1, 2), t.detach().reshape(-1)
    assert_close(data.log_prob(flat, times), log_p2(x, t).detach().reshape(-1))
    assert_close(data.score(flat, times), slope(log_p2(x, t), x).detach().reshape(-1, 2), tol=1e-11)
    z, s = leaves(torch.linspace(-3, 3, 13, dtype=f64), torch.full((13,), 0.2, dtype=f64))
    assert_close(score_on(z, s), slope(log_p(z, s), z))


@equation("dscore-hyvarinen")
def test_integration_by_parts():
    """Both sides as sums over a grid, for s = sin x + 0.3 x."""
    p, true = log_p(LINE, number(0.05)).exp() * DX, score_on(LINE, number(0.05))
    s, ds = LINE.sin() + 0.3 * LINE, LINE.cos() + 0.3
    left = (p * (s - true) ** 2).sum() / 2
    assert_close(left, (p * (s**2 / 2 + ds)).sum() + (p * true**2).sum() / 2)


@equation("dscore-denoising")
def test_denoising_is_score_matching_plus_a_constant():
    """The loss as a sum over components, x_0 and ε; the constant by both of its forms."""
    t, (e, w) = number(0.1), hermite(60)
    alpha, sigma = levels(t)
    p, true = log_p(LINE, t).exp() * DX, score_on(LINE, t)
    constant = 1 / sigma**2 - (p * true**2).sum()
    near = slice(200, 1201)
    _, cov = clean_moments(LINE[near], t)
    assert_close(constant, alpha**2 / sigma**4 * (p[near] * cov).sum(), tol=1e-11)
    for k in (0.0, 1.0):
        loss = number(0.0)
        for share, mean, var in zip(W, M, V, strict=True):
            x0 = mean + var.sqrt() * e[:, None]
            loss = loss + share * (w[:, None] * w * (k * torch.sin(alpha * x0 + sigma * e) + e / sigma) ** 2).sum()
        assert_close(loss, (p * (k * torch.sin(LINE) - true) ** 2).sum() + constant, tol=1e-11)


@equation("dscore-tweedie-second")
def test_the_curvature_is_a_covariance():
    """Second derivatives by autograd against sums over x_0, and the package's denoiser's Jacobian."""
    for when in (0.05, 0.3):
        x, t = leaves(torch.linspace(-2, 2, 9, dtype=f64), torch.full((9,), when, dtype=f64))
        alpha, sigma = levels(number(when))
        _, cov = clean_moments(x.detach(), number(when))
        curve = slope(slope(log_p(x, t), x), x)
        assert_close(curve, -1 / sigma**2 + alpha**2 / sigma**4 * cov, tol=1e-10)
        assert_close(slope(LIBRARY(x[:, None], when), x), alpha / sigma**2 * cov, tol=1e-10)


@equation("dscore-blind")
def test_scores_that_differ_in_the_weights():
    x = torch.linspace(-3, 3, 25, dtype=f64)
    t, other = number(0.1), number([0.8, 0.2])
    alpha, sigma = levels(t)
    var = alpha**2 * V + sigma**2
    parts = log_normal(x[:, None], alpha * M, var).exp()
    mine, theirs = (w[0] * parts[:, 0] / (parts @ w) for w in (W, other))
    (first, second) = (-(x - alpha * M[k]) / var[k] for k in (0, 1))
    (z,) = leaves(x)
    left = slope(log_p(z, t), z) - slope(log_p(z, t, other), z)
    assert_close(left, (mine - theirs) * (first - second))


def score_gap(t, other):
    p = log_p(LINE, t).exp() * DX
    return beta(t) * (p * (score_on(LINE, t) - score_on(LINE, t, other)) ** 2).sum() / 2


def kl_at(t, other):
    p, q = log_p(LINE, t), log_p(LINE, t, other)
    return (p.exp() * (p - q)).sum() * DX


@equation("dscore-debruijn")
def test_the_divergence_falls_by_the_distance_of_the_scores():
    """Autograd in t against the sum over the scores; then the integral over all levels by Gauss and Legendre."""
    other = number([0.8, 0.2])
    for when in (0.02, 0.2, 0.6):
        (t,) = leaves(when)
        assert_close(slope(kl_at(t, other), t), -score_gap(t.detach(), other), tol=1e-11)
    t, w = legendre(0, 1)
    total = sum(b * score_gap(a, other) for a, b in zip(t, w, strict=True))
    assert_close(kl_at(number(0.0), other), kl_at(number(1.0), other) + total, tol=1e-10)


@equation("dscore-quadratic")
def test_squares_of_kicks():
    """N ΣΔW²/t has a chi-square law with N degrees of freedom."""
    for pieces in (1, 7, 400):
        law = scipy.stats.chi2(pieces, scale=1.7 / pieces)
        assert_close(law.mean(), 1.7)
        assert_close(law.var(), 2 * 1.7**2 / pieces)


@equation("dscore-ito")
def test_itos_formula():
    """d/dt of a mean by its Gaussian sum, differentiated; and the variance that the last term brings."""
    e, w = hermite(60)
    (t,) = leaves(0.2)
    alpha, sigma = levels(t)
    x = alpha * 0.8 + sigma * e
    left = slope((w * (1 + t**2) * (2 * x).sin()).sum(), t)
    f, g2, z = -beta(t) / 2, beta(t), 2 * x
    right = 2 * t * z.sin() + f * x * (1 + t**2) * 2 * z.cos() - g2 / 2 * (1 + t**2) * 4 * z.sin()
    assert_close(left, (w * right).sum())

    # φ = x³ a time h after x = 0.7, with constant rates: mean and variance are polynomials in m and v
    (h,) = leaves(0.0)
    f, g2, x = -0.6, 1.3, 0.7
    m, v = x * (f * h).exp(), g2 / (2 * f) * torch.expm1(2 * f * h)
    mean, square = m**3 + 3 * m * v, m**6 + 15 * m**4 * v + 45 * m**2 * v**2 + 15 * v**3
    assert_close(slope(mean, h), f * x * 3 * x**2 + g2 / 2 * 6 * x)
    assert_close(slope(square - mean**2, h), g2 * (3 * x**2) ** 2)


@equation("dscore-ou")
def test_levels_from_the_rates():
    """The package's rates, integrated by Gauss and Legendre, against its levels; from levels by autograd; constants."""
    schedule = VariancePreserving()
    for when in (0.1, 0.5, 1.0):
        u, w = legendre(0, when)
        f, g2 = schedule.rates(u)
        alpha, sigma = schedule(when)
        assert_close((w * f).sum().exp(), alpha)
        kept = torch.exp(-(beta(number(when)) + beta(u)) / 2 * (when - u))  # (α_t/α_u)²: the rate is linear in u
        assert_close((w * kept * g2).sum(), sigma**2)
        (t,) = leaves(when)  # from right to left
        alpha, var = levels(t)[0], levels(t)[1] ** 2
        f, g2 = schedule.rates(when)
        assert_close(slope(alpha, t) / alpha, f)
        assert_close(slope(var, t) - 2 * f * var, g2)
    u, w = legendre(0, 0.9)
    kappa, D = 0.7, 1.4
    assert_close((w * torch.exp(-2 * kappa * (0.9 - u)) * 2 * D).sum(), D / kappa * (1 - math.exp(-2 * kappa * 0.9)))


@equation("dscore-fokker-planck")
def test_fokker_planck_in_the_plane():
    """All derivatives by autograd, for two components with full covariances."""
    x, t = plane()
    p = log_p2(x, t).exp()
    f, g2 = -beta(t) / 2, beta(t)
    assert_close(slope(p, t), -divergence((f * p)[..., None] * x, x) + g2 / 2 * divergence(slope(p, x), x), tol=1e-11)


def log_kernel(x, t, y, r):
    """log p(x, t | y, r), r < t."""
    (alpha_t, _), (alpha_r, _) = levels(t), levels(r)
    up = alpha_t / alpha_r
    return log_normal(x, up * y, 1 - up**2)


@equation("dscore-bayes")
def test_the_kernel_back():
    """It sums to one and carries p_t to p_r; its mean is the first of the cumulants."""
    r, t = number(0.15), number(0.3)
    x = torch.linspace(-2, 2, 9, dtype=f64)
    back = (log_kernel(x[:, None], t, LINE, r) + log_p(LINE, r) - log_p(x, t)[:, None]).exp()
    assert_close(back.sum(-1) * DX, torch.ones(9, dtype=f64))
    up = levels(t)[0] / levels(r)[0]
    assert_close(back @ LINE * DX, (x + (1 - up**2) * score_on(x, t)) / up)
    y = torch.linspace(-2, 2, 9, dtype=f64)
    whole = (log_kernel(LINE[:, None], t, y, r) + log_p(y, r) - log_p(LINE, t)[:, None]).exp()
    assert_close(log_p(LINE, t).exp() @ whole * DX, log_p(y, r).exp())


def at_times():
    """x, t fixed and (y, r) to differentiate at."""
    ranges = (torch.linspace(a, b, 7, dtype=f64) for a, b in ((-2, 2), (0.05, 0.3)))
    y, r = leaves(*torch.meshgrid(*ranges, indexing="ij"))
    return number(0.4), number(0.5), y, r


@equation("dscore-anderson")
def test_the_reversed_process():
    """The kernel back obeys the Fokker–Planck equation with Anderson's drift: autograd; so do the marginals."""
    x, t, y, r = at_times()
    drift = beta(r) / 2 * y + beta(r) * score_on(y, r)
    for log_density in (log_kernel(x, t, y, r) + log_p(y, r) - log_p(x, t), log_p(y, r)):
        k = log_density.exp()
        assert_close(-slope(k, r), -slope(drift * k, y) + beta(r) / 2 * slope(slope(k, y), y), tol=1e-10)


@equation("dscore-anderson-proof")
def test_each_line_of_the_proof():
    """The first two by autograd on the example; the last two with SymPy for any u, p > 0 of two variables."""
    x, t, y, r = at_times()
    u, p = log_kernel(x, t, y, r).exp(), log_p(y, r).exp()
    f, g2 = -beta(r) / 2, beta(r)
    assert_close(-slope(u, r), f * y * slope(u, y) + g2 / 2 * slope(slope(u, y), y), tol=1e-10)
    assert_close(-slope(p, r), slope(f * y * p, y) - g2 / 2 * slope(slope(p, y), y), tol=1e-11)

    a, b, f, g2 = sympy.symbols("a b f g2", real=True)
    u, p = (sympy.Function(name)(a, b) for name in ("u", "p"))
    axes = (a, b)

    def lap(q):
        return sum(sympy.diff(q, z, 2) for z in axes)

    def div(field):
        return sum(sympy.diff(part, z) for part, z in zip(field, axes, strict=True))

    minus_u = f * sum(z * sympy.diff(u, z) for z in axes) + g2 / 2 * lap(u)
    minus_p = div([f * z * p for z in axes]) - g2 / 2 * lap(p)
    third = div([f * z * u * p for z in axes]) + g2 / 2 * (p * lap(u) - u * lap(p))
    drift = [-f * z + g2 * sympy.diff(sympy.log(p), z) for z in axes]
    fourth = -div([part * u * p for part in drift]) + g2 / 2 * lap(u * p)
    assert_zero(sympy.expand(minus_u * p + u * minus_p - third))
    assert_zero(sympy.expand(third - fourth))


@equation("dscore-family")
def test_any_share_of_the_noise():
    x, t = points_and_times()
    p = log_p(x, t).exp()
    for kept in (0.0, 0.5, 1.0, 1.7):
        drift = beta(t) / 2 * x + (1 + kept**2) / 2 * beta(t) * score_on(x, t)
        right = -slope(drift * p, x) + kept**2 * beta(t) / 2 * slope(slope(p, x), x)
        assert_close(-slope(p, t), right, tol=1e-11)


@equation("dscore-flow")
def test_the_flow_carries_the_density():
    """The continuity equation in the plane by autograd."""
    x, t = plane()
    score = slope(log_p2(x, t), x)
    v = -beta(t)[..., None] / 2 * (x + score)
    p = log_p2(x, t).exp()
    assert_close(slope(p, t), -divergence(v * p[..., None], x), tol=1e-11)


START = torch.tensor([-2.5, -1.8, -0.3, 1.0, 2.2], dtype=f64)


def flow(x, begin, end):
    """x at the end, and ∫∇·v dt, by SciPy's Runge–Kutta of order 8."""

    def both(t, y):
        here = torch.tensor(y[: len(x)], dtype=f64, requires_grad=True)
        v = -beta(t) / 2 * (here + score_on(here, number(t)))
        return np.concatenate([v.detach().numpy(), slope(v, here).detach().numpy()])

    first = np.concatenate([x.numpy(), np.zeros(len(x))])
    y = scipy.integrate.solve_ivp(both, (begin, end), first, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return number(y[: len(x)]), number(y[len(x) :])


def below(x, t):
    alpha, sigma = levels(t)
    off = (x[:, None] - alpha * M) / (alpha**2 * V + sigma**2).sqrt()
    return (W * number(scipy.special.ndtr(off.numpy()))).sum(-1)


@equation("dscore-quantile")
def test_nobody_overtakes():
    """The distribution function along the flow, solved by SciPy and by the package."""
    end, _ = flow(START, 0.0, 1.0)
    assert_close(below(end, 1.0), below(START, 0.0), tol=1e-10)
    mine = follow(LIBRARY, START[:, None], 0.0, 1.0, tolerance=1e-11)[:, 0]
    assert_close(below(mine, 1.0), below(START, 0.0), tol=1e-8)


@equation("dscore-likelihood")
def test_density_along_the_flow():
    """The change along a path in the plane by autograd; the integral by SciPy and by the package."""
    x, t = plane()
    ell = log_p2(x, t)
    score = slope(ell, x)
    v = -beta(t)[..., None] / 2 * (x + score)
    along = slope(ell, t) + (score * v).sum(-1)
    assert_close(along, -divergence(v, x), tol=1e-10)
    assert_close(along, -2 * (-beta(t) / 2) + beta(t) / 2 * divergence(score, x), tol=1e-10)

    end, grown = flow(START, 0.0, 1.0)
    exact = log_p(START, number(0.0))
    assert_close(log_p(end, number(1.0)) + grown, exact, tol=1e-9)
    found = log_likelihood(LIBRARY, START[:, None], 1e-11, end=lambda x: log_p(x[:, 0], number(1.0)))
    assert_close(found.log_prob, exact, tol=1e-8)


def fluxes(t):
    """dH/dt and −dKL(p‖π)/dt by autograd, E[∇·v], (2/g²)E v² and E x², each a sum over the line."""
    (t,) = leaves(t)
    ell = log_p(LINE, t)
    mass = ell.exp() * DX
    change = slope(-(mass * ell).sum(), t)
    fall = -slope((mass * (ell - log_normal(LINE, 0.0, 1.0))).sum(), t)
    (x,) = leaves(LINE)
    v = -beta(t.detach()) / 2 * (x + score_on(x, t.detach()))
    spread, mass = slope(v, x), mass.detach()
    return change, fall, (mass * spread).sum(), 2 / beta(t) * (mass * v**2).sum(), (mass * LINE**2).sum()


@equation("dscore-entropy")
def test_entropy_and_its_production():
    for when in (0.02, 0.2, 0.5):
        change, fall, spread, made, square = (v.detach() for v in fluxes(when))
        assert_close(change, spread, tol=1e-10)
        assert_close(change, made - beta(when) / 2 * (square - 1), tol=1e-10)
        assert_close(made, fall, tol=1e-10)


@equation("dscore-fluctuation")
def test_stirring_backwards():
    """Both forms of Σ on paths of three steps; its exponential mean by a double sum; its mean by the production."""
    times = number([0.0, 0.1, 0.3, 0.6])
    path = number([[-2.1, -0.4, 0.3, 1.0], [1.3, 0.9, -0.2, 0.4]])
    here = log_p(path[:, 0], times[0]) - log_p(path[:, 3], times[3])
    for k in range(3):
        r, t, low, high = times[k], times[k + 1], path[:, k], path[:, k + 1]
        here = here + log_kernel(high, t, low, r) - log_kernel(low, t, high, r)

    def sigma(first, last):
        pi = log_normal(first, 0.0, 1.0) - log_normal(last, 0.0, 1.0)
        return log_p(first, times[0]) - log_p(last, times[3]) - pi

    assert_close(here, sigma(path[:, 0], path[:, 3]))
    x = LINE[200:1201]
    joint = (log_p(x, times[0])[:, None] + log_kernel(x, times[3], x[:, None], times[0])).exp() * DX**2
    ratio = sigma(x[:, None], x)
    # in one exponent: the joint density is tiny where e^{−Σ} is huge
    assert_close((joint.log() - ratio).exp().sum(), 1.0)
    t, w = legendre(0, 0.6, 80)
    made = sum(b * fluxes(float(a))[3].detach() for a, b in zip(t, w, strict=True))
    mean = (joint * ratio).sum()
    assert_close(mean, made, tol=1e-10)


def work(x0, slope_1, slope_0, widths, bend):
    """log p(x_0) by a grid; E w and E log w over two noise steps by Gauss and Hermite; the bound by divergences."""
    r, t = number(0.1), number(0.3)
    (a_r, s_r), (a_t, s_t) = levels(r), levels(t)
    up = a_t / a_r
    step = 1 - up**2

    def model(x, s):
        return s * x + bend * x.sin()

    def log_joint(x1, x2):
        down = log_normal(x1, model(x2, slope_1), widths[1])
        return log_normal(x2, 0.0, 1.0) + down + log_normal(x0, model(x1, slope_0), widths[0])

    grid = LINE[300:1101]
    log_px = (log_joint(grid[:, None], grid).exp().sum() * DX**2).log()
    e, w = hermite(90)
    x1 = a_r * x0 + s_r * e[:, None]
    x2 = up * x1 + step.sqrt() * e
    log_w = log_joint(x1, x2) - log_normal(x1, a_r * x0, s_r**2) - log_normal(x2, up * x1, step)
    weight = w[:, None] * w
    # the bound: L_0, the divergence of the step given x_0, and that at the end
    x1 = x1[:, 0]
    first = -(w * log_normal(x0, model(x1, slope_0), widths[0])).sum()
    x2 = a_t * x0 + s_t * e
    mean, var = (up * s_r**2 * x2 + a_r * step * x0) / s_t**2, step * s_r**2 / s_t**2

    def kl(m, v, other, width):
        return (v / width + (m - other) ** 2 / width - 1 - (v / width).log()) / 2

    middle = (w * kl(mean, var, model(x2, slope_1), widths[1])).sum()
    bound = -(first + middle + kl(a_t * x0, s_t**2, number(0.0), number(1.0)))
    return log_px, (weight * log_w.exp()).sum().log(), (weight * log_w).sum(), bound


@equation("dscore-jarzynski")
def test_the_bound_is_a_mean_work():
    """A bent model with wide steps, and the exact reverse for data N(0, 1), where no work is lost."""
    bent = work(number(0.7), 0.9, 0.8, number([0.9, 0.8]), 0.2)
    (a_r, _), (a_t, _) = levels(0.1), levels(0.3)
    up = a_t / a_r  # for data N(0, 1) the reverse is the forward kernel
    exact = work(number(0.7), up, a_r, torch.stack([1 - a_r**2, 1 - up**2]), 0.0)
    for log_px, jarzynski, mean, bound in (bent, exact):
        assert_close(jarzynski, log_px, tol=1e-9)
        assert_close(mean, bound, tol=1e-10)
    assert_at_most(torch.stack([bent[2], exact[2]]), torch.stack([bent[0], exact[0]]), tol=1e-10)


def gaussian_entropies(data_variance, r, t):
    """H(x_r|x_t, x_0), H(x_r|x_t), H(x_t|x_r) for Gaussian data, from determinants."""
    (a_r, s_r), (a_t, s_t) = levels(r), levels(t)
    up = a_t / a_r

    def entropy(v):
        return (2 * math.pi * math.e * v).log() / 2

    v_r, v_t = a_r**2 * data_variance + s_r**2, a_t**2 * data_variance + s_t**2
    given = (1 - up**2) * s_r**2 / s_t**2
    return entropy(given), entropy(v_r - (up * v_r) ** 2 / v_t), entropy(1 - up**2)


@equation("dscore-reverse-entropy")
def test_entropy_of_a_reverse_step():
    """The first line by a double sum over Bayes' kernel; the bounds, tight for a point and for N(0, 1)."""
    r, t = number(0.1), number(0.15)
    x = LINE[200:1201]
    log_up = log_kernel(x, t, x[:, None], r)  # rows x_r, columns x_t
    log_back = log_up + log_p(x, r)[:, None] - log_p(x, t)
    joint = (log_up + log_p(x, r)[:, None]).exp() * DX**2
    up = levels(t)[0] / levels(r)[0]
    forward = (2 * math.pi * math.e * (1 - up**2)).log() / 2

    def entropy(time):
        ell = log_p(LINE, time)
        return -(ell.exp() * ell).sum() * DX

    left = -(joint * log_back).sum()
    assert_close(left, forward + entropy(r) - entropy(t), tol=1e-11)
    rows = [gaussian_entropies(v, r, t) for v in (0.0, 0.4, 1.0)]
    given = forward + (levels(r)[1] / levels(t)[1]).log()
    low, middle, high = (torch.stack(list(column)) for column in zip(*rows, strict=True))
    low, middle, high = torch.cat([low, given[None]]), torch.cat([middle, left[None]]), torch.cat([high, forward[None]])
    assert_at_most(low, middle)
    assert_at_most(middle, high)
