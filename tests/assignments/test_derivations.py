"""What the questions graded by hand ask to show holds in numbers, by ways that the model answers do not go."""

import itertools
import math

import numpy as np
import pytest
import torch

from lecturecode.markov import MarkovChain

RNG = np.random.default_rng(79)


def divergence(A: np.ndarray, B: np.ndarray) -> float:
    """KL(N(0, A) ‖ N(0, B)) along the common eigenvectors of the pair."""
    ratios = np.real(np.linalg.eigvals(np.linalg.solve(B, A)))
    return 0.5 * float((ratios - 1 - np.log(ratios)).sum())


@pytest.mark.parametrize("rho", [0.02, -0.3, 0.9])
def test_what_a_diagonal_encoder_loses(rho):
    """a-linear-vae, 1: the best one, and the one with the posterior's own variances."""
    scale = RNG.uniform(0.5, 3, 2)
    precision = scale[:, None] * np.array([[1, rho], [rho, 1]]) * scale
    posterior = np.linalg.inv(precision)
    best, own = np.diag(1 / precision.diagonal()), np.diag(posterior.diagonal())
    gap = 0.5 * (np.log(precision.diagonal()).sum() - np.linalg.slogdet(precision)[1])
    assert divergence(best, posterior) == pytest.approx(gap, rel=1e-9)
    assert gap == pytest.approx(-0.5 * math.log(1 - rho**2), rel=1e-9)
    lost = divergence(own, posterior)
    assert lost == pytest.approx(rho**2 / (1 - rho**2) + 0.5 * math.log(1 - rho**2), rel=1e-9)
    assert lost > gap
    if abs(rho) < 0.1:
        assert (lost - gap) / rho**4 == pytest.approx(0.5, rel=0.01)
    for change in itertools.product((0.9, 1.0, 1.1), repeat=2):
        near = np.diag(change)
        assert divergence(best @ near, posterior) >= gap - 1e-12
        assert divergence(posterior, own @ near) >= divergence(posterior, own) - 1e-12


def test_the_posterior_and_its_axes():
    """a-linear-vae, 1: the posterior from the joint covariance; what a rotation does to p(x) and to the gap."""
    n, m = 5, 3
    W, psi = RNG.normal(size=(n, m)), RNG.uniform(0.3, 2, n)
    total = W @ W.T + np.diag(psi)
    gain = np.linalg.solve(total, W).T
    precision = np.eye(m) + (W.T / psi) @ W
    assert np.allclose(np.linalg.inv(precision), np.eye(m) - gain @ W, atol=1e-12)
    assert np.allclose(np.linalg.solve(precision, W.T / psi), gain, atol=1e-12)

    def gap(W):
        precision = np.eye(m) + (W.T / psi) @ W
        return 0.5 * (np.log(precision.diagonal()).sum() - np.linalg.slogdet(precision)[1])

    other = np.linalg.qr(RNG.normal(size=(m, m)))[0]
    axes = np.linalg.eigh(precision)[1]
    for R in (other, axes):
        assert np.allclose((W @ R) @ (W @ R).T + np.diag(psi), total)
    assert abs(gap(W @ other) - gap(W)) > 1e-6
    assert gap(W @ axes) == pytest.approx(0, abs=1e-12)
    even = np.sqrt(psi)[:, None] * np.linalg.qr(W)[0]  # all eigenvalues of Λ are equal
    assert gap(even @ other) == pytest.approx(gap(even), abs=1e-12)


def chain(n: int) -> tuple[np.ndarray, np.ndarray]:
    A = RNG.gamma(0.5, size=(n, n)) + 0.01
    T = A / A.sum(0)
    return T, np.linalg.matrix_power(T, 4096)[:, 0]


