"""What grading asks about "a-chain-forgets": hidden inputs from a seed, references by formulas of their own."""

import itertools
import math

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(76)


def rest(T: np.ndarray) -> np.ndarray:
    """P* from the linear equations, one of them replaced by the sum."""
    A = T - np.eye(len(T))
    A[-1] = 1
    return np.linalg.solve(A, np.eye(len(T))[-1])


def by_currents(T: np.ndarray) -> float:
    """The net current of each pair of states times log(T_ij/T_ji): what P* adds to the logarithm cancels."""
    flow, nats = T * rest(T), 0.0
    for i, j in itertools.combinations(range(len(T)), 2):
        if T[i, j] > 0:
            nats += (flow[i, j] - flow[j, i]) * math.log(T[i, j] / T[j, i])
    return nats


def by_squaring(T: np.ndarray) -> float:
    """From the norm of (T − P*1ᵀ)^(2^50), which goes as |μ₂|^(2^50)."""
    A, log_size, power = T - rest(T)[:, None], 0.0, 1.0
    for _ in range(50):
        norm = np.linalg.norm(A)
        A, log_size = (A / norm) @ (A / norm), log_size + math.log(norm) / power
        power *= 2
    return -math.log(2) / (log_size + math.log(np.linalg.norm(A)) / power)


def count(T: np.ndarray, p: np.ndarray, delta: float) -> int:
    """From the eigenvectors: the first m at which the positive parts of T^m p − P* sum to δ or less."""
    mu, right = np.linalg.eig(T)
    weights = np.linalg.solve(right, p.astype(complex))
    weights[np.argmin(abs(mu - 1))] = 0
    for m in range(10_000):
        excess = (right @ (mu**m * weights)).real
        total = excess.clip(min=0).sum()
        if abs(total - delta) < 1e-7 * delta:
            raise ValueError(f"m = {m} is decided by rounding; choose another delta")
        if total <= delta:
            return m
    raise ValueError("forgets too slowly")


def by_paths(T: np.ndarray, p: np.ndarray, m: int) -> np.ndarray:
    """Every path is weighed: p of its start times its m steps."""
    n = len(T)
    joint = np.zeros((n, n))  # [start, seen]
    for path in itertools.product(range(n), repeat=m + 1):
        weight = p[path[0]]
        for before, after in itertools.pairwise(path):
            weight *= T[after, before]
        joint[path[0], path[-1]] += weight
    return joint / joint.sum(0)


def chain(n: int, barred: int = 0) -> np.ndarray:
    """Random, with some pairs of states not joined."""
    A = DRAW.gamma(0.8, size=(n, n)) + 0.02
    for i in range(barred):
        A[i, (i + 2) % n] = A[(i + 2) % n, i] = 0
    return A / A.sum(0)


def swap(n: int) -> np.ndarray:
    """Prefers to change: an eigenvalue near −1."""
    half = np.arange(n) % 2
    A = np.where(half[:, None] == half, 0.05, 1.0) * DRAW.uniform(0.5, 1.5, (n, n))
    return A / A.sum(0)


def driven(n: int, right: float, left: float) -> np.ndarray:
    one = np.eye(n)
    T = (1 - right - left) * one + right * np.roll(one, 1, 0) + left * np.roll(one, -1, 0)
    T[:, 0] = 0.5 * T[:, 0] + 0.5 * one[:, 0]  # one site holds longer: P* is not uniform
    return T


CHAINS = [chain(3), chain(6, barred=3), driven(7, 0.5, 0.2), chain(5, barred=1)]
SLOW = [driven(9, 0.6, 0.1), swap(6), chain(4), driven(6, 0.1, 0.15)]
STARTS = [(driven(9, 0.3, 0.1), 0.02), (driven(6, 0.2, 0.2), 0.1), (swap(5), 0.003), (chain(6), 0.0007)]
PATHS = [(chain(3), 4), (driven(4, 0.5, 0.2), 5), (chain(4), 2)]
BEGUN = [DRAW.dirichlet(np.ones(len(T))) for T, _ in STARTS]
PRIORS = [DRAW.dirichlet(np.ones(len(T))) for T, _ in PATHS]
BEGUN[0], BEGUN[1] = np.eye(9)[4], np.eye(6)[0]
as_tensor = torch.from_numpy

