"""The exercises of probability/fitting-models: every number of the table computed anew, and what the solutions say."""

import itertools
import math
import tomllib
from importlib.resources import files
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import optimize, stats

from lecturecode import exercises

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/fitting_models.toml").read_text(encoding="utf-8"))


def log_two_spins(J, b):
    log_f = np.array([J + 2 * b, -J, -J, J - 2 * b])
    return log_f - np.log(np.exp(log_f).sum())


def spin_fits():
    counts = np.array([12, 1, 3, 4])

    def loss(theta):
        return -counts @ log_two_spins(*theta)

    def slopes(theta):
        p = np.exp(log_two_spins(*theta))
        return [(counts / 20 - p) @ [1, -1, -1, 1], (counts / 20 - p) @ [2, 0, 0, -2]]

    right = optimize.root(slopes, [0.0, 0.0], tol=1e-14).x
    assert loss(right) < min(loss(right + step) for step in ([0.01, 0], [-0.01, 0], [0, 0.01], [0, -0.01]))
    unshared = [0.25 * math.log(12 * 4 / 4**2), 0.25 * math.log(12 / 4)]
    aligned = optimize.root_scalar(lambda J: math.tanh(J) - (16 - 4) / 20, bracket=(0, 3), xtol=1e-15).root
    return right, [unshared, 2 * right, [aligned, 0.0]]


def optimism():
    # n coordinates; a training point is x̄ + (x − x̄), the residual has variance 1 − 1/N; a new one 1 + 1/N
    n, points = 12, 60
    to_mean = np.full(points, -1 / points)
    to_mean[0] += 1
    inside, outside = to_mean @ to_mean, 1 + points * (1 / points) ** 2
    right = n * (outside - inside) / 2
    return right, [n * (outside - 1) / 2, right * points, points / n]


def product_of_gaussians():
    cov = np.array([[1, 0.9], [0.9, 1]])
    axis = np.linspace(-8, 8, 321)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    log_p, cell = stats.multivariate_normal([0, 0], cov).logpdf(grid), (axis[1] - axis[0]) ** 2
    squares = (grid**2).sum(-1)

    def divergence(log_variance, forward):
        log_q = -squares / (2 * math.exp(log_variance)) - log_variance - math.log(2 * math.pi)
        a, b = (log_p, log_q) if forward else (log_q, log_p)
        return float((np.exp(a) * (a - b)).sum() * cell)

    def fitted(way: bool) -> float:
        found: Any = optimize.minimize_scalar(
            divergence, args=(way,), bounds=(-3, 1), method="bounded", options={"xatol": 1e-9}
        )
        return math.exp(found.x)

    fits = [fitted(way) for way in (True, False)]
    conditional = 1 - 0.9**2
    assert fits == pytest.approx([1.0, conditional], rel=1e-6)
    exact = [cov[0, 0], 1 / np.linalg.inv(cov)[0, 0]]
    return exact, [exact[::-1], [exact[0], math.sqrt(exact[1])]]


def both_directions():
    def divergence(a, b):
        log_ratio = lambda x: mpmath.log(mpmath.npdf(x, *a)) - mpmath.log(mpmath.npdf(x, *b))  # noqa: E731
        ends = [a[0] + k * a[1] for k in (-12, -3, 0, 3, 12)]
        return float(mpmath.quad(lambda x: mpmath.npdf(x, *a) * log_ratio(x), ends))

    p, q = (1.0, 0.5), (0.0, 1.0)
    right = np.array([divergence(p, q), divergence(q, p)])

    def with_widths(mp, sp, mq, sq):
        return math.log(sq / sp) + (sp + (mp - mq) ** 2) / (2 * sq) - 0.5

    return right, [right[::-1], right / math.log(2), [with_widths(*p, *q), with_widths(*q, *p)]]


def draws_for_kl():
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    values = ((nodes + 0.1) ** 2 - nodes**2) / 2
    mean = weights @ values
    variance = weights @ (values - mean) ** 2
    right = variance / (mean / 10) ** 2
    return right, [variance / mean**2, right / 10, 10 * variance / (mean / 10)]


