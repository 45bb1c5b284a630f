"""The equations of the page on learning with hidden units, in float64 and without sampling error.

Machines are written out as tables over all (x, h), in loops over configurations, and the library is held against
them. Chains are transition matrices, annealed walks are sums over every path that there is.
"""

import copy
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
    GaussianRestrictedBoltzmannMachine,
    RestrictedBoltzmannMachine,
    contrastive_loss,
)
from lecturecode.data import bars_and_stripes
from lecturecode.markov import ais

f64 = torch.float64
ALPHABETS = (BIT, SPIN)


def configurations(n, alphabet):
    """Every configuration, the last unit changing fastest."""
    return np.array(list(itertools.product(alphabet, repeat=n)), dtype=float)


def random_restricted(n=4, m=3, alphabet=BIT, seed=1):
    model = RestrictedBoltzmannMachine(n, m, alphabet=alphabet, dtype=f64)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=tuple(p.shape))))
    return model


def parts(model):
    return [p.detach().numpy() for p in (model.weights, model.visible_bias, model.hidden_bias)]


def weights_of(model):
    """f(x,h) as a table, from the definition: every term of the energy added by itself."""
    W, bx, bh = parts(model)
    X, H = configurations(model.n, model.alphabet), configurations(model.m, model.alphabet)
    f = np.zeros((len(X), len(H)))
    for i, x in enumerate(X):
        for j, h in enumerate(H):
            pairs = math.fsum(W[a, b] * x[a] * h[b] for a in range(model.n) for b in range(model.m))
            f[i, j] = math.exp(math.fsum([*(bx * x), *(bh * h), pairs]))
    return X, H, f


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def gradient(model, loss):
    return torch.autograd.grad(loss, (model.weights, model.visible_bias, model.hidden_bias))


@equation("hidden-parity")
def test_pairs_do_not_see_parity():
    """Means and pair correlations by counting; the slope of the likelihood at J = b = 0, where it is concave."""
    even = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=float)
    assert_close(even.mean(0), 0.5)
    for i, j in itertools.combinations(range(3), 2):
        assert_close((even[:, i] * even[:, j]).mean(), 0.25)
    machine = BoltzmannMachine(torch.zeros(3, 3, dtype=f64), torch.zeros(3, dtype=f64), BIT)
    value = machine.log_prob(tensor(even)).mean()
    for slope in torch.autograd.grad(value, (machine.couplings, machine.biases)):
        assert_close(slope, 0.0)
    assert_close(math.log(0.25) - value, math.log(2))
    for seed in range(20):  # concave: no other machine is better
        rng = np.random.default_rng(seed)
        J = np.triu(rng.normal(size=(3, 3)), 1)
        with torch.no_grad():
            machine.couplings.copy_(tensor(J + J.T))
            machine.biases.copy_(tensor(rng.normal(size=3)))
        assert machine.log_prob(tensor(even)).mean() < value


@equation("hidden-bond")
def test_a_hidden_spin_is_a_coupling():
    """All four configurations, couplings of both signs, with w from the equation; through the library's P too."""
    for J in (0.0, 0.3, 1.2, -0.4, -2.0):
        w = math.acosh(math.exp(2 * abs(J))) / 2
        sign = 1 if J >= 0 else -1
        model = RestrictedBoltzmannMachine(2, 1, alphabet=SPIN, dtype=f64)
        with torch.no_grad():
            model.weights.copy_(torch.tensor([[w], [sign * w]], dtype=f64))
        total = 2 * math.exp(J) + 2 * math.exp(-J)
        for s1, s2 in itertools.product(SPIN, repeat=2):
            summed = sum(math.exp(w * h * (s1 + sign * s2)) for h in SPIN)
            assert_close(summed, 2 * math.exp(abs(J)) * math.exp(J * s1 * s2))
            log_p = model.log_prob(torch.tensor([[s1, s2]], dtype=f64))
            assert_close(log_p, J * s1 * s2 - math.log(total))


