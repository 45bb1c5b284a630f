"""The equations of the page from the VAE to diffusion, in float64 and without sampling error.

Gaussian chains are held against conditioning of one joint covariance and against quadrature in mpmath; chains of bits
against plain sums over all paths.
"""

import itertools
import math

import mpmath
import numpy as np
import scipy.integrate
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode.diffusion import (
    Cosine,
    DiscreteProcess,
    EnumeratedDiffusion,
    FromBetas,
    Linear,
    all_states,
    bound_terms,
    marginal,
    model_distribution,
    tabulated,
    terminal_snr,
    transition,
)

f64 = torch.float64
BETAS = [0.1, 0.25, 0.4, 0.05]


def stochastic(*shape, seed):
    table = np.random.default_rng(seed).random(shape) + 0.1
    return table / table.sum(0)


def normal(x, mean, variance):
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def integral(f, low=-14.0, high=14.0):
    value, _ = scipy.integrate.quad(f, low, high, epsabs=1e-14, epsrel=1e-13, limit=400)
    return value


def divergence(p, q, low=-14.0, high=14.0):
    """KL of two densities."""
    return integral(lambda x: p(x) * math.log(p(x) / q(x)) if p(x) > 0 else 0.0, low, high)


def covariance(betas, variance=1.0):
    """Of (x_0, …, x_T) for data of this variance, from x_t = √(1−β) x_{t−1} + √β ε, one row of coefficients each."""
    rows = [np.eye(len(betas) + 1)[0] * math.sqrt(variance)]
    for t, beta in enumerate(betas, start=1):
        rows.append(math.sqrt(1 - beta) * rows[-1] + math.sqrt(beta) * np.eye(len(betas) + 1)[t])
    return np.array(rows) @ np.array(rows).T


def given(C, a, b):
    """x_a | x_b: slope and variance."""
    return C[a, b] / C[b, b], C[a, a] - C[a, b] ** 2 / C[b, b]


# --- the hierarchy ---------------------------------------------------------------------------------------------------


def tables(seed=0):
    """p(x_2), p(x_1|x_2), p(x_0|x_1), and q(x_1|x_0), q(x_2|x_1), columns summing to one."""
    return [stochastic(*shape, seed=seed + k) for k, shape in enumerate(((2,), (3, 2), (4, 3), (3, 4), (2, 3)))]


@equation("diffusion-joint")
def test_both_chains_are_markov():
    """The products sum to one, and with them no third level adds to what the neighbour says."""
    top, middle, below, up, further = tables()
    p = np.einsum("c,bc,ab->abc", top, middle, below)
    q = np.einsum("ba,cb->abc", up, further)
    assert_close(p.sum(), 1.0)
    assert_close(q.sum((1, 2)), np.ones(4))
    assert_close(p / p.sum(0), np.broadcast_to(below[:, :, None], p.shape).copy())
    assert_close(q / q.sum(2, keepdims=True), np.broadcast_to(further.T[None], q.shape).copy())


@equation("diffusion-evidence")
def test_the_likelihood_is_the_sum_over_all_ways():
    """Sums over tables: evidence two ways, and log p = ELBO + KL for every x_0."""
    top, middle, below, up, further = tables(5)
    for x0 in range(4):
        evidence, bound, gap = 0.0, 0.0, 0.0
        for b, c in itertools.product(range(3), range(2)):
            evidence += below[x0, b] * (middle[b, c] * top[c])
        assert_close(evidence, below[x0] @ (middle @ top))
        for b, c in itertools.product(range(3), range(2)):
            q, joint = up[b, x0] * further[c, b], below[x0, b] * middle[b, c] * top[c]
            bound += q * math.log(joint / q)
            gap += q * math.log(q / (joint / evidence))
        assert_close(bound + gap, math.log(evidence))


