"""The equations of the page on one magnet and four models, in float64 and without sampling error.

Everything is small enough for plain sums over states; expectations over data sets are sums over binomial counts,
extrapolated to many examples, and integrals over noise are sums on a grid.
"""

import itertools
import math

import numpy as np
import scipy.optimize
import scipy.stats
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode import kl
from lecturecode.boltzmann import ising, lattice_log_partition
from lecturecode.diffusion import (
    DiscreteProcess,
    EnumeratedDiffusion,
    GaussianMixtureDenoiser,
    VariancePreserving,
    marginal,
    noise_end,
    posterior,
)

f64 = torch.float64


def spins(n):
    """All states of ±1, the first site changing fastest."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))[:, ::-1].copy()


def some(size, seed):
    p = np.random.default_rng(seed).uniform(0.2, 1.0, size)
    return p / p.sum()


def divergence(p, q):
    return float((p * np.log(p / q)).sum())


def limit(f, sizes):
    """lim f(n) as n → ∞ for f with an expansion in 1/n: Neville's scheme."""
    h, row = [1 / n for n in sizes], [f(n) for n in sizes]
    for k in range(1, len(sizes)):
        row = [(h[j] * row[j + 1] - h[j + k] * row[j]) / (h[j] - h[j + k]) for j in range(len(row) - 1)]
    return row[0]


def mean_log_frequency(n, q):
    """E[log(count/n)] of a binomial count; at n > 300 a count of zero weighs less than 1e-28."""
    k = np.arange(1, n + 1)
    return float(scipy.stats.binom.pmf(k, n, q) @ np.log(k / n))


SIZES = (400, 800, 1600, 3200, 6400, 12800)


@equation("cap-floor")
def test_half_a_nat_for_each_parameter():
    """The curvature of KL is a covariance; N E KL of a fitted table tends to (outcomes − 1)/2, by binomial sums."""
    s = torch.from_numpy(spins(3))
    features = torch.cat([s, s[:, [0]] * s[:, [1]], s[:, [1]] * s[:, [2]]], 1)
    theta = torch.tensor([0.2, -0.1, 0.3, 0.5, -0.4], dtype=f64)
    p = (features @ theta).softmax(0)

    def to(other):
        return (p * (p.log() - (features @ other).log_softmax(0))).sum()

    centred = features - p @ features
    assert_close(torch.autograd.functional.hessian(to, theta), (centred * p[:, None]).mT @ centred)
    assert_close(torch.func.grad(to)(theta), torch.zeros(5))
    for shares in ((0.4, 0.6), (0.5, 0.3, 0.2), (0.4, 0.3, 0.15, 0.15)):

        def excess(n, shares=shares):
            return n * sum(v * (math.log(v) - mean_log_frequency(n, v)) for v in shares)

        assert_close(limit(excess, SIZES), (len(shares) - 1) / 2, tol=1e-7)  # rounding is multiplied by n


@equation("cap-mixture")
def test_two_halves_of_a_mixture_of_products():
    rng = np.random.default_rng(1)
    on, w = rng.uniform(0.05, 0.95, (5, 6)), some(5, 2)
    direct = [
        sum(w[h] * math.prod(on[h, i] if x[i] > 0 else 1 - on[h, i] for i in range(6)) for h in range(5))
        for x in spins(6)
    ]

    def table(part):
        up = (spins(3) + 1) / 2
        return np.exp(np.log(part) @ up.T + np.log1p(-part) @ (1 - up).T)

    product = table(on[:, 3:]).T @ (w[:, None] * table(on[:, :3]))
    assert_close(product.flatten(), np.array(direct))
    assert_close(sum(direct), 1.0)


def with_noise(p, x, factors):
    """E[x_0 | x_t] from the likelihood factors[i](x_0i) of each site, by Bayes' rule over all states."""
    weight = p * np.prod([factors[i](x[:, i]) for i in range(x.shape[1])], 0)
    return weight @ x / weight.sum()


