"""The three-group product against integers, closed forms and tables, where it is easy and where it underflows."""

import math
import weakref
from collections import Counter

import mpmath
import pytest
import torch
from boltzmann import brute
from boltzmann.test_machine import close

from lecturecode import seeded
from lecturecode.boltzmann import BIT, SPIN, BoltzmannMachine, enumeration, leaves, reductions, states, table
from lecturecode.boltzmann.groups import Groups
from lecturecode.boltzmann.states import log_weights

F64 = torch.float64
BOTH = pytest.mark.parametrize("alphabet", [SPIN, BIT], ids=["spins", "bits"])


@pytest.fixture
def no_tables(monkeypatch):
    """Parts of more than four units go through the three groups."""
    monkeypatch.setattr(leaves, "PLAIN", 4)
    monkeypatch.setattr(enumeration, "PLAIN", 4)


def integers(n, largest, alphabet, seed=1):
    """A machine of integers, and log Z from how often each weight occurs, counted in Python by Gray code."""
    rng = seeded(seed)
    j = torch.randint(-largest, largest + 1, (n, n), generator=rng).triu(1)
    j, b = (j + j.mT).tolist(), torch.randint(-largest, largest + 1, (n,), generator=rng).tolist()
    lower, upper = alphabet
    s = [lower] * n
    field = [b[i] + sum(j[i]) * lower for i in range(n)]
    weight = sum(lower * lower * j[i][k] for i in range(n) for k in range(i)) + lower * sum(b)
    found = Counter([weight])
    for number in range(1, 2**n):
        i = (number & -number).bit_length() - 1
        change = lower + upper - 2 * s[i]
        weight += change * field[i]
        s[i] += change
        for k in range(n):
            field[k] += change * j[i][k]
        found[weight] += 1
    with mpmath.workdps(50):
        log_z = mpmath.log(mpmath.fsum(count * mpmath.exp(w) for w, count in found.items()))
    return BoltzmannMachine(torch.tensor(j, dtype=F64), torch.tensor(b, dtype=F64), alphabet), float(log_z)


@BOTH
@pytest.mark.parametrize(("n", "largest"), [(12, 1), (16, 1), (16, 9), (15, 120), (14, 1000), (16, 1000)])
def test_log_partition_against_integers(no_tables, alphabet, n, largest):
    model, exact = integers(n, largest, alphabet)
    close(model.log_partition(), exact)


@BOTH
@pytest.mark.parametrize("n", [5, 6, 9, 13])
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0, 1000.0])
@pytest.mark.parametrize("biases", [True, False], ids=["biased", "unbiased"])
def test_every_average_against_the_table(no_tables, alphabet, n, scale, biases):
    """At |J| ~ 1000 a weight of 10⁴ has the rounding 10⁻¹², and so has a probability."""
    model = brute.machine(n, scale, alphabet, seed=n, biases=biases)
    tol = 1e-12 * max(1, scale / 30)
    w = log_weights(model._symmetric(), model.biases, alphabet).detach()
    p = (w - w.logsumexp(0)).exp()
    s = states(n, alphabet)
    parameters = model._symmetric().detach().requires_grad_(), model.biases.detach().requires_grad_()
    value = enumeration.log_partition(*parameters, alphabet)
    close(value, w.logsumexp(0))
    mean, second = p @ s, s.mT @ (p[:, None] * s)
    log_z, got_mean, got_second = enumeration.moments(*parameters, alphabet)
    close(log_z, w.logsumexp(0))
    close(got_mean, mean, tol)
    close(got_second, second, tol)
    of_j, of_b = torch.autograd.grad(value, parameters)
    close(of_b, mean, tol)
    close(2 * of_j, second, tol)
    for units in ([0], [2, 4, 1], [4, 3, 2, 1, 0], list(range(n))):
        row = sum((((s[:, u] == alphabet[1]).long()) << i) for i, u in enumerate(units))
        wanted = torch.zeros(2 ** len(units), dtype=F64).index_add_(0, row, p)
        close(reductions.marginal(*parameters, alphabet, units), wanted, tol)
    _, middle, spread = reductions.log_weight_moments(parameters[0], parameters[1], alphabet)
    exact = (p * w).sum()
    close(middle, exact, tol)
    assert abs(spread - (p * (w - exact) ** 2).sum()) <= tol * (1 + exact.abs())


