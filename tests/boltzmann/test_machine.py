"""The machine against every configuration in Python and fifty digits, and what it refuses."""

import copy
import math

import pytest
import torch
from boltzmann import brute
from mpmath import log

from lecturecode import seeded
from lecturecode.boltzmann import (
    BIT,
    SPIN,
    BoltzmannMachine,
    GaussianRestrictedBoltzmannMachine,
    RestrictedBoltzmannMachine,
    enumeration,
    parameters,
    states,
)

F64 = torch.float64
BOTH = pytest.mark.parametrize("alphabet", [SPIN, BIT], ids=["spins", "bits"])


def close(got, wanted, tol=1e-12):
    wanted = torch.as_tensor(wanted, dtype=F64)
    assert ((got.detach().double().cpu() - wanted).abs() <= tol * wanted.abs().clamp(min=1)).all(), (got, wanted)


@BOTH
class TestAgainstPython:
    @pytest.mark.parametrize(("n", "scale"), [(1, 1.0), (2, 0.5), (5, 3.0), (9, 0.7), (9, 300.0)])
    def test_log_partition(self, alphabet, n, scale):
        model = brute.machine(n, scale, alphabet)
        for beta in (1.0, 0.3, -0.5, 0.0):
            close(model.log_partition(beta), brute.log_partition(model, beta))

    def test_energy_field_and_conditional(self, alphabet):
        model = brute.machine(4, 1.0, alphabet)
        s = states(4, alphabet)
        weights = brute.weights(model)
        assert [tuple(row) for row in s.tolist()] == [row for row, _ in weights]
        close(-model.energy(s), [float(log(f)) for _, f in weights], 1e-13)
        p = torch.tensor([float(f) for _, f in weights])
        rows = torch.arange(16)
        for i in range(4):
            up, down = p[rows | 1 << i], p[rows & ~(1 << i)]
            close(model.conditional(s)[:, i], up / (up + down), 1e-6)
            other = s.clone()
            other[:, i] = sum(alphabet) - s[:, i]
            change = (model.energy(other) - model.energy(s)) / (s[:, i] - other[:, i])
            close(model.field(s)[:, i], change, 1e-12)

    def test_moments_and_probabilities(self, alphabet):
        model = brute.machine(6, 0.8, alphabet)
        found = model.moments()
        close(found.mean, [brute.average(model, lambda s, i=i: s[i]) for i in range(6)])
        second = [[brute.average(model, lambda s, i=i, k=k: s[i] * s[k]) for k in range(6)] for i in range(6)]
        close(found.second, second)
        total = sum(f for _, f in brute.weights(model))
        close(model.probabilities(), [float(f / total) for _, f in brute.weights(model)], 1e-14)
        close(model.log_prob(states(6, alphabet)).exp(), model.probabilities())

    def test_gradient_and_second_derivative(self, alphabet):
        """∂ log Z/∂b = β⟨s⟩, ∂ log Z/∂J_ik = ½β⟨s_i s_k⟩, ∂² log Z/∂b∂b = β² Cov(s, s)."""
        model, beta = brute.machine(5, 0.6, alphabet), 0.7
        value = model.log_partition(beta)
        of_j, of_b = torch.autograd.grad(value, [model.couplings, model.biases], create_graph=True)
        mean = [brute.average(model, lambda s, i=i: s[i], beta) for i in range(5)]
        close(of_b, beta * torch.tensor(mean, dtype=F64))
        for i in range(5):
            (row,) = torch.autograd.grad(of_b[i], model.biases, retain_graph=True)
            for k in range(5):
                both = brute.average(model, lambda s, i=i, k=k: s[i] * s[k], beta)
                close(row[k], beta**2 * (both - mean[i] * mean[k]))
                close(of_j[i, k], beta * both / 2 if i != k else 0.0)

    def test_thermodynamics(self, alphabet):
        model, beta = brute.machine(5, 0.9, alphabet), 1.3
        found = model.thermodynamics(beta)
        energies = [-float(log(f)) for _, f in brute.weights(model)]
        p = torch.softmax(-beta * torch.tensor(energies, dtype=F64), 0)
        mean = (p * torch.tensor(energies, dtype=F64)).sum()
        spread = (p * (torch.tensor(energies, dtype=F64) - mean) ** 2).sum()
        close(found.free_energy, -brute.log_partition(model, beta) / beta)
        close(found.energy, mean)
        close(found.entropy, torch.special.entr(p).sum())
        close(found.heat_capacity, beta**2 * spread)
        several = model.thermodynamics(torch.tensor([0.5, beta]))
        assert several.energy.shape == (2,)
        close(several.energy[1], found.energy, 1e-7)

    def test_marginal_and_clamp(self, alphabet):
        """Pr(units = values) by the long sum, by `marginal`, and as a difference of two log Z."""
        model, units = brute.machine(6, 0.8, alphabet), [4, 0, 3]
        found = model.marginal(units)
        for row in range(8):
            values = [alphabet[row >> i & 1] for i in range(3)]
            wanted = brute.average(model, lambda s, v=values: all(s[u] == x for u, x in zip(units, v, strict=True)))
            close(found[row], wanted)
            close((model.clamp(units, values).log_partition() - model.log_partition()).exp(), wanted)

    def test_free_energy_and_marginal_log_prob(self, alphabet):
        model = brute.machine(6, 0.8, alphabet)
        for k in (1, 4, 6):
            x = states(k, alphabet)
            wanted = [brute.average(model, lambda s, row=row, k=k: list(s[:k]) == row) for row in x.tolist()]
            close(model.marginal_log_prob(x).exp(), wanted)
        close(model.free_energy(states(6, alphabet)), model.energy(states(6, alphabet)))

    def test_the_gradient_of_a_marginal_is_data_minus_model(self, alphabet):
        model = brute.machine(5, 0.7, alphabet)
        x = states(2, alphabet)[[2]]
        (of_b,) = torch.autograd.grad(model.marginal_log_prob(x).sum(), model.biases)

        def inside(s):
            return list(s[:2]) == x[0].tolist()

        share = brute.average(model, inside)
        for i in range(5):
            data = brute.average(model, lambda s, i=i: s[i] * inside(s)) / share
            close(of_b[i], data - brute.average(model, lambda s, i=i: s[i]))

    def test_in_alphabet_keeps_z_and_every_probability(self, alphabet):
        model = brute.machine(5, 0.9, alphabet)
        other = model.in_alphabet(BIT if alphabet == SPIN else SPIN)
        close(other.log_partition(), brute.log_partition(model))
        close(other.probabilities(), model.probabilities())
        back = other.in_alphabet(alphabet)
        close(back.couplings, model.couplings)
        close(back.biases, model.biases)
        close(back.constant, model.constant)
        assert model.in_alphabet(alphabet).alphabet == alphabet

    def test_draws_have_the_right_frequencies(self, alphabet):
        """χ² of 40,000 draws over 32 configurations, 31 degrees of freedom: below its mean + 5 standard deviations."""
        model, count = brute.machine(5, 0.5, alphabet), 40_000
        s = model.sample(count, seeded(3))
        rows = ((s == alphabet[1]).long() << torch.arange(5)).sum(1)
        wanted = count * model.probabilities()
        chi = ((torch.bincount(rows, minlength=32) - wanted) ** 2 / wanted).sum()
        assert chi < 31 + 5 * math.sqrt(62)


