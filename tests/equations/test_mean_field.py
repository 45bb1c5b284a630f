"""The equations of the page on mean field and on Hopfield's memory, in float64 and without sampling error.

Bounds are held against tables over all configurations written out here; derivatives and expansions against mpmath with
many digits; the infinite magnet against Kaufman's finite torus and a lattice with fixed edges; the memory's error
against all patterns there are.
"""

import functools
import itertools
import math
from typing import Any

import mpmath
import numpy as np
import scipy.stats
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode import js
from lecturecode.boltzmann import BoltzmannMachine, ising, lattice_log_partition, torus_log_partition
from lecturecode.vae import LatentTable

f64 = torch.float64


def spins(n):
    """All configurations, one a row; unit i of row r is up where bit i of r is one."""
    return 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1


def parameters(n, seed=1, strength=0.5):
    rng = np.random.default_rng(seed)
    J = np.triu(strength * rng.normal(size=(n, n)), 1)
    return J + J.T, 0.4 * rng.normal(size=n)


def energies(J, b, s):
    """E(s) as a sum over pairs and units, one state at a time."""
    pairs = list(itertools.combinations(range(len(b)), 2))
    return np.array([-sum(J[i, j] * x[i] * x[j] for i, j in pairs) - sum(b * x) for x in s])


def machine_of(J, b):
    return BoltzmannMachine(torch.from_numpy(J), torch.from_numpy(b))


def free_energy(J, b, beta):
    return -float(np.logaddexp.reduce(-beta * energies(J, b, spins(len(b))))) / beta


def entropy_of(q):
    return -sum(v * math.log(v) for v in q if v > 0)


def divergence(q, p):
    return sum(v * math.log(v / w) for v, w in zip(q, p, strict=True) if v > 0)


def boltzmann(J, b, beta):
    weight = np.exp(-beta * energies(J, b, spins(len(b))))
    return weight / weight.sum()


def product(m):
    """The distribution of independent spins with means m, one configuration at a time."""
    return np.array([math.prod((1 + v * x) / 2 for v, x in zip(m, row, strict=True)) for row in spins(len(m))])


def bound(J, b, beta, m):
    """F(m) by its formula."""
    up, down = (1 + m) / 2, (1 - m) / 2
    return -m @ J @ m / 2 - b @ m + (up @ np.log(up) + down @ np.log(down)) / beta


def ascended(J, b, beta, m, sweeps=3000):
    m = m.copy()
    for _ in range(sweeps):
        for i in range(len(m)):
            m[i] = math.tanh(beta * (b[i] + J[i] @ m))
    return m


def trials(n, seed=2):
    rng = np.random.default_rng(seed)
    return [np.full(2**n, 0.5**n), *rng.dirichlet(np.ones(2**n), 3), product(rng.uniform(-0.9, 0.9, n))]


@equation("meanfield-free-energy")
def test_free_energy_of_a_trial():
    """Mean energy less entropy against the sum over states, and at q = p against the library's U − S/β and −log Z/β."""
    J, b = parameters(4)
    for beta in (0.3, 2.0):
        E, p = energies(J, b, spins(4)), boltzmann(J, b, beta)
        for q in [*trials(4), p]:
            assert_close(q @ (E + np.log(q) / beta), q @ E - entropy_of(q) / beta)
        there = machine_of(J, b).thermodynamics(beta)
        at_p = p @ E - entropy_of(p) / beta
        assert_close(there.energy - there.entropy / beta, at_p)
        assert_close(there.free_energy, at_p)


@equation("meanfield-gibbs-bogoliubov")
def test_gibbs_bogoliubov():
    """F[q] − F against the divergence, both written out; never below F, and at q = p equal to it; the library's F."""
    J, b = parameters(4)
    for beta in (0.3, 2.0):
        E, p = energies(J, b, spins(4)), boltzmann(J, b, beta)
        F = free_energy(J, b, beta)
        values = []
        for q in [*trials(4), p]:
            values.append(q @ E - entropy_of(q) / beta)
            assert_close(values[-1], F + divergence(q, p) / beta)
        assert_at_most(F, np.array(values))
        assert_close(values[-1], F)
        assert_close(-machine_of(J, b).log_partition(beta) / beta, F)


