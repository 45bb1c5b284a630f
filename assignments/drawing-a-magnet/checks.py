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
    f, (logs, first, second) = np.exp(log_f), np.zeros(3)
    for path in itertools.product(range(f.shape[1]), repeat=len(f) - 1):
        chance, w = f[0, path[0]] / f[0].sum(), 1.0
        for k, x in enumerate(path):
            chance *= kernels[k - 1][x, path[k - 1]] if k else 1.0
            w *= f[k + 1, x] / f[k, x]
        logs, first, second = logs + chance * math.log(w), first + chance * w, second + chance * w * w
    return math.log(first) - logs, second / first**2 - 1


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
        "float(tau(T, p, u))",
        tuple(Case({"T": as_tensor(T), "p": as_tensor(p), "u": as_tensor(u)}, summed(T, p, u)) for T, p, u in CHAINS),
        points=3,
    ),
    Question(
        "blocked-check",
        "[float(part) for part in blocked(u, length)]",
        tuple(Case({"u": as_tensor(u), "length": length}, in_loops(u, length)) for u, length in RECORDS),
        points=3,
    ),
    Question(
        "weights-check",
        "[float(part) for part in weights(log_f, kernels)]",
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
    log_Z = log_f.logsumexp(1)
    law = squared = {}
    bound = 0.0
    for k, rise in enumerate(log_f.diff(dim=0)):
        {}
        bound = bound + {} @ rise
        squared = squared * {}
    log_ratio = log_Z[-1] - log_Z[0]
    return {}, {}
"""
START, JUMP = "(log_f[0] - log_Z[0]).exp()", "(2 * rise).exp()"
MOVE = "if k: law, squared = kernels[k - 1] @ law, kernels[k - 1] @ squared"
GAP, SCATTER = "log_ratio - bound", "squared.sum() / (2 * log_ratio).exp() - 1"
WRONG = {
    "exchange-check": {
        "the program of question 1": EXCHANGE.format("rise.exp().clamp(max=1)", "k", REST),
        "the ratio of proposals inverted": EXCHANGE.format("(rise.exp() * k[there] / k).clamp(max=1)", "k", REST),
        "sign of the energy": EXCHANGE.format("((-rise).exp() * k / k[there]).clamp(max=1)", "k", REST),
        "rows for columns": EXCHANGE.format(RIGHT, "k", "(" + REST + ").mT"),
        "refused moves forgotten": EXCHANGE.format(RIGHT, "k", "T / T.sum(0).clamp(min=1e-9)"),
        "open ends": EXCHANGE.format(RIGHT, "k", REST).replace("in range(n):", "in range(n - 1):"),
        "all pairs proposed": EXCHANGE.format("rise.exp().clamp(max=1)", "n", REST),
    },
    "tau-check": {
        "half": TAU.format("u = u - p @ u", "0.5 + (p @ (u * later)) / (p @ u.square())"),
        "each lag once": TAU.format("u = u - p @ u", "1 + (p @ (u * later)) / (p @ u.square())"),
        "not centred by p": TAU.format("u = u - u.mean()", "1 + 2 * (p @ (u * later)) / (p @ u.square())"),
        "states counted alike": TAU.format("u = u - p @ u", "1 + 2 * (u @ later) / (u @ u)"),
        "the slowest eigenvalue": "def tau(T, p, u):\n"
        "    mu = torch.linalg.eigvals(T).abs().sort().values[-2]\n    return (1 + mu) / (1 - mu)\n",
        "made reversible": "def tau(T, p, u):\n"
        "    root = p.sqrt()\n    S = T * root / root[:, None]\n    mu, vectors = torch.linalg.eigh((S + S.mT) / 2)\n"
        "    share = (vectors.mT @ (root * (u - p @ u))).square()[:-1]\n"
        "    return (share * (1 + mu[:-1]) / (1 - mu[:-1])).sum() / share.sum()\n",
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
        "as if drawn from p_k": WEIGHTS.format(START, MOVE, "log_f[k].softmax(0)", JUMP, GAP, SCATTER),
        "the weight after the move": WEIGHTS.format(
            START, MOVE.replace("if k:", "if k < len(kernels):").replace("[k - 1]", "[k]"), "law", JUMP, GAP, SCATTER
        ),
        "kernels transposed": WEIGHTS.format(
            START, MOVE.replace("kernels[k - 1]", "kernels[k - 1].mT"), "law", JUMP, GAP, SCATTER
        ),
        "no move in the second moment": WEIGHTS.format(
            START, "law = kernels[k - 1] @ law if k else law", "law", JUMP, GAP, SCATTER
        ),
        "sign of the gap": WEIGHTS.format(START, MOVE, "law", JUMP, "bound - log_ratio", SCATTER),
        "the bound for its gap": WEIGHTS.format(START, MOVE, "law", JUMP, "bound", SCATTER),
        "weights not squared": WEIGHTS.format(START, MOVE, "law", "rise.exp()", GAP, SCATTER),
        "the variance itself": WEIGHTS.format(START, MOVE, "law", JUMP, GAP, "squared.sum() - (2 * log_ratio).exp()"),
        "the mean square": WEIGHTS.format(START, MOVE, "law", JUMP, GAP, "squared.sum() / (2 * log_ratio).exp()"),
        "a uniform start": WEIGHTS.format(
            "torch.full_like(log_f[0], 1 / len(log_f[0]))", MOVE, "law", JUMP, GAP, SCATTER
        ),
    },
}
