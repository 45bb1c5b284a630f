"""The equations of the bound of a diffusion model, in float64 and without sampling error.

Chains are joint Gaussians put together from their independent noises, in plain NumPy; conditionals come from
conditioning them, expectations of quadratics from their moments. Other data are a coin, x_0 = ±1, with integrals by
the trapezoid rule over ±10 standard deviations or by SciPy. The library is held against both.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import mpmath
import numpy as np
import scipy.integrate
import scipy.stats
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode import seeded
from lecturecode.diffusion import (
    CLEAN,
    EDM,
    NOISE,
    SCORE,
    VELOCITY,
    Gaussian,
    GaussianData,
    GaussianMixtureDenoiser,
    Linear,
    Schedule,
    VarianceExploding,
    VariancePreserving,
    bound,
    elbo,
    end_weights,
    marginal,
    noise_end,
    posterior,
    preconditioned,
    step_weights,
    transition,
)
from lecturecode.vae import DiscretisedGaussian

f64 = torch.float64
SCHEDULES = [
    (Linear(4, 0.1, 0.6), [0.0, 1.0, 2.0, 3.0, 4.0]),
    (VariancePreserving(), [0.0, 0.05, 0.3, 0.7, 1.0]),
    (VarianceExploding(0.1, 3.0), [0.0, 0.3, 0.6, 1.0]),
]
E = np.linspace(-10, 10, 801)
W = np.exp(-(E**2) / 2) / math.sqrt(2 * math.pi) * 0.025


def levels(schedule, times):
    """(α, σ) as arrays."""
    alpha, sigma = schedule(torch.tensor(times, dtype=f64))
    return alpha.numpy(), sigma.numpy()


def root(alpha, sigma, variance=1.0):
    """(x_0, x_{t_1}, …, x_T) = root @ independent standard noises, the first of them the data's."""
    count = len(alpha)
    found = np.zeros((count, count))
    for i in range(count):
        found[i, 0] = alpha[i] * math.sqrt(variance)
        for j in range(1, i + 1):
            kept = sigma[j] ** 2 - (alpha[j] / alpha[j - 1] * sigma[j - 1]) ** 2
            found[i, j] = alpha[i] / alpha[j] * math.sqrt(kept)
    return found


def chain(alpha, sigma, variance=1.0):
    found = root(alpha, sigma, variance)
    return found @ found.T


def given(covariance, i, j):
    """Slopes and variance of number i given the numbers j of a centred Gaussian."""
    slope = np.linalg.solve(covariance[np.ix_(j, j)], covariance[j, i])
    return slope, covariance[i, i] - slope @ covariance[j, i]


