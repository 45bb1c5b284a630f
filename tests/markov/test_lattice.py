"""Kernels for lattices: the exact matrix against e^{−E}/Z, draws against the matrix, a magnet against enumeration.

The matrices of the kernels are themselves held against plain loops over sites, bonds and clusters, written here.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lecturecode import seeded
from lecturecode.boltzmann import BoltzmannMachine, ising, states
from lecturecode.markov import Kernel, checkerboard, multispin, pack, run, standard_error, swendsen_wang, unpack
from lecturecode.markov.clusters import components

f64 = torch.float64


@pytest.fixture(autouse=True)
def one_thread():
    """Many small operations: two threads are slower than one, and on a busy machine by far."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SIZES = [(2, 4, True), (2, 4, False), (3, 3, False), (1, 6, True), (1, 5, False), (2, 2, True), (3, 2, False)]
MADE = {
    "heat bath": lambda *a: checkerboard(*a),
    "metropolis": lambda *a: checkerboard(*a, rule="metropolis"),
    "swendsen-wang": lambda *a: swendsen_wang(*a),
    "multispin": lambda r, c, J, b, periodic: multispin(r, c, J, b),
}
CASES = [
    (name, size) for name, size in itertools.product(MADE, SIZES) if name != "multispin" or (size[2] and size[0] > 1)
]


def random_lattice(rows, columns, periodic, seed=1):
    """Couplings of both signs and a field for each site; the same as a machine, bond by bond."""
    rng = seeded(seed)
    across, down = (rows, columns if periodic else columns - 1), (rows if periodic else rows - 1, columns)
    H, K, b = (torch.randn(shape, generator=rng, dtype=f64) for shape in (across, down, (rows, columns)))
    J = torch.zeros(rows * columns, rows * columns, dtype=f64)
    for r, c in itertools.product(range(rows), range(columns)):
        here = r * columns + c
        for values, there in ((H, r * columns + (c + 1) % columns), (K, (r + 1) % rows * columns + c)):
            if r < values.shape[0] and c < values.shape[1] and here != there:
                J[here, there] += values[r, c]
                J[there, here] += values[r, c]
    return (H, K), b, BoltzmannMachine(J, b.flatten())


def target(machine):
    return machine.probabilities().detach()


def shares(kernel, x, draws):
    """From each state, where `draws` steps end: an estimate of T."""
    n = x.shape[1]
    ends = kernel(x.repeat(draws, 1), seeded(7))
    number = ((ends > 0).long() << torch.arange(n)).sum(-1)
    counts = torch.zeros(2**n, 2**n, dtype=f64)
    counts.index_put_((number, torch.arange(2**n).repeat(draws)), torch.ones((), dtype=f64), accumulate=True)
    return counts / draws


@pytest.mark.parametrize(("name", "size"), CASES)
def test_the_matrix_leaves_the_target_invariant(name, size):
    rows, columns, periodic = size
    T = MADE[name](rows, columns, 0.4, 0.15, periodic).matrix(states(rows * columns))
    p = target(ising(rows, columns, 0.4, 0.15, periodic))
    torch.testing.assert_close(T.sum(0), torch.ones_like(p), rtol=0, atol=1e-13)
    torch.testing.assert_close(T @ p, p, rtol=0, atol=1e-13)
    assert (T >= 0).all()


@pytest.mark.parametrize("name", list(MADE))
def test_which_are_reversible(name):
    """Detailed balance holds for clusters; a sweep over two colours in a fixed order breaks it."""
    flow = MADE[name](2, 4, 0.4, 0.15, True).matrix(states(8)) * target(ising(2, 4, 0.4, 0.15, True))
    apart = (flow - flow.mT).abs().max()
    assert apart < 1e-14 if name == "swendsen-wang" else apart > 1e-3


@pytest.mark.parametrize("name", ["heat bath", "metropolis", "swendsen-wang"])
@pytest.mark.parametrize(("rows", "columns", "periodic"), [(2, 4, True), (2, 3, False), (1, 6, True)])
def test_couplings_of_any_sign_and_a_field_for_each_site(name, rows, columns, periodic):
    couplings, b, machine = random_lattice(rows, columns, periodic)
    T = MADE[name](rows, columns, couplings, b, periodic).matrix(states(rows * columns))
    p = target(machine)
    torch.testing.assert_close(T @ p, p, rtol=0, atol=1e-13)


def test_clusters_on_an_odd_torus():
    T = swendsen_wang(1, 5, 0.7, 0.2, True).matrix(states(5))
    p = target(ising(1, 5, 0.7, 0.2, True))
    torch.testing.assert_close(T @ p, p, rtol=0, atol=1e-14)