def two_weights():
    lists = list(itertools.product([1, 9], repeat=2))
    right = math.log(5) - sum(math.log(sum(pair) / 2) for pair in lists) / 4
    one = math.log(5) - (math.log(1) + math.log(9)) / 2
    first_order = np.var([1, 9]) / (2 * np.mean([1, 9]) ** 2) / 2
    return right, [one, first_order, -right]


EXERCISES = {
    "two-spin-counts": spin_fits,
    "optimism": optimism,
    "product-of-gaussians": product_of_gaussians,
    "both-directions": both_directions,
    "draws-for-kl": draws_for_kl,
    "two-weights": two_weights,
}


def test_every_entry_is_computed_here():
    assert set(TABLE) == set(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_answers(name, capsys):
    right, wrong = EXERCISES[name]()
    entry = TABLE[name]
    assert entry["answer"] == pytest.approx(np.asarray(right), rel=1e-9, abs=1e-12)
    assert len(entry["wrong"]) == len(wrong)
    for row, value in zip(entry["wrong"], wrong, strict=True):
        assert row["answer"] == pytest.approx(np.asarray(value), rel=1e-9, abs=1e-12)
    assert exercises.check(name, torch.as_tensor(np.array(right), dtype=torch.float64))
    assert capsys.readouterr().out == "Right.\n"
    for row in entry["wrong"]:
        assert not exercises.check(name, torch.tensor(row["answer"], dtype=torch.float64))
        assert capsys.readouterr().out == row["hint"] + "\n"


def test_two_spin_solution():
    right, _ = spin_fits()
    assert right == pytest.approx([math.log(12) / 4, math.log(3) / 4], rel=1e-12)


def test_optimism_solution():
    right, (half, *_) = optimism()
    assert right == pytest.approx(12 / 60, rel=1e-12)
    assert right == pytest.approx(2 * half, rel=1e-12)


@pytest.mark.parametrize("rho", [0.3, 0.9, -0.5])
def test_product_solution(rho):
    """The two one-parameter divergences of the solution against the general formula, and where they are lowest."""
    cov = np.array([[1, rho], [rho, 1]])

    def general(a, b):
        ratio = np.linalg.solve(b, a)
        return 0.5 * (np.trace(ratio) - 2 - math.log(np.linalg.det(ratio)))

    def forward(v):
        return 0.5 * (2 / v - 2 + 2 * math.log(v) - math.log(1 - rho**2))

    def reverse(v):
        return 0.5 * (v * 2 / (1 - rho**2) - 2 + math.log(1 - rho**2) - 2 * math.log(v))

    for v in (0.2, 0.7, 1.6):
        assert forward(v) == pytest.approx(general(cov, v * np.eye(2)), abs=1e-12)
        assert reverse(v) == pytest.approx(general(v * np.eye(2), cov), abs=1e-12)
    for function, best in ((forward, 1.0), (reverse, 1 - rho**2)):
        assert all(function(best) < function(best * k) for k in (0.5, 0.99, 1.01, 2.0))


def test_both_directions_solution():
    right, _ = both_directions()
    assert right == pytest.approx([math.log(2) + 1 / 8, 7 / 2 - math.log(2)], rel=1e-12)


def test_non_negative_terms_have_the_same_mean_and_less_variance():
    """u − 1 − log u with u = q/p, by Gauss–Hermite sums that have converged; none of its terms is negative."""
    found = []
    for count in (40, 60):
        nodes, weights = np.polynomial.hermite_e.hermegauss(count)
        weights = weights / weights.sum()
        log_ratio = ((nodes + 0.1) ** 2 - nodes**2) / 2
        u = np.exp(-log_ratio)
        other = log_ratio + u - 1
        assert (other >= 0).all()
        assert weights @ other == pytest.approx(0.005, rel=1e-10)
        found.append((weights @ (log_ratio - 0.005) ** 2) / (weights @ (other - 0.005) ** 2))
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert 180 < found[0] < 220


def test_two_weights_solution():
    right, (one, first_order, _) = two_weights()
    assert right == pytest.approx(math.log(5 / 3) / 2, rel=1e-12)
    assert one == pytest.approx(2 * right, rel=1e-12)
    assert first_order == pytest.approx(16 / (2 * 25 * 2), rel=1e-12)
