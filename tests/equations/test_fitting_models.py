"""The equations of probability/fitting-models, each against finite sums, fractions, mpmath or quadrature."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import torch
from harness import assert_at_most, assert_close, assert_zero, equation
from scipy import integrate, optimize, stats

from lecturecode import entropy, kl

P4 = [0.35, 0.1, 0.15, 0.4]  # a table of four states, and a second one
Q4 = [0.2, 0.25, 0.3, 0.25]
SPINS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
COUNTS = [9, 2, 3, 6]


def plain_kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def plain_entropy(p):
    return -math.fsum(a * math.log(a) for a in p if a > 0)


def two_spins(J, b):
    """The four probabilities, by exponentials and a division."""
    f = [math.exp(J * s * t + b * (s + t)) for s, t in SPINS]
    return [v / math.fsum(f) for v in f]


def tables(p, draws):
    """Every list of draws with its probability."""
    for rows in itertools.product(range(len(p)), repeat=draws):
        yield rows, math.prod(p[i] for i in rows)


def gaussian(x, mu, sigma):
    return math.exp(-((x - mu) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2)


def log_gaussian(x, mu, sigma):
    return -((x - mu) ** 2) / (2 * sigma**2) - 0.5 * math.log(2 * math.pi * sigma**2)


def line_integral(function, low=-14.0, high=14.0, points=4001):
    """The trapezoidal rule on a fine grid: for smooth functions that vanish at both ends its error is rounding."""
    x = np.linspace(low, high, points)
    return math.fsum(function(v) for v in x) * (x[1] - x[0])


def bumps(x):
    return 0.6 * gaussian(x, -2.0, 0.7) + 0.4 * gaussian(x, 2.0, 0.5)


def torch_normal(mu, sigma):
    return torch.distributions.Normal(*torch.tensor([mu, sigma], dtype=torch.float64))


def multivariate(mean, cov):
    mean, cov = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, cov))
    return torch.distributions.MultivariateNormal(mean, cov)


def plane_divergence(mean_p, cov_p, mean_q, cov_q, half_width=9.0, points=361):
    """KL by a double sum over a square grid, with densities written out for two dimensions."""
    axis = np.linspace(-half_width, half_width, points)
    x, y = np.meshgrid(axis, axis)

    def log_density(mean, cov):
        (a, b), (_, d) = cov
        det = a * d - b * b
        u, v = x - mean[0], y - mean[1]
        return -(d * u * u - 2 * b * u * v + a * v * v) / (2 * det) - math.log(2 * math.pi) - 0.5 * math.log(det)

    log_p, log_q = log_density(mean_p, cov_p), log_density(mean_q, cov_q)
    return float((np.exp(log_p) * (log_p - log_q)).sum() * (axis[1] - axis[0]) ** 2)


MEAN_P, MEAN_Q = [0.5, -0.3], [-0.2, 0.4]
COV_P, COV_Q = [[0.8, 0.5], [0.5, 0.7]], [[1.2, -0.3], [-0.3, 0.9]]
A, SHIFT = [[1.2, 0.4], [0.3, -0.9]], [0.7, -0.5]


@equation("iid-likelihood")
def test_the_joint_of_independent_draws_is_the_product():
    """The table ∏ p(x_i) has p as every marginal and every conditional, exactly, and torch's joint equals it."""
    p = [Fraction(7, 20), Fraction(1, 10), Fraction(3, 20), Fraction(2, 5)]
    joint = {rows: math.prod(p[i] for i in rows) for rows in itertools.product(range(4), repeat=3)}
    for place, value in itertools.product(range(3), range(4)):
        assert_close(float(sum(v for rows, v in joint.items() if rows[place] == value)), float(p[value]))
    given = {rows: v / sum(joint[(k, *rows[1:])] for k in range(4)) for rows, v in joint.items()}
    assert all(v == p[rows[0]] for rows, v in given.items())
    three = torch.distributions.Categorical(torch.tensor([float(v) for v in p], dtype=torch.float64).expand(3, 4))
    three = torch.distributions.Independent(three, 1)
    rows = torch.tensor(list(joint))
    assert_close(three.log_prob(rows).exp(), [float(v) for v in joint.values()])


@equation("log-likelihood")
def test_the_logarithm_is_a_sum_over_points_and_over_counts():
    """The logarithm of the exact product, taken in 50 digits, against both sums."""
    rows = [x for x, count in enumerate(COUNTS) for _ in range(count)]
    with mpmath.workdps(50):
        exact = float(mpmath.log(mpmath.fprod(mpmath.mpf(P4[x]) for x in rows)))
    assert_close(math.fsum(math.log(P4[x]) for x in rows), exact)
    assert_close(math.fsum(n * math.log(p) for n, p in zip(COUNTS, P4, strict=True)), exact)


