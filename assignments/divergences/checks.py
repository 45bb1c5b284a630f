"""What grading asks about "divergences": hidden inputs from a seed, references by other formulas than it has."""

import math

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(71)


def times(count: int, rate: float, window: float) -> np.ndarray:
    """Decays within the window whose mean lies below half of it."""
    while True:
        t = -np.log1p(DRAW.random(count) * np.expm1(-rate * window)) / rate
        if t.mean() < 0.48 * window:
            return t


def conditional(p: np.ndarray, q: np.ndarray, groups: np.ndarray) -> float:
    """Σ_x p(x) log [p(x|g)/q(x|g)], outcome by outcome."""
    terms = []
    for x, g in enumerate(groups):
        if p[x] > 0:
            own = groups == g
            terms.append(p[x] * math.log((p[x] / p[own].sum()) / (q[x] / q[own].sum())))
    return math.fsum(terms)


def complex_step(rate: float, t: np.ndarray, window: float) -> float:
    """Im log p(t; λ + ih) / h: the derivative of the mean log-likelihood, to rounding."""
    lam = rate + 1e-30j
    return float((np.log(lam) - lam * t.mean() - np.log(1 - np.exp(-lam * window))).imag / 1e-30)


def newton(t: np.ndarray, window: float) -> float:
    """The rate whose mean in the window is that of the data, by Newton's steps in 1/tanh from a bracketed start."""
    mean = float(t.mean())
    rate = 2 * 6 * (0.5 - mean / window) / window  # the flat limit: mean ≈ w/2 − λw²/12
    for _ in range(100):
        half = rate * window / 2
        expected = 1 / rate - window / 2 * (1 / math.tanh(half) - 1)
        slope = -1 / rate**2 + (window / 2) ** 2 / math.sinh(half) ** 2
        rate = max(rate - (expected - mean) / slope, rate / 2)
    return rate


