"""The equations of the page on samplers, in float64 and without sampling error.

Paths are the closed form for Gaussian data, or solved by SciPy's Runge–Kutta of order 8; coefficients are integrals by
quadrature, beside the package's tables.
"""

import itertools
import math
from functools import partial

import mpmath
import numpy as np
import scipy.integrate
import sympy
import torch
from harness import assert_at_most, assert_close, assert_zero, equation

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Pilot,
    VariancePreserving,
    ancestral,
    ddim,
    dpm_solver,
    dynamic_grid,
    exponential,
    fitted,
    gaussian_exponential,
    heun,
    sample,
)

f64 = torch.float64
SCHEDULES = (VariancePreserving(), EDM(20.0))


def vp(t):
    """α and σ of the rate 0.1 + 19.9 t."""
    lost = 0.1 * t + 9.95 * t**2
    return math.exp(-lost / 2), math.sqrt(-math.expm1(-lost))


def time_of(log_snr):
    """The time where vp has this log SNR."""
    lost = math.log1p(math.exp(-log_snr))
    return 2 * lost / (0.1 + math.sqrt(0.01 + 4 * 9.95 * lost))


def path(t, c=0.3, m=0.7, z=1.4):
    """x_t, x̂_0 and u on the path of N(m, c) that stays z standard deviations away."""
    alpha, sigma = vp(t)
    s = math.sqrt(alpha**2 * c + sigma**2)
    return alpha * m + s * z, m + alpha * c * z / s, alpha / sigma


def quad(f, low, high):
    return scipy.integrate.quad(f, low, high, epsabs=1e-14, epsrel=1e-13)[0]


def lagrange(nodes, j, at):
    return math.prod((at - other) / (nodes[j] - other) for i, other in enumerate(nodes) if i != j)