@equation("two-spin-model")
def test_two_spin_model():
    """`log_softmax` of the linear features is log f − log Z with Z summed over the states, not over the data."""
    theta = torch.tensor([0.7, -0.3], dtype=torch.float64)
    states = torch.tensor(SPINS, dtype=torch.float64)
    features = torch.stack([states.prod(1), states.sum(1)], dim=1)
    with mpmath.workdps(30):
        J, b = mpmath.mpf(theta[0].item()), mpmath.mpf(theta[1].item())
        f = [mpmath.exp(J * s * t + b * (s + t)) for s, t in SPINS]
        table = [float(v / mpmath.fsum(f)) for v in f]
        over_data = [float(f[i] / mpmath.fsum(f[k] * COUNTS[k] for k in range(4))) for i in range(4)]
    assert_close((features @ theta).log_softmax(0).exp(), table)
    assert abs(sum(over_data) - 1) > 0.1


@equation("empirical-distribution")
def test_relative_frequencies():
    """The mean of indicators over the list of points is the table of counts divided by their number."""
    rows = [x for x, count in enumerate(COUNTS) for _ in range(count)]
    for x in range(4):
        assert_close(sum(float(r == x) for r in rows) / len(rows), float(Fraction(COUNTS[x], 20)))


@equation("maximum-likelihood-kl")
def test_likelihood_is_minus_entropy_minus_divergence():
    """Identity by plain sums (and by the library); then two optimisers, and one number of two is not enough."""
    rows = [x for x, count in enumerate(COUNTS) for _ in range(count)]
    empirical = [n / 20 for n in COUNTS]

    def per_point(theta):
        p = two_spins(*theta)
        return math.fsum(math.log(p[x]) for x in rows) / len(rows)

    for theta in [(0.0, 0.0), (0.7, -0.3), (-1.1, 0.6)]:
        q = torch.tensor(two_spins(*theta), dtype=torch.float64)
        p = torch.tensor(empirical, dtype=torch.float64)
        assert_close(-plain_entropy(empirical) - plain_kl(empirical, q.tolist()), per_point(theta))
        assert_close(-entropy(p) - kl(p, q), per_point(theta))

    # argmax by its equations (mean features of data and model agree), argmin by descending the divergence
    def mismatch(theta):
        return [
            math.fsum((p - q) * s * t for p, q, (s, t) in zip(empirical, two_spins(*theta), SPINS, strict=True)),
            math.fsum((p - q) * (s + t) for p, q, (s, t) in zip(empirical, two_spins(*theta), SPINS, strict=True)),
        ]

    highest = optimize.root(mismatch, [0.0, 0.0], tol=1e-14).x
    lowest = optimize.minimize(
        lambda theta: plain_kl(empirical, two_spins(*theta)),
        [0.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-12, "fatol": 1e-16, "maxiter": 2000},
    ).x
    # a value is flat at its minimum: rounding in it moves the argument by about its square root
    assert_close(lowest, highest, tol=2e-7)
    assert all(
        per_point(highest) > per_point(highest + step) for step in 0.01 * np.array([[1, 0], [0, 1], [1, 1], [1, -1]])
    )
    assert all(
        per_point(highest) > per_point(highest - step) for step in 0.01 * np.array([[1, 0], [0, 1], [1, 1], [1, -1]])
    )

    # the board's θ ∈ ℝ: the best point of a line in the plane is worse
    line = optimize.minimize_scalar(lambda J: plain_kl(empirical, two_spins(J, 0.0)), bounds=(-3, 3), method="bounded")
    assert line.fun > plain_kl(empirical, two_spins(*highest)) + 1e-3


@equation("two-spin-split")
def test_chain_rule_for_the_merged_outcome():
    """Four outcomes against three merged ones plus the split inside the merged one, at several θ."""
    p = [n / 20 for n in COUNTS]
    differ = p[1] + p[2]
    for theta in [(0.4, 0.1), (-0.5, 0.8)]:
        q = two_spins(*theta)
        merged = plain_kl([p[0], differ, p[3]], [q[0], q[1] + q[2], q[3]])
        inside = plain_kl([p[1] / differ, p[2] / differ], [0.5, 0.5])
        assert_close(merged + differ * inside, plain_kl(p, q))


@equation("two-spin-fit")
def test_closed_form_of_the_fit():
    """The closed form against the roots of the likelihood equations, for two tables of counts."""
    for counts in (COUNTS, [12, 1, 3, 4]):
        p = [n / sum(counts) for n in counts]
        half = (p[1] + p[2]) / 2
        J = 0.25 * math.log(p[0] * p[3] / half**2)
        b = 0.25 * math.log(p[0] / p[3])

        def mismatch(theta, p=p):
            q = two_spins(*theta)
            return [q[0] - p[0], q[3] - p[3]]

        assert_close([J, b], optimize.root(mismatch, [0.1, 0.1], tol=1e-14).x, tol=1e-11)


