"""The equations of the hierarchies, in float64 and without sampling error.

Tables are summed in plain NumPy, entry by entry. Gaussian expectations are moments of a joint Gaussian that is built
from its independent noises, or Gauss–Hermite sums, exact for the quadratics here. The library is held against both.
"""

import itertools
import math
from typing import cast

import numpy as np
import scipy.integrate
import scipy.optimize
import torch
from harness import assert_at_most, assert_close, equation
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from lecturecode import seeded
from lecturecode.nn import mlp
from lecturecode.vae import (
    Bernoulli,
    ConditionalVAE,
    Decoder,
    Encoder,
    GaussianChain,
    HierarchicalVAE,
    LinearGaussian,
    StandardNormal,
)

f64 = torch.float64


def tables(seed=1):
    """p(h2), p(h1|h2), p(x|h1), q(h1|x), q(h2|h1): rows that sum to one; 2, 3 and 4 values."""
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(k), size=n).squeeze() for n, k in ((1, 2), (2, 3), (3, 4), (4, 3), (3, 2))]


def entries():
    """All (x, h1, h2)."""
    return itertools.product(range(4), range(3), range(2))


def joint_table(top, middle, below):
    joint = np.empty((4, 3, 2))
    for x, a, b in entries():
        joint[x, a, b] = top[b] * middle[b, a] * below[a, x]
    return joint


def divergence(p, q):
    return float(sum(a * math.log(a / b) for a, b in zip(np.ravel(p), np.ravel(q), strict=True) if a > 0))


def bound(joint, q):
    """Σ q log(joint/q) for each x."""
    return [
        sum(q[x, a, b] * math.log(joint[x, a, b] / q[x, a, b]) for a in range(3) for b in range(2)) for x in range(4)
    ]


def climbing(q1, q21):
    return q1[:, :, None] * q21[None]