@equation("cap-own-evidence")
def test_what_a_site_says_of_itself():
    """Against sums over all states with and without the site's own noise, and against the package's exact answers."""
    x, p = spins(4), some(16, 3)
    seen = np.array([0.7, -1.1, 0.2, 1.9])
    schedule = VariancePreserving()
    alpha, sigma = (v.item() for v in schedule(0.4))
    bell = [lambda s, y=y: np.exp(-((y - alpha * s) ** 2) / (2 * sigma**2)) for y in seen]
    s, flipped = 0.35, np.array([1.0, -1.0, 1.0, 1.0])
    flips = [lambda v, y=y: (1 + s * y * v) / 2 for y in flipped]
    for factors, own in ((bell, alpha / sigma**2 * seen), (flips, math.atanh(s) * flipped)):
        found = []
        for i in range(4):
            others = [(lambda v: np.ones_like(v)) if j == i else f for j, f in enumerate(factors)]
            found.append(math.tanh(own[i] + math.atanh(with_noise(p, x, others)[i])))
        assert_close(np.array(found), with_noise(p, x, factors))
    mixture = GaussianMixtureDenoiser(torch.from_numpy(p), torch.from_numpy(x), 0.0, schedule)
    assert_close(mixture(torch.from_numpy(seen)[None], 0.4)[0], with_noise(p, x, bell), tol=1e-11)
    exact = EnumeratedDiffusion(DiscreteProcess.uniform([1 - s]), torch.from_numpy(p))
    row = int(((flipped + 1) / 2) @ 2 ** np.arange(4))
    up = exact.site_clean(1)[row, :, 1]
    assert_close(2 * up - 1, with_noise(p, x, flips))


@equation("cap-last-step")
def test_a_mean_of_a_spin_is_a_probability():
    x, p = spins(3), some(8, 4)
    seen, alpha, sigma = np.array([0.3, -0.8, 1.2]), 0.8, 0.6
    weight = p * np.exp(-((seen - alpha * x) ** 2).sum(1) / (2 * sigma**2))
    weight /= weight.sum()
    answer = weight @ x
    for sign in (-1.0, 1.0):
        direct = [weight[x[:, i] == sign].sum() for i in range(3)]
        assert_close((1 + sign * answer) / 2, np.array(direct))


class Answer:
    """Any function between −1 and 1, as a denoiser of one spin."""

    schedule = VariancePreserving()

    def __call__(self, xt, t):
        return torch.tanh(0.9 * xt + 0.2 * float(t))


@equation("cap-paths")
def test_weights_of_paths_have_the_right_mean():
    """Two levels and one spin: E[W] on a grid of noises, q on a grid of x by the model's own steps; then the bound."""
    schedule, denoiser, (r, t) = VariancePreserving(), Answer(), (0.3, 1.0)
    for x0 in (-1.0, 1.0):
        eps = torch.linspace(-9, 9, 361, dtype=f64)
        bell = torch.exp(-(eps**2) / 2) / math.sqrt(2 * math.pi) * (eps[1] - eps[0])
        clean = torch.full((len(eps), 1), x0, dtype=f64)
        end = marginal(schedule, clean, t)
        at_end = (end.mean + end.variance.sqrt() * eps[:, None]).repeat_interleave(len(eps), 0)
        weight = bell.repeat_interleave(len(eps)) * bell.repeat(len(eps))
        clean, noise = torch.full_like(at_end, x0), eps.repeat(len(eps))[:, None]
        step = posterior(schedule, clean, at_end, r, t)
        at_r = step.mean + step.variance.sqrt() * noise
        guess = posterior(schedule, denoiser(at_end, t), at_end, r, t)
        log_w = noise_end(schedule, tuple(at_end.shape), at_end).log_prob(at_end)
        log_w = log_w - marginal(schedule, clean, t).log_prob(at_end) + guess.log_prob(at_r) - step.log_prob(at_r)
        log_w = log_w + ((1 + x0 * denoiser(at_r, r)[:, 0]) / 2).log()

        def level(time):
            lost = 0.1 * time + 9.95 * time**2
            return math.exp(-lost / 2), math.sqrt(-math.expm1(-lost))

        (ar, sr), (at, st) = level(r), level(t)
        start, now = np.linspace(-10, 10, 801)[:, None], np.linspace(-10, 10, 801)[None]
        ratio = at / ar
        added = st**2 - ratio**2 * sr**2
        mean = (ratio * sr**2 * start + ar * added * np.tanh(0.9 * start + 0.2 * t)) / st**2
        spread = sr**2 * added / st**2
        prior = np.exp(-(start**2) / (2 * (at**2 + st**2))) / math.sqrt(2 * math.pi * (at**2 + st**2))
        back = np.exp(-((now - mean) ** 2) / (2 * spread)) / math.sqrt(2 * math.pi * spread)
        q = (prior * back * (1 + x0 * np.tanh(0.9 * now + 0.2 * r)) / 2).sum() * 0.025**2
        assert_close(weight @ log_w.exp(), q, tol=1e-10)
    values, chance = np.array([[0.5, 2.0], [0.7, 0.7]]), np.array([0.3, 0.7])
    pairs = chance[:, None] * chance
    logs = [
        [c @ np.log(v), (pairs * np.log((v[:, None] + v) / 2)).sum()]
        for v, c in zip(values, (chance, chance), strict=True)
    ]
    bounds = np.array(logs)
    assert_at_most(bounds[:, 0], bounds[:, 1])
    assert_at_most(bounds[:, 1], np.log(values @ chance))