@equation("hidden-universal")
def test_one_hidden_unit_for_each_pattern():
    """f as a product over patterns against the sum over h; the divergence is below its bound, and reaches it."""
    rng = np.random.default_rng(3)
    n, k = 4, 3
    X = configurations(n, BIT)
    v = X[rng.choice(len(X), k, replace=False)]
    p = rng.dirichlet(np.ones(k))
    for gamma, reach in ((5.0, 1.0), (300.0, 9.0), (1e4, 12.0), (1e10, 60.0)):
        model = RestrictedBoltzmannMachine(n, k, dtype=f64)
        with torch.no_grad():
            model.weights.copy_(tensor(reach * (2 * v - 1).T))
            model.hidden_bias.copy_(tensor(np.log(gamma * p) - reach * v.sum(1)))
        distance = np.abs(X[:, None] - v).sum(-1)
        f = (1 + gamma * p * np.exp(-reach * distance)).prod(1)
        assert_close(model.free_energy(tensor(X)), -np.log(f))
        at = [int((np.abs(X - one).sum(1) == 0).argmax()) for one in v]
        divergence = (p * np.log(p * f.sum() / f[at])).sum()
        bound = math.log1p(2**n / gamma) + gamma * math.exp(-reach)
        if gamma < 1e9:
            assert divergence < bound
        else:
            assert_at_most(divergence, bound)


@equation("rbm-energy")
def test_energy():
    """The library against sums term by term, and against the whole machine over s = (x, h)."""
    for alphabet in ALPHABETS:
        model = random_restricted(alphabet=alphabet)
        X, H, f = weights_of(model)
        joint = model.joint()
        for x, row in zip(X, f, strict=True):
            many = tensor(np.repeat(x[None], len(H), 0))
            assert_close(model.energy(many, tensor(H)), -np.log(row))
            assert_close(joint.energy(torch.cat([many, tensor(H)], 1)), -np.log(row))


@equation("rbm-conditionals")
def test_conditionals():
    """Bayes' rule in the table of f against the product of factors and against the library, both ways."""
    for alphabet in ALPHABETS:
        model = random_restricted(alphabet=alphabet)
        W, bx, bh = parts(model)
        X, H, f = weights_of(model)
        lower, upper = alphabet

        def factors(fields, units, lower=lower, upper=upper):
            each = np.exp(fields[:, None] * units) / (np.exp(lower * fields) + np.exp(upper * fields))[:, None]
            return each.prod(-1)

        assert_close(factors(bh + X @ W, H), f / f.sum(1, keepdims=True))
        assert_close(factors(bx + H @ W.T, X), (f / f.sum(0)).T)
        up = np.array([f[:, H[:, j] == upper].sum(1) / f.sum(1) for j in range(model.m)]).T
        assert_close(1 / (1 + np.exp(-(upper - lower) * (bh + X @ W))), up)
        assert_close(model.hidden(tensor(X)), up)
        up = np.array([f[X[:, i] == upper].sum(0) / f.sum(0) for i in range(model.n)]).T
        assert_close(model.visible(tensor(H)), up)


@equation("rbm-free-energy")
def test_free_energy():
    """−log Σ_h f in the table; the likelihood with the table's Z."""
    for alphabet in ALPHABETS:
        model = random_restricted(alphabet=alphabet)
        W, bx, bh = parts(model)
        X, _, f = weights_of(model)
        c = bh + X @ W
        closed = -X @ bx - np.log(np.exp(alphabet[0] * c) + np.exp(alphabet[1] * c)).sum(1)
        assert_close(closed, -np.log(f.sum(1)))
        assert_close(model.free_energy(tensor(X)), -np.log(f.sum(1)))
        assert_close(model.log_prob(tensor(X)), np.log(f.sum(1) / f.sum()))


@equation("rbm-smaller-layer")
def test_log_partition_through_either_layer():
    """Both lines and the library against the sum over all (x, h), with either layer the smaller."""
    for alphabet, (n, m) in itertools.product(ALPHABETS, ((5, 2), (2, 5))):
        model = random_restricted(n, m, alphabet)
        W, bx, bh = parts(model)
        X, H, f = weights_of(model)
        lower, upper = alphabet
        c, d = bh + X @ W, bx + H @ W.T
        by_x = (np.exp(X @ bx) * (np.exp(lower * c) + np.exp(upper * c)).prod(1)).sum()
        by_h = (np.exp(H @ bh) * (np.exp(lower * d) + np.exp(upper * d)).prod(1)).sum()
        assert_close(by_x, f.sum(), relative=True)
        assert_close(by_h, f.sum(), relative=True)
        assert_close(model.log_partition(), math.log(f.sum()))


