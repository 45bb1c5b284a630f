"""The equations of the page on flow matching, in float64 and without sampling error.

Densities and fields are written out anew and differentiated by autograd. Expectations are sums over even grids, which
converge faster than any power for smooth densities; integrals over time are Gauss–Legendre sums; flows are solved by
SciPy. Coupled pairs are Gaussian mixtures of (x_0, ε) jointly, where the field has a closed form, too.
"""

import functools
import itertools
import math

import numpy as np
import scipy.integrate
import scipy.special
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode.diffusion import (
    FLOW,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Straight,
    VariancePreserving,
    ddim,
    decode,
    flow_matching_loss,
    flow_velocity,
    forward,
    rectified_pairs,
    sample,
    straightness,
    velocity,
)

f64 = torch.float64
number = functools.partial(torch.as_tensor, dtype=f64)
W, M, V = number([0.4, 0.6]), number([-0.8, 0.9]), number([0.4, 0.6])
W2, M2 = number([0.3, 0.7]), number([[-1.0, 0.5], [1.2, 0.3]])
C2 = number([[[0.4, 0.1], [0.1, 0.3]], [[0.2, -0.1], [-0.1, 0.5]]])
MEAN, SQUARE = (W * M).sum(), (W * (M**2 + V)).sum()
DX = 0.1
LINE = DX * torch.arange(-90, 91, dtype=f64)
X0, EPS = torch.meshgrid(LINE, LINE, indexing="ij")
STRAIGHT = GaussianMixtureDenoiser(W, M[:, None], V, Straight())
PRESERVING = GaussianMixtureDenoiser(W, M[:, None], V, VariancePreserving())

# (x_0, ε) as a mixture with dependent entries: shares, means (k, 2), covariances (k, 2, 2)
JOINT = (
    number([0.35, 0.65]),
    number([[-1.0, 0.6], [0.8, -0.3]]),
    number([[[0.4, 0.25], [0.25, 0.8]], [[0.5, -0.2], [-0.2, 0.6]]]),
)


def straight(t):
    t = number(t)
    return 1 - t, t


def preserving(t):
    lost = 0.1 * number(t) + 9.95 * number(t) ** 2
    return torch.exp(-lost / 2), (-torch.expm1(-lost)).sqrt()


BOTH = ((straight, STRAIGHT), (preserving, PRESERVING))


