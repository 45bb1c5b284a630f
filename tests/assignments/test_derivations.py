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
