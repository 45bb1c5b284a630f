"""Exact matrices: against plain loops, invariant and reversible where theory says so, and what the draws follow.

A kernel's own matrix is held three ways: entry by entry against `small_chains`, whose loops know nothing of the
library; on eight units against the target; and against 5,000 draws from each state.
"""

import itertools
import math

import pytest
import torch
from small_chains import (
    BIT,
    SPIN,
    all_states,
    conditional_of,
    gibbs_matrix,
    metropolis_matrix,
    one_after_another,
    random_energy,
    sweep_of,
    target,
)

from lecturecode import seeded
from lecturecode.boltzmann import BoltzmannMachine, ising
from lecturecode.markov import (
    Exact,
    block_gibbs,
    flip,
    gibbs,
    in_turn,
    metropolis,
    parallel_tempering,
    run,
    standard_error,
    transition_matrix,
)
from lecturecode.markov.exact import locate
from lecturecode.rng import uniform

f64 = torch.float64
N = 3
DRAWS = 5_000
BLOCKS = [[0, 2], [1]]


@pytest.fixture(autouse=True)
def one_thread():
    """Thousands of small products: a second thread costs more than it brings, and far more where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def joint_matrix(p, block, n):
    """All units of the block are drawn anew, together."""
    T = torch.zeros(2**n, 2**n, dtype=f64)
    mask = sum(1 << unit for unit in block)
    for j in range(2**n):
        reached = [i for i in range(2**n) if i & ~mask == j & ~mask]
        for i in reached:
            T[i, j] = p[i] / sum(p[k] for k in reached)
    return T


class Upwards:
    """An asymmetric proposal: a unit chosen uniformly is set to its upper value with probability 0.8, else lower."""

    def __init__(self, alphabet):
        self.alphabet = alphabet

    def __call__(self, x, rng):
        n = x.shape[-1]
        chosen = (uniform((*x.shape[:-1], 1), rng, x) * n).long() == torch.arange(n)
        high = uniform((*x.shape[:-1], 1), rng, x) < 0.8
        return torch.where(chosen, torch.where(high, self.alphabet[1], self.alphabet[0]).to(x.dtype), x)

    def log_prob(self, to, x):
        """Of one unit that moves; what is the same for both directions is left out."""
        return math.log(0.2) + math.log(4) * ((to - x).sum(-1) > 0).to(x.dtype)

    def matrix(self, states):
        n = states.shape[-1]
        T = torch.zeros(2**n, 2**n, dtype=f64)
        for j, unit, value in itertools.product(range(2**n), range(n), (0, 1)):
            i = j & ~(1 << unit) | value << unit
            T[i, j] += (0.2, 0.8)[value] / n
        return T


def hastings_matrix(p, n):
    """Moves up are proposed four times as often as moves down: min(1, p′/4p) up and min(1, 4p′/p) down."""
    T = torch.zeros(2**n, 2**n, dtype=f64)
    for j, unit in itertools.product(range(2**n), range(n)):
        i = j ^ (1 << unit)
        up = i > j
        T[i, j] = (0.8 if up else 0.2) / n * min(1.0, float(p[i] / p[j]) * (0.25 if up else 4))
    return T + torch.diag(1 - T.sum(0))


# name: (kernel of an energy and an alphabet, its matrix by plain loops, whether it is reversible)
KERNELS = {
    "gibbs": (
        lambda e, a: gibbs(conditional_of(e, a), a),
        lambda p, n: sweep_of([gibbs_matrix(p, i, n) for i in range(n)]),
        False,
    ),
    "gibbs, there and back": (
        lambda e, a: in_turn([gibbs(conditional_of(e, a), a, [[i]]) for i in (0, 1, 2, 1, 0)]),
        lambda p, n: sweep_of([gibbs_matrix(p, i, n) for i in (0, 1, 2, 1, 0)]),
        True,
    ),
    "gibbs, random scan": (
        lambda e, a: gibbs(conditional_of(e, a), a, scan="random"),
        lambda p, n: torch.stack([gibbs_matrix(p, i, n) for i in range(n)]).mean(0),
        True,
    ),
    "gibbs, random scan of some": (
        lambda e, a: gibbs(conditional_of(e, a), a, [[2], [0]], scan="random"),
        lambda p, n: torch.stack([gibbs_matrix(p, i, n) for i in (2, 0)]).mean(0),
        True,
    ),
    "block gibbs": (
        lambda e, a: block_gibbs(e, a, BLOCKS),
        lambda p, n: sweep_of([joint_matrix(p, block, n) for block in BLOCKS]),
        False,
    ),
    "block gibbs, random scan": (
        lambda e, a: block_gibbs(e, a, BLOCKS, scan="random"),
        lambda p, n: torch.stack([joint_matrix(p, block, n) for block in BLOCKS]).mean(0),
        True,
    ),
    "one block": (lambda e, a: block_gibbs(e, a, [[0, 1]]), lambda p, n: joint_matrix(p, [0, 1], n), True),
    "metropolis": (
        lambda e, a: metropolis(e, flip(a)),
        lambda p, n: torch.stack([metropolis_matrix(p, i, n) for i in range(n)]).mean(0),
        True,
    ),
    "metropolis sweep": (
        lambda e, a: in_turn([metropolis(e, flip(a, i)) for i in range(len_of(e))]),
        lambda p, n: sweep_of([metropolis_matrix(p, i, n) for i in range(n)]),
        False,
    ),
    "metropolis–hastings": (
        lambda e, a: metropolis(e, Upwards(a), Upwards(a).log_prob),
        hastings_matrix,
        True,
    ),
}


def energy_of(n, seed=1):
    energy = random_energy(n, seed)
    energy.units = n
    return energy


def len_of(energy):
    return energy.units


@pytest.mark.parametrize("alphabet", [SPIN, BIT])
@pytest.mark.parametrize("name", KERNELS)
def test_a_matrix_is_that_of_plain_loops(name, alphabet):
    """Three units, entry by entry, to 1e-14."""
    kernel, matrix, _ = KERNELS[name]
    energy = energy_of(N)
    T = transition_matrix(kernel(energy, alphabet), all_states(alphabet, N))
    assert torch.allclose(T, matrix(target(energy, alphabet, N), N), rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_the_target_is_invariant_and_which_are_reversible(name, seed):
    """Eight units, 256 states: T p = p to 1e-12; T_ij p_j = T_ji p_i to 1e-12 for some, off by 1e-6 for the others."""
    kernel, _, reversible = KERNELS[name]
    energy, n = energy_of(8, seed), 8
    p = target(energy, SPIN, n)
    T = transition_matrix(kernel(energy, SPIN), all_states(SPIN, n))
    assert (T.sum(0) - 1).abs().max() < 1e-12
    assert (T @ p - p).abs().max() < 1e-12
    flow = T * p
    assert (flow - flow.mT).abs().max() < 1e-12 if reversible else (flow - flow.mT).abs().max() > 1e-6


@pytest.mark.parametrize("name", KERNELS)
def test_draws_follow_the_matrix(name):
    """5,000 steps from each of 8 states: each entry within 5 standard errors of a binomial share, 0 and 1 exact."""
    energy = energy_of(N)
    kernel = KERNELS[name][0](energy, SPIN)
    states = all_states(SPIN, N)
    T = transition_matrix(kernel, states)
    ends = kernel(states.expand(DRAWS, -1, -1), seeded(7))
    assert (shares(states, ends) - T).abs().le(5 * (T * (1 - T) / DRAWS).clamp(min=0).sqrt() + 1e-12).all()


def shares(states, ends):
    """Of the draws from each state, how many end where."""
    place = locate(states, ends)
    return torch.stack([(place == i).double().mean(0) for i in range(len(states))])


def test_a_wrong_proposal_density_is_noticed():
    """Hastings' ratio the wrong way round leaves the target no longer invariant."""
    energy = energy_of(N)
    p = target(energy, SPIN, N)
    there = Upwards(SPIN)
    for wrong in (None, lambda to, x: there.log_prob(x, to)):
        T = transition_matrix(metropolis(energy, there, wrong), all_states(SPIN, N))
        assert (T @ p - p).abs().max() > 1e-3