class Bent:
    """Any smooth function of x_t and t, as a denoiser."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, xt, t):
        return torch.tanh(1.3 * xt) + 0.2 * math.tanh(float(t))


class Straight:
    """x̂_0 = ℓ, whatever x is; α = 1 and t = σ."""

    schedule = EDM(20.0)

    def __call__(self, xt, t):
        return torch.full_like(xt, -math.log(float(t)))


@equation("dsamp-difference")
def test_ddim_is_a_difference():
    x = torch.randn(5, 2, generator=seeded(1), dtype=f64)
    for t, r in ((1.0, 0.5), (0.5, 0.49), (0.2, 0.01)):
        (alpha_t, sigma_t), (alpha_r, sigma_r) = vp(t), vp(r)
        clean = Bent(None)(x, t)
        made = sample(Bent(VariancePreserving()), ddim, x, [t, r]) / sigma_r
        assert_close(made, x / sigma_t + (alpha_r / sigma_r - alpha_t / sigma_t) * clean, relative=True)
        noise = (x - alpha_t * clean) / sigma_t
        assert_close(made, (alpha_r * clean + sigma_r * noise) / sigma_r, relative=True)


def derivative(f, t):
    """Five points; a step of 1e-3 t leaves about 1e-11 of truncation and of rounding each."""
    h = 1e-3 * t
    return (f(t - 2 * h) - 8 * f(t - h) + 8 * f(t + h) - f(t + 2 * h)) / (12 * h)


@equation("dsamp-flow")
def test_the_flow_on_gaussian_paths():
    """d(x/σ)/du along the closed path by differences (1e-9), as a ratio of two derivatives in t."""
    for t in (0.1, 0.3, 0.6, 0.9):
        change = derivative(lambda t: path(t)[0] / vp(t)[1], t) / derivative(lambda t: path(t)[2], t)
        assert_close(change, path(t)[1], tol=1e-9)


@equation("dsamp-flow-forms")
def test_the_other_forms_of_the_flow():
    """Both on the closed path by differences (1e-9), with the rates of the schedule."""
    schedule = VariancePreserving()
    for t in (0.1, 0.3, 0.6, 0.9):
        x, clean, u = path(t)
        alpha, sigma = vp(t)
        change = derivative(lambda t: path(t)[0] / vp(t)[0], t) / derivative(lambda t: 1 / path(t)[2], t)
        assert_close(change, (x / alpha - clean) * u, tol=1e-9)
        rate = 0.1 + 19.9 * t
        assert_close(derivative(lambda t: path(t)[0], t), -rate / 2 * (x + (alpha * clean - x) / sigma**2), tol=1e-9)
        f, g2 = schedule.rates(torch.tensor(t, dtype=f64))
        assert_close([float(f), float(g2)], [-rate / 2, rate])


@equation("dsamp-gaussian")
def test_the_path_of_gaussian_data():
    """SciPy's solution of the flow in u (1e-8), and the package's closed form."""
    model = GaussianDenoiser(torch.tensor([0.7], dtype=f64), 0.3, VariancePreserving())
    t, r, c, m = 0.9, 0.1, 0.3, 0.7
    x, _, first = path(t)

    def slope(u, z):
        sigma2 = 1 / (1 + u * u)  # α² + σ² = 1
        alpha = u * math.sqrt(sigma2)
        return m + alpha * c * (z * math.sqrt(sigma2) - alpha * m) / (alpha**2 * c + sigma2)

    solved = scipy.integrate.solve_ivp(
        slope, (first, path(r)[2]), [x / vp(t)[1]], method="DOP853", rtol=1e-12, atol=1e-12
    )
    assert_close(solved.y[0, -1] * vp(r)[1], path(r)[0], tol=1e-8)
    assert_close(model.flow(torch.tensor([[x]], dtype=f64), t, r), path(r)[0])


@equation("dsamp-local")
def test_what_a_step_of_ddim_leaves():
    """A Gaussian path with α² + σ² = 1: x̂_0 = c u x/(s²/σ) written as a function of u."""
    c, m, z = 0.3, 0.7, 1.4

    def clean(u):
        return m + u * c * z / math.sqrt(u * u * c + 1)

    def change(u):
        return c * z / math.sqrt(u * u * c + 1) ** 3

    for t, r in ((0.9, 0.5), (0.5, 0.2), (0.3, 0.29)):
        (x, first, u_t), (end, _, u_r) = path(t), path(r)
        assert_close(clean(u_t), first)
        made = sample(
            GaussianDenoiser(torch.tensor([m], dtype=f64), c, VariancePreserving()),
            ddim,
            torch.tensor([[x]], dtype=f64),
            [t, r],
        )
        left = (end - made.item()) / vp(r)[1]
        assert_close(left, quad(lambda u, u_t=u_t, clean=clean: clean(u) - clean(u_t), u_t, u_r), tol=1e-11)
        assert_close(left, quad(lambda u, u_r=u_r, change=change: (u_r - u) * change(u), u_t, u_r), tol=1e-11)


@equation("dsamp-heun")
def test_heun_in_two_lines():
    x = torch.randn(5, 2, generator=seeded(2), dtype=f64)
    for schedule in SCHEDULES:
        model, (t, r) = Bent(schedule), (0.8, 0.3)
        (alpha_t, sigma_t), (alpha_r, sigma_r) = (tuple(map(float, schedule(s))) for s in (t, r))
        h = math.log(sigma_t / alpha_t * alpha_r / sigma_r)
        first = model(x, t)
        guess = sigma_r / sigma_t * x + alpha_r * (1 - math.exp(-h)) * first
        assert_close(guess, sample(model, ddim, x, [t, r]))
        expected = guess + alpha_r * (math.exp(h) - 1) / 2 * (model(guess, r) - first)
        assert_close(sample(model, heun, x, [t, r]), expected)


@equation("dsamp-trapezoid")
def test_heun_is_the_trapezoid():
    x = torch.randn(5, 2, generator=seeded(3), dtype=f64)
    for schedule in SCHEDULES:
        model, (t, r) = Bent(schedule), (0.8, 0.3)
        (alpha_t, sigma_t), (alpha_r, sigma_r) = (tuple(map(float, schedule(s))) for s in (t, r))
        high, low = sigma_t / alpha_t, sigma_r / alpha_r
        y = x / alpha_t
        slope = (y - model(x, t)) / high
        guess = y + (low - high) * slope
        assert_close((guess - model(x, t)) / low, slope)
        far = (guess - model(alpha_r * guess, r)) / low
        assert_close(sample(model, heun, x, [t, r]) / alpha_r, y + (low - high) / 2 * (slope + far))


@equation("dsamp-variation")
def test_variation_of_constants():
    """The closed path of Gaussian data, and the integral over its x̂_0 by quadrature."""
    for first, last in ((-4.0, -1.0), (-1.0, 0.5), (0.5, 3.0)):
        t, r, h = time_of(first), time_of(last), (last - first) / 2
        integral = quad(lambda v, h=h, first=first: math.exp(v - h) * path(time_of(first + 2 * v))[1], 0, h)
        (_, sigma_t), (alpha_r, sigma_r) = vp(t), vp(r)
        assert_close(sigma_r / sigma_t * path(t)[0] + alpha_r * integral, path(r)[0], tol=1e-11)


def grid_of(ell):
    """Times of EDM: α = 1, σ = e^{−ℓ}."""
    return [math.exp(-value) for value in ell]


ELL = [-2.0, -1.6, -0.9, -0.5, 0.4, 1.1]


@equation("dsamp-weights")
def test_each_weight_is_its_integral():
    for order in (1, 2, 3, 4):
        row = exponential(EDM(20.0), grid_of(ELL), order, corrected=False)
        assert_close(row.a[-1], math.exp(ELL[4] - ELL[5]))
        nodes, h = [ELL[4 - j] - ELL[4] for j in range(order)], ELL[5] - ELL[4]
        for j in range(order):
            weight = quad(lambda v, h=h, nodes=nodes, j=j: math.exp(v - h) * lagrange(nodes, j, v), 0, h)
            assert_close(row.b[-1, j], weight, tol=1e-11)
    alpha = vp(0.3)[0]  # another α_r: the same numbers times α_r
    ell = [math.log(vp(t)[0] / vp(t)[1]) for t in (0.9, 0.5, 0.3)]
    nodes, h = [0.0, ell[0] - ell[1]], ell[2] - ell[1]
    weights = [alpha * quad(lambda v, j=j: math.exp(v - h) * lagrange(nodes, j, v), 0, h) for j in (0, 1)]
    assert_close(exponential(VariancePreserving(), [0.9, 0.5, 0.3], 2).b[-1], weights, tol=1e-11)


@equation("dsamp-moments")
def test_the_moments():
    for h in (0.5, 1.0, 2.5):
        moment = -math.expm1(-h)
        for k in range(4):
            moment = h**k - k * moment if k else moment
            assert_close(moment, quad(lambda v, h=h, k=k: math.exp(v - h) * v**k, 0, h), tol=1e-11)


@equation("dsamp-two-step")
def test_two_steps():
    row = exponential(EDM(20.0), grid_of(ELL), 2).b[-1]
    q, h = ELL[4] - ELL[3], ELL[5] - ELL[4]
    m0 = 1 - math.exp(-h)
    m1 = h - m0
    assert_close(row, [m0 + m1 / q, -m1 / q])


@equation("dsamp-midpoint")
def test_what_the_midpoint_leaves():
    """The integral and the bound, which is tight for h → 0; the package's 2M has ½ h M_0."""
    for h in (0.0, 0.01, 0.5, 2.0):
        m0 = -math.expm1(-h)
        integral = quad(lambda v, h=h: math.exp(v - h) * v * (h - v), 0, h) / 2
        assert_close(h - m0 - h * m0 / 2, integral)
        assert_at_most(integral, h**3 / 12) if h in (0.0, 0.01) else None
        assert integral <= h**3 / 12
    q, h = ELL[4] - ELL[3], ELL[5] - ELL[4]
    m0 = 1 - math.exp(-h)
    assert_close(dpm_solver(EDM(20.0), grid_of(ELL)).b[-1], [m0 + h * m0 / (2 * q), -h * m0 / (2 * q)])