def log_normal(x, mean, variance):
    return -((x - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


def kl_1d(m, v, n, u):
    """KL(N(m, v)‖N(n, u)), one dimension."""
    return 0.5 * (math.log(u / v) + (v + (m - n) ** 2) / u - 1)


def mean_log(mean, covariance, i, j, a, w):
    """E log N(s_i; a s_j, w) for s ~ N(mean, covariance)."""
    square = covariance[i, i] + mean[i] ** 2 - 2 * a * (covariance[i, j] + mean[i] * mean[j])
    square += a**2 * (covariance[j, j] + mean[j] ** 2)
    return -square / (2 * w) - 0.5 * math.log(2 * math.pi * w)


def by_definition(x0, mean, covariance, steps, top):
    """E_q[log p − log q] with q(x_{t_1} …|x_0) = N(mean, covariance) and p's steps (a, w), both as whole Gaussians."""
    count = len(mean)
    noises = np.zeros((count + 1, count + 1))  # of p: x_T first, the others from the top down
    noises[count, count] = math.sqrt(top)
    for i in reversed(range(count)):
        noises[i] = steps[i][0] * noises[i + 1]
        noises[i, i] = math.sqrt(steps[i][1])
    p = noises @ noises.T
    z = np.append(x0, mean)
    spread = np.zeros_like(p)
    spread[1:, 1:] = covariance
    square = np.trace(np.linalg.solve(p, spread + np.outer(z, z)))
    log_p = -0.5 * (square + np.linalg.slogdet(2 * math.pi * p)[1])
    return log_p + 0.5 * np.linalg.slogdet(2 * math.pi * math.e * covariance)[1]


def noised(alpha, sigma, x0):
    """Mean and covariance of (x_{t_1}, …, x_T) given x_0."""
    found = root(alpha, sigma)[1:, 1:]
    return alpha[1:] * x0, found @ found.T


STEPS = [(0.8, 0.3), (0.7, 0.5), (0.9, 0.2), (0.6, 0.7)]  # any reverse steps N(a x_t, w)


@dataclass(frozen=True)
class Made:
    """A denoiser from a function of (x_t, α, σ)."""

    schedule: Schedule
    answer: Callable[..., torch.Tensor]

    def __call__(self, xt, t):
        return self.answer(xt, *self.schedule(t))


def coin_mean(x, alpha, sigma):
    return np.tanh(alpha * x / sigma**2)


def mmse(snr):
    """Of the coin, by symmetry at x_0 = 1."""
    return float(W @ (1 - np.tanh(snr + math.sqrt(snr) * E)) ** 2)


# --- two routes ------------------------------------------------------------------------------------------------------


@equation("dbound-chains")
def test_both_chains_are_products_of_steps():
    """The noise: conditioning of the joint, and the library's step. The model: its product is one Gaussian density."""
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        covariance = chain(alpha, sigma, 2.0)
        for k in range(1, len(times)):
            slope, left = given(covariance, k, list(range(k)))  # Markov: the earlier ones do not count
            up = alpha[k] / alpha[k - 1]
            kept = sigma[k] ** 2 - up**2 * sigma[k - 1] ** 2
            assert_close(slope, np.append(np.zeros(k - 1), up), tol=1e-11)
            assert_close(left, kept)
            step = transition(schedule, torch.full((1, 1), 0.7, dtype=f64), times[k - 1], times[k])
            assert_close(step.mean, up * 0.7)
            assert_close(step.variance, kept)
        assert_close(np.diag(covariance).copy(), alpha**2 * 2.0 + sigma**2)
    z = np.array([0.3, -0.5, 1.1])
    product = log_normal(z[2], 0, 1.5) + sum(log_normal(z[i], STEPS[i][0] * z[i + 1], STEPS[i][1]) for i in (0, 1))
    (a, w), (b, u) = STEPS[:2]
    middle = b**2 * 1.5 + u
    p = np.array(
        [[a**2 * middle + w, a * middle, a * b * 1.5], [a * middle, middle, b * 1.5], [a * b * 1.5, b * 1.5, 1.5]]
    )
    assert_close(product, scipy.stats.multivariate_normal(np.zeros(3), p).logpdf(z))


@equation("dbound-log-ratio")
def test_the_bound_step_by_step_against_its_definition():
    """Whole Gaussians for p and q, against the sum of log ratios, for reverse steps that are nobody's."""
    x0, top = 0.9, 1.4
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        mean, covariance = noised(alpha, sigma, x0)
        wanted = by_definition(x0, mean, covariance, STEPS, top)
        m, c = np.append(x0, mean), np.zeros((len(times), len(times)))
        c[1:, 1:] = covariance
        total = -0.5 * (math.log(2 * math.pi * top) + (c[-1, -1] + m[-1] ** 2) / top)
        for k in range(1, len(times)):
            up = alpha[k] / alpha[k - 1]
            total += mean_log(m, c, k - 1, k, *STEPS[k - 1])
            total -= mean_log(m, c, k, k - 1, up, sigma[k] ** 2 - up**2 * sigma[k - 1] ** 2)
        assert_close(total, wanted, tol=1e-11)


@equation("dbound-bayes")
def test_the_noise_turned_round():
    """Log densities at points: each step by conditioning on the later level and x_0; the product telescopes."""
    points = [0.4, -0.2, 0.9, 1.3, -0.6]
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        covariance = chain(alpha, sigma, 2.0)

        def log_q(i, others, covariance=covariance):
            slope, left = given(covariance, i, others)
            return log_normal(points[i], slope @ [points[j] for j in others], left)

        last, climbing, coming = len(times) - 1, 0.0, 0.0
        for k in range(2, last + 1):
            assert_close(log_q(k, [k - 1]), log_q(k - 1, [k, 0]) + log_q(k, [0]) - log_q(k - 1, [0]), tol=1e-11)
            climbing, coming = climbing + log_q(k, [k - 1]), coming + log_q(k - 1, [k, 0])
        assert_close(climbing, coming + log_q(last, [0]) - log_q(1, [0]), tol=1e-11)


@equation("dbound-terms")
def test_the_bound_in_divergences():
    """The definition against L_0, L_k and L_T by conditioning, and against the library at Gauss–Hermite nodes of ε."""
    x0, decoder = 0.9, 0.35
    e, w = np.polynomial.hermite_e.hermegauss(4)
    nodes, weights = torch.from_numpy(e)[:, None], w / w.sum()
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        total = alpha[-1] ** 2 + sigma[-1] ** 2
        gain = 0.8 * alpha / (alpha**2 * 0.8 + sigma**2)  # x̂_0 = gain x_t, as for data of variance 0.8
        covariance = chain(alpha, sigma)
        first = -decoder_log(x0, gain[1] * alpha[1], gain[1] * sigma[1], decoder)
        parts, steps = [], [(gain[1], decoder)]
        for k in range(2, len(times)):
            (to_t, to_0), left = given(covariance, k - 1, [k, 0])
            steps.append((to_t + to_0 * gain[k], left))
            shift = to_0 * (1 - gain[k] * alpha[k]) * x0
            parts.append(kl_1d(0, left, 0, left) + (shift**2 + (to_0 * gain[k] * sigma[k]) ** 2) / (2 * left))
        end = kl_1d(alpha[-1] * x0, sigma[-1] ** 2, 0, total)
        assert_close(-first - sum(parts) - end, by_definition(x0, *noised(alpha, sigma, x0), steps, total), tol=1e-11)
        denoiser = Made(schedule, lambda x, a, s: 0.8 * a / (a**2 * 0.8 + s**2) * x)

        def likelihood(x0_hat, x):
            return Gaussian(x0_hat, torch.tensor(decoder, dtype=f64)).log_prob(x)

        with mock.patch.object(bound, "normal", return_value=nodes):
            mine = elbo(
                denoiser, torch.full((4, 1), x0, dtype=f64), torch.tensor(times, dtype=f64), likelihood, seeded(1)
            )
        assert_close(mine.reconstruction @ torch.from_numpy(weights), -first, tol=1e-11)
        assert_close(mine.steps @ torch.from_numpy(weights), parts, tol=1e-11)
        assert_close(mine.end, end, tol=1e-11)


def decoder_log(x0, slope, spread, variance):
    """E log N(x_0; x̂_0, variance) with x̂_0 ~ N(slope x_0, spread²)."""
    return -((x0 - slope * x0) ** 2 + spread**2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


# --- the third route -------------------------------------------------------------------------------------------------


def two_levels(x0, alpha, sigma, decoder, step, top=1.0):
    """(ELBO, B) for one number: moments, and the divergences as they are written in B."""
    mean, covariance = noised(alpha, sigma, x0)
    exact = by_definition(x0, mean, covariance, [decoder, step], top)
    up = alpha[2] / alpha[1]
    kept = sigma[2] ** 2 - up**2 * sigma[1] ** 2
    a, w = step
    start = decoder_log(x0, decoder[0] * alpha[1], decoder[0] * sigma[1], decoder[1])
    climb = kl_1d(0, kept, 0, top) + (up**2 * (mean[0] ** 2 + sigma[1] ** 2)) / (2 * top)
    middle = kl_1d(0, sigma[1] ** 2, 0, w) + ((mean[0] - a * mean[1]) ** 2 + a**2 * sigma[2] ** 2) / (2 * w)
    return exact, start - climb - middle


def of_variance_one(alpha_r2=0.5, alpha_t2=0.25):
    alpha = np.sqrt([1.0, alpha_r2, alpha_t2])
    return alpha, np.sqrt(1 - alpha**2)


@equation("dbound-consistency")
def test_the_consistency_form_is_not_the_bound():
    """With the exact reverse the bound is log p(x_0); the other form is half a nat below, for every x_0."""
    alpha, sigma = of_variance_one()
    exact = (alpha[2] / alpha[1], 0.5)
    for x0 in (0.0, 0.9, -2.0):
        right, wrong = two_levels(x0, alpha, sigma, (alpha[1], sigma[1] ** 2), exact)
        assert_close(right, scipy.stats.norm.logpdf(x0))
        assert_at_most(wrong + 0.5, right)


@equation("dbound-consistency-gap")
def test_what_the_dropped_covariance_costs():
    """Two levels with any steps; three levels, where the step into x_r starts from x_{r'}; and half a nat."""
    for schedule, times in SCHEDULES:
        alpha, sigma = (part[:3] for part in levels(schedule, times))
        for x0, step in itertools.product((0.0, 1.3), STEPS):
            right, wrong = two_levels(x0, alpha, sigma, (0.8, 0.3), step, top=1.3)
            a, w = step
            assert_close(right - wrong, a * alpha[2] / alpha[1] * sigma[1] ** 2 / w, tol=1e-11)
        alpha, sigma = (part[:4] for part in levels(schedule, times))
        mean, covariance = noised(alpha, sigma, 0.9)
        slope = covariance[0, 1:] / covariance[0, 0]  # x_r and x_t given x_{r'} = x_{t_1}
        left = covariance[1:, 1:] - np.outer(slope, slope) * covariance[0, 0]
        dropped = covariance.copy()
        dropped[1, 2] = dropped[2, 1] = covariance[1, 2] - left[0, 1]
        a, w = STEPS[1]
        lost = mean_log(mean, covariance, 1, 2, a, w) - mean_log(mean, dropped, 1, 2, a, w)
        kept = sigma[2] ** 2 - (alpha[2] / alpha[1] * sigma[1]) ** 2
        assert_close(lost, a * alpha[3] / alpha[2] * kept / w, tol=1e-11)
    up = math.sqrt(0.5)
    assert_close(up * up * 0.5 / 0.5, 0.5)


@equation("dbound-consistency-meaning")
def test_the_consistency_form_is_the_bound_of_another_encoder():
    """Independent levels by the definition of the bound; the information from the correlation of the levels."""
    for schedule, times in SCHEDULES:
        alpha, sigma = (part[:3] for part in levels(schedule, times))
        for x0, step in itertools.product((0.0, 1.3), STEPS):
            _, wrong = two_levels(x0, alpha, sigma, (0.8, 0.3), step, top=1.3)
            mean, covariance = noised(alpha, sigma, x0)
            other = by_definition(x0, mean, np.diag(np.diag(covariance)), [(0.8, 0.3), step], 1.3)
            correlation = covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1])
            assert_close(wrong, other + 0.5 * math.log(1 - correlation), tol=1e-11)
            kept = sigma[2] ** 2 - (alpha[2] / alpha[1] * sigma[1]) ** 2
            assert_close(-0.5 * math.log(1 - correlation), 0.5 * math.log(sigma[2] ** 2 / kept), tol=1e-11)


@equation("dbound-consistency-optimum")
def test_the_optimum_of_the_consistency_form():
    """The integral over x_0 by quadrature, and a search around it: no other slope or variance has a larger mean."""
    alpha, sigma = of_variance_one(0.6, 0.3)
    best = alpha[1] * alpha[2], 1 - (alpha[1] * alpha[2]) ** 2
    xt, xr = 0.8, -0.3

    def density(x0):
        return math.exp(log_normal(xr, alpha[1] * x0, sigma[1] ** 2) + log_normal(x0, alpha[2] * xt, sigma[2] ** 2))

    total, _ = scipy.integrate.quad(density, -9, 9, epsabs=1e-13, epsrel=1e-13)
    assert_close(total, math.exp(log_normal(xr, best[0] * xt, best[1])))
    beta = 0.01  # a chain: x_{r'}, x_r, x_t; down to x_{r'} and up by one step
    three = np.array([[(1 - beta) ** (abs(i - j) / 2) for j in range(3)] for i in range(3)])
    down, left = given(three, 0, [2])
    assert_close((1 - beta) * left + beta, 1 - (1 - beta) ** 3)
    assert_close(math.sqrt(1 - beta) * down, (1 - beta) ** 1.5)
    e, w = np.polynomial.hermite_e.hermegauss(4)

    def mean_of(step):
        return sum(p * two_levels(x0, alpha, sigma, (0.8, 0.3), step)[1] for x0, p in zip(e, w / w.sum(), strict=True))

    others = [
        best,
        (best[0] + 0.05, best[1]),
        (best[0] - 0.05, best[1]),
        (best[0], best[1] + 0.05),
        (best[0], best[1] - 0.05),
    ]
    assert_at_most([mean_of(step) for step in others], mean_of(best))


# --- the reverse step ------------------------------------------------------------------------------------------------


@equation("dbound-posterior")
def test_the_reverse_step_given_the_data():
    """Conditioning of the joint on (x_t, x_0), for data of any variance; the precisions; the library."""
    x0, xt = torch.full((1, 1), 0.7, dtype=f64), torch.full((1, 1), -0.4, dtype=f64)
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        for variance, k in itertools.product((1.0, 3.0), range(2, len(times))):
            (to_t, to_0), left = given(chain(alpha, sigma, variance), k - 1, [k, 0])
            up = alpha[k] / alpha[k - 1]
            kept = sigma[k] ** 2 - up**2 * sigma[k - 1] ** 2
            assert_close(1 / left, 1 / sigma[k - 1] ** 2 + up**2 / kept, tol=1e-10)
            assert_close(left, sigma[k - 1] ** 2 * kept / sigma[k] ** 2, tol=1e-11)
            assert_close(to_0, left * alpha[k - 1] / sigma[k - 1] ** 2, tol=1e-10)
            assert_close(to_t, left * up / kept, tol=1e-10)
            assert_close(
                [to_t, to_0], [up * (sigma[k - 1] / sigma[k]) ** 2, alpha[k - 1] * kept / sigma[k] ** 2], tol=1e-10
            )
            mine = posterior(schedule, x0, xt, times[k - 1], times[k])
            assert_close(mine.mean, to_t * -0.4 + to_0 * 0.7, tol=1e-10)
            assert_close(mine.variance, left, tol=1e-11)


@equation("dbound-step")
def test_a_step_is_a_squared_error():
    """The divergence of the two conditionals, term by term, against half the fall of the SNR; the library's weight."""
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        weights, fees = step_weights(schedule, torch.tensor(times, dtype=f64))
        snr = alpha[1:] ** 2 / sigma[1:] ** 2
        for k in range(2, len(times)):
            (to_t, to_0), left = given(chain(alpha, sigma), k - 1, [k, 0])
            for x0, guess in ((0.9, 0.2), (-1.5, 0.4)):
                mean, model = to_t * 0.6 + to_0 * x0, to_t * 0.6 + to_0 * guess
                wanted = kl_1d(mean, left, model, left)
                assert_close(0.5 * (snr[k - 2] - snr[k - 1]) * (x0 - guess) ** 2, wanted, tol=1e-10)
                assert_close(weights[k - 2] * (x0 - guess) ** 2 + fees[k - 2], wanted, tol=1e-10)


@equation("dbound-step-variance")
def test_a_step_with_the_variance_of_the_noise():
    """The divergence with the wider variance, against the fee and the discount; the library's weights."""
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        weights, fees = step_weights(schedule, torch.tensor(times, dtype=f64), "step")
        for k in range(2, len(times)):
            (to_t, to_0), left = given(chain(alpha, sigma), k - 1, [k, 0])
            kept = sigma[k] ** 2 - (alpha[k] / alpha[k - 1] * sigma[k - 1]) ** 2
            ratio, fall = left / kept, (alpha[k - 1] / sigma[k - 1]) ** 2 - (alpha[k] / sigma[k]) ** 2
            assert_close(ratio, (sigma[k - 1] / sigma[k]) ** 2, tol=1e-11)
            for x0, guess in ((0.9, 0.2), (-1.5, -1.5)):
                wanted = kl_1d(to_t * 0.6 + to_0 * x0, left, to_t * 0.6 + to_0 * guess, kept)
                fee = 0.5 * (ratio - 1 - math.log(ratio))
                assert_close(fee + 0.5 * ratio * fall * (x0 - guess) ** 2, wanted, tol=1e-10)
                assert_close(weights[k - 2] * (x0 - guess) ** 2 + fees[k - 2], wanted, tol=1e-10)


@equation("dbound-end")
def test_the_noise_end():
    """The divergence of the marginal from N(0, α² + σ²), written out, for five numbers; the library's weights."""
    x0 = np.array([0.9, -1.2, 0.0, 2.0, 0.3])
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        a, s2 = alpha[-1], sigma[-1] ** 2
        wanted = sum(kl_1d(a * x, s2, 0, a**2 + s2) for x in x0)
        snr = a**2 / s2
        u = snr / (1 + snr)
        assert_close(2.5 * (math.log1p(snr) - u) + u / 2 * (x0 @ x0), wanted)
        square, each = end_weights(schedule)
        assert_close(square * (x0 @ x0) + 5 * each, wanted)
        rows = torch.from_numpy(x0)[None]
        assert_close(marginal(schedule, rows, schedule.end).kl(noise_end(schedule, (1, 5), rows)), wanted)


# --- predictions and weights -----------------------------------------------------------------------------------------

LEVELS = [(0.8, 0.6), (1.0, 2.5), (0.3, 0.95)]


@equation("dbound-predictions")
def test_each_prediction_gives_the_clean_image():
    """From x_0 and ε by hand, and by the library from its own targets."""
    x0, eps = np.array([0.7, -1.1]), np.array([0.2, 1.4])
    for alpha, sigma in LEVELS:
        xt = alpha * x0 + sigma * eps
        assert_close((xt - sigma * eps) / alpha, x0)
        assert_close((xt + sigma**2 * (-eps / sigma)) / alpha, x0)
        assert_close((alpha * xt - sigma * (alpha * eps - sigma * x0)) / (alpha**2 + sigma**2), x0)
        a, s, clean, noise, noised = (torch.as_tensor(v, dtype=f64) for v in (alpha, sigma, x0, eps, xt))
        for how in (CLEAN, NOISE, SCORE, VELOCITY):
            assert_close(how.clean(how.target(clean, noise, a, s), noised, a, s), x0)


@equation("dbound-tweedie")
def test_the_score_of_the_noised_data():
    """A coin with odds 0.3: the derivative of log q(x_t) in thirty digits against the posterior mean."""
    for alpha, sigma in LEVELS:
        for x in (-1.2, 0.1, 0.9):
            with mpmath.workdps(30):

                def q(y, alpha=alpha, sigma=sigma):
                    return mpmath.mpf("0.3") * mpmath.npdf(y, alpha, sigma) + mpmath.mpf("0.7") * mpmath.npdf(
                        y, -alpha, sigma
                    )

                score = float(mpmath.diff(lambda y: mpmath.log(q(y)), x))
                up = float(mpmath.mpf("0.3") * mpmath.npdf(x, alpha, sigma) / q(x))
            mean = up - (1 - up)
            assert_close((alpha * mean - x) / sigma**2, score)
            noise = up * (x - alpha) / sigma + (1 - up) * (x + alpha) / sigma
            assert_close(-noise / sigma, score)
            numbers = (torch.tensor(v, dtype=f64) for v in (mean, x, alpha, sigma))
            assert_close(SCORE.of(*numbers), score)


@equation("dbound-prediction-errors")
def test_what_each_loss_sees_of_an_error():
    """Targets of x_0 and of a guess at the same x_t, by hand; the library's factor."""
    x0, guess, xt = 0.7, -0.2, 0.5
    for alpha, sigma in LEVELS:
        eps, other = (xt - alpha * x0) / sigma, (xt - alpha * guess) / sigma
        square, snr = (x0 - guess) ** 2, alpha**2 / sigma**2
        found = {
            NOISE: (eps - other) ** 2,
            SCORE: (-eps / sigma + other / sigma) ** 2,
            VELOCITY: (alpha * eps - sigma * x0 - alpha * other + sigma * guess) ** 2,
        }
        wanted = {NOISE: snr, SCORE: snr / sigma**2, VELOCITY: (alpha**2 + sigma**2) ** 2 / sigma**2}
        for how, value in found.items():
            assert_close(wanted[how] * square, value)
            assert_close(how.error(torch.tensor(alpha, dtype=f64), torch.tensor(sigma, dtype=f64)) ** 2 * square, value)
    assert_close((0.64 + 0.36) ** 2 / 0.36, 1 + 0.64 / 0.36)


@equation("dbound-edm-velocity")
def test_preconditioning_is_velocity_with_the_other_sign():
    """Karras's own coefficients at x = x_t/α and σ/α, against the form for any α; then unit data on a circle."""
    x0, eps = 0.7, -1.1
    for (alpha, sigma), d in itertools.product(LEVELS, (0.5, 1.0, 2.0)):
        xt, level = alpha * x0 + sigma * eps, sigma / alpha
        skip, out = d**2 / (level**2 + d**2), level * d / math.sqrt(level**2 + d**2)
        y = (x0 - skip * xt / alpha) / out
        total = alpha**2 * d**2 + sigma**2
        assert_close(alpha * d**2 / total * xt + d * sigma / math.sqrt(total) * y, x0)
        numbers = [torch.tensor(v, dtype=f64) for v in (x0, eps, alpha, sigma)]
        assert_close(preconditioned(d).target(*numbers), y)
    alpha, sigma = 0.8, 0.6
    xt, v = alpha * x0 + sigma * eps, alpha * eps - sigma * x0
    assert_close(alpha * xt + sigma * -v, x0)
    numbers = [torch.tensor(v, dtype=f64) for v in (x0, eps, alpha, sigma)]
    assert_close(preconditioned(1.0).target(*numbers), -v)


def linear_error(schedule, t, variance=1.0, gain=0.8):
    """E|x_0 − x̂_0|² at t for x̂_0 = gain x_t, data of the given variance."""
    alpha, sigma = (float(v) for v in schedule(t))
    return (1 - gain * alpha) ** 2 * variance + gain**2 * sigma**2


@equation("dbound-epsilon")
def test_a_step_in_terms_of_the_noise():
    """The noise that belongs to a guess, by hand, and the fall of the SNR."""
    xt = 0.5
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        for k in range(2, len(times)):
            log_snr = [2 * math.log(alpha[j] / sigma[j]) for j in (k - 1, k)]
            eps, other = ((xt - alpha[k] * x) / sigma[k] for x in (0.7, -0.2))
            (_, to_0), left = given(chain(alpha, sigma), k - 1, [k, 0])
            wanted = kl_1d(to_0 * 0.7, left, to_0 * -0.2, left)
            assert_close(0.5 * math.expm1(log_snr[0] - log_snr[1]) * (eps - other) ** 2, wanted, tol=1e-10)


@equation("dbound-simple")
def test_the_simple_loss_weighs_the_bound():
    """Mean squared errors of the noise by moments, and the library's steps with the weights of the text."""
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        count = len(times) - 2
        errors = np.array([linear_error(schedule, t) for t in times[2:]])
        simple = float(((alpha[2:] / sigma[2:]) ** 2 * errors).mean())
        weights, _ = step_weights(schedule, torch.tensor(times, dtype=f64))
        log_snr = 2 * np.log(alpha[1:] / sigma[1:])
        w = 2 / (count * np.expm1(-np.diff(log_snr)))
        assert_close((w * weights.numpy() * errors).sum(), simple, tol=1e-11)


@equation("dbound-simple-density")
def test_the_density_of_noise_levels():
    """A mean over uniform t by quadrature against one over λ; the density against autograd through the inverse."""
    schedule = VariancePreserving()
    low, high = (float(schedule.log_snr(t)) for t in (1.0, 1e-3))

    def density(log_snr):
        t = schedule.time(log_snr)
        return float(schedule(t)[1] ** 2 / schedule.rates(t)[1])

    for log_snr in (-8.0, -1.0, 3.0):
        at = torch.tensor(log_snr, dtype=f64, requires_grad=True)
        (slope,) = torch.autograd.grad(schedule.time(at), at)
        assert_close(density(log_snr), -slope, tol=1e-11)
    options = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 200}
    left, _ = scipy.integrate.quad(lambda t: 1 / (1 + math.exp(float(schedule.log_snr(t)) - 1)), 1e-3, 1, **options)
    right, _ = scipy.integrate.quad(lambda y: density(y) / (1 + math.exp(y - 1)), low, high, **options)
    assert_close(left, right, tol=1e-10)  # quadrature