@equation("rbm-gradient")
def test_positive_and_negative_phase():
    """Both phases from the table against automatic differentiation of the library's likelihood."""
    for alphabet in ALPHABETS:
        model = random_restricted(alphabet=alphabet)
        X, H, f = weights_of(model)
        rows = [3, 3, 7, 12, 14]
        posterior, joint = f / f.sum(1, keepdims=True), f / f.sum()
        answer = posterior @ H
        said = X[rows].T @ answer[rows] / len(rows)
        expected = sum(joint[i, j] * np.outer(X[i], H[j]) for i in range(len(X)) for j in range(len(H)))
        slopes = gradient(model, model.log_prob(tensor(X[rows])).mean())
        assert_close(slopes[0], said - expected)
        assert_close(slopes[1], X[rows].mean(0) - joint.sum(1) @ X)
        assert_close(slopes[2], answer[rows].mean(0) - joint.sum(0) @ H)


def random_gaussian(alphabet=BIT):
    rng = np.random.default_rng(4)
    sigma = torch.tensor([0.7, 1.8], dtype=f64)
    model = GaussianRestrictedBoltzmannMachine(2, 3, sigma=sigma, alphabet=alphabet, dtype=f64)
    with torch.no_grad():
        for p in (model.weights, model.visible_bias, model.hidden_bias):
            p.copy_(torch.from_numpy(0.6 * rng.normal(size=tuple(p.shape))))
    return model, sigma.numpy(), *parts(model)


def log_normal(x, mean, sigma):
    return (-0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * math.log(2 * math.pi)).sum(-1)


@equation("rbm-gaussian-energy")
def test_gaussian_energy():
    """The library against a loop over units."""
    for alphabet in ALPHABETS:
        model, sigma, W, a, bh = random_gaussian(alphabet)
        x = np.random.default_rng(5).normal(size=2)
        for h in configurations(3, alphabet):
            energy = sum(0.5 * (x[i] - a[i]) ** 2 / sigma[i] ** 2 for i in range(2)) - sum(bh * h)
            energy -= sum(x[i] / sigma[i] ** 2 * W[i, j] * h[j] for i in range(2) for j in range(3))
            assert_close(model.energy(tensor(x[None]), tensor(h[None]))[0], energy)


@equation("rbm-gaussian-conditionals")
def test_gaussian_conditionals():
    """e^{−E} normalised on a grid of x for each h (a trapezoid sum, exact for a Gaussian), and over h for each x."""
    for alphabet in ALPHABETS:
        model, sigma, W, a, bh = random_gaussian(alphabet)
        H = configurations(3, alphabet)
        for h in H:
            mean, p = a + W @ h, model.visible(tensor(h[None]))
            for i in range(2):
                grid = mean[i] + sigma[i] * np.linspace(-12, 12, 601)
                f = np.exp(-0.5 * ((grid - a[i]) / sigma[i]) ** 2 + grid / sigma[i] ** 2 * (W[i] @ h))
                f /= f.sum()
                assert_close(f @ grid, mean[i])
                assert_close(f @ (grid - mean[i]) ** 2, sigma[i] ** 2)
            assert_close(p.mean[0], mean)
            assert_close(p.log_prob(tensor(a[None])), log_normal(a, mean, sigma))
        x = np.random.default_rng(6).normal(size=2)
        f = np.exp(H @ (bh + W.T @ (x / sigma**2)))
        up = [f[H[:, j] == alphabet[1]].sum() / f.sum() for j in range(3)]
        assert_close(1 / (1 + np.exp(-(alphabet[1] - alphabet[0]) * (bh + W.T @ (x / sigma**2)))), up)
        assert_close(model.hidden(tensor(x[None]))[0], up)


@equation("rbm-gaussian-mixture")
def test_gaussian_marginal_is_a_mixture():
    """The mixture against the library's density; P(h) against ∫ e^{−E} dx on a grid in each coordinate."""
    for alphabet in ALPHABETS:
        model, sigma, W, a, bh = random_gaussian(alphabet)
        H = configurations(3, alphabet)
        centres = a + H @ W.T
        log_weight = H @ bh + ((centres**2 - a**2) / (2 * sigma**2)).sum(1)
        weight = np.exp(log_weight) / np.exp(log_weight).sum()
        masses = []
        for h in H:
            mass = math.exp(bh @ h)
            for i in range(2):
                grid, step = np.linspace(-60, 60, 12_001, retstep=True)
                mass *= np.exp(-0.5 * ((grid - a[i]) / sigma[i]) ** 2 + grid / sigma[i] ** 2 * (W[i] @ h)).sum() * step
            masses.append(mass)
        assert_close(weight, np.array(masses) / sum(masses))
        x = np.random.default_rng(7).normal(size=(5, 2))
        mixture = np.log(np.exp(log_normal(x[:, None], centres, sigma)) @ weight)
        assert_close(model.log_prob(tensor(x)), mixture)
        assert_close(model.log_partition(), math.log(sum(masses)))