@equation("dsamp-newton")
def test_newtons_form():
    """Against Lagrange's form; and the package's 3M with D″ and with half of it."""
    d, v1, v2 = [0.3, -1.1, 0.8], -0.7, -1.5
    d01, d12 = (d[0] - d[1]) / -v1, (d[1] - d[2]) / (v1 - v2)
    d012 = (d01 - d12) / -v2
    slope, curve = d01 - v1 * d012, 2 * d012
    for v in (-1.5, -0.7, 0.0, 0.4):
        newton = d[0] + d01 * v + d012 * v * (v - v1)
        assert_close(newton, sum(d[j] * lagrange([0.0, v1, v2], j, v) for j in range(3)))
        assert_close(newton, d[0] + slope * v + curve * v**2 / 2)
    ell = [v2, v1, 0.0, 0.6]
    m = [quad(lambda v, k=k: math.exp(v - 0.6) * v**k, 0, 0.6) for k in range(3)]
    for curvature in (1.0, 0.5):
        row = dpm_solver(EDM(20.0), grid_of(ell), 3, curvature=curvature).b[-1].tolist()
        made = sum(b * value for b, value in zip(row, d, strict=True))
        assert_close(made, m[0] * d[0] + m[1] * slope + curvature * m[2] * curve / 2, tol=1e-11)


