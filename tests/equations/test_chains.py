"""The equations of the page on Markov chains, in float64 and without sampling error.

Chains are held against plain sums over paths, rational arithmetic and mpmath; differential equations against SymPy.
"""

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
import torch
from harness import assert_at_most, assert_close, assert_zero, equation
from scipy.integrate import quad

from lecturecode import kl
from lecturecode.markov import MarkovChain, evolve

f64 = torch.float64
RNG = np.random.default_rng(1)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _the_same_numbers_whichever_tests_run():
    RNG.bit_generator.state = START


def stochastic(n, rng=RNG, power=1):
    T = rng.random((n, n)) ** power
    return T / T.sum(0)


def reversible(n, rng=RNG):
    W = rng.random((n, n))
    W = W + W.T
    return W / W.sum(0), W.sum(0) / W.sum()


def chain_of(T):
    return MarkovChain(torch.from_numpy(np.asarray(T, dtype=float)))


def tensor(p):
    return torch.from_numpy(np.asarray(p, dtype=float))


def tv(p, q):
    return float(np.abs(np.asarray(p) - np.asarray(q)).sum() / 2)


def stationary_exactly(T):
    """Rational Gaussian elimination for (T − 1) P = 0, Σ P = 1; the diagonal of T is made from its column."""
    n = len(T)
    F: list[Any] = [[Fraction(float(v)) for v in row] for row in T]
    for j in range(n):
        F[j][j] = -sum(F[i][j] for i in range(n) if i != j)
    rows = [[*F[i], Fraction(0)] for i in range(n - 1)] + [[Fraction(1)] * (n + 1)]
    for k in range(n):
        pivot = next(r for r in range(k, n) if rows[r][k] != 0)
        rows[k], rows[pivot] = rows[pivot], [v / rows[pivot][k] for v in rows[k]] if pivot == k else rows[k]
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for r in range(n):
            if r != k:
                rows[r] = [v - rows[r][k] * w for v, w in zip(rows[r], rows[k], strict=True)]
    return np.array([float(row[-1]) for row in rows])


def paths(T, p, steps):
    """P(t_m) as a sum over all paths."""
    n, end = len(p), np.zeros(len(p))
    for path in itertools.product(range(n), repeat=steps + 1):
        weight = p[path[0]]
        for j, i in itertools.pairwise(path):
            weight *= T[i, j]
        end[path[-1]] += weight
    return end


# --- stochastic matrices ---------------------------------------------------------------------------------------------


@equation("chains-one-step")
def test_one_step():
    """The library's step against the sum over where the chain was."""
    T, p = stochastic(4), RNG.dirichlet(np.ones(4))
    wanted = [sum(T[i, j] * p[j] for j in range(4)) for i in range(4)]
    assert_close(chain_of(T).evolve(tensor(p)), wanted)


@equation("chains-columns")
def test_columns_sum():
    """Each column of a step is a distribution: the step from a known state, which the library gives."""
    T = stochastic(5)
    after = chain_of(T).evolve(torch.eye(5, dtype=f64))
    for j in range(5):
        assert_close(sum(after[j]), 1.0)
        assert_close(after[j], T[:, j])
    assert_at_most(0.0, np.append(T.ravel(), 0.0))


@equation("chains-conservation")
def test_conservation():
    """The sum after a step, grouped by columns, against the sum before; with rows in place of columns it is another."""
    T, p = stochastic(5), RNG.dirichlet(np.ones(5))
    assert_close(chain_of(T).evolve(tensor(p)).sum(), 1.0)
    assert_close((T @ p).sum(), sum(sum(T[:, j]) * p[j] for j in range(5)))
    assert_close(sum(sum(T[:, j]) * p[j] for j in range(5)), p.sum())
    assert abs((T.T @ p).sum() - 1) > 1e-2


@equation("chains-chapman-kolmogorov")
def test_chapman_kolmogorov():
    """Two steps of the library against the sum over the state between."""
    first, second = stochastic(3), stochastic(3)
    wanted = [[sum(second[i, k] * first[k, j] for k in range(3)) for j in range(3)] for i in range(3)]
    got = evolve([tensor(first), tensor(second)], torch.eye(3, dtype=f64))
    assert_close(got.mT, wanted)