@equation("dbound-any-weight")
def test_the_error_splits_at_each_level():
    """The coin and a guess that is nobody's, expectations by the trapezoid rule."""
    for alpha, sigma in LEVELS:
        x = alpha + sigma * E  # x_0 = 1; the other side by symmetry
        best, guess = coin_mean(x, alpha, sigma), 0.3 * x + 0.2 * x**2
        mirrored = -0.3 * x + 0.2 * x**2  # the guess at −x, where x_0 = −1 and the best answer is −best
        whole = W @ ((1 - guess) ** 2 + (-1 - mirrored) ** 2) / 2
        spread = W @ (1 - best) ** 2
        rest = W @ ((best - guess) ** 2 + (-best - mirrored) ** 2) / 2
        assert_close(whole, spread + rest, tol=1e-11)


# --- the continuous bound --------------------------------------------------------------------------------------------


@equation("dbound-continuous")
def test_the_limit_of_many_steps_in_three_variables():
    """Romberg's extrapolation of the library's sums against quadrature over SNR, over λ and over t."""
    schedule, start = VariancePreserving(), 0.1
    high, low = (float(schedule.log_snr(t)) for t in (start, 1.0))

    def at(log_snr):
        return linear_error(schedule, min(float(schedule.time(log_snr)), 1.0))

    def rate(t):
        (_, sigma), (_, g2) = schedule(t), schedule.rates(t)
        return float(schedule.log_snr(t).exp() * g2 / sigma**2)

    options = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 200}
    over_snr, _ = scipy.integrate.quad(lambda s: at(math.log(s)) / 2, math.exp(low), math.exp(high), **options)
    over_log, _ = scipy.integrate.quad(lambda y: at(y) * math.exp(y) / 2, low, high, **options)
    over_time, _ = scipy.integrate.quad(lambda t: linear_error(schedule, t) * rate(t) / 2, start, 1, **options)
    table = []
    for steps in (64, 128, 256, 512, 1024, 2048):
        inner = schedule.time(torch.linspace(high, low, steps + 1, dtype=f64)).clamp(max=1)
        weights, _ = step_weights(schedule, torch.cat([torch.zeros(1, dtype=f64), inner]))
        row = [sum(float(w) * linear_error(schedule, t) for w, t in zip(weights, inner[1:], strict=True))]
        for j, above in enumerate(table[-1] if table else []):
            row.append(row[j] + (row[j] - above) / (2 ** (j + 1) - 1))
        table.append(row)
    for integral in (over_snr, over_log, over_time):
        assert_close(integral, table[-1][-1], tol=1e-9)  # extrapolation