def curie_weiss(n, coupling, bias):
    """log Z where every pair has one coupling: a sum over the number of spins that are up."""
    with mpmath.workdps(50):
        j, b = mpmath.mpf(coupling), mpmath.mpf(bias)
        terms = [
            mpmath.binomial(n, k) * mpmath.exp(j * ((2 * k - n) ** 2 - n) / 2 + b * (2 * k - n)) for k in range(n + 1)
        ]
        mean = mpmath.fsum(t * (2 * k - n) for k, t in enumerate(terms)) / mpmath.fsum(terms) / n
        return float(mpmath.log(mpmath.fsum(terms))), float(mean)


@pytest.mark.parametrize(
    ("n", "coupling", "bias"),
    [(17, 0.1, 0.3), (24, -0.25, 0.5), (29, 0.0625, 0.0), (30, 0.03125, -0.125), (26, 500.0, 0.5), (20, -500.0, 0.25)],
)
def test_one_coupling_for_all_pairs(n, coupling, bias):
    """Up to 2³⁰ states, among them a ferromagnet and a frustrated magnet with |J| = 500."""
    j = coupling * (1 - torch.eye(n, dtype=F64))
    model = BoltzmannMachine(j, torch.full((n,), bias, dtype=F64))
    log_z, mean = curie_weiss(n, coupling, bias)
    close(model.log_partition(), log_z)
    if n < 28:
        close(model.moments().mean, torch.full((n,), mean, dtype=F64))


def test_a_ring_of_28_spins_in_both_precisions():
    """log Z = log(λ₊ⁿ + λ₋ⁿ), λ± = e^J cosh b ± √(e^{2J} sinh² b + e^{−2J})."""
    n, j, b = 28, 0.5, 0.25
    couplings = torch.zeros(n, n, dtype=F64)
    at = torch.arange(n)
    couplings[at, (at + 1) % n] = couplings[(at + 1) % n, at] = j
    with mpmath.workdps(50):
        root = mpmath.sqrt(mpmath.exp(2 * j) * mpmath.sinh(b) ** 2 + mpmath.exp(-2 * j))
        middle = mpmath.exp(j) * mpmath.cosh(b)
        exact = float(mpmath.log((middle + root) ** n + (middle - root) ** n))
    model = BoltzmannMachine(couplings, torch.full((n,), b, dtype=F64))
    close(model.log_partition(), exact)
    close(model.float().log_partition(), exact, 1e-6)


@BOTH
@pytest.mark.parametrize("scale", [0.1, 0.6, 3.0, 40.0, 500.0])
def test_float32_is_within_its_bound(no_tables, alphabet, scale):
    """Where float32 has too little range for the product, float64 makes it."""
    model = brute.machine(13, scale, alphabet, dtype=torch.float32)
    exact = log_weights(model._symmetric().double(), model.biases.double(), alphabet).logsumexp(0) + model.constant
    value = model.log_partition()
    assert value.dtype == torch.float32
    close(value, exact.detach(), 1e-6)
    p = log_weights(model._symmetric().double(), model.biases.double(), alphabet).softmax(0).detach()
    close(model.moments().mean, p @ states(13, alphabet), 2e-6 * max(1, scale / 30))


@BOTH
def test_the_scale_bounds_every_weight_and_is_reached_without_frustration(alphabet):
    for seed in range(5):
        model = brute.machine(9, 2.0, alphabet, seed=seed)
        w = log_weights(model._symmetric(), model.biases, alphabet).detach()
        groups = Groups(model._symmetric().detach(), model.biases.detach(), alphabet)
        assert groups.scale() >= w.max() - 1e-12
    agreeing = model._symmetric().detach().abs()
    groups = Groups(agreeing, agreeing.sum(0), alphabet)
    close(groups.scale(), log_weights(agreeing, agreeing.sum(0), alphabet).max())


@BOTH
@pytest.mark.parametrize("scale", [0.3, 100.0, 1000.0])
def test_the_leaves_lose_no_weight_that_counts(no_tables, alphabet, scale):
    """Each configuration lies in at most one leaf; those in none weigh less than δ together."""
    model = brute.machine(11, scale, alphabet, seed=4)
    s = states(11, alphabet)
    p = model.probabilities()
    _, found = enumeration.parts(model._symmetric().detach(), model.biases.detach(), alphabet)
    inside = torch.zeros(len(s), dtype=torch.int64)
    for leaf in found:
        inside += (s[:, list(leaf.held)] == torch.tensor(leaf.values, dtype=F64)).all(1)
    assert inside.max() == 1
    assert p[inside == 0].sum() < 1e-14


