"""What grading asks about "a-small-magnet": hidden inputs from a seed, references by counting and long decimals."""

import itertools
from decimal import Decimal, localcontext

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(72)


def counted(couplings: np.ndarray, beta: float) -> np.ndarray:
    """⟨s_i s_j⟩ over all 2^L configurations, one after the other."""
    length = len(couplings) + 1
    total, table = 0.0, np.zeros((length, length))
    for s in itertools.product((-1, 1), repeat=length):
        weight = np.exp(beta * sum(j * a * b for j, a, b in zip(couplings, s, s[1:], strict=False)))
        total += weight
        table += weight * np.outer(s, s)
    return table / total


def by_decimals(couplings: np.ndarray, biases: np.ndarray, beta: float) -> float:
    """log Z from the product of 2×2 matrices, in numbers of forty digits and any size."""
    with localcontext() as context:
        context.prec = 40
        context.Emax, context.Emin = 10**12, -(10**12)
        exact = [Decimal(float(beta)) * Decimal(float(b)) for b in biases]
        bonds = [Decimal(float(beta)) * Decimal(float(j)) for j in couplings]
        sums = {s: (s * exact[-1]).exp() for s in (-1, 1)}  # over everything to the right
        for bond, bias in zip(reversed(bonds), reversed(exact[:-1]), strict=True):
            factor = {sign: (sign * bond).exp() for sign in (-1, 1)}
            sums = {s: (s * bias).exp() * (factor[-s] * sums[-1] + factor[s] * sums[1]) for s in (-1, 1)}
        return float((sums[-1] + sums[1]).ln())


