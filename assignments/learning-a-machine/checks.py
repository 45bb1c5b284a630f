"""What grading asks about "learning-a-machine": hidden inputs from a seed, references by sums over all (x, h)."""

import itertools

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(73)
NAMES = ("weights", "visible_bias", "hidden_bias")
Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def seen(n: int) -> np.ndarray:
    """All visible configurations, unit i being bit i of the row number."""
    return np.array([[(row >> i) & 1 for i in range(n)] for row in range(2**n)], dtype=float)


def hidden(m: int) -> np.ndarray:
    return np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=m)))


def exponent(x: np.ndarray, h: np.ndarray, parts: Parts) -> float:
    """−E(x, h), term by term."""
    weights, own, other = parts
    pairs = sum(x[i] * weights[i, j] * h[j] for i in range(len(x)) for j in range(len(h)))
    return float(sum(own * x) + sum(other * h) + pairs)


def table(rows: np.ndarray, parts: Parts) -> np.ndarray:
    return np.array([[exponent(x, h, parts) for h in hidden(len(parts[2]))] for x in rows])


def free(x: np.ndarray, parts: Parts) -> np.ndarray:
    return -np.logaddexp.reduce(table(x, parts), axis=1)


def answers(x: np.ndarray, parts: Parts) -> np.ndarray:
    log_f = table(x, parts)
    weight = np.exp(log_f - log_f.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True) @ hidden(len(parts[2]))


def together(x: np.ndarray, parts: Parts) -> np.ndarray:
    """⟨x_i h_j⟩ with x held at the data, less the same over the whole table of the joint distribution."""
    everything, causes = seen(x.shape[1]), hidden(len(parts[2]))
    f, held = np.exp(table(everything, parts)), np.exp(table(x, parts))
    held = held / held.sum(1, keepdims=True) / len(x)
    f = f / f.sum()
    return np.einsum("xh,xi,hj->ij", held, x, causes) - np.einsum("xh,xi,hj->ij", f, everything, causes)


def walked(p: np.ndarray, steps: int, parts: Parts) -> np.ndarray:
    """The chain state by state: Σ_x' Σ_h P(x|h) P(h|x') p(x')."""
    f = np.exp(table(seen(len(parts[1])), parts))
    step = np.zeros((len(f), len(f)))
    for new, old in itertools.product(range(len(f)), repeat=2):
        step[new, old] = sum(f[new, h] / f[:, h].sum() * f[old, h] / f[old].sum() for h in range(f.shape[1]))
    return np.linalg.matrix_power(step, steps) @ p


def machine(n: int, m: int, scale: float = 1.0) -> Parts:
    return scale * DRAW.normal(size=(n, m)), scale * DRAW.normal(size=n), scale * DRAW.normal(size=m)


def given(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(part) for name, part in zip(NAMES, parts, strict=True)}


def bits(count: int, n: int) -> np.ndarray:
    return DRAW.integers(0, 2, (count, n)).astype(float)


ASKED = [(bits(5, 4), machine(4, 3)), (bits(7, 6), machine(6, 2, 0.5)), (bits(3, 8), machine(8, 4, 300.0))]
LEARNT = [(bits(6, 4), machine(4, 3)), (bits(11, 6), machine(6, 2, 0.7)), (bits(1, 3), machine(3, 4))]
WALKS = [
    (DRAW.dirichlet(np.ones(8)), 1, machine(3, 2)),
    (DRAW.dirichlet(np.ones(16)), 3, machine(4, 3, 1.5)),
    (np.eye(16)[5], 2, machine(4, 2)),
]

QUESTIONS = (
    Question(
        "free-energy-check",
        "free_energy(x, weights, visible_bias, hidden_bias)",
        tuple(Case({"x": torch.from_numpy(x), **given(parts)}, free(x, parts)) for x, parts in ASKED),
        points=3,
    ),
    Question(
        "hidden-mean-check",
        "hidden_mean(x, weights, hidden_bias)",
        tuple(Case({"x": torch.from_numpy(x), **given(parts)}, answers(x, parts)) for x, parts in ASKED),
        points=3,
    ),
    Question(
        "slope-check",
        "slope(x, weights, visible_bias, hidden_bias)",
        tuple(Case({"x": torch.from_numpy(x), **given(parts)}, together(x, parts)) for x, parts in LEARNT),
        points=4,
    ),
    Question(
        "after-check",
        "after(p, steps, weights, visible_bias, hidden_bias)",
        tuple(
            Case({"p": torch.from_numpy(p), "steps": k, **given(parts)}, walked(p, k, parts)) for p, k, parts in WALKS
        ),
        points=3,
    ),
)