def test_one_step_of_a_chain_with_currents():
    """a-chain-forgets, 1: M is in detailed balance, its spectrum lies in [0, 1], and its second value bounds a step."""
    for n in (3, 5, 8):
        T, rest = chain(n)
        back = (T * rest).T / rest
        M = back @ T
        assert np.allclose(back.sum(0), 1)
        assert np.allclose(back @ rest, rest)
        assert np.allclose(M * rest, (M * rest).T)
        found, vectors = np.linalg.eig(M)
        assert abs(np.imag(found)).max() < 1e-12
        values = np.real(found)
        assert values.min() > -1e-12
        assert values.max() == pytest.approx(1)
        second = values.argsort()[-2]

        def away(p, rest=rest):
            return ((p - rest) ** 2 / rest).sum()

        for p in RNG.dirichlet(np.full(n, 0.3), 50):
            assert away(T @ p) <= values[second] * away(p) * (1 + 1e-9)
        direction = np.real(vectors[:, second])  # where the bound is reached
        p = rest + 0.5 * direction * (rest / abs(direction)).min()
        assert away(T @ p) == pytest.approx(values[second] * away(p))
        half = (T + back) / 2  # reversible
        twice = np.sort(np.real(np.linalg.eigvals(half @ half)))[-2]
        assert twice == pytest.approx(np.sort(abs(np.linalg.eigvals(half)))[-2] ** 2)


@pytest.mark.parametrize("n", [4, 5, 6])  # of three spins every mixed state has two such pairs
def test_what_the_wrong_program_samples(n):
    """drawing-a-magnet, 1: f·k in place of f, and a closed class for each magnetisation."""
    states = list(itertools.product((-1, 1), repeat=n))
    f = dict(zip(states, RNG.uniform(0.2, 3, len(states)), strict=True))

    def exchanges(s):
        for i in range(n):
            if s[i] != s[(i + 1) % n]:
                other = list(s)
                other[i], other[(i + 1) % n] = s[(i + 1) % n], s[i]
                yield tuple(other)

    k = {s: len(list(exchanges(s))) for s in states}
    wrong, right = np.zeros((2, len(states), len(states)))
    for j, s in enumerate(states):
        for end in exchanges(s):
            i = states.index(end)
            wrong[i, j] = min(1, f[end] / f[s]) / k[s]
            right[i, j] = min(1, f[end] * k[s] / (f[s] * k[end])) / k[s]
        wrong[j, j], right[j, j] = 1 - wrong[:, j].sum(), 1 - right[:, j].sum()
    weights = np.array([f[s] for s in states])
    walls = np.array([k[s] for s in states])
    assert np.allclose(wrong * weights * walls, (wrong * weights * walls).T)
    assert np.allclose(right * weights, (right * weights).T)
    assert not np.allclose(wrong * weights, (wrong * weights).T)
    assert len(MarkovChain(torch.from_numpy(right)).closed_classes) == n + 1
    flips = np.zeros_like(right)  # the heat bath at a random site
    for (j, s), i in itertools.product(enumerate(states), range(n)):
        pair = [states.index((*s[:i], spin, *s[i + 1 :])) for spin in (-1, 1)]
        flips[pair, j] += weights[pair] / weights[pair].sum() / n
    for both in (flips @ right, (flips + right) / 2):
        assert np.allclose(both @ weights, weights)
        assert len(MarkovChain(torch.from_numpy(both)).closed_classes) == 1


def test_how_much_noise_on_the_way_down():
    """noise-and-back, 1: the posterior among the steps, and what each step loses of the variance."""
    for _ in range(5):
        alpha_r, alpha_t = RNG.uniform(0.5, 1.2, 2)
        sigma_r, c = RNG.uniform(0.1, 1), RNG.uniform(0.1, 3)
        sigma_t = sigma_r * alpha_t / alpha_r * RNG.uniform(1.05, 3)
        # x_r and x_t given x_0 = 1, where x_t = (α_t/α_r) x_r + noise
        gain = alpha_t / alpha_r * sigma_r**2 / sigma_t**2
        variance = sigma_r**2 - gain * alpha_t / alpha_r * sigma_r**2
        at = RNG.normal()
        mean = alpha_r + math.sqrt(sigma_r**2 - variance) * (at - alpha_t) / sigma_t
        assert mean == pytest.approx(alpha_r + gain * (at - alpha_t))
        assert variance == pytest.approx(sigma_r**2 * (sigma_t**2 - (alpha_t / alpha_r * sigma_r) ** 2) / sigma_t**2)
        # the step is linear in x_t, so its variance is a sum of two
        total = alpha_t**2 * c + sigma_t**2
        losses = []
        for fresh in np.linspace(0, sigma_r, 6):
            kappa = math.sqrt(max(sigma_r**2 - fresh**2, 0))
            clean = alpha_t * c / total
            factor = alpha_r * clean + kappa * (1 - alpha_t * clean) / sigma_t
            losses.append(alpha_r**2 * c + sigma_r**2 - factor**2 * total - fresh**2)
            assert losses[-1] == pytest.approx(c * (alpha_r * sigma_t - alpha_t * kappa) ** 2 / total, abs=1e-12)
        assert losses == sorted(losses)
        length = sigma_t / alpha_t - sigma_r / alpha_r
        assert losses[0] == pytest.approx(alpha_r**2 * c * length**2 / (c + (sigma_t / alpha_t) ** 2))


