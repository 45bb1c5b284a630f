"""Chains on all states of a few units, written out in plain loops: what kernels and annealing are held against.

T[i, j] = Pr(j → i) from the definitions of Gibbs' and Metropolis' rule, one unit at a time; bit i of a state's number
is unit i.
"""

import math

import torch

from lecturecode import seeded

f64 = torch.float64
SPIN, BIT = (-1.0, 1.0), (0.0, 1.0)


def all_states(alphabet, n):
    """Bit i of the row number is unit i."""
    rows = [[alphabet[(k >> i) & 1] for i in range(n)] for k in range(2**n)]
    return torch.tensor(rows, dtype=f64)


def random_energy(n, seed=1):
    """E(s) = −½ sᵀJs − bᵀs for fixed random J and b."""
    rng = seeded(seed)
    J = torch.randn(n, n, generator=rng, dtype=f64)
    J = (J + J.mT).fill_diagonal_(0)
    b = torch.randn(n, generator=rng, dtype=f64)

    def energy(s):
        return -0.5 * ((s @ J.to(s.dtype)) * s).sum(-1) - s @ b.to(s.dtype)

    return energy


def conditional_of(energy, alphabet):
    """p(upper | rest) of each unit, from two energies."""

    def conditional(s):
        columns = []
        for i in range(s.shape[-1]):
            low, high = s.clone(), s.clone()
            low[..., i], high[..., i] = alphabet
            columns.append(torch.sigmoid(energy(low) - energy(high)))
        return torch.stack(columns, -1)

    return conditional


def target(energy, alphabet, n):
    weights = [math.exp(-float(energy(s))) for s in all_states(alphabet, n)]
    return torch.tensor([w / math.fsum(weights) for w in weights], dtype=f64)


def gibbs_matrix(p, unit, n):
    """Unit i is drawn anew: from j to j with unit i set, by the two probabilities that p gives to this pair."""
    T = torch.zeros(2**n, 2**n, dtype=f64)
    for j in range(2**n):
        off, on = j & ~(1 << unit), j | (1 << unit)
        for i in (off, on):
            T[i, j] += p[i] / (p[off] + p[on])
    return T


def metropolis_matrix(p, unit, n):
    """Unit i is flipped with probability min(1, p′/p)."""
    T = torch.zeros(2**n, 2**n, dtype=f64)
    for j in range(2**n):
        accept = min(1.0, float(p[j ^ (1 << unit)] / p[j]))
        T[j ^ (1 << unit), j] += accept
        T[j, j] += 1 - accept
    return T


def sweep_of(matrices):
    """The product, the first step rightmost."""
    T = torch.eye(len(matrices[0]), dtype=f64)
    for step in matrices:
        T = step @ T
    return T


def one_after_another(kernels):
    def swept(x, rng):
        for kernel in kernels:
            x = kernel(x, rng)
        return x

    return swept