def slope(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def leaves(*values):
    return [number(v).clone().requires_grad_() for v in values]


def pace(path, t):
    """(α̇, σ̇) by autograd."""
    (t,) = leaves(t)
    alpha, sigma = path(t)
    return slope(alpha, t).detach(), slope(sigma, t).detach()


def log_normal(x, mean, var):
    return -((x - mean) ** 2) / (2 * var) - (2 * math.pi * number(var)).log() / 2


def log_p(x, alpha, sigma, weights=W):
    return (weights.log() + log_normal(x[..., None], alpha * M, alpha**2 * V + sigma**2)).logsumexp(-1)


def density(x, path, t, weights=W):
    alpha, sigma = path(t)
    return log_p(x, alpha, sigma, weights).exp()


def field(x, path, t, weights=W):
    """u_t(x) as the mean over components, of regressions."""
    (alpha, sigma), (down, up) = path(t), pace(path, t)
    var = alpha**2 * V + sigma**2
    share = (weights.log() + log_normal(x[..., None], alpha * M, var)).softmax(-1)
    gain = (alpha * down * V + sigma * up) / var
    return (share * (down * M + gain * (x[..., None] - alpha * M))).sum(-1)


def clean_moments(x, path, t):
    """E[x_0 | x] and Var[x_0 | x] by sums over x_0."""
    alpha, sigma = path(t)
    fine = 0.02 * torch.arange(-350, 351, dtype=f64)
    share = (log_p(fine, number(1.0), number(0.0)) + log_normal(x[..., None], alpha * fine, sigma**2)).softmax(-1)
    mean = share @ fine
    return mean, (share * (fine - mean[..., None]) ** 2).sum(-1)


@functools.cache
def pair_mass():
    """Independent pairs on the grid (X0, EPS)."""
    return (log_p(X0, number(1.0), number(0.0)) + log_normal(EPS, 0.0, 1.0)).exp() * DX**2


def joint_mass():
    shares, means, covariances = JOINT
    total = torch.zeros_like(X0)
    for w, m, c in zip(shares, means, covariances, strict=True):
        off = torch.stack([X0, EPS], -1) - m
        square = (off * (off @ torch.linalg.inv(c))).sum(-1)
        total = total + w * torch.exp(-square / 2) / (2 * math.pi * torch.linalg.det(c).sqrt())
    return total * DX**2


def joint_law(x, t):
    """p_t(x), u_t(x) and Var[u_t | x] of the coupled pairs on the straight path."""
    shares, means, covariances = JOINT
    alpha, sigma = 1 - t, t
    along = torch.stack([alpha, sigma], -1)
    turn = number([-1.0, 1.0])
    mx, mu = along @ means.T, means @ turn
    var = torch.einsum("...i,kij,...j->...k", along, covariances, along)
    cross = torch.einsum("i,kij,...j->...k", turn, covariances, along)
    spread = torch.einsum("i,kij,j->k", turn, covariances, turn)
    parts = shares * log_normal(x[..., None], mx, var).exp()
    share = parts / parts.sum(-1, keepdim=True)
    each = mu + cross / var * (x[..., None] - mx)
    mean = (share * each).sum(-1)
    within = (share * (spread - cross**2 / var)).sum(-1)
    return parts.sum(-1), mean, within + (share * (each - mean[..., None]) ** 2).sum(-1)


def legendre(a, b, nodes=60):
    u, w = np.polynomial.legendre.leggauss(nodes)
    return number((b - a) / 2 * u + (a + b) / 2), number((b - a) / 2 * w)


# --- the field -------------------------------------------------------------------------------------------------------


@equation("dflow-pair")
def test_a_pair_and_its_velocity():
    """The package's noising and its two targets against the hand's levels, differentiated."""
    x0, eps, t = number([[-1.2], [0.4], [2.0]]), number([[0.3], [-0.8], [1.1]]), number([0.2, 0.55, 0.9])
    for path, schedule in ((straight, Straight()), (preserving, VariancePreserving())):
        (when,) = leaves(t)
        alpha, sigma = (v[:, None] for v in path(when))
        xt = alpha * x0 + sigma * eps
        assert_close(forward(schedule, x0, eps, t), xt.detach())
        there = [v[:, None] for v in schedule(t)]
        assert_close(flow_velocity(schedule).target(x0, eps, *there), slope(xt, when)[:, None], tol=1e-11)
    assert_close(FLOW.target(x0, eps, *there), eps - x0)


@equation("dflow-field")
def test_the_field_is_a_conditional_mean():
    """The package's velocity against sums over x_0, with ε solved for; and coupled pairs against their regression."""
    x = torch.linspace(-2.5, 2.5, 11, dtype=f64)
    for path, model in BOTH:
        for t in (0.3, 0.8):
            (alpha, sigma), (down, up) = path(t), pace(path, t)
            eps = (x[:, None] - alpha * LINE) / sigma
            share = (log_p(LINE, number(1.0), number(0.0)) - eps**2 / 2).softmax(-1)
            mean = (share * (down * LINE + up * eps)).sum(-1)
            assert_close(velocity(model, x[:, None], t)[:, 0], mean, tol=1e-11)
    t, (shares, means, covariances) = number(0.4), JOINT
    eps = (x[:, None] - (1 - t) * LINE) / t
    off = torch.stack([LINE.expand_as(eps), eps], -1)[..., None, :] - means
    square = (off * torch.einsum("...ki,kij->...kj", off, torch.linalg.inv(covariances))).sum(-1)
    share = (shares.log() - square / 2 - torch.logdet(covariances) / 2).logsumexp(-1).softmax(-1)
    assert_close(joint_law(x, t)[1], (share * (eps - LINE)).sum(-1))


def log_p2(x, alpha, sigma):
    """The mixture in the plane, x (..., 2)."""
    alpha, sigma = alpha[..., None, None], sigma[..., None, None]
    cov = alpha[..., None] ** 2 * C2 + sigma[..., None] ** 2 * torch.eye(2, dtype=f64)
    off = x[..., None, :] - alpha * M2
    square = (off * torch.linalg.solve(cov, off)).sum(-1)
    return (W2.log() - square / 2 - torch.logdet(cov) / 2 - math.log(2 * math.pi)).logsumexp(-1)


def field2(x, path, t):
    """The regressions in the plane, with matrices."""
    (alpha, sigma), (down, up), eye = path(t), pace(path, t), torch.eye(2, dtype=f64)
    cov = alpha**2 * C2 + sigma**2 * eye
    off = x[:, None, :] - alpha * M2
    gains = (alpha * down * C2 + sigma * up * eye) @ torch.linalg.inv(cov)
    square = (off * torch.einsum("kij,bkj->bki", torch.linalg.inv(cov), off)).sum(-1)
    share = (W2.log() - square / 2 - torch.logdet(cov) / 2).softmax(-1)
    return (share[..., None] * (down * M2 + torch.einsum("kij,bkj->bki", gains, off))).sum(1)


@equation("dflow-mixture")
def test_the_field_of_a_mixture():
    """Full covariances in the plane against the package, which goes by the denoiser; the line against sums."""
    x = torch.cartesian_prod(*[torch.linspace(-2, 2, 5, dtype=f64)] * 2)
    for path, schedule in ((straight, Straight()), (preserving, VariancePreserving())):
        model = GaussianMixtureDenoiser(W2, M2, C2, schedule)
        for t in (0.2, 0.7):
            assert_close(field2(x, path, t), velocity(model, x, t), tol=1e-11)
    near = LINE[60:121]
    mean, _ = clean_moments(near, straight, 0.4)
    assert_close(field(near, straight, 0.4), (near - mean) / 0.4, tol=1e-10)


@equation("dflow-continuity")
def test_the_mean_velocity_carries_the_density():
    """Coupled pairs: the mean of φ over pairs, differentiated in t, and p_t by autograd. In the plane: the package."""
    (t,) = leaves(0.35)
    xt = (1 - t) * X0 + t * EPS
    left = slope((joint_mass() * (1 + xt) * torch.exp(-(xt**2) / 3)).sum(), t)
    p, u, _ = joint_law(LINE, t.detach())
    turn = torch.exp(-(LINE**2) / 3) * (1 - 2 * LINE * (1 + LINE) / 3)
    assert_close(left, (p * turn * u).sum() * DX, tol=1e-11)

    x, t = leaves(*torch.meshgrid(torch.linspace(-3, 3, 13, dtype=f64), number([0.1, 0.5, 0.9]), indexing="ij"))
    p, u, _ = joint_law(x, t)
    assert_close(slope(p, t), -slope(p * u, x), tol=1e-11)

    x, t = leaves(torch.cartesian_prod(*[torch.linspace(-2, 2, 4, dtype=f64)] * 2), torch.full((16,), 0.3, dtype=f64))
    for path, schedule in ((straight, Straight()), (preserving, VariancePreserving())):
        p = log_p2(x, *path(t)).exp()
        flux = p[:, None] * velocity(GaussianMixtureDenoiser(W2, M2, C2, schedule), x, 0.3)
        assert_close(slope(p, t), -slope(flux[:, 0], x)[:, 0] - slope(flux[:, 1], x)[:, 1], tol=1e-10)


# --- the regression --------------------------------------------------------------------------------------------------


def features(x):
    return torch.stack([torch.ones_like(x), x, x.sin()], -1)


@functools.cache
def regressions():
    """(mass of the pairs, x_t, u_t) and (p_t, u_t(x), Var[u_t | x]) on the line."""
    t = number(0.4)
    cases = []
    for path, _ in BOTH:
        (alpha, sigma), (down, up) = path(t), pace(path, t)
        _, var = clean_moments(LINE, path, t)
        law = density(LINE, path, t), field(LINE, path, t), (down - alpha * up / sigma) ** 2 * var
        cases.append((pair_mass(), alpha * X0 + sigma * EPS, down * X0 + up * EPS, *law))
    return [*cases, (joint_mass(), (1 - t) * X0 + t * EPS, EPS - X0, *joint_law(LINE, t))]


@equation("dflow-objectives")
def test_both_objectives_have_one_gradient():
    """Sums over pairs against sums over x_t: independent pairs on two paths, coupled ones; the package's own loss."""
    for mass, xt, ut, p, u, var in regressions():
        for start in ([0.0, 0.0, 0.0], [0.4, -1.0, 2.0]):
            (theta,) = leaves(start)
            conditional = (mass * (features(xt) @ theta - ut) ** 2).sum()
            marginal = (p * (features(LINE) @ theta - u) ** 2).sum() * DX
            assert_close(slope(conditional, theta), slope(marginal, theta), tol=1e-10)
            assert_close(conditional, marginal + (p * var).sum() * DX, tol=1e-10)
    x0, eps, t = number([[-1.2], [0.4], [2.0]]), number([[0.3], [-0.8], [1.1]]), number([0.2, 0.55, 0.9])
    for path, model in BOTH:  # the package's loss of three coupled pairs, at three times
        off = []
        for a, b, when in zip(x0, eps, t, strict=True):
            (alpha, sigma), (down, up) = path(when), pace(path, when)
            off.append(down * a + up * b - field(alpha * a + sigma * b, path, when))
        assert_close(flow_matching_loss(model, x0, eps, t), torch.cat(off).square().mean(), tol=1e-10)


def floor(path, t):
    """V_t by total variance: E|u_t|² − E|u_t(x_t)|²."""
    down, up = pace(path, t)
    fine = DX / 4 * torch.arange(-360, 361, dtype=f64)
    return down**2 * SQUARE + up**2 - (density(fine, path, t) * field(fine, path, t) ** 2).sum() * DX / 4


@equation("dflow-floor")
def test_the_floor():
    """The variance of the velocity that is left over, against the package's Cov[x_0 | x_t]; and both ends."""

    def unknown(model, t):
        p = model.log_prob(LINE[:, None], t).exp() * DX
        return (p * model.posterior_covariance(LINE[:, None], t)[:, 0, 0]).sum()

    for path, model in BOTH:
        for t in (0.2, 0.6, 0.95):
            (alpha, sigma), (down, up) = path(t), pace(path, t)
            assert_close(floor(path, t), (down - alpha * up / sigma) ** 2 * unknown(model, t), tol=1e-10)
    for t in (0.05, 0.5, 1.0):
        assert_close(floor(straight, t), unknown(STRAIGHT, t) / t**2, tol=1e-10)
    assert_close(floor(straight, 1.0), SQUARE - MEAN**2)
    near = number(1e-4)  # the limit 1 is left at the rate 2t, which (1 − t)² takes away
    assert_close((1 - near) ** 2 * floor(straight, near), 1.0, tol=1e-7)


@equation("dflow-noise")
def test_what_a_noisy_target_costs():
    """3×3 covariances of one draw's gradient: sums over pairs, sums over x_t, and the sum of the extra term."""
    theta = number([0.4, -1.0, 0.7])

    def covariance(mass, x, target):
        g = (2 * features(x) * (features(x) @ theta - target)[..., None]).reshape(-1, 3)
        mass = mass.reshape(-1, 1)
        return (mass * g).T @ g - torch.outer((mass * g).sum(0), (mass * g).sum(0))

    t = number(0.4)
    mean, var = clean_moments(LINE, straight, t)
    p = density(LINE, straight, t) * DX
    extra = 4 * (features(LINE) * (p * var / t**2)[:, None]).T @ features(LINE)
    left = covariance(pair_mass(), (1 - t) * X0 + t * EPS, EPS - X0)
    assert_close(left, covariance(p, LINE, (LINE - mean) / t) + extra, tol=1e-9)
    p, u, var = joint_law(LINE, t)
    extra = 4 * (features(LINE) * (p * DX * var)[:, None]).T @ features(LINE)
    left = covariance(joint_mass(), (1 - t) * X0 + t * EPS, EPS - X0)
    assert_close(left, covariance(p * DX, LINE, u) + extra, tol=1e-9)


# --- the same field as a diffusion's ---------------------------------------------------------------------------------


@equation("dflow-maps")
def test_velocity_denoiser_and_score():
    """The package's velocity; the posterior mean by sums; the score by autograd."""
    for path, model in BOTH:
        for t in (0.15, 0.6):
            (x,) = leaves(torch.linspace(-2.5, 2.5, 11, dtype=f64))
            (alpha, sigma), (down, up) = path(t), pace(path, t)
            mean, _ = clean_moments(x.detach(), path, t)
            u = velocity(model, x.detach()[:, None], t)[:, 0]
            assert_close(u, down * mean + up * (x.detach() - alpha * mean) / sigma, tol=1e-10)
            assert_close(u, up / sigma * x.detach() + (down - alpha * up / sigma) * mean, tol=1e-10)
            f = down / alpha
            g2 = 2 * sigma * up - 2 * f * sigma**2
            assert_close(u, f * x.detach() - g2 / 2 * slope(log_p(x, alpha, sigma), x).detach(), tol=1e-10)


@equation("dflow-clock")
def test_another_schedule_is_another_clock():
    """The straight path under the variance-preserving clock: time and scale by autograd, the field by the package."""
    (t,) = leaves([0.2, 0.5, 0.8])
    lost = torch.log1p((t / (1 - t)) ** 2)  # B = ∫β at the same SNR
    bar = (-0.1 + (0.01 + 4 * 9.95 * lost).sqrt()) / (2 * 9.95)
    scale = preserving(bar)[1] / t
    assert_close((preserving(bar)[0] / preserving(bar)[1]).detach(), ((1 - t) / t).detach())
    pair = (1 - t.detach()) * 0.7 - t.detach() * 1.3
    assert_close(preserving(bar)[0].detach() * 0.7 - preserving(bar)[1].detach() * 1.3, scale.detach() * pair)
    speed, stretch = slope(bar, t).detach(), slope(scale, t).detach()
    c, bar = scale.detach(), bar.detach()
    for k, when in enumerate(t.tolist()):
        x = torch.linspace(-2, 2, 9, dtype=f64)
        left = velocity(PRESERVING, (c[k] * x)[:, None], bar[k])[:, 0] * speed[k]
        assert_close(left, c[k] * field(x, straight, when) + stretch[k] * x, tol=1e-10)


@equation("dflow-euler")
def test_eulers_step_is_ddims():
    """A step along the field by hand, the split by sums over x_0, and the package's DDIM."""
    x = torch.linspace(-2.5, 2.5, 11, dtype=f64)
    for t, r in ((0.9, 0.5), (0.4, 0.35), (0.3, 0.0)):
        step = x + (r - t) * field(x, straight, t)
        mean, _ = clean_moments(x, straight, t)
        assert_close(step, (1 - r) * mean + r * (x - (1 - t) * mean) / t, tol=1e-10)
        assert_close(step, sample(STRAIGHT, ddim, x[:, None], [t, r])[:, 0], tol=1e-11)


@functools.cache
def weighted(kind):
    """∫ of the error of û = u + 0.3 sin x over pairs: in t by Gauss and Legendre, in λ by the trapezoid rule."""

    def error(t):
        xt = (1 - t) * X0 + t * EPS
        answer = field(xt, straight, t) + 0.3 * xt.sin()
        off = {
            "velocity": lambda: EPS - X0 - answer,
            "data": lambda: X0 - (xt - t * answer),
            "noise": lambda: EPS - (xt + (1 - t) * answer),
        }[kind]()
        return (pair_mass() * off**2).sum()

    if kind == "noise":
        level = 0.5 * torch.arange(-110, 111, dtype=f64)
        return sum(torch.exp(-a / 2) * error(torch.sigmoid(-a / 2)) for a in level) / 4
    t, w = legendre(0, 1, 40)
    return sum(b * error(a) / (a**2 if kind == "data" else 1) for a, b in zip(t, w, strict=True))


@equation("dflow-weight")
def test_the_flows_loss_over_noise_levels():
    """Three integrals, each of its own error over pairs; the rules in t and λ share no node."""
    assert_close(weighted("velocity"), weighted("data"), tol=1e-11)
    assert_close(weighted("data"), weighted("noise"), tol=1e-9)


@equation("dflow-coupling")
def test_correlated_gaussians():
    """Variance, field and Tweedie's ratio by sums over x_0 with ε solved for; the score by autograd."""
    c, x0 = number(1.7), 0.05 * torch.arange(-280, 281, dtype=f64)
    for path, rho, t in itertools.product((straight, preserving), (-0.5, 0.0, 0.8), (0.3, 0.7)):
        (alpha, sigma), (down, up) = path(t), pace(path, t)
        (x,) = leaves(torch.linspace(-2, 2, 5, dtype=f64))
        (when,) = leaves(t)
        a, b = path(when)
        spread = (a**2 * c + 2 * a * b * rho * c.sqrt() + b**2).sqrt()
        eps = (x[:, None] - alpha * x0) / sigma
        logits = log_normal(x0, 0.0, c) + log_normal(eps, rho * x0 / c.sqrt(), 1 - rho**2)
        share = logits.softmax(-1).detach()
        total = logits.logsumexp(-1)
        assert_close(total.exp() * 0.05 / sigma, log_normal(x, 0.0, spread.detach() ** 2).exp())
        u = (share * (down * x0 + up * eps.detach())).sum(-1)
        assert_close(u, slope(spread, when).detach() / spread.detach() * x.detach(), tol=1e-10)
        tweedie = (alpha * (share @ x0) - x.detach()) / sigma**2
        assert_close(tweedie, (1 + alpha * rho * c.sqrt() / sigma) * slope(total, x).detach(), tol=1e-10)


# --- straightness ----------------------------------------------------------------------------------------------------


def numpy_field(y, t):
    return field(number(y), straight, t).numpy()


def walked(u, start, chord=None):
    """y_0 from y_1 = start, and ∫|ẏ − chord|² dt of each row, by SciPy's Runge–Kutta of order 8."""
    start = np.asarray(start)
    n = len(start)

    def both(t, y):
        v = u(y[:n], t)
        return np.concatenate([v, (v - (0 if chord is None else chord)) ** 2])

    first = np.concatenate([start, np.zeros(n)])
    y = scipy.integrate.solve_ivp(both, (1, 1e-12), first, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return y[:n], -y[n:]


@functools.cache
def five():
    start = np.array([-1.6, -0.7, 0.0, 0.6, 1.9])
    end, energy = walked(numpy_field, start)
    package = straightness(STRAIGHT, number(start)[:, None], 1e-10)
    return start, end, energy, walked(numpy_field, start, start - end)[1], package


@equation("dflow-straightness")
def test_straightness():
    """Path by path: the integral against the chord, energy less chord², and the package, which goes by angles."""
    start, end, energy, bent, package = five()
    assert_close(bent, energy - (start - end) ** 2, tol=1e-9)
    assert_close(package, bent, tol=1e-8)


@equation("dflow-one-step")
def test_one_step_goes_to_the_mean():
    x = torch.linspace(-3, 3, 7, dtype=f64)
    assert_close(velocity(STRAIGHT, x[:, None], 1.0)[:, 0], x - MEAN)
    assert_close(sample(STRAIGHT, ddim, x[:, None], [1.0, 0.0]), torch.full((7, 1), MEAN.item(), dtype=f64))
    x0 = (pair_mass().sum(1) * LINE).sum()
    assert_close(field(x, straight, 1.0), x - x0)


def quantile(below, level, low=-12.0, high=12.0):
    """The x with below(x) = level, by bisection."""
    low, high = torch.full_like(level, low), torch.full_like(level, high)
    for _ in range(60):
        middle = (low + high) / 2
        under = below(middle) < level
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


def below_joint(which):
    shares, means, covariances = JOINT
    return lambda x: (
        shares * torch.special.ndtr((x[..., None] - means[:, which]) / covariances[:, which, which].sqrt())
    ).sum(-1)


def below_data(x):
    return (W * torch.special.ndtr((x[..., None] - M) / V.sqrt())).sum(-1)


@functools.cache
def independent_budget():
    z = DX * torch.arange(-75, 76, dtype=f64)
    mass = log_normal(z, 0.0, 1.0).exp() * DX
    ends = quantile(below_data, torch.special.ndtr(z))
    bends = (mass * straightness(STRAIGHT, z[:, None], 1e-9)).sum()
    t, w = legendre(0, 1)
    crossings = sum(b * floor(straight, a) for a, b in zip(t, w, strict=True))
    return 1 + SQUARE, (mass * (z - ends) ** 2).sum(), bends, crossings


@functools.cache
def coupled_budget():
    """The same for the coupled pairs: ends by ranks, bends by SciPy, crossings from the variances."""
    shares, means, covariances = JOINT
    y1 = LINE[(LINE.abs() < 6.5)]
    mass = joint_law(y1, number(1.0))[0] * DX
    ends = quantile(below_joint(0), below_joint(1)(y1))
    chord = (y1 - ends).numpy()
    _, bends = walked(lambda y, t: joint_law(number(y), number(t))[1].numpy(), y1.numpy(), chord)
    t, w = legendre(0, 1)
    crossings = sum(b * (p * var).sum() * DX for b, (p, _, var) in zip(w, (joint_law(LINE, a) for a in t), strict=True))
    difference = means[:, 1] - means[:, 0]
    spread = covariances[:, 0, 0] + covariances[:, 1, 1] - 2 * covariances[:, 0, 1]
    pairs = (shares * (difference**2 + spread)).sum()
    return pairs, (mass * (y1 - ends) ** 2).sum(), (mass * number(bends)).sum(), crossings


@equation("dflow-budget")
def test_the_budget():
    """Four numbers by four ways: moments, ranks, paths, conditional variances."""
    for budget in (independent_budget(), coupled_budget()):
        pairs, ends, bends, crossings = budget
        assert_close(pairs, ends + bends + crossings, tol=1e-8)  # the paths' own accuracy
        assert min(budget) > 0.01


@functools.cache
def bend_of_a_gaussian(c):
    model = GaussianDenoiser(torch.zeros(1, dtype=f64), c, Straight())
    return straightness(model, torch.ones(1, 1, dtype=f64), 1e-10)


@equation("dflow-gaussian")
def test_the_budget_of_a_gaussian():
    """SciPy's adaptive quadrature of the hyperbola, and the package's straightness of one path."""

    def bend(t, c):
        return (((1 + c) * t - c) / math.sqrt((1 - t) ** 2 * c + t**2) - (1 - math.sqrt(c))) ** 2

    def unknown(t, c):
        return c / ((1 - t) ** 2 * c + t**2)

    for c in (0.1, 1.0, 4.0):
        bends, crossings = (scipy.integrate.quad(f, 0, 1, args=(c,), epsabs=1e-13)[0] for f in (bend, unknown))
        root = math.sqrt(c)
        assert_close(1 + c, (1 - root) ** 2 + bends + crossings)
        assert_close(bends, (2 - math.pi / 2) * root)
        assert_close(crossings, math.pi / 2 * root)
        assert_close(bend_of_a_gaussian(c), (2 - math.pi / 2) * root, tol=1e-8)


# --- rectification ---------------------------------------------------------------------------------------------------


@equation("dflow-convex")
def test_no_convex_cost_rises():
    """Correlated Gaussians by closed forms, equal for a single data point; the coupled mixture by ranks and sums."""
    t, w = legendre(0, 1)
    fourth, hyperbolic = (lambda v: 3 * v**2), (lambda v: torch.exp(v / 2))  # E x⁴ and E cosh x of N(0, v)
    ends, middle, pairs = [], [], []
    for mean_of, c, rho in itertools.product((fourth, hyperbolic), (0.0, 0.5, 3.0), (-0.4, 0.0, 0.9)):
        root = math.sqrt(c)
        var = (1 - t) ** 2 * c + 2 * t * (1 - t) * rho * root + t**2
        pace_of = (t - (1 - t) * c + (1 - 2 * t) * rho * root) / var.sqrt()
        ends.append(mean_of(number((1 - root) ** 2)))
        middle.append((w * mean_of(pace_of**2)).sum())
        pairs.append(mean_of(number(1 + c - 2 * rho * root)))
    assert_at_most(torch.stack(ends), torch.stack(middle))
    assert_at_most(torch.stack(middle), torch.stack(pairs))

    y1 = LINE[(LINE.abs() < 6.5)]
    chord = y1 - quantile(below_joint(0), below_joint(1)(y1))
    start = (joint_law(y1, number(1.0))[0] * DX * chord.exp()).sum()
    laws = [joint_law(LINE, a) for a in t]
    energy = sum(b * (p * u.exp()).sum() * DX for b, (p, u, _) in zip(w, laws, strict=True))
    whole = (joint_mass() * (EPS - X0).exp()).sum()
    assert start < energy < whole


def gaussian_flow(C, K, nodes=24):
    """Pairs with E x_0x_0ᵀ = C, E x_0εᵀ = K: the map A of the flow, its energy, S and ∫V, by SciPy.

    Each as its own integral: energy ∫tr(M Var Mᵀ), bends ∫‖Ẏ − (I − A)‖² along dY/dt = M Y, crossings ∫tr Var[u | x].
    """
    eye = np.eye(len(C))

    def laws(t):
        var = (1 - t) ** 2 * C + t * (1 - t) * (K + K.T) + t**2 * eye
        cross = -(1 - t) * C + (1 - t) * K.T - t * K + t * eye  # E u_t x_tᵀ
        return var, cross, np.linalg.solve(var, cross.T).T

    def rate(t, y):
        return (laws(t)[2] @ y.reshape(eye.shape)).ravel()

    times, w = (v.numpy()[::-1] for v in legendre(0, 1, nodes))
    way = scipy.integrate.solve_ivp(
        rate, (1, 0), eye.ravel(), method="DOP853", t_eval=[*times, 0.0], rtol=1e-12, atol=1e-13
    ).y.T.reshape(-1, *eye.shape)
    A, energy, bends, crossings = way[-1], 0.0, 0.0, 0.0
    for t, b, y in zip(times, w, way, strict=False):
        var, cross, M = laws(t)
        energy += b * np.trace(M @ var @ M.T)
        bends += b * ((M @ y - (eye - A)) ** 2).sum()
        crossings += b * np.trace(C + eye - K - K.T - cross @ np.linalg.solve(var, cross.T))
    return A, energy, bends, crossings


def cost(C, K):
    return np.trace(C) + len(C) - 2 * np.trace(K)


DATA = np.array([[1.3, 0.4], [0.4, 0.8]])
TURNED = np.array([[0.3, -0.5], [0.4, 0.2]])


@equation("dflow-halt")
def test_what_a_flow_saves_cannot_be_saved_again():
    """Two rectifications of Gaussian pairs in the plane; equality of the bound where the last pairs coincide."""
    saved, whole = [], []
    for C, K in ((DATA, TURNED), (np.eye(2), np.zeros((2, 2)))):
        pair, total = K, 0.0
        for _ in range(2):
            A, _, bends, crossings = gaussian_flow(C, pair, nodes=40)
            assert np.allclose(A @ A.T, C, atol=1e-8)
            total, pair = total + bends + crossings, A
        assert_close(total, cost(C, K) - cost(C, pair), tol=1e-8)
        saved.append(total)
        whole.append(cost(C, K))
    assert_at_most(saved, whole, tol=1e-8)


@functools.cache
def ends_of_five():
    z = number(five()[0])[:, None]
    return z[:, 0], decode(STRAIGHT, z, 1e-11)[:, 0], rectified_pairs(STRAIGHT, z, 1e-11)[0][:, 0]


@equation("dflow-monotone")
def test_on_the_line_the_ends_are_paired_by_rank():
    """The package's decoder and its pairs against bisection; W₂² of six points by all orders; q by a sum over z."""
    z, decoded, paired = ends_of_five()
    ranks = quantile(below_data, torch.special.ndtr(z))
    assert_close(decoded, ranks, tol=1e-8)
    assert_close(paired, ranks, tol=1e-8)

    # ∫(Φ⁻¹ − Q)² dq with q = Φ(z) against E y_1² + E y_0² − 2E y_0y_1 over the data's own line
    share = density(LINE, straight, 0.0) * DX
    partner = torch.where(
        LINE < MEAN,
        torch.special.ndtri(below_data(LINE)),
        -torch.special.ndtri((W * torch.special.ndtr((M - LINE[:, None]) / V.sqrt())).sum(-1)),
    )
    near = share > 1e-15
    inner = (share * partner * LINE)[near].sum()
    assert_close(independent_budget()[1], 1 + SQUARE - 2 * inner, tol=1e-9)

    a, b = number([-1.5, -0.4, 0.1, 0.2, 1.0, 2.2]), number([-2.0, -1.1, 0.3, 0.9, 1.2, 1.3])
    best = min(((a - b[list(order)]) ** 2).sum() for order in itertools.permutations(range(6)))
    assert_close(((a - b) ** 2).sum(), best)


def root(C):
    values, basis = np.linalg.eigh(C)
    return basis * np.sqrt(values) @ basis.T


@equation("dflow-benamou")
def test_the_least_energy():
    """W₂² of Gaussians in the plane by its closed form; tight for the best pairing and, on the right, without bends."""
    shortest, ends, energies = [], [], []
    for C, K in (
        (DATA, np.zeros((2, 2))),
        (DATA, TURNED),
        (DATA, root(DATA)),
        (np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]])),
    ):
        A, energy, _, _ = gaussian_flow(C, K, nodes=40)
        shortest.append(np.trace(C) + 2 - 2 * np.trace(root(C)))
        ends.append(((np.eye(2) - A) ** 2).sum())
        energies.append(energy)
    assert_at_most(shortest, ends, tol=1e-9)
    assert_at_most(ends, energies, tol=1e-9)