def test_frustrated_couplings_are_cut_and_moderate_ones_are_not():
    count = {}
    for scale in (1.0, 1000.0):
        model = brute.machine(20, scale)
        count[scale] = len(list(enumeration.parts(model._symmetric().detach(), model.biases.detach(), SPIN)[1]))
    assert count[1.0] == 1 < count[1000.0] < 2**4


@pytest.mark.parametrize("biases", [True, False], ids=["biased", "unbiased"])
@pytest.mark.parametrize("scale", [0.4, 900.0])
def test_draws_through_the_groups(no_tables, scale, biases):
    """χ² of 20,000 draws over the 128 configurations that are expected at least five times, at most mean + 5 σ."""
    model, count = brute.machine(7, scale, biases=biases, seed=3), 20_000
    s = model.sample(count, seeded(5))
    rows = ((s == 1).long() << torch.arange(7)).sum(1)
    wanted = count * model.probabilities()
    often = wanted >= 5
    seen = torch.bincount(rows, minlength=128).double()
    chi = ((seen - wanted)[often] ** 2 / wanted[often]).sum()
    freedom = int(often.sum())
    assert chi < freedom + 5 * math.sqrt(2 * freedom)
    assert abs(seen[~often].sum() - wanted[~often].sum()) <= 5 * math.sqrt(float(wanted[~often].sum()) + 1)


def test_draws_of_24_units_have_the_exact_moments():
    """Each mean over 4,000 draws within 5 standard errors of the exact one."""
    model = brute.machine(24, 0.2)
    s, found = model.sample(4000, seeded(2)), model.moments()
    error = ((1 - found.mean**2) / 4000).sqrt()
    assert ((s.mean(0) - found.mean).abs() < 5 * error).all()
    cross = s.mT @ s / 4000
    assert ((cross - found.second).abs() < 5 / math.sqrt(4000)).all()


def test_free_energy_of_many_hidden_units():
    """Seventeen hidden units and more go one example at a time; its gradient is that of the short way."""
    model = brute.machine(20, 0.3)
    x = states(2)
    for k in (2, 3):
        rows = x if k == 2 else torch.cat([x, x[:, :1]], 1)
        clamped = [-model.clamp(range(k), row.tolist()).log_partition() for row in rows]
        close(model.free_energy(rows), torch.stack(clamped).detach())
    (of_b,) = torch.autograd.grad(model.marginal_log_prob(x[:1]).sum(), model.biases)
    rest = model.clamp([0, 1], x[0].tolist()).moments().mean
    close(of_b, torch.cat([x[0], rest]) - model.moments().mean)


def test_a_second_derivative_of_17_units_and_its_limit():
    model = brute.machine(17, 0.2)
    (of_b,) = torch.autograd.grad(model.log_partition(), model.biases, create_graph=True)
    (row,) = torch.autograd.grad(of_b[0], model.biases)
    found = model.moments()
    close(row, found.second[0] - found.mean[0] * found.mean)
    model = brute.machine(21, 0.2)
    with pytest.raises(ValueError, match="at most 20 are allowed"):
        torch.autograd.grad(model.log_partition(), model.biases, create_graph=True)


def test_large_marginals_and_thermodynamics_of_25_units():
    """Two parts of the machine do not know of each other: its marginal is a product, its energy a sum."""
    one, two = brute.machine(13, 0.4, seed=1), brute.machine(12, 0.4, seed=2)
    couplings = torch.block_diag(one.couplings.detach(), two.couplings.detach())
    model = BoltzmannMachine(couplings, torch.cat([one.biases, two.biases]).detach(), SPIN, 0.5)
    units = [3, 20, *range(7, 13), 24]
    wanted = torch.outer(two.marginal([7, 11]), one.marginal([3, *range(7, 13)])).view(2, 2, 2**6, 2)
    close(model.marginal(units), wanted.permute(0, 2, 1, 3).flatten())
    first, second, both = (m.thermodynamics(0.9) for m in (one, two, model))
    for name in ("free_energy", "energy", "entropy", "heat_capacity"):
        close(getattr(both, name), getattr(first, name) + getattr(second, name))