def pairs(log_p: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, their errors and those of differences, from all pairs of draws: s² = Σ_{a<b} (d_a − d_b)²/(M(M − 1))."""
    d = log_p[:, None] - log_q
    jumps = d[:, None] - d[None]
    own = (jumps**2).sum((0, 1)) / 2
    between = ((jumps[..., :, None] - jumps[..., None, :]) ** 2).sum((0, 1)) / 2
    scale = len(d) ** 2 * (len(d) - 1)
    return d.sum(0) / len(d), np.sqrt(own / scale), np.sqrt(between / scale)


def tables() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    made = []
    for count, groups, zeros in ((7, 3, 0), (12, 4, 3), (30, 5, 8)):
        p, q = DRAW.dirichlet(np.ones(count)), DRAW.dirichlet(2 * np.ones(count))
        p[DRAW.permutation(count)[:zeros]] = 0
        group = DRAW.permutation(np.arange(count) % groups)
        if zeros:
            p[group == 1] = 0  # a group without probability
        made.append((p / p.sum(), q, group if groups < 5 else np.array([-7, 900, 3, 0, 12])[group]))
    return made


SAMPLES = [(40, 0.8, 3.0), (25, 2.0, 1.5), (60, 0.5, 1200.0), (200, 0.4, 4.0)]
DECAYS = [(times(*facts), facts[2]) for facts in SAMPLES]
SHAPES = ((9, 4), (50, 3), (5, 11))
RATES = (0.3, 1.2, 0.8, 1.1)
LOGS = [(DRAW.normal(-1, 1, m), DRAW.normal(-1.4, 0.7, (m, 1)) + DRAW.normal(0, 0.4, (m, k))) for m, k in SHAPES]
as_tensor = torch.from_numpy

QUESTIONS = (
    Question(
        "lost-check",
        "lost(p, q, groups)",
        tuple(
            Case({"p": as_tensor(p), "q": as_tensor(q), "groups": as_tensor(g)}, conditional(p, q, g))
            for p, q, g in tables()
        ),
        points=3,
    ),
    Question(
        "score-check",
        "score(rate, times, window)",
        tuple(
            Case({"rate": r, "times": as_tensor(t), "window": w}, complex_step(r, t, w))
            for r, (t, w) in zip(RATES, DECAYS, strict=True)
        ),
        points=3,
    ),
    Question(
        "fit-check",
        "fit(times, window)",
        tuple(Case({"times": as_tensor(t), "window": w}, newton(t, w)) for t, w in DECAYS if w < 100),
        points=3,
        tolerance=2e-6,
    ),
    Question(
        "estimate-check",
        "estimate(log_p, log_q)",
        tuple(Case({"log_p": as_tensor(p), "log_q": as_tensor(q)}, pairs(p, q)) for p, q in LOGS),
        points=3,
    ),
)

LOST = """
def lost(p, q, groups):
    names = groups.unique()
    total = 0.0
    for g in names:
        a, b = p[groups == g], q[groups == g]
        if a.sum() > 0:
            total = total + {}
    return total
"""
SCORE = """
def score(rate, times, window):
    unseen = math.exp(-rate * window)
    return {}
"""
FIT = """
def fit(times, window):
    mean, low, high = float(times.mean()), 1e-9 / window, 2 / float(times.mean())
    for _ in range(100):
        rate = (low + high) / 2
        slope = {}
        low, high = (rate, high) if slope > 0 else (low, rate)
    return {}
"""
ESTIMATE = """
def estimate(log_p, log_q):
    ratio = log_p[:, None] - log_q
    apart = ratio[:, :, None] - ratio[:, None, :]
    root = math.sqrt(len(log_p))
    return {}
"""
WRONG = {
    "lost-check": {
        "what is kept": "def lost(p, q, groups):\n    a = [p[groups == g].sum() for g in groups.unique()]\n"
        "    b = [q[groups == g].sum() for g in groups.unique()]\n    return kl(torch.stack(a), torch.stack(b))\n",
        "groups without their weight": LOST.format("kl(a / a.sum(), b / b.sum())"),
        "weights of q": LOST.format("b.sum() * kl(a / a.sum(), b / b.sum())"),
        "the wrong way round": "def lost(p, q, groups):\n    names = groups.unique()\n"
        "    a = torch.stack([p[groups == g].sum() for g in names])\n"
        "    b = torch.stack([q[groups == g].sum() for g in names])\n    return kl(a, b) - kl(p, q)\n",
        "a group without probability": LOST.replace("a.sum() > 0", "True").format(
            "a.sum() * torch.xlogy(a / a.sum(), a / a.sum() / b * b.sum()).sum()"
        ),
        "names taken for places": "def lost(p, q, groups):\n"
        "    a, b = groups.bincount(p), groups.bincount(q)\n    return kl(p, q) - kl(a, b)\n",
    },
    "score-check": {
        "no window": SCORE.format("1 / rate - times.mean()"),
        "sign of the window's term": SCORE.format("1 / rate - times.mean() + window * unseen / (1 - unseen)"),
        "the window's term twice": SCORE.format("1 / rate - times.mean() - 2 * window * unseen / (1 - unseen)"),
        "a sum for the mean": SCORE.format("len(times) * (1 / rate - window * unseen / (1 - unseen)) - times.sum()"),
        "one normalisation for all": SCORE.format(
            "1 / rate - times.mean() - window * unseen / (1 - unseen) / len(times)"
        ),
    },
    "fit-check": {
        "no window": "def fit(times, window):\n    return 1 / times.mean()\n",
        "lifetime for rate": FIT.format("1 / rate - mean - window / math.expm1(rate * window)", "1 / rate"),
        "normalised by the seen share twice": FIT.format(
            "1 / rate - mean - 2 * window / math.expm1(rate * window)", "rate"
        ),
        "only the density at the window's end": FIT.format(
            "1 / rate - mean - window * math.exp(-rate * window)", "rate"
        ),
    },
    "estimate-check": {
        "sign": ESTIMATE.format("-ratio.mean(0), ratio.std(0) / root, apart.std(0) / root"),
        "axis": ESTIMATE.format("ratio.mean(1), ratio.std(1) / root, apart.std(1) / root"),
        "spread of one draw": ESTIMATE.format("ratio.mean(0), ratio.std(0), apart.std(0)"),
        "divisor M": ESTIMATE.format(
            "ratio.mean(0), ratio.std(0, correction=0) / root, apart.std(0, correction=0) / root"
        ),
        "errors added as if independent": ESTIMATE.format(
            "ratio.mean(0), ratio.std(0) / root, (ratio.var(0)[:, None] + ratio.var(0)).sqrt() / root"
        ),
        "errors subtracted": ESTIMATE.format(
            "ratio.mean(0), ratio.std(0) / root, (ratio.std(0)[:, None] - ratio.std(0)).abs() / root"
        ),
    },
}
