"""The equations of the page on Monte Carlo: matrices on all states, quadrature on the line, and no sampling.

Matrices are written out here in plain loops from the equations; the library's `transition_matrix` is held against
them. Gaussian integrals are sums over fine grids or Gauss–Hermite nodes.
"""

import itertools
import math

import numpy as np
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode import seeded
from lecturecode.boltzmann import (
    BIT,
    SPIN,
    BoltzmannMachine,
    RestrictedBoltzmannMachine,
    states,
    torus_log_partition,
)
from lecturecode.markov import (
    autocorrelation_time,
    effective_sample_size,
    flip,
    gibbs,
    hmc,
    in_turn,
    langevin,
    mala,
    metropolis,
    standard_error,
    swendsen_wang,
    transition_matrix,
)
from lecturecode.rng import normal

f64 = torch.float64
GRID = np.linspace(-30, 30, 60_001)  # spacing 0.001: the trapezoid rule is exact to rounding for these Gaussians


def random_machine(n=4, seed=1):
    rng = np.random.default_rng(seed)
    J = np.triu(rng.normal(size=(n, n)), 1)
    return BoltzmannMachine(torch.from_numpy(J + J.T), torch.from_numpy(rng.normal(size=n)))


def brute(machine):
    """p over all states, bit i of the number being unit i, from the energy's terms one by one."""
    J, b = machine.couplings.detach().numpy(), machine.biases.detach().numpy()
    n = len(b)
    S = [[1 if k >> i & 1 else -1 for i in range(n)] for k in range(2**n)]
    f = []
    for s in S:
        pairs = [J[i, j] * s[i] * s[j] for i, j in itertools.combinations(range(n), 2)]
        f.append(math.exp(math.fsum([*pairs, *(b[i] * s[i] for i in range(n))])))
    return np.array(S), np.array(f) / math.fsum(f)


def flow_of(T, p):
    return np.asarray(T) * np.asarray(p)


def unit_gibbs(p, unit):
    """T^{(i)}: the unit drawn from p given the rest."""
    T = np.zeros((len(p), len(p)))
    for j in range(len(p)):
        pair = [j & ~(1 << unit), j | 1 << unit]
        for i in pair:
            T[i, j] = p[i] / sum(p[k] for k in pair)
    return T


def random_reversible(p, seed):
    """Metropolis from a random proposal: any reversible matrix will do."""
    Q = np.random.default_rng(seed).dirichlet(np.ones(len(p)), size=len(p)).T
    return accepted(p, Q, lambda r: min(1.0, r))


def accepted(p, Q, rule):
    T = np.zeros_like(Q)
    for i, j in itertools.permutations(range(len(p)), 2):
        T[i, j] = Q[i, j] * rule(p[i] * Q[j, i] / (p[j] * Q[i, j]))
    return T + np.diag(1 - T.sum(0))


@equation("mc-balance")
def test_detailed_balance_implies_balance():
    """A symmetric flow with random entries, divided by p: reversible by construction; and the library's Metropolis."""
    rng = np.random.default_rng(1)
    flow = rng.random((6, 6))
    flow = flow + flow.T
    p = flow.sum(0) / flow.sum()
    T = flow / flow.sum(0)
    assert_close(flow_of(T, p), flow_of(T, p).T)
    assert_close(T @ p, p)
    machine = random_machine()
    _, p = brute(machine)
    T = transition_matrix(metropolis(machine.energy, flip(SPIN)), states(4)).detach()
    assert_close(flow_of(T, p), flow_of(T, p).T)
    assert_close(T.numpy() @ p, p)


@equation("mc-combine")
def test_products_and_mixtures():
    p = np.random.default_rng(2).dirichlet(np.ones(5))
    A, B = random_reversible(p, 3), random_reversible(p, 4)
    mixture = 0.3 * A + 0.7 * B
    for T in (B @ A, mixture):
        assert_close(T @ p, p)
    assert_close(flow_of(mixture, p), flow_of(mixture, p).T)
    assert_close(flow_of(B @ A, p), flow_of(A @ B, p).T)
    assert np.abs(flow_of(B @ A, p) - flow_of(B @ A, p).T).max() > 1e-3  # the product itself is not reversible
    machine = random_machine()
    each = [metropolis(machine.energy, flip(SPIN, i)) for i in range(4)]
    whole = np.linalg.multi_dot([transition_matrix(k, states(4)).detach().numpy() for k in reversed(each)])
    assert_close(transition_matrix(in_turn(each), states(4)).detach(), whole)