@equation("diffusion-step")
def test_one_step_of_the_noise():
    """The library's step of a table against its rate; unit variance is kept, another one is moved towards it."""
    schedule, x = FromBetas(BETAS), torch.tensor([[0.7, -1.2]], dtype=f64)
    for t, beta in enumerate(BETAS, start=1):
        step = transition(schedule, x, t - 1, t)
        assert_close(step.mean, math.sqrt(1 - beta) * x)
        assert_close(step.variance, beta)
    variances = np.diag(covariance(BETAS, 3.0))
    for t, beta in enumerate(BETAS, start=1):
        assert_close(variances[t], (1 - beta) * variances[t - 1] + beta)
    assert_close(np.diag(covariance(BETAS)).copy(), np.ones(5))


@equation("diffusion-alpha")
def test_the_signal_that_is_left():
    """The library's table of 300 steps against products in mpmath."""
    schedule = Linear(300)
    product = mpmath.mpf(1)
    for t, beta in enumerate(schedule.betas.tolist(), start=1):
        product *= mpmath.sqrt(1 - mpmath.mpf(beta))
        if t in (1, 2, 77, 300):
            alpha, sigma = schedule(t)
            assert_close(alpha, float(product), relative=True)
            assert_close(sigma.square(), float(1 - product**2), relative=True)


@equation("diffusion-marginal")
def test_any_level_in_one_draw():
    """Conditioning of the chain's joint covariance on x_0, for two variances of the data; the library beside it."""
    schedule, x0 = FromBetas(BETAS), torch.tensor([[1.7]], dtype=f64)
    for variance, t in itertools.product((1.0, 2.5), range(1, 5)):
        slope, left = given(covariance(BETAS, variance), t, 0)
        alpha = math.prod(math.sqrt(1 - b) for b in BETAS[:t])
        assert_close(alpha, slope)
        assert_close(1 - alpha**2, left)
        got = marginal(schedule, x0, t)
        assert_close(got.mean, slope * x0)
        assert_close(got.variance, left)


@equation("diffusion-kernel")
def test_longer_steps():
    """Conditioning on x_r and x_0 together: x_0 adds nothing, and the rest is the formula; the library beside it."""
    schedule, x = FromBetas(BETAS), torch.tensor([[0.4]], dtype=f64)
    C = covariance(BETAS, 2.5)
    for r, t in itertools.combinations(range(1, 5), 2):
        weights = np.linalg.solve(C[np.ix_([r, 0], [r, 0])], C[[r, 0], t])
        left = C[t, t] - weights @ C[[r, 0], t]
        alpha = {s: math.prod(math.sqrt(1 - b) for b in BETAS[:s]) for s in (r, t)}
        ratio = alpha[t] / alpha[r]
        assert_close(weights, [ratio, 0.0])
        assert_close((1 - alpha[t] ** 2) - ratio**2 * (1 - alpha[r] ** 2), left)
        assert_close(1 - ratio**2, left)
        got = transition(schedule, x, r, t)
        assert_close(got.mean, weights[0] * x)
        assert_close(got.variance, left)


@equation("diffusion-kernel-composition")
def test_two_steps_are_one():
    """One integral over the level between, also for a chain that does not keep the variance."""
    x, y = 0.6, -0.4
    for alphas, sigmas in (((0.9, 0.6, 0.3), (0.3, 0.7, 0.95)), ((1.0, 1.0, 1.0), (0.2, 0.9, 2.0))):
        a = {(r, t): alphas[t] / alphas[r] for r, t in ((0, 1), (1, 2), (0, 2))}
        v = {(r, t): sigmas[t] ** 2 - a[r, t] ** 2 * sigmas[r] ** 2 for r, t in a}
        assert_close(a[0, 2], a[1, 2] * a[0, 1])
        assert_close(v[0, 2], v[1, 2] + a[1, 2] ** 2 * v[0, 1])
        both = integral(lambda m, a=a, v=v: normal(m, a[0, 1] * x, v[0, 1]) * normal(y, a[1, 2] * m, v[1, 2]))
        assert_close(both, normal(y, a[0, 2] * x, v[0, 2]), tol=1e-11)  # quadrature


