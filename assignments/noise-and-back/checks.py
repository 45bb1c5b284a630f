"""What grading asks about "noise-and-back": hidden inputs from a seed, references by formulas of their own."""

import itertools
import math

import numpy as np
import torch

from grading.judge import Case, Question

DRAW = np.random.default_rng(78)


def from_covariance(
    x0_hat: np.ndarray, xt: np.ndarray, early: tuple, late: tuple, eta: float
) -> tuple[np.ndarray, float]:
    """Gaussian conditioning: x_r and x_t have given variances, and the covariance that leaves the wanted one."""
    (alpha_r, sigma_r), (alpha_t, sigma_t) = early, late
    left = eta**2 / (1 / sigma_r**2 + (alpha_t / alpha_r) ** 2 / (sigma_t**2 - (alpha_t / alpha_r * sigma_r) ** 2))
    shared = sigma_t * math.sqrt(sigma_r**2 - left)
    return alpha_r * x0_hat + shared / sigma_t**2 * (xt - alpha_t * x0_hat), math.sqrt(left)


def by_quadrature(xt, alpha, sigma, weights, means, variances) -> np.ndarray:
    """Bayes' rule on a fine grid of x_0."""
    x0 = np.linspace(-12, 12, 24_001)[:, None]
    data = (weights * np.exp(-((x0 - means) ** 2) / (2 * variances)) / np.sqrt(variances)).sum(1)
    found = []
    for x in xt:
        log_like = -((x - alpha * x0[:, 0]) ** 2) / (2 * sigma**2)
        joint = data * np.exp(log_like - log_like.max())
        found.append((joint * x0[:, 0]).sum() / joint.sum())
    return np.array(found)