def square(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies and counts from the bits of whole numbers: a bond is broken where two neighbouring bits differ."""
    n = rows * columns
    word = np.arange(2**n)
    bonds = [(k, k + 1) for k in range(n) if (k + 1) % columns] + [(k, k + columns) for k in range(n - columns)]
    broken = sum(((word >> i) ^ (word >> j)) & 1 for i, j in bonds)
    counts = np.bincount(broken)
    levels = np.flatnonzero(counts)
    return 2.0 * levels - len(bonds), counts[levels].astype(float)


def long_sums(energies: np.ndarray, counts: np.ndarray, beta: float) -> tuple[float, float, float]:
    """U, S and C from plain sums of sixty digits: S = −Σ p log p over configurations."""
    with localcontext() as context:
        context.prec = 60
        context.Emax, context.Emin = 10**12, -(10**12)
        e, g, b = [Decimal(float(v)) for v in energies], [Decimal(float(v)) for v in counts], Decimal(beta)
        f = [(-b * v).exp() for v in e]
        z = sum(w * v for w, v in zip(g, f, strict=True))
        p = [v / z for v in f]
        share = [w * v for w, v in zip(g, p, strict=True)]
        mean = sum(v * w for v, w in zip(e, share, strict=True))
        second = sum(v * v * w for v, w in zip(e, share, strict=True))
        entropy = -sum(w * v.ln() for w, v in zip(share, p, strict=True))
        return float(mean), float(entropy), float(b * b * (second - mean * mean))


def chain(length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    return scale * DRAW.normal(size=length - 1), scale * DRAW.normal(size=length)


with_zero = DRAW.normal(size=8)
with_zero[3] = 0.0
CHAINS = [(DRAW.normal(size=4), 0.9), (with_zero, 0.6), (2 * DRAW.random(9) - 0.5, 1.3)]
LONG = [(*chain(6, 1.0), 0.8), (*chain(40, 0.5), 2.0), (*chain(300, 1.0), 40.0), (*chain(2, 1.0), 0.3)]
TABLES = [
    (*square(3, 3), 0.5),
    (*square(2, 4), 1.1),
    (*square(3, 4), 50.0),  # so cold that C is nothing
    (np.array([-3.0, 0.5, 2.0]), np.array([1.0, 5, 2]), 0.7),
    (np.array([400.0, 400.5, 402.0, 403.0]), np.array([3.0, 1, 40, 100]), 2.2),
]
as_tensor = torch.from_numpy

QUESTIONS = (
    Question(
        "correlations-check",
        "correlations(couplings, beta)",
        tuple(Case({"couplings": as_tensor(j), "beta": b}, counted(j, b)) for j, b in CHAINS),
        points=3,
    ),
    Question(
        "log-partition-check",
        "log_partition(couplings, biases, beta)",
        tuple(
            Case({"couplings": as_tensor(j), "biases": as_tensor(h), "beta": b}, by_decimals(j, h, b))
            for j, h, b in LONG
        ),
        points=4,
    ),
    Question(
        "levels-check",
        "levels(rows, columns)",
        tuple(
            Case({"rows": r, "columns": c}, square(r, c)) for r, c in ((3, 3), (2, 5), (3, 4), (4, 2), (6, 1), (7, 2))
        ),
        points=3,
    ),
    Question(
        "observe-check",
        "observe(energies, counts, beta)",
        tuple(
            Case({"energies": as_tensor(e), "counts": as_tensor(g), "beta": b}, long_sums(e, g, b))
            for e, g, b in TABLES
        ),
        points=3,
    ),
)

CORRELATIONS = """
def correlations(couplings, beta):
    length = len(couplings) + 1
    table = torch.eye(length, dtype=couplings.dtype)
    for i in range(length):
        for j in range(i + 1, length):
            table[i, j] = table[j, i] = {}
    return table
"""
LOG_PARTITION = """
def log_partition(couplings, biases, beta):
    spin = torch.tensor([1.0, -1.0], dtype=biases.dtype)
    log_sum = {} * spin
    for coupling, bias in zip(couplings, biases[1:]):
        bond = {} * spin[:, None] * spin
        log_sum = (log_sum[:, None] + bond).logsumexp(0) + beta * bias * spin
    return {}
"""
LEVELS = """
def levels(rows, columns):
    with torch.no_grad():
        s = states(rows * columns)
        machine = ising(rows, columns{})
        energy = {}
    return energy.round().unique(return_counts=True)
"""
OBSERVE = """
def observe(energies, counts, beta):
    p = (counts.log() - beta * energies).softmax(0)
    energy = p @ energies
    spread = p @ (energies - energy) ** 2
    log_z = (counts.log() - beta * energies).logsumexp(0)
    return {}
"""
PLAIN = """
def observe(energies, counts, beta):
    f = counts * torch.exp(-beta * ({}))
    p = f / f.sum()
    energy = p @ energies
    return energy, f.sum().log() + beta * energy, beta**2 * (p @ (energies - energy) ** 2)
"""
WRONG = {
    "correlations-check": {
        "tanh of the sum": CORRELATIONS.format("torch.tanh(beta * couplings[i:j].sum())"),
        "a ratio of products": CORRELATIONS.format(
            "torch.tanh(beta * couplings[:j]).prod() / torch.tanh(beta * couplings[:i]).prod()"
        ),
        "sign": CORRELATIONS.format("torch.tanh(-beta * couplings[i:j]).prod()"),
        "one bond too many": CORRELATIONS.format("torch.tanh(beta * couplings[i : j + 1]).prod()"),
    },
    "log-partition-check": {
        "the first field forgotten": LOG_PARTITION.format("0", "beta * coupling", "log_sum.logsumexp(0)"),
        "each field counted twice": LOG_PARTITION.replace("+ beta * bias", "+ 2 * beta * bias").format(
            "2 * beta * biases[0]", "beta * coupling", "log_sum.logsumexp(0)"
        ),
        "sign of the couplings": LOG_PARTITION.format("beta * biases[0]", "-beta * coupling", "log_sum.logsumexp(0)"),
        "no logarithms on the way": """
def log_partition(couplings, biases, beta):
    spin = torch.tensor([1.0, -1.0], dtype=biases.dtype)
    total = torch.exp(beta * biases[0] * spin)
    for coupling, bias in zip(couplings, biases[1:]):
        total = (total @ torch.exp(beta * coupling * spin[:, None] * spin)) * torch.exp(beta * bias * spin)
    return total.sum().log()
""",
        "inner fields on both bonds": """
def log_partition(couplings, biases, beta):
    spin = torch.tensor([1.0, -1.0], dtype=biases.dtype)
    log_sum = 0 * spin
    for coupling, left, right in zip(couplings, biases, biases[1:]):
        bond = coupling * spin[:, None] * spin + left * spin[:, None] + right * spin
        log_sum = (log_sum[:, None] + beta * bond).logsumexp(0)
    return log_sum.logsumexp(0)
""",
    },
    "levels-check": {
        "edges that close": LEVELS.format(", periodic=True", "machine.energy(s)"),
        "each bond twice": LEVELS.format("", "-((s @ machine.couplings) * s).sum(1)"),
        "one of each mirror pair": LEVELS.format("", "machine.energy(s[: len(s) // 2])"),
        "bonds along the rows only": LEVELS.format(
            "", "-(s[:, 1:] * s[:, :-1])[:, torch.arange(1, s.shape[1]) % columns > 0].sum(1)"
        ),
        "rows joined at their ends": LEVELS.format(
            "", "machine.energy(s) - (s[:, 1:] * s[:, :-1])[:, columns - 1 :: columns].sum(1)"
        ),
    },
    "observe-check": {
        "beta once in C": OBSERVE.format("energy, log_z + beta * energy, beta * spread"),
        "entropy of the levels": OBSERVE.format("energy, -torch.special.xlogy(p, p).sum(), beta**2 * spread"),
        "sign in the entropy": OBSERVE.format("energy, log_z - beta * energy, beta**2 * spread"),
        "the scale not put back": PLAIN.format("energies - energies.min()"),
        "no scale taken out": PLAIN.format("energies"),
    },
}