@equation("dflow-rotation")
def test_straight_is_not_short():
    """The field by regression, S and V by the integrals; half a turn has no inverse at t = ½."""
    eye = np.eye(2)
    for omega in (0.4, math.pi / 2, 2.8):
        R = np.array([[math.cos(omega), -math.sin(omega)], [math.sin(omega), math.cos(omega)]])
        for t in (0.2, 0.5, 0.9):
            G = (1 - t) * R + t * eye
            regression = np.linalg.solve(G @ G.T, ((eye - R) @ G.T).T).T
            assert_close(regression, (eye - R) @ np.linalg.inv(G), tol=1e-11)
        A, _, bends, crossings = gaussian_flow(eye, R)
        assert_close([bends, crossings], [0.0, 0.0], tol=1e-9)
        assert_close(A, R, tol=1e-9)
        assert_close(((eye - R) ** 2).sum(), 4 * (1 - math.cos(omega)))
    assert np.linalg.det(0.5 * -eye + 0.5 * eye) == 0


def of_rank(x, i, count):
    """The density of the i-th smallest of `count` normal draws."""
    below = torch.special.ndtr(x)
    ways = math.factorial(count) / (math.factorial(i - 1) * math.factorial(count - i))
    return ways * below ** (i - 1) * (1 - below) ** (count - i) * log_normal(x, 0.0, 1.0).exp()


