"""Classes and periods against scipy's strong components and the definition by powers of the matrix."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from lecturecode import seeded
from lecturecode.markov import MarkovChain
from lecturecode.markov.structure import class_period, classes, closed, reaching

f64 = torch.float64


def sparse_chain(n, arrows, seed):
    """Each state has `arrows` ways to go, drawn with replacement."""
    rng = seeded(seed)
    T = torch.zeros(n, n, dtype=f64)
    for j in range(n):
        for i in torch.randint(n, (arrows,), generator=rng).tolist():
            T[i, j] += 1 / arrows
    return T


def ring(n, **arrows):
    """k → k+1 round a ring, and half the time another arrow where one is named."""
    T = torch.eye(n, dtype=f64).roll(1, 0)
    for start, end in arrows.values():
        T[:, start] /= 2
        T[end, start] += 0.5
    return T


@pytest.mark.parametrize("n", [1, 7, 8, 9, 40, 130])
@pytest.mark.parametrize("arrows", [1, 2, 3])
def test_classes_are_the_strong_components(n, arrows):
    for seed in range(5):
        T = sparse_chain(n, arrows, seed)
        found: Any = connected_components((T.mT > 0).numpy(), directed=True, connection="strong")
        wanted = sorted(np.flatnonzero(found[1] == c).tolist() for c in range(found[0]))
        assert classes(T) == wanted
        leaves = [any(T[i, j] > 0 for j in c for i in range(n) if i not in c) for c in wanted]
        assert closed(T, wanted) == [c for c, out in zip(wanted, leaves, strict=True) if not out]
        reach = np.eye(n) + (T > 0).numpy()
        for _ in range(8):  # paths of up to 2⁸ arrows
            reach = np.minimum(reach @ reach, 1.0)
        assert reaching(T, [0, n - 1]) == np.flatnonzero((reach[0] > 0) | (reach[n - 1] > 0)).tolist()


def by_powers(T):
    """gcd of the lengths up to n² of the paths from state 0 back to it, in Boolean products."""
    A, reached, period = (T > 0).numpy(), np.eye(len(T), dtype=bool), 0
    for length in range(1, len(T) ** 2 + 1):
        reached = (A.astype(int) @ reached.astype(int)) > 0
        period = math.gcd(period, length) if reached[0, 0] else period
    return period


@pytest.mark.parametrize(
    ("T", "period"),
    [
        (ring(1), 1),
        (ring(12), 12),
        (ring(12, shortcut=(7, 0)), 4),
        (ring(12, shortcut=(6, 0)), 1),
        (ring(12, shortcut=(8, 0), other=(5, 0)), 3),
        (ring(12, stay=(3, 3)), 1),
        (ring(9, shortcut=(2, 0)), 3),
    ],
)
def test_period_is_the_greatest_common_divisor_of_the_cycles(T, period):
    assert by_powers(T) == period
    assert class_period(T, list(range(len(T)))) == period
    turned = torch.randperm(len(T), generator=seeded(1))
    assert MarkovChain(T[turned][:, turned]).period == period


def test_period_of_several_classes_is_when_the_powers_come_to_rest():
    T = torch.zeros(6, 6, dtype=f64)
    T[:2, :2], T[2:5, 2:5] = ring(2), ring(3)
    T[0, 5] = T[2, 5] = 0.5
    chain = MarkovChain(T)
    assert chain.period == 6
    assert not chain.is_irreducible
    assert chain.communicating_classes == [[0, 1], [2, 3, 4], [5]]
    assert chain.closed_classes == [[0, 1], [2, 3, 4]]
    power = torch.linalg.matrix_power(T, 6)
    assert torch.equal(power @ power, power)
    for d in range(1, 6):
        assert not torch.equal(torch.linalg.matrix_power(T, 12 + d), torch.linalg.matrix_power(T, 12))


def test_an_arrow_counts_however_small():
    T = torch.tensor([[1.0, 1e-300], [0.0, 1.0]], dtype=f64)
    assert MarkovChain(T).closed_classes == [[0]]


def test_devices(device, dtype):
    T = sparse_chain(40, 2, 3)
    T = T.to(device, dtype)
    parts = classes(T)
    assert parts == classes(T.to("cpu"))
    assert closed(T, parts) == closed(T.to("cpu"), parts)