@equation("dbound-invariance")
def test_the_integral_knows_the_ends_alone():
    """The coin under three schedules at one λ: the same answer at x_t/α, and the same integral over their own times."""
    found, options = [], {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 200}
    for schedule in (VariancePreserving(), VarianceExploding(0.01, 50.0), EDM(80.0)):
        coin = torch.tensor([0.5, 0.5], dtype=f64), torch.tensor([[-1.0], [1.0]], dtype=f64), 0.0
        t = schedule.time(0.7)
        alpha, sigma = (float(v) for v in schedule(t))
        mine = GaussianMixtureDenoiser(*coin, schedule)(torch.from_numpy(alpha + sigma * E)[:, None], t)[:, 0]
        assert_close(mine, np.tanh(math.exp(0.7) * (1 + math.exp(-0.35) * E)), tol=1e-11)
        assert_close((alpha + sigma * E) / alpha, 1 + math.exp(-0.35) * E)
        assert_close(W @ (1 - mine.numpy()) ** 2, mmse(math.exp(0.7)))

        def slope(t, schedule=schedule):
            (alpha, sigma), (_, g2) = schedule(t), schedule.rates(t)
            alpha, sigma = float(alpha), float(sigma)
            x = alpha + sigma * E
            return 0.5 * W @ (1 - coin_mean(x, alpha, sigma)) ** 2 * alpha**2 * float(g2) / sigma**4

        first, last = (float(schedule.time(y)) for y in (3.0, -2.0))
        found.append(scipy.integrate.quad(slope, first, last, **options)[0])
    wanted, _ = scipy.integrate.quad(lambda s: mmse(s) / 2, math.exp(-2), math.exp(3), **options)
    assert_close(found, 3 * [wanted], tol=1e-9)  # quadrature


