"""The answers, the plausible wrong answers and the solutions' claims of the page on one magnet and four models."""

import itertools
import math
import tomllib
from importlib.resources import files

import pytest
import torch
from answers import assert_computed, assert_hints

from lecturecode import kl
from lecturecode.boltzmann import ising, states

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/one_magnet_four_models.toml").read_text(encoding="utf-8"))
PAIRS = math.comb(16, 2)


def orbits(turn=True):
    """The orbits of a ring of four, by the smallest word that shifts, reflections and turning make of each."""
    found = set()
    for s in itertools.product((0, 1), repeat=4):
        words = [w for k in range(4) for w in (s[k:] + s[:k], (s[k:] + s[:k])[::-1])]
        words += [tuple(1 - v for v in w) for w in words] if turn else []
        found.add(min(words))
    return found


def energies():
    return {sum(1 - 2 * (s[i] ^ s[(i + 1) % 4]) for i in range(4)) for s in itertools.product((0, 1), repeat=4)}


def price(spins=16, half=0.5, capacity=0.815, delta=0.1, heat=2.4):
    return half * spins * delta**2 / heat**2 / capacity


COMPUTED = {
    "cap-examples": ((16 + PAIRS) / 0.002, [(16 + PAIRS) / 0.001, PAIRS / 0.002]),
    "cap-evidence": (math.tanh(math.atanh(0.5) + 0.3), [math.tanh(0.5 + 0.3), 0.5 + 0.3]),
    "cap-ring": (len(orbits()), [len(orbits(turn=False)), len(energies())]),
    "cap-counts": ((2**16 - 1) / 0.02, [(2**16 - 1) / 0.01, 16 / 0.02]),
    "cap-energy": (price(), [price(spins=1), price(half=1.0)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_examples():
    assert 1 / (2 * 0.001) == 500


def test_solution_of_the_spin_and_its_neighbours():
    assert COMPUTED["cap-evidence"][0] == pytest.approx(0.6907, abs=5e-5)


def test_solution_of_the_ring():
    assert orbits() == {(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 0, 1)}
    broken = [sum(s[i] ^ s[(i + 1) % 4] for i in range(4)) for s in sorted(orbits())]
    assert broken == [0, 2, 2, 4]


def test_solution_of_the_counts():
    """In the cold half of all states weigh less than one draw in 3,276,750 would find."""
    with torch.no_grad():
        p = (-ising(4, 4, periodic=True).energy(states(16)) / 1.7).softmax(0)
    assert p.median() * 3_276_750 < 1


def test_solution_of_the_wrong_energy():
    """The heat capacity, and the price by itself for a small error of the energy."""
    magnet = ising(4, 4, periodic=True)
    with torch.no_grad():
        E, beta = magnet.energy(states(16)), 1 / 2.4
        p = (-beta * E).softmax(0)
        assert magnet.thermodynamics(torch.tensor([beta]).double()).heat_capacity[0] / 16 == pytest.approx(
            0.815, abs=5e-4
        )
        near = (-(beta - 1e-4) * E).softmax(0)
        delta = ((near - p) @ E).item() / 16
    assert kl(near, p).item() == pytest.approx(price(delta=delta), rel=1e-3)
    assert price() == pytest.approx(0.0170, abs=5e-5)
