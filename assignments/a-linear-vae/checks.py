"""What grading asks about "a-linear-vae": hidden inputs from a seed, references by formulas of their own."""

import itertools
import math

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(75)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(3)  # exact for the quadratic functions of the bound


def log_normal(x: np.ndarray, mean: np.ndarray | float, variance: np.ndarray) -> np.ndarray:
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(-1)


def conditioned(W: np.ndarray, b: np.ndarray, psi: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h given x from the covariance of (h, x): an n×n matrix is solved, no precision is formed."""
    gain = np.linalg.solve(W @ W.T + np.diag(psi), W).T
    return (x - b) @ gain.T, np.eye(W.shape[1]) - gain @ W


def by_quadrature(W, b, psi, V, c, s2, x) -> tuple[np.ndarray, np.ndarray]:
    """E_q[log p(x|h)] and E_q[log q(h|x) − log p(h)] as sums over a grid of h."""
    mean = x @ V.T + c
    reconstruction, divergence = np.zeros(len(x)), np.zeros(len(x))
    for index in itertools.product(range(3), repeat=len(c)):
        weight = math.prod(WEIGHTS[k] / math.sqrt(2 * math.pi) for k in index)
        h = mean + np.sqrt(s2) * NODES[list(index)]
        reconstruction += weight * log_normal(x, h @ W.T + b, psi)
        divergence += weight * (log_normal(h, mean, s2) - log_normal(h, 0.0, np.ones_like(h)))
    return reconstruction, divergence


def from_joint(V, c, s2, mean, S) -> tuple[float, float]:
    """The information from three determinants of the joint covariance, the mismatch along its eigenvectors."""
    joint = np.block([[S, S @ V.T], [V @ S, V @ S @ V.T + np.diag(s2)]])
    codes = joint[len(mean) :, len(mean) :]
    dets = [np.linalg.slogdet(part)[1] for part in (S, codes, joint)]
    e = np.linalg.eigvalsh(codes)
    centre = V @ mean + c
    return 0.5 * (dets[0] + dets[1] - dets[2]), 0.5 * float((e - 1 - np.log(e)).sum() + centre @ centre)


def water(S: np.ndarray, psi: np.ndarray, kl_weight: float, m: int) -> np.ndarray:
    """The eigenvalues of Ψ⁻¹S, which is not symmetric, above the level."""
    values = np.sort(np.linalg.eigvals(S / psi[:, None]).real)[::-1][:m]
    return np.array([0.5 * math.log(v / kl_weight) if v > kl_weight else 0.0 for v in values])


def model(n: int, m: int) -> dict[str, np.ndarray]:
    return {"W": DRAW.normal(size=(n, m)), "b": DRAW.normal(size=n), "psi": DRAW.uniform(0.1, 2, n)}


def encoder(n: int, m: int) -> dict[str, np.ndarray]:
    return {"V": 0.5 * DRAW.normal(size=(m, n)), "c": DRAW.normal(size=m), "s2": DRAW.uniform(0.1, 1.5, m)}


def covariance(n: int) -> np.ndarray:
    A = DRAW.normal(size=(n, 2 * n)) * DRAW.uniform(0.3, 2, (n, 1))
    return A @ A.T / (2 * n)


def tensors(inputs: dict) -> dict:
    return {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in inputs.items()}


SIZES = ((4, 2, 5), (6, 3, 3), (3, 1, 7))
EXACT = [{**model(n, m), "x": DRAW.normal(size=(N, n))} for n, m, N in SIZES]
BOUND = [{**model(n, m), **encoder(n, m), "x": DRAW.normal(size=(N, n))} for n, m, N in SIZES]
CODES = [{**encoder(n, m), "mean": DRAW.normal(size=n), "S": covariance(n)} for n, m, _ in SIZES]
WATER = [
    {"S": covariance(n), "psi": DRAW.uniform(0.2, 1.5, n), "kl_weight": weight, "m": m}
    for n, weight, m in ((5, 1.0, 3), (6, 2.5, 6), (8, 0.6, 8), (4, 1.3, 2))
]

QUESTIONS = (
    Question(
        "posterior-check",
        "posterior(W, b, psi, x)",
        tuple(Case(tensors(inputs), conditioned(**inputs)) for inputs in EXACT),
        points=3,
    ),
    Question(
        "elbo-check",
        "elbo(W, b, psi, V, c, s2, x)",
        tuple(Case(tensors(inputs), by_quadrature(**inputs)) for inputs in BOUND),
        points=3,
    ),
    Question(
        "split-check",
        "[float(part) for part in split(V, c, s2, mean, S)]",
        tuple(Case(tensors(inputs), from_joint(**inputs)) for inputs in CODES),
        points=3,
    ),
    Question(
        "rates-check",
        "rates(S, psi, kl_weight, m)",
        tuple(Case(tensors(inputs), water(**inputs)) for inputs in WATER),
        points=3,
    ),
)

POSTERIOR = """
def posterior(W, b, psi, x):
    scaled = {}
    precision = {}
    covariance = torch.linalg.inv(precision)
    return {}
"""
ELBO = """
def elbo(W, b, psi, V, c, s2, x):
    mean = x @ V.mT + c
    squares = {}
    divergence = {}
    return {}, divergence
"""
SUM = "-0.5 * (squares / psi + (2 * math.pi * psi).log()).sum(-1)"
KL = "0.5 * (mean.square() + s2 - 1 - s2.log()).sum(-1)"
SQUARES = "(x - b - mean @ W.mT).square() + W.square() @ s2"
SPLIT = """
def split(V, c, s2, mean, S):
    together, centre = {}
    log_det = torch.linalg.slogdet(together).logabsdet
    return {}
"""
CODE = "V @ S @ V.mT + torch.diag(s2), V @ mean + c"
INFORMATION = "0.5 * (log_det - s2.log().sum())"
RATES = """
def rates(S, psi, kl_weight, m):
    spectrum = torch.linalg.eigvalsh({}){}[:m]
    return {}
"""
WHITE, LOG = "S / psi.sqrt()[:, None] / psi.sqrt()", "0.5 * (spectrum / kl_weight).clamp(min=1).log()"
EYE = "torch.eye(W.shape[1], dtype=W.dtype)"
WRONG = {
    "posterior-check": {
        "deviations for variances": POSTERIOR.format(
            "W / psi[:, None] ** 2", EYE + " + W.mT @ scaled", "(x - b) @ scaled @ covariance, covariance"
        ),
        "no prior": POSTERIOR.format("W / psi[:, None]", "W.mT @ scaled", "(x - b) @ scaled @ covariance, covariance"),
        "no offset": POSTERIOR.format(
            "W / psi[:, None]", EYE + " + W.mT @ scaled", "x @ scaled @ covariance, covariance"
        ),
        "precision for covariance": POSTERIOR.format(
            "W / psi[:, None]", EYE + " + W.mT @ scaled", "(x - b) @ scaled @ covariance, precision"
        ),
    },
    "elbo-check": {
        "mean for the sum over detectors": ELBO.format(SQUARES, KL, SUM.replace(".sum(", ".mean(")),
        "no blur": ELBO.format("(x - b - mean @ W.mT).square()", KL, SUM),
        "deviations for variances": ELBO.format(
            SQUARES, KL, "-0.5 * (squares / psi**2 + (2 * math.pi * psi**2).log()).sum(-1)"
        ),
        "sign of the divergence": ELBO.format(SQUARES, "-" + KL, SUM),
        "no constant": ELBO.format(SQUARES, KL, "-0.5 * (squares / psi).sum(-1)"),
        "sum over examples": ELBO.format(SQUARES, KL.replace("sum(-1)", "sum(-1).mean()"), SUM + ".mean()"),
    },
    "split-check": {
        "the codes' means only": SPLIT.format(
            "V @ S @ V.mT, V @ mean + c",
            INFORMATION + ", 0.5 * (together.trace() + centre @ centre - len(c) - log_det)",
        ),
        "without the centre": SPLIT.format(CODE, INFORMATION + ", 0.5 * (together.trace() - len(c) - log_det)"),
        "the whole rate for the information": SPLIT.format(
            CODE,
            "0.5 * (together.trace() + centre @ centre - len(c) - s2.log().sum()), "
            "0.5 * (together.trace() + centre @ centre - len(c) - log_det)",
        ),
        "sign of the determinant": SPLIT.format(
            CODE, INFORMATION + ", 0.5 * (together.trace() + centre @ centre - len(c) + log_det)"
        ),
        "the other order": SPLIT.format(
            CODE, "0.5 * (together.trace() + centre @ centre - len(c) - log_det), " + INFORMATION
        ),
    },
    "rates-check": {
        "noise left out": RATES.format("S", ".flip(0)", LOG),
        "deviations for variances": RATES.format("S / psi[:, None] / psi", ".flip(0)", LOG),
        "no threshold": RATES.format(WHITE, ".flip(0)", "0.5 * (spectrum / kl_weight).log()"),
        "weight left out": RATES.format(WHITE, ".flip(0)", "0.5 * spectrum.clamp(min=1).log()"),
        "weight as a power": RATES.format(WHITE, ".flip(0)", "0.5 * spectrum.clamp(min=1).log() / kl_weight"),
        "the smallest first": RATES.format(WHITE, "", LOG),
        "no half": RATES.format(WHITE, ".flip(0)", "(spectrum / kl_weight).clamp(min=1).log()"),
    },
}
