"""The equations of the page on exact Boltzmann machines, in float64 and without sampling error.

Sums over all configurations are written out in NumPy or in mpmath, over spins from itertools; the package's machines
are held against them. Derivatives are automatic, of such sums, or central differences in mpmath at fifty digits.
"""

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import scipy.optimize
import sympy
import torch
from harness import assert_at_most, assert_close, assert_zero, equation

from lecturecode import entropy, kl
from lecturecode.boltzmann import BIT, BoltzmannMachine, ising, states

f64 = torch.float64
RNG = np.random.default_rng(1985)


def configurations(n, values=(-1, 1)):
    return np.array(list(itertools.product(values, repeat=n)), dtype=float)


def random_parameters(n, seed=1, scale=0.8):
    rng = np.random.default_rng(seed)
    upper = np.triu(scale * rng.normal(size=(n, n)), 1)
    return upper + upper.T, rng.normal(size=n)


def energies(J, b, S) -> Any:
    """Pair by pair, as the sum over i < j says."""
    n = len(b)
    pairs = sum(J[i, j] * S[:, i] * S[:, j] for i in range(n) for j in range(i + 1, n))
    return -pairs - sum(b[i] * S[:, i] for i in range(n))


def features(S):
    n = S.shape[1]
    return np.column_stack([S] + [S[:, i] * S[:, j] for i in range(n) for j in range(i + 1, n)])


def softmax(v):
    v = np.exp(v - v.max())
    return v / v.sum()


def log_sum(v):
    return v.max() + math.log(math.fsum(np.exp(v - v.max())))