@equation("cap-sampled")
def test_no_term_of_the_estimate_is_negative_and_its_bias_has_a_sign():
    p, q = some(8, 5), some(8, 6)
    rho = q / p
    assert_close((p * (rho - 1 - np.log(rho))).sum(), divergence(p, q))
    assert_close(kl(torch.from_numpy(p), torch.from_numpy(q)), (p * (rho - 1 - np.log(rho))).sum())
    assert_at_most(np.zeros(9), np.append(rho - 1 - np.log(rho), 0.0))
    spread = np.linspace(0, 0.9, 8)  # ρ̂ is ρ (1 ± spread), equally likely
    hats = rho * np.stack([1 - spread, 1 + spread])
    estimate = (p * (hats - 1 - np.log(hats))).sum(1).mean()
    bias = (p * np.log(rho / hats)).sum(1).mean()
    assert_close(estimate, divergence(p, q) + bias)
    each = np.log(rho / hats).mean(0)
    assert_at_most(np.zeros(8), each)


def ring_maps():
    shifts = [[(i + k) % 4 for i in range(4)] for k in range(4)]
    return [m for k in shifts for m in (k, k[::-1])]


def ring_orbits():
    """For each of the 16 states of a ring of four the smallest state that a symmetry makes of it."""
    x = spins(4)
    number = {tuple(s): k for k, s in enumerate(x)}
    return np.array([min(number[tuple(sign * s[m])] for m in ring_maps() for sign in (1, -1)) for s in x])


@equation("cap-orbits")
def test_divergence_splits_by_orbits():
    orbit, q = ring_orbits(), some(16, 7)
    p = np.exp(0.6 * (spins(4) * np.roll(spins(4), 1, 1)).sum(1))
    p /= p.sum()
    groups = [np.flatnonzero(orbit == o) for o in np.unique(orbit)]
    between = sum(p[g].sum() * math.log(p[g].sum() / q[g].sum()) for g in groups)
    within = sum(p[g].sum() * divergence(np.full(len(g), 1 / len(g)), q[g] / q[g].sum()) for g in groups)
    assert_close(between + within, divergence(p, q))
    number = {tuple(s): k for k, s in enumerate(spins(4))}
    turned = np.zeros(16)
    for m in ring_maps():  # draw from q, then apply one of the 16 symmetries
        for sign in (1, -1):
            for s, weight in zip(spins(4), q, strict=True):
                turned[number[tuple(sign * s[m])]] += weight / 16
    assert_close(np.array([turned[k] for g in groups for k in g]), np.array([q[g].mean() for g in groups for _ in g]))
    assert_close(divergence(p, turned), between)


@equation("cap-plug-in")
def test_estimated_frequencies_make_a_divergence_too_large():
    """n times the exact excess, extrapolated: for counts, and for means of numbers that take two values."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.25, 0.35])

    def excess(n):
        return n * sum(a * (math.log(b) - mean_log_frequency(n, b)) for a, b in zip(p, q, strict=True))

    v = q * (1 - q)
    assert_close(limit(excess, SIZES), (p * v / q**2).sum() / 2, tol=1e-7)  # rounding is multiplied by n
    assert_close((p * v / q**2).sum(), (p / q).sum() - 1)
    low, high = 0.5 * q, 1.5 * q  # each draw gives a distribution of its own: mean q, v = q²/4

    def smoother(n):
        k = np.arange(n + 1)
        logs = np.log(low[:, None] + (high - low)[:, None] * k / n)
        return n * float(p @ (np.log(q) - logs @ scipy.stats.binom.pmf(k, n, 0.5)))

    assert_close(limit(smoother, SIZES), (p * (q**2 / 4) / q**2).sum() / 2, tol=1e-7)


def small_magnet(beta):
    """Energies and probabilities of an open 3 × 3 magnet, by loops."""
    x = spins(9).reshape(-1, 3, 3)
    energy = -(x[:, :, 1:] * x[:, :, :-1]).sum((1, 2)) - (x[:, 1:] * x[:, :-1]).sum((1, 2))
    weight = np.exp(-beta * energy)
    return energy, weight / weight.sum(), math.log(weight.sum())


@equation("cap-wrong-temperature")
def test_the_price_of_a_wrong_temperature():
    q, beta = some(512, 8) ** 3, 0.45
    energy, p, _ = small_magnet(beta)
    q = q * np.exp(-0.2 * energy)
    q /= q.sum()
    own = scipy.optimize.brentq(lambda b: small_magnet(b)[1] @ energy - q @ energy, 0, 2, xtol=1e-15)
    near = small_magnet(own)[1]
    assert_close(divergence(q, near) + divergence(near, p), divergence(q, p), tol=1e-11)


@equation("cap-lattice")
def test_a_model_is_judged_by_log_z():
    """The library's log Z and its slope against a sum over 512 states."""
    q, beta = some(512, 9), 0.44
    energy, p, _ = small_magnet(beta)
    b = torch.tensor(beta, dtype=f64, requires_grad=True)
    bonds, zero = b.expand(3, 2), torch.zeros(3, 3, dtype=f64)
    log_z = lattice_log_partition(bonds, bonds.mT, zero)
    (slope,) = torch.autograd.grad(log_z, b)
    entropy = log_z.detach() - beta * slope
    assert_close(slope, -(p @ energy))
    assert_close(entropy, -(p * np.log(p)).sum())
    assert_close(-(p @ np.log(q)) - entropy, divergence(p, q))