def gauss(mean, variance):
    """log N(·; mean, variance) in plain Python."""
    return lambda v: -((v - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


def kl_1d(m, v, n, u):
    """KL(N(m, v)‖N(n, u)), one dimension."""
    return 0.5 * (math.log(u / v) + (v + (m - n) ** 2) / u - 1)


def mean_log(mean, covariance, i, j, b, c):
    """E log N(s_i; b s_j, c) for s ~ N(mean, covariance); without j the mean is b alone."""
    square = covariance[i, i] + mean[i] ** 2
    if j is None:
        square += b**2 - 2 * b * mean[i]
    else:
        square += b**2 * (covariance[j, j] + mean[j] ** 2) - 2 * b * (covariance[i, j] + mean[i] * mean[j])
    return -square / (2 * c) - 0.5 * math.log(2 * math.pi * c)


class Nodes(nn.Module):
    """A posterior whose draws are the nodes of a Gauss–Hermite rule, one row for each; `weights` sum to one."""

    def __init__(self, factors, top_down, nodes=8):
        super().__init__()
        e, w = np.polynomial.hermite_e.hermegauss(nodes)
        self.encoders, self.top_down = factors, top_down
        self.noise = torch.tensor(list(itertools.product(e, repeat=2)), dtype=f64)
        self.weights = torch.tensor([math.prod(v) for v in itertools.product(w / w.sum(), repeat=2)], dtype=f64)

    def forward(self, x, draws, rng):
        first, second = self.encoders
        if self.top_down:
            q2 = second(x)
            h2 = (q2.mean + q2.stddev * self.noise[:, 1:])[None]
            q1 = first(h2, x)
            return [(q1, q1.mean + q1.stddev * self.noise[:, :1]), (q2, h2)]
        q1 = first(x)
        h1 = (q1.mean + q1.stddev * self.noise[:, :1])[None]
        q2 = second(h1)
        return [(q1, h1), (q2, q2.mean + q2.stddev * self.noise[:, 1:])]


def affine(slope, variance):
    return LinearGaussian(torch.tensor([[slope]], dtype=f64), torch.tensor([[variance]], dtype=f64))


class Both(nn.Module):
    """(h, x) ↦ N(b h + a x, variance)."""

    def __init__(self, b, a, variance):
        super().__init__()
        self.b, self.a, self.sigma = b, a, variance**0.5

    def forward(self, h, x):
        mean = self.b * h + self.a * x
        return Independent(Normal(mean, torch.full_like(mean, self.sigma)), 1)


def chain(alpha, levels, variance=1.0):
    """Covariance of (x, h_1 … h_L) of the fixed chain, from its independent noises."""
    root = np.zeros((levels + 1, levels + 1))
    for i in range(levels + 1):
        for j in range(i + 1):
            scale = math.sqrt(variance) if j == 0 else math.sqrt(1 - alpha**2)
            root[i, j] = alpha ** (i - j) * scale
    return root @ root.T


def given(covariance, i, j):
    """Slope matrix and covariance of block i given block j of a centred Gaussian."""
    slope = covariance[np.ix_(i, j)] @ np.linalg.inv(covariance[np.ix_(j, j)])
    return slope, covariance[np.ix_(i, i)] - slope @ covariance[np.ix_(j, i)]


@equation("hierarchy-joint")
def test_the_joint_is_the_product_down_the_chain():
    """Tables: marginals of the product are the tables again; Gaussians: the library's covariances are its moments."""
    top, middle, below, *_ = tables()
    joint = joint_table(top, middle, below)
    assert_close(joint.sum(), 1.0)
    assert_close(joint.sum((0, 1)), top)
    assert_close(joint.sum(0) / joint.sum((0, 1)), middle.T)
    assert_close(joint.sum(2) / joint.sum((0, 2)), below.T)
    w = [0.7, -1.2]
    mine = GaussianChain([torch.tensor([[v]], dtype=f64) for v in w], [0.5, 0.8]).covariances()
    assert_close(mine[0], w[0] ** 2 * (w[1] ** 2 + 0.64) + 0.25)


@equation("hierarchy-bottom-up")
def test_the_bound_taken_apart_from_below():
    """Tables by plain sums; the library's terms, on quadrature nodes, against moments of the joint Gaussian."""
    top, middle, below, q1, q21 = tables()
    q = climbing(q1, q21)
    parts = []
    for x in range(4):
        paint = sum(q1[x, a] * math.log(below[a, x]) for a in range(3))
        first = sum(q[x, a, b] * math.log(q1[x, a] / middle[b, a]) for a in range(3) for b in range(2))
        parts.append(paint - first - sum(q1[x, a] * divergence(q21[a], top) for a in range(3)))
    assert_close(parts, bound(joint_table(top, middle, below), q))
    x, nodes = 0.9, Nodes([affine(0.6, 0.3), affine(-0.4, 0.5)], top_down=False)
    model = HierarchicalVAE(nodes, affine(1.1, 0.7), [affine(0.8, 0.4), StandardNormal(1, f64)])
    found = model.elbo(torch.full((64, 1), x, dtype=f64), 1, seeded(0))
    mean = np.array([0.6 * x, -0.4 * 0.6 * x])
    covariance = np.array([[0.3, -0.12], [-0.12, 0.5 + 0.16 * 0.3]])
    assert_close(nodes.weights @ found.reconstruction, mean_log(mean * 1.1, covariance * 1.21, 0, None, x, 0.7))
    first = mean_log(mean, covariance, 0, None, 0.6 * x, 0.3) - mean_log(mean, covariance, 0, 1, 0.8, 0.4)
    assert_close(nodes.weights @ found.kl[0], first)
    second = -0.5 * math.log(2 * math.pi * 0.5) - 0.5 - mean_log(mean, covariance, 1, None, 0.0, 1.0)
    assert_close(nodes.weights @ found.kl[1], second)


@equation("hierarchy-top-down")
def test_the_bound_taken_apart_from_above():
    """Tables by plain sums, for the same q; the library's divergences against the one-dimensional formula."""
    top, middle, below, q1, q21 = tables()
    q = climbing(q1, q21)
    parts = []
    for x in range(4):
        q2 = q[x].sum(0)
        paint = sum(q[x, a, b] * math.log(below[a, x]) for a in range(3) for b in range(2))
        parts.append(
            paint - sum(q2[b] * divergence(q[x, :, b] / q2[b], middle[b]) for b in range(2)) - divergence(q2, top)
        )
    assert_close(parts, bound(joint_table(top, middle, below), q))
    x, nodes = 0.9, Nodes([Both(0.5, 0.3, 0.2), affine(0.4, 0.6)], top_down=True)
    model = HierarchicalVAE(nodes, affine(1.1, 0.7), [affine(0.8, 0.4), StandardNormal(1, f64)])
    found = model.elbo(torch.full((64, 1), x, dtype=f64), 1, seeded(0))
    m2, shift = 0.4 * x, 0.3 * x
    gap = kl_1d(0.0, 0.2, 0.0, 0.4) + ((0.3**2) * (0.6 + m2**2) - 0.6 * m2 * shift + shift**2) / (2 * 0.4)
    assert_close(nodes.weights @ found.kl[0], gap)
    assert_close(nodes.weights @ found.kl[1], kl_1d(m2, 0.6, 0.0, 1.0))
    mean, variance = 0.5 * m2 + shift, 0.25 * 0.6 + 0.2
    assert_close(
        nodes.weights @ found.reconstruction,
        mean_log(np.array([1.1 * mean]), np.array([[1.21 * variance]]), 0, None, x, 0.7),
    )


@equation("hierarchy-swap")
def test_with_a_deaf_image_the_terms_are_minus_and_plus_the_information():
    """p(x|h1) = p(x): the two terms at the posterior, from the two tables of conditionals, against entropies."""
    top, middle, *_ = tables()
    pair = (middle * top[:, None]).T  # h1, h2
    p1 = pair.sum(1)
    entropy = [-sum(v * math.log(v) for v in np.ravel(t)) for t in (p1, top, pair)]
    information = entropy[0] + entropy[1] - entropy[2]
    first = sum(pair[a, b] * math.log(p1[a] / middle[b, a]) for a in range(3) for b in range(2))
    second = sum(p1[a] * divergence(pair[a] / p1[a], top) for a in range(3))
    assert_close([first, second], [-information, information])


@equation("hierarchy-posterior-up")
def test_the_posterior_is_a_chain_upwards():
    """Tables: joint/evidence against the product; three Gaussian levels: no x in the library's upper factors."""
    top, middle, below, *_ = tables()
    joint = joint_table(top, middle, below)
    posterior = joint / joint.sum((1, 2), keepdims=True)
    up = (middle * top[:, None]).T / (top @ middle)[:, None]
    for x, a, b in entries():
        assert_close(posterior[x].sum(1)[a] * up[a, b], posterior[x, a, b])
    covariance = chain(0.7, 3, 2.0)
    slope, left = given(covariance, [3], [0, 1, 2])
    assert_close(slope[0], [0.0, 0.0, 0.7])
    assert_close(left, 1 - 0.49)


@equation("hierarchy-posterior-down")
def test_the_posterior_downwards_needs_x():
    """p(h2|x) times the normalised product p(x|h1) p(h1|h2)."""
    top, middle, below, *_ = tables()
    joint = joint_table(top, middle, below)
    posterior = joint / joint.sum((1, 2), keepdims=True)
    for x, a, b in entries():
        factor = below[a, x] * middle[b, a] / sum(below[c, x] * middle[b, c] for c in range(3))
        assert_close(posterior[x, :, b].sum() * factor, posterior[x, a, b])


@equation("hierarchy-wrong-shapes")
def test_what_the_two_shortcuts_cost():
    """Divergences of whole tables, entry by entry, against their parts."""
    top, middle, below, q1, _ = tables()
    q2 = tables(5)[4][:1].repeat(4, 0)
    joint = joint_table(top, middle, below)
    posterior = joint / joint.sum((1, 2), keepdims=True)
    up = (middle * top[:, None]).T / (top @ middle)[:, None]
    for x in range(4):
        p1, p2 = posterior[x].sum(1), posterior[x].sum(0)
        blind = middle.T * p2
        parts = sum(p2[b] * divergence(middle[b], posterior[x, :, b] / p2[b]) for b in range(2))
        assert_close(divergence(blind, posterior[x]), parts)
        apart = q1[x][:, None] * q2[x]
        parts = divergence(q1[x], p1) + sum(q1[x, a] * divergence(q2[x], up[a]) for a in range(3))
        assert_close(divergence(apart, posterior[x]), parts)


@equation("hierarchy-linear-chain")
def test_the_linear_chain_is_its_joint_gaussian():
    """Evidence and factors of the library against conditioning of the joint covariance, built from all noises."""
    rng = seeded(3)
    w0, w1 = (torch.randn(s, generator=rng, dtype=f64) for s in ((3, 2), (2, 2)))
    model = GaussianChain([w0, w1], [0.5, 0.8])
    a, b = w0.numpy(), w1.numpy()
    root = np.block([
        [0.5 * np.eye(3), 0.8 * a, a @ b],
        [np.zeros((2, 3)), 0.8 * np.eye(2), b],
        [np.zeros((2, 5)), np.eye(2)],
    ])  # fmt: skip
    covariance = root @ root.T
    x = torch.randn(4, 3, generator=rng, dtype=f64)
    wanted = MultivariateNormal(torch.zeros(3, dtype=f64), torch.tensor(covariance[:3, :3])).log_prob(x)
    assert_close(model.log_prob(x), wanted)
    blocks = [list(range(3)), [3, 4], [5, 6]]
    for level, factor in enumerate(model.posterior().encoders):
        slope, left = given(covariance, blocks[level + 1], blocks[level])
        assert_close(factor.weight, slope)
        root = cast(torch.Tensor, factor.factor)
        assert_close(root @ root.mT, left)
    assert_close(model.model().iwae(x, 1, seeded(5)), wanted, tol=1e-11)  # the ratio is p(x) whatever was drawn


@equation("hierarchy-as-prior")
def test_an_upper_level_is_a_prior_and_a_fee():
    """Plain sums over tables."""
    top, middle, below, q1, q21 = tables()
    p1 = [sum(top[b] * middle[b, a] for b in range(2)) for a in range(3)]
    single, fee = [], []
    for x in range(4):
        single.append(sum(q1[x, a] * math.log(below[a, x]) for a in range(3)) - divergence(q1[x], p1))
        fee.append(
            sum(q1[x, a] * divergence(q21[a], [top[b] * middle[b, a] / p1[a] for b in range(2)]) for a in range(3))
        )
    found = bound(joint_table(top, middle, below), climbing(q1, q21))
    assert_close(found, np.array(single) - np.array(fee))


@equation("hierarchy-upper-gain")
def test_an_upper_level_wins_at_most_what_the_aggregate_misses():
    """The gain over data; the bound is met where the learned prior is the aggregate and the fee is nothing."""
    top, middle, below, q1, q21 = tables()
    data, flat = np.array([0.4, 0.2, 0.1, 0.3]), np.array([0.2, 0.5, 0.3])

    def gain(top, middle, q21):
        two = data @ bound(joint_table(top, middle, below), climbing(q1, q21))
        one = [sum(q1[x, a] * math.log(below[a, x] * flat[a] / q1[x, a]) for a in range(3)) for x in range(4)]
        return two - data @ one

    p1, aggregate = top @ middle, data @ q1
    up = (middle * top[:, None]).T / p1[:, None]
    fee = sum(aggregate[a] * divergence(q21[a], up[a]) for a in range(3))
    assert_close(gain(top, middle, q21), divergence(aggregate, flat) - divergence(aggregate, p1) - fee)
    best = gain(top, np.stack([aggregate, aggregate]), np.stack([top] * 3))
    assert_at_most(best, divergence(aggregate, flat))
    assert_at_most(-best, -divergence(aggregate, flat))


@equation("hierarchy-free-split")
def test_the_evidence_does_not_know_the_split():
    """∫∫ p(x|h1) p(h1|h2) p(h2) by Gauss–Hermite, exact to rounding at 120 nodes, for several a."""
    w, s, x = 1.0, 0.9, 0.8
    e, weight = np.polynomial.hermite_e.hermegauss(120)
    weight = weight / weight.sum()
    for a in (0.0, 0.5, -0.9):
        h1 = a * e[:, None] + math.sqrt(1 - a**2) * e
        total = (weight[:, None] * weight * np.exp(gauss(x, s**2)(w * h1))).sum()
        assert_close(math.log(total), gauss(0.0, w**2 + s**2)(x))
        split = GaussianChain([torch.tensor([[v]], dtype=f64) for v in (w, a)], [s, math.sqrt(1 - a**2)])
        assert_close(split.log_prob(torch.tensor([[x]], dtype=f64)), gauss(0.0, w**2 + s**2)(x))


@equation("hierarchy-mean-field-gap")
def test_independent_levels_pay_for_the_correlation():
    """A minimum found by search over both variances, of the Gaussian divergence; the means agree by symmetry."""
    for a, w, s in ((0.5, 1.0, 0.5), (0.9, 1.3, 0.7), (0.0, 1.0, 1.0)):
        g = w**2 / s**2
        precision = np.array([[g + 1 / (1 - a**2), -a / (1 - a**2)], [-a / (1 - a**2), 1 / (1 - a**2)]])

        def gap(log_variances, precision=precision):
            v = np.exp(log_variances)
            return 0.5 * (
                precision[0, 0] * v[0]
                + precision[1, 1] * v[1]
                - 2
                - sum(log_variances)
                - np.linalg.slogdet(precision)[1]
            )

        found = scipy.optimize.minimize(gap, np.zeros(2), method="BFGS", options={"gtol": 1e-10}).fun
        closed = 0.5 * math.log((1 + (1 - a**2) * g) / ((1 - a**2) * (1 + g)))
        assert_close(closed, found, tol=1e-10)  # the search stops at a slope of 1e-10
        root = np.array([[math.sqrt(1 - a**2), a], [0, 1]])
        prior = np.linalg.inv(root @ root.T)
        assert_close(precision, prior + np.diag([g, 0]), tol=1e-11)


@equation("hierarchy-fixed-chain")
def test_a_step_of_the_fixed_chain():
    """The library's Gaussian of the step against the density written out; unit variance is kept."""
    alpha, before, after = 0.8, 0.7, 0.2
    step = affine(alpha, 1 - alpha**2)(torch.tensor([[before]], dtype=f64))
    assert_close(step.log_prob(torch.tensor([[after]], dtype=f64)), gauss(alpha * before, 1 - alpha**2)(after))
    assert_close(np.diag(chain(alpha, 4)).copy(), np.ones(5))


@equation("hierarchy-composition")
def test_steps_compose():
    """Level l given x from the chain's joint covariance, and by one integral over the level between."""
    alpha = 0.8
    covariance = chain(alpha, 4, 2.5)
    for level in range(1, 5):
        slope, left = given(covariance, [level], [0])
        assert_close(alpha**level, slope)
        assert_close(1 - alpha ** (2 * level), left)
    x, h2 = 0.6, -0.3
    total, _ = scipy.integrate.quad(
        lambda h1: math.exp(gauss(alpha * x, 1 - alpha**2)(h1) + gauss(alpha * h1, 1 - alpha**2)(h2)), -9, 9,
        epsabs=1e-13, epsrel=1e-13,
    )  # fmt: skip
    assert_close(total, math.exp(gauss(alpha**2 * x, 1 - alpha**4)(h2)))


@equation("hierarchy-reverse-step")
def test_a_step_back_given_x():
    """Conditioning of the joint covariance on (h_l, x), for several levels and any variance of x."""
    alpha = 0.85
    for variance, level in itertools.product((1.0, 3.0), (2, 3, 5)):
        bar, before = alpha**level, alpha ** (level - 1)
        slope, left = given(chain(alpha, level, variance), [level - 1], [level, 0])
        mean = [alpha * (1 - before**2) / (1 - bar**2), before * (1 - alpha**2) / (1 - bar**2)]
        assert_close(mean, slope[0])
        assert_close((1 - alpha**2) * (1 - before**2) / (1 - bar**2), left)


def fixed_bound(alpha, levels, x, decoders):
    """Σ E log p − E log q under the chain given x, by moments: `decoders` are (slope, variance) of h_{l−1}|h_l."""
    covariance = chain(alpha, levels)
    slope, left = given(covariance, list(range(1, levels + 1)), [0])
    mean, spread = np.append(x, slope[:, 0] * x), np.zeros((levels + 1, levels + 1))
    spread[1:, 1:] = left
    total = mean_log(mean, spread, levels, None, 0.0, 1.0)
    for level, (b, c) in enumerate(decoders):
        total += mean_log(mean, spread, level, level + 1, b, c)
    return total + levels * 0.5 * math.log(2 * math.pi * math.e * (1 - alpha**2))


@equation("hierarchy-fixed-bound")
def test_the_bound_of_the_fixed_chain_in_divergences():
    """Log ratios in the order of the noise against divergences in the order of the decoder."""
    alpha, x = 0.8, 0.9
    decoders = [(0.7, 0.5), (0.9, 0.3), (0.6, 0.6)]
    b, c = decoders[0]
    mean, variance = alpha * x, 1 - alpha**2
    total = mean_log(np.array([b * mean]), np.array([[b**2 * variance]]), 0, None, x, c)
    for level in (2, 3):
        bar, before = alpha**level, alpha ** (level - 1)
        to_h, to_x = alpha * (1 - before**2) / (1 - bar**2), before * (1 - alpha**2) / (1 - bar**2)
        v = (1 - alpha**2) * (1 - before**2) / (1 - bar**2)
        b, c = decoders[level - 1]
        mean = (to_h - b) * bar * x + to_x * x
        total -= kl_1d(0.0, v, 0.0, c) + (mean**2 + (to_h - b) ** 2 * (1 - bar**2)) / (2 * c)
    total -= kl_1d(alpha**3 * x, 1 - alpha**6, 0.0, 1.0)
    assert_close(total, fixed_bound(alpha, 3, x, decoders))


@equation("hierarchy-fixed-gap")
def test_the_mean_bound_is_entropy_mismatch_and_what_the_decoder_misses():
    """Mean over data N(0, V) by Gauss–Hermite (the bound is quadratic in x) against the three parts."""
    alpha, levels, variance = 0.8, 3, 4.0
    decoders = [(0.7, 0.5), (0.9, 0.3), (0.6, 0.6)]
    e, w = np.polynomial.hermite_e.hermegauss(6)
    mean = sum(p * fixed_bound(alpha, levels, 2.0 * v, decoders) for v, p in zip(e, w / w.sum(), strict=True))
    covariance = chain(alpha, levels, variance)
    parts = 0.5 * math.log(2 * math.pi * math.e * variance) + kl_1d(0, covariance[-1, -1], 0, 1)
    for level, (b, c) in enumerate(decoders):
        slope, left = given(covariance, [level], [level + 1])
        above = covariance[level + 1, level + 1]
        parts += kl_1d(0, left[0, 0], 0, c) + (slope[0, 0] - b) ** 2 * above / (2 * c)
    assert_close(-mean, parts)


@equation("hierarchy-fixed-optimum")
def test_the_best_decoder_is_the_reverse_of_the_noise():
    """Conditioning of the joint covariance; the mismatch at the top by quadrature of its definition."""
    alpha, levels, variance = 0.8, 4, 4.0
    covariance = chain(alpha, levels, variance)
    v = [1 + alpha ** (2 * level) * (variance - 1) for level in range(levels + 1)]
    assert_close(v, np.diag(covariance).copy())
    for level in range(1, levels + 1):
        slope, left = given(covariance, [level - 1], [level])
        assert_close(alpha * v[level - 1] / v[level], slope)
        assert_close((1 - alpha**2) * v[level - 1] / v[level], left)
    log_q, log_p = gauss(0, v[-1]), gauss(0, 1)
    found, _ = scipy.integrate.quad(lambda h: math.exp(log_q(h)) * (log_q(h) - log_p(h)), -15, 15, epsabs=1e-14)
    assert_close(0.5 * (v[-1] - 1 - math.log(v[-1])), found)


@equation("hierarchy-consistency-trap")
def test_the_divergence_that_forgets_how_the_levels_hang_together():
    """Both forms as moments, with the covariance of the levels and without it."""
    alpha, x, b, c = 0.7, 0.9, 0.6, 0.5
    slope, spread = given(chain(alpha, 2), [1, 2], [0])
    mean = slope[:, 0] * x
    right = mean_log(mean, spread, 0, None, mean[0], spread[0, 0]) - mean_log(mean, spread, 0, 1, b, c)
    m, v = mean[0], spread[0, 0]
    trap = kl_1d(0.0, v, 0.0, c) + ((m - b * mean[1]) ** 2 + b**2 * spread[1, 1]) / (2 * c)
    assert_close(trap - right, b * spread[0, 1] / c)
    assert_close(b * spread[0, 1] / c, b * alpha * (1 - alpha**2) / c)


@equation("hierarchy-conditional-bound")
def test_the_conditional_bound():
    """log p(x|y) of a binary model with one latent number by quadrature; tight for the posterior, on tables."""
    rng = seeded(1)
    encoder, decoder = mlp([4, 5, 2], rng, dtype=f64), mlp([3, 5, 2], rng, dtype=f64)
    model = ConditionalVAE(Encoder(encoder), Decoder(decoder, Bernoulli()), StandardNormal(1, f64), 2)
    x, y = torch.tensor([[1.0, 0.0]], dtype=f64), torch.tensor([1])
    e, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(60))
    w = w / w.sum()
    code = torch.tensor([0.0, 1.0], dtype=f64)

    def log_likelihood(h):
        logits = decoder(torch.cat([h[:, None], code.expand(len(h), 2)], 1))
        return (x * logits - torch.log1p(logits.exp())).sum(1)

    mean, log_variance = encoder(torch.cat([x[0], code])).detach()
    h = mean + (log_variance / 2).exp() * e
    wanted = w @ log_likelihood(h).detach() - kl_1d(float(mean), math.exp(float(log_variance)), 0, 1)
    given_y = model.given(y.expand(60))
    given_y.draw = lambda distribution, count, rng: (distribution.mean + distribution.stddev * e[:, None])[None]
    found = given_y.elbo(x.expand(60, -1), 1, seeded(0))
    assert_close((w @ found.value).detach(), wanted)
    evidence = (w @ log_likelihood(e).detach().exp()).log()
    assert float(wanted) < float(evidence)
    top, _, below, *_ = tables()
    joint = [top[b] * below[b, 2] for b in range(2)]
    posterior = [v / sum(joint) for v in joint]
    tight = sum(q * math.log(below[b, 2]) for b, q in enumerate(posterior)) - divergence(posterior, top)
    assert_at_most(tight, math.log(sum(joint)))
    assert_at_most(-tight, -math.log(sum(joint)))


@equation("hierarchy-label-nats")
def test_a_label_is_worth_at_most_its_entropy():
    """A table p(y, x): the mean log ratio against entropies; tight where x determines y and y is uniform."""
    rng = np.random.default_rng(2)
    table = rng.dirichlet(np.ones(40)).reshape(10, 4)
    p_y, p_x = table.sum(1), table.sum(0)
    nats = sum(table[y, x] * math.log(table[y, x] / p_y[y] / p_x[x]) for y in range(10) for x in range(4))
    entropy = [-sum(v * math.log(v) for v in np.ravel(t)) for t in (p_y, p_x, table)]
    assert_close(nats, entropy[0] + entropy[1] - entropy[2])
    sharp = [math.log(0.1 / 0.1 / 0.1)] * 10  # x names y: p(x|y) = 1, p(x) = 1/10
    assert_at_most([nats, np.mean(sharp)], [entropy[0], math.log(10)])
    assert_at_most([entropy[0], -np.mean(sharp)], [math.log(10), -math.log(10)])


@equation("hierarchy-label-mixture")
def test_bounds_for_each_label_bound_the_mixture():
    """Tables: log Σ p(y) e^{ELBO_y} below log p(x), and equal where each q is the posterior."""
    frequency = [0.2, 0.5, 0.3]
    models = [tables(seed) for seed in (1, 2, 3)]
    evidence, loose, tight = [], [], []
    for top, _, below, q1, q21 in models:
        joint = [top[b] * below[b, 1] for b in range(2)]
        evidence.append(sum(joint))
        posterior = [v / sum(joint) for v in joint]
        tight.append(sum(q * math.log(v / q) for q, v in zip(posterior, joint, strict=True)))
        loose.append(sum(q * math.log(v / q) for q, v in zip(q21[0], joint, strict=True)))
        assert q1.shape == (4, 3)
    log_p = math.log(sum(f * v for f, v in zip(frequency, evidence, strict=True)))
    mixed = [math.log(sum(f * math.exp(v) for f, v in zip(frequency, b, strict=True))) for b in (loose, tight)]
    assert_at_most(mixed, [log_p, log_p])
    assert_close(mixed[1], log_p)
    singles = [math.log(f) + v for f, v in zip(frequency, loose, strict=True)]
    alone = math.log(sum(f * math.exp(b) for f, b in zip([0, 1, 0], loose, strict=True)))
    assert max(singles) < mixed[0]
    assert_at_most(loose[1], alone)  # a label that is certain: equality


@equation("hierarchy-swap-by-hand")
def test_solution_the_swapped_bill():
    """The information of two Gaussians with covariance 0.6 by determinants."""
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    assert_close(math.log(0.8), 0.5 * np.linalg.slogdet(covariance)[1])
    assert_close(-0.2231435513142097, math.log(0.8))


@equation("hierarchy-mean-field-by-hand")
def test_solution_independent_levels():
    """½[Σ log Λ_jj − log det Λ] of the posterior's precision; g = 10^12 stands for the limit."""

    def gap(a2, g):
        a = math.sqrt(a2)
        precision = np.array([[g + 1 / (1 - a2), -a / (1 - a2)], [-a / (1 - a2), 1 / (1 - a2)]])
        return 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])

    assert_close(0.5 * math.log(1.5), gap(0.5, 1.0))
    assert_close(0.0, gap(0.5, 1e12), tol=1e-11)  # the gap is a²/(2 (1 − a²) g) there


@equation("hierarchy-levels-by-hand")
def test_solution_how_many_levels():
    """The variance by iteration of the step; 18 levels are too few and 19 enough."""
    variance, left = 4.0, []
    for _ in range(19):
        variance = 0.81 * variance + 0.19
        left.append(kl_1d(0, variance, 0, 1))
    closed = [0.5 * (3 * 0.81**n - math.log1p(3 * 0.81**n)) for n in (18, 19)]
    assert_close(closed, left[-2:])
    assert left[-1] < 0.001 < left[-2]


@equation("hierarchy-trap-by-hand")
def test_solution_the_trap_and_its_optimum():
    """Minima of the two mean squares, from the covariances of the chain over data of unit variance."""
    alpha = 0.9
    covariance = chain(alpha, 2)
    _, spread = given(covariance, [1, 2], [0])
    assert_close(alpha * alpha * (1 - alpha**2) / (1 - alpha**2), alpha * spread[0, 1] / (1 - alpha**2))
    assert_close(0.81, alpha**2)
    assert_close(alpha, covariance[1, 2] / covariance[2, 2])
    assert_close(alpha**3, (covariance[1, 2] - spread[0, 1]) / covariance[2, 2])