@equation("diffusion-continuous")
def test_many_short_steps_are_an_exponential():
    """Products for T up to 2,048, extrapolated in 1/T, against the integral of the rate; 30 digits throughout."""
    with mpmath.workdps(30):
        for u in (mpmath.mpf(1) / 2, mpmath.mpf(1)):
            values = []
            for k in range(4, 12):
                T = 2**k
                rates = [(mpmath.mpf("0.1") + mpmath.mpf("3.9") * s / T) / T for s in range(1, int(u * T) + 1)]
                values.append(mpmath.sqrt(mpmath.fprod(1 - b for b in rates)))
            assert_close(float(extrapolated(values)), math.exp(-0.5 * float(0.1 * u + 3.9 * u**2 / 2)))


def extrapolated(values):
    """The limit of values at step, step/2, step/4 …, when they are a power series in the step."""
    k = 1
    while len(values) > 1:
        values = [(2**k * b - a) / (2**k - 1) for a, b in itertools.pairwise(values)]
        k += 1
    return values[0]


# --- the end ---------------------------------------------------------------------------------------------------------


@equation("diffusion-log-snr")
def test_the_signal_to_noise_ratio():
    """The library's λ against both levels, and the levels from λ."""
    schedule = FromBetas(BETAS)
    for t in range(1, 5):
        left = math.prod(1 - b for b in BETAS[:t])
        snr = schedule.log_snr(t)
        assert_close(snr, math.log(left / (1 - left)))
        assert_close(left, 1 / (1 + math.exp(-snr)))
        assert_close(1 - left, 1 / (1 + math.exp(snr)))


@equation("diffusion-two-points")
def test_the_ratio_says_how_well_two_images_are_told_apart():
    """Quadrature of the divergence of two noised points, summed over two pixels."""
    left = math.prod(1 - b for b in BETAS[:2])
    alpha, variance = math.sqrt(left), 1 - left
    x, y = (0.3, -1.1), (1.0, 0.4)
    measured = sum(
        divergence(lambda z, a=a: normal(z, alpha * a, variance), lambda z, b=b: normal(z, alpha * b, variance), -8, 8)
        for a, b in zip(x, y, strict=True)
    )
    distance = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    assert_close(measured, alpha**2 * distance / (2 * variance), tol=1e-11)  # quadrature
    assert_close(alpha**2 * distance / (2 * variance), math.exp(FromBetas(BETAS).log_snr(2)) * distance / 2)


def humps(alpha, centres, weights, spread=0.25):
    """The density of a noised mixture of N(centre, spread)."""
    variance = alpha**2 * spread + 1 - alpha**2
    return lambda x: sum(w * normal(x, alpha * c, variance) for c, w in zip(centres, weights, strict=True))


@equation("diffusion-data-processing")
def test_noise_never_helps_to_tell_two_things_apart():
    """Divergence of two mixtures at falling α, by quadrature; zero stays zero."""
    nats = [
        divergence(humps(alpha, (-1.0, 1.5), (0.3, 0.7)), humps(alpha, (-0.5, 1.0), (0.6, 0.4)), -9, 9)
        for alpha in (1.0, 0.8, 0.5, 0.2)
    ]
    same = [
        divergence(humps(alpha, (-1.0, 1.5), (0.3, 0.7)), humps(alpha, (-1.0, 1.5), (0.3, 0.7))) for alpha in (1, 0.5)
    ]
    assert_at_most([*nats[1:], same[1]], [*nats[:-1], same[0]])
    assert nats[0] > 1.05 * nats[1] > 1.05**2 * nats[2]


@equation("diffusion-terminal-kl")
def test_what_the_end_costs_for_one_image():
    """Quadrature, pixel by pixel."""
    left, x0 = 0.3, (0.4, -1.7, 1.0)
    measured = sum(
        divergence(lambda z, c=c: normal(z, math.sqrt(left) * c, 1 - left), lambda z: normal(z, 0, 1), -10, 10)
        for c in x0
    )
    closed = 0.5 * (left * (sum(c * c for c in x0) - 3) - 3 * math.log(1 - left))
    assert_close(measured, closed, tol=1e-11)  # quadrature