def test_follows_the_device_and_the_dtype(device, dtype):
    model = brute.machine(7, 0.5, dtype=dtype).to(device)
    exact = brute.log_partition(model)
    value = model.log_partition()
    assert (value.dtype, value.device.type) == (dtype, device.type)
    close(value, exact, 1e-12 if dtype == F64 else 1e-6)
    for x in (model.moments().mean, model.marginal([0]), model.sample(3, seeded(1)), model.thermodynamics(1.0).energy):
        assert (x.dtype, x.device.type) == (dtype, device.type)
    assert torch.equal(model.sample(5, seeded(1)).cpu(), brute.machine(7, 0.5, dtype=dtype).sample(5, seeded(1)))


@BOTH
def test_an_alphabet_may_be_a_list(alphabet):
    """As it comes back from JSON; the change of alphabet compares it."""
    model = brute.machine(5, 0.9, alphabet)
    listed = brute.machine(5, 0.9, list(alphabet))
    assert isinstance(listed.alphabet, tuple)
    for other in (SPIN, BIT):
        close(listed.in_alphabet(list(other)).log_partition(), model.log_partition().detach())
    for kind in (RestrictedBoltzmannMachine, GaussianRestrictedBoltzmannMachine):
        one, two = (kind(3, 2, seeded(1), alphabet=a, dtype=F64) for a in (alphabet, list(alphabet)))
        close(one.log_partition(), two.log_partition().detach())


