"""The Fréchet distance against closed forms, SciPy's matrix root, and the transport problem it solves."""

# pyright: reportAttributeAccessIssue=false

import math
from inspect import unwrap

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from lecturecode import frechet, seeded
from lecturecode.distance import frechet_gaussian

f64 = torch.float64


def covariance(d, seed, rank=None):
    half = torch.randn(d, rank or d, generator=seeded(seed), dtype=f64)
    return half @ half.mT


def mean(d, seed):
    return torch.randn(d, generator=seeded(seed), dtype=f64)


def test_one_dimension_is_the_distance_of_mean_and_standard_deviation():
    found = frechet_gaussian(torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([-2.0]), torch.tensor([[0.25]]))
    assert float(found) == pytest.approx(9 + 1.5**2, rel=1e-14)


def test_commuting_covariances():
    """Same eigenvectors: |m_1 − m_2|² + Σ (s_1 − s_2)²."""
    axes = torch.linalg.qr(covariance(5, 1)).Q
    s1, s2 = torch.tensor([1.0, 2, 3, 4, 5], dtype=f64), torch.tensor([2.0, 0.5, 3, 0, 1], dtype=f64)
    c1, c2 = ((axes * s**2) @ axes.mT for s in (s1, s2))
    expected = (mean(5, 1) - mean(5, 2)).square().sum() + (s1 - s2).square().sum()
    assert float(frechet_gaussian(mean(5, 1), c1, mean(5, 2), c2)) == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("d", [1, 3, 8])
def test_against_the_root_of_the_product(d):
    """SciPy's sqrtm of C_1 C_2, which is not symmetric."""
    c1, c2 = covariance(d, 1), covariance(d, 2)
    root = np.atleast_2d(scipy.linalg.sqrtm(c1.numpy() @ c2.numpy()))
    expected = (mean(d, 1) - mean(d, 2)).square().sum() + c1.trace() + c2.trace() - 2 * float(np.trace(root).real)
    assert float(frechet_gaussian(mean(d, 1), c1, mean(d, 2), c2)) == pytest.approx(float(expected), rel=1e-10)


def test_symmetric_zero_on_itself_and_with_singular_covariances():
    c1, c2 = covariance(6, 1, rank=2), covariance(6, 2)
    there, back = frechet_gaussian(mean(6, 1), c1, mean(6, 2), c2), frechet_gaussian(mean(6, 2), c2, mean(6, 1), c1)
    assert float(there) == pytest.approx(float(back), rel=1e-7)
    assert abs(float(frechet_gaussian(mean(6, 1), c2, mean(6, 1), c2))) < 1e-12 * float(c2.trace())
    assert abs(float(frechet_gaussian(mean(6, 1), c1, mean(6, 1), c1))) < 1e-6 * float(c1.trace())


def test_it_is_the_cheapest_way_to_carry_one_gaussian_to_the_other():
    """E|x − y|² of y = Ax with A = C_1^{-½} (C_1^½ C_2 C_1^½)^½ C_1^{-½}; no rotation of the coupling is cheaper."""
    c1, c2 = covariance(3, 1).numpy(), covariance(3, 2).numpy()
    root = scipy.linalg.sqrtm(c1)
    inner = scipy.linalg.sqrtm(root @ c2 @ root)
    exact = float(frechet_gaussian(torch.zeros(3, dtype=f64), *(torch.from_numpy(c1), torch.zeros(3, dtype=f64)),
                                   torch.from_numpy(c2)))  # fmt: skip
    assert np.trace(c1 + c2 - 2 * inner).real == pytest.approx(exact, rel=1e-10)
    half = scipy.linalg.sqrtm(c2).real

    def cost(angles):
        skew = np.array([[0, angles[0], angles[1]], [-angles[0], 0, angles[2]], [-angles[1], -angles[2], 0]])
        cross = root.real @ scipy.linalg.expm(skew) @ half  # Cov(x, y) of x = C_1^½ e, y = C_2^½ Oᵀ e
        return float(np.trace(c1 + c2 - 2 * cross))

    best = min(scipy.optimize.minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun
               for start in ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))  # fmt: skip
    assert best == pytest.approx(exact, rel=1e-6)


def test_of_points_by_numpy(dtype, device):
    a, b = (torch.randn(n, 4, generator=seeded(n)).to(dtype).to(device) for n in (40, 25))
    x, y = a.double().cpu().numpy(), b.double().cpu().numpy()
    c1, c2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(c1 @ c2)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root.real)
    found = frechet(a, b)
    assert found.dtype == f64
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_of_points_in_one_dimension():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [9.0]])
    assert float(frechet(a, b)) == pytest.approx((1 - 5) ** 2 + (math.sqrt(2) - 4) ** 2, rel=1e-12)


def test_two_samples_of_one_distribution_are_apart_and_less_so_when_larger():
    def floor(n):
        return float(frechet(*(torch.randn(n, 8, generator=seeded(k)) for k in (n, n + 1))))

    assert floor(50) > 3 * floor(500) > 9 * floor(5000) > 0


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), r"second has shape \(3, 4\), not \(any, 2\)"),
        (torch.zeros(1, 2), torch.zeros(3, 2), "first has one point; a covariance needs at least two"),
        (torch.zeros(3, 2), torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), r"second\[1, 0\] is nan"),
    ],
)
def test_sets_that_are_refused(first, second, words):
    with pytest.raises(ValueError, match=words):
        frechet(first, second)


def test_matrices_that_are_no_covariances_are_refused():
    m, eye = torch.zeros(2), torch.eye(2)
    with pytest.raises(ValueError, match=r"cov2 is not symmetric; pass \(cov2 \+ cov2.mT\)/2"):
        frechet_gaussian(m, eye, m, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="cov1 has the eigenvalue -1"):
        frechet_gaussian(m, torch.diag(torch.tensor([1.0, -1.0])), m, eye)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"mean2": torch.zeros(3)}, r"mean2 has shape \(3,\)"), ({"cov2": torch.eye(3)}, r"cov2 has shape \(3, 3\)"),
     ({"cov1": torch.eye(2) * float("nan")}, "cov1.* is nan"), ({"mean1": torch.zeros(1)}, "mean2 has shape")],
)  # fmt: skip
def test_gaussians_that_do_not_fit_are_refused(change, words):
    given = {"mean1": torch.zeros(2), "cov1": torch.eye(2), "mean2": torch.zeros(2), "cov2": torch.eye(2)} | change
    with pytest.raises(ValueError, match=words):
        unwrap(frechet_gaussian)(**given)


def test_the_distance_is_never_below_zero():
    for k in range(20):
        x = torch.randn(12, 5, dtype=torch.float64, generator=seeded(k))
        assert frechet(x, x) >= 0