@equation("cap-rows")
def test_rows_of_a_lattice_are_a_chain():
    """The recursion on rows of three against the marginals and conditionals of all 512 states."""
    beta, row = 0.6, spins(3)
    inside = np.exp(beta * (row[:, 1:] * row[:, :-1]).sum(1))
    between = np.exp(beta * row @ row.T)
    w3 = inside
    w2 = inside * (between @ w3)
    w1 = inside * (between @ w2)
    _, p, log_z = small_magnet(beta)
    joint = p.reshape(8, 8, 8).transpose(2, 1, 0)  # the first row changes fastest
    assert_close(math.log(w1.sum()), log_z)
    assert_close(w1 / w1.sum(), joint.sum((1, 2)))
    for w, pair in ((w2, joint.sum(2)), (w3, joint.sum(0))):
        step = between * w / (between @ w)[:, None]
        assert_close(step, pair / pair.sum(1, keepdims=True))
    third = joint / joint.sum(2, keepdims=True)
    assert_close(third[0], third[5])  # given the second row the first says nothing of the third


@equation("cap-examples-by-hand")
def test_examples_for_a_thousandth():
    parameters = 16 + math.comb(16, 2)
    assert_close(parameters, 136)
    assert_close(parameters / (2 * 68_000), 0.001)


@equation("cap-evidence-by-hand")
def test_log_odds_add():
    """By Bayes' rule with the two sources of evidence multiplied."""
    up, down = 0.75 * math.exp(0.3), 0.25 * math.exp(-0.3)
    mean = (up - down) / (up + down)
    assert_close(math.tanh(math.atanh(0.5) + 0.3), mean)
    assert_close((0.5 + math.tanh(0.3)) / (1 + 0.5 * math.tanh(0.3)), mean)


@equation("cap-ring-by-hand")
def test_orbits_of_a_ring():
    x = spins(4)
    fixed = [sum((sign * s[m] == s).all() for s in x) for sign in (1, -1) for m in ring_maps()]
    assert_close(sum(fixed[:8]), 48)
    assert_close(sum(fixed[8:]), 16)
    assert_close(sum(fixed) / 16, len(np.unique(ring_orbits())))
    assert_close(len(np.unique(ring_orbits())), 4)


@equation("cap-counts-by-hand")
def test_draws_to_count_all_states():
    p = np.full(2**16, 2.0**-16)
    assert_close(((p / p).sum() - 1) / (2 * 3_276_750), 0.01)


@equation("cap-energy-by-hand")
def test_price_of_an_energy_to_second_order():
    """Derivatives by β′ of the divergence and of the energy, by automatic differentiation over 65,536 states."""
    with torch.no_grad():
        magnet = ising(4, 4, periodic=True)
        number = torch.arange(2**16)
        energy = magnet.energy((2 * (number[:, None] >> torch.arange(16) & 1) - 1).to(f64))
    beta = torch.tensor(1 / 2.4, dtype=f64)
    p = (-beta * energy).softmax(0)

    def price(b):
        near = (-b * energy).softmax(0)
        return (near * ((-b * energy).log_softmax(0) - p.log())).sum()

    variance = p @ energy**2 - (p @ energy) ** 2
    assert_close(torch.func.grad(torch.func.grad(price))(beta), variance, relative=True)
    assert_close(torch.func.grad(lambda b: (-b * energy).softmax(0) @ energy)(beta), -variance, relative=True)
    capacity = magnet.thermodynamics(beta[None]).heat_capacity[0] / 16
    assert_close(1.6**2 / (2 * variance), 16 * beta**2 * 0.01 / (2 * capacity))