def test_the_constant_is_copied():
    constant = torch.tensor(1.5, dtype=F64, requires_grad=True)
    model = BoltzmannMachine(torch.zeros(2, 2, dtype=F64), torch.zeros(2, dtype=F64), SPIN, constant * 2)
    same = model.in_alphabet(SPIN)
    copied = copy.deepcopy(model)
    model.constant.fill_(7.0)
    assert same.constant == copied.constant == 3.0


def test_leading_axes_of_x_are_kept():
    model = brute.machine(6, 0.8)
    x = states(3).view(2, 4, 3)
    for ask in (model.free_energy, model.marginal_log_prob):
        assert torch.equal(ask(x).flatten(), ask(states(3)))
        close(ask(x[0, 1]), ask(x)[0, 1].detach())
    model = brute.machine(20, 0.3)  # beyond the table, too
    x = torch.ones(1, 2, 2, dtype=F64)
    assert torch.equal(model.free_energy(x)[0], model.free_energy(x[0]))


def test_probabilities_of_a_float32_machine_are_rounded_once():
    """At |w| ~ 500 the float32 table of weights is off by 10⁻⁵, its exponentials with it."""
    model = brute.machine(8, 40.0, BIT, dtype=torch.float32)
    close(model.probabilities(), model.double().probabilities(), 1e-7)