@equation("diffusion-terminal-split")
def test_the_end_costs_information_and_mismatch():
    """A pixel that is +1 or −1: mutual information and mismatch by quadrature, their sum in closed form."""
    for left in (0.048, 0.4):
        alpha, variance = math.sqrt(left), 1 - left

        def end(x, alpha=alpha, variance=variance):
            return (normal(x, alpha, variance) + normal(x, -alpha, variance)) / 2

        def one(x, alpha=alpha, variance=variance):
            return normal(x, alpha, variance)

        information = divergence(one, end, -9, 9)  # the same for −1
        mismatch = divergence(end, lambda x: normal(x, 0, 1), -9, 9)
        term = divergence(one, lambda x: normal(x, 0, 1), -9, 9)
        assert_close(information + mismatch, term, tol=1e-11)  # quadrature
        assert_close(term, 0.5 * math.log(1 + left / (1 - left)), tol=1e-11)


@equation("diffusion-brightness")
def test_sheets_of_one_brightness():
    """½ (tr C − n − log det C) with the covariance written out."""
    for n, left in ((64, 0.048), (5, 0.3)):
        C = left * np.ones((n, n)) + (1 - left) * np.eye(n)
        measured = 0.5 * (np.trace(C) - n - np.linalg.slogdet(C)[1])
        closed = -0.5 * (math.log(1 + (n - 1) * left) + (n - 1) * math.log(1 - left))
        assert_close(closed, measured)


@equation("diffusion-linear-end")
def test_the_sum_of_the_rates_decides():
    """The library's end against the exponential of minus the sum of the rates, tight for rates of zero."""
    ends, bounds = [1.0], [math.exp(0.0)]
    for steps in (30, 300, 1000):
        schedule = Linear(steps)
        exponent = steps * (1e-4 + 0.02) / 2
        assert_close(schedule.betas.sum(), exponent)
        product = math.prod(1 - b for b in schedule.betas.tolist())
        assert_close(schedule(steps)[0].square(), product)
        ends.append(product)
        bounds.append(math.exp(-exponent))
    assert_at_most(ends, bounds)


@equation("diffusion-cosine")
def test_the_cosine_schedule():
    """The library's α² against the squared cosine wherever no rate was cut."""

    def F(u):
        return math.cos(math.pi / 2 * (u + 0.008) / 1.008) ** 2

    for steps in (50, 300):
        schedule = Cosine(steps)
        t = torch.arange(steps, dtype=f64)
        assert_close(schedule(t)[0].square(), [F(v / steps) / F(0) for v in range(steps)])
        assert_close(schedule.betas.max(), 0.999)


@equation("diffusion-zero-terminal")
def test_a_table_stretched_to_zero():
    """The library's stretched table against the line; its end is zero and its first level is kept."""
    for schedule in (Linear(300), FromBetas(BETAS)):
        t = torch.arange(1, schedule.steps + 1, dtype=f64)
        alpha = [math.sqrt(math.prod(1 - b for b in schedule.betas.tolist()[: int(s)])) for s in t]
        moved = [(a - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1]) for a in alpha]
        got = schedule.zero_terminal()(t)[0]
        assert_close(got, moved)
        assert_close(got[0], alpha[0])


# --- the step back ---------------------------------------------------------------------------------------------------

CENTRES, SPREADS, WEIGHTS = (-1, 1), ("0.5", "0.7"), ("0.4", "0.6")


def before(x):
    """A mixture of two Gaussians, in mpmath."""
    return sum(
        mpmath.mpf(w) * mpmath.npdf(x, c, mpmath.sqrt(mpmath.mpf(v)))
        for c, v, w in zip(CENTRES, SPREADS, WEIGHTS, strict=True)
    )


def log_after(x, beta):
    keep = 1 - beta
    return mpmath.log(
        sum(
            mpmath.mpf(w) * mpmath.npdf(x, mpmath.sqrt(keep) * c, mpmath.sqrt(keep * mpmath.mpf(v) + beta))
            for c, v, w in zip(CENTRES, SPREADS, WEIGHTS, strict=True)
        )
    )


def step_back(beta, xt):
    """q(x_{t−1}|x_t) by Bayes, and points that hold its mass."""
    centre, width = xt / mpmath.sqrt(1 - beta), mpmath.sqrt(beta / (1 - beta))

    def joint(y):
        return before(y) * mpmath.npdf(xt, mpmath.sqrt(1 - beta) * y, mpmath.sqrt(beta))

    points = [centre + k * width for k in (-14, -6, 0, 6, 14)]
    evidence = mpmath.quad(joint, points)
    return (lambda y: joint(y) / evidence), points