def test_dependent_units_may_not_share_a_block_of_gibbs():
    """Drawn by their single conditionals at once they leave another distribution invariant; jointly they do not."""
    energy = energy_of(N)
    p = target(energy, SPIN, N)
    states = all_states(SPIN, N)
    together = transition_matrix(gibbs(conditional_of(energy, SPIN), SPIN, [[0, 1], [2]]), states)
    jointly = transition_matrix(block_gibbs(energy, SPIN, [[0, 1], [2]]), states)
    assert (together @ p - p).abs().max() > 1e-3
    assert (jointly @ p - p).abs().max() < 1e-15


def test_a_block_of_all_units_is_an_exact_draw():
    energy = energy_of(N)
    T = transition_matrix(block_gibbs(energy, SPIN, [[0, 1, 2]]), all_states(SPIN, N))
    assert torch.allclose(T, target(energy, SPIN, N)[:, None].expand(8, 8), rtol=0, atol=1e-15)


def test_a_sweep_is_its_steps():
    """in_turn draws what the kernels draw one after another."""
    energy = energy_of(N)
    steps = [metropolis(energy, flip(SPIN, i)) for i in range(N)]
    x = all_states(SPIN, N)
    assert torch.equal(in_turn(steps)(x, seeded(3)), one_after_another(steps)(x, seeded(3)))