@equation("expected-log-likelihood")
def test_mean_over_all_data_sets():
    """All 64 data sets of three points, weighted, against −H(p) − KL(p‖p_θ)."""
    q = two_spins(0.3, 0.2)
    mean = math.fsum(chance * math.fsum(math.log(q[x]) for x in rows) / 3 for rows, chance in tables(P4, 3))
    assert_close(mean, math.fsum(p * math.log(v) for p, v in zip(P4, q, strict=True)))
    assert_close(mean, -plain_entropy(P4) - plain_kl(P4, q))


@equation("training-bias")
def test_training_flatters_and_new_data_do_not():
    """All data sets of up to five points for families with 1, 3 and 9 members; one member is the tight case."""
    truth = two_spins(0.5, 0.2)
    grid = [-0.6, 0.0, 0.6]
    families = [[(0.5, 0.2)], [(J, 0.0) for J in grid], [(J, b) for J in grid for b in grid]]
    training, best, held_out = [], [], []
    for family, points in itertools.product(families, (1, 3, 5)):
        logs = [[math.log(v) for v in two_spins(*theta)] for theta in family]
        worth = [math.fsum(p * v for p, v in zip(truth, log, strict=True)) for log in logs]
        seen, new = [], []
        for rows, chance in tables(truth, points):
            scores = [math.fsum(log[x] for x in rows) / points for log in logs]
            winner = max(range(len(family)), key=scores.__getitem__)
            seen.append(chance * scores[winner])
            new.append(chance * worth[winner])
        training.append(math.fsum(seen))
        best.append(max(worth))
        held_out.append(math.fsum(new))
    assert_at_most(best, training)
    assert_at_most(held_out, best)
    assert training[-1] > best[-1] + 1e-2
    assert best[-1] > held_out[-1] + 1e-2


@equation("optimism-gaussian")
def test_one_parameter_costs_one_over_N():
    """Gauss–Hermite sums (exact for these polynomials) over N points of the line; n coordinates add."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    mu = 0.3
    for points, n in ((1, 1), (2, 3), (3, 5)):
        training = held_out = 0.0
        for picks in itertools.product(range(4), repeat=points):
            chance = math.prod(weights[k] for k in picks)
            x = mu + nodes[list(picks)]
            training += chance * float(np.mean([log_gaussian(v, x.mean(), 1.0) for v in x]))
            held_out += chance * sum(
                w * log_gaussian(mu + v, x.mean(), 1.0) for v, w in zip(nodes, weights, strict=True)
            )
        assert_close(n * (training - held_out), n / points)
        assert_close(training, -0.5 * math.log(2 * math.pi) - 0.5 * (1 - 1 / points))
        assert_close(held_out, -0.5 * math.log(2 * math.pi) - 0.5 * (1 + 1 / points))


@equation("forward-product")
def test_independent_fit_takes_the_marginals():
    """Four terms against the three divergences; its minimum over a grid of means is at the marginals."""
    first, second = [P4[0] + P4[1], P4[2] + P4[3]], [P4[0] + P4[2], P4[1] + P4[3]]

    def product(a, b):
        return [a[i] * b[k] for i in range(2) for k in range(2)]

    for on_1, on_2 in [(0.2, 0.7), (0.5, 0.5), (first[0], second[0])]:
        q1, q2 = [on_1, 1 - on_1], [on_2, 1 - on_2]
        right = plain_kl(P4, product(first, second)) + plain_kl(first, q1) + plain_kl(second, q2)
        assert_close(plain_kl(P4, product(q1, q2)), right)


@equation("mean-field-divergence")
def test_reverse_divergence_of_independent_spins():
    """Four terms of Σ q log(q/p) against the formula in the two means."""

    def spin_entropy(m):
        return plain_entropy([(1 + m) / 2, (1 - m) / 2])

    for J, m1, m2 in [(0.5, 0.1, -0.3), (1.5, 0.8, 0.8), (-0.7, 0.6, 0.2)]:
        q = [(1 + s * m1) / 2 * (1 + t * m2) / 2 for s, t in SPINS]
        formula = -spin_entropy(m1) - spin_entropy(m2) - J * m1 * m2 + math.log(4 * math.cosh(J))
        assert_close(formula, plain_kl(q, two_spins(J, 0.0)))


@equation("mean-field")
def test_mean_field_equations():
    """At the solution the derivative of the table's divergence vanishes; below J = 1 zero is the only one."""

    def divergence(m1, m2, J):
        q = [(1 + s * m1) / 2 * (1 + t * m2) / 2 for s, t in SPINS]
        return sum(v * mpmath.log(v / p) for v, p in zip(q, two_spins(J, 0.0), strict=True))

    with mpmath.workdps(30):
        for J in (1.2, 1.5, 2.0):
            m = mpmath.findroot(
                lambda v, J=J: mpmath.diff(lambda u: divergence(u, u, J), v), (0.55, 0.99), solver="anderson"
            )
            assert_close(float(mpmath.tanh(J * m)), float(m), tol=1e-11)  # two_spins is in float64
            sides = [
                mpmath.diff(lambda u, m=m, J=J: divergence(u, m, J), m),
                mpmath.diff(lambda u, m=m, J=J: divergence(m, u, J), m),
            ]
            assert_close([float(v) for v in sides], [0.0, 0.0], tol=1e-11)
            assert divergence(m, m, J) < divergence(mpmath.mpf(0), mpmath.mpf(0), J) - 1e-3
    u = np.linspace(-1, 1, 2001)
    for J in (0.0, 0.5, 1.0):  # u − tanh(J tanh(J u)) has the sign of u: no solution but zero
        assert np.all((u - np.tanh(J * np.tanh(J * u)))[u > 1e-9] > 0)
    m = u[np.abs(u - np.tanh(1.5 * u)).argsort()[:3]]  # three solutions beyond
    assert np.ptp(m) > 1.5


