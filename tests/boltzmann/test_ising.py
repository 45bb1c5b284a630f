"""The magnet on a lattice: which sites are bound, how strongly, and its closed forms."""

import itertools
import math

import pytest
import torch

from lecturecode.boltzmann import SPIN, ising

F64 = torch.float64


def bonds(rows, columns, periodic):
    """The bonds of the definition, each as often as it is there."""
    found = []
    for r, c in itertools.product(range(rows), range(columns)):
        for r2, c2 in ((r + 1, c), (r, c + 1)):
            if periodic:
                r2, c2 = r2 % rows, c2 % columns
            if (r2, c2) != (r, c) and r2 < rows and c2 < columns:
                found.append((r * columns + c, r2 * columns + c2))
    return found


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 1), (1, 5), (2, 2), (2, 4), (3, 3), (4, 5)])
def test_the_bonds(rows, columns, periodic):
    machine = ising(rows, columns, 0.7, -0.3, periodic)
    J = torch.zeros(rows * columns, rows * columns, dtype=F64)
    for i, j in bonds(rows, columns, periodic):
        J[i, j] += 0.7
        J[j, i] += 0.7
    torch.testing.assert_close(machine.couplings.detach(), J, rtol=1e-15, atol=0)
    assert machine.biases.tolist() == [-0.3] * (rows * columns)
    assert machine.alphabet == SPIN


def test_a_torus_has_two_bonds_a_site_and_a_side_of_two_binds_twice():
    assert ising(4, 5, periodic=True).couplings.sum().item() == 2 * 2 * 20
    assert ising(4, 5).couplings.sum().item() == 2 * (4 * 4 + 3 * 5)
    assert ising(2, 2, periodic=True).couplings.unique().tolist() == [0, 2]
    assert ising(2, 3, periodic=True).couplings.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("field", [0.0, 0.4])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_ring_is_the_trace_of_its_transfer_matrix(n, field):
    """λ± = e^K cosh b ± √(e^2K sinh²b + e^−2K)."""
    K = 0.6
    root = math.sqrt(math.exp(2 * K) * math.sinh(field) ** 2 + math.exp(-2 * K))
    upper, lower = (math.exp(K) * math.cosh(field) + sign * root for sign in (1, -1))
    ring = ising(1, n, K, field, periodic=True)
    assert ring.log_partition().item() == pytest.approx(math.log(upper**n + lower**n), rel=1e-13)


def test_the_open_chain():
    assert ising(1, 9, 0.6).log_partition().item() == pytest.approx(math.log(2**9 * math.cosh(0.6) ** 8), rel=1e-14)


def test_the_aligned_states_are_lowest_and_the_chequerboard_highest():
    machine = ising(4, 4, periodic=True)
    up = torch.ones(16, dtype=F64)
    board = torch.tensor([(-1.0) ** (r + c) for r, c in itertools.product(range(4), range(4))], dtype=F64)
    assert machine.energy(torch.stack([up, -up, board])).tolist() == [-32, -32, 32]


def test_precision():
    assert ising(2, 3, dtype=torch.float32).couplings.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": 0, "columns": 3}, "0 × 3 has no sites"),
        ({"rows": 2, "columns": 2, "coupling": math.nan}, "coupling is nan"),
        ({"rows": 2, "columns": 2, "field": math.inf}, "field is inf"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(ValueError, match=words):
        ising(**arguments)