@equation("rbm-gaussian-forms")
def test_three_energies_three_means():
    """Means on a grid, with σ unlike one so that the three differ; the wrong pairings are off."""
    a, sigma, push = 0.4, 1.7, -0.9  # push = (Wh)_i
    grid = np.linspace(-40, 40, 40_001)
    means = []
    for scale in (sigma**2, sigma, 1.0):
        f = np.exp(-0.5 * ((grid - a) / sigma) ** 2 + grid / scale * push)
        means.append(f @ grid / f.sum())
    assert_close(means[1], a + sigma * push)
    assert_close(means[2], a + sigma**2 * push)
    assert_close(means[0], a + push)
    assert min(abs(p - q) for p, q in itertools.combinations(means, 2)) > 0.5


@equation("rbm-ceiling")
def test_no_model_beats_the_entropy_of_the_data():
    """The 14 images found among all 512, entropy and divergence as sums over all of them, P from the table of f.

    The bound is reached by the machine that the theorem on patterns builds.
    """
    model = random_restricted(9, 4)
    X, _, f = weights_of(model)
    squares = X.reshape(-1, 3, 3)
    columns, rows = (squares == squares[:, :1]).all((1, 2)), (squares == squares[:, :, :1]).all((1, 2))
    p = (columns | rows) / (columns | rows).sum()
    P, on = f.sum(1) / f.sum(), p > 0
    entropy = -math.fsum(p[on] * np.log(p[on]))
    divergence = math.fsum(p[on] * np.log(p[on] / P[on]))
    assert abs(entropy - 2.639) < 5e-4
    assert divergence > 0
    assert_close(entropy, math.log(14))
    x = bars_and_stripes(3).double()
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, X[on].tolist()))
    assert_close(-model.log_prob(x).mean(), entropy + divergence)
    gamma, reach = 1e12, 80.0
    built = RestrictedBoltzmannMachine(9, 14, dtype=f64)
    with torch.no_grad():
        built.weights.copy_(reach * (2 * x - 1).mT)
        built.hidden_bias.copy_(math.log(gamma / 14) - reach * x.sum(1))
    assert_at_most(entropy, -built.log_prob(x).mean().item())


@equation("rbm-contrastive-loss")
def test_one_loss_for_all_negative_phases():
    """The value by sums over tables; with w = P its gradient is the likelihood's, from finite sums."""
    for alphabet in ALPHABETS:
        model = random_restricted(alphabet=alphabet)
        X, H, f = weights_of(model)
        rows, F = [0, 5, 5, 9], -np.log(f.sum(1))
        w = np.random.default_rng(8).dirichlet(np.ones(len(X)))
        loss = contrastive_loss(model, tensor(X[rows]), tensor(X), tensor(w))
        assert_close(loss, F[rows].mean() - w @ F)
        P = f.sum(1) / f.sum()
        slopes = gradient(model, contrastive_loss(model, tensor(X[rows]), tensor(X), tensor(P)))
        answer = f @ H / f.sum(1, keepdims=True)
        assert_close(slopes[0], -(X[rows].T @ answer[rows] / 4 - X.T @ (P[:, None] * answer)))
        right = gradient(model, -model.log_prob(tensor(X[rows])).mean())
        for mine, theirs in zip(slopes, right, strict=True):
            assert_close(mine, theirs)


def chain(f):
    """A = P(x|h), B = P(h|x) and T, with T summed over h in a loop."""
    A, B = f / f.sum(0), (f / f.sum(1, keepdims=True)).T
    T = np.zeros((len(f), len(f)))
    for to, start in itertools.product(range(len(f)), repeat=2):
        T[to, start] = math.fsum(A[to, h] * B[h, start] for h in range(f.shape[1]))
    return A, B, T