@equation("chains-ordered-product")
def test_ordered_product():
    """The library's walk through a list against the product with the latest on the left; the other order differs."""
    matrices, p = [stochastic(3) for _ in range(4)], RNG.dirichlet(np.ones(3))
    product = np.eye(3)
    for T in matrices:
        product = T @ product
    assert_close(evolve([tensor(T) for T in matrices], tensor(p)), product @ p)
    assert np.abs(matrices[0] @ matrices[1] @ matrices[2] @ matrices[3] @ p - product @ p).max() > 1e-3


@equation("chains-power")
def test_power():
    """Five steps against the sum over all paths; a thousand, by squarings, against mpmath's power."""
    T, p = stochastic(3), RNG.dirichlet(np.ones(3))
    assert_close(chain_of(T).evolve(tensor(p), 5), paths(T, p, 5))
    slow = 0.999 * np.eye(3) + 0.001 * T
    with mpmath.workdps(30):
        power = mpmath.matrix(slow.tolist()) ** 1000
        wanted = [float(sum(power[i, j] * p[j] for j in range(3))) for i in range(3)]
    assert_close(chain_of(slow).evolve(tensor(p), 1000), wanted)


@equation("chains-stationary")
def test_stationary():
    """P* of the library: a step leaves it, it sums to one; for two states (b, a)/(a + b). The flip's T² keeps more."""
    T = stochastic(6, power=3)
    P = chain_of(T).stationary().numpy()
    assert_close(T @ P, P)
    assert_close(P.sum(), 1.0)
    a, b = 0.1, 0.3
    assert_close(chain_of([[1 - a, b], [a, 1 - b]]).stationary(), [b / (a + b), a / (a + b)])
    flip, p = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.9, 0.1])
    assert_close(flip @ flip @ p, p)
    assert tv(flip @ p, p) > 0.5


@equation("chains-gth")
def test_elimination():
    """The library's vector, plain and in blocks, against rational arithmetic, relative, with rates down to 1e-15."""
    group = np.arange(9) // 3
    for rate in (1.0, 1e-7, 1e-15):
        T = np.where(group[:, None] == group, 1.0, rate) * RNG.random((9, 9))
        T = T / T.sum(0)
        assert_close(chain_of(T).stationary(), stationary_exactly(T), tol=1e-13, relative=True)
    T, P = reversible(150)
    assert_close(chain_of(T).stationary(), P, tol=1e-13, relative=True)


# --- the limit -------------------------------------------------------------------------------------------------------


@equation("chains-limit")
def test_limit():
    """A high power against P* in every column, for an irreducible chain and for one with transient states."""
    for T in (stochastic(5), np.array([[1, 0.5], [0, 0.5]]), np.array([[0.2, 0.7, 0.3], [0.8, 0.3, 0.3], [0, 0, 0.4]])):
        P = stationary_exactly(T)
        power = np.linalg.matrix_power(T, 200)
        assert_close(power, np.outer(P, np.ones(len(T))))
        assert_close(T @ P, P)
        assert_close(chain_of(T).stationary(), P)


@equation("chains-contraction")
def test_contraction():
    """TV after a step against c times before, for many pairs; equal for the two unit vectors that define c."""
    for T in (stochastic(4), stochastic(4, power=6)):
        common = {(j, k): np.minimum(T[:, j], T[:, k]).sum() for j in range(4) for k in range(j)}
        c = 1 - min(common.values())
        pairs = [(RNG.dirichlet(np.ones(4)), RNG.dirichlet(np.ones(4))) for _ in range(20)]
        pairs += [(np.eye(4)[j], np.eye(4)[k]) for j, k in common]
        assert_at_most([tv(T @ p, T @ q) for p, q in pairs], [c * tv(p, q) for p, q in pairs])
        assert_close(c, max(tv(T[:, j], T[:, k]) for j, k in common))
        assert c < 1