@equation("dflow-batch")
def test_pairing_within_a_batch():
    """Double sums over the two draws of each rank; their means from the ranks' distribution functions."""
    c, x = 1.7, DX * torch.arange(-90, 91, dtype=f64)
    squares = (x[:, None] - math.sqrt(c) * x) ** 2
    for count in (1, 2, 5):
        left, rho = 0.0, 0.0
        for i in range(1, count + 1):
            f = of_rank(x, i, count) * DX
            left += (f[:, None] * f * squares).sum() / count
            u, w = (v.numpy() for v in legendre(0, 9, 120))
            above, under = (scipy.special.betainc(i, count + 1 - i, scipy.special.ndtr(v)) for v in (u, -u))
            rho += (w * (1 - above - under)).sum() ** 2 / count
        assert_close(left, 1 + c - 2 * rho * math.sqrt(c), tol=1e-11)
    assert_close(scipy.integrate.quad(lambda q: scipy.special.ndtri(q) ** 2, 0, 1)[0], 1.0, tol=1e-9)  # ρ_∞


@equation("dflow-kl")
def test_how_a_divergence_moves():
    """Two mixtures, each with its own field: autograd in t; in the plane of (x_0, ε) pairs against independent ones."""
    other = number([0.8, 0.2])
    for when in (0.2, 0.6):
        (t,) = leaves(when)
        (x,) = leaves(LINE)
        p, q = (log_p(LINE, *straight(t), weights) for weights in (W, other))
        left = slope((p.exp() * (p - q)).sum() * DX, t).detach()
        scores = [slope(log_p(x, *straight(when), weights), x).detach() for weights in (W, other)]
        fields = [field(LINE, straight, when, weights) for weights in (W, other)]
        right = (p.exp() * (fields[0] - fields[1]) * (scores[0] - scores[1])).sum().detach() * DX
        assert_close(left, right, tol=1e-10)

        p = joint_law(LINE, t)[0].log()
        left = slope((p.exp() * (p - log_p(LINE, *straight(t)))).sum() * DX, t).detach()
        theirs = slope(joint_law(x, number(when))[0].log(), x).detach()
        off = joint_law(LINE, number(when))[1] - field(LINE, straight, when)
        right = (p.exp() * off * (theirs - slope(log_p(x, *straight(when)), x))).sum().detach() * DX
        assert_close(left, right, tol=1e-10)