@equation("dbound-information")
def test_the_integral_is_the_information():
    """The coin: differential entropies of x_t and of the noise by the trapezoid rule, the integral by quadrature."""
    for snr in (0.5, 2.0, 6.0):
        sigma = 1 / math.sqrt(snr)
        x = np.linspace(-1 - 12 * sigma, 1 + 12 * sigma, 4001)
        q = 0.5 * (scipy.stats.norm.pdf(x, 1, sigma) + scipy.stats.norm.pdf(x, -1, sigma))
        entropy = -(q * np.log(q)).sum() * (x[1] - x[0])
        wanted = entropy - 0.5 * math.log(2 * math.pi * math.e * sigma**2)
        found, _ = scipy.integrate.quad(lambda s: mmse(s) / 2, 0, snr, epsabs=1e-11, epsrel=1e-11)
        assert_close(found, wanted, tol=1e-9)  # quadrature


@equation("dbound-more-steps")
def test_what_a_finite_grid_costs():
    """The library's sum less the integral against the step-wise integrals; nothing for data at one point."""
    schedule, times = SCHEDULES[1]
    snr = [float(schedule.log_snr(t).exp()) for t in times[1:]]
    weights, _ = step_weights(schedule, torch.tensor(times, dtype=f64))
    options = {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 200}
    whole, _ = scipy.integrate.quad(
        lambda y: mmse(math.exp(y)) * math.exp(y) / 2, math.log(snr[-1]), math.log(snr[0]), **options
    )
    lost = weights.numpy() @ [mmse(s) for s in snr[1:]] - whole
    apart = [
        scipy.integrate.quad(
            lambda y, t=t: (mmse(t) - mmse(math.exp(y))) * math.exp(y) / 2, math.log(t), math.log(r), **options
        )[0]
        for r, t in itertools.pairwise(snr)
    ]
    assert_close(lost, sum(apart), tol=1e-9)  # quadrature
    still = weights.numpy() @ np.zeros(len(snr) - 1)
    assert_at_most([0.0, *np.zeros(len(apart))], [still, *apart])