@equation("forward-gaussian")
def test_forward_divergence_needs_two_moments():
    """Quadrature of KL(two bumps‖Gaussian) against the formula in the entropy, the mean and the variance."""
    own = -line_integral(lambda x: bumps(x) * math.log(bumps(x)))
    mean, variance = 0.6 * -2 + 0.4 * 2, 0.6 * (0.49 + 4) + 0.4 * (0.25 + 4) - 0.4**2
    for mu, sigma in [(0.0, 1.5), (-0.4, 2.0), (1.0, 3.0)]:
        right = -own + 0.5 * math.log(2 * math.pi * sigma**2) + (variance + (mean - mu) ** 2) / (2 * sigma**2)
        direct = line_integral(lambda x, mu=mu, s=sigma: bumps(x) * (math.log(bumps(x)) - log_gaussian(x, mu, s)))
        assert_close(right, direct, tol=1e-11)  # sums of 4001 terms


@equation("moment-matching")
def test_forward_fit_has_the_moments():
    """The root of the slopes of a quadrature, written out, against the mixture's moments; beside it all is higher."""
    x = np.linspace(-14, 14, 4001)
    p = np.array([bumps(v) for v in x])
    step = x[1] - x[0]

    def slopes(theta):
        mu, sigma = theta
        return [
            float((p * (mu - x)).sum() * step / sigma**2),
            float((p * (1 / sigma - (x - mu) ** 2 / sigma**3)).sum() * step),
        ]

    fit = optimize.root(slopes, [0.5, 1.5], tol=1e-14).x
    variance = 0.6 * (0.49 + 4) + 0.4 * (0.25 + 4) - 0.4**2
    assert_close([fit[0], fit[1] ** 2], [-0.4, variance], tol=1e-11)

    def objective(mu, sigma):
        return float((p * (0.5 * np.log(2 * np.pi * sigma**2) + (x - mu) ** 2 / (2 * sigma**2))).sum() * step)

    around = [objective(fit[0] + a, fit[1] + b) for a, b in [(0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1), (3, 3), (0, 9)]]
    assert min(around) > objective(*fit)


@equation("mode-cost")
def test_forgetting_a_component_costs_at_most_its_weight():
    """Quadrature for overlapping bumps; tables without overlap are the tight case."""
    apart = [0.3, 0.3, 0.4 * 0.25, 0.4 * 0.75]  # components (½, ½, 0, 0) and (0, 0, ¼, ¾) with weights 0.6, 0.4
    costs = [plain_kl([0.5, 0.5, 0, 0], apart), plain_kl([0, 0, 0.25, 0.75], apart)]
    for mu, sigma in [(-2.0, 0.7), (2.0, 0.5)]:
        costs.append(
            line_integral(lambda x, mu=mu, s=sigma: gaussian(x, mu, s) * (log_gaussian(x, mu, s) - math.log(bumps(x))))
        )
    bounds = [-math.log(0.6), -math.log(0.4)] * 2
    assert_at_most(costs, bounds)
    assert_close(costs[:2], bounds[:2])
    assert costs[2] < bounds[2]


@equation("variational-free-energy")
def test_divergence_from_an_unnormalised_density():
    """Σ q log(q/p) with p = f/Z against log Z minus the expectation, and its sign, tight at q = p."""
    f = [2.0, 0.3, 1.1, 4.6]
    Z = math.fsum(f)
    p = [v / Z for v in f]
    bounds = []
    for q in (Q4, P4, p):
        expectation = math.fsum(b * (math.log(a) - math.log(b)) for a, b in zip(f, q, strict=True))
        assert_close(math.log(Z) - expectation, plain_kl(q, p))
        bounds.append(expectation)
    assert_at_most(bounds, math.log(Z))


