"""What grading asks about "drawing-a-magnet": hidden inputs from a seed, references by formulas of their own."""

import itertools
import math

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(77)


def by_flows(states: np.ndarray, log_f: np.ndarray) -> np.ndarray:
    """From each state to each of its exchanges the flow min(f/k, f'/k'), divided by f."""
    rows = [tuple(int(v) for v in row) for row in states]
    place, n = {row: k for k, row in enumerate(rows)}, states.shape[1]
    pairs = [[i for i in range(n) if row[i] != row[(i + 1) % n]] for row in rows]
    share = [math.exp(v) / max(len(own), 1) for v, own in zip(log_f, pairs, strict=True)]
    T = np.zeros((len(rows), len(rows)))
    for j, row in enumerate(rows):
        for i in pairs[j]:
            other = list(row)
            other[i], other[(i + 1) % n] = other[(i + 1) % n], other[i]
            end = place[tuple(other)]
            T[end, j] = min(share[j], share[end]) / math.exp(log_f[j])
        T[j, j] = 1 - math.fsum(T[:, j])
    return T


def summed(T: np.ndarray, p: np.ndarray, u: np.ndarray) -> float:
    """Lag by lag, until nothing is left."""
    away = u - p @ u
    weighted, total, variance = p * away, 1.0, p @ away**2
    for _ in range(20_000):
        weighted = T @ weighted
        total += 2 * (away @ weighted) / variance
    return float(total)


def in_loops(u: np.ndarray, length: int) -> tuple[float, float]:
    """The spread from all pairs of block averages: s² = Σ_{i<j} (a_i − a_j)²/(M(M − 1))."""
    averages = [
        math.fsum(u[k : k + length, c]) / length
        for c in range(u.shape[1])
        for k in range(0, len(u) - length + 1, length)
    ]
    count = len(averages)
    apart = math.fsum((a - b) ** 2 for a, b in itertools.combinations(averages, 2))
    return math.fsum(averages) / count, math.sqrt(apart / (count**2 * (count - 1)))


def over_paths(log_f: np.ndarray, kernels: np.ndarray) -> tuple[float, float]:
    """Every path x_0 … x_{K−1} with its probability and its weight."""
    f, moments = np.exp(log_f), [0.0, 0.0]
    for path in itertools.product(range(f.shape[1]), repeat=len(f) - 1):
        chance, w = f[0, path[0]] / f[0].sum(), 1.0
        for k, x in enumerate(path):
            chance *= kernels[k - 1][x, path[k - 1]] if k else 1.0
            w *= f[k + 1, x] / f[k, x]
        moments = [moments[0] + chance * w, moments[1] + chance * w * w]
    return moments[0], moments[1]