# --- Gaussian data ---------------------------------------------------------------------------------------------------


def gaussian():
    """Mean, covariance and the library's value."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(3, 3))
    mean, covariance = rng.normal(size=3), matrix @ matrix.T + 0.1 * np.eye(3)
    return mean, covariance, GaussianData(torch.from_numpy(mean), torch.from_numpy(covariance))


def conditional(covariance, alpha, sigma):
    """Cov(x_0|x_t), by conditioning."""
    gain = alpha * np.linalg.solve(alpha**2 * covariance + sigma**2 * np.eye(3), covariance)
    return covariance - alpha * covariance @ gain


@equation("dbound-gaussian-error")
def test_the_error_for_gaussian_data():
    _, covariance, data = gaussian()
    c = np.linalg.eigvalsh(covariance)
    for schedule, times in SCHEDULES:
        for t, alpha, sigma in zip(times[1:], *(part[1:] for part in levels(schedule, times)), strict=True):
            wanted = np.trace(conditional(covariance, alpha, sigma))
            assert_close((c * sigma**2 / (alpha**2 * c + sigma**2)).sum(), wanted, tol=1e-11)
            assert_close((c / (1 + c * (alpha / sigma) ** 2)).sum(), wanted, tol=1e-11)
            assert_close(data.error(schedule, t), wanted, tol=1e-11)


@equation("dbound-gaussian-integral")
def test_the_integral_for_gaussian_data():
    _, covariance, data = gaussian()
    c = np.linalg.eigvalsh(covariance)
    for schedule, times in SCHEDULES:
        high, low = (float(schedule.log_snr(t)) for t in (times[1], times[-1]))

        def slope(y, schedule=schedule):
            t = min(float(schedule.time(y)), schedule.end)
            alpha, sigma = (float(v) for v in schedule(t))
            return np.trace(conditional(covariance, alpha, sigma)) * math.exp(y) / 2

        wanted, _ = scipy.integrate.quad(slope, low, high, epsabs=1e-11, epsrel=1e-11, limit=200)
        assert_close(0.5 * np.log((1 + c * math.exp(high)) / (1 + c * math.exp(low))).sum(), wanted, tol=1e-9)
        assert_close(data.continuous_elbo(schedule, times[1]).steps[0], wanted, tol=1e-9)  # quadrature


@equation("dbound-gaussian-total")
def test_what_remains_of_the_continuous_bound():
    """The library's bound against entropy and mismatch from determinants and traces; its first term by conditioning."""
    mean, covariance, data = gaussian()
    c = np.linalg.eigvalsh(covariance)
    entropy = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * covariance)[1]
    assert_close(0.5 * np.log(2 * math.pi * math.e * c).sum(), entropy)
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        mine = data.continuous_elbo(schedule, times[1])
        left = conditional(covariance, alpha[1], sigma[1])
        assert_close(-mine.reconstruction, 0.5 * np.linalg.slogdet(2 * math.pi * math.e * left)[1], tol=1e-11)
        q, width = alpha[-1] ** 2 * covariance + sigma[-1] ** 2 * np.eye(3), alpha[-1] ** 2 + sigma[-1] ** 2
        mismatch = np.trace(q) / width - 3 + 3 * math.log(width) - np.linalg.slogdet(q)[1]
        mismatch = 0.5 * (mismatch + alpha[-1] ** 2 * (mean @ mean) / width)
        assert_close(-mine.value, entropy + mismatch, tol=1e-10)
        integral = 0.5 * np.log((1 + c * (alpha[1] / sigma[1]) ** 2) / (1 + c * (alpha[-1] / sigma[-1]) ** 2)).sum()
        assert_close(-mine.reconstruction + integral + mine.end, entropy + mismatch, tol=1e-10)