def test_the_step_without_noise_is_eulers():
    """noise-and-back, 1: in y = x/α and ν = σ/α; over N steps the variance that is lost goes like 1/N."""
    (alpha_r, sigma_r), (alpha_t, sigma_t) = (0.9, 0.5), (0.6, 1.1)
    x, clean = RNG.normal(size=2)
    step = alpha_r * clean + sigma_r * (x - alpha_t * clean) / sigma_t
    y, slope = x / alpha_t, (x / alpha_t - clean) / (sigma_t / alpha_t)
    assert step / alpha_r == pytest.approx(y + (sigma_r / alpha_r - sigma_t / alpha_t) * slope)

    def left(N, c=1.7):
        levels = np.linspace(3, 0.2, N + 1)
        variance = c + levels[0] ** 2
        for late, early in itertools.pairwise(levels):
            variance *= (1 + (early - late) * late / (c + late**2)) ** 2  # the slope is y ν/(c + ν²)
        return c + levels[-1] ** 2 - variance

    assert left(500) > 0
    assert left(500) / left(1000) == pytest.approx(2, rel=0.01)


# Nodes that crowd at both ends (tanh-sinh): the integrand below has its poles close behind them.
FAR = np.arange(-3.8, 3.8, 0.04)[:, None]
TO_P, TO_Q = (1 / (1 + np.exp(way * math.pi * np.sinh(FAR))) for way in (-1, 1))
WEIGHTS = 0.04 * math.pi * np.cosh(FAR) * TO_P * TO_Q