def test_the_table_path_and_the_product_agree_where_they_meet():
    for n in (16, 17):
        model = brute.machine(n, 0.5)
        w = log_weights(model._symmetric(), model.biases, SPIN).detach()
        close(model.log_partition() - model.constant, w.logsumexp(0))
        mean, second = table.moments(w.softmax(0), n, SPIN)
        close(model.moments().mean, mean)
        close(model.moments().second, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_a_wider_one(dtype):
    model = brute.machine(17, 0.3).to(dtype)
    exact = log_weights(model._symmetric().double(), model.biases.double(), SPIN).logsumexp(0) + model.constant.double()
    value = model.log_partition()
    assert value.dtype == dtype
    close(value, exact.detach(), torch.finfo(dtype).eps)


def test_faster_products_of_the_caller_do_not_reach_log_z():
    """Autocast, TF32 and bfloat16 products keep three digits, and float32 promises six."""
    model = brute.machine(20, 0.3, dtype=torch.float32)
    exact, mean = model.double().log_partition().detach(), model.moments().mean
    model = model.float()
    with torch.autocast("cpu", torch.bfloat16):
        close(model.log_partition(), exact, 1e-6)
        close(model.moments().mean, mean, 1e-6)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        close(model.log_partition(), exact, 1e-6)
        close(model.moments().mean, mean, 1e-6)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("beta", [1e-3, 1e-9])
def test_the_energy_of_a_hot_mirrored_machine(beta):
    """U = −β Σ J_ij² (i < j) + O(β²) without biases: nothing of the size of log Z may stand beside it."""
    model = brute.machine(18, 1.0, biases=False)
    pairs = model.couplings.detach().square().sum() / 2
    energy = model.thermodynamics(beta).energy + model.constant
    assert abs(energy / (-beta * pairs) - 1) < 20 * beta + 1e-4


def test_the_leaves_of_a_draw_are_not_kept(no_tables, monkeypatch):
    """Each holds a table of its own: a machine cut into many would not fit in memory."""
    alive, most = weakref.WeakSet(), 0

    class Counted(Groups):
        def __init__(self, *arguments):
            nonlocal most
            super().__init__(*arguments)
            alive.add(self)
            most = max(most, len(alive))

    monkeypatch.setattr(leaves, "Groups", Counted)
    model = brute.machine(14, 1000.0)
    found = list(enumeration.parts(model._symmetric(), model.biases, SPIN)[1])
    assert sum(leaf.groups is not None for leaf in found) > 3 < most
    del found
    most = 0
    model.sample(100, seeded(1))
    assert 1 <= most <= 3


@BOTH
def test_a_marginal_of_held_and_free_units(no_tables, alphabet):
    """Cut couplings hold some of the wanted units; all of them are wanted, in another order."""
    model = brute.machine(9, 400.0, alphabet, seed=2)
    units = [8, 1, 0, 7, 2, 3, 6, 5, 4]
    s = states(9, alphabet)
    row = sum((s[:, u] == alphabet[1]).long() << i for i, u in enumerate(units))
    close(model.marginal(units), torch.zeros(512, dtype=F64).index_add_(0, row, model.probabilities()), 2e-11)


@pytest.mark.parametrize("rows", [3, 300])
def test_a_batch_of_free_energies_is_summed_in_pieces(rows):
    """300 rows of 2¹⁴ weights are two pieces; gradients and second derivatives are those of one row after the other."""
    model = brute.machine(16, 0.4)
    x = states(2)[torch.arange(rows) % 4]
    (of_b,) = torch.autograd.grad(model.free_energy(x).sum(), model.biases, create_graph=True)
    one = torch.zeros_like(of_b)
    for row in states(2):
        often = (x == row).all(1).sum()
        (single,) = torch.autograd.grad(model.free_energy(row[None]).sum(), model.biases, create_graph=True)
        one = one + often * single
    close(of_b, one.detach(), 1e-11)
    (twice,) = torch.autograd.grad(of_b[5], model.biases, retain_graph=True)
    (wanted,) = torch.autograd.grad(one[5], model.biases)
    close(twice, wanted, 1e-11)