@equation("cd-transition")
def test_the_chain_through_the_hidden_layer():
    """T by a loop over h: its columns, its fixed point and detailed balance; the library's layers give A and B."""
    for alphabet in ALPHABETS:
        model = random_restricted(alphabet=alphabet)
        X, H, f = weights_of(model)
        A, B, T = chain(f)
        upper, P = alphabet[1], f.sum(1) / f.sum()
        assert_close(A @ B, T)
        assert_close(T.sum(0), 1.0)
        assert_close(T @ P, P)
        assert_close(T * P, (T * P).T)
        on = np.equal(X, upper)[:, None]
        chance = model.visible(tensor(H)).detach().numpy()
        assert_close(np.where(on, chance, 1 - chance).prod(-1), A)
        on = np.equal(H, upper)[:, None]
        chance = model.hidden(tensor(X)).detach().numpy()
        assert_close(np.where(on, chance, 1 - chance).prod(-1), B)


def slopes_of_f(X, H, f):
    """∂F/∂W for every x: −x E[h|x]ᵀ, from the table."""
    return -X[:, :, None] * (f @ H / f.sum(1, keepdims=True))[:, None, :]


@equation("cd-gradient")
def test_expected_gradient_of_cd():
    """From the loss with w = T^k p̂, against −x E[h|x] summed with T multiplied out; its limit is the likelihood's."""
    model = random_restricted()
    X, H, f = weights_of(model)
    *_, T = chain(f)
    rows = [1, 1, 6, 11]
    data = np.bincount(rows, minlength=len(X)) / len(rows)
    slopes = slopes_of_f(X, H, f)
    for k in (1, 2, 7):
        p = np.linalg.matrix_power(T, k) @ data
        by_hand = np.tensordot(data - p, slopes, 1)
        loss = contrastive_loss(model, tensor(X[rows]), tensor(X), tensor(p / p.sum()))
        assert_close(gradient(model, loss)[0], by_hand)
    far = np.tensordot(data - np.linalg.matrix_power(T, 2**14) @ data, slopes, 1)
    assert_close(gradient(model, -model.log_prob(tensor(X[rows])).mean())[0], far, tol=1e-10)  # 2^14 products


@equation("cd-bias")
def test_bias_shrinks_with_the_second_eigenvalue():
    """Eigenvalues in [0, 1]; both bounds for a random start, and equality for a start along the second eigenvector."""
    model = random_restricted(seed=9)
    X, H, f = weights_of(model)
    *_, T = chain(f)
    P = f.sum(1) / f.sum()
    root = np.sqrt(P)
    values, vectors = np.linalg.eigh(T * root / root[:, None])
    assert values[0] > -1e-14
    assert_close(values[-1], 1.0)
    mu = values[-2]
    assert mu < 1
    tilt = vectors[:, -2] / root  # r_2/P: mean zero, variance one under P
    starts = [np.random.default_rng(10).dirichlet(np.ones(len(P))), P * (1 + 0.5 * tilt / np.abs(tilt).max())]
    for tight, p in enumerate(starts):
        chi = ((p - P) ** 2 / P).sum()
        for k in (1, 3, 8):
            q = np.linalg.matrix_power(T, k) @ p
            left = ((q - P) ** 2 / P).sum()
            g = tilt if tight else slopes_of_f(X, H, f)[:, 0, 0]
            variance = P @ g**2 - (P @ g) ** 2
            off, limit = abs((q - P) @ g), mu**k * math.sqrt(variance * chi)
            if tight:
                assert_at_most(left, mu ** (2 * k) * chi)
                assert_at_most(off, limit)
            else:
                assert left < mu ** (2 * k) * chi
                assert off < limit


def transition(model, X, H):
    """T from the library's probabilities of single units, multiplied over the units of a layer."""
    upper = model.alphabet[1]

    def layer(chance, units):
        chance = chance.detach().numpy()
        return np.where(np.equal(units, upper)[:, None], chance, 1 - chance).prod(-1)

    return layer(model.visible(tensor(H)), X) @ layer(model.hidden(tensor(X)), H)