QUESTIONS = (
    Question(
        "arrow-check", "float(arrow(T))", tuple(Case({"T": as_tensor(T)}, by_currents(T)) for T in CHAINS), points=3
    ),
    Question(
        "halving-check", "float(halving(T))", tuple(Case({"T": as_tensor(T)}, by_squaring(T)) for T in SLOW), points=3
    ),
    Question(
        "steps-check",
        "float(steps(T, p, delta))",
        tuple(
            Case({"T": as_tensor(T), "p": as_tensor(p), "delta": delta}, count(T, p, delta))
            for (T, delta), p in zip(STARTS, BEGUN, strict=True)
        ),
        points=3,
    ),
    Question(
        "origin-check",
        "origin(T, p, m)",
        tuple(
            Case({"T": as_tensor(T), "p": as_tensor(p), "m": m}, by_paths(T, p, m))
            for (T, m), p in zip(PATHS, PRIORS, strict=True)
        ),
        points=3,
    ),
)

ARROW = """
def arrow(T):
    pairs = T * {}
    return {}
"""
RATIO = "torch.xlogy(pairs, torch.where(pairs > 0, pairs / pairs.mT, 1.0))"
HALVING = """
def halving(T):
    mu = torch.linalg.eigvals(T)
    return {}
"""
STEPS = """
def steps(T, p, delta):
    rest, m = {}, {}
    while {}:
        p, m = T @ p, m + 1
    return m
"""
ORIGIN = """
def origin(T, p, m):
    joint = {}
    return {}
"""
REST = "MarkovChain(T).stationary()"
WRONG = {
    "arrow-check": {
        "without the steady state": ARROW.format("1 / len(T)", RATIO + ".sum()"),
        "half": ARROW.format(REST, RATIO + ".sum() / 2"),
        "bits": ARROW.format(REST, RATIO + ".sum() / math.log(2)"),
        "each pair once": ARROW.format(REST, RATIO + ".triu().sum()"),
        "weights of the state after": ARROW.format(REST + "[:, None]", RATIO + ".sum()"),
        "hops to the next site only": ARROW.format(
            REST,
            "((pairs - pairs.mT) * (pairs / pairs.mT).log()).diagonal(-1).sum()"
            " + (pairs[0, -1] - pairs[-1, 0]) * (pairs[0, -1] / pairs[-1, 0]).log()",
        ),
        "the net current": ARROW.format(REST, "(pairs - pairs.mT).abs().sum() / 2"),
    },
    "halving-check": {
        "real parts only": HALVING.format("-math.log(2) / math.log(mu.real.sort().values[-2])"),
        "the gap for the logarithm": HALVING.format("math.log(2) / (1 - mu.abs().sort().values[-2])"),
        "to a part of e": HALVING.format("-1 / math.log(mu.abs().sort().values[-2])"),
        "sign": HALVING.format("math.log(2) / math.log(mu.abs().sort().values[-2])"),
        "singular values": HALVING.format("-math.log(2) / math.log(torch.linalg.svdvals(T)[1])"),
        "the third": HALVING.format("-math.log(2) / math.log(mu.abs().sort().values[-3 if len(T) > 3 else -2])"),
    },
    "steps-check": {
        "from the rate": "def steps(T, p, delta):\n"
        "    mu, away = torch.linalg.eigvals(T).abs().sort().values[-2], tv(p, MarkovChain(T).stationary())\n"
        "    return max(0, math.ceil(math.log(delta / away) / math.log(mu))) if away > 0 else 0\n",
        "the sum without its half": STEPS.format(REST, 0, "(p - rest).abs().sum() > delta"),
        "one too many": STEPS.format(REST, 1, "tv(p, rest) > delta"),
        "the divergence": STEPS.format(REST, 0, "kl(p, rest) > delta"),
        "the worst start": "def steps(T, p, delta):\n    return MarkovChain(T).mixing_time(delta)\n",
        "to the uniform distribution": STEPS.format(
            "torch.full_like(p, 1 / len(p))", 0, "m < 999 and tv(p, rest) > delta"
        ),
        "rows for columns": STEPS.format(REST, 0, "tv(p, rest) > delta and m < 999").replace("T @ p", "T.mT @ p"),
    },
    "origin-check": {
        "seen and start exchanged": ORIGIN.format(
            "torch.linalg.matrix_power(T, m) * p", "joint / joint.sum(1, keepdim=True)"
        ),
        "not divided": ORIGIN.format("torch.linalg.matrix_power(T, m) * p", "joint.mT"),
        "as if at rest": ORIGIN.format(
            "torch.linalg.matrix_power(T, m) * " + REST, "(joint / joint.sum(1, keepdim=True)).mT"
        ),
        "one step undone again and again": ORIGIN.format(
            "T * p", "torch.linalg.matrix_power((joint / joint.sum(1, keepdim=True)).mT, m)"
        ),
        "one step too many": ORIGIN.format(
            "torch.linalg.matrix_power(T, m + 1) * p", "(joint / joint.sum(1, keepdim=True)).mT"
        ),
        "no prior": ORIGIN.format("torch.linalg.matrix_power(T, m)", "(joint / joint.sum(1, keepdim=True)).mT"),
    },
}