@equation("dbound-gaussian-gap")
def test_what_each_step_loses_for_gaussian_data():
    """q(x_r|x_t) by conditioning, in whole covariances, against both ratios; and no loss for unit variance."""
    _, covariance, data = gaussian()
    c, one = np.linalg.eigvalsh(covariance), np.eye(3)
    for schedule, times in SCHEDULES:
        alpha, sigma = levels(schedule, times)
        gaps = {name: data.gap(schedule, torch.tensor(times, dtype=f64), name).steps for name in ("posterior", "step")}
        for k in range(2, len(times)):
            (ar, at), (sr, st) = alpha[k - 1 : k + 1], sigma[k - 1 : k + 1]
            kept = st**2 - (at / ar * sr) ** 2
            early, late = ar**2 * covariance + sr**2 * one, at**2 * covariance + st**2 * one
            true = early - (at / ar) ** 2 * early @ np.linalg.solve(late, early)
            ratios = {
                "posterior": (kept * sr**2 / st**2, (1 + c * (ar / sr) ** 2) / (1 + c * (at / st) ** 2)),
                "step": (kept, (ar**2 * c + sr**2) / (at**2 * c + st**2)),
            }
            for name, (width, ratio) in ratios.items():
                wanted = 0.5 * (np.trace(true) / width - 3 + 3 * math.log(width) - np.linalg.slogdet(true)[1])
                assert_close(0.5 * (ratio - 1 - np.log(ratio)).sum(), wanted, tol=1e-10)
                assert_close(gaps[name][k - 2], wanted, tol=1e-10)
    unit = GaussianData(torch.zeros(3, dtype=f64), torch.eye(3, dtype=f64))
    schedule, times = SCHEDULES[0]
    assert_close(unit.gap(schedule, torch.tensor(times, dtype=f64), "step").steps, np.zeros(3))


# --- grey levels -----------------------------------------------------------------------------------------------------

GREY = np.arange(17) / 16


@equation("dbound-grey")
def test_the_probabilities_of_the_levels():
    """SciPy's normal distribution between the edges, the sum over the levels, and two pixels of the library."""
    edges = np.concatenate([[-math.inf], (np.arange(1, 17) - 0.5) / 16, [math.inf]])
    for y, width in itertools.product((-0.1, 0.33, 0.5, 1.2), (0.05, 0.2)):
        wanted = np.diff(scipy.stats.norm.cdf((edges - y) / width))
        at = torch.full((17, 1), y, dtype=f64)
        log_prob = DiscretisedGaussian(width, dtype=f64)(at).log_prob(torch.from_numpy(GREY)[:, None])[:, 0]
        assert_close(log_prob.exp(), wanted)
        assert_close(log_prob.exp().sum(), 1.0)
    both = DiscretisedGaussian(0.2, dtype=f64)(torch.tensor([[0.3, 0.6]], dtype=f64))
    first, second = (np.diff(scipy.stats.norm.cdf((edges - y) / 0.2)) for y in (0.3, 0.6))
    assert_close(
        both.log_prob(torch.tensor([[0.25, 1.0]], dtype=f64)).sum(1), math.log(first[4]) + math.log(second[16])
    )


def bound_of_levels(p, schedule, times, width):
    """−E[ELBO] of one pixel with its exact denoiser, over all levels and the nodes of ε."""
    nodes = torch.from_numpy(E)[:, None]
    levels = torch.from_numpy(GREY)[:, None]
    denoiser = GaussianMixtureDenoiser(torch.from_numpy(p), levels, 0.0, schedule)
    grey = DiscretisedGaussian(width, dtype=f64)
    with mock.patch.object(bound, "normal", return_value=nodes.repeat(17, 1)):
        rows = levels.repeat_interleave(len(E), 0)
        mine = elbo(denoiser, rows, times, lambda y, x: grey(y).log_prob(x)[:, 0], seeded(1))
    return -float(np.repeat(p, len(E)) * np.tile(W, 17) @ mine.value.numpy())