@equation("cd-persistent")
def test_persistent_chains_follow_a_machine_that_moves():
    """p_2 with θ_2 unlike θ_1: products of the library's T against a sum over every path x→h→x→h→x in the tables of f.

    The gradient at θ_2 from the loss against the sum of (p̂ − p_2) ∇F; with θ at rest the limit is P.
    """
    first, second = (random_restricted(3, 2, seed=seed) for seed in (11, 12))
    X, H, f1 = weights_of(first)
    *_, f2 = weights_of(second)
    rows = [2, 4, 7]
    data = np.bincount(rows, minlength=len(X)) / len(rows)
    T1, T2 = transition(first, X, H), transition(second, X, H)
    p = np.zeros(len(X))
    for x0, h1, x1, h2, x2 in itertools.product(rows, range(4), range(8), range(4), range(8)):
        one = f1[x0, h1] / f1[x0].sum() * f1[x1, h1] / f1[:, h1].sum()
        two = f2[x1, h2] / f2[x1].sum() * f2[x2, h2] / f2[:, h2].sum()
        p[x2] += one * two / len(rows)
    assert_close(T2 @ (T1 @ data), p)
    assert np.abs(T1 @ (T2 @ data) - p).max() > 1e-3  # the order of the machines matters
    loss = contrastive_loss(second, tensor(X[rows]), tensor(X), tensor(p / p.sum()))
    assert_close(gradient(second, loss)[0], np.tensordot(data - p, slopes_of_f(X, H, f2), 1))
    rest = np.linalg.matrix_power(T2, 2**14) @ data
    assert_close(rest, f2.sum(1) / f2.sum(), tol=1e-10)  # 2^14 products of rounded numbers


# --- annealed importance sampling: every path of a chain with four states ---------------------------------------------

BETAS = [0.0, 0.2, 0.7, 1.0]
ENERGIES = np.random.default_rng(12).normal(size=(2, 4))  # E_0 and V of four states
STATES = range(4)


def table(beta):
    """f_β of the four states, E_β = E_0 + βV."""
    return np.exp(-ENERGIES[0] - beta * ENERGIES[1])


def kept_by(beta, seed):
    """A transition matrix that keeps f_β and is not reversible: Metropolis, then a draw inside pairs of states."""
    f = table(beta)
    rng = np.random.default_rng(seed)
    proposal = rng.uniform(size=(4, 4))
    proposal = (proposal + proposal.T) / 8
    T = proposal * np.minimum(1, f[:, None] / f[None, :])
    np.fill_diagonal(T, 0)
    T += np.diag(1 - T.sum(0))
    heat = np.zeros((4, 4))
    for pair in ((0, 3), (1, 2)):
        for to, start in itertools.product(pair, repeat=2):
            heat[to, start] = f[to] / f[list(pair)].sum()
    return heat @ T


def library_weights(paths):
    """log w of given paths from `ais`: its chains are the paths, its kernels look up the next state."""
    order = {beta: k for k, beta in enumerate(BETAS)}

    def energy(x, beta):
        return tensor(ENERGIES[0] + beta * ENERGIES[1])[x.long()[:, 0]]

    def kernel(beta):
        return lambda x, rng: tensor(paths[:, order[beta], None].astype(float))

    return ais(energy, kernel, tensor(paths[:, 0, None].astype(float)), BETAS, seeded(1)).log_weights.numpy()


def all_paths():
    """Every path of three states (K = 3), its probability and its log weight from the library."""
    paths = np.array(list(itertools.product(STATES, repeat=3)))
    kernels = [kept_by(beta, k) for k, beta in enumerate(BETAS[1:-1])]
    start = table(0) / table(0).sum()
    chance = start[paths[:, 0]]
    for k, T in enumerate(kernels):
        chance = chance * T[paths[:, k + 1], paths[:, k]]
    return paths, kernels, chance, library_weights(paths)


RATIOS = [table(high) / table(low) for low, high in itertools.pairwise(BETAS)]
TRUE_RATIO = table(1).sum() / table(0).sum()


@equation("ais-weight")
def test_the_weight_of_a_path():
    """The library's weights against products of ratios, for all 64 paths."""
    paths, *_, log_w = all_paths()
    for path, value in zip(paths, log_w, strict=True):
        assert_close(math.exp(value), RATIOS[0][path[0]] * RATIOS[1][path[1]] * RATIOS[2][path[2]])


@equation("ais-mean")
def test_the_mean_weight_is_the_ratio():
    """The sum over all paths with the library's weights, the product of matrices, and Z_1/Z_0."""
    _, kernels, chance, log_w = all_paths()
    assert_close(chance.sum(), 1.0)
    for beta, T in zip(BETAS[1:-1], kernels, strict=True):
        assert_close(T @ table(beta), table(beta))
        assert np.abs(T * table(beta) - (T * table(beta)).T).max() > 1e-3  # detailed balance is not needed
    assert_close(chance @ np.exp(log_w), TRUE_RATIO)
    D = [np.diag(ratio) for ratio in RATIOS]
    product = np.ones(4) @ D[2] @ kernels[1] @ D[1] @ kernels[0] @ D[0] @ (table(0) / table(0).sum())
    assert_close(product, TRUE_RATIO)