@equation("chains-doeblin")
def test_doeblin():
    """TV at all times against (1 − a)^⌊m/r⌋, for r where the power has a common part; tight for the sink."""
    sink = np.array([[1, 0.5], [0, 0.5]])
    sparse = np.array([[0, 0.5, 0], [0, 0, 1.0], [1.0, 0.5, 0]])
    for T, r in ((sink, 1), (sparse, 5)):
        a = np.linalg.matrix_power(T, r).min(1).sum()
        assert a > 0
        left, right = [], []
        for m in range(30):
            power = np.linalg.matrix_power(T, m)
            left.append(max(tv(power[:, j], power[:, k]) for j in range(len(T)) for k in range(j)))
            right.append((1 - a) ** (m // r))
        assert_at_most(left, right)


@equation("chains-perron")
def test_perron_frobenius():
    """Eigenvalues from mpmath: one is largest and simple, other eigenvectors sum to zero; with period d the roots."""
    T = stochastic(5)
    values, vectors = mpmath.eig(mpmath.matrix(T.tolist()))
    order = sorted(range(5), key=lambda k: -abs(values[k]))
    moduli = [float(abs(values[k])) for k in order]
    assert_at_most(moduli, 1.0)
    assert moduli[1] < 0.9
    assert_close(float(abs(values[order[0]] - 1)), 0.0)
    for k in order[1:]:
        assert_close(float(abs(sum(vectors[i, k] for i in range(5)))), 0.0)
    cyclic = np.zeros((6, 6))  # three parts of two states, visited in turn
    for part in range(3):
        rows = [(2 * part + 2) % 6, (2 * part + 3) % 6]
        cyclic[np.ix_(rows, [2 * part, 2 * part + 1])] = stochastic(2)
    found = np.linalg.eigvals(cyclic)
    largest = found[np.abs(found) > 0.999]
    roots = np.exp(2j * np.pi * np.arange(3) / 3)
    distances = np.abs(largest[:, None] - roots)
    assert len(largest) == 3
    assert_close(distances.min(0), 0.0)
    assert chain_of(cyclic).period == 3


@equation("chains-spectral")
def test_spectral_expansion():
    """A power against the sum over eigenvalues, left vectors from the transposed matrix."""
    T = stochastic(4)
    mu, R = np.linalg.eig(T)
    nu, L = np.linalg.eig(T.T)
    L = L[:, [np.abs(nu - m).argmin() for m in mu]]
    first = np.abs(mu - 1).argmin()
    for m in (0, 1, 3, 8):
        total: Any = np.outer(stationary_exactly(T), np.ones(4)).astype(complex)
        for k in range(4):
            if k != first:
                total += mu[k] ** m * np.outer(R[:, k], L[:, k]) / (L[:, k] @ R[:, k])
        assert_close(total.real, np.linalg.matrix_power(T, m))


@equation("chains-rate")
def test_rate():
    """(log d(2m) − log d(m))/m with 400 digits at m = 300 against log|μ_2|, and the library's gap against it.

    Gelfand's argument: (T − P* 1ᵀ)^m = T^m − P* 1ᵀ, with μ_2 the largest eigenvalue left, also for a T with a Jordan
    block.
    """
    W = np.array([[4, 1, 0, 0], [1, 3, 2, 0], [0, 2, 3, 1], [0, 0, 1, 2]])
    T = W / W.sum(0)
    with mpmath.workdps(400):
        A = mpmath.matrix([[mpmath.mpf(float(v)) for v in row] for row in T])
        for j in range(4):
            A[j, j] = 1 - mpmath.fsum(A[i, j] for i in range(4) if i != j)
        limit = (A**4000)[:, 0]

        def log_distance(m):
            power = A**m
            return mpmath.log(max(mpmath.fsum(abs(power[i, j] - limit[i]) for i in range(4)) / 2 for j in range(4)))

        slope = float((log_distance(600) - log_distance(300)) / 300)
    moduli = sorted(np.abs(np.linalg.eigvals(T)))
    assert_close(slope, math.log(moduli[-2]), tol=1e-10)  # eigenvalues of an unsymmetric matrix
    assert_close(math.log(1 - chain_of(T).spectral_gap.item()), slope)
    jordan = np.array([[1, 0.5, 0], [0, 0.5, 0.5], [0, 0, 0.5]])  # μ = 1, ½, ½ and two eigenvectors
    for A in (T, jordan):
        limit = np.outer(stationary_exactly(A), np.ones(len(A)))
        left = np.abs(np.linalg.eigvals(A - limit)).max()
        assert_close(left, np.sort(np.abs(np.linalg.eigvals(A)))[-2])
        assert_close(np.linalg.matrix_power(A - limit, 7), np.linalg.matrix_power(A, 7) - limit)
    assert_close(math.log(1 - chain_of(jordan).spectral_gap.item()), math.log(0.5))


@equation("chains-kl-falls")
def test_divergence_never_rises():
    """KL by its sum, step after step; equal where the step only renames the states. The library's KL agrees."""
    T = stochastic(5)
    P = stationary_exactly(T)
    p, values = np.array([0.9, 0.1, 0, 0, 0]), []
    for _ in range(12):
        values.append(sum(a * math.log(a / b) for a, b in zip(p, P, strict=True) if a > 0))
        assert_close(kl(tensor(p), tensor(P)), values[-1])
        p = T @ p
    turn, q = np.eye(4)[[1, 2, 3, 0]], np.array([0.4, 0.3, 0.2, 0.1])
    still = [sum(a * math.log(4 * a) for a in v) for v in (q, turn @ q)]
    assert_at_most([*values[1:], still[1]], [*values[:-1], still[0]])


@equation("chains-lazy")
def test_lazy():
    """Eigenvalues of (T + 1)/2 against (1 + μ)/2, on the ring of six sites, and the library's period and P*."""
    T = (np.eye(6)[np.arange(6) - 1] + np.eye(6)[(np.arange(6) + 1) % 6]) / 2
    lazy = (T + np.eye(6)) / 2
    assert_close(np.linalg.eigvalsh(lazy), (1 + np.linalg.eigvalsh(T)) / 2)
    assert_close(chain_of(lazy).stationary(), chain_of(T).stationary())
    assert (chain_of(T).period, chain_of(lazy).period) == (2, 1)


@equation("chains-absorption")
def test_absorption():
    """A high power against Σ_c g_c P*_c with the library's g, and g against the linear relation."""
    T = np.zeros((5, 5))
    T[:2, :2] = stochastic(2)
    T[2, 2] = 1
    T[:, 3:] = stochastic(5)[:, 3:]
    chain = chain_of(T)
    g = chain.absorption_probabilities().numpy()
    ends = np.zeros((5, 2))
    ends[:2, 0], ends[2, 1] = stationary_exactly(T[:2, :2]), 1
    assert_close(ends @ g, np.linalg.matrix_power(T, 500))
    assert_close(g, [[sum(T[i, j] * g[c, i] for i in range(5)) for j in range(5)] for c in range(2)])


# --- balance, reversal, mixing ---------------------------------------------------------------------------------------


@equation("chains-detailed-balance")
def test_detailed_balance():
    """Flows of a chain of symmetric weights, pair by pair, and that P* stays; a driven ring stays without balance."""
    T, P = reversible(5)
    for i, j in itertools.combinations(range(5), 2):
        assert_close(T[i, j] * P[j], T[j, i] * P[i])
    assert_close(T @ P, P)
    assert_close(chain_of(T).stationary(), P)
    assert chain_of(T).is_reversible()
    driven = 0.6 * np.eye(4)[[3, 0, 1, 2]] + 0.4 * np.eye(4)
    assert_close(driven @ np.full(4, 0.25), np.full(4, 0.25))
    assert not chain_of(driven).is_reversible()


@equation("chains-symmetrised")
def test_symmetrised():
    """S entry by entry: symmetric, with the eigenvalues of T, all real; the library's gap is theirs."""
    T, P = reversible(5)
    S = np.array([[T[i, j] * math.sqrt(P[j]) / math.sqrt(P[i]) for j in range(5)] for i in range(5)])
    assert_close(S, S.T)
    mu = np.sort(np.linalg.eigvals(T).real)
    assert_close(np.linalg.eigvalsh((S + S.T) / 2), mu)
    assert_close(chain_of(T).spectral_gap, 1 - np.abs(mu[:-1]).max())


@equation("chains-reversal")
def test_reversal():
    """The library's backward matrix against the table of pairs (before, after), and that it undoes the step."""
    T, p = stochastic(4), RNG.dirichlet(np.ones(4))
    pairs = {(j, i): p[j] * T[i, j] for j in range(4) for i in range(4)}
    wanted = [[pairs[j, i] / sum(pairs[k, i] for k in range(4)) for i in range(4)] for j in range(4)]
    back = chain_of(T).reverse(tensor(p))
    assert_close(back.T, wanted)
    assert_close(back.evolve(tensor(T @ p)), p)


@equation("chains-reversible")
def test_reversible():
    """(T̃ − T)_ji P*_i is the current from j to i for any chain, so both vanish together; they do for one of two."""
    balanced, driven = reversible(5)[0], stochastic(5)
    for T in (balanced, driven):
        P, back = stationary_exactly(T), chain_of(T).reverse().T.numpy()
        current = np.array([[T[i, j] * P[j] - T[j, i] * P[i] for i in range(5)] for j in range(5)])
        assert_close((back - T) * P, current)
    assert_close(chain_of(balanced).reverse().T, balanced)
    assert np.abs(chain_of(driven).reverse().T.numpy() - driven).max() > 1e-2


@equation("chains-mixing-time")
def test_mixing_time():
    """The library's time against a walk through all powers; TV from mixtures is at most that from unit vectors."""
    for T in (stochastic(4), 0.9 * np.eye(4) + 0.1 * stochastic(4, power=4)):
        P, power, distances = stationary_exactly(T), np.eye(4), []
        while not distances or distances[-1] > 1e-3:
            distances.append(max(tv(power[:, j], P) for j in range(4)))
            power = T @ power
        for delta in (0.3, 0.05, 1e-3):
            wanted = next(m for m, d in enumerate(distances) if d <= delta)
            assert_close(chain_of(T).mixing_time(delta), wanted)
        starts = np.concatenate([np.eye(4), RNG.dirichlet(np.ones(4), 20)])
        assert_at_most([tv(T @ p, P) for p in starts], max(tv(T[:, j], P) for j in range(4)))


@equation("chains-mixing-bounds")
def test_mixing_bounds():
    """The library's mixing time between the bounds from numpy's eigenvalues; both are met where δ makes them 0.

    The library's own bounds are the formulas.
    """
    chains = [reversible(n)[0] for n in (2, 5, 9)] + [0.8 * np.eye(6) + 0.2 * reversible(6)[0]]
    lower, times, upper = [], [], []
    for T in [*chains, np.array([[0.7, 0.3], [0.3, 0.7]])]:
        P = stationary_exactly(T)
        gamma = 1 - np.sort(np.abs(np.linalg.eigvals(T)))[-2]
        for delta in (0.4, 0.01, 1e-6):
            lower.append((1 / gamma - 1) * math.log(1 / (2 * delta)))
            upper.append(math.log(1 / (delta * P.min())) / gamma)
            times.append(chain_of(T).mixing_time(delta))
            assert_close(chain_of(T).mixing_time_bounds(delta), [lower[-1], upper[-1]], tol=1e-10, relative=True)
    half = chain_of([[0.7, 0.3], [0.3, 0.7]]).mixing_time(0.5)  # d(0) = ½, and log(1/2δ) = 0
    assert_at_most([*lower, 0.0], [*times, half])
    alone = chain_of([[1.0]]).mixing_time(1 - 2**-53)  # one state: both are 0 at δ = 1
    assert_at_most([*times, alone], [*map(math.ceil, upper), 0])


# --- the urn ---------------------------------------------------------------------------------------------------------


def urn(N):
    T = np.zeros((N + 1, N + 1))
    for k in range(N + 1):
        if k > 0:
            T[k - 1, k] = k / N
        if k < N:
            T[k + 1, k] = 1 - k / N
    return T


@equation("chains-ehrenfest")
def test_urn():
    """The matrix against counts over all arrangements of five labelled balls, P* against the number of them."""
    N = 5
    T, size = np.zeros((N + 1, N + 1)), np.zeros(N + 1)
    for balls in itertools.product((0, 1), repeat=N):
        size[sum(balls)] += 1
        for b in range(N):
            T[sum(balls) + (1 - 2 * balls[b]), sum(balls)] += 1 / N
    assert_close(T / size, urn(N))
    assert_close(size / 2**N, [math.comb(N, k) / 2**N for k in range(N + 1)])
    for n in (N, 40):
        wanted = [math.comb(n, k) / 2**n for k in range(n + 1)]
        assert_close(chain_of(urn(n)).stationary(), wanted, relative=True)
    assert chain_of(urn(N)).period == 2


@equation("chains-ehrenfest-mean")
def test_mean_of_the_urn():
    """The mean of the evolved distribution against the exponential.

    x = (2k − N)/√N drifts by −2x/N a step, with the mean square 4/N: κ = D = 2 where N steps are the unit of time.
    """
    N, k0 = 12, 10
    start = torch.nn.functional.one_hot(torch.tensor(k0), N + 1).to(f64)
    for m in (1, 2, 7, 40):
        p = chain_of(urn(N)).evolve(start, m).numpy()
        mean = sum(k * p[k] for k in range(N + 1))
        assert_close(mean - N / 2, (1 - 2 / N) ** m * (k0 - N / 2))
    T, x = urn(N), (2 * np.arange(N + 1) - N) / math.sqrt(N)
    hops = x[:, None] - x
    assert_close((T * hops).sum(0), -2 * x / N)
    assert_close((T * hops**2).sum(0), np.full(N + 1, 2 * 2 / N))


@equation("chains-kac")
def test_kac():
    """Return times as sums of the probability not to be back yet, through the library's hitting times, and as 1/P*."""
    for T in (stochastic(4), urn(4)):
        P = stationary_exactly(T)
        for i in range(len(T)):
            away = T[:, i].copy()
            total, away[i] = 1.0, 0.0
            while away.sum() > 1e-18:
                total += away.sum()
                away = T @ away
                away[i] = 0.0
            times = chain_of(T).hitting_times([i]).numpy()
            assert_close(1 + sum(T[j, i] * times[j] for j in range(len(T))), total)
            assert_close(total, 1 / P[i], relative=True)


# --- walk, diffusion -------------------------------------------------------------------------------------------------


def ring(n, a):
    one = np.eye(n)
    return (1 - 2 * a) * one + a * (np.roll(one, 1, 0) + np.roll(one, -1, 0))


@equation("chains-ring-eigenvalues")
def test_ring_eigenvalues():
    """Both forms against numpy's eigenvalues, and the wave as eigenvector."""
    for n, a in ((5, 0.5), (6, 0.5), (9, 0.2)):
        k = np.arange(n)
        mu = 1 - 2 * a + 2 * a * np.cos(2 * np.pi * k / n)
        assert_close(np.linalg.eigvalsh(ring(n, a)), np.sort(mu))
        assert_close(1 - 4 * a * np.sin(np.pi * k / n) ** 2, mu)
        wave = np.exp(2j * np.pi * 2 * np.arange(n) / n)
        assert_close((ring(n, a) @ wave).real, (mu[2] * wave).real)
        assert_close((ring(n, a) @ wave).imag, (mu[2] * wave).imag)


@equation("chains-diffusion-limit")
def test_diffusion_limit():
    """μ_k^{t/Δt} on a ring of 10^8 sites with fifty digits: what is left is of order Δx² = 10^-16."""
    D, L, t, a = 0.7, 2.0, 0.05, mpmath.mpf(1) / 4
    with mpmath.workdps(50):
        for k in (1, 2, 5):
            n = mpmath.mpf(10) ** 8
            dt = a * (L / n) ** 2 / D
            mu = 1 - 2 * a + 2 * a * mpmath.cos(2 * mpmath.pi * k / n)
            assert_close(float(mu ** (t / dt)), math.exp(-D * (2 * math.pi * k / L) ** 2 * t))


@equation("chains-diffusion-equation")
def test_diffusion_equation():
    """The Gaussian solves the equation (SymPy); wound around the ring it is a sum of decaying waves."""
    x, t, D = sympy.symbols("x t D", positive=True)
    p = sympy.exp(-(x**2) / (4 * D * t)) / sympy.sqrt(4 * sympy.pi * D * t)
    assert_zero(sympy.diff(p, t) - D * sympy.diff(p, x, 2))
    L, D0, t0 = 2.0, 0.7, 0.05
    grid = np.linspace(-1, 1, 21)
    wound = sum(
        np.exp(-((grid + w * L) ** 2) / (4 * D0 * t0)) / math.sqrt(4 * math.pi * D0 * t0) for w in range(-20, 21)
    )
    waves = 1 / L + sum(
        2 / L * np.exp(-D0 * (2 * np.pi * k / L) ** 2 * t0) * np.cos(2 * np.pi * k * grid / L) for k in range(1, 60)
    )
    assert_close(wound, waves)


@equation("chains-master")
def test_master_equation():
    """Gains less losses against QP, and both against the slope of the exact solution (mpmath, thirty digits)."""
    n = 4
    Q = RNG.random((n, n))
    np.fill_diagonal(Q, 0)
    Q = Q - np.diag(Q.sum(0))
    p = RNG.dirichlet(np.ones(n))
    gains = [sum(Q[i, j] * p[j] - Q[j, i] * p[i] for j in range(n) if j != i) for i in range(n)]
    assert_close(gains, Q @ p)
    with mpmath.workdps(30):
        A, start = mpmath.matrix(Q.tolist()), mpmath.matrix(p.tolist())
        h = mpmath.mpf(10) ** -12
        slope = (mpmath.expm(A * h) * start - mpmath.expm(-A * h) * start) / (2 * h)
        assert_close([float(v) for v in slope], gains)


@equation("chains-exponential")
def test_exponential():
    """The Poisson sum over powers and the library, each against mpmath's exponential; columns sum to one."""
    n, t = 4, 1.7
    Q = RNG.random((n, n)) ** 4
    np.fill_diagonal(Q, 0)
    Q = Q - np.diag(Q.sum(0))
    with mpmath.workdps(30):
        exact: Any = mpmath.expm(mpmath.matrix(Q.tolist()) * mpmath.mpf(t))
        wanted = np.array([[float(exact[i, j]) for j in range(n)] for i in range(n)])
    for nu in (np.abs(np.diag(Q)).max(), 5.0):
        jump, power, total = np.eye(n) + Q / nu, np.eye(n), np.zeros((n, n))
        for k in range(80):
            total += math.exp(-nu * t) * (nu * t) ** k / math.factorial(k) * power
            power = jump @ power
        assert_close(total, wanted)
    assert_close(MarkovChain.from_rates(tensor(Q), t).T, wanted)
    assert_close(wanted.sum(0), np.ones(n))


@equation("chains-hop-rates")
def test_hop_rates():
    """Mean hop and mean square of a hop per unit of time, summed over the two hops (SymPy)."""
    x, D, d = sympy.symbols("x D d", positive=True)
    f = sympy.Function("f")(x)
    rates = {d: D / d**2 + f / (2 * d), -d: D / d**2 - f / (2 * d)}
    assert_zero([sum(h * r for h, r in rates.items()) - f, sum(h**2 * r for h, r in rates.items()) - 2 * D])


@equation("chains-fokker-planck")
def test_fokker_planck():
    """Gains less losses of the hops, expanded in the spacing (SymPy): no term of order −2, −1 or 1, and the zeroth.

    Before the expansion they are the two central differences.
    """
    x, D, d = sympy.symbols("x D d")
    f, p = x - x**3 / 3 + sympy.sin(x), (1 + x / 5) * sympy.exp(-(x**2) / 2)

    def right(y):
        return D / d**2 + f.subs(x, y) / (2 * d)

    def left(y):
        return D / d**2 - f.subs(x, y) / (2 * d)

    change = p.subs(x, x - d) * right(x - d) + p.subs(x, x + d) * left(x + d) - p * (right(x) + left(x))
    flow = f * p
    second, first = p.subs(x, x + d) - 2 * p + p.subs(x, x - d), flow.subs(x, x + d) - flow.subs(x, x - d)
    assert_zero(sympy.expand(change - D * second / d**2 + first / (2 * d)))
    series = [sympy.diff(sympy.expand(change * d**2), d, k).subs(d, 0) / sympy.factorial(k) for k in range(4)]
    limit = -sympy.diff(f * p, x) + D * sympy.diff(p, x, 2)
    assert_zero([series[0], series[1], series[2] - limit, series[3]])


@equation("chains-gibbs-density")
def test_gibbs_density():
    """For a general potential the current vanishes (SymPy); on a grid the chain's P* has the same ratios."""
    x, D = sympy.symbols("x D", positive=True)
    V = sympy.Function("V")(x)
    P = sympy.exp(-V / D)
    assert_zero(-sympy.diff(V, x) * P - D * sympy.diff(P, x))
    D0, errors = 0.8, []
    for n in (50, 100):  # V = x⁴/4 on [−2, 2]
        dx = 4 / n
        at = -2 + dx * np.arange(n + 1)
        up, down = D0 / dx**2 - at**3 / (2 * dx), D0 / dx**2 + at**3 / (2 * dx)
        Q = np.diag(up[:-1], -1) + np.diag(down[1:], 1)
        found = MarkovChain.from_rates(tensor(Q - np.diag(Q.sum(0))), 0.1).stationary().numpy()
        wanted = np.exp(-(at**4) / (4 * D0))
        errors.append(np.abs(found / found[n // 2] - wanted).max())
    assert 3.5 < errors[0] / errors[1] < 4.5  # second order in the spacing


# --- Ornstein–Uhlenbeck ----------------------------------------------------------------------------------------------


@equation("chains-ou-density")
def test_density_of_the_process():
    """The Gaussian solves the Fokker–Planck equation with f = −κx, from x_0, to N(0, D/κ) (SymPy)."""
    x, x0 = sympy.symbols("x x0", real=True)
    t, kappa, D = sympy.symbols("t kappa D", positive=True)
    alpha: Any = sympy.exp(-kappa * t)
    var: Any = D / kappa * (1 - sympy.exp(-2 * kappa * t))
    p = sympy.exp(-((x - alpha * x0) ** 2) / (2 * var)) / sympy.sqrt(2 * sympy.pi * var)
    flow = sympy.diff(kappa * x * p, x) + D * sympy.diff(p, x, 2)
    ends = [
        alpha.subs(t, 0) - 1,
        var.subs(t, 0),
        sympy.limit(alpha, t, sympy.oo),
        sympy.limit(var, t, sympy.oo) - D / kappa,
    ]
    assert_zero([sympy.simplify((sympy.diff(p, t) - flow) / p), *ends])


@equation("chains-ou-moments")
def test_moments_of_the_process():
    """∫ x ∂_t p and ∫ x² ∂_t p by quadrature over a mixture of two Gaussians, and the solution's own slopes (SymPy).

    1e-10: adaptive quadrature.
    """
    kappa, D = 1.3, 0.6
    x = sympy.symbols("x")
    p = sum(w * sympy.exp(-((x - m) ** 2) / (2 * s**2)) / (s * sympy.sqrt(2 * sympy.pi)) for w, m, s in PARTS)
    slope = sympy.lambdify(x, sympy.diff(kappa * x * p, x) + D * sympy.diff(p, x, 2))
    first = sum(w * m for w, m, s in PARTS)
    second = sum(w * (m**2 + s**2) for w, m, s in PARTS)
    for power, wanted in ((1, -kappa * first), (2, -2 * kappa * second + 2 * D)):
        got = sum(
            quad(lambda y, k=power: y**k * slope(y), a, a + 4, epsabs=1e-13, limit=200)[0] for a in range(-16, 16, 4)
        )
        assert_close(got, wanted, tol=1e-10)
    t, k, d, x0 = sympy.symbols("t kappa D x0", positive=True)
    alpha, var = sympy.exp(-k * t), d / k * (1 - sympy.exp(-2 * k * t))
    square = alpha**2 * x0**2 + var
    assert_zero([sympy.diff(alpha * x0, t) + k * alpha * x0, sympy.diff(square, t) + 2 * k * square - 2 * d])


PARTS = ((0.3, -1.0, 0.5), (0.7, 1.5, 0.8))


@equation("chains-ou-compose")
def test_two_times_are_one():
    """The integral over the point between, by the trapezium rule on a wide grid, against the Gaussian of the sum."""
    kappa, D, s, t, x0 = 0.8, 0.5, 0.3, 0.9, 1.2

    def parts(time):
        return math.exp(-kappa * time), D / kappa * (1 - math.exp(-2 * kappa * time))

    def density(x, mean, var):
        return np.exp(-((x - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)

    (a_s, v_s), (a_t, v_t), (a, v) = parts(s), parts(t), parts(s + t)
    between = np.linspace(-12, 12, 4001)
    for x in (-1.0, 0.3, 2.0):
        product = density(x, a_t * between, v_t) * density(between, a_s * x0, v_s)
        assert_close(product.sum() * (between[1] - between[0]), density(x, a * x0, v))
    assert_close(a_t * a_s, a)
    assert_close(v_t + a_t**2 * v_s, v)


# --- solutions -------------------------------------------------------------------------------------------------------


@equation("chains-two-states")
def test_two_states():
    """d(m) from powers of the matrix, also where 1 − a − b is negative; P* from rational arithmetic."""
    for a, b in ((0.1, 0.3), (0.9, 0.6)):
        T = np.array([[1 - a, b], [a, 1 - b]])
        P = stationary_exactly(T)
        for m in range(8):
            power = np.linalg.matrix_power(T, m)
            d = max(tv(power[:, j], P) for j in range(2))
            assert_close(d, max(a, b) / (a + b) * abs(1 - a - b) ** m)


@equation("chains-gambler")
def test_gambler():
    """The library's hitting probabilities against the closed form, relative, down to 1e-19."""
    for won, n in ((0.4, 10), (0.25, 40)):
        T = np.zeros((n + 1, n + 1))
        T[0, 0] = T[n, n] = 1
        for k in range(1, n):
            T[k + 1, k], T[k - 1, k] = won, 1 - won
        rho = Fraction(T[0, 1]) / Fraction(T[2, 1])
        wanted = [float((rho**k - 1) / (rho**n - 1)) for k in range(1, n + 1)]
        assert_close(chain_of(T).hitting_probabilities([n])[1:], wanted, relative=True)