@equation("mc-metropolis-hastings")
def test_metropolis_hastings():
    """A random proposal that is not symmetric, and the library's single flips against the rule state by state."""
    p = np.random.default_rng(5).dirichlet(np.ones(6))
    Q = np.random.default_rng(6).dirichlet(np.ones(6), size=6).T
    T = accepted(p, Q, lambda r: min(1.0, r))
    assert_close(T.sum(0), 1.0)
    smaller = np.minimum(Q * p, (Q * p).T)
    off = ~np.eye(6, dtype=bool)
    assert_close(flow_of(T, p)[off], smaller[off])
    assert_close(T @ p, p)
    machine = random_machine()
    _, p = brute(machine)
    Q = np.array([[0.25 if bin(i ^ j).count("1") == 1 else 0.0 for j in range(16)] for i in range(16)])
    T = np.zeros((16, 16))
    for i, j in itertools.permutations(range(16), 2):
        T[i, j] = Q[i, j] * min(1.0, p[i] / p[j])
    T += np.diag(1 - T.sum(0))
    assert_close(transition_matrix(metropolis(machine.energy, flip(SPIN)), states(4)).detach(), T)


@equation("mc-acceptance-rules")
def test_acceptance_rules():
    """Three rules g with g(r) = r g(1/r): each balances, none is above Metropolis', which alone reaches the bound."""
    p = np.random.default_rng(7).dirichlet(np.ones(5))
    Q = np.random.default_rng(8).dirichlet(np.ones(5), size=5).T
    rules = (lambda r: min(1.0, r), lambda r: r / (1 + r), lambda r: min(1.0, r) / (1 + min(r, 1 / r)))
    ratios = np.array([1e-3, 0.2, 0.9, 1.0, 1.7, 40.0])
    for g in rules:
        values = np.array([g(r) for r in ratios])
        assert_close(values, ratios * np.array([g(1 / r) for r in ratios]))
        assert (values <= np.minimum(1, ratios)).all()
        T = accepted(p, Q, g)
        assert_close(flow_of(T, p), flow_of(T, p).T)
    assert_at_most([min(1.0, r) for r in ratios], np.minimum(1, ratios))
    machine = random_machine()  # the heat bath of one unit is the second rule
    _, p = brute(machine)
    T = transition_matrix(gibbs(machine.conditional, SPIN, [[2]]), states(4)).detach()
    for j in range(16):
        r = p[j ^ 4] / p[j]
        assert_close(T[j ^ 4, j], r / (1 + r))


@equation("mc-gibbs")
def test_a_gibbs_draw_is_a_projection():
    machine = random_machine()
    _, p = brute(machine)
    for unit in range(4):
        T = unit_gibbs(p, unit)
        assert_close(transition_matrix(gibbs(machine.conditional, SPIN, [[unit]]), states(4)).detach(), T)
        assert_close(T @ T, T)
        for j in range(16):  # always accepted, as a proposal
            i = j ^ 1 << unit
            assert_close(p[i] * T[j, i] / (p[j] * T[i, j]), 1.0)


@equation("mc-scans")
def test_random_and_systematic_scans():
    machine = random_machine()
    _, p = brute(machine)
    each = [unit_gibbs(p, i) for i in range(4)]
    random = transition_matrix(gibbs(machine.conditional, SPIN, scan="random"), states(4)).detach().numpy()
    sweep = transition_matrix(gibbs(machine.conditional, SPIN), states(4)).detach().numpy()
    assert_close(random, sum(each) / 4)
    assert_close(flow_of(random, p), flow_of(random, p).T)
    assert_close(sweep, each[3] @ each[2] @ each[1] @ each[0])
    back = each[0] @ each[1] @ each[2] @ each[3]
    assert_close(flow_of(sweep, p), flow_of(back, p).T)
    assert np.abs(flow_of(sweep, p) - flow_of(sweep, p).T).max() > 1e-3