@equation("diffusion-reverse-density")
def test_the_step_back_is_an_exponential_family():
    """Bayes with a quadrature for the evidence, against the form that is linear in x_t."""
    with mpmath.workdps(25):
        for beta, xt in ((mpmath.mpf("0.2"), mpmath.mpf("0.3")), (mpmath.mpf("0.02"), mpmath.mpf("-0.8"))):
            density, _ = step_back(beta, xt)
            c = mpmath.sqrt(1 - beta) / beta
            A = log_after(xt, beta) + xt**2 / (2 * beta)
            for y in (mpmath.mpf("-0.9"), mpmath.mpf("0.25"), mpmath.mpf("0.6")):
                base = before(y) * mpmath.exp(-(1 - beta) * y**2 / (2 * beta)) / mpmath.sqrt(2 * mpmath.pi * beta)
                assert_close(float(mpmath.exp(c * xt * y - A) * base / density(y)), 1.0)


@equation("diffusion-reverse-cumulants")
def test_the_cumulants_of_a_step_back():
    """Moments by quadrature against derivatives of log q_t, the first four."""
    with mpmath.workdps(25):
        for beta, xt in ((mpmath.mpf("0.3"), mpmath.mpf("0.3")), (mpmath.mpf("0.02"), mpmath.mpf("-0.8"))):
            density, points = step_back(beta, xt)
            mean = mpmath.quad(lambda y, f=density: y * f(y), points)
            second, third, fourth = [
                mpmath.mpf(mpmath.quad(lambda y, f=density, k=k, m=mean: (y - m) ** k * f(y), points))
                for k in (2, 3, 4)
            ]
            slopes = [mpmath.diff(lambda x, b=beta: log_after(x, b), xt, k) for k in (1, 2, 3, 4)]
            root = mpmath.sqrt(1 - beta)
            wanted = [
                (xt + beta * slopes[0]) / root,
                beta / (1 - beta) * (1 + beta * slopes[1]),
                (beta / root) ** 3 * slopes[2],
                (beta / root) ** 4 * slopes[3],
            ]
            got = [mean, second, third, fourth - 3 * second**2]
            assert_close([float(g / w) for g, w in zip(got, wanted, strict=True)], 1.0)


@equation("diffusion-reverse-gap")
def test_what_the_best_gaussian_misses():
    """Both divergences over their leading terms, by quadrature with 25 digits from β = 0.01 down, extrapolated."""
    with mpmath.workdps(25):
        xt, ratios, widths = mpmath.mpf("0.3"), [], []
        for k in range(6):
            beta = mpmath.mpf("0.01") / 2**k
            density, points = step_back(beta, xt)
            mean = mpmath.quad(lambda y, f=density: y * f(y), points)
            variance = mpmath.quad(lambda y, f=density, m=mean: (y - m) ** 2 * f(y), points)

            def excess(y, f=density, m=mean, v=variance):
                weight = f(y)
                return weight * (mpmath.log(weight * mpmath.sqrt(2 * mpmath.pi * v)) + (y - m) ** 2 / (2 * v))

            gap = mpmath.quad(excess, points)
            third = mpmath.diff(lambda x, b=beta: log_after(x, b), xt, 3)
            ratios.append(gap / (beta**3 * third**2 / 12))
            given_width = beta / (1 - beta)

            def wider(y, m=mean, v=variance, w=given_width):
                square = (y - m) ** 2
                return mpmath.npdf(y, m, mpmath.sqrt(v)) * (mpmath.log(w / v) + square / w - square / v) / 2

            second = mpmath.diff(lambda x, b=beta: log_after(x, b), xt, 2)
            widths.append(mpmath.quad(wider, points) / (beta**2 * second**2 / 4))
        assert abs(ratios[-1] - 1) < 1e-3
        for series in (ratios, widths):
            assert_close(float(extrapolated(series)), 1.0, tol=1e-8)  # six terms of a series in β