# --- parallel tempering ----------------------------------------------------------------------------------------------

BETAS = [0.2, 0.7, 1.1]


def tempered(energy, n, betas=BETAS, rule="metropolis"):
    def kernel(beta):
        def scaled(x):
            return beta * energy(x)

        return metropolis(scaled, flip(SPIN)) if rule == "metropolis" else gibbs(conditional_of(scaled, SPIN), SPIN)

    return parallel_tempering(lambda x, beta: beta * energy(x), kernel, betas)


def product_space(n, replicas):
    """All states of all replicas, the numbers of the single states, and the target's weights."""
    numbers = list(itertools.product(range(2**n), repeat=replicas))
    return all_states(SPIN, n)[torch.tensor(numbers)], numbers


def tempering_matrix(energy, n, betas):
    """By loops: each replica by its own Metropolis step, then the pairs (0,1), (2,3), …, then (1,2), …"""
    K = len(betas)
    levels = [float(energy(s)) for s in all_states(SPIN, n)]
    single = []
    for beta in betas:
        p = target(lambda s, beta=beta: beta * energy(s), SPIN, n)
        single.append(torch.stack([metropolis_matrix(p, i, n) for i in range(n)]).mean(0))
    _, numbers = product_space(n, K)
    place = {state: row for row, state in enumerate(numbers)}
    moves = torch.zeros(len(numbers), len(numbers), dtype=f64)
    for (i, to), (j, start) in itertools.product(enumerate(numbers), repeat=2):
        moves[i, j] = math.prod(float(single[k][to[k], start[k]]) for k in range(K))
    steps = [moves]
    for k in [*range(0, K - 1, 2), *range(1, K - 1, 2)]:
        T = torch.zeros_like(moves)
        for j, start in enumerate(numbers):
            swapped = list(start)
            swapped[k], swapped[k + 1] = start[k + 1], start[k]
            chance = min(1.0, math.exp((betas[k + 1] - betas[k]) * (levels[start[k + 1]] - levels[start[k]])))
            T[place[tuple(swapped)], j] += chance
            T[j, j] += 1 - chance
        steps.append(T)
    return sweep_of(steps)


@pytest.mark.parametrize("betas", [[0.2, 1.0], [0.0, 0.7, 1.1]])
def test_tempering_is_that_of_plain_loops(betas):
    """Two spins, two and three replicas: entry by entry, and 5,000 draws from each state of the two (5σ)."""
    energy = random_energy(2, 5)
    states, _ = product_space(2, len(betas))
    kernel = tempered(energy, 2, betas)
    T = transition_matrix(kernel, states)
    assert torch.allclose(T, tempering_matrix(energy, 2, betas), rtol=0, atol=1e-14)
    if len(betas) == 2:
        share = shares(states, kernel(states.expand(DRAWS, -1, -1, -1), seeded(9)))
        assert ((share - T).abs() <= 5 * (T * (1 - T) / DRAWS).clamp(min=0).sqrt() + 1e-12).all()


@pytest.mark.parametrize("rule", ["metropolis", "gibbs"])
def test_tempering_leaves_the_product_invariant(rule):
    """Three spins at three temperatures, 512 states: to 1e-12; moves and then swaps are not reversible together."""
    energy = random_energy(3, 4)
    states, numbers = product_space(3, 3)
    each = [target(lambda s, beta=beta: beta * energy(s), SPIN, 3) for beta in BETAS]
    p = torch.tensor([math.prod(float(each[k][number[k]]) for k in range(3)) for number in numbers], dtype=f64)
    T = transition_matrix(tempered(energy, 3, rule=rule), states)
    assert (T @ p - p).abs().max() < 1e-12
    assert ((T * p) - (T * p).mT).abs().max() > 1e-5


def test_tempering_crosses_where_one_temperature_does_not():
    """Two deep wells, three spins all up or all down: the gap 1 − |μ_2| of the cold kernel's matrix is below a tenth of
    that of two replicas together."""
    energy = lambda s: -4.0 * (s.sum(-1) / 3) ** 2 * 3  # noqa: E731
    states, _ = product_space(3, 2)
    gaps = []
    for T in (
        transition_matrix(gibbs(conditional_of(energy, SPIN), SPIN), all_states(SPIN, 3)),
        transition_matrix(tempered(energy, 3, [0.0, 1.0], rule="gibbs"), states),
    ):
        gaps.append(1 - float(torch.linalg.eigvals(T).abs().sort().values[-2]))
    assert gaps[0] < 0.1 * gaps[1]