@equation("meanfield-trial-energy")
def test_first_order_errs_upwards():
    """A trial machine with other couplings: F_0 + ⟨E − E_0⟩_0 against F[q]; equal to F where the two machines agree."""
    J, b = parameters(4)
    E, beta = energies(J, b, spins(4)), 0.7
    F, values = free_energy(J, b, beta), []
    for J0, b0 in (parameters(4, seed=5), (0 * J, b), (J, b)):
        q, E0 = boltzmann(J0, b0, beta), energies(J0, b0, spins(4))
        values.append(free_energy(J0, b0, beta) + q @ (E - E0))
        assert_close(values[-1], q @ E - entropy_of(q) / beta)
    assert_at_most(F, np.array(values))


@equation("meanfield-elbo")
def test_minus_the_elbo_is_a_free_energy():
    """Sums over a table of h with E = −log p(x,h), against the library's bound, evidence and posterior."""
    rng = np.random.default_rng(3)
    prior, likelihood = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(3), 4)
    table = LatentTable(torch.from_numpy(prior), torch.from_numpy(likelihood))
    q = rng.dirichlet(np.ones(4), 3)
    for x in range(3):
        E = -np.log(prior) - np.log(likelihood[:, x])
        weight = np.exp(-E)
        assert_close(table.log_prob()[x], math.log(weight.sum()))
        assert_close(table.posterior()[x], weight / weight.sum())
        assert_close(-table.elbo(torch.from_numpy(q)).value[x], q[x] @ E - entropy_of(q[x]))
        gap = divergence(q[x], weight / weight.sum())
        assert_close(-math.log(weight.sum()) + gap, q[x] @ E - entropy_of(q[x]))


@equation("meanfield-product")
def test_independent_spins():
    """The table of products: it sums to one, its means are m and its second moments their products."""
    m = np.array([0.3, -0.8, 0.0, 0.95])
    q, s = product(m), spins(4)
    assert_close(q.sum(), 1.0)
    assert_close(q, np.prod((1 + m * s) / 2, axis=1))
    assert_close(q @ s, m)
    second = np.einsum("r,ri,rj->ij", q, s, s)
    for i, j in itertools.combinations(range(4), 2):
        assert_close(second[i, j], m[i] * m[j])


@equation("meanfield-bound")
def test_bound_over_products():
    """The formula against mean energy and entropy of the table of products; it is never below F."""
    J, b = parameters(4)
    E, values = energies(J, b, spins(4)), []
    rng = np.random.default_rng(4)
    for m in (np.zeros(4), *rng.uniform(-0.99, 0.99, (4, 4))):
        q = product(m)
        values.append(bound(J, b, 1.3, m))
        assert_close(values[-1], q @ E - entropy_of(q) / 1.3)
    free = bound(0 * J, b, 1.3, np.tanh(1.3 * b))  # without couplings the best product is exact
    assert_close(free, free_energy(0 * J, b, 1.3))
    gaps = np.array(values) - free_energy(J, b, 1.3)
    assert_at_most(0.0, np.append(gaps, free - free_energy(0 * J, b, 1.3)))