@equation("ais-jarzynski")
def test_work_and_free_energy():
    """W added up as energy differences at fixed x; its exponential mean, and its mean, over all paths.

    The second law is tight where all states rise alike: E_β = E_0 + 2β has W = 2 on every path.
    """
    paths, _, chance, log_w = all_paths()
    energies = [ENERGIES[0] + beta * ENERGIES[1] for beta in BETAS]
    work = sum(energies[k + 1][paths[:, k]] - energies[k][paths[:, k]] for k in range(3))
    assert_close(-log_w, work)
    free = -math.log(TRUE_RATIO)
    assert_close(chance @ np.exp(-work), math.exp(-free))
    assert chance @ work > free
    x = tensor(np.arange(5.0)[:, None])
    flat = ais(lambda x, beta: x[:, 0] + 2 * beta, lambda beta: lambda x, rng: x, x, [0, 0.5, 1], seeded(1))
    assert_at_most(2.0, -flat.log_weights.mean())


@equation("ais-second-moment")
def test_the_mean_square_of_the_weight():
    """The sum of w² over all paths against the product with squared ratios."""
    _, kernels, chance, log_w = all_paths()
    D = [np.diag(ratio**2) for ratio in RATIOS]
    product = np.ones(4) @ D[2] @ kernels[1] @ D[1] @ kernels[0] @ D[0] @ (table(0) / table(0).sum())
    assert_close(chance @ np.exp(2 * log_w), product)


@equation("ais-perfect")
def test_perfect_transitions_factorise():
    """T_k = P_k 1ᵀ in the product of matrices against the product of χ², and each χ² against three values of Z."""
    mean = square = table(0) / table(0).sum()
    product = 1.0
    for k, ratio in enumerate(RATIOS, 1):
        before, now = table(BETAS[k - 1]), table(BETAS[k])
        p, q = now / now.sum(), before / before.sum()
        one_plus = 1 + ((p - q) ** 2 / q).sum()
        product *= one_plus
        beyond = table(2 * BETAS[k] - BETAS[k - 1]).sum()
        assert_close(beyond * before.sum() / now.sum() ** 2, one_plus)
        fresh = np.outer(p, np.ones(4)) if k < len(RATIOS) else np.eye(4)
        mean, square = fresh @ (ratio * mean), fresh @ (ratio**2 * square)
    assert_close(square.sum() / mean.sum() ** 2, product)


@equation("ais-quasistatic")
def test_many_temperatures():
    """The second difference over δ² with its δ² term extrapolated away; K log of the second moment likewise in 1/K.

    Tolerance 1e-8: differences of logarithms are divided by δ² = 1e-4, and the extrapolation leaves O(δ⁴).
    """

    def log_z(beta):
        return math.log(table(beta).sum())

    def variance(beta):
        p = table(beta) / table(beta).sum()
        return p @ ENERGIES[1] ** 2 - (p @ ENERGIES[1]) ** 2

    def curvature(d):
        return (log_z(0.4 + d) - 2 * log_z(0.4) + log_z(0.4 - d)) / d**2

    assert_close((4 * curvature(0.01) - curvature(0.02)) / 3, variance(0.4), tol=1e-8)

    def scaled(K):  # K log(E[w²]/E[w]²) with perfect transitions
        grid = np.arange(K + 1) / K
        return K * math.fsum(log_z(2 * b - a) + log_z(a) - 2 * log_z(b) for a, b in itertools.pairwise(grid))

    table_of = [scaled(2**j) for j in range(5, 10)]  # Romberg in 1/K
    for order in range(1, 5):
        table_of = [(2**order * b - a) / (2**order - 1) for a, b in itertools.pairwise(table_of)]
    nodes, weights = np.polynomial.legendre.leggauss(40)
    integral = sum(w / 2 * variance((x + 1) / 2) for x, w in zip(nodes, weights, strict=True))
    assert_close(table_of[0], integral, tol=1e-8)