@equation("dsamp-start")
def test_the_first_step_is_never_mended():
    """x̂_0 = ℓ and orders 2 to 4, led up to: d(x/σ)/dℓ = ℓ e^ℓ has the integral (ℓ − 1) e^ℓ."""
    first, last = -1.0, 1.5
    for order in (2, 3, 4):
        for count in (5, 20):
            ell = np.linspace(first, last, count + 1)
            h = (last - first) / count
            x = torch.full((1, 1), 2.0, dtype=f64)
            made = sample(Straight(), exponential(EDM(20.0), grid_of(ell), order, corrected=False), x)
            exact = 2.0 * math.exp(first) + (last - 1) * math.exp(last) - (first - 1) * math.exp(first)
            left = made.item() * math.exp(last) - exact
            assert_close(left, -math.exp(first + h) * (h - 1 + math.exp(-h)), tol=1e-11)


@equation("dsamp-corrected")
def test_the_start_takes_the_whole_way_anew():
    """The first two steps of order 3 by quadrature, then one past the start."""
    model, x0 = Bent(EDM(20.0)), torch.randn(4, 2, generator=seeded(4), dtype=f64)
    ell, answers, x = ELL[:4], [], x0
    for k in range(2):
        answers.append(model(x, math.exp(-ell[k])))
        end, nodes = ell[k + 1], ell[: k + 1]
        w = [
            quad(lambda s, end=end, nodes=nodes, j=j: math.exp(s - end) * lagrange(nodes, j, s), ell[0], end)
            for j in range(k + 1)
        ]
        x = math.exp(ell[0] - end) * x0 + sum(a * b for a, b in zip(w, answers, strict=True))
    answers.append(model(x, math.exp(-ell[2])))
    w = [quad(lambda s, j=j: math.exp(s - ell[3]) * lagrange(ell[:3], j, s), ell[2], ell[3]) for j in range(3)]
    x = math.exp(ell[2] - ell[3]) * x + sum(a * b for a, b in zip(w, answers, strict=True))
    assert_close(sample(model, exponential(EDM(20.0), grid_of(ell), 3), x0), x, tol=1e-11)


@equation("dsamp-last")
def test_the_last_step():
    """The flow and DDIM's last step of Gaussian data, as the package takes them; the bound is tight for σ → 0."""
    one = torch.ones(1, 1, dtype=f64)
    for c in (0.25, 1.0, 4.0):
        for sigma in (0.0, 1e-4, 0.1, 2.0):
            q = c / (c + sigma**2)
            if sigma:
                model = GaussianDenoiser(torch.zeros(1, dtype=f64), c, EDM(20.0))
                assert_close(model.flow(one, sigma, 0.0), math.sqrt(q))
                assert_close(sample(model, ddim, one, [sigma, 0.0]), q)
            else:
                assert_at_most(math.sqrt(q) - q, 0.0)
            assert math.sqrt(q) - q <= sigma**2 / (2 * c) + 1e-16
    c, sigma = sympy.symbols("c sigma", positive=True)
    q = c / (c + sigma**2)
    assert_zero(sympy.series(sympy.sqrt(q) - q - sigma**2 / (2 * c), sigma, 0, 4).removeO())