@equation("mc-energy-slope")
def test_energy_as_a_slope():
    """The derivative of log Z on a torus of 4 × 4 by autograd against the sum over all 65,536 states."""
    J = 0.4407
    spins = (1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)).reshape(-1, 4, 4)
    products = (spins * np.roll(spins, 1, 1)).sum((1, 2)) + (spins * np.roll(spins, 1, 2)).sum((1, 2))
    weight = np.exp(J * products)
    mean = -J * (weight * products).sum() / weight.sum()
    coupling = torch.tensor(J, dtype=f64, requires_grad=True)
    bonds = coupling.expand(4, 4)
    (slope,) = torch.autograd.grad(torus_log_partition(bonds, bonds, torch.zeros(4, 4, dtype=f64)), coupling)
    assert_close(-J * slope, mean)


@equation("mc-bottleneck")
def test_the_gap_is_below_the_flow_out_of_a_set():
    """Every set of states of a random machine's random scan; with two states the bound is reached."""
    machine = random_machine(3)
    _, p = brute(machine)
    T = transition_matrix(gibbs(machine.conditional, SPIN, scan="random"), states(3)).detach().numpy()
    gap = 1 - np.sort(np.linalg.eigvals(T).real)[-2]
    flow = flow_of(T, p)
    for size in range(1, 8):
        for A in itertools.combinations(range(8), size):
            inside = np.isin(np.arange(8), A)
            out = flow[~inside][:, inside].sum()
            assert gap <= out / (p[inside].sum() * p[~inside].sum()) + 1e-15
    a, b = 0.3, 0.1  # 0 → 1 and 1 → 0
    two = np.array([[1 - a, b], [a, 1 - b]])
    q = np.array([b, a]) / (a + b)
    mu = np.sort(np.linalg.eigvals(two).real)[0]
    assert_at_most(1 - mu, flow_of(two, q)[1, 0] / (q[0] * q[1]))


@equation("mc-bond-sum")
def test_a_coupling_is_a_sum_over_a_bond():
    for J in (0.1, 0.4407, 2.0):
        q = 1 - math.exp(-2 * J)
        for s, t in itertools.product((-1, 1), repeat=2):
            total = math.fsum((1 - q) * (1 - w) + q * w * (s == t) for w in (0, 1))
            assert_close(math.exp(J * s * t), math.exp(J) * total)


def joint_of_bonds(bonds, J, b, n):
    """P(s, ω) of Edwards and Sokal as a table (states, graphs), and the clusters of each graph."""
    S = [[1 if k >> i & 1 else -1 for i in range(n)] for k in range(2**n)]
    graphs = list(itertools.product((0, 1), repeat=len(bonds)))
    q = 1 - math.exp(-2 * J)
    table = np.zeros((len(S), len(graphs)))
    clusters = []
    for g, graph in enumerate(graphs):
        label = list(range(n))
        for _ in range(n):
            for on, (i, j) in zip(graph, bonds, strict=True):
                if on:
                    label[i] = label[j] = min(label[i], label[j])
        clusters.append(label)
        for k, s in enumerate(S):
            factors = [(q if s[i] == s[j] else 0.0) if on else 1 - q for on, (i, j) in zip(graph, bonds, strict=True)]
            table[k, g] = math.prod(factors) * math.exp(math.fsum(b[i] * s[i] for i in range(n)))
    return np.array(S), graphs, clusters, table / table.sum()


PLAQUETTES = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]  # 2 × 3, open edges