@equation("ais-summed-out")
def test_summing_over_hidden_units_lowers_the_divergence():
    """Both sides from tables at two temperatures of one machine; equal where f_k/f_{k−1} does not depend on h.

    Each side is 1 + χ² times Z_k²/Z_{k−1}, and the left one is what the library's free energies give.
    """
    for alphabet in ALPHABETS:
        model, base = random_restricted(alphabet=alphabet), torch.linspace(-1, 1, 4, dtype=f64)

        def tempered(beta, model=model, base=base):
            at = copy.deepcopy(model)
            with torch.no_grad():
                at.weights.mul_(beta)
                at.hidden_bias.mul_(beta)
                at.visible_bias.mul_(beta).add_((1 - beta) * base)
            return at

        for beta in (0.0, 0.5, 0.9):
            low, high = tempered(beta), tempered(beta + 0.1)
            X, _, before = weights_of(low)
            *_, after = weights_of(high)
            summed, apart = (after.sum(1) ** 2 / before.sum(1)).sum(), (after**2 / before).sum()
            assert summed < apart - 1e-3
            scale = after.sum() ** 2 / before.sum()
            for q, p, side in ((before.sum(1), after.sum(1), summed), (before, after, apart)):
                q, p = q / q.sum(), p / p.sum()
                assert_close((1 + ((p - q) ** 2 / q).sum()) * scale, side, relative=True)
            x = tensor(X)
            assert_close((low.free_energy(x) - 2 * high.free_energy(x)).exp().sum(), summed, relative=True)
        before = weights_of(model)[2]
        after = before * np.exp(X @ np.array([0.3, -0.2, 0.5, 0.1]))[:, None]  # moves biases of x alone
        assert_at_most((after.sum(1) ** 2 / before.sum(1)).sum(), (after**2 / before).sum())


# --- solutions --------------------------------------------------------------------------------------------------------


@equation("learning-bond-by-hand")
def test_solution_bond():
    """arcosh against bisection of cosh 2w = e^{2J}; and what the spin passes on."""
    low, high = 0.0, 3.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if math.cosh(2 * middle) < math.e else (low, middle)
    assert_close(math.acosh(math.e) / 2, low)
    assert_close(math.tanh(low) ** 2, math.tanh(0.5))


@equation("learning-layer-by-hand")
def test_solution_layer():
    """Through all 2^11 states of both layers, one by one."""
    total = math.fsum(math.exp(sum(x) * h) for h in (0, 1) for x in itertools.product((0, 1), repeat=10))
    assert_close(math.log(2**10 + (1 + math.e) ** 10), math.log(total))


@equation("learning-gaussian-by-hand")
def test_solution_gaussian():
    """The mean of e^{−E} on a grid less the mean that the program uses."""
    grid = np.linspace(-80, 90, 40_001)
    f = np.exp(-0.5 * ((grid - 1) / 3) ** 2 + grid * 0.4)
    assert_close((3**2 - 1) * 0.4, f @ grid / f.sum() - 1.4)
    assert_close(8 * 0.4, 3.2)


@equation("learning-cd-by-hand")
def test_solution_cd():
    """The 2×2 chain multiplied out; one step fewer is too few."""
    up = 1 / (1 + math.exp(-4))
    once = np.array([[up, 1 - up], [1 - up, up]])  # x → h, and h → x
    T = once @ once
    for k in (1, 5, 63):
        p = np.linalg.matrix_power(T, k) @ np.array([1.0, 0.0])
        assert_close(p[0] - p[1], math.tanh(2) ** (2 * k))
    k = math.log(0.01) / (2 * math.log(math.tanh(2)))
    assert 62 < k <= 63
    assert_close(math.tanh(2) ** (2 * k), 0.01)


@equation("learning-ais-by-hand")
def test_solution_ais():
    """E[w²]/E[w]² − 1 by sums over both spins and, for K = 2, over fresh draws at β = ½."""

    def f(beta):
        return np.exp(2 * beta * np.array([-1.0, 1.0]))

    def one_plus(low, high):
        p = f(low) / f(low).sum()
        w = f(high) / f(low)
        return (p @ w**2) / (p @ w) ** 2

    assert_close(math.cosh(4) / math.cosh(2) ** 2 - 1, one_plus(0, 1) - 1)
    assert_close(math.tanh(2) ** 2, one_plus(0, 1) - 1)
    closed = (1 + math.tanh(1) ** 2) * math.cosh(3) * math.cosh(1) / math.cosh(2) ** 2 - 1
    assert_close(closed, one_plus(0, 0.5) * one_plus(0.5, 1) - 1)