# --- bits ------------------------------------------------------------------------------------------------------------


@equation("diffusion-bits-step")
def test_a_flip_is_a_throw_of_twice_the_rate():
    """The library's two kinds of noise against the matrix written out."""
    for f in (0.05, 0.3, 0.5):
        table = [[1 - f, f], [f, 1 - f]]
        thrown = [[(1 - 2 * f) * (i == j) + 2 * f / 2 for j in range(2)] for i in range(2)]
        assert_close(table, thrown)
        assert_close(DiscreteProcess.flips([f]).matrices[0], table)
        assert_close(DiscreteProcess.uniform([2 * f], 2).matrices[0], table)


@equation("diffusion-bits-marginal")
def test_products_of_throws():
    """The ordered product of the matrices, in loops, for two and for five categories; the mean of a spin."""
    rates = [0.1, 0.35, 0.2]
    for k in (2, 5):
        product = np.eye(k)
        for t, rate in enumerate(rates, start=1):
            step = [[(1 - rate) * (i == j) + rate / k for j in range(k)] for i in range(k)]
            product = [[sum(step[i][m] * product[m][j] for m in range(k)) for j in range(k)] for i in range(k)]
            alpha = math.prod(1 - r for r in rates[:t])
            assert_close(alpha * np.eye(k) + (1 - alpha) / k * np.ones((k, k)), product)
            assert_close(DiscreteProcess.uniform(rates, k).cumulative[t], product)
            if k == 2:
                assert_close(product[1][1] - product[0][1], alpha)  # E[x_t | x_0 = 1] of a spin


def crooked(steps=3, k=2, seed=3):
    """Matrices without symmetry, as a process and as lists."""
    tables_ = np.moveaxis(stochastic(k, steps, k, seed=seed), 0, 1)
    return DiscreteProcess(torch.from_numpy(tables_.copy())), tables_.tolist()


def words(n, k=2):
    return [tuple(reversed(word)) for word in itertools.product(range(k), repeat=n)]


def entry(table, after, past):
    return math.prod(table[a][b] for a, b in zip(after, past, strict=True))


def ways(process_tables, p0, n, k=2):
    """(x_0, …, x_T) as rows of `words`, and its probability, for every path."""
    rows = words(n, k)
    for path in itertools.product(range(len(rows)), repeat=len(process_tables) + 1):
        weight = p0[path[0]]
        for t, table in enumerate(process_tables):
            weight *= entry(table, rows[path[t + 1]], rows[path[t]])
        yield path, weight


P0 = [0.3, 0.05, 0.15, 0.5]


@equation("diffusion-bits-sites")
def test_states_are_noised_site_by_site():
    """The library's matrix of the whole state and its marginals against products over sites and sums over paths."""
    process, steps = crooked()
    exact, rows = EnumeratedDiffusion(process, torch.tensor(P0, dtype=f64)), words(2)
    for t, table in enumerate(steps, start=1):
        assert_close(exact.forward(t), [[entry(table, a, b) for b in rows] for a in rows])
    from_0 = np.zeros((4, 4))
    for path, weight in ways(steps, [1.0] * 4, 2):
        from_0[path[-1], path[0]] += weight
    bar = process.cumulative[-1].tolist()
    assert_close([[entry(bar, a, b) for b in rows] for a in rows], from_0)
    assert_close(exact.marginal(3), from_0 @ np.array(P0))


@equation("diffusion-bits-posterior")
def test_a_step_back_of_a_site_whose_past_is_known():
    """Sums over all paths of one site with three categories."""
    process, steps = crooked(3, 3, seed=4)
    for t in (1, 2, 3):
        counted = np.zeros((3, 3, 3))  # x_{t−1}, x_t, x_0
        for path, weight in ways(steps[:t], [1.0] * 3, 1, 3):
            counted[path[t - 1], path[t], path[0]] += weight
        counted = counted / counted.sum(0)
        bars = [process.cumulative[s].tolist() for s in (t - 1, t)]
        pairs = list(itertools.product(range(3), repeat=2))
        bayes = [[steps[t - 1][i][k] * bars[0][k][j] / bars[1][i][j] for k in range(3)] for i, j in pairs]
        wanted = [counted[:, i, j] for i, j in pairs]
        assert_close(np.array(bayes), np.array(wanted))
        xt, x0 = torch.tensor(pairs).split(1, 1)
        assert_close(process.posterior(x0, xt, t)[:, 0], np.array(wanted))