def by_quadrature(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p ‖ q) = ∫₀¹ (1 − t) Σ (p − q)²/(q + t(p − q)) dt: no logarithm is taken. p may have zeros."""
    return float((WEIGHTS * TO_Q * (p - q) ** 2 / (TO_Q * q + TO_P * p)).sum())


def merged(p: np.ndarray, groups: tuple[int, ...]) -> np.ndarray:
    return np.bincount(np.array(groups), p)


def groupings(k: int) -> list[tuple[int, ...]]:
    """All ways to sort k outcomes, each once: a new group has the next number."""
    found: list[tuple[int, ...]] = [()]
    for _ in range(k):
        found = [(*some, g) for some in found for g in range(max(some, default=-1) + 2)]
    return found


def test_what_merging_loses():
    """divergences, 1: the mean divergence within the groups, never negative; zero groups count for nothing."""
    for groups in ((0, 0, 1, 1, 1, 2), (0, 1, 0, 1, 2, 2), (0, 0, 0, 0, 1, 1)):
        p, q = RNG.dirichlet(np.full(6, 2), 2)
        for zeros in ((), (0,), (4, 5)):  # the last two empty a group of each sorting
            p[list(zeros)] = 0
            p /= p.sum()
            lost = by_quadrature(p, q) - by_quadrature(merged(p, groups), merged(q, groups))
            within = 0.0
            for g in set(groups):
                inside = np.array(groups) == g
                if p[inside].sum() > 0:
                    within += p[inside].sum() * by_quadrature(p[inside] / p[inside].sum(), q[inside] / q[inside].sum())
            assert lost == pytest.approx(within, abs=1e-12)
            assert lost > 1e-4
        # the same p(x | g) in each group that p knows, anything in the one that it does not know
        p = q * np.array([0.5, 1.7, 0.0])[list(groups)]
        p /= p.sum()
        assert by_quadrature(p, q) == pytest.approx(by_quadrature(merged(p, groups), merged(q, groups)), abs=1e-12)


def test_the_fewest_groups_that_lose_nothing():
    """divergences, 1: of all sortings of six outcomes, by their losses: those that keep the ratios apart."""
    q = RNG.dirichlet(np.full(6, 2))
    for ratios in ((1, 2, 2, 1, 3, 2), (0, 0, 1, 1, 0, 1), (1, 2, 3, 4, 5, 6), (1, 1, 1, 1, 1, 1)):
        p = q * np.array(ratios)
        p /= p.sum()
        whole, lossless = by_quadrature(p, q), []
        for groups in groupings(6):
            lost = whole - by_quadrature(merged(p, groups), merged(q, groups))
            assert lost > -1e-12
            apart = all(ratios[i] == ratios[j] for i in range(6) for j in range(i) if groups[i] == groups[j])
            assert apart == (lost < 1e-7)
            lossless += [groups] * apart
        (best,) = (groups for groups in lossless if max(groups) == min(map(max, lossless)))
        assert max(best) + 1 == len(set(ratios))
        assert len(set(zip(best, ratios, strict=True))) == len(set(ratios))


@pytest.mark.parametrize("length", [2, 3, 6, 9])
def test_an_open_chain_is_its_bonds(length):
    """a-small-magnet, 1: sums over all spins, the heat capacity also from second differences of log Z."""
    J, beta = RNG.normal(size=length - 1), 0.8
    s = np.array(list(itertools.product((-1, 1), repeat=length)))
    bonds = s[:, :-1] * s[:, 1:]
    assert len({(row[0], *bond) for row, bond in zip(s.tolist(), bonds.tolist(), strict=True)}) == 2**length

    def log_z(b, J=J):
        return np.log(np.exp(b * bonds @ J).sum())

    assert log_z(beta) == pytest.approx(math.log(2) + np.log(2 * np.cosh(beta * J)).sum(), rel=1e-12)
    p = np.exp(beta * bonds @ J - log_z(beta))
    for i, j in itertools.combinations(range(length), 2):
        assert p @ (s[:, i] * s[:, j]) == pytest.approx(np.tanh(beta * J[i:j]).prod(), abs=1e-12)
    for signs in itertools.product((-1, 1), repeat=length - 1):  # the products are independent
        joint = p[(bonds == signs).all(1)].sum()
        assert joint == pytest.approx(np.prod([p[bonds[:, k] == signs[k]].sum() for k in range(length - 1)]))
    capacity = ((beta * J / np.cosh(beta * J)) ** 2).sum()
    energy = -bonds @ J
    assert beta**2 * (p @ energy**2 - (p @ energy) ** 2) == pytest.approx(capacity)
    h = 1e-3
    second = (log_z(beta + h) - 2 * log_z(beta) + log_z(beta - h)) / h**2
    assert beta**2 * second == pytest.approx(capacity, rel=1e-4)
    assert energy.min() == pytest.approx(-abs(J).sum())  # never frustrated
    for k in range(length - 1):
        turned, other = s.copy(), J.copy()
        turned[:, k + 1 :] *= -1
        other[k] *= -1
        assert np.allclose((turned[:, :-1] * turned[:, 1:]) @ other, bonds @ J)
        assert log_z(beta, other) == pytest.approx(log_z(beta), rel=1e-12)


def test_a_machine_with_three_answers():
    """learning-a-machine, 1: from the table of P(x, h), the slope from differences of the likelihood."""
    n, m = 3, 2
    W, b_x, b_h = RNG.normal(size=(n, m)), RNG.normal(size=n), RNG.normal(size=m)
    x = np.array(list(itertools.product((0, 1), repeat=n)))
    h = np.array(list(itertools.product((-1, 0, 1), repeat=m)))

    def table(W):
        weights = np.exp((x @ b_x)[:, None] + h @ b_h + np.einsum("ai,ij,bj->ab", x, W, h))
        return weights / weights.sum(), weights

    joint, weights = table(W)
    posterior = joint / joint.sum(1, keepdims=True)
    c = b_h + x @ W
    mean = 2 * np.sinh(c) / (1 + 2 * np.cosh(c))
    assert np.allclose(posterior @ h, mean, atol=1e-13)
    single = np.exp(h * c[:, None]) / (1 + 2 * np.cosh(c))[:, None]  # [x, h, j]
    assert np.allclose(single.prod(2), posterior, atol=1e-13)  # also that the hidden units are independent
    for j, value in itertools.product(range(m), (-1, 0, 1)):
        assert np.allclose(posterior[:, h[:, j] == value].sum(1), single[:, h[:, j] == value, j][:, 0], atol=1e-13)
    free = -x @ b_x - np.log(1 + 2 * np.cosh(c)).sum(1)
    assert np.allclose(-np.log(weights.sum(1)), free, atol=1e-12)

    data, step = [0, 3, 3, 6, 7], 1e-5
    for i, j in itertools.product(range(n), range(m)):
        nudge = np.zeros_like(W)
        nudge[i, j] = step
        up, down = (np.log(table(W + way * nudge)[0].sum(1)[data]).mean() for way in (1, -1))
        model = (joint * x[:, i][:, None] * h[:, j]).sum()
        assert (up - down) / (2 * step) == pytest.approx((x[data, i] * mean[data, j]).mean() - model, abs=1e-8)


def test_what_the_third_answer_changes():
    """learning-a-machine, 1: both factors grow like e^|c|; near zero the unit with a third value answers less."""

    def three(c):
        return np.log(1 + 2 * np.cosh(c))

    def two(c):
        return np.log(2 * np.cosh(c))

    h = 1e-3
    assert three(0) == pytest.approx(math.log(3))
    for factor, share in ((three, 1 / 3), (two, 1 / 2)):
        assert (factor(h) - factor(0)) / h**2 == pytest.approx(share, rel=1e-5)
        assert factor(-40.0) - 40 == pytest.approx(0, abs=1e-13)
        slope = (factor(2 * h) - factor(0)) / (2 * h)  # the mean at c = h
        assert slope / h == pytest.approx(2 * share, rel=1e-4)


@pytest.mark.parametrize("price", [0.4, 1.0, 2.5])
def test_a_bound_with_a_price(price):
    """the-bound-by-hand, 1: sums over kinds; what another q than q* loses, and how the maximum lies."""
    for x in (0, 2, 5):
        prior, rates = RNG.dirichlet(np.full(3, 2)), RNG.uniform(1, 6, 3)
        likelihood = rates**x / math.factorial(x) * np.exp(-rates)

        def bound(q, prior=prior, likelihood=likelihood):
            return q @ np.log(likelihood) - price * by_quadrature(q, prior)

        best = prior * likelihood ** (1 / price)
        total = best.sum()
        best = best / total
        top, evidence = price * math.log(total), math.log(prior @ likelihood)
        assert bound(best) == pytest.approx(top, abs=1e-10)
        for q in [*RNG.dirichlet(np.full(3, 0.5), 100), *np.eye(3)]:
            assert bound(q) < top + 1e-9
            assert top - bound(q) == pytest.approx(price * by_quadrature(q, best), rel=1e-6, abs=1e-8)
        for i, j in itertools.permutations(range(3), 2):  # at q* it is flat, and falls on both sides
            step = np.zeros(3)
            step[i], step[j] = 0.1 * np.array([1, -1]) * min(best[i], best[j])
            up, down = bound(best + step), bound(best - step)
            assert max(up, down) < bound(best)
            assert abs(up - down) < 0.1 * (2 * bound(best) - up - down)
        if price == 1:
            assert top == pytest.approx(evidence)
            assert best == pytest.approx(prior * likelihood / (prior @ likelihood))
        else:
            assert (top < evidence) == (price > 1)


def test_where_the_price_leads():
    """the-bound-by-hand, 1: to the prior, and to the likeliest kind whatever its prior; at a tie priors decide."""
    prior, likelihood = np.array([0.9, 0.02, 0.08]), np.array([0.1, 0.3, 0.3])
    ties = [(likelihood, [0, 0.2, 0.8]), (np.array([0.1, 0.3, 0.29]), [0, 1, 0])]
    for likely, end in ties:
        for price, limit in ((1e7, prior), (1e-3, np.array(end))):
            weights = prior * (likely / likely.max()) ** (1 / price)
            assert weights / weights.sum() == pytest.approx(limit, abs=1e-6)