@equation("gaussian-log-ratio")
def test_log_ratio_of_two_gaussians():
    """The logarithm of the quotient of two densities in 40 digits, at points far out too."""
    with mpmath.workdps(40):
        mp, sp, mq, sq = (mpmath.mpf(v) for v in ("0.7", "0.6", "-0.2", "1.1"))
        for x in (-3, 0, 0.5, 8):
            x = mpmath.mpf(x)
            ratio = mpmath.log(mpmath.npdf(x, mp, sp) / mpmath.npdf(x, mq, sq))
            formula = mpmath.log(sq / sp) - (x - mp) ** 2 / (2 * sp**2) + (x - mq) ** 2 / (2 * sq**2)
            assert_close(float(formula), float(ratio))


@equation("gaussian-kl")
def test_gaussian_divergence_in_one_dimension():
    """The formula and the library against adaptive quadrature in 25 digits; σ in place of σ² fails."""
    for mp, sp, mq, sq in [(0.7, 0.6, -0.2, 1.1), (0.0, 2.0, 0.5, 0.8), (1.0, 1.0, 1.0, 1.0)]:
        formula = math.log(sq / sp) + (sp**2 + (mp - mq) ** 2) / (2 * sq**2) - 0.5
        with mpmath.workdps(25):
            exact = mpmath.quad(
                lambda x, a=mp, s=sp, b=mq, t=sq: (
                    mpmath.npdf(x, a, s)
                    * (mpmath.log(t) - mpmath.log(s) - (x - a) ** 2 / (2 * s**2) + (x - b) ** 2 / (2 * t**2))
                ),
                [mp - 12 * sp, mp - 3 * sp, mp, mp + 3 * sp, mp + 12 * sp],
            )
        assert_close(formula, float(exact))
        assert_close(kl(torch_normal(mp, sp), torch_normal(mq, sq)), float(exact))
        wrong = math.log(sq / sp) + (sp + (mp - mq) ** 2) / (2 * sq) - 0.5
        assert sp == sq or abs(wrong - float(exact)) > 1e-2


@equation("gaussian-kl-diagonal")
def test_gaussian_divergence_with_diagonal_covariances():
    """The sum and the library against a double sum over the plane."""
    mean_p, width_p, mean_q, width_q = [0.5, -0.3], [0.8, 0.6], [-0.2, 0.4], [1.1, 0.9]
    total = math.fsum(
        math.log(t / s) + (s**2 + (a - b) ** 2) / (2 * t**2) - 0.5
        for a, s, b, t in zip(mean_p, width_p, mean_q, width_q, strict=True)
    )
    cov_p, cov_q = ([[w[0] ** 2, 0.0], [0.0, w[1] ** 2]] for w in (width_p, width_q))
    exact = plane_divergence(mean_p, cov_p, mean_q, cov_q)
    assert_close(total, exact, tol=1e-11)  # a sum of 130,000 terms
    d = torch.distributions
    both = [
        d.Independent(d.Normal(*torch.tensor([m, w], dtype=torch.float64)), 1)
        for m, w in ((mean_p, width_p), (mean_q, width_q))
    ]
    assert_close(kl(*both), exact, tol=1e-11)


@equation("affine-density")
def test_density_of_a_mapped_variable():
    """x uniform on the unit square: A x + b has density 1/|det A| by area; a Gaussian by scipy's density."""
    a, shift = np.array(A), np.array(SHIFT)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ a.T + shift
    x, y = corners.T
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))  # the shoelace formula
    assert_close(1 / abs(np.linalg.det(a)), 1 / area)
    mapped = stats.multivariate_normal(a @ MEAN_P + shift, a @ COV_P @ a.T)
    original = stats.multivariate_normal(MEAN_P, COV_P)
    for y in ([0.1, 0.2], [1.4, -0.7], [-1.0, 2.0]):
        back = np.linalg.solve(a, np.array(y) - shift)
        assert_close(original.pdf(back) / abs(np.linalg.det(a)), mapped.pdf(y))


@equation("kl-invariance")
def test_divergence_is_the_same_in_other_units():
    """Double sums over the plane before and after the map; then two bumps against a Gaussian under x → −2x + 1."""
    a, shift = np.array(A), np.array(SHIFT)
    mapped = [((a @ m + shift).tolist(), (a @ c @ a.T).tolist()) for m, c in ((MEAN_P, COV_P), (MEAN_Q, COV_Q))]
    before = plane_divergence(MEAN_P, COV_P, MEAN_Q, COV_Q)
    after = plane_divergence(*mapped[0], *mapped[1], half_width=13.0, points=521)
    assert_close(after, before, tol=1e-11)  # sums of 130,000 terms

    def density(y):
        return bumps((1 - y) / 2) / 2

    direct = line_integral(lambda x: bumps(x) * (math.log(bumps(x)) - log_gaussian(x, 0.3, 1.8)))
    turned = line_integral(lambda y: density(y) * (math.log(density(y)) - log_gaussian(y, 0.4, 3.6)), -20, 20)
    assert_close(turned, direct, tol=1e-11)