@equation("meanfield-equations")
def test_stationarity_of_the_bound():
    """The gradient by differences with forty digits, off a solution; at a solution it is zero and the tanh holds."""
    J, b = parameters(3)
    beta = mpmath.mpf("0.8")
    with mpmath.workdps(50):

        def F(m):
            energy = -sum(mpmath.mpf(J[i, j]) * m[i] * m[j] for i, j in itertools.combinations(range(3), 2))
            energy -= sum(mpmath.mpf(v) * x for v, x in zip(b, m, strict=True))
            return energy + sum(p * mpmath.log(p) for x in m for p in ((1 + x) / 2, (1 - x) / 2)) / beta

        def slopes(m):
            small = mpmath.mpf(10) ** -20
            up = [[x + small * (i == j) for j, x in enumerate(m)] for i in range(3)]
            down = [[x - small * (i == j) for j, x in enumerate(m)] for i in range(3)]
            return [float((F(u) - F(d)) / (2 * small)) for u, d in zip(up, down, strict=True)]

        away = np.array([0.2, -0.5, 0.7])
        formula = -b - J @ away + np.arctanh(away) / 0.8
        assert_close(formula, slopes([mpmath.mpf(x) for x in away]))
        m = ascended(J, b, 0.8, away)
        assert_close(slopes([mpmath.mpf(x) for x in m]), 0.0)
        assert_close(np.tanh(0.8 * (b + J @ m)), m)


@equation("meanfield-ascent")
def test_each_step_gains_a_divergence():
    """L before and after one update, from the tables of the two products, against KL(q_i ‖ q_i′)."""
    J, b = parameters(4)
    beta, E = 1.1, energies(J, b, spins(4))

    def L(m):
        q = product(m)
        return entropy_of(q) - beta * (q @ E)

    rng, gains = np.random.default_rng(6), []
    for _ in range(3):
        m = rng.uniform(-0.9, 0.9, 4)
        for i in range(4):
            after = m.copy()
            after[i] = math.tanh(beta * (b[i] + J[i] @ m))
            own = divergence([(1 + m[i]) / 2, (1 - m[i]) / 2], [(1 + after[i]) / 2, (1 - after[i]) / 2])
            assert_close(L(after) - L(m), own)
            gains.append(own)
            m = after
    solved = ascended(J, b, beta, np.zeros(4))
    again = solved.copy()
    again[2] = math.tanh(beta * (b[2] + J[2] @ solved))
    assert_at_most(0.0, np.array([*gains, L(again) - L(solved)]))


@equation("meanfield-magnet")
def test_uniform_solution_on_the_torus():
    """F(m) and ⟨E⟩ of uniform means from the library's couplings; the root of one equation solves all of them."""
    for rows, columns, z in ((3, 4, 4), (4, 4, 4), (1, 5, 2)):
        machine = ising(rows, columns, 0.7, 0.2, periodic=True)
        J, b = (x.detach().numpy() for x in (machine.couplings, machine.biases))
        n = rows * columns
        for beta, m in ((0.3, 0.4), (0.9, -0.6)):
            up, down = (1 + m) / 2, (1 - m) / 2
            own = -up * math.log(up) - down * math.log(down)
            assert_close(-z / 2 * 0.7 * m**2 - 0.2 * m - own / beta, bound(J, b, beta, np.full(n, m)) / n)
            E = -m * np.ones(n) @ J @ np.ones(n) * m / 2 - b.sum() * m
            assert_close(-z / 2 * 0.7 * m**2 - 0.2 * m, E / n)
            root = ascended(J, b, beta, np.full(n, 0.5), sweeps=400)
            assert_close(root, math.tanh(beta * (z * 0.7 * root[0] + 0.2)))


@equation("meanfield-critical")
def test_where_mean_field_orders():
    """The largest eigenvalue of the torus, the Hessian at m = 0 by autograd, and m² next to β_c with fifty digits."""
    for rows, columns, coupling in ((3, 3, 1.0), (4, 5, 0.7)):
        J = ising(rows, columns, coupling, periodic=True).couplings.detach()
        assert_close(np.linalg.eigvalsh(J.numpy())[-1], 4 * coupling)

        def F(m, J=J):
            up, down = (1 + m) / 2, (1 - m) / 2
            return -m @ J @ m / 2 + ((up * up.log()).sum() + (down * down.log()).sum()) / 0.3

        zero = torch.zeros(len(J), dtype=f64)
        curvature: Any = torch.autograd.functional.hessian(F, zero)
        assert_close(curvature, torch.eye(len(J), dtype=f64) / 0.3 - J)
    with mpmath.workdps(60):
        slope = 1 + mpmath.mpf(10) ** -14
        m = mpmath.findroot(lambda m: mpmath.tanh(slope * m) - m, mpmath.sqrt(3 * (slope - 1)))
        assert_close(float(m**2 / (slope - 1)), 3.0)