FREE_ENERGY = """
def free_energy(x, weights, visible_bias, hidden_bias):
    c = x @ weights + hidden_bias
    return {}
"""
HIDDEN_MEAN = """
def hidden_mean(x, weights, hidden_bias):
    c = x @ weights + hidden_bias
    return {}
"""
SLOPE = """
def slope(x, weights, visible_bias, hidden_bias):
    def answer(rows):
        c = rows @ weights + hidden_bias
        down, _, up = torch.stack([-c, 0 * c, c]).softmax(0)
        return up - down

    everything = states(len(visible_bias), BIT)
    c = everything @ weights + hidden_bias
    p = (everything @ visible_bias + torch.stack([c, 0 * c, -c]).logsumexp(0).sum(-1)).softmax(0)
    data, model = x.mT @ answer(x), everything.mT @ (p[:, None] * answer(everything))
    return {}
"""
AFTER = """
def after(p, steps, weights, visible_bias, hidden_bias):
    x = states(len(visible_bias), BIT)
    values = torch.tensor({}, dtype=p.dtype)
    h = torch.cartesian_prod(*[values] * len(hidden_bias)).reshape(-1, len(hidden_bias))
    log_f = (x @ visible_bias)[:, None] + h @ hidden_bias + x @ weights @ h.mT
    a, b = {}
    for _ in range({}):
        p = a @ (b @ p)
    return p
"""
THREE, RIGHT = "[-1.0, 0.0, 1.0]", "log_f.softmax(0), log_f.softmax(1).mT"
SOFT = "torch.stack([c, 0 * c, -c]).logsumexp(0).sum(-1)"
WRONG = {
    "free-energy-check": {
        "sign of the hidden part": FREE_ENERGY.format(f"-(x @ visible_bias) + {SOFT}"),
        "two values": FREE_ENERGY.format("-(x @ visible_bias) - torch.stack([c, -c]).logsumexp(0).sum(-1)"),
        "no bias of the visible units": FREE_ENERGY.format(f"-{SOFT}"),
        "a limit on the fields": FREE_ENERGY.format(
            "-(x @ visible_bias) - (1 + 2 * torch.cosh(c.clamp(-700, 700))).log().sum(-1)"
        ),
        "overflow": FREE_ENERGY.format("-(x @ visible_bias) - (1 + 2 * torch.cosh(c)).log().sum(-1)"),
        "summed over the batch": FREE_ENERGY.format(
            "-(x @ visible_bias) - torch.stack([c, 0 * c, -c]).logsumexp(0).sum()"
        ),
    },
    "hidden-mean-check": {
        "two values": HIDDEN_MEAN.format("torch.tanh(c)"),
        "sigmoid": HIDDEN_MEAN.format("torch.sigmoid(c)"),
        "overflow": HIDDEN_MEAN.format("2 * torch.sinh(c) / (1 + 2 * torch.cosh(c))"),
        "half of the field": HIDDEN_MEAN.format("torch.tanh(c / 2)"),
        "no bias": HIDDEN_MEAN.format(
            "(lambda d: d[0] - d[2])(torch.stack([c - hidden_bias, 0 * c, hidden_bias - c]).softmax(0))"
        ),
    },
    "slope-check": {
        "sum for mean": SLOPE.format("data - len(x) * model"),
        "the lost N": SLOPE.format("data - model"),
        "sign": SLOPE.format("model - data / len(x)"),
        "means for the mean of the product": SLOPE.format(
            "data / len(x) - torch.outer(p @ everything, p @ answer(everything))"
        ),
        "all configurations alike": SLOPE.format(
            "data / len(x) - everything.mT @ answer(everything) / len(everything)"
        ),
        "two values": SLOPE.replace(".softmax(0)\n        return up - down", "\n        return torch.tanh(up)").format(
            "data / len(x) - model"
        ),
    },
    "after-check": {
        "the other axis": AFTER.format(THREE, "log_f.softmax(1), log_f.softmax(0).mT", "steps"),
        "the pixels the other way round": AFTER.replace("BIT)", "BIT).flip(1)").format(THREE, RIGHT, "steps"),
        "no bias of the hidden units": AFTER.replace("h @ hidden_bias + ", "").format(THREE, RIGHT, "steps"),
        "one step too many": AFTER.format(THREE, RIGHT, "steps + 1"),
        "two values": AFTER.format("[-1.0, 1.0]", RIGHT, "steps"),
        "the stationary answer": """
def after(p, steps, weights, visible_bias, hidden_bias):
    x = states(len(visible_bias), BIT)
    c = x @ weights + hidden_bias
    return (x @ visible_bias + torch.stack([c, 0 * c, -c]).logsumexp(0).sum(-1)).softmax(0) if steps else p
""",
    },
}