def ring(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All states in a random order, and the log-weights of random couplings and fields."""
    s = DRAW.permutation(np.array(list(itertools.product((-1.0, 1.0), repeat=n))))
    J, b = DRAW.normal(0, 0.6, n), DRAW.normal(0, 0.5, n)
    return s, (s * np.roll(s, -1, 1)) @ J + s @ b


def chain(n: int, stay: float) -> tuple[np.ndarray, np.ndarray]:
    """A random chain with currents that rests with a given probability, and its stationary distribution."""
    A = DRAW.gamma(0.7, size=(n, n)) + 0.01
    T = stay * np.eye(n) + (1 - stay) * A / A.sum(0)
    equations = T - np.eye(n)
    equations[-1] = 1
    return T, np.linalg.solve(equations, np.eye(n)[-1])


def heat_bath(log_f: np.ndarray) -> np.ndarray:
    """A kernel for f/Z that is not symmetric: half a draw of it, half a Metropolis step to the next state."""
    p, n = np.exp(log_f) / np.exp(log_f).sum(), len(log_f)
    T = np.zeros((n, n))
    for j in range(n):
        for i in ((j + 1) % n, (j - 1) % n):
            T[i, j] = 0.5 * min(1, p[i] / p[j])
        T[j, j] += 1 - T[:, j].sum()
    return 0.6 * T + 0.4 * p[:, None]


RINGS = [ring(n) for n in (3, 4, 5)]
CHAINS = [(*chain(n, stay), DRAW.normal(2, 1, n)) for n, stay in ((4, 0.0), (7, 0.8), (12, 0.95))]
RECORDS = [
    (DRAW.normal(size=shape).cumsum(0) * 0.3 + 1, length)
    for shape, length in (((50, 3), 8), ((31, 1), 5), ((40, 4), 1))
]
PATHS = []
for states_count, K in ((4, 3), (3, 5), (5, 2)):
    log_f = DRAW.normal(0, 0.8, (K + 1, states_count))
    PATHS.append((log_f, np.array([heat_bath(log_f[k]) for k in range(1, K)])))
as_tensor = torch.from_numpy

QUESTIONS = (
    Question(
        "exchange-check",
        "exchange(states, log_f)",
        tuple(Case({"states": as_tensor(s), "log_f": as_tensor(v)}, by_flows(s, v)) for s, v in RINGS),
        points=3,
    ),
    Question(
        "tau-check",
        "tau(T, p, u)",
        tuple(Case({"T": as_tensor(T), "p": as_tensor(p), "u": as_tensor(u)}, summed(T, p, u)) for T, p, u in CHAINS),
        points=3,
    ),
    Question(
        "blocked-check",
        "blocked(u, length)",
        tuple(Case({"u": as_tensor(u), "length": length}, in_loops(u, length)) for u, length in RECORDS),
        points=3,
    ),
    Question(
        "weights-check",
        "weights(log_f, kernels)",
        tuple(Case({"log_f": as_tensor(v), "kernels": as_tensor(T)}, over_paths(v, T)) for v, T in PATHS),
        points=3,
    ),
)

EXCHANGE = """
def exchange(states, log_f):
    n, here = states.shape[1], torch.arange(len(states))
    k = (states != states.roll(-1, 1)).sum(1).clamp(min=1)
    T = torch.zeros(len(states), len(states), dtype=log_f.dtype)
    for i in range(n):
        order = list(range(n))
        order[i], order[(i + 1) % n] = order[(i + 1) % n], i
        there = (states[:, order][:, None] == states).all(-1).long().argmax(1)
        rise = log_f[there] - log_f
        accept = {}
        moves = there != here
        T[there[moves], here[moves]] += (accept / {})[moves]
    return {}
"""
RIGHT, REST = "(rise.exp() * k / k[there]).clamp(max=1)", "T + torch.diag(1 - T.sum(0))"
TAU = """
def tau(T, p, u):
    {}
    later = torch.linalg.solve(torch.eye(len(p), dtype=p.dtype) - T.mT + p, T.mT @ u)
    return {}
"""
BLOCKED = """
def blocked(u, length):
    count = len(u) // length
    averages = u[: count * length].{}
    return averages.mean(), {}
"""
AVERAGES, SPREAD = "unflatten(0, (count, length)).mean(1).flatten()", "averages.std() / math.sqrt(len(averages))"
WEIGHTS = """
def weights(log_f, kernels):
    found = []
    for power in (1, 2):
        mass = log_f[0].softmax(0)
        for k in range(1, len(log_f)):
            {}
        found.append(mass.sum(){})
    return tuple(found)
"""
JUMP = "mass = mass * (power * (log_f[k] - log_f[k - 1])).exp()"
MOVE = "mass = kernels[k - 1] @ mass if k < len(log_f) - 1 else mass"
WRONG = {
    "exchange-check": {
        "the program of question 1": EXCHANGE.format("rise.exp().clamp(max=1)", "k", REST),
        "the ratio of proposals inverted": EXCHANGE.format("(rise.exp() * k[there] / k).clamp(max=1)", "k", REST),
        "sign of the energy": EXCHANGE.format("((-rise).exp() * k / k[there]).clamp(max=1)", "k", REST),
        "rows for columns": EXCHANGE.format(RIGHT, "k", "(" + REST + ").mT"),
        "refused moves forgotten": EXCHANGE.format(RIGHT, "k", "T / T.sum(0).clamp(min=1e-9)"),
        "all pairs proposed": EXCHANGE.format("rise.exp().clamp(max=1)", "n", REST),
    },
    "tau-check": {
        "half": TAU.format("u = u - p @ u", "0.5 + (p @ (u * later)) / (p @ u.square())"),
        "each lag once": TAU.format("u = u - p @ u", "1 + (p @ (u * later)) / (p @ u.square())"),
        "not centred by p": TAU.format("u = u - u.mean()", "1 + 2 * (p @ (u * later)) / (p @ u.square())"),
        "states counted alike": TAU.format("u = u - p @ u", "1 + 2 * (u @ later) / (u @ u)"),
        "the slowest eigenvalue": "def tau(T, p, u):\n"
        "    mu = torch.linalg.eigvals(T).abs().sort().values[-2]\n    return (1 + mu) / (1 - mu)\n",
        "T for its transpose": TAU.format("u = u - p @ u", "1 + 2 * (p @ (u * later)) / (p @ u.square())").replace(
            "T.mT", "T"
        ),
    },
    "blocked-check": {
        "every value a block": "def blocked(u, length):\n    return u.mean(), u.std() / math.sqrt(u.numel())\n",
        "spread of a block": BLOCKED.format(AVERAGES, "averages.std()"),
        "divisor M": BLOCKED.format(AVERAGES, "averages.std(correction=0) / math.sqrt(len(averages))"),
        "divided by the steps": BLOCKED.format(AVERAGES, "averages.std() / math.sqrt(u.numel())"),
        "blocks that interleave": BLOCKED.format("unflatten(0, (length, count)).mean(0).flatten()", SPREAD),
        "chains averaged first": BLOCKED.format("unflatten(0, (count, length)).mean((1, 2))", SPREAD),
    },
    "weights-check": {
        "the weight after the move": WEIGHTS.format(MOVE + "\n            " + JUMP, ""),
        "kernels transposed": WEIGHTS.format(
            JUMP + "\n            " + MOVE.replace("kernels[k - 1]", "kernels[k - 1].mT"), ""
        ),
        "the square of the mean": WEIGHTS.format(JUMP.replace("power * ", "") + "\n            " + MOVE, " ** power"),
        "a uniform start": WEIGHTS.format(JUMP + "\n            " + MOVE, "").replace(
            "log_f[0].softmax(0)", "torch.full_like(log_f[0], 1 / len(log_f[0]))"
        ),
        "start without its constant": WEIGHTS.format(JUMP + "\n            " + MOVE, "").replace(
            "log_f[0].softmax(0)", "log_f[0].exp()"
        ),
    },
}