@equation("dbound-grey-entropy")
def test_the_bound_of_levels_is_above_their_entropy():
    """The exact mean of the library's bound; equality for one level and no signal at the noise end."""
    schedule = Linear(6, 0.005, 0.4).zero_terminal()
    times = torch.arange(7, dtype=f64)
    single = np.eye(17)[5]
    uneven = np.arange(1.0, 18) / np.arange(1.0, 18).sum()
    entropies = [0.0, -float(uneven @ np.log(uneven)), math.log(17)]
    found = [
        bound_of_levels(p, schedule, times, width)
        for p, width in ((single, 1e-3), (uneven, 0.05), (np.ones(17) / 17, 0.05))
    ]
    assert_at_most(entropies, found)


@equation("dbound-grey-unbounded")
def test_a_density_of_levels_has_no_limit():
    """The coin's −E log N by quadrature over ε, its error as 1 − E x̂_0²; the limit is tight for the guess x_t/α."""
    for sigma in (0.8, 0.3, 0.1, 1e-3):
        alpha = math.sqrt(1 - sigma**2)
        x = alpha + sigma * E  # x_0 = 1; the other side by symmetry
        answer = coin_mean(x, alpha, sigma)
        exact, plain = (-float(W @ scipy.stats.norm.logpdf(1.0, guess, sigma)) for guess in (answer, x / alpha))
        lower = 0.5 * math.log(2 * math.pi * sigma**2)
        assert_close(exact, lower + float(W @ (1 - answer**2)) / (2 * sigma**2), tol=1e-11)
        limit = lower + 1 / (2 * alpha**2)
        assert_at_most([exact, plain], [limit, limit])
    assert_close(exact, lower)  # nothing else is left at the last σ
    assert_close(0.5 * math.log(2 * math.pi * 1e-2**2) - 0.5 * math.log(2 * math.pi * 1e-1**2), -math.log(10))


# --- the solutions ---------------------------------------------------------------------------------------------------


@equation("dbound-step-by-hand")
def test_solution_of_the_step():
    alpha, sigma = np.sqrt([1.0, 0.8, 0.5]), np.sqrt([0.0, 0.2, 0.5])  # SNR 4 and 1
    (_, to_0), left = given(chain(alpha, sigma), 1, [2, 0])
    assert_close(kl_1d(to_0 * math.sqrt(0.3), left, 0, left), 0.45)
    assert_close(0.5 * math.expm1(math.log(4)) * 0.3, 0.45)


@equation("dbound-trap-by-hand")
def test_solution_of_the_trap():
    """One term from the moments of a chain with β = 0.01, times the number of terms and dimensions."""
    alpha = 0.99 ** (np.arange(4) / 2)
    mean, covariance = noised(alpha, np.sqrt(1 - alpha**2), 0.0)
    slope = covariance[0, 1:] / covariance[0, 0]
    left = covariance[1:, 1:] - np.outer(slope, slope) * covariance[0, 0]
    dropped = covariance.copy()
    dropped[1, 2] = dropped[2, 1] = covariance[1, 2] - left[0, 1]
    step = math.sqrt(0.99), 0.01
    each = mean_log(mean, covariance, 1, 2, *step) - mean_log(mean, dropped, 1, 2, *step)
    assert_close(999 * 64 * each, 63296.64, tol=1e-11)
    assert_close(999 * 64 * 0.99 * 0.01 / 0.01, 63296.64)


@equation("dbound-velocity-by-hand")
def test_solution_of_the_velocity():
    sigma = torch.tensor(2 / 3, dtype=f64).sqrt()
    alpha = (1 - sigma**2).sqrt()
    assert_close((VELOCITY.error(alpha, sigma) / NOISE.error(alpha, sigma)) ** 2, 3.0)
    assert_close((alpha / sigma) ** 2, 0.5)
    assert_close(2 * (alpha / sigma).log(), -math.log(2))
    assert_close(round(-math.log(2), 4), -0.6931)


@equation("dbound-gaussian-by-hand")
def test_solution_of_the_two_ends():
    found, _ = scipy.integrate.quad(lambda s: 1.5 / (1 + 3 * s), 0, 5, epsabs=1e-13)
    assert_close(found, 2 * math.log(2))
    assert_close(0.5 * math.log(16), 2 * math.log(2))
    first = 0.5 * math.log(2 * math.pi * math.e * 3 / 16)
    assert_close(first + found, scipy.stats.norm(0, math.sqrt(3)).entropy())
    assert_close([round(2 * math.log(2), 4), round(first, 4)], [1.3863, 0.5820])


@equation("dbound-variance-by-hand")
def test_solution_of_the_variances():
    alpha, sigma = np.sqrt([1.0, 0.5, 0.4]), np.sqrt([0.0, 0.5, 0.6])
    _, true = given(chain(alpha, sigma, 4.0), 1, [2])
    _, narrow = given(chain(alpha, sigma, 4.0), 1, [2, 0])
    wide = 0.6 - 0.8 * 0.5
    assert_close([true / narrow, true / wide], [15 / 11, 25 / 22])
    nats = [kl_1d(0, true, 0, width) for width in (wide, narrow)]
    assert_close(nats, [0.5 * (r - 1 - math.log(r)) for r in (25 / 22, 15 / 11)])
    assert_close([round(v, 4) for v in nats], [0.0043, 0.0267])


@equation("dbound-end-by-hand")
def test_solution_of_the_end():
    for alpha2, digits, rounded in ((0.048, 3, 1.574), (4e-5, 4, 0.0013)):
        wanted = 64 * kl_1d(math.sqrt(alpha2), 1 - alpha2, 0, 1)
        assert_close(-32 * math.log1p(-alpha2), wanted)
        assert_close(round(wanted, digits), rounded)