def shannon(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def machine_of(J, b):
    return BoltzmannMachine(torch.from_numpy(J), torch.from_numpy(b))


def torus(rows, columns, J=1.0):
    """Spins and energies of the periodic lattice, with np.roll."""
    S = configurations(rows * columns).reshape(-1, rows, columns)
    return S, -J * (S * np.roll(S, 1, 1)).sum((1, 2)) - J * (S * np.roll(S, 1, 2)).sum((1, 2))


def ring_energies(L, J, b):
    S = configurations(L)
    return S, -J * (S * np.roll(S, 1, 1)).sum(1) - b * S.sum(1)


def known_means():
    """Features of three spins, a distribution with a three-spin interaction, and the θ that has its means."""
    S = configurations(3)
    g = features(S)
    p = softmax(RNG.normal(size=8))
    c = p @ g
    theta = np.zeros(g.shape[1])
    for _ in range(30):
        q = softmax(g @ theta)
        centred = g - q @ g
        theta -= np.linalg.solve(centred.T @ (q[:, None] * centred), q @ g - c)
    return S, g, p, c, theta


# --- maximum entropy -------------------------------------------------------------------------------------------------


@equation("maximum-entropy-problem")
def test_the_largest_entropy_with_given_means():
    """Along the only free direction, the product of all three spins, the entropy is largest at the Boltzmann form."""
    S, g, p, c, theta = known_means()
    free = S.prod(1) / 8
    assert_close(np.column_stack([np.ones(8), g]).T @ free, 0.0)

    def slope(a):
        return float(-(free * np.log(p + a * free)).sum())

    low, high = max(-p[free > 0] / free[free > 0]), min(-p[free < 0] / free[free < 0])
    a = scipy.optimize.brentq(slope, low + 1e-12, high - 1e-12, xtol=1e-15, rtol=1e-15)
    best = p + a * free
    assert_close(best @ g, c)
    assert_close(best, softmax(g @ theta))


@equation("exponential-family")
def test_the_family_of_given_means():
    """The package's probabilities, machine by machine, against exp(θ·g)/Z with θ = (b, J)."""
    J, b = random_parameters(4)
    S = configurations(4)
    theta = np.concatenate([b, [J[i, j] for i in range(4) for j in range(i + 1, 4)]])
    weights = np.array([math.exp(float(v)) for v in features(S) @ theta])
    p = machine_of(J, b).probabilities().detach()
    rows = ((S + 1) / 2) @ 2.0 ** np.arange(4)
    assert_close(p[torch.from_numpy(rows).long()], weights / math.fsum(weights))


@equation("boltzmann-maximum-entropy")
def test_entropy_is_the_largest_less_a_divergence():
    """Distributions with the same means, and at p = p_θ the bound is met."""
    S, g, p, _, theta = known_means()
    best = softmax(g @ theta)
    for a in (-0.3, 0.0, 0.4):
        other = p + a * min(p) * S.prod(1)
        assert_close(other @ g, best @ g)
        assert_close(shannon(other), shannon(best) - divergence(other, best))
        assert shannon(other) < shannon(best)
    pair = np.array([p, best])
    assert_at_most([shannon(v) for v in pair], shannon(best))
    assert_close(entropy(torch.from_numpy(pair)), [shannon(v) for v in pair])
    assert_close(kl(torch.from_numpy(p), torch.from_numpy(best)), shannon(best) - shannon(p))


@equation("maximum-entropy-dual")
def test_the_least_of_a_convex_function_is_the_largest_entropy():
    """The gradient of G by automatic differentiation; its least value by scipy, without that gradient."""
    _, g, p, c, theta = known_means()
    rows, means = torch.from_numpy(g), torch.from_numpy(c)

    def dual(t):
        return torch.logsumexp(rows @ t, 0) - t @ means

    at = torch.tensor(RNG.normal(size=6), requires_grad=True)
    (slope,) = torch.autograd.grad(dual(at), at)
    assert_close(slope, softmax(g @ at.detach().numpy()) @ g - c)
    found = scipy.optimize.minimize(lambda t: log_sum(g @ t) - t @ c, np.zeros(6), method="BFGS", tol=1e-9)
    assert_close(found.fun, shannon(softmax(g @ theta)), tol=1e-10)  # a line search without a gradient
    assert shannon(p) < found.fun


@equation("maximum-entropy-growth")
def test_the_dual_grows_along_every_ray_inside():
    """The bound, which is met far out; the rate is positive inside, zero on the boundary, negative outside."""
    S = configurations(3)
    g = features(S)
    inside = softmax(RNG.normal(size=8)) @ g
    for _ in range(20):
        u = RNG.normal(size=6)
        rate = (g @ u - u @ inside).max()
        assert rate > 0
        t = np.array([0.0, 0.3, 1.0, 10.0, 1e3])
        assert_at_most(t * rate, [log_sum(v * (g @ u)) - v * (u @ inside) for v in t])
    always_alike = g[(S[:, 0] == S[:, 1])].mean(0)
    u = np.zeros(6)
    u[3] = 1.0  # the product of the first two
    assert_close((g @ u - u @ always_alike).max(), 0.0)
    outside = always_alike.copy()
    outside[3] = 1.1
    assert (g @ u - u @ outside).max() < 0


@equation("canonical-distribution")
def test_one_temperature_for_each_energy():
    """U is the mean of E under the package's probabilities, and falls from max E to min E as β rises."""
    J, b = random_parameters(3)
    S = configurations(3)
    E = energies(J, b, S)
    means = []
    for beta in (-4.0, -1.0, 0.0, 0.7, 2.0, 4.0):
        p = softmax(-beta * E)
        Z = math.fsum(math.exp(-beta * v) for v in E)
        assert_close(p, [math.exp(-beta * v) / Z for v in E])
        means.append(float(p @ E))
        if beta > 0:
            assert_close(machine_of(J, b).thermodynamics(beta).energy.detach(), means[-1])
    assert means == sorted(means, reverse=True)
    assert E.min() < means[-1] < means[0] < E.max()
    assert_close(means[2], E.mean())


@equation("boltzmann-energy")
def test_energy_of_pairs_and_biases():
    """Pair by pair against the package's quadratic form, and −θ·g."""
    J, b = random_parameters(6)
    S = configurations(6)
    theta = np.concatenate([b, [J[i, j] for i in range(6) for j in range(i + 1, 6)]])
    assert_close(energies(J, b, S), -features(S) @ theta)
    assert_close(machine_of(J, b).energy(torch.from_numpy(S)).detach(), energies(J, b, S))


@equation("pair-interior")
def test_two_spins_are_four_probabilities():
    """The formula gives back any p; its sign is that of the rate of growth in the face's direction."""
    S = configurations(2)
    p = softmax(RNG.normal(size=4))
    mean, pair = p @ S, p @ S.prod(1)
    formula = [0.25 * (1 + s @ mean + s.prod() * pair) for s in S]
    assert_close(formula, p)
    for (a, c), value in zip(S, formula, strict=True):
        u = -np.array([a, c, a * c])
        rate = (features(S) @ u - u @ np.array([*mean, pair])).max()
        assert_close(rate, 4 * value)


# --- configurations --------------------------------------------------------------------------------------------------


@equation("boltzmann-distribution")
def test_weights_over_their_sum():
    """n = 3 and m = 2: a double loop over x and h, against the package's log Z and log-probabilities."""
    J, b = random_parameters(5)
    machine = machine_of(J, b)
    xs, hs = configurations(3), configurations(2)
    f = [[math.exp(-float(energies(J, b, np.array([[*x, *h]]))[0])) for h in hs] for x in xs]
    Z = math.fsum(v for row in f for v in row)
    assert_close(machine.log_partition().detach(), math.log(Z))
    for x, row in zip(xs, f, strict=True):
        for h, v in zip(hs, row, strict=True):
            assert_close(machine.log_prob(torch.tensor([[*x, *h]])).detach()[0], math.log(v / Z))


@equation("boltzmann-marginals")
def test_each_layer_is_summed_over_the_other():
    J, b = random_parameters(5)
    machine = machine_of(J, b)
    xs, hs = configurations(3), configurations(2)
    f = np.array([[math.exp(-float(energies(J, b, np.array([[*x, *h]]))[0])) for h in hs] for x in xs])
    Z = math.fsum(f.flat)
    bits_x = ((xs + 1) / 2 @ [1, 2, 4]).astype(int)
    bits_h = ((hs + 1) / 2 @ [1, 2]).astype(int)
    assert_close(machine.marginal([0, 1, 2]).detach()[bits_x], [math.fsum(row) / Z for row in f])
    assert_close(machine.marginal([3, 4]).detach()[bits_h], [math.fsum(row) / Z for row in f.T])
    assert_close(machine.marginal_log_prob(torch.from_numpy(xs)).detach().exp(), f.sum(1) / Z)
    assert_close(-machine.free_energy(torch.from_numpy(xs)).detach(), np.log(f.sum(1)))


@equation("boltzmann-count")
def test_every_unit_doubles_the_number():
    """Different rows of the package's tables, counted; and all of them are the product of the two layers."""
    for n, m in ((1, 1), (3, 2), (4, 6)):
        x, h = ({tuple(row) for row in states(k).tolist()} for k in (n, m))
        both = {tuple(row) for row in states(n + m).tolist()}
        assert both == {(*a, *c) for a in x for c in h}
        assert_close([len(x), len(h), len(both)], [2.0**n, 2.0**m, 2.0 ** (n + m)])


@equation("boltzmann-table-cost")
def test_the_cost_of_a_table():
    """Numbers and multiply–adds of the plain program, counted by doing it in Python; and the sizes in the text."""
    for n in (2, 3, 5):
        J, b = random_parameters(n)
        count, numbers, total = 0, 0, 0.0
        for s in itertools.product((-1, 1), repeat=n):
            numbers += n
            energy = 0.0
            for i in range(n):
                local = b[i]
                for j in range(n):
                    local += J[i, j] * s[j] / 2
                    count += 1
                energy -= s[i] * local
                count += 1
            total += math.exp(-energy)
        assert_close([numbers, count], [n * 2.0**n, n * (n + 1) * 2.0**n])
        assert_close(math.log(total), machine_of(J, b).log_partition().detach())
    sizes = [8e-6 * 20 * 2**20, 8e-9 * 24 * 2**24, 8e-12 * 36 * 2**36]
    assert_close([round(sizes[0]), round(sizes[1], 1), round(sizes[2])], [168, 3.2, 20])


@equation("boltzmann-conditional")
def test_one_unit_given_all_others():
    """The ratio of two joint probabilities, for every configuration and unit; at another β the machine is scaled."""
    J, b = random_parameters(4)
    S = configurations(4)
    for beta in (1.0, 0.4):
        p = softmax(-beta * energies(J, b, S)).reshape(2, 2, 2, 2)  # an axis for each unit, −1 before 1
        for i in range(4):
            up, both = p.take([1], axis=i), p.sum(axis=i, keepdims=True)
            direct = np.broadcast_to(up / both, p.shape).reshape(-1)
            assert_close(1 / (1 + np.exp(-2 * beta * (S @ J + b)[:, i])), direct)
            given = machine_of(beta * J, beta * b).conditional(torch.from_numpy(S)).detach()
            assert_close(given[:, i], direct)


# --- likelihood ------------------------------------------------------------------------------------------------------


@equation("boltzmann-log-likelihood")
def test_one_factor_of_z_for_each_point():
    """The product of the probabilities of the points, with hidden units, in mpmath; with one 1/Z it is another."""
    J, b = random_parameters(5)
    machine = machine_of(J, b)
    xs, hs = configurations(3), configurations(2)
    f = [mpmath.fsum(mpmath.exp(-float(energies(J, b, np.array([[*x, *h]]))[0])) for h in hs) for x in xs]
    Z = mpmath.fsum(f)
    rows = [0, 3, 3, 6, 7]
    product = mpmath.fprod(f[i] / Z for i in rows)
    logs = float(mpmath.fsum(mpmath.log(f[i]) for i in rows) - 5 * mpmath.log(Z))
    assert_close(float(mpmath.log(product)), logs)
    assert_close(machine.marginal_log_prob(torch.from_numpy(xs[rows])).sum().detach(), logs)
    assert abs(float(mpmath.fsum(mpmath.log(f[i]) for i in rows) - mpmath.log(Z)) - logs) > 1


@equation("boltzmann-duality")
def test_likelihood_is_the_dual_and_a_divergence():
    J, b = random_parameters(3)
    S = configurations(3)
    counts = np.array([3, 1, 4, 1, 5, 0, 2, 6])
    empirical = counts / counts.sum()
    theta = np.concatenate([b, [J[0, 1], J[0, 2], J[1, 2]]])
    g = features(S)
    data = torch.from_numpy(np.repeat(S, counts, axis=0))
    loss = -machine_of(J, b).log_prob(data).mean().detach()
    assert_close(loss, log_sum(g @ theta) - theta @ (empirical @ g))
    assert_close(loss, shannon(empirical) + divergence(empirical, softmax(g @ theta)))


@equation("log-partition-gradient")
def test_gradient_of_log_partition_is_a_mean():
    """log f nonlinear in θ, so that nothing is special: derivatives in mpmath at fifty digits, and the package's own
    gradient against sums in Python."""
    S = configurations(3)
    with mpmath.workdps(50):

        def log_f(s, t):
            return t[0] * s[0] * s[1] + mpmath.sin(t[1]) * s[2] + t[0] * t[1] * s[0]

        def log_z(*t):
            return mpmath.log(mpmath.fsum(mpmath.exp(log_f(s, t)) for s in S.tolist()))

        at = (mpmath.mpf("0.7"), mpmath.mpf("-0.3"))
        weights = [mpmath.exp(log_f(s, at)) for s in S.tolist()]
        Z = mpmath.fsum(weights)
        for k, order in enumerate(((1, 0), (0, 1))):
            slopes = [mpmath.diff(lambda *t, s=s: log_f(s, t), at, order) for s in S.tolist()]
            mean = mpmath.fsum(w * v for w, v in zip(weights, slopes, strict=True)) / Z
            assert_close(float(mpmath.diff(log_z, at, order)), float(mean))
            assert k < 2
    J, b = random_parameters(4)
    machine = machine_of(J, b)
    (slope,) = torch.autograd.grad(machine.log_partition(), machine.biases)
    S = configurations(4)
    assert_close(slope, softmax(-energies(J, b, S)) @ S)


@equation("boltzmann-hidden-gradient")
def test_gradient_at_fixed_x_is_a_mean_over_h():
    """The package's free energy of x, differentiated, against the posterior mean of the products, in NumPy."""
    J, b = random_parameters(5)
    machine = machine_of(J, b)
    for x in configurations(3):
        energy = machine.free_energy(torch.from_numpy(x[None]))[0]
        by_bias, by_coupling = torch.autograd.grad(-energy, (machine.biases, machine.couplings))
        S = np.array([[*x, *h] for h in configurations(2)])
        posterior = softmax(-energies(J, b, S))
        assert_close(by_bias, posterior @ S)
        second = S.T @ (posterior[:, None] * S)
        np.fill_diagonal(second, 0)
        assert_close(by_coupling, second / 2)


@equation("boltzmann-gradient")
def test_the_gradient_has_n_times_the_model_term():
    """The package's likelihood with hidden units, differentiated, against the two sums; without N it is another."""
    J, b = random_parameters(5)
    machine = machine_of(J, b)
    data = configurations(3)[[0, 3, 3, 6, 7]]
    total = machine.marginal_log_prob(torch.from_numpy(data)).sum()
    (slope,) = torch.autograd.grad(total, machine.biases)
    said = np.zeros(5)
    for x in data:
        S = np.array([[*x, *h] for h in configurations(2)])
        said += softmax(-energies(J, b, S)) @ S
    everything = configurations(5)
    expected = softmax(-energies(J, b, everything)) @ everything
    assert_close(slope, said - 5 * expected)
    assert abs(slope.numpy() - (said - expected)).max() > 0.1


@equation("boltzmann-moments")
def test_moments_are_derivatives():
    """A pair that moves together, in mpmath; the package's gradient has half in each entry; β in front."""
    J, b = random_parameters(4)
    S = configurations(4)
    beta = 0.6
    p = softmax(-beta * energies(J, b, S))
    with mpmath.workdps(40):

        def log_z(change):
            moved = J.copy().astype(object)
            moved[0, 2] = moved[2, 0] = J[0, 2] + change
            return mpmath.log(mpmath.fsum(mpmath.exp(-mpmath.mpf(beta) * v) for v in energies(moved, b, S)))

        assert_close(float(mpmath.diff(log_z, 0)), beta * float(p @ (S[:, 0] * S[:, 2])))
    machine = machine_of(J, b)
    by_bias, by_coupling = torch.autograd.grad(machine.log_partition(beta), (machine.biases, machine.couplings))
    second = S.T @ (p[:, None] * S)
    np.fill_diagonal(second, 0)
    assert_close(by_bias, beta * (p @ S))
    assert_close(2 * by_coupling, beta * second)
    p = softmax(-energies(J, b, S))
    moments = machine.moments()
    assert_close(moments.mean.detach(), p @ S)
    assert_close(moments.second.detach(), S.T @ (p[:, None] * S))


@equation("log-partition-hessian")
def test_hessian_is_a_covariance():
    """Second derivatives of a plain log-sum by automatic differentiation; positive for three spins and all pairs."""
    J, b = random_parameters(3)
    S = configurations(3)
    g = features(S)
    theta = torch.tensor([*b, J[0, 1], J[0, 2], J[1, 2]])
    rows = torch.from_numpy(g)
    hessian = torch.autograd.functional.hessian(lambda t: torch.logsumexp(rows @ t, 0), theta)
    p = softmax(g @ theta.numpy())
    covariance = sum(p[k] * np.outer(g[k], g[k]) for k in range(8)) - np.outer(p @ g, p @ g)
    assert_close(hessian, covariance)
    eigenvalues = np.linalg.eigvalsh(covariance)
    assert eigenvalues[0] > 1e-3
    machine = machine_of(J, b)
    (first,) = torch.autograd.grad(machine.log_partition(), machine.biases, create_graph=True)
    second = torch.stack([torch.autograd.grad(v, machine.biases, retain_graph=True)[0] for v in first])
    assert_close(second, covariance[:3, :3])


@equation("boltzmann-hidden-hessian")
def test_hessian_with_hidden_units_is_a_difference():
    """Automatic second derivatives of a mean log-likelihood written out; its eigenvalues have both signs somewhere."""
    xs, hs = configurations(2), configurations(1)
    everything = np.array([[*x, *h] for x in xs for h in hs])
    g = features(everything)
    rows = torch.from_numpy(g)
    theta = torch.tensor([0.1, -0.2, 0.3, 0.4, 0.9, -0.7], dtype=f64)
    data = [0, 3, 3, 1]

    def mean_log_likelihood(t):
        log_f = torch.logsumexp((rows @ t).reshape(4, 2), 1)
        return log_f[data].mean() - torch.logsumexp(rows @ t, 0)

    def covariance(p, v):
        return sum(w * np.outer(a, a) for w, a in zip(p, v, strict=True)) - np.outer(p @ v, p @ v)

    hessian = torch.autograd.functional.hessian(mean_log_likelihood, theta)
    t = theta.numpy()
    seen = sum(covariance(softmax(g[2 * i : 2 * i + 2] @ t), g[2 * i : 2 * i + 2]) for i in data) / 4
    assert_close(hessian, seen - covariance(softmax(g @ t), g))
    eigenvalues = np.linalg.eigvalsh(seen - covariance(softmax(g @ t), g))
    assert eigenvalues[0] < -0.1
    assert eigenvalues[-1] > 0.1


@equation("boltzmann-susceptibility")
def test_the_answer_to_a_push_is_a_covariance():
    """Means in mpmath with a field that moves, against the covariance of a plain sum."""
    J, b = random_parameters(3)
    S = configurations(3)
    beta = 0.8
    p = softmax(-beta * energies(J, b, S))
    covariance = (S.T * p) @ S - np.outer(p @ S, p @ S)
    for i, j in ((0, 1), (2, 0), (1, 1)):
        with mpmath.workdps(40):

            def mean(change, i=i, j=j):
                moved = b.copy().astype(object)
                moved[j] = b[j] + change
                w = [mpmath.exp(-mpmath.mpf(beta) * v) for v in energies(J, moved, S)]
                return mpmath.fsum(a * s for a, s in zip(w, S[:, i].tolist(), strict=True)) / mpmath.fsum(w)

            assert_close(float(mpmath.diff(mean, 0)), beta * covariance[i, j])


# --- thermodynamics --------------------------------------------------------------------------------------------------


def heat_bath(beta):
    J, b = random_parameters(4, seed=7)
    E = energies(J, b, configurations(4))
    return machine_of(J, b).thermodynamics(beta), E, softmax(-beta * E)


@equation("free-energy")
def test_free_energy_is_energy_less_entropy():
    for beta in (0.1, 1.0, 3.0):
        t, E, p = heat_bath(beta)
        F = -log_sum(-beta * E) / beta
        assert_close(F, p @ E - shannon(p) / beta)
        assert_close(t.free_energy.detach(), F)
        assert_close(t.energy.detach(), p @ E)
        assert_close(t.entropy.detach(), shannon(p))


@equation("free-energy-derivatives")
def test_derivatives_of_the_free_energy():
    """mpmath derivatives of F(β) from the energies of all configurations, against U and S as means."""
    for beta in (0.3, 1.1):
        t, E, p = heat_bath(beta)
        with mpmath.workdps(40):

            def free(x, E=E):
                return -mpmath.log(mpmath.fsum(mpmath.exp(-x * v) for v in E.tolist())) / x

            assert_close(float(mpmath.diff(lambda x: x * free(x), beta)), p @ E)
            assert_close(float(beta**2 * mpmath.diff(free, beta)), shannon(p))
            U1 = mpmath.diff(lambda x: x * free(x), beta, 2)
            S1 = mpmath.diff(lambda x: x**2 * mpmath.diff(free, x), beta)
            assert_close(float(S1 / U1), beta)
        assert_close(t.energy.detach() * beta - beta * t.free_energy.detach(), t.entropy.detach())


@equation("heat-capacity")
def test_heat_capacity_is_a_variance():
    for beta in (0.3, 1.1):
        t, E, p = heat_bath(beta)
        variance = p @ (E - p @ E) ** 2
        with mpmath.workdps(40):

            def mean(x, E=E):
                w = [mpmath.exp(-x * v) for v in E.tolist()]
                return mpmath.fsum(a * v for a, v in zip(w, E.tolist(), strict=True)) / mpmath.fsum(w)

            assert_close(float(mpmath.diff(lambda T: mean(1 / T), 1 / mpmath.mpf(beta))), beta**2 * variance)
            assert_close(float(-(beta**2) * mpmath.diff(mean, beta)), beta**2 * variance)
        assert_close(t.heat_capacity.detach(), beta**2 * variance)


@equation("free-energy-limits")
def test_free_energy_between_its_limits():
    """Two lowest configurations of a ring; both bounds are met at their ends."""
    _, E = ring_energies(5, 1.0, 0.0)
    w = int((E.min() == E).sum())
    assert w == 2
    betas = np.array([1e-9, 0.1, 1.0, 4.0, 30.0])
    F = np.array([-log_sum(-v * E) / v for v in betas])
    assert_at_most(betas * F, betas * E.min() - math.log(w))
    assert_at_most(betas * E.min() - 5 * math.log(2), betas * F, tol=1e-8)  # at β = 1e-9 met up to β(max E − min E)
    cold, hot = (ring_machine(5, 1.0, 0.0).thermodynamics(v).entropy.detach() for v in (30.0, 1e-9))
    assert_close([cold, hot], [math.log(2), 5 * math.log(2)])


@equation("boltzmann-alphabets")
def test_spins_and_bits_have_the_same_energies():
    """Symbolically for three units; and the package's bits against the formula, written entry by entry."""
    J, b, c = sympy.Matrix(3, 3, lambda i, j: 0 if i == j else sympy.Symbol(f"J{min(i, j)}{max(i, j)}")), [], []
    b = sympy.Matrix(sympy.symbols("b:3"))
    t = sympy.Matrix(sympy.symbols("t:3"))
    one = sympy.ones(3, 1)
    s = 2 * t - one
    c = (one.T * J * one)[0] / 2 - (one.T * b)[0]
    spins = -(s.T * J * s)[0] / 2 - (b.T * s)[0]
    bits = -(t.T * (4 * J) * t)[0] / 2 - ((2 * b - 2 * J * one).T * t)[0] - c
    assert_zero(sympy.expand(spins - bits))
    couplings, biases = random_parameters(5)
    other = machine_of(couplings, biases).in_alphabet(BIT)
    assert_close(other.couplings.detach(), [[4 * v for v in row] for row in couplings])
    assert_close(other.biases.detach(), [2 * biases[i] - 2 * sum(couplings[i]) for i in range(5)])
    assert_close(other.constant, sum(couplings[i, j] for i in range(5) for j in range(i)) - sum(biases))
    S = configurations(5)
    assert_close(other.energy(torch.from_numpy((S + 1) / 2)).detach(), energies(couplings, biases, S))
    assert_close(other.log_partition().detach(), log_sum(-energies(couplings, biases, S)))
    assert_close(other.log_partition(0.3).detach(), log_sum(-0.3 * energies(couplings, biases, S)))


@equation("boltzmann-alphabet-moments")
def test_moments_of_spins_and_bits():
    J, b = random_parameters(4)
    bits = machine_of(J, b).in_alphabet(BIT).moments()
    t, tt = bits.mean.detach(), bits.second.detach()
    S = configurations(4)
    p = softmax(-energies(J, b, S))
    assert_close(2 * t - 1, p @ S)
    assert_close(4 * tt - 2 * t[:, None] - 2 * t[None, :] + 1, (S.T * p) @ S)


# --- the ring --------------------------------------------------------------------------------------------------------


def ring_machine(L, J, b):
    couplings = np.zeros((L, L))
    for k in range(L):
        couplings[k, (k + 1) % L] = couplings[(k + 1) % L, k] = J
    return machine_of(couplings, np.full(L, float(b)))


def eigenvalues(J, b, beta):
    root = math.sqrt(math.exp(2 * beta * J) * math.sinh(beta * b) ** 2 + math.exp(-2 * beta * J))
    return [math.exp(beta * J) * math.cosh(beta * b) + sign * root for sign in (1, -1)]


RINGS = ((3, 0.7, 0.2, 1.0), (4, -0.5, 0.9, 0.6), (9, 1.3, 0.0, 0.8), (8, 0.4, -0.3, 1.5))


@equation("ising-ring-energy")
def test_energy_of_a_ring():
    """Site by site in Python, against the package's machine with these couplings."""
    for L, J, b, _ in RINGS:
        machine = ring_machine(L, J, b)
        S = configurations(L)
        direct = [-sum(J * s[k] * s[(k + 1) % L] + b * s[k] for k in range(L)) for s in S.tolist()]
        assert_close(machine.energy(torch.from_numpy(S)).detach(), direct)


@equation("ising-ring-transfer")
def test_the_sum_over_a_ring_is_a_trace():
    for L, J, b, beta in RINGS:
        V = np.array([[math.exp(beta * (J * a * c + b * (a + c) / 2)) for c in (1, -1)] for a in (1, -1)])
        spelled = [[math.exp(beta * (J + b)), math.exp(-beta * J)], [math.exp(-beta * J), math.exp(beta * (J - b))]]
        assert_close(V, spelled)
        _, E = ring_energies(L, J, b)
        assert_close(math.log(np.trace(np.linalg.matrix_power(V, L))), log_sum(-beta * E))
        assert_close(ring_machine(L, J, b).log_partition(beta).detach(), log_sum(-beta * E))


@equation("ising-ring-partition")
def test_two_eigenvalues_are_enough():
    for L, J, b, beta in RINGS:
        plus, minus = eigenvalues(J, b, beta)
        _, E = ring_energies(L, J, b)
        assert_close(math.log(plus**L + minus**L), log_sum(-beta * E))
        V = np.array([[math.exp(beta * (J * a * c + b * (a + c) / 2)) for c in (1, -1)] for a in (1, -1)])
        assert_close(sorted([plus, minus]), np.linalg.eigvalsh(V))


@equation("ising-ring-magnetisation")
def test_magnetisation_of_a_ring():
    """Closed form, derivative of log Z in mpmath, and the mean of a spin in a plain sum.

    On a ring of a million the second factor is 1, and the spin follows a field that is turned off to zero.
    """
    for L, J, b, beta in RINGS:
        plus, minus = eigenvalues(J, b, beta)
        first = math.sinh(beta * b) / math.sqrt(math.sinh(beta * b) ** 2 + math.exp(-4 * beta * J))
        formula = first * (plus**L - minus**L) / (plus**L + minus**L)
        S, E = ring_energies(L, J, b)
        assert_close(formula, softmax(-beta * E) @ S[:, 0])
        with mpmath.workdps(40):

            def log_z(x, L=L, J=J, beta=beta):
                root = mpmath.sqrt(mpmath.exp(2 * beta * J) * mpmath.sinh(beta * x) ** 2 + mpmath.exp(-2 * beta * J))
                middle = mpmath.exp(beta * J) * mpmath.cosh(beta * x)
                return mpmath.log((middle + root) ** L + (middle - root) ** L)

            assert_close(float(mpmath.diff(log_z, b)) / (beta * L), formula)
    for b in (1e-3, 1e-6):
        plus, minus = eigenvalues(1.0, b, 2.0)
        ratio = (minus / plus) ** 1e6
        first = math.sinh(2 * b) / math.sqrt(math.sinh(2 * b) ** 2 + math.exp(-8))
        assert_close((1 - ratio) / (1 + ratio), 1.0)
        assert 0 < first < 2 * math.exp(4) * b


@equation("ising-ring-correlation")
def test_correlations_go_both_ways_round():
    for L, J, beta in ((3, 0.7, 1.0), (6, -0.9, 0.5), (9, 1.3, 0.8)):
        S, E = ring_energies(L, J, 0.0)
        p = softmax(-beta * E)
        t = math.tanh(beta * J)
        plus, minus = eigenvalues(J, 0.0, beta)
        assert_close(t, minus / plus)
        formula = [(t**r + t ** (L - r)) / (1 + t**L) for r in range(L)]
        assert_close(formula, [p @ (S[:, 0] * S[:, r]) for r in range(L)])
        assert_close(ring_machine(L, beta * J, 0.0).moments().second.detach()[0], formula)


@equation("ising-ring-heat-capacity")
def test_heat_of_a_long_chain():
    """−β²∂U/∂β of a ring of 2,000 by mpmath, where t^L has died out; and the variance of one open bond."""
    for J, beta in ((1.0, 0.6), (-0.7, 1.1)):
        formula = (beta * J / math.cosh(beta * J)) ** 2
        L = 2000
        with mpmath.workdps(40):

            def log_z(x, J=J, L=L):
                return L * mpmath.log(2 * mpmath.cosh(x * J)) + mpmath.log1p(mpmath.tanh(x * J) ** L)

            assert_close(float(beta**2 * mpmath.diff(log_z, beta, 2)) / L, formula)
        bond = np.array([-J, J])
        p = softmax(-beta * bond)
        assert_close(beta**2 * (p @ bond**2 - (p @ bond) ** 2), formula)


# --- the magnet ------------------------------------------------------------------------------------------------------


@equation("ising-magnet-energy")
def test_energy_of_the_magnet():
    """`ising` against np.roll, for all 65,536 configurations, and 32 bonds."""
    S, E = torus(4, 4)
    magnet = ising(4, 4, periodic=True)
    assert_close(magnet.energy(torch.from_numpy(S.reshape(-1, 16))).detach(), E)
    assert_close(float(np.abs(E).max()), 32.0)
    assert_close(float((magnet.couplings.detach() != 0).sum()), 64.0)


@equation("ising-magnet-density")
def test_whole_numbers_hold_every_temperature():
    _, E = torus(4, 4)
    levels, w = np.unique(E, return_counts=True)
    assert_close(float(w.sum()), 2.0**16)
    assert (levels == -levels[::-1]).all()
    assert (w == w[::-1]).all()
    magnet = ising(4, 4, periodic=True)
    for beta in (0.1, 0.44, 2.0):
        with mpmath.workdps(30):
            Z = mpmath.fsum(int(k) * mpmath.exp(-mpmath.mpf(beta) * int(e)) for k, e in zip(w, levels, strict=True))
            assert_close(magnet.log_partition(beta).detach(), float(mpmath.log(Z)))
    assert [float(e) for e in levels if -32 < e < -20] == [-24.0]


@equation("ising-kaufman")
def test_kaufman_on_the_torus():
    """The four products in mpmath against the sum over all configurations, for four shapes, hot and cold."""
    for rows, columns in ((3, 3), (3, 4), (4, 3), (4, 4)):
        E = torus(rows, columns)[1]
        for K in (0.2, 0.44, 0.9):
            with mpmath.workdps(30):
                x = mpmath.mpf(K)
                ratio = mpmath.cosh(2 * x) * mpmath.coth(2 * x)
                gamma = [mpmath.acosh(ratio - mpmath.cos(mpmath.pi * k / columns)) for k in range(2 * columns)]
                gamma[0] = 2 * x + mpmath.log(mpmath.tanh(x))
                assert (gamma[0] < 0) == (math.sinh(2 * K) < 1)
                products = [
                    mpmath.fprod(2 * shape(rows * v / 2) for v in gamma[start::2])
                    for start in (0, 1)
                    for shape in (mpmath.cosh, mpmath.sinh)
                ]
                Z = (2 * mpmath.sinh(2 * x)) ** (mpmath.mpf(rows * columns) / 2) * sum(products) / 2
                assert_close(float(mpmath.log(Z)), log_sum(-K * E))
    assert_close(ising(4, 4, periodic=True).log_partition(0.9).detach(), log_sum(-0.9 * E))


@equation("ising-magnet-symmetry")
def test_no_direction_of_its_own():
    S, E = torus(4, 4)
    magnet = ising(4, 4, periodic=True)
    M = S.sum((1, 2))
    for beta in (0.1, 1.0):
        p = softmax(-beta * E)
        assert_close(p @ M, 0.0)
        assert p @ np.abs(M) > 1
    assert_close(magnet.moments().mean.detach(), 0.0)


@equation("ising-critical")
def test_where_the_infinite_magnet_orders():
    """The closed form solves both conditions: sinh 2K = 1, and the sign change of γ₀."""
    K = 0.5 * math.log(1 + math.sqrt(2))
    assert_close(math.sinh(2 * K), 1.0)
    assert_close(2 * K + math.log(math.tanh(K)), 0.0)
    root = scipy.optimize.brentq(lambda x: 2 * x + math.log(math.tanh(x)), 0.1, 2.0, xtol=1e-15, rtol=1e-15)
    assert_close(root, K)


# --- the solutions ---------------------------------------------------------------------------------------------------


@equation("exact-temperature-by-hand")
def test_solution_of_the_temperature():
    E = -configurations(2).prod(1)
    root = float(scipy.optimize.brentq(lambda x: softmax(-x * E) @ E + 0.5, 0.0, 3.0, xtol=1e-15, rtol=1e-15))
    assert_close([0.5 * math.log(3), math.atanh(0.5)], root)
    assert_close(round(root, 4), 0.5493)


@equation("exact-lost-n-by-hand")
def test_solution_of_the_lost_n():
    """The right slope vanishes at log 2, by the derivative of a log-likelihood summed point by point."""
    points = [1] * 8 + [-1] * 2

    def slope(b):
        return float(mpmath.diff(lambda x: sum(x * s - mpmath.log(2 * mpmath.cosh(x)) for s in points), b))

    root = float(scipy.optimize.brentq(slope, -2.0, 2.0, xtol=1e-15, rtol=1e-15))
    assert_close([root, 0.5 * math.log(1.6 / 0.4)], math.log(2))
    assert_close(math.tanh(root), 0.6)
    assert_close(sum(points) - math.tanh(root), 5.4)
    assert_close(round(root, 4), 0.6931)


@equation("exact-constant-by-hand")
def test_solution_of_the_constant():
    J, b = np.array([[0, 0.5], [0.5, 0]]), np.array([0.2, -0.1])
    T = configurations(2, (0, 1))
    bare = log_sum(-energies(np.array([[0, 2.0], [2.0, 0]]), np.array([-0.6, -1.2]), T))
    assert_close(bare - log_sum(-energies(J, b, configurations(2))), -0.4)
    assert_close(machine_of(J, b).in_alphabet(BIT).constant, 0.4)


@equation("exact-ring-by-hand")
def test_solution_of_the_ring():
    S, E = ring_energies(6, math.atanh(0.5), 0.0)
    assert_close(softmax(-E) @ (S[:, 0] * S[:, 3]), 16 / 65)
    assert_close(round(16 / 65, 4), 0.2462)
    assert_close(2 / 8 / (1 + 1 / 64), 16 / 65)


@equation("exact-cold-by-hand")
def test_solution_of_the_cold_entropy():
    for side, count in ((4, 2), (3, 102)):
        E = torus(side, side, J=-1.0)[1]
        assert_close(float((E.min() == E).sum()), float(count))
        cold = ising(side, side, coupling=-1.0, periodic=True).thermodynamics(40.0)
        assert_close(cold.entropy.detach(), math.log(count))
    assert_close(round(math.log(102), 4), 4.6250)