def test_the_chequerboard_matrix_is_a_product_over_sites():
    """Every site's own update by a loop over states, black sites before white ones."""
    rows, columns, J, b = 2, 3, 0.3, -0.2
    s = states(6)
    energy = ising(rows, columns, J, b).energy(s).detach()
    order = [u for colour in (0, 1) for u in range(6) if (u // 3 + u % 3) % 2 == colour]
    for rule in ("heat bath", "metropolis"):
        T = torch.eye(64, dtype=f64)
        for u in order:
            step = torch.zeros(64, 64, dtype=f64)
            for j in range(64):
                other = j ^ (1 << u)
                rise = float(energy[other] - energy[j])
                leave = 1 / (1 + math.exp(rise)) if rule == "heat bath" else min(1.0, math.exp(-rise))
                step[other, j], step[j, j] = leave, 1 - leave
            T = step @ T
        torch.testing.assert_close(checkerboard(rows, columns, J, b, rule=rule).matrix(s), T, rtol=0, atol=1e-14)


def test_the_cluster_matrix_is_a_sum_over_bonds():
    """On a path of three sites: four graphs, each cluster's two signs, by hand."""
    J, b, s = 0.6, 0.3, states(3)
    T = torch.zeros(8, 8, dtype=f64)
    for j, graph in itertools.product(range(8), itertools.product((0, 1), repeat=2)):
        chance = [(1 - math.exp(-2 * J)) if s[j, k] == s[j, k + 1] else 0.0 for k in (0, 1)]
        weight = math.prod(c if on else 1 - c for c, on in zip(chance, graph, strict=True))
        label = [0, 0 if graph[0] else 1]
        label.append(label[1] if graph[1] else 2)
        clusters = sorted(set(label))
        for flips in itertools.product((0, 1), repeat=len(clusters)):
            share, i = weight, j
            for cluster, flip in zip(clusters, flips, strict=True):
                members = [u for u in range(3) if label[u] == cluster]
                h = b * sum(float(s[j, u]) for u in members)
                share *= 1 / (1 + math.exp(2 * h if flip else -2 * h))
                i ^= sum(1 << u for u in members) if flip else 0
            T[i, j] += share
    torch.testing.assert_close(swendsen_wang(1, 3, J, b).matrix(s), T, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "size"), [case for case in CASES if case[0] != "multispin"])
def test_draws_follow_the_matrix(name, size):
    """2,000 steps from each state, in int8 and in floats: entries within 6 binomial standard errors and 5 draws."""
    rows, columns, periodic = size
    kernel, x = MADE[name](rows, columns, 0.4, 0.15, periodic), states(rows * columns)
    T = kernel.matrix(x)
    for dtype in (torch.int8, torch.float32):
        found = shares(kernel, x.to(dtype), 2000)
        assert ((found - T).abs() <= 6 * (T * (1 - T) / 2000).clamp(min=0).sqrt() + 5 / 2000).all()


def test_draws_with_couplings_for_each_bond_follow_the_matrix():
    couplings, b, _ = random_lattice(2, 4, True)
    for name in ("heat bath", "metropolis", "swendsen-wang"):
        kernel = MADE[name](2, 4, couplings, b, True)
        T, found = kernel.matrix(states(8)), shares(kernel, states(8), 2000)
        assert ((found - T).abs() <= 6 * (T * (1 - T) / 2000).clamp(min=0).sqrt() + 5 / 2000).all()


@pytest.mark.parametrize("name", list(MADE))
def test_the_energy_of_the_magnet(name):
    """4 × 4 torus at J = 0.4407: 1,024 chains after 50 sweeps, mean of 100; 5 standard errors, chains independent."""
    J, chains = 0.4407, 1024
    magnet, kernel, rng = ising(4, 4, J, 0.0, True), MADE[name](4, 4, J, 0.0, True), seeded(3)
    spins = torch.where(torch.rand(chains, 16, generator=rng) < 0.5, -1.0, 1.0).to(f64)
    x, total = (pack(spins) if name == "multispin" else spins), torch.zeros(chains, dtype=f64)
    for step in range(150):
        x = kernel(x, rng)
        if step >= 50:
            total += magnet.energy(unpack(x) if name == "multispin" else x).detach()
    mean, error = total.mean() / 100, total.std() / 100 / chains**0.5
    exact = target(magnet) @ magnet.energy(states(16)).detach()
    assert error < 0.05
    assert abs(mean - exact) < 5 * error


@pytest.mark.parametrize("name", list(MADE))
def test_error_bars_cover_as_often_as_they_say(name):
    """256 chains of 800 sweeps from exact draws, each with its own error: ±1.96 holds the truth in 95 %, 5 sigma."""
    J, chains = 0.4407, 256
    magnet, kernel, rng = ising(4, 4, J, 0.0, True), MADE[name](4, 4, J, 0.0, True), seeded(5)
    spins = magnet.sample(chains, rng)
    walk = run(kernel, pack(spins) if name == "multispin" else spins, 800, rng)
    E = torch.stack([magnet.energy(unpack(x) if name == "multispin" else x).detach() for x in walk])
    exact = target(magnet) @ magnet.energy(states(16)).detach()
    away = (E.mean(0) - exact).abs()
    held = (away < 1.96 * standard_error(E[:, None])).double().mean()
    assert abs(held - 0.95) < 5 * math.sqrt(0.95 * 0.05 / chains)
    naive = (away < 1.96 * E.std(0) / math.sqrt(800)).double().mean()
    assert naive < 0.85  # what the test would say of σ/√N


def test_a_seed_gives_the_same_on_every_device(device):
    spins = torch.where(torch.rand(64, 16, generator=seeded(1)) < 0.5, -1.0, 1.0)
    for kernel in (checkerboard(4, 4, 0.4), checkerboard(4, 4, 0.4, torch.ones(4, 4)), swendsen_wang(4, 4, 0.4, 0.1)):
        there = kernel(spins.to(device), seeded(2))
        assert there.device.type == device.type
        assert torch.equal(there.cpu(), kernel(spins, seeded(2)))
    kernel = multispin(4, 4, 0.4, 0.1)
    assert torch.equal(unpack(kernel(pack(spins.to(device)), seeded(3))).cpu(), unpack(kernel(pack(spins), seeded(3))))


def test_components_are_those_of_scipy():
    """Random graphs, and a path in a random order of its sites, which takes the most rounds."""
    rng, n = np.random.default_rng(1), 60
    pairs = torch.from_numpy(np.stack([rng.permutation(n)[:2] for _ in range(150)], 1)).long()
    order = torch.from_numpy(rng.permutation(n))
    pairs = torch.cat([pairs, torch.stack([order[:-1], order[1:]])], 1)
    on = torch.from_numpy(rng.random((40, pairs.shape[1])) < rng.random((40, 1)) ** 2)
    on[0, :150], on[0, 150:] = False, True
    on[1] = False
    for graph, label in zip(on, components(on, pairs, n), strict=True):
        i, j = pairs[:, graph].numpy()
        _, found = connected_components(coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)
        smallest = [int(np.flatnonzero(found == found[site])[0]) for site in range(n)]
        assert label.tolist() == smallest


def test_kernels_are_pure():
    x = states(8).reshape(4, 64, 8)
    before = x.clone()
    for kernel in (checkerboard(2, 4, 0.3), checkerboard(2, 4, 0.3, torch.zeros(2, 4)), swendsen_wang(2, 4, 0.3)):
        assert isinstance(kernel, Kernel)
        assert torch.equal(kernel(x, seeded(1)), kernel(x, seeded(1)))
        assert kernel(x, seeded(1)).shape == x.shape
        assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: checkerboard(3, 4, periodic=True), r"rows = 3 has no two colours.*swendsen_wang"),
        (lambda: multispin(4, 5), r"columns = 5 has no two colours"),
        (lambda: multispin(1, 4), r"1 × 4; both sides are even"),
        (lambda: checkerboard(0, 4), r"0 × 4 has no sites"),
        (lambda: swendsen_wang(2, 2, math.inf), r"coupling\[0\] is inf"),
        (lambda: checkerboard(2, 2, 1.0, math.nan), r"field\[\] is nan"),
        (lambda: checkerboard(2, 2, rule="glauber"), r"rule is 'glauber'; there are 'heat bath' and"),
        (lambda: swendsen_wang(2, 3, (torch.ones(2, 3), torch.ones(1, 3))), r"horizontal couplings .*\(2, 3\), not"),
        (lambda: swendsen_wang(2, 3, 1.0, torch.ones(3, 2)), r"field has shape \(3, 2\), not \(2, 3\)"),
        (lambda: checkerboard(2, 2)(torch.zeros(1, 4), seeded(1)), r"x\[0, 0\] is 0; spins are"),
        (lambda: swendsen_wang(2, 2)(torch.ones(1, 5), seeded(1)), r"pass \(chains, 4\)"),
        (lambda: checkerboard(2, 2).matrix(states(4)[1:]), r"all 2\^4 configurations, each once"),
        (lambda: swendsen_wang(3, 4).matrix(states(12)), r"at most 10 spins"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()