# --- the 4×4 magnet --------------------------------------------------------------------------------------------------

MAGNET = ising(4, 4, coupling=0.44, field=0.05).requires_grad_(False)
COLOURS = [[r * 4 + c for r in range(4) for c in range(4) if (r + c) % 2 == k] for k in (0, 1)]
SQUARES = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
CASES = {
    "gibbs": (gibbs(MAGNET.conditional, SPIN), 1),
    "gibbs by colours": (gibbs(MAGNET.conditional, SPIN, COLOURS), 1),
    "gibbs, random scan": (gibbs(MAGNET.conditional, SPIN, scan="random"), 10),
    "block gibbs": (block_gibbs(MAGNET.energy, SPIN, SQUARES), 1),
    "block gibbs, random scan": (block_gibbs(MAGNET.energy, SPIN, SQUARES, scan="random"), 4),
    "metropolis": (metropolis(MAGNET.energy, flip(SPIN)), 10),
    "metropolis sweep": (in_turn([metropolis(MAGNET.energy, flip(SPIN, i)) for i in range(16)]), 1),
    "metropolis–hastings": (metropolis(MAGNET.energy, Upwards(SPIN), Upwards(SPIN).log_prob), 10),
    "parallel tempering": (
        parallel_tempering(
            lambda x, beta: beta * MAGNET.energy(x),
            lambda beta: gibbs(lambda x: torch.sigmoid(2 * beta * MAGNET.field(x)), SPIN, COLOURS),
            [0.25, 0.6, 1.0],
        ),
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_energy_of_the_magnet(name):
    """100 chains of 80 kept states near criticality: ⟨E⟩ and ⟨m⟩ of enumeration within 5 of the run's own errors."""
    kernel, thin = CASES[name]
    x = torch.where(torch.rand(100, 16, generator=seeded(1), dtype=f64) < 0.5, -1.0, 1.0).double()
    if name == "parallel tempering":
        x = x[:, None].repeat(1, 3, 1)
    walk = run(kernel, x, 80 * thin, seeded(2), burn_in=40 * thin, thin=thin)
    cold = torch.stack([x[:, -1] if x.ndim == 3 else x for x in walk])
    seen = torch.stack([MAGNET.energy(cold), cold.mean(-1)], -1)
    exact = torch.stack([MAGNET.thermodynamics(1.0).energy, MAGNET.moments().mean.mean()])
    error = standard_error(seen)
    assert (error[0] > 0.01).item()
    assert (error[0] < 0.5).item()
    assert ((seen.mean((0, 1)) - exact).abs() < 5 * error).all()


# --- at the door -----------------------------------------------------------------------------------------------------


def test_any_object_with_a_matrix_will_do():
    """The protocol; and a machine of the other package through its callables alone."""
    assert isinstance(Upwards(SPIN), Exact)
    machine = BoltzmannMachine(torch.zeros(2, 2, dtype=f64), torch.tensor([0.3, -0.2], dtype=f64))
    T = transition_matrix(gibbs(machine.requires_grad_(False).conditional, SPIN), all_states(SPIN, 2))
    assert torch.allclose(T, machine.probabilities()[:, None].expand(4, 4))


def test_a_proposals_own_matrix_is_left_as_it_is():
    Q = torch.full((8, 8), 1 / 8, dtype=f64)

    class Anywhere:
        def __call__(self, x, rng):
            return torch.where(uniform(tuple(x.shape), rng, x) < 0.5, -1.0, 1.0).to(x.dtype)

        def matrix(self, states):
            return Q

    T = transition_matrix(metropolis(ENERGY, Anywhere()), STATES)
    p = target(ENERGY, SPIN, N)
    assert (T @ p - p).abs().max() < 1e-15
    assert (Q == 1 / 8).all()


def test_the_order_of_the_states_is_the_callers():
    energy = energy_of(N)
    states = all_states(SPIN, N)
    order = torch.randperm(8, generator=seeded(1))
    for name in KERNELS:
        if name != "metropolis–hastings":  # the proposal of this file knows one order only
            kernel = KERNELS[name][0](energy, SPIN)
            T = transition_matrix(kernel, states)
            assert torch.allclose(transition_matrix(kernel, states[order]), T[order][:, order], rtol=0, atol=1e-15)


def test_states_are_located_by_value():
    states = all_states(SPIN, 3)
    asked = states[torch.tensor([[5, 0], [7, 5]])]
    assert locate(states, asked).tolist() == [[5, 0], [7, 5]]


class Leaking:
    def matrix(self, states):
        return torch.eye(len(states), dtype=states.dtype) / 2

    def __call__(self, x, rng):
        return x


class Odd(Leaking):
    def matrix(self, states):
        return torch.eye(3)


ENERGY = energy_of(N)
STATES = all_states(SPIN, N)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: transition_matrix(lambda x, rng: x, STATES), r"has no method matrix\(states\)"),
        (
            lambda: transition_matrix(metropolis(ENERGY, lambda x, rng: -x), STATES),
            r"has no method matrix\(states\)",
        ),
        (lambda: transition_matrix(flip(SPIN), STATES[[0, 1, 1]]), "a state stands twice among the 3"),
        (
            lambda: transition_matrix(flip(SPIN), STATES[:7]),
            r"\[1.0, 1.0, 1.0\] can be reached and is not among the 7 states",
        ),
        (lambda: transition_matrix(Leaking(), STATES), "the transposed matrix sums to 0.5"),
        (lambda: transition_matrix(Odd(), STATES), r"has shape \(3, 3\), not \(8, 8\)"),
        (lambda: in_turn([]), "kernels is empty"),
        (lambda: gibbs(torch.sigmoid, SPIN, scan="alphabetic"), "scan is 'alphabetic'; give 'systematic' or 'random'"),
        (lambda: block_gibbs(ENERGY, SPIN, [[0], [0, 1]]), "name each unit once"),
        (lambda: block_gibbs(ENERGY, (1, -1), [[0]]), r"alphabet is \(1, -1\)"),
        (lambda: block_gibbs(ENERGY, SPIN, [[3]])(STATES, seeded(1)), "unit is 3, and x has the units 0 … 2"),
        (lambda: block_gibbs(lambda x: x.sum(-1) * math.nan, SPIN, [[0]])(STATES, seeded(1)), "an energy is NaN"),
        (lambda: tempered(ENERGY, 3, [1.0]), "betas has 1 values; give at least two"),
        (lambda: tempered(ENERGY, 3, [0.5, 0.5]), r"betas\[1\] is 0.5 after 0.5; they must rise"),
        (lambda: tempered(ENERGY, 3, [-0.5, 0.5]), r"betas\[0\] is -0.5; give a finite inverse temperature"),
        (lambda: tempered(ENERGY, 3, [0.5, math.inf]), r"betas\[1\] is inf"),
        (lambda: tempered(ENERGY, 3)(STATES, seeded(1)), r"x has shape \(8, 3\); its last two axes must be 3 replicas")
        if len(BETAS) != N
        else (lambda: tempered(ENERGY, 3)(STATES[:2], seeded(1)), r"x has shape \(2, 3\)"),
        (
            lambda: parallel_tempering(lambda x, b: x.sum(-1) * math.nan, lambda b: flip(SPIN), [0, 1])(
                STATES[:, None].repeat(1, 2, 1), seeded(1)
            ),
            "a difference of energies is NaN",
        ),
    ],
)
def test_errors_at_the_door(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_pure(name):
    """The same generator, the same step; x is left as it was; any leading axes."""
    kernel = KERNELS[name][0](energy_of(N), SPIN)
    x = all_states(SPIN, N).reshape(2, 4, N)
    before = x.clone()
    assert torch.equal(kernel(x, seeded(5)), kernel(x, seeded(5)))
    assert kernel(x, seeded(5)).shape == x.shape
    assert kernel(x[0, 0], seeded(5)).shape == (N,)
    assert torch.equal(x, before)


def test_devices_and_precisions(device, dtype):
    """Dtype and device follow x, from one CPU seed."""
    machine = ising(2, 3, coupling=0.3, dtype=dtype).requires_grad_(False).to(device)
    x = torch.ones(5, 6, dtype=dtype, device=device)
    for kernel in (
        gibbs(machine.conditional, SPIN, scan="random"),
        block_gibbs(machine.energy, SPIN, [[0, 1], [5]]),
        block_gibbs(machine.energy, SPIN, [[0, 1], [5]], scan="random"),
        in_turn([metropolis(machine.energy, flip(SPIN)), flip(SPIN)]),
    ):
        moved = kernel(x, seeded(2))
        assert moved.dtype == dtype
        assert moved.device.type == device.type
    replicas = parallel_tempering(lambda x, beta: beta * machine.energy(x), lambda beta: flip(SPIN), [0.5, 1])(
        x[:, None].repeat(1, 2, 1), seeded(3)
    )
    assert replicas.dtype == dtype
    assert replicas.shape == (5, 2, 6)