@equation("dsamp-eta")
def test_what_is_drawn_is_taken_from_the_old_noise():
    """The mean and the variance of a step given x_0; and at η = 1 the posterior by Gaussian conditioning."""
    t, r = 0.7, 0.4
    (alpha_t, sigma_t), (alpha_r, sigma_r) = vp(t), vp(r)
    ratio = alpha_t / alpha_r
    lost = sigma_t**2 - ratio**2 * sigma_r**2
    for eta in (0.0, 0.3, 1.0):
        row = ddim(VariancePreserving(), [t, r], eta)
        a, b, n = row.a.item(), row.b.item(), row.noise.item()
        drawn = eta**2 * lost * sigma_r**2 / sigma_t**2
        kept = math.sqrt(sigma_r**2 - drawn)
        assert_close([a, b, n], [kept / sigma_t, alpha_r - kept * alpha_t / sigma_t, math.sqrt(drawn)])
        assert_close([a * alpha_t + b, a**2 * sigma_t**2 + n**2], [alpha_r, sigma_r**2])
    gain = ratio * sigma_r**2 / sigma_t**2  # Cov(x_r, x_t | x_0)/Var(x_t | x_0)
    assert_close([a, b], [gain, alpha_r - gain * alpha_t])
    assert_close(n**2, sigma_r**2 - gain * ratio * sigma_r**2)


@equation("dsamp-variance")
def test_the_variance_of_one_step():
    """E x_r² by Gauss–Hermite sums over x_t and the noise, with the step written out."""
    e, w = np.polynomial.hermite_e.hermegauss(8)
    w = w / w.sum()
    t, r, c, v = 0.7, 0.4, 0.25, 0.8
    (alpha, sigma), (alpha_r, sigma_r) = vp(t), vp(r)
    model = GaussianDenoiser(torch.zeros(1, dtype=f64), c, VariancePreserving())
    x = math.sqrt(v) * torch.tensor(e, dtype=f64)[:, None]
    clean = model(x, t)
    lost = sigma**2 - (alpha / alpha_r) ** 2 * sigma_r**2
    posterior = alpha / alpha_r * sigma_r**2 / sigma**2 * x + alpha_r * lost / sigma**2 * clean
    means = {ddim: alpha_r * clean + sigma_r * (x - alpha * clean) / sigma, ancestral: posterior}
    deviations = {ddim: 0.0, ancestral: math.sqrt(lost) * sigma_r / sigma}
    for rule, mean in means.items():
        made = mean + deviations[rule] * torch.tensor(e, dtype=f64)
        second = (torch.tensor(np.outer(w, w)) * made**2).sum()
        row = rule(VariancePreserving(), [t, r])
        gain = row.a.item() + row.b.item() * alpha * c / (alpha**2 * c + sigma**2)
        assert_close(second, gain**2 * v + row.noise.item() ** 2)


@equation("dsamp-angles")
def test_cosines_of_the_angles():
    """The package's DDIM on N(0, 1) at equal angles down to 0; the limit by SymPy."""
    schedule = VariancePreserving()
    model = GaussianDenoiser(torch.zeros(1, dtype=f64), 1.0, schedule)
    start = math.acos(vp(0.95)[0])
    for count in (1, 4, 10):
        angles = [start * (1 - k / count) for k in range(count)]
        times = [0.95, *(time_of(-2 * math.log(math.tan(phi))) for phi in angles[1:]), 0.0]
        made = sample(model, ddim, torch.ones(1, 1, dtype=f64), times).item()
        assert_close(made**2, math.cos(start / count) ** (2 * count))
    uneven = [0.95, 0.5, 0.45, 0.1, 0.0]
    turned = [math.acos(vp(t)[0]) for t in uneven]
    gains = [math.cos(a - b) ** 2 for a, b in itertools.pairwise(turned)]
    assert_close(sample(model, ddim, torch.ones(1, 1, dtype=f64), uneven).item() ** 2, math.prod(gains))
    x, phi = sympy.symbols("x phi", positive=True)  # x = 1/N
    exponent = sympy.expand(2 / x * sympy.series(sympy.log(sympy.cos(phi * x)), x, 0, 6).removeO())
    power = sympy.series(sympy.exp(exponent), x, 0, 2).removeO()
    assert_zero(sympy.expand(power - 1 + phi**2 * x))


