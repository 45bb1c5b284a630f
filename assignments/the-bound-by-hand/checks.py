"""What grading asks about "the-bound-by-hand": hidden inputs from a seed, references flash by flash in plain Python."""

import math

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(74)


def log_joint(prior: np.ndarray, rates: np.ndarray, x: float) -> list[float]:
    return [math.log(p) + x * math.log(r) - r - math.lgamma(x + 1) for p, r in zip(prior, rates, strict=True)]


def evidence(prior: np.ndarray, rates: np.ndarray, x: float) -> float:
    return float(np.logaddexp.reduce(log_joint(prior, rates, x)))


def evidence_less_gap(q: np.ndarray, prior: np.ndarray, rates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """log p(x) − KL(q‖p(h|x))."""
    values = []
    for row, x in zip(q, counts, strict=True):
        top = evidence(prior, rates, x)
        posterior = [v - top for v in log_joint(prior, rates, x)]
        values.append(top - math.fsum(a * (math.log(a) - p) for a, p in zip(row, posterior, strict=True) if a > 0))
    return np.array(values)


def at_a_price(prior: np.ndarray, rates: np.ndarray, counts: np.ndarray, kl_weight: float) -> np.ndarray:
    """By ratios to each kind: q(h) = 1 / Σ_k [p(k)/p(h)] [p(x|k)/p(x|h)]^(1/β)."""
    q = np.empty((len(counts), len(prior)))
    for i, x in enumerate(counts):
        for h in range(len(prior)):
            ratios = [
                math.log(prior[k] / prior[h]) + (x * math.log(rates[k] / rates[h]) - rates[k] + rates[h]) / kl_weight
                for k in range(len(prior))
            ]
            q[i, h] = math.exp(-float(np.logaddexp.reduce(ratios)))
    return q


def em_round(prior: np.ndarray, rates: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted counting, flash by flash."""
    weight, photons = [0.0] * len(prior), [0.0] * len(prior)
    for x in counts:
        top = evidence(prior, rates, x)
        for h, value in enumerate(log_joint(prior, rates, x)):
            weight[h] += math.exp(value - top)
            photons[h] += math.exp(value - top) * x
    return np.array(weight) / len(counts), np.array(photons) / np.array(weight)


def by_quadrature(x: np.ndarray, a: float, s: float, m: np.ndarray, v: np.ndarray) -> np.ndarray:
    """E_q[log p(x|h) + log p(h) − log q(h)] by Gauss–Hermite nodes, exact for the squares in it."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    h = m[:, None] + np.sqrt(v)[:, None] * nodes
    log_p = -((x[:, None] - a * h) ** 2) / (2 * s**2) - h**2 / 2 - math.log(2 * math.pi * s)
    log_q = -(nodes**2) / 2 - 0.5 * np.log(2 * math.pi * v)[:, None]
    return (log_p - log_q) @ weights / math.sqrt(2 * math.pi)


def sources(kinds: int, flashes: int, scale: float = 6.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prior, rates = DRAW.dirichlet(3 * np.ones(kinds)), scale * DRAW.random(kinds) + 0.4
    return prior, rates, DRAW.poisson(rates[DRAW.choice(kinds, flashes, p=prior)]).astype(float)


def guesses(flashes: int, kinds: int, zeros: bool) -> np.ndarray:
    q = DRAW.dirichlet(np.ones(kinds), flashes)
    if zeros:
        q[np.arange(flashes), np.arange(flashes) % kinds] = 0
    return q / q.sum(1, keepdims=True)


MODELS = [sources(3, 8), sources(4, 15), sources(2, 5, 20.0)]
BRIGHT = sources(3, 9, 900.0)
GUESSED = [guesses(len(x), len(p), n > 0) for n, (p, _, x) in enumerate(MODELS)]
PRICES = [(*MODELS[0], 1.0), (*MODELS[1], 4.0), (*BRIGHT, 2.5), (*MODELS[2], 0.3)]
NUMBERS = [
    (DRAW.normal(size=n), a, s, DRAW.normal(size=n), DRAW.gamma(2.0, 0.5, n))
    for n, a, s in ((6, 1.7, 0.6), (9, -0.8, 1.3), (4, 0.02, 0.03))
]


def given(prior: np.ndarray, rates: np.ndarray, counts: np.ndarray) -> dict[str, torch.Tensor]:
    return {"prior": torch.from_numpy(prior), "rates": torch.from_numpy(rates), "counts": torch.from_numpy(counts)}


QUESTIONS = (
    Question(
        "elbo-check",
        "elbo(q, prior, rates, counts)",
        tuple(
            Case({"q": torch.from_numpy(q), **given(*model)}, evidence_less_gap(q, *model))
            for q, model in zip(GUESSED, MODELS, strict=True)
        ),
        points=3,
    ),
    Question(
        "best-q-check",
        "best_q(prior, rates, counts, kl_weight)",
        tuple(Case({**given(p, r, x), "kl_weight": weight}, at_a_price(p, r, x, weight)) for p, r, x, weight in PRICES),
        points=3,
    ),
    Question(
        "em-step-check",
        "em_step(prior, rates, counts)",
        tuple(Case(given(*model), em_round(*model)) for model in MODELS),
        points=3,
    ),
    Question(
        "gaussian-elbo-check",
        "gaussian_elbo(x, a, s, m, v)",
        tuple(
            Case(
                {"x": torch.from_numpy(x), "a": a, "s": s, "m": torch.from_numpy(m), "v": torch.from_numpy(v)},
                by_quadrature(x, a, s, m, v),
            )
            for x, a, s, m, v in NUMBERS
        ),
        points=3,
    ),
)

ELBO = """
def elbo(q, prior, rates, counts):
    x = counts[:, None]
    log_likelihood = {}
    return {}
"""
BEST_Q = """
def best_q(prior, rates, counts, kl_weight):
    log_likelihood = counts[:, None] * rates.log() - rates
    return {}
"""
EM_STEP = """
def em_step(prior, rates, counts):
    q = ({}).softmax(-1)
    return {}
"""
GAUSSIAN = """
def gaussian_elbo(x, a, s, m, v):
    reconstruction = {}
    return reconstruction - {}
"""
POISSON = "x * rates.log() - rates - torch.lgamma(x + 1)"
POSTERIOR = "prior.log() + counts[:, None] * rates.log() - rates"
DENSITY = "-0.5 * math.log(2 * math.pi * s**2) - ((x - a * m) ** 2 + a**2 * v) / (2 * s**2)"
MATCHING = "0.5 * (m**2 + v - 1 - v.log())"
WRONG = {
    "elbo-check": {
        "no prior": ELBO.format(POISSON, "(q * log_likelihood).sum(-1) - torch.special.xlogy(q, q).sum(-1)"),
        "sign of the divergence": ELBO.format(
            POISSON, "(q * log_likelihood).sum(-1) + torch.special.xlogy(q, q / prior).sum(-1)"
        ),
        "the divergence the other way round": ELBO.format(
            POISSON, "(q * log_likelihood).sum(-1) - (prior * (prior / q.clamp(min=1e-300)).log()).sum(-1)"
        ),
        "no factorial": ELBO.format(
            "x * rates.log() - rates", "(q * log_likelihood).sum(-1) - torch.special.xlogy(q, q / prior).sum(-1)"
        ),
        "axis": ELBO.format(POISSON, "(q * log_likelihood - torch.special.xlogy(q, q / prior)).sum(0)"),
        "zero times minus infinity": ELBO.format(POISSON, "(q * (log_likelihood - (q / prior).log())).sum(-1)"),
    },
    "best-q-check": {
        "the prior at the price too": BEST_Q.format("((prior.log() + log_likelihood) / kl_weight).softmax(-1)"),
        "times for divided": BEST_Q.format("(prior.log() + kl_weight * log_likelihood).softmax(-1)"),
        "axis": BEST_Q.format("(prior.log() + log_likelihood / kl_weight).softmax(0)"),
        "no logarithms": BEST_Q.format(
            "(lambda f: f / f.sum(-1, keepdim=True))"
            "(prior * (rates ** counts[:, None] * torch.exp(-rates)) ** (1 / kl_weight))"
        ),
    },
    "em-step-check": {
        "posterior without the prior": EM_STEP.format(
            "counts[:, None] * rates.log() - rates", "q.mean(0), (counts @ q) / q.sum(0)"
        ),
        "posterior without its exponential": EM_STEP.format(
            "prior.log() + counts[:, None] * rates.log()", "q.mean(0), (counts @ q) / q.sum(0)"
        ),
        "the old prior kept": EM_STEP.format(POSTERIOR, "prior, (counts @ q) / q.sum(0)"),
        "rates over all flashes": EM_STEP.format(POSTERIOR, "q.mean(0), (counts @ q) / len(counts)"),
        "weights that are not shares": EM_STEP.format(POSTERIOR, "q.sum(0), (counts @ q) / q.sum(0)"),
        "each flash to one kind": EM_STEP.format(
            POSTERIOR,
            "(lambda r: (r.mean(0), (counts @ r) / r.sum(0).clamp(min=1)))"
            "(torch.nn.functional.one_hot(q.argmax(-1), len(prior)).to(q))",
        ),
    },
    "gaussian-elbo-check": {
        "the spread of q forgotten": GAUSSIAN.format(
            "-0.5 * math.log(2 * math.pi * s**2) - (x - a * m) ** 2 / (2 * s**2)", MATCHING
        ),
        "a for a squared": GAUSSIAN.format(DENSITY.replace("a**2 * v", "a * v"), MATCHING),
        "v taken for a width": GAUSSIAN.format(DENSITY, "0.5 * (m**2 + v**2 - 1 - 2 * v.log())"),
        "the divergence the other way round": GAUSSIAN.format(DENSITY, "0.5 * ((1 + m**2) / v - 1 + v.log())"),
        "divergence not halved": GAUSSIAN.format(DENSITY, "(m**2 + v - 1 - v.log())"),
        "s for s squared": GAUSSIAN.format(DENSITY.replace("2 * math.pi * s**2", "2 * math.pi * s"), MATCHING),
    },
}
