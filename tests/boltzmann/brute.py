"""Boltzmann machines the long way: every configuration in Python, its weight in fifty digits."""

import itertools

import mpmath
import torch

from lecturecode import seeded
from lecturecode.boltzmann import SPIN, BoltzmannMachine

DIGITS = 50


def machine(n, scale=1.0, alphabet=SPIN, seed=1, dtype=torch.float64, biases=True):
    """Couplings and biases N(0, scale²)."""
    rng = seeded(seed)
    couplings = (scale * torch.randn(n, n, generator=rng, dtype=torch.float64)).triu(1)
    b = scale * torch.randn(n, generator=rng, dtype=torch.float64) * biases
    return BoltzmannMachine((couplings + couplings.mT).to(dtype), b.to(dtype), alphabet, 0.25)


def weights(model, beta=1.0):
    """[(configuration, e^{−βE} in fifty digits)], unit 0 turning fastest."""
    with mpmath.workdps(DIGITS):
        j = [[mpmath.mpf(x) for x in row] for row in model.couplings.tolist()]
        b = [mpmath.mpf(x) for x in model.biases.tolist()]
        found = []
        for turned in itertools.product(model.alphabet, repeat=model.n):
            s = turned[::-1]
            pairs = sum(j[i][k] * s[i] * s[k] for i in range(model.n) for k in range(i))
            w = pairs + sum(b[i] * s[i] for i in range(model.n)) + mpmath.mpf(float(model.constant))
            found.append((s, mpmath.exp(mpmath.mpf(beta) * w)))
        return found


def log_partition(model, beta=1.0):
    with mpmath.workdps(DIGITS):
        return float(mpmath.log(mpmath.fsum(f for _, f in weights(model, beta))))


def average(model, g, beta=1.0):
    """⟨g(s)⟩ as a float."""
    with mpmath.workdps(DIGITS):
        found = weights(model, beta)
        z = mpmath.fsum(f for _, f in found)
        return float(mpmath.fsum(f * g(s) for s, f in found) / z)