@equation("dsamp-forget")
def test_the_ancestral_step_forgets():
    """The table's gain and noise on N(0, 1), against α_t/α_r; the flow hands an error on."""
    schedule = VariancePreserving()
    table = ancestral(schedule, [0.9, 0.6, 0.3, 0.1], "step")
    v = excess = 1.7
    for t, r, (a, b, n) in zip(
        (0.9, 0.6, 0.3), (0.6, 0.3, 0.1), torch.stack([table.a, table.b[:, 0], table.noise], 1).tolist(), strict=True
    ):
        before, v = v, (a + b * vp(t)[0]) ** 2 * v + n**2
        assert_close(v - 1, (vp(t)[0] / vp(r)[0]) ** 2 * (before - 1))
    assert_close(v - 1, (vp(0.9)[0] / vp(0.1)[0]) ** 2 * (excess - 1))
    model = GaussianDenoiser(torch.zeros(1, dtype=f64), 1.0, schedule)
    x = torch.tensor([[1.7]], dtype=f64)
    assert_close(model.flow(x, 0.9, 0.1), x)


WIDTHS = torch.tensor([0.0, 0.25, 2.0], dtype=f64)


class Leaning:
    """m + αcz/s² and a rest of 0.7 − 0.4 ℓ, in three directions at once; α = 1 and t = σ."""

    schedule = EDM(20.0)
    mean = torch.tensor([0.5, -1.0, 0.2], dtype=f64)

    def __call__(self, xt, t):
        return self.mean + WIDTHS * (xt - self.mean) / (WIDTHS + t**2) + 0.7 + 0.4 * math.log(t)


def leaning_rest(c, ell):
    return (0.7 - 0.4 * ell) / math.sqrt(c + math.exp(-2 * ell))


@equation("dsamp-rest")
def test_the_rest_about_the_flow_of_gaussian_data():
    """Its slope by mpmath, with any R(u); and the package's table of order 3 where R is a straight line in ℓ."""
    with mpmath.workdps(40):
        c, start, first = mpmath.mpf("0.3"), mpmath.mpf("0.2"), mpmath.mpf("0.7")

        def rest(u):
            return mpmath.cos(2 * u) + u / 3

        def scaled(u):  # z/σ = √(1 + cu²) z/s
            integral = mpmath.quad(lambda v: rest(v) / mpmath.sqrt(1 + c * v**2), [start, u])
            return mpmath.sqrt(1 + c * u**2) * (first + integral)

        for u in (0.5, 1.3, 4.0):
            alpha = u / math.sqrt(1 + u**2)
            s2 = alpha**2 * 0.3 + 1 / (1 + u**2)
            z = float(scaled(u)) / math.sqrt(1 + u**2)
            assert_close(float(mpmath.diff(scaled, u)), alpha * 0.3 * z / s2 + float(rest(u)), tol=1e-11)

    model, grid = Leaning(), [8.0, 3.0, 1.0, 0.4, 0.05]
    x = torch.tensor([[3.0, -7.0, 5.0]], dtype=f64)
    made = sample(model, gaussian_exponential(model.schedule, grid, model.mean, WIDTHS, order=3), x)
    for i, c in enumerate(WIDTHS.tolist()):
        integral = quad(partial(leaning_rest, c), -math.log(8), -math.log(0.05))
        before, after = math.sqrt(c + 64), math.sqrt(c + 0.0025)
        z = (x[0, i] - model.mean[i]).item()
        assert_close(made[0, i] - model.mean[i], after / before * z + after * integral)