def integrated(c: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """½ ∫ [mmse(SNR_t) − mmse(ω)] dω over each step, by Gauss and Legendre on short pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    found = []
    for high, low in itertools.pairwise(snr):
        edges, total = np.linspace(low, high, 41), 0.0
        for a, b in itertools.pairwise(edges):
            omega = (a + b) / 2 + (b - a) / 2 * nodes
            mmse = (c / (1 + np.outer(omega, c))).sum(1)
            total += (b - a) / 2 * weights @ ((c / (1 + c * low)).sum() - mmse)
        found.append(total / 2)
    return np.array(found)


def trapezium(b: float, y: np.ndarray, nus: np.ndarray) -> np.ndarray:
    """Number by number, the mean of the two slopes written out for x̂_0 = tanh(y/ν² + b)."""
    found = []
    for value in y.tolist():
        for late, early in itertools.pairwise(nus.tolist()):
            guess = math.tanh(value / late**2 + b)
            foot = guess + early / late * (value - guess)
            again = math.tanh(foot / early**2 + b)
            ratio = early / late
            value += (ratio - 1) / 2 * (value - guess) + (1 - 1 / ratio) / 2 * (foot - again)
        found.append(value)
    return np.array(found)


def mixture(count: int) -> dict[str, np.ndarray]:
    return {
        "weights": DRAW.dirichlet(2 * np.ones(count)),
        "means": DRAW.normal(0, 1.5, count),
        "variances": DRAW.uniform(0.05, 0.8, count),
    }


def tensors(inputs: dict) -> dict:
    return {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in inputs.items()}


LEVELS = (
    ((0.9, math.sqrt(0.19)), (0.5, math.sqrt(0.75)), 1.0),
    ((1.0, 0.4), (1.0, 1.7), 0.6),
    ((0.7, 0.9), (0.3, 1.1), 0.0),
)
STEPS = [
    {"x0_hat": DRAW.normal(size=shape), "xt": DRAW.normal(size=shape), "early": early, "late": late, "eta": eta}
    for (early, late, eta), shape in zip(LEVELS, ((5,), (3, 2), (4,)), strict=True)
]
CLEAN = [
    {"xt": DRAW.normal(0, 1.5, 6), "alpha": alpha, "sigma": sigma, **mixture(count)}
    for alpha, sigma, count in ((0.8, 0.6, 2), (0.3, math.sqrt(0.91), 3), (1.0, 2.5, 4), (0.95, 0.2, 3))
]
GRIDS = [
    {"c": DRAW.uniform(0.1, 4, n), "snr": np.sort(DRAW.gamma(0.6, 6, steps))[::-1].copy()}
    for n, steps in ((1, 5), (3, 4), (6, 9))
]
GRIDS[0]["snr"][-1] = 0.0
PATHS = [
    {"b": b, "y": DRAW.normal(0, 3, n), "nus": np.geomspace(high, low, steps + 1)}
    for b, n, high, low, steps in ((0.0, 5, 6.0, 0.7, 6), (0.4, 4, 3.0, 0.5, 4), (-0.2, 3, 9.0, 1.1, 1))
]

QUESTIONS = (
    Question(
        "step-check",
        "step(x0_hat, xt, early, late, eta)",
        tuple(Case(tensors(inputs), from_covariance(**inputs)) for inputs in STEPS),
        points=3,
    ),
    Question(
        "denoise-check",
        "denoise(xt, alpha, sigma, weights, means, variances)",
        tuple(Case(tensors(inputs), by_quadrature(**inputs)) for inputs in CLEAN),
        points=3,
    ),
    Question(
        "excess-check",
        "excess(c, snr)",
        tuple(Case(tensors(inputs), integrated(**inputs)) for inputs in GRIDS),
        points=3,
    ),
    Question(
        "heun-check",
        "heun(lambda y, nu: (y / nu**2 + b).tanh(), y, nus)",
        tuple(Case(tensors(inputs), trapezium(**inputs)) for inputs in PATHS),
        points=3,
    ),
)

STEP = """
def step(x0_hat, xt, early, late, eta):
    (alpha_r, sigma_r), (alpha_t, sigma_t) = early, late
    kept = alpha_t / alpha_r * sigma_r / sigma_t
    deviation = {}
    eps = {}
    return alpha_r * x0_hat + {} * eps, deviation
"""
RIGHT, EPS, REST = (
    "eta * sigma_r * math.sqrt(1 - kept**2)",
    "(xt - alpha_t * x0_hat) / sigma_t",
    "math.sqrt(sigma_r**2 - deviation**2)",
)
DENOISE = """
def denoise(xt, alpha, sigma, weights, means, variances):
    total = alpha**2 * variances + sigma**2
    away = xt[:, None] - alpha * means
    share = {}
    return {}
"""
SHARE = "(weights.log() - 0.5 * (away.square() / total + total.log())).softmax(1)"
BACK = "(share * (means + alpha * variances / total * away)).sum(1)"
EXCESS = """
def excess(c, snr):
    high, low = snr[:-1, None], snr[1:, None]
    beyond = c * (high - low) / (1 + c * {})
    return {}
"""
HEUN = """
def heun(denoiser, y, nus):
    for late, early in zip(nus[:-1], nus[1:]):
        slope = (y - denoiser(y, late)) / late
        there = y + (early - late) * slope
        y = {}
    return y
"""
WRONG = {
    "step-check": {
        "all of the old noise, and fresh noise": STEP.format(RIGHT, EPS, "sigma_r"),
        "variance for deviation": STEP.format("eta * sigma_r**2 * (1 - kept**2)", EPS, REST),
        "the climbing step's noise": STEP.format(
            "eta * sigma_t * math.sqrt(1 - kept**2)", EPS, "max(sigma_r**2 - deviation**2, 0) ** 0.5"
        ),
        "the levels exchanged": STEP.format(RIGHT, "(xt - alpha_r * x0_hat) / sigma_r", REST),
        "noise not divided": STEP.format(RIGHT, "xt - alpha_t * x0_hat", REST),
        "sign of the noise": STEP.format(RIGHT, "-" + EPS, REST),
    },
    "denoise-check": {
        "weights that have not looked": DENOISE.format("weights.expand(len(xt), -1)", BACK),
        "the humps' widths left out": DENOISE.format(
            "(weights.log() - 0.5 * away.square() / sigma**2).softmax(1)", BACK
        ),
        "determinant left out": DENOISE.format("(weights.log() - 0.5 * away.square() / total).softmax(1)", BACK),
        "the mean of x_t": DENOISE.format(SHARE, "alpha * " + BACK),
        "weights left out": DENOISE.format(SHARE.replace("weights.log() - ", "-"), BACK),
        "the nearest means only": DENOISE.format(SHARE, "(share * means).sum(1)"),
        "axis": DENOISE.format(SHARE.replace("softmax(1)", "softmax(0)"), BACK),
    },
    "excess-check": {
        "the error at the cleaner end": EXCESS.format("high", "0.5 * (beyond + (-beyond).log1p()).sum(1)"),
        "no half": EXCESS.format("low", "(beyond - beyond.log1p()).sum(1)"),
        "the step's whole cost": EXCESS.format("low", "0.5 * beyond.sum(1)"),
        "what many steps cost": EXCESS.format("low", "0.5 * beyond.log1p().sum(1)"),
        "sign": EXCESS.format("low", "0.5 * (beyond.log1p() - beyond).sum(1)"),
        "axis": EXCESS.format("low", "0.5 * (beyond - beyond.log1p()).sum(0)"),
        "mean over eigenvalues": EXCESS.format("low", "0.5 * (beyond - beyond.log1p()).mean(1)"),
        "summed over steps": EXCESS.format("low", "0.5 * (beyond - beyond.log1p()).sum()"),
    },
    "heun-check": {
        "Euler at the end": HEUN.format(
            "there if early == nus[-1] else y + (early - late) / 2 * (slope + (there - denoiser(there, early)) / early)"
        ),
        "Euler": HEUN.format("there"),
        "the second slope alone": HEUN.format("y + (early - late) * (there - denoiser(there, early)) / early"),
        "the second slope at the old level": HEUN.format(
            "y + (early - late) / 2 * (slope + (there - denoiser(there, late)) / late)"
        ),
        "the second slope at the old place": HEUN.format(
            "y + (early - late) / 2 * (slope + (y - denoiser(y, early)) / early)"
        ),
        "sign of the step": HEUN.format("y - (early - late) / 2 * (slope + (there - denoiser(there, early)) / early)"),
        "slopes added up": HEUN.format("y + (early - late) * (slope + (there - denoiser(there, early)) / early)"),
    },
}