def test_an_optimizer_keeps_it_symmetric_with_a_zero_diagonal():
    model = brute.machine(6, 0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = model.sample(50, seeded(1))
    for _ in range(20):
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()
    assert torch.equal(model.couplings, model.couplings.mT)
    assert not model.couplings.diagonal().any()


def test_a_state_dict_carries_all_of_it():
    model, other = brute.machine(5), brute.machine(5, 2.0, seed=2)
    other.constant.fill_(3.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.log_partition(), model.log_partition())
    assert set(model.state_dict()) == {"couplings", "biases", "constant"}


J, B = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(2)


@pytest.mark.parametrize(
    ("couplings", "biases", "words"),
    [
        (torch.zeros(2, 3), B, r"shape \(2, 3\); give a square matrix"),
        (torch.zeros(0, 0), torch.zeros(0), "give a square matrix"),
        (J, torch.zeros(3), "biases have shape"),
        (J * math.nan, B, r"couplings\[0, 0\] is nan"),
        (J, B + math.inf, r"biases\[0\] is inf"),
        (torch.tensor([[0.0, 1.0], [2.0, 0.0]]), B, r"couplings\[0, 1\] is 1 and couplings\[1, 0\] is 2"),
        (J + torch.eye(2), B, r"couplings\[0, 0\] is 1; the diagonal is zero"),
        (J, B.double(), "give both as one float dtype"),
        (J.long(), B.long(), "give both as one float dtype"),
        (J, B.to("meta"), "couplings is on cpu and biases on meta"),
    ],
)
def test_parameters_that_are_refused(couplings, biases, words):
    with pytest.raises(ValueError, match=words):
        BoltzmannMachine(couplings, biases)


SPINS = torch.ones(3, 4, dtype=F64)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m.energy(SPINS[:, :3]), "has 3 units on its last axis and the model 4"),
        (lambda m: m.energy(SPINS.float()), "pass s.to"),
        (lambda m: m.energy(SPINS * 0), r"s\[0, 0\] is 0, and the units take -1 and 1; pass 2 \* s - 1"),
        (lambda m: m.in_alphabet(BIT).energy(-SPINS), r"pass \(s \+ 1\) / 2"),
        (lambda m: m.energy(SPINS * math.nan), r"s\[0, 0\] is nan"),
        (lambda m: m.log_prob(SPINS[:0]), "at least one configuration"),
        (lambda m: m.field(SPINS.to("meta")), "s is on meta and model on cpu"),
        (lambda m: m.free_energy(torch.ones(1, 5, dtype=F64)), "pass at most the first 4"),
        (lambda m: m.marginal_log_prob(SPINS[:0]), "at least one configuration"),
        (lambda m: m.log_partition(math.nan), "give a finite inverse temperature"),
        (lambda m: m.log_partition(torch.ones((), requires_grad=True)), "beta requires a gradient"),
        (lambda m: m.log_partition(1.7e308), r"(couplings|biases)\[\d.*\] is -?inf"),
        (lambda m: m.thermodynamics(torch.ones(0)), "beta is empty"),
        (lambda m: parameters.check_names([0.0, 1.5], m.n), r"units are \[0.0, 1.5\]; name different ones from 0 to 3"),
        (lambda m: BoltzmannMachine(J, B, SPIN, math.nan), "constant is nan; give one finite number"),
        (lambda m: BoltzmannMachine(J, B, SPIN, torch.ones(2)), "give one finite number"),
        (lambda m: m.thermodynamics(0.0), "beta has the value 0"),
        (lambda m: m.marginal([1, 1]), "name different ones from 0 to 3"),
        (lambda m: m.marginal([4]), "name different ones"),
        (lambda m: m.marginal([]), "name different ones"),
        (lambda m: m.clamp([0], [0.5]), r"values\[0\] is 0.5"),
        (lambda m: m.clamp([0], [1, 1]), "give one value a unit"),
        (lambda m: m.clamp(range(4), SPINS[0]), "leave at least one"),
        (lambda m: m.sample(0, seeded(1)), "ask for at least one draw"),
        (lambda m: m.in_alphabet((1, 2)), "give SPIN = "),
        (lambda m: states(25), "n from 0 to 24"),
        (lambda m: states(3, (1, -1)), "give SPIN = "),
    ],
)
def test_calls_that_are_refused(ask, words):
    with pytest.raises(ValueError, match=words):
        ask(brute.machine(4))


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.log_partition(),
        lambda m: m.moments(),
        lambda m: m.marginal([0, 1]),
        lambda m: m.thermodynamics(1.0),
        lambda m: m.sample(2, seeded(1)),
        lambda m: m.log_prob(torch.ones(1, 60, dtype=F64)),
        lambda m: m.free_energy(torch.ones(1, 2, dtype=F64)),
        lambda m: m.marginal_log_prob(torch.ones(1, 30, dtype=F64)),
    ],
)
def test_too_many_units_are_refused_before_any_work(ask, monkeypatch):
    """No leaf is made and no table of states: the refusal comes first."""
    model = BoltzmannMachine(torch.zeros(60, 60, dtype=F64), torch.ones(60, dtype=F64))

    def never(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(enumeration, "leaves", never)
    monkeypatch.setattr(enumeration, "log_weights", never)
    with pytest.raises(ValueError, match=r"cannot enumerate n = (60|58) units: 2\^\d+ states; at most 44"):
        ask(model)


def test_probabilities_of_many_units_are_refused():
    model = BoltzmannMachine(torch.zeros(30, 30), torch.zeros(30))
    with pytest.raises(ValueError, match="at most 24 units are allowed; use marginal"):
        model.probabilities()
    with pytest.raises(ValueError, match="at most 24 are allowed"):
        model.marginal(range(25))


def test_a_limit_can_be_moved():
    model = brute.machine(6)
    with pytest.raises(ValueError, match="at most 5 are allowed here"):
        model.log_partition(limit=5)
    assert model.log_partition(limit=6).isfinite()
    with pytest.raises(ValueError, match="at most 5 are allowed here"):
        model.log_prob(states(6), limit=5)


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_spoiled_parameter_is_refused_and_not_cut_for_ever(n, value):
    model = BoltzmannMachine(torch.zeros(n, n, dtype=F64), torch.ones(n, dtype=F64))
    model.couplings.data[1, 2] = value
    asked = [model.log_partition, model.moments, lambda: model.marginal([0]), lambda: model.thermodynamics(1.0)]
    for ask in (*asked, lambda: model.sample(1, seeded(1)), lambda: model.free_energy(torch.ones(1, 1, dtype=F64))):
        with pytest.raises(ValueError, match=r"couplings\[\d, \d\] is (nan|inf)"):
            ask()


def test_the_limit_of_a_free_energy_counts_the_hidden_units():
    model = brute.machine(6)
    x = states(2)
    with pytest.raises(ValueError, match="cannot enumerate n = 4 units"):
        model.free_energy(x, limit=3)
    with pytest.raises(ValueError, match="cannot enumerate n = 6 units"):
        model.marginal_log_prob(x, limit=5)
    close(model.marginal_log_prob(x, limit=6).exp().sum(), 1.0)