@equation("mc-cluster-conditionals")
def test_conditionals_of_spins_and_bonds():
    """Both conditionals of the joint table against the products; its marginal is the magnet."""
    J, b = 0.5, np.array([0.1, -0.2, 0.3, 0.0, 0.2, -0.1])
    S, graphs, clusters, P = joint_of_bonds(PLAQUETTES, J, b, 6)
    couplings = torch.zeros(6, 6, dtype=f64)
    for i, j in PLAQUETTES:
        couplings[i, j] = couplings[j, i] = J
    assert_close(P.sum(1), brute(BoltzmannMachine(couplings, torch.from_numpy(b)))[1])
    q = 1 - math.exp(-2 * J)
    given_s, given_bonds = P / P.sum(1, keepdims=True), P / P.sum(0)
    wanted_bonds, wanted_s = np.zeros_like(P), np.zeros_like(P)
    for (k, s), (g, graph) in itertools.product(enumerate(S), enumerate(graphs)):
        wanted_bonds[k, g] = math.prod(
            (q**on * (1 - q) ** (1 - on)) if s[i] == s[j] else float(on == 0)
            for on, (i, j) in zip(graph, PLAQUETTES, strict=True)
        )
        share = 1.0
        for root in set(clusters[g]):
            members = [i for i in range(6) if clusters[g][i] == root]
            same = all(s[i] == s[members[0]] for i in members)
            share *= same * math.exp(sum(b[i] * s[i] for i in members)) / (2 * math.cosh(sum(b[i] for i in members)))
        wanted_s[k, g] = share
    assert_close(given_s, wanted_bonds)
    assert_close(given_bonds, wanted_s)


@equation("mc-cluster-balance")
def test_the_cluster_step_is_reversible():
    """Through the table of spins and bonds; the library's exact matrix is the same, and has no negative eigenvalue."""
    J, b = 0.5, np.full(6, 0.1)
    *_, P = joint_of_bonds(PLAQUETTES, J, b, 6)
    p, bonds = P.sum(1), P.sum(0)
    given_bonds = P / bonds
    T = given_bonds @ (P / p[:, None]).T
    squares = (given_bonds * bonds) @ given_bonds.T
    assert_close(flow_of(T, p), squares)
    assert_close(flow_of(T, p), flow_of(T, p).T)
    library = transition_matrix(swendsen_wang(2, 3, J, 0.1), states(6)).numpy()
    assert_close(library, T)
    assert_close(library @ p, p)
    assert np.linalg.eigvalsh(squares).min() > -1e-14


@equation("mc-cluster-correlation")
def test_correlations_are_probabilities_of_one_cluster():
    S, _, clusters, P = joint_of_bonds(PLAQUETTES, 0.5, np.zeros(6), 6)
    p, bonds = P.sum(1), P.sum(0)
    for i, j in itertools.combinations(range(6), 2):
        together = math.fsum(w for w, label in zip(bonds, clusters, strict=True) if label[i] == label[j])
        assert_close(p @ (S[:, i] * S[:, j]), together)


@equation("mc-langevin")
def test_langevin_step():
    """The library's step with its own noise drawn again from the same seed; log p is a quartic."""
    x = torch.linspace(-2, 2, 12, dtype=f64).reshape(4, 3)
    tau = 0.3
    moved = langevin(lambda x: -(x**3), tau)(x, seeded(3))
    noise = normal((4, 3), seeded(3), x)
    for a, b, xi in zip(x.flatten().tolist(), moved.flatten().tolist(), noise.flatten().tolist(), strict=True):
        assert_close(b, a - tau * a**3 + math.sqrt(2 * tau) * xi)


def moved_variance(tau, v):
    """Variance after one step from N(0, v), by the law of total variance with the library's drift."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    x = torch.from_numpy(np.sqrt(v) * nodes)[:, None]
    step = langevin(lambda x: -x, tau)
    noise = normal((20, 1), seeded(1), x)
    drift = (step(x, seeded(1)) - math.sqrt(2 * tau) * noise)[:, 0].numpy()
    return weights @ drift**2 - (weights @ drift) ** 2 + 2 * tau


@equation("mc-langevin-bias")
def test_langevin_bias():
    """One step of the variance by quadrature; the fixed point; convergence inside 0 < τ < 2 and growth outside."""
    for tau in (0.1, 0.5, 1.0, 1.5, 1.9):
        star = 1 / (1 - tau / 2)
        assert_close(2 * tau / (1 - (1 - tau) ** 2), star)
        for v in (0.2, 1.0, star):
            assert_close(moved_variance(tau, v), (1 - tau) ** 2 * v + 2 * tau)
        assert_close(moved_variance(tau, star), star)
        v = 0.2
        for t in range(1, 8):
            v = moved_variance(tau, v)
            assert_close(v - star, (1 - tau) ** (2 * t) * (0.2 - star))
    assert moved_variance(2.1, 5.0) > 5.0 * 1.2


@equation("mc-langevin-time")
def test_langevin_time():
    """The series against the closed form, and the steps' own correlation E[x x′]/v* = 1 − τ by quadrature."""
    for tau in (0.2, 0.5, 1.0, 1.6):
        series = 1 + 2 * math.fsum((1 - tau) ** t for t in range(1, 400))
        assert_close(series, (2 - tau) / tau)
        v = 1 / (1 - tau / 2)
        density = np.exp(-(GRID**2) / (2 * v))
        assert_close((density * GRID * (GRID - tau * GRID)).sum() / (density * GRID**2).sum(), 1 - tau)