@equation("entropy-affine")
def test_entropy_moves_with_the_units():
    """Quadrature of −Σ p log p for two bumps before and after y = c x + 1; in the plane by the library."""
    own = -line_integral(lambda x: bumps(x) * math.log(bumps(x)))
    for c in (-2.0, 0.1):

        def density(y, c=c):
            return bumps((y - 1) / c) / abs(c)

        reach = 9 * abs(c)
        there = -line_integral(lambda y: density(y) * math.log(density(y)), 1 - reach, 1 + reach)
        assert_close(there, own + math.log(abs(c)), tol=1e-11)
        assert c != 0.1 or there < 0
    a = np.array(A)
    moved = entropy(multivariate(a @ MEAN_P, a @ COV_P @ a.T)) - entropy(multivariate(MEAN_P, COV_P))
    assert_close(moved, math.log(abs(A[0][0] * A[1][1] - A[0][1] * A[1][0])))


@equation("gaussian-kl-eigenvalues")
def test_divergence_by_eigenvalues():
    """The map of the text whitens Σ_q and diagonalises Σ_p; its formula against the double sum over the plane."""
    factor = np.linalg.cholesky(COV_Q)
    inverse = np.linalg.inv(factor)
    eigenvalues, vectors = np.linalg.eigh(inverse @ COV_P @ inverse.T)
    a = vectors.T @ inverse
    assert_close(a @ COV_Q @ a.T, np.eye(2))
    assert_close(a @ COV_P @ a.T, np.diag(eigenvalues))
    shift = a @ (np.array(MEAN_P) - MEAN_Q)
    formula = 0.5 * (eigenvalues - 1 - np.log(eigenvalues)).sum() + 0.5 * shift @ shift
    assert_close(formula, plane_divergence(MEAN_P, COV_P, MEAN_Q, COV_Q), tol=1e-11)  # 130,000 terms


@equation("gaussian-kl-full")
def test_gaussian_divergence_with_full_covariances():
    """Formula and library against the plane; in three dimensions in 40 digits, by expectation of the quadratics."""
    cases = [(MEAN_P, COV_P, MEAN_Q, COV_Q), (MEAN_Q, COV_Q, MEAN_P, COV_P)]
    for mean_p, cov_p, mean_q, cov_q in cases:
        shift, inverse = np.array(mean_p) - mean_q, np.linalg.inv(cov_q)
        formula = 0.5 * (
            np.trace(inverse @ cov_p)
            + shift @ inverse @ shift
            - 2
            + math.log(np.linalg.det(cov_q) / np.linalg.det(cov_p))
        )
        exact = plane_divergence(mean_p, cov_p, mean_q, cov_q)
        assert_close(formula, exact, tol=1e-11)  # 130,000 terms
        assert_close(kl(multivariate(mean_p, cov_p), multivariate(mean_q, cov_q)), exact, tol=1e-11)
    mean_p, mean_q = [0.1, -0.4, 0.9], [0.0, 0.3, -0.2]
    cov_p = [[1.0, 0.2, 0.1], [0.2, 0.8, -0.3], [0.1, -0.3, 1.5]]
    cov_q = [[0.9, -0.1, 0.0], [-0.1, 1.2, 0.4], [0.0, 0.4, 0.7]]
    with mpmath.workdps(40):
        cp, cq = mpmath.matrix(cov_p), mpmath.matrix(cov_q)
        shift, inverse = mpmath.matrix(mean_p) - mpmath.matrix(mean_q), cq**-1
        trace = mpmath.fsum(inverse[i, k] * cp[k, i] for i in range(3) for k in range(3))
        quadratic = (shift.T * inverse * shift)[0]
        exact = float((trace + quadratic - 3 + mpmath.log(mpmath.det(cq) / mpmath.det(cp))) / 2)
    assert_close(kl(multivariate(mean_p, cov_p), multivariate(mean_q, cov_q)), exact)


@equation("gaussian-entropy-full")
def test_entropy_of_a_gaussian():
    """Quadrature on the line and on the plane against ½ log det(2πeΣ), and the library's."""
    for sigma in (0.6, 2.0):
        exact = -line_integral(lambda x, s=sigma: gaussian(x, 0.5, s) * log_gaussian(x, 0.5, s), -30, 30, 8001)
        assert_close(0.5 * math.log(2 * math.pi * math.e * sigma**2), exact, tol=1e-11)
        assert_close(entropy(torch_normal(0.5, sigma)), exact, tol=1e-11)
    axis = np.linspace(-9, 9, 361)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    log_p = stats.multivariate_normal(MEAN_P, COV_P).logpdf(grid)
    exact = -float((np.exp(log_p) * log_p).sum() * (axis[1] - axis[0]) ** 2)
    assert_close(0.5 * math.log(np.linalg.det(2 * math.pi * math.e * np.array(COV_P))), exact, tol=1e-11)
    assert_close(math.log(2 * math.pi * math.e) + 0.5 * math.log(np.linalg.det(COV_P)), exact, tol=1e-11)