def falling(c, u):
    return 1 / math.sqrt(1 + c * u**2)


@equation("dsamp-arsinh")
def test_the_weight_of_a_constant_rest():
    """Quadrature; the weights of the package's order 1; and c → 0."""
    for c in (1e-6, 0.25, 3.0):
        for low, high in ((0.05, 0.9), (0.9, 100.0)):
            root = math.sqrt(c)
            closed = (math.asinh(root * high) - math.asinh(root * low)) / root
            assert_close(quad(partial(falling, c), low, high), closed, tol=1e-11)
            table = gaussian_exponential(EDM(20.0), [1 / low, 1 / high], torch.zeros(1, dtype=f64), c, order=1)
            assert_close(table.b[0, 0], math.sqrt(c + high**-2) * closed)
    assert_close((math.asinh(1e-4 * 0.9) - math.asinh(1e-4 * 0.05)) / 1e-4, 0.85, tol=1e-8)  # what is left is c u³/6


def cost(edges, path):
    return sum(edges[i][j] for i, j in itertools.pairwise(path))


def small_pilot(candidates):
    model = GaussianMixtureDenoiser(
        torch.tensor([0.4, 0.6], dtype=f64),
        torch.tensor([[1.0, 0.5], [-0.8, 0.3]], dtype=f64),
        torch.tensor([[0.1, 0.3], [0.2, 0.05]], dtype=f64),
        EDM(5.0),
    )
    start = 5 * torch.randn(12, 2, generator=seeded(3), dtype=f64)
    return Pilot.run(model, start, candidates=candidates, high=6.0)


@equation("dsamp-bellman")
def test_the_shortest_path_by_bellmans_recursion():
    """All grids one by one: for lengths drawn at random, and for those of DDIM's steps the package's grid."""
    edges = torch.rand(9, 9, generator=seeded(1), dtype=f64).tolist()
    values = [edges[0][j] for j in range(9)]
    for n in range(2, 6):
        values = [min((values[i] + edges[i][j] for i in range(n - 1, j)), default=math.inf) for j in range(9)]
        every = [(0, *inner, 8) for inner in itertools.combinations(range(1, 8), n - 1)]
        assert_close(values[8], min(cost(edges, path) for path in every))

    pilot = small_pilot(9)
    last = len(pilot.times) - 1
    edges = [[math.inf] * (last + 1) for _ in range(last)]
    for i in range(last):
        for j in range(i + 1, last + 1):
            t, r = pilot.times[[i, j]].tolist()
            made = r / t * pilot.x[i] + (1 - r / t) * pilot.answers[i]
            error = (pilot.x[j] - made) @ pilot.basis
            edges[i][j] = (error * (pilot.variances / (pilot.variances + r**2)).sqrt()).norm(dim=1).mean().item()
    for calls in (2, 3, 4):
        every = [(0, *inner, last) for inner in itertools.combinations(range(1, last), calls - 1)]
        chosen = [pilot.times.tolist().index(t) for t in dynamic_grid(pilot, calls, 1, gaussian=False).tolist()]
        assert_close(cost(edges, chosen), min(cost(edges, path) for path in every))


@equation("dsamp-fitted-row")
def test_one_row_of_a_fitted_table():
    """Row by row in plain tensors; and what was added is the same multiple of the weights of order 1 everywhere."""
    pilot = small_pilot(9)
    table = fitted(pilot, dynamic_grid(pilot, 4), rounds=2, memory=2)
    grid = torch.cat([table.times, table.times.new_zeros(1)])
    about = pilot.mean, (pilot.basis * pilot.variances) @ pilot.basis.mT
    plain = gaussian_exponential(EDM(5.0), grid, *about, corrected=False)
    single = gaussian_exponential(EDM(5.0), grid, *about, order=1)
    added = (table.b[:, :2] - plain.b) / single.b
    assert added.abs().max() > 0.01
    assert_close(added[..., 0], added[..., 1], tol=1e-10)  # differences of rounded weights, over weights

    rests, z = [], (pilot.x_noise - pilot.mean) @ pilot.basis
    c = pilot.variances
    for k, (t, r) in enumerate(itertools.pairwise(grid.tolist())):
        answer = pilot.denoiser(pilot.mean + z @ pilot.basis.mT, t)
        rests.insert(0, (answer - pilot.mean) @ pilot.basis - c * z / (c + t**2))
        z = ((c + r**2) / (c + t**2)).sqrt() * z
        for j, rest in enumerate(rests[:2]):
            z = z + (plain.b[k, j] + added[k, j, 0] * single.b[k, 0]) * rest
    assert_close(sample(pilot.denoiser, table, pilot.x_noise), pilot.mean + z @ pilot.basis.mT, tol=1e-10)