@equation("mc-langevin-gaussian")
def test_langevin_on_a_correlated_gaussian():
    """The stationary covariance from the linear equation C = M C Mᵀ + 2τ I, in the eigenvectors of Σ."""
    sigma = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, -0.2], [0.1, -0.2, 0.5]])
    lam, U = np.linalg.eigh(sigma)
    tau = 0.3
    M = np.eye(3) - tau * np.linalg.inv(sigma)
    C = np.linalg.solve(np.eye(9) - np.kron(M, M), (2 * tau * np.eye(3)).ravel()).reshape(3, 3)
    assert_close(np.diag(U.T @ C @ U).copy(), lam / (1 - tau / (2 * lam)))
    inside, outside = (np.abs(1 - t / lam).max() for t in (1.999 * lam.min(), 2.001 * lam.min()))
    assert inside < 1 < outside
    assert_close(np.abs(1 - 2 * lam.min() / lam).max(), 1.0)
    for width in lam:  # the cost of a draw, of which the text speaks
        assert_close(1 + 2 * math.fsum((1 - tau / width) ** t for t in range(1, 1000)), 2 * width / tau - 1)


def log_normal_density(x, mean, variance):
    return -((x - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2


@equation("mc-mala")
def test_mala_acceptance():
    """The library's acceptance against the ratio of densities, on a quartic and on N(0, 1); flows balance pointwise."""
    tau = 0.4
    x = torch.tensor([-1.5, -0.3, 0.2, 1.1, 2.0], dtype=f64)
    pairs = [(a, b) for a in x.tolist() for b in x.tolist() if a != b]
    for power, logs, slope in ((4, lambda a: -(a**4) / 4, lambda a: -(a**3)), (2, lambda a: -(a**2) / 2, lambda a: -a)):
        kernel = mala(lambda y, k=power: -(y**k).sum(-1) / k, tau)
        here, there = (torch.tensor(v, dtype=f64)[:, None] for v in zip(*pairs, strict=True))
        found, back = kernel.acceptance(here, there), kernel.acceptance(there, here)
        for k, (a, b) in enumerate(pairs):
            out = log_normal_density(b, a + tau * slope(a), 2 * tau)
            home = log_normal_density(a, b + tau * slope(b), 2 * tau)
            assert_close(found[k], min(1.0, math.exp(logs(b) + home - logs(a) - out)))
            assert_close(math.exp(logs(a) + out) * found[k], math.exp(logs(b) + home) * back[k])
            if power == 2:
                assert_close(found[k], min(1.0, math.exp(-tau / 4 * (b**2 - a**2))))


@equation("mc-hamiltonian")
def test_the_joint_density_has_the_target_as_its_marginal():
    """∫ e^{−H} dπ on a grid is √(2π) p; H does not change along a small exact flow to first order."""
    for x in (-1.2, 0.0, 0.8):
        log_p = -(x**4) / 4
        integral = np.exp(log_p - GRID**2 / 2).sum() * 0.001
        assert_close(integral, math.sqrt(2 * math.pi) * math.exp(log_p))
        for momentum in (-0.7, 1.3):
            dx, dpi = momentum, -(x**3)  # ẋ = π, π̇ = ∇log p
            assert_close(x**3 * dx + momentum * dpi, 0.0)


def leap(slope, x, momentum, size, steps=1):
    for _ in range(steps):
        half = momentum + size / 2 * slope(x)
        x = x + size * half
        momentum = half + size / 2 * slope(x)
    return x, momentum


def quartic(x):
    """∇log p for log p = −Σ x⁴/4 − (Σ x)²/2: coupled and not harmonic."""
    return -(x**3) - x.sum(-1, keepdim=True)


def log_quartic(x):
    return -(x**4).sum(-1) / 4 - x.sum(-1).square() / 2


def path(steps, size, x, momentum):
    kernel = hmc(log_quartic, size, steps)
    return kernel.path(x, momentum, x.new_full((1,), size))


@equation("mc-leapfrog")
def test_leapfrog_steps():
    x, momentum = (torch.randn(5, 3, generator=seeded(k), dtype=f64) for k in (1, 2))
    for steps in (1, 4):
        found = path(steps, 0.2, x, momentum)
        wanted = leap(quartic, x, momentum, 0.2, steps)
        assert_close(found[0], wanted[0])
        assert_close(found[1], wanted[1])


@equation("mc-leapfrog-properties")
def test_leapfrog_keeps_volume_and_is_reversible():
    """The Jacobian of the library's path by autograd; its determinant; and the way back with π turned round."""
    x, momentum = (torch.randn(3, generator=seeded(k), dtype=f64) for k in (3, 4))
    for steps in (1, 3):

        def whole(z, steps=steps):
            return torch.cat(leap(quartic, z[:3], z[3:], 0.3, steps))

        jacobian = torch.autograd.functional.jacobian(whole, torch.cat([x, momentum]))
        assert_close(torch.linalg.det(jacobian).abs(), 1.0)
        end, turned, _ = path(steps, 0.3, x[None], momentum[None])
        assert_close(torch.cat([end[0], turned[0]]), whole(torch.cat([x, momentum])))
        home, out, _ = path(steps, 0.3, end, -turned)
        assert_close(home[0], x)
        assert_close(-out[0], momentum)


@equation("mc-hmc")
def test_hmc_acceptance_and_its_mean():
    """min(1, e^{−ΔH}) from H written out; ∫∫ p(x) N(π) e^{−ΔH} on a grid, for a quartic with a coarse step."""
    x, momentum = (torch.randn(6, 3, generator=seeded(k), dtype=f64) for k in (5, 6))
    end, turned, chance = path(3, 0.5, x, momentum)
    for k in range(6):
        H = [-log_quartic(a[k]) + b[k].square().sum() / 2 for a, b in ((x, momentum), (end, turned))]
        assert_close(chance[k], min(1.0, math.exp(H[0] - H[1])))
    lines = (torch.linspace(-reach, reach, 1201, dtype=f64) for reach in (6, 10))
    a, b = (v.flatten()[:, None] for v in torch.meshgrid(*lines, indexing="ij"))
    log_p = lambda x: -(x**4).sum(-1) / 4  # noqa: E731
    start = log_p(a) - b.square().sum(-1) / 2
    end, turned = leap(lambda x: -(x**3), a, b, 0.3, 2)
    weight = start.exp() / start.exp().sum()
    change = log_p(end) - turned.square().sum(-1) / 2 - start
    assert_close((weight * change.exp()).sum(), 1.0, tol=1e-10)  # a sum over a grid after a nonlinear map
    assert change.abs().max() > 0.1


@equation("mc-hmc-is-mala")
def test_one_leap_is_mala():
    """Proposal and acceptance of the two library kernels, at the same points, on a target that is not Gaussian."""
    size = 0.6
    x, momentum = (torch.randn(7, 3, generator=seeded(k), dtype=f64) for k in (7, 8))
    end, _, chance = path(1, size, x, momentum)
    assert_close(end, x + size**2 / 2 * quartic(x) + size * momentum)
    tau = size**2 / 2
    assert_close(mala(log_quartic, tau).acceptance(x, end), chance)
    for k in range(7):
        out = sum(
            log_normal_density(e, a + tau * g, 2 * tau) for e, a, g in zip(end[k], x[k], quartic(x)[k], strict=True)
        )
        home = sum(
            log_normal_density(a, e + tau * g, 2 * tau) for e, a, g in zip(end[k], x[k], quartic(end)[k], strict=True)
        )
        ratio = log_quartic(end[k]) + home - log_quartic(x[k]) - out
        _, turned = leap(quartic, x[k], momentum[k], size)
        fall = -momentum[k].square().sum() / 2 + turned.square().sum() / 2 - log_quartic(end[k]) + log_quartic(x[k])
        assert_close(-fall, ratio)


@equation("mc-leapfrog-harmonic")
def test_leapfrog_on_a_normal_distribution():
    for size in (0.1, 0.7, 1.0, 1.9):
        matrix = np.array([[1 - size**2 / 2, size], [-size * (1 - size**2 / 4), 1 - size**2 / 2]])
        kernel = hmc(lambda x: -x.square().sum(-1) / 2, size, 1)
        for start in ([1.0, 0.0], [0.3, -1.2]):
            x, momentum = (torch.tensor([[v]], dtype=f64) for v in start)
            end, turned, _ = kernel.path(x, momentum, x.new_full((1,), size))
            assert_close([end.item(), turned.item()], matrix @ start)
            a = 1 - size**2 / 4
            assert_close(turned.item() ** 2 + a * end.item() ** 2, start[1] ** 2 + a * start[0] ** 2)
        assert_close(np.sort(np.angle(np.linalg.eigvals(matrix)))[-1], math.acos(1 - size**2 / 2))
        assert_close(np.abs(np.linalg.eigvals(matrix)), 1.0)


def chain_of(seed=9):
    """A reversible chain on five states with its stationary vector, and an observable."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(5))
    return random_reversible(p, seed), p, rng.normal(size=5)


def exact_correlations(T, p, u, lags):
    centred, found, power = u - p @ u, [], np.eye(len(p))
    for _ in range(lags):
        found.append(centred @ power @ (p * centred) / (p @ centred**2))
        power = T @ power
    return np.array(found)


@equation("mc-variance-of-mean")
def test_variance_of_a_mean():
    """Every path of five steps through five states, with its probability, against the sum over lags."""
    T, p, u = chain_of()
    N, first, second = 5, 0.0, 0.0
    for steps in itertools.product(range(5), repeat=N):
        weight = p[steps[0]] * math.prod(T[i, j] for j, i in itertools.pairwise(steps))
        mean = sum(u[k] for k in steps) / N
        first, second = first + weight * mean, second + weight * mean**2
    rho = exact_correlations(T, p, u, N)
    sigma2 = p @ (u - p @ u) ** 2
    bracket = 1 + 2 * math.fsum((1 - t / N) * rho[t] for t in range(1, N))
    assert_close(second - first**2, sigma2 / N * bracket)


@equation("mc-autocorrelation-time")
def test_autocorrelation_time():
    """The bracket's limit from the fundamental matrix; the library's three estimates stand in the stated relation."""
    T, p, u = chain_of()
    rho = exact_correlations(T, p, u, 3000)
    tau = 1 + 2 * rho[1:].sum()
    N = 10**9
    centred = u - p @ u
    sums = np.linalg.solve(np.eye(5) - T + np.outer(p, np.ones(5)), p * centred)
    assert_close(tau, 2 * (centred @ sums) / (p @ centred**2) - 1)
    assert_close(1 + 2 * math.fsum((1 - t / N) * rho[t] for t in range(1, 3000)), tau, tol=1e-7)  # 1/N is left
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(400, 6)).cumsum(0) * 0.1 + 1.0)
    x = x - 0.9 * x.roll(1, 0)
    time, size = autocorrelation_time(x), effective_sample_size(x, "mean")
    assert_close(size, x.numel() / time)
    assert_close(standard_error(x), x.flatten().std() / size.sqrt())


@equation("mc-autocorrelation-spectrum")
def test_autocorrelation_by_eigenvalues():
    for seed in (9, 10):
        T, p, u = chain_of(seed)
        root = np.sqrt(p)
        mu, vectors = np.linalg.eigh(T * root / root[:, None])
        share = (vectors.T @ (root * (u - p @ u))) ** 2
        share = share[:-1] / share.sum()  # the last has μ = 1
        assert_close(exact_correlations(T, p, u, 12), [share @ mu[:-1] ** t for t in range(12)])
        tau = 1 + 2 * exact_correlations(T, p, u, 3000)[1:].sum()
        assert_close(share @ ((1 + mu[:-1]) / (1 - mu[:-1])), tau)
        slowest = vectors[:, -2] / root
        assert tau <= (1 + mu[-2]) / (1 - mu[-2])
        worst = 1 + 2 * exact_correlations(T, p, slowest, 3000)[1:].sum()
        assert_at_most(worst, (1 + mu[-2]) / (1 - mu[-2]))


@equation("mc-restricted")
def test_block_gibbs_of_a_restricted_machine():
    """Conditionals from the table of e^{−E} over (x, h); the library's kernel on all 128 states; squares as a sum."""
    machine = RestrictedBoltzmannMachine(4, 3, dtype=f64)
    with torch.no_grad():
        for k, parameter in enumerate(machine.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(k), dtype=f64))
    W, bx, bh = (parameter.detach().numpy() for parameter in machine.parameters())
    X, H = states(4, BIT).numpy(), states(3, BIT).numpy()
    P = np.exp(X @ W @ H.T + (X @ bx)[:, None] + H @ bh)
    P /= P.sum()
    px, ph = P.sum(1), P.sum(0)
    T = (P / ph) @ (P / px[:, None]).T
    assert_close(flow_of(T, px), (P / ph * ph) @ (P / ph).T)
    assert_close(flow_of(T, px), flow_of(T, px).T)
    kernel = gibbs(machine.joint().conditional, BIT, [[4, 5, 6], [0, 1, 2, 3]])
    whole = transition_matrix(kernel, states(7, BIT)).detach().numpy().reshape(8, 16, 8, 16)
    for h in range(8):
        assert_close(whole.sum(0)[:, h], T)
    assert np.linalg.eigvalsh(flow_of(T, px)).min() > -1e-15


@equation("mc-langevin-by-hand")
def test_exercise_langevin():
    tau = 2 * (1 - 1 / 1.05)
    assert_close(tau, 2 / 21)
    assert_close(1 / (1 - tau / 2), 1.05)
    assert_close(1 + 2 * math.fsum((1 - tau) ** t for t in range(1, 3000)), 20.0)


@equation("mc-spin-by-hand")
def test_exercise_spin():
    """The exact matrix of the library's Metropolis on one spin; its eigenvalues and its correlations."""
    machine = BoltzmannMachine(torch.zeros(1, 1, dtype=f64), torch.ones(1, dtype=f64))
    T = transition_matrix(metropolis(machine.energy, flip(SPIN)), states(1)).detach().numpy()
    mu = np.sort(np.linalg.eigvals(T).real)[0]
    assert_close(mu, -math.exp(-2))
    p = np.exp([-1.0, 1.0]) / (2 * math.cosh(1))
    tau = 1 + 2 * exact_correlations(T, p, np.array([-1.0, 1.0]), 200)[1:].sum()
    assert_close(tau, (1 + mu) / (1 - mu))
    assert_close(tau, math.tanh(1))


@equation("mc-error-by-hand")
def test_exercise_error():
    tau = 1 + 2 * math.fsum(0.9**t for t in range(1, 2000))
    assert_close(tau, 1 + 2 * 0.9 / 0.1)
    assert_close(tau, 19)
    assert_close(math.sqrt(tau / 1e4), math.sqrt(0.0019))


@equation("mc-bonds-by-hand")
def test_exercise_bonds():
    J = math.log(1 + math.sqrt(2)) / 2
    share = (1 - math.exp(-2 * J)) * (1 + 1 / math.sqrt(2)) / 2
    assert_close(share, (2 - math.sqrt(2)) * (2 + math.sqrt(2)) / 4)
    assert_close(share, 0.5)


@equation("mc-path-by-hand")
def test_exercise_path():
    """Six leapfrog steps of the library lead home, three to the opposite point."""
    x, momentum = (torch.randn(5, 1, generator=seeded(k), dtype=f64) for k in (1, 2))
    for steps, sign in ((6, 1), (3, -1)):
        kernel = hmc(lambda x: -x.square().sum(-1) / 2, 1.0, steps)
        end, turned, _ = kernel.path(x, momentum, x.new_full((1,), 1.0))
        assert_close(end, sign * x)
        assert_close(turned, sign * momentum)
    assert_close(math.cos(math.radians(60)), 1 - 1 / 2)
    assert_close(6 * math.degrees(math.acos(1 / 2)), 360)