@equation("maximum-entropy")
def test_gaussian_has_the_largest_entropy():
    """Uniform, Laplace, two bumps and Gaussian: entropies in closed form or by quadrature, and the divergences."""
    own, ceiling = [], []
    for sigma in (0.5, 2.0):
        half, scale = sigma * math.sqrt(3), sigma / math.sqrt(2)
        shapes = {
            "uniform": (math.log(2 * half), lambda x, h=half: 1 / (2 * h), (-half, half)),
            "laplace": (
                1 + math.log(2 * scale),
                lambda x, b=scale: math.exp(-abs(x) / b) / (2 * b),
                (-40 * scale, 40 * scale),
            ),
            "gaussian": (
                0.5 * math.log(2 * math.pi * math.e * sigma**2),
                lambda x, s=sigma: gaussian(x, 0, s),
                (-12 * sigma, 12 * sigma),
            ),
        }
        top = 0.5 * (1 + math.log(2 * math.pi) + 2 * math.log(sigma))
        for value, density, (low, high) in shapes.values():

            def excess(x, density=density, sigma=sigma):
                return density(x) * (math.log(density(x)) - log_gaussian(x, 0.0, sigma))

            divergence = sum(
                integrate.quad(excess, *ends, epsabs=1e-13, epsrel=1e-13, limit=200)[0]
                for ends in ((low, 0), (0, high))
            )
            assert_close(top - divergence, value, tol=1e-10)  # adaptive quadrature of a kinked density
            own.append(value)
            ceiling.append(top)
    variance = 0.6 * (0.49 + 4) + 0.4 * (0.25 + 4) - 0.4**2
    two_bumps = -line_integral(lambda x: bumps(x) * math.log(bumps(x)))
    divergence = line_integral(lambda x: bumps(x) * (math.log(bumps(x)) - log_gaussian(x, -0.4, math.sqrt(variance))))
    assert_close(0.5 * math.log(2 * math.pi * math.e * variance) - divergence, two_bumps, tol=1e-11)
    assert_at_most(own, ceiling)


@equation("monte-carlo-mean")
def test_the_mean_of_draws_is_right_on_average():
    """All lists of up to four draws from a table, with Fractions."""
    p, g = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], [Fraction(3), Fraction(-1, 4), Fraction(5, 7)]
    for draws in (1, 2, 4):
        mean = sum(chance * sum(g[i] for i in rows) / draws for rows, chance in tables(p, draws))
        assert_close(float(mean), float(sum(a * b for a, b in zip(p, g, strict=True))))


@equation("monte-carlo-error")
def test_the_variance_of_the_mean_falls_as_one_over_M():
    """All lists of up to four draws from a table, with Fractions; one M in place of two fails."""
    p, g = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], [Fraction(3), Fraction(-1, 4), Fraction(5, 7)]
    mean = sum(a * b for a, b in zip(p, g, strict=True))
    variance = sum(a * (b - mean) ** 2 for a, b in zip(p, g, strict=True))
    for draws in (1, 2, 4):
        spread = sum(chance * (sum(g[i] for i in rows) / draws - mean) ** 2 for rows, chance in tables(p, draws))
        assert_close(float(spread), float(variance / draws))
        assert_close(float(spread), float(draws * variance / draws**2))


@equation("standard-error")
def test_the_sample_variance_is_unbiased():
    """All lists of two to four draws, with Fractions; dividing by M is too small by (M−1)/M."""
    p, g = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], [Fraction(3), Fraction(-1, 4), Fraction(5, 7)]
    mean = sum(a * b for a, b in zip(p, g, strict=True))
    variance = sum(a * (b - mean) ** 2 for a, b in zip(p, g, strict=True))
    for draws in (2, 3, 4):
        total = Fraction(0)
        for rows, chance in tables(p, draws):
            centre = sum(g[i] for i in rows) / draws
            total += chance * sum((g[i] - centre) ** 2 for i in rows)
        assert_close(float(total / (draws - 1)), float(variance))
        assert total / draws == variance * (draws - 1) / draws


@equation("chebyshev")
def test_chebyshev_bound():
    """Exact tails of means on tables; ±c with weight 1/(2c²) each reaches the bound at M = 1."""
    tails, bounds = [], []
    for c, draws in itertools.product((2, 3, 5), (1, 2, 4)):
        p, g = [Fraction(1, 2 * c * c), 1 - Fraction(1, c * c), Fraction(1, 2 * c * c)], [-c, 0, c]  # variance 1
        far = sum(
            chance for rows, chance in tables(p, draws) if Fraction(sum(g[i] for i in rows)) ** 2 >= c * c * draws
        )
        tails.append(float(far))
        bounds.append(1 / c**2)
    assert_at_most(tails, bounds)
    assert tails[0] == bounds[0]
    assert tails[-1] < bounds[-1]