@functools.cache
def kaufman(rows, columns, coupling):
    """log Z of the torus without a field (Kaufman 1949), with thirty digits."""
    with mpmath.workdps(30):
        K = mpmath.mpf(coupling)
        rise = mpmath.cosh(2 * K) * mpmath.coth(2 * K)
        gamma = [mpmath.acosh(rise - mpmath.cos(mpmath.pi * k / columns)) for k in range(2 * columns)]
        gamma[0] = 2 * K + mpmath.log(mpmath.tanh(K))
        total = mpmath.fsum(
            mpmath.fprod(2 * function(rows * g / 2) for g in gamma[parity::2])
            for parity in (0, 1)
            for function in (mpmath.cosh, mpmath.sinh)
        )
        return float(mpmath.mpf(rows * columns) / 2 * mpmath.log(2 * mpmath.sinh(2 * K)) + mpmath.log(total / 2))


@functools.cache
def centre_spin(coupling, side=17):
    """⟨s⟩ in the middle of a lattice whose edge is held up."""
    fields = torch.zeros(side, side, dtype=f64)
    fields[[0, -1]] = fields[:, [0, -1]] = 40.0
    fields.requires_grad_()
    bonds = torch.full((side, side - 1), coupling, dtype=f64)
    (mean,) = torch.autograd.grad(lattice_log_partition(bonds, bonds.mT, fields), fields)
    return mean[side // 2, side // 2].item()


@equation("meanfield-onsager")
def test_the_infinite_magnet():
    """The integral against a torus of 80 × 80 by Kaufman's formula (less log 2 for the two signs in the cold), that
    formula against the library; Yang's magnetisation against the centre of a lattice with its edge held up; and where
    the bracket is zero at u = v = 0, which is also where tanh K = e^−2K."""
    bonds = torch.full((4, 5), 0.4, dtype=f64)
    assert_close(torus_log_partition(bonds, bonds, 0 * bonds), kaufman(4, 5, 0.4))
    angle = np.arange(256) * 2 * math.pi / 256
    waves = np.cos(angle)[:, None] + np.cos(angle)
    for K, signs in ((0.2, 1), (0.3, 1), (0.7, 2)):
        integral = np.log(math.cosh(2 * K) ** 2 - math.sinh(2 * K) * waves).mean() * 4 * math.pi**2
        finite = (kaufman(80, 80, K) - math.log(signs)) / 6400
        assert_close(math.log(2) + integral / (8 * math.pi**2), finite)
    for K in (1.2, 1.5):
        assert_close(centre_spin(K) ** 8, 1 - math.sinh(2 * K) ** -4)
    critical = 2 / math.log(1 + math.sqrt(2))
    assert_close(math.sinh(2 / critical), 1.0)
    assert_close(math.tanh(1 / critical), math.exp(-2 / critical))
    for K in (0.3, 0.9):
        assert_close(math.cosh(2 * K) ** 2 - 2 * math.sinh(2 * K), (1 - math.sinh(2 * K)) ** 2)
    assert_close(round(critical, 3), 2.269)


def by_rows(horizontal, vertical, fields):
    """⟨s⟩ and the ⟨s s′⟩ of all bonds of an open lattice: forward and backward sums over dense row matrices."""
    rows, columns = fields.shape
    s = spins(columns)
    own = np.exp(fields @ s.T + horizontal @ (s[:, :-1] * s[:, 1:]).T)
    step = [np.exp((s * v) @ s.T) for v in vertical]
    forward, backward = [own[0]], [np.ones(len(s))]
    for r in range(rows - 1):
        forward.append(own[r + 1] * (step[r] @ forward[-1]))
        backward.insert(0, step[-1 - r] @ (own[-1 - r] * backward[0]))
    Z = forward[-1].sum()
    p = np.array(forward) * np.array(backward) / Z
    pairs = [own[r + 1][:, None] * step[r] * forward[r] * backward[r + 1][:, None] / Z for r in range(rows - 1)]
    down = np.array([[s[:, c] @ pair @ s[:, c] for c in range(columns)] for pair in pairs])
    return p @ s, p @ (s[:, :-1] * s[:, 1:]), down


@equation("meanfield-lattice-derivatives")
def test_means_are_derivatives_of_the_lattice_sum():
    """A lattice of 8 × 7 with random bonds: the library's slopes in βb, βJ and β against forward and backward sums."""
    rng = np.random.default_rng(7)
    beta = 0.6
    horizontal, vertical, fields = (rng.normal(size=size) for size in ((8, 6), (7, 7), (8, 7)))
    mean, across, down = by_rows(beta * horizontal, beta * vertical, beta * fields)
    energy = -(mean * fields).sum() - (across * horizontal).sum() - (down * vertical).sum()
    beta_there = torch.tensor(beta, dtype=f64, requires_grad=True)
    given = [beta_there * torch.from_numpy(part) for part in (horizontal, vertical, fields)]
    slopes = torch.autograd.grad(lattice_log_partition(*given), [*given, beta_there])
    assert_close(slopes[2], mean)
    assert_close(slopes[0], across)
    assert_close(slopes[1], down)
    assert_close(-slopes[3], energy)


@equation("meanfield-mixture")
def test_the_symmetric_mixture():
    """F of the mixture from its table against F(m) less JS/β, with the library's JS; its limit log 2 at m = 1."""
    J, _ = parameters(4, strength=1.0)
    b, E = np.zeros(4), energies(J, np.zeros(4), spins(4))
    divergences = []
    for beta in (0.8, 1.5):
        m = ascended(J, b, beta, np.array([0.5, -0.4, 0.3, 0.8]))
        up, down = product(m), product(-m)
        mixed = (up + down) / 2
        both = js(torch.from_numpy(up), torch.from_numpy(down))
        assert_close(both, (divergence(up, mixed) + divergence(down, mixed)) / 2)
        assert_close(mixed @ E - entropy_of(mixed) / beta, bound(J, b, beta, m) - float(both) / beta)
        divergences.append(float(both))
    all_up, all_down = product(np.ones(4)), product(-np.ones(4))
    half = (all_up + all_down) / 2
    divergences.append((divergence(all_up, half) + divergence(all_down, half)) / 2)
    assert_at_most(np.array(divergences), math.log(2))
    assert_at_most(0.0, np.array([*divergences, divergence(half, half)]))


@equation("meanfield-response")
def test_linear_response():
    """The inverse matrix against differences of the solution with forty digits, in every field in turn."""
    J, b = parameters(3)
    beta = 0.6
    m = ascended(J, b, beta, np.zeros(3))
    C = np.linalg.inv(np.diag(1 / (1 - m**2)) - beta * J)
    with mpmath.workdps(40):
        couplings = mpmath.matrix(J.tolist())

        def solution(fields):
            def equations(*m):
                return [m[i] - mpmath.tanh(beta * (fields[i] + (couplings * mpmath.matrix(m))[i])) for i in range(3)]

            return mpmath.findroot(equations, tuple(mpmath.mpf(x) for x in np.tanh(beta * b)))

        small, centre = mpmath.mpf(10) ** -18, solution([mpmath.mpf(x) for x in b])
        for j in range(3):
            moved = solution([mpmath.mpf(x) + small * (i == j) for i, x in enumerate(b)])
            assert_close([float((moved[i] - centre[i]) / (beta * small)) for i in range(3)], C[:, j])


@equation("meanfield-tap")
def test_second_order_at_fixed_means():
    """Couplings εJ at fixed means, by fields that keep them: the free energy's first and second coefficients in ε with
    sixty digits, against −½ m·Jm and the correction; the remainder is of order ε = 1e−14."""
    J, _ = parameters(3)
    beta, m = 0.9, [0.3, -0.6, 0.5]
    s = spins(3).tolist()
    with mpmath.workdps(60):
        mean, epsilon = [mpmath.mpf(x) for x in m], mpmath.mpf(10) ** -14
        pairs = [(mpmath.mpf(J[i, j]), i, j) for i, j in itertools.combinations(range(3), 2)]

        def weights(strength, fields):
            exponents = [
                beta * (strength * sum(c * x[i] * x[j] for c, i, j in pairs) + sum(map(mpmath.fmul, fields, x)))
                for x in s
            ]
            return [mpmath.exp(e) for e in exponents]

        def constrained(strength):
            """F at means m: the lowest F[q] of all q with those means, U − S/β without the fields that hold them."""

            def off(*fields):
                w = weights(strength, fields)
                return [sum(v * x[i] for v, x in zip(w, s, strict=True)) / sum(w) - mean[i] for i in range(3)]

            fields = mpmath.findroot(off, tuple(mpmath.atanh(x) / beta for x in mean))
            return -mpmath.log(sum(weights(strength, list(fields)))) / beta + sum(map(mpmath.fmul, fields, mean))

        zeroth, once, twice = (constrained(k * epsilon) for k in (0, 1, 2))
        second = float((twice - 2 * once + zeroth) / (2 * epsilon**2))
        first = float((4 * once - twice - 3 * zeroth) / (2 * epsilon))
    m = np.array(m)
    assert_close(float(zeroth), bound(0 * J, np.zeros(3), beta, m))
    assert_close(-m @ J @ m / 2, first)
    rest = 1 - m**2
    assert_close(-beta / 4 * rest @ (J**2) @ rest, second)


def random_patterns(K, n, seed=1):
    return np.random.default_rng(seed).choice([-1.0, 1.0], (K, n))


def hebb(patterns):
    """The rule, one pair of units at a time."""
    K, n = patterns.shape
    J = np.zeros((n, n))
    for i, j in itertools.permutations(range(n), 2):
        J[i, j] = sum(patterns[k, i] * patterns[k, j] for k in range(K)) / n
    return J


@equation("hopfield-couplings")
def test_energy_of_a_memory_through_its_overlaps():
    """Pairwise energies of all configurations, and the library's, against the sum of squared overlaps."""
    for K, n in ((1, 5), (3, 6), (7, 5)):
        patterns, s = random_patterns(K, n), spins(n)
        J = hebb(patterns)
        overlaps = s @ patterns.T / n
        formula = -n / 2 * (overlaps**2).sum(1) + K / 2
        assert_close(formula, energies(J, np.zeros(n), s))
        assert_close(machine_of(J, np.zeros(n)).energy(torch.from_numpy(s)), formula)


@equation("hopfield-descent")
def test_the_energy_never_rises():
    """Every configuration and every unit of a symmetric machine: E after less E before, by pairwise sums; and for one
    without a field on its unit nothing moves."""
    for J in (parameters(5, seed=8)[0], hebb(random_patterns(2, 4))):
        n = len(J)
        s, nothing = spins(n), np.zeros(n)
        before, worst = energies(J, nothing, s), []
        for i in range(n):
            field = s @ J[i]
            after = s.copy()
            after[:, i] = np.where(field == 0, s[:, i], np.sign(field))
            change = energies(J, nothing, after) - before
            assert_close(-(after[:, i] - s[:, i]) * field, change)
            assert_close(np.where(after[:, i] != s[:, i], -2 * np.abs(field), 0.0), change)
            worst.append(change.max())
        assert_at_most(np.array(worst), 0.0)


@equation("hopfield-signal")
def test_signal_and_noise():
    """ξ_i c_i at the first pattern from the couplings, against the double sum over other patterns and other units."""
    for K, n in ((1, 5), (4, 6), (9, 7)):
        x = random_patterns(K, n, seed=K)
        J = hebb(x)
        for i in range(n):
            noise = sum(x[0, i] * x[0, j] * x[k, i] * x[k, j] for k in range(1, K) for j in range(n) if j != i)
            assert_close((n - 1) / n + noise / n, x[0, i] * (J[i] @ x[0]))


@equation("hopfield-error")
def test_the_chance_of_a_wrong_unit():
    """The binomial tail against the fraction of all 2^(nK) sets of patterns, counted; the Gaussian with the same mean
    and variance against the complementary error function."""
    for K, n in ((3, 3), (3, 4), (3, 5), (5, 3), (4, 4)):
        x = spins(n * K).reshape(-1, K, n)
        field = np.einsum("rkj,rj,rk->r", x[:, :, 1:], x[:, 0, 1:], x[:, :, 0])  # n c_i, without unit i = 0 itself
        wrong = np.mean(np.round(field * x[:, 0, 0]) < 0)
        assert_close(scipy.stats.binom.sf(math.floor(K * (n - 1) / 2), (K - 1) * (n - 1), 0.5), wrong)
    for K, n in ((57, 400), (101, 1001)):
        count = (K - 1) * (n - 1)
        tail = scipy.stats.norm.sf(K * (n - 1) / 2, count / 2, math.sqrt(count / 4))
        assert_close(math.erfc(math.sqrt((n - 1) / (2 * (K - 1)))) / 2, tail)


@equation("meanfield-pair-by-hand")
def test_solution_of_the_pair():
    J, b = np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros(2)
    m = ascended(J, b, 0.5, np.array([0.9, 0.4]))
    assert_close(m, 0.0)
    log_Z = -0.5 * free_energy(J, b, 0.5)
    assert_close(math.log(2 * math.exp(0.5) + 2 * math.exp(-0.5)), log_Z)
    assert_close(math.log(4 * math.cosh(0.5)), log_Z)
    gap = divergence(product(m), boltzmann(J, b, 0.5))
    assert_close(math.log(math.cosh(0.5)), gap)
    assert_close(round(gap, 4), 0.1201)


@equation("meanfield-ring-by-hand")
def test_solution_of_the_ring():
    machine = ising(1, 12, periodic=True)
    m = ascended(machine.couplings.detach().numpy(), np.zeros(12), 1.0, np.ones(12), sweeps=200)
    assert_close(math.tanh(2 * m[0]), m)
    assert_close(round(float(m[0]), 4), 0.9575)


@equation("meanfield-sides-by-hand")
def test_solution_of_the_sides():
    up, down = product(np.array([0.8, 0.8])), product(np.array([-0.8, -0.8]))
    assert_close(sorted(up), [0.01, 0.09, 0.09, 0.81])
    mixed = (up + down) / 2
    gain = entropy_of(mixed) - entropy_of(up)
    assert_close(-0.82 * math.log(0.41) + 0.81 * math.log(0.81) + 0.01 * math.log(0.01), gain)
    assert_close((divergence(up, mixed) + divergence(down, mixed)) / 2, gain)
    assert_close([round(gain, 4), round(math.log(2), 4)], [0.5144, 0.6931])


@equation("hopfield-bits-by-hand")
def test_solution_of_the_bits():
    expected = 1001 * float(scipy.stats.norm.sf(math.sqrt(1000 / 100)))
    assert_close(1001 * math.erfc(math.sqrt(5)) / 2, expected)
    assert_close(round(expected, 4), 0.7835)


@equation("hopfield-vote-by-hand")
def test_solution_of_the_vote():
    """Eight units, one for each column of signs of three patterns: what many units have in their proportions."""
    x = spins(3).T
    vote = np.sign(x.sum(0))
    overlaps = x @ vote / 8
    assert_close(overlaps, 0.5)
    J = x.T @ x / 8  # with its diagonal, whose part of the energy per unit vanishes for many units
    assert_close(-vote @ J @ vote / 2 / 8, -3 / 8)
    assert_close(-x[0] @ J @ x[0] / 2 / 8, -1 / 2)
    assert_close(J @ vote, x.sum(0) / 2)
    assert (J @ vote * vote > 0).all()