@equation("dsamp-gauss-newton")
def test_a_damped_step():
    """Where r is linear, a step solves the least squares with a row √μ for each δ; and the package's first step."""
    rng = np.random.default_rng(0)
    jacobian, end, p = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=3)
    root = np.sqrt(rng.uniform(0.5, 2, 12))
    normal = jacobian.T @ (root[:, None] ** 2 * jacobian)
    for mu in (0.0, 0.3):
        r = jacobian @ p - end
        delta = np.linalg.solve(normal + mu * np.diag(normal.diagonal()), jacobian.T @ (root**2 * r))
        ridge = np.diag(np.sqrt(mu * normal.diagonal()))
        rows = np.vstack([root[:, None] * jacobian, ridge]), np.concatenate([root * end, ridge @ p])
        assert_close(torch.from_numpy(p - delta), torch.from_numpy(np.linalg.lstsq(*rows)[0]))

    pilot = small_pilot(9)
    grid = dynamic_grid(pilot, 3)
    about = pilot.mean, (pilot.basis * pilot.variances) @ pilot.basis.mT

    def left(p):
        times = torch.cat([grid[:1], torch.exp(-p / 2), grid[-1:]])
        table = gaussian_exponential(EDM(5.0), times, *about, corrected=False)
        return sample(pilot.denoiser, table, pilot.x_noise) - pilot.x[-1]

    p, nudge = -2 * grid[1:-1].log(), torch.finfo(f64).eps ** (3 / 8)  # one round on the times alone
    moved = p + 2 * fitted(pilot, grid, memory=0, rounds=1).times[1:].log()
    r = left(p)
    w = 1 / (r.norm(dim=1) + r.norm(dim=1).median() / 2).repeat_interleave(2)
    jacobian = torch.stack([(left(p + nudge * unit) - r).flatten() / nudge for unit in torch.eye(2, dtype=f64)], 1)
    normal = jacobian.mT @ (w[:, None] * jacobian)
    assert moved.abs().min() > 1e-3
    step = (normal + 0.04 * torch.diag(normal.diagonal())) @ moved  # μ = 0.01 makes the ends worse, and is refused
    assert_close(step, jacobian.mT @ (w * r.flatten()), tol=1e-8)  # differences of rounded ends, over a nudge of 1e-6


@equation("dsamp-lengths")
def test_weights_that_make_squares_into_lengths():
    """The gradient of a sum of lengths by autograd, row by row, and with all rows at once."""
    p = torch.tensor([0.4, -1.1, 0.7], dtype=f64)
    factors = torch.randn(5, 2, 3, generator=seeded(4), dtype=f64)

    def gaps(p):
        return torch.tanh(factors @ p) + (factors @ p.square()) - 0.3

    (gradient,) = torch.autograd.grad(gaps(q := p.clone().requires_grad_()).norm(dim=1).sum(), q)
    jacobian, r = torch.autograd.functional.jacobian(gaps, p), gaps(p)
    one_by_one = sum(jacobian[i].mT @ r[i] / r[i].norm() for i in range(5))
    weights = (1 / r.norm(dim=1)).repeat_interleave(2)
    assert_close(gradient, one_by_one)
    assert_close(gradient, jacobian.reshape(10, 3).mT @ (weights * r.flatten()))