@equation("kl-estimator-variance")
def test_variance_of_the_log_ratio():
    """Moments of the log ratio under p by Gauss–Hermite sums, exact for its degree."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    for mp, sp, mq, sq in [(0.5, 1.0, 0.0, 1.0), (0.7, 0.6, -0.2, 1.1), (0.0, 2.0, 0.5, 0.8)]:
        values = np.array([log_gaussian(mp + sp * z, mp, sp) - log_gaussian(mp + sp * z, mq, sq) for z in nodes])
        variance = float(weights @ (values - weights @ values) ** 2)
        r, d = sp**2 / sq**2, (mp - mq) / sq
        assert_close((r - 1) ** 2 / 2 + r * d**2, variance)
        assert sp != sq or abs(variance - 2 * float(weights @ values)) < 1e-12


WEIGHTS, CHANCES = [0.2, 1.0, 3.0], [0.3, 0.5, 0.2]


def log_of_mean(w, p, draws):
    """E[log mean of `draws` weights], every list added up."""
    return math.fsum(chance * math.log(math.fsum(w[i] for i in rows) / draws) for rows, chance in tables(p, draws))


@equation("log-mean-bias")
def test_the_logarithm_of_a_mean_is_too_small():
    """All lists of draws; a constant weight is the tight case."""
    top = math.log(math.fsum(w * p for w, p in zip(WEIGHTS, CHANCES, strict=True)))
    values = [log_of_mean(WEIGHTS, CHANCES, draws) for draws in (1, 2, 4)]
    tight = [log_of_mean([1.7, 1.7], [0.4, 0.6], draws) for draws in (1, 3)]
    assert_at_most(values + tight, [top] * 3 + [math.log(1.7)] * 2)
    assert_close(tight, [math.log(1.7)] * 2)
    mean_of_w = math.fsum(c * math.fsum(WEIGHTS[i] for i in rows) / 3 for rows, c in tables(CHANCES, 3))
    assert_close(math.log(mean_of_w), top)


@equation("log-mean-rises")
def test_more_draws_help():
    """Lists of M + 1 draws, each with its leave-one-out means; a constant weight is the tight case."""
    more, left_out, fewer = [], [], []
    for w, p in ((WEIGHTS, CHANCES), ([1.7, 1.7, 1.7], CHANCES)):
        for draws in (1, 2, 4):
            more.append(log_of_mean(w, p, draws + 1))
            fewer.append(log_of_mean(w, p, draws))
            left_out.append(
                math.fsum(
                    chance * math.log((math.fsum(w[i] for i in rows) - w[rows[k]]) / draws) / (draws + 1)
                    for rows, chance in tables(p, draws + 1)
                    for k in range(draws + 1)
                )
            )
    assert_close(left_out, fewer)
    assert_at_most(left_out, more)
    assert more[0] > fewer[0] + 1e-2


@equation("log-mean-order")
def test_the_gap_closes_as_one_over_M():
    """Binomial sums for a weight of two values at M = 128 … 1024; Richardson's scheme removes the higher orders."""
    low, high = 0.5, 2.0
    chance = 0.3
    mean = chance * high + (1 - chance) * low
    variance = chance * (1 - chance) * (high - low) ** 2

    def scaled(M):
        with mpmath.workdps(30):
            p = mpmath.mpf(chance)
            terms = (
                mpmath.binomial(M, k)
                * p**k
                * (1 - p) ** (M - k)
                * mpmath.log((k * mpmath.mpf(high) + (M - k) * mpmath.mpf(low)) / M)
                for k in range(M + 1)
            )
            return M * (mpmath.log(p * high + (1 - p) * low) - mpmath.fsum(terms))

    column = [scaled(M) for M in (64, 128, 256, 512, 1024)]
    for order in range(1, 5):  # the gap is a series in 1/M
        column = [(2**order * b - a) / (2**order - 1) for a, b in itertools.pairwise(column)]
    assert_close(float(column[0]), variance / (2 * mean**2), tol=1e-8)  # what Richardson leaves
    import sympy

    eps, v, m = sympy.symbols("epsilon v m", positive=True)
    # the expansion itself: log(m + δ) to second order, with E δ = 0 and E δ² = v ε for ε = 1/M
    delta = sympy.symbols("delta")
    second = sympy.series(sympy.log(m + delta), delta, 0, 3).removeO().coeff(delta, 2)
    assert_zero(sympy.log(m) - (sympy.log(m) + second * v * eps) - eps * v / (2 * m**2))