@equation("diffusion-by-bayes")
def test_the_reverse_matrices_bring_the_data_back():
    """Each matrix against sums over paths, and their ordered product on p_T."""
    process, steps = crooked()
    exact = EnumeratedDiffusion(process, torch.tensor(P0, dtype=f64))
    p = exact.marginal(3)
    for t in (3, 2, 1):
        joint = np.zeros((4, 4))
        for path, weight in ways(steps, P0, 2):
            joint[path[t - 1], path[t]] += weight
        reverse = exact.reverse(t)
        assert_close(reverse, joint / joint.sum(0))
        p = reverse @ p
    assert_close(p, P0)


def some_model(seed):
    """Matrices p_θ(x_{t−1} | x_t), columns summing to one."""
    return {t: stochastic(4, 4, seed=seed + t) for t in (1, 2, 3)}


@equation("diffusion-bits-bound")
def test_the_mean_bound_in_its_parts():
    """−E log(p_θ/q) over all paths, against entropy, end and mismatches from the library's reverse matrices."""
    process, steps = crooked()
    exact, rows = EnumeratedDiffusion(process, torch.tensor(P0, dtype=f64)), words(2)
    prior = [0.4, 0.6]
    whole_prior = np.array([math.prod(prior[v] for v in row) for row in rows])
    model = some_model(20)
    whole = 0.0
    for path, weight in ways(steps, P0, 2):
        ratio = math.log(whole_prior[path[3]])
        for t in (1, 2, 3):
            ratio += math.log(model[t][path[t - 1], path[t]])
            ratio -= math.log(entry(steps[t - 1], rows[path[t]], rows[path[t - 1]]))
        whole -= weight * ratio
    end = exact.marginal(3).numpy()
    parts = -sum(p * math.log(p) for p in P0) + float((end * np.log(end / whole_prior)).sum())
    for t in (1, 2, 3):
        truth = exact.reverse(t).numpy()
        parts += float((exact.marginal(t).numpy() * (truth * np.log(truth / model[t])).sum(0)).sum())
    assert_close(parts, whole)
    terms = bound_terms(exact, lambda t: torch.from_numpy(model[t]), torch.tensor(prior, dtype=f64))
    assert_close(terms.sum(), whole)


@equation("diffusion-total-correlation")
def test_what_independent_sites_miss():
    """Entropies of tables summed over paths; the library's factors attain the minimum, moved ones do not."""
    process, steps = crooked()
    exact, rows = EnumeratedDiffusion(process, torch.tensor(P0, dtype=f64)), words(2)
    for t in (1, 2, 3):
        joint = np.zeros((4, 4))
        for path, weight in ways(steps, P0, 2):
            joint[path[t - 1], path[t]] += weight
        truth, p = joint / joint.sum(0), joint.sum(0)
        ones = [
            np.array([[truth[[r[i] == k for r in rows]].sum(0)[x] for k in (0, 1)] for x in range(4)]) for i in (0, 1)
        ]
        gap = sum(-float((p[:, None] * m * np.log(m)).sum()) for m in ones) + float((p * truth * np.log(truth)).sum())

        def missed(factors, truth=truth, p=p):
            product = np.array([[math.prod(factors[x, i, v] for i, v in enumerate(r)) for x in range(4)] for r in rows])
            return float((p * truth * np.log(truth / product)).sum())

        best = exact.site_reverse(t).numpy()
        assert_close(missed(best), gap)
        moved = [best + shift * np.array([1, -1]) * best.min() for shift in (-0.3, 0.1)]
        assert_at_most([gap] * 3, [missed(best), *(missed(m) for m in moved)])


@equation("diffusion-clean-mixture")
def test_the_mean_over_the_clean_site_is_exact():
    """p(x_{t−1,i}|x_t) and p(x_{0,i}|x_t) from all paths; the library's step from the second gives the first."""
    process, steps = crooked()
    rows, states = words(2), all_states(2)
    for t in (1, 2, 3):
        past, clean = np.zeros((4, 2, 2)), np.zeros((4, 2, 2))
        for path, weight in ways(steps, P0, 2):
            for i in (0, 1):
                past[path[t], i, rows[path[t - 1]][i]] += weight
                clean[path[t], i, rows[path[0]][i]] += weight
        past, clean = past / past.sum(-1, keepdims=True), clean / clean.sum(-1, keepdims=True)
        low, bar = process.cumulative[t - 1].tolist(), process.cumulative[t].tolist()
        mean = np.zeros_like(past)
        for x, i, k, j in itertools.product(range(4), (0, 1), (0, 1), (0, 1)):
            v = rows[x][i]
            mean[x, i, k] += steps[t - 1][v][k] * low[k][j] / bar[v][j] * clean[x, i, j]
        assert_close(mean, past)
        assert_close(process.reverse(torch.from_numpy(clean), states, t), past)


@equation("diffusion-cavity")
def test_the_joint_wants_the_other_sites_only():
    """The same from p(x_{0,i}| the other site); with p(x_{0,i}|x_t) in its place it is another distribution."""
    process, steps = crooked()
    rows, states, wrong = words(2), all_states(2), []
    for t in (1, 2, 3):
        past, others, clean = (np.zeros((4, 2, 2)) for _ in range(3))
        for path, weight in ways(steps, P0, 2):
            for i, x in itertools.product((0, 1), range(4)):
                if rows[x][1 - i] == rows[path[t]][1 - i]:
                    others[x, i, rows[path[0]][i]] += weight
            for i in (0, 1):
                past[path[t], i, rows[path[t - 1]][i]] += weight
                clean[path[t], i, rows[path[0]][i]] += weight
        past, others, clean = (table / table.sum(-1, keepdims=True) for table in (past, others, clean))
        low = process.cumulative[t - 1].tolist()

        def joint(said, t=t, low=low):
            table = np.array(
                [
                    [[steps[t - 1][rows[x][i]][k] * (np.array(low[k]) @ said[x, i]) for k in (0, 1)] for i in (0, 1)]
                    for x in range(4)
                ]
            )
            return table / table.sum(-1, keepdims=True)

        assert_close(joint(others), past)
        seen = process.posterior_of(torch.from_numpy(others), states, t)
        assert_close(seen, clean)
        assert_close(process.reverse(seen, states, t), past)
        wrong.append(np.abs(joint(clean) - past).max())
    assert wrong[0] > 0.01  # the evidence of the site counted twice


# --- exercises -------------------------------------------------------------------------------------------------------


@equation("diffusion-constant-rate")
def test_one_rate_for_all_steps():
    """The library's chain with the rate of the formula ends where it should."""
    for steps, snr in ((100, 1e-4), (7, 0.3)):
        beta = 1 - (snr / (1 + snr)) ** (1 / steps)
        assert_close(terminal_snr(FromBetas([beta] * steps)), snr)
        assert_close((1 - beta) ** steps, snr / (1 + snr))


@equation("diffusion-mask-gap")
def test_two_equal_bits_under_a_mask():
    """The library's exact bound and distribution of the best factorised model."""
    for steps in (1, 2, 10):
        process = DiscreteProcess.absorbing([1 / (steps - t) for t in range(steps)])
        p0 = torch.zeros(9, dtype=f64)
        p0[0] = p0[4] = 0.5
        exact = EnumeratedDiffusion(process, p0)
        gap = bound_terms(exact, exact.site_reverse).sum() - math.log(2)
        assert_close(math.log(2) / steps, gap)
        states = all_states(2, 3)
        rule = tabulated(lambda x, t, e=exact, p=process: p.reverse(e.site_clean(t), x, t), states)
        p = model_distribution(process, 2, rule)
        assert_close(-math.log(1 - 1 / (2 * steps)), float((p0[[0, 4]] * (p0[[0, 4]] / p[[0, 4]]).log()).sum()))
        assert_close(p[[1, 3]].sum(), 1 / (2 * steps))
