"""The exact denoisers against integrals, 50-digit arithmetic and plain sums over components and data points."""

# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false

import itertools
import math

import mpmath
import pytest
import torch
from scipy import integrate

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    EmpiricalDenoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Linear,
    VarianceExploding,
    VariancePreserving,
)
from lecturecode.diffusion import empirical as empirical_module
from lecturecode.rng import normal, uniform

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
SCHEDULES = {
    "preserving": VariancePreserving(),
    "exploding": VarianceExploding(),
    "edm": EDM(),
    "linear": Linear(),
    "zero terminal": Cosine(50).zero_terminal(),
}


def randn(*shape, seed=0):
    return normal(shape, seeded(seed), LIKE)


def matrix(d, seed, rank=None):
    half = randn(d, rank or d, seed=seed)
    return half @ half.mT / d


def mixture(schedule, k=3, d=3, seed=0):
    """Components with covariances of every kind: full, singular, and almost none."""
    weights = uniform((k,), seeded(seed), LIKE) + 0.1
    covariances = torch.stack([matrix(d, seed + j, d if j % 2 == 0 else d - 1) * 10.0 ** (-j) for j in range(k)])
    return GaussianMixtureDenoiser(weights / weights.sum(), 2 * randn(k, d, seed=seed + 9), covariances, schedule)


def close(left, right, tol=1e-10):
    torch.testing.assert_close(left, right, rtol=tol, atol=tol)


def times(schedule):
    return [schedule.end * part for part in (1e-3, 0.1, 0.5, 1.0)]


def precise(model, x, t):
    """(log p_t, p(k|x_t), E[x_0|x_t]) in 50 digits, with matrices inverted and no eigenvectors."""
    with mpmath.workdps(50):
        alpha, sigma = (mpmath.mpf(v.item()) for v in model.schedule(t))
        k, d = model.means.shape
        x = mpmath.matrix(x.tolist())
        logs, means = [], []
        for j in range(k):
            m, c = mpmath.matrix(model.means[j].tolist()), mpmath.matrix(model.covariances[j].tolist())
            spread = alpha**2 * c + sigma**2 * mpmath.eye(d)
            solved = mpmath.lu_solve(spread, x - alpha * m)
            form = ((x - alpha * m).T * solved)[0]
            logs.append(
                mpmath.log(model.weights[j].item())
                - (form + mpmath.log(mpmath.det(spread)) + d * mpmath.log(2 * mpmath.pi)) / 2
            )
            means.append(m + alpha * c * solved)
        top = max(logs)
        log_p = top + mpmath.log(sum(mpmath.exp(v - top) for v in logs))
        share = [mpmath.exp(v - log_p) for v in logs]
        mean = sum((s * m for s, m in zip(share, means, strict=True)), mpmath.zeros(d, 1))
        return float(log_p), [float(s) for s in share], [float(v) for v in mean]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["number", "diagonal", "full", "singular"])
def test_gaussian_against_solved_matrices(name, kind):
    schedule, d = SCHEDULES[name], 4
    full = {
        "number": 0.7 * torch.eye(d, dtype=F64),
        "diagonal": torch.diag(torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=F64)),
        "full": matrix(d, 1),
        "singular": matrix(d, 1, 2),
    }[kind]
    given = {"number": 0.7, "diagonal": full.diagonal().clone()}.get(kind, full)
    mean, x = randn(d, seed=2), randn(5, d, seed=3) * 2
    model = GaussianDenoiser(mean, given, schedule)
    for t in times(schedule):
        alpha, sigma = schedule(t)
        spread = alpha**2 * full + sigma**2 * torch.eye(d, dtype=F64)
        solved = torch.linalg.solve(spread, (x - alpha * mean).mT).mT
        close(model(x, t), mean + alpha * solved @ full, 1e-8)
        close(model.score(x, t), -solved, 1e-8)
        normal_t = torch.distributions.MultivariateNormal(alpha * mean, spread)
        close(model.log_prob(x, t), normal_t.log_prob(x), 1e-8)
        close(
            model.posterior_covariance(x, t)[3],
            full - alpha**2 * full @ torch.linalg.solve(spread, full),
            1e-8,
        )


@pytest.mark.parametrize("name", SCHEDULES)
def test_mixture_against_fifty_digits(name):
    schedule = SCHEDULES[name]
    model, x = mixture(schedule), randn(4, 3, seed=5) * 2
    for t in times(schedule):
        share, log_p, mean = model.responsibilities(x, t), model.log_prob(x, t), model(x, t)
        for row in range(len(x)):
            right = precise(model, x[row], t)
            assert log_p[row].item() == pytest.approx(right[0], rel=1e-10, abs=1e-10)
            assert share[row].tolist() == pytest.approx(right[1], rel=1e-9, abs=1e-10)
            assert mean[row].tolist() == pytest.approx(right[2], rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_mixture_far_away_is_finite_and_right(name):
    """|x| = 10⁴: exp(−½|x|²) is zero in any precision that a machine has."""
    schedule = SCHEDULES[name]
    model = mixture(schedule)
    direction = torch.nn.functional.normalize(randn(4, 3, seed=6))
    for t in times(schedule):
        x = 1e4 * direction
        log_p, mean = model.log_prob(x, t), model(x, t)
        assert torch.isfinite(model.score(x, t)).all()
        for row in range(len(x)):
            right = precise(model, x[row], t)
            assert log_p[row].item() == pytest.approx(right[0], rel=1e-10)
            assert mean[row].tolist() == pytest.approx(right[2], rel=1e-10, abs=1e-10 * mean[row].abs().max().item())


def test_mixture_against_an_integral():
    """One dimension, ∫ x_0 N(x_t; αx_0, σ²) p(x_0) dx_0 by quadrature."""
    schedule, t = VariancePreserving(), 0.3
    weights, means, variances = ([0.3, 0.7], [-1.0, 0.5], [0.04, 0.3])
    model = GaussianMixtureDenoiser(
        torch.tensor(weights, dtype=F64),
        torch.tensor(means, dtype=F64)[:, None],
        torch.tensor(variances, dtype=F64),
        schedule,
    )
    alpha, sigma = (v.item() for v in schedule(t))

    def bell(x, mean, variance):
        return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    for x in (-1.5, 0.0, 0.8):

        def weight(x0, x=x):
            return bell(x, alpha * x0, sigma**2) * sum(
                w * bell(x0, m, v) for w, m, v in zip(weights, means, variances, strict=True)
            )

        options = {"epsabs": 1e-14, "epsrel": 1e-13, "points": [*means, x / alpha], "limit": 200}
        moments = [integrate.quad(lambda u, p=p: u**p * weight(u), -8, 8, **options)[0] for p in range(3)]
        mean = moments[1] / moments[0]
        xt = torch.tensor([[x]], dtype=F64)
        assert model(xt, t).item() == pytest.approx(mean, abs=1e-10)
        assert model.log_prob(xt, t).item() == pytest.approx(math.log(moments[0]), abs=1e-10)
        assert model.posterior_covariance(xt, t).item() == pytest.approx(moments[2] / moments[0] - mean**2, abs=1e-10)


def test_empirical_against_a_plain_sum(monkeypatch):
    """Also with a block of two data points, so that the running maximum is at work."""
    data, schedule = randn(7, 3, seed=1), VariancePreserving()
    model, x = EmpiricalDenoiser(data, schedule), randn(5, 3, seed=2)
    for cells, t in itertools.product((2**21, 10), (0.01, 0.2, 1.0, torch.linspace(0.05, 1, 5, dtype=F64))):
        monkeypatch.setattr(empirical_module, "CELLS", cells)
        mean, log_p = model(x, t), model.log_prob(x, t)
        for row in range(5):
            alpha, sigma = (v.item() for v in schedule(t if isinstance(t, float) else t[row]))
            with mpmath.workdps(40):
                terms = [
                    mpmath.exp(-sum(mpmath.mpf(a - alpha * b) ** 2 for a, b in zip(x[row].tolist(), p, strict=True)))
                    ** (1 / mpmath.mpf(2 * sigma**2))
                    for p in data.tolist()
                ]
                total = sum(terms)
                right = [
                    float(sum(w * p[i] for w, p in zip(terms, data.tolist(), strict=True)) / total) for i in range(3)
                ]
                density = float(mpmath.log(total / 7) - 1.5 * mpmath.log(2 * mpmath.pi * mpmath.mpf(sigma) ** 2))
            assert mean[row].tolist() == pytest.approx(right, rel=1e-10, abs=1e-10)
            assert log_p[row].item() == pytest.approx(density, rel=1e-10, abs=1e-10)


def test_empirical_is_the_mixture_of_points():
    data, schedule = randn(6, 2, seed=1), EDM(10.0)
    points = GaussianMixtureDenoiser(torch.full((6,), 1 / 6, dtype=F64), data, 0.0, schedule)
    for x, t in itertools.product((randn(4, 2), 1e4 * randn(4, 2)), (1e-3, 0.5, 10.0)):
        close(EmpiricalDenoiser(data, schedule)(x, t), points(x, t))
        close(EmpiricalDenoiser(data, schedule).log_prob(x, t), points.log_prob(x, t))


def test_empirical_takes_pictures():
    pictures, schedule = randn(6, 1, 2, 2), VariancePreserving()
    rows = EmpiricalDenoiser(pictures.flatten(1), schedule)(pictures.flatten(1) + 0.1, 0.2)
    close(EmpiricalDenoiser(pictures, schedule)(pictures + 0.1, 0.2), rows.reshape(6, 1, 2, 2))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_limit_at_time_zero(name):
    """x̂_0 → x_t where the data have a spread, its projection on a flat support, the nearest point."""
    schedule, x = SCHEDULES[name], randn(5, 3, seed=4)
    full, flat = matrix(3, 1), torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=F64))
    mean, data = randn(3, seed=2), randn(4, 3, seed=3)
    cases = [
        (GaussianDenoiser(mean, full, schedule), x),
        (GaussianDenoiser(mean, flat, schedule), torch.cat([x[:, :2], mean[2].expand(5, 1)], 1)),
        (GaussianMixtureDenoiser(torch.tensor([0.5, 0.5], dtype=F64), data[:2], 0.3, schedule), x),
        (EmpiricalDenoiser(data, schedule), data[torch.cdist(x, data).argmin(1)]),
        (GaussianMixtureDenoiser(torch.full((4,), 0.25, dtype=F64), data, 0.0, schedule),) * 2,
    ]
    cases[-1] = (cases[-1][0], cases[-2][1])
    for model, limit in cases:
        close(model(x, 0.0), limit)
        near = schedule.time(40.0)  # σ/α = 2e-9
        close(model(x, near), limit, 1e-6)
        close(model(x, torch.zeros(5, dtype=F64)), limit)


@pytest.mark.parametrize("name", SCHEDULES)
def test_score_and_tweedie(name):
    """∇ log p_t by autograd = score = (α x̂_0 − x_t)/σ², and α² Cov[x_0|x_t] = σ² I + σ⁴ ∇∇ᵀ log p_t."""
    schedule = SCHEDULES[name]
    full = mixture(schedule)
    for model in (full, GaussianDenoiser(full.means[0], full.covariances[0], schedule)):
        for t in times(schedule)[1:]:
            alpha, sigma = schedule(t)
            x = (randn(4, 3, seed=7) * (alpha**2 + sigma**2).sqrt()).requires_grad_()
            (slope,) = torch.autograd.grad(model.log_prob(x, t).sum(), x)
            score = model.score(x, t)
            close(score, slope)
            close(sigma**2 * score, alpha * model(x, t) - x, 1e-9)
            rows = [torch.autograd.grad(score[:, i].sum(), x, retain_graph=True)[0] for i in range(3)]
            curved = sigma**2 * (torch.eye(3, dtype=F64) + sigma**2 * torch.stack(rows, 1))
            close(alpha**2 * model.posterior_covariance(x, t), curved, 1e-9 * max(1.0, sigma.item() ** 2))


def test_score_does_not_cancel_near_the_data():
    """At σ/α = 2e-9 the difference α x̂_0 − x_t has lost all digits; the score keeps them."""
    schedule = VariancePreserving()
    model, x, t = GaussianDenoiser(torch.zeros(1, dtype=F64), 1.0, schedule), torch.ones(1, 1, dtype=F64), 1e-16
    assert model.score(x, t).item() == pytest.approx(-1, rel=1e-14)
    both = GaussianMixtureDenoiser(torch.ones(1, dtype=F64), torch.zeros(1, 1, dtype=F64), 1.0, schedule)
    assert both.score(x, t).item() == pytest.approx(-1, rel=1e-14)


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_component_is_the_gaussian(name):
    schedule, x = SCHEDULES[name], randn(5, 3)
    one = GaussianDenoiser(randn(3, seed=1), matrix(3, 2, 2), schedule)
    same = GaussianMixtureDenoiser(torch.ones(1, dtype=F64), one.mean[None], one.covariance[None], schedule)
    for t in (0.0, *times(schedule)):
        close(same(x, t), one(x, t))
        close(same.posterior_covariance(x, t), one.posterior_covariance(x, t))
        if t:
            close(same.log_prob(x, t), one.log_prob(x, t))
            close(same.score(x, t), one.score(x, t))


def test_a_time_for_each_row():
    schedule = VariancePreserving()
    t = torch.tensor([0.1, 0.4, 0.4, 1.0, 0.7], dtype=F64)
    x, some = randn(5, 3), mixture(schedule)
    for model in (some, GaussianDenoiser(some.means[0], some.covariances[0], schedule), EmpiricalDenoiser(x, schedule)):
        names = ["__call__", "log_prob", "score", "posterior_covariance", "responsibilities"]
        for name in (n for n in names if hasattr(model, n)):
            ask = getattr(model, name)
            close(ask(x, t), torch.cat([ask(x[i : i + 1], t[i]) for i in range(5)]))
    one = GaussianDenoiser(some.means[0], some.covariances[0], schedule)
    close(one.flow(x, t, t / 2), torch.cat([one.flow(x[i : i + 1], t[i], t[i] / 2) for i in range(5)]))


def test_the_flow_solves_its_equation():
    """dx/dt = f x − ½ g² score along the stated path, by a central difference; and it is undone by going back."""
    for schedule in (VariancePreserving(), EDM(), VarianceExploding()):
        one = GaussianDenoiser(randn(3, seed=1), matrix(3, 2), schedule)
        x, t, h = randn(4, 3), 0.4 * schedule.end, 1e-5 * schedule.end
        f, g2 = schedule.rates(t)
        slope = (one.flow(x, t, t + h) - one.flow(x, t, t - h)) / (2 * h)
        close(slope, f * x - g2 / 2 * one.score(x, t), 1e-7)
        close(one.flow(one.flow(x, t, schedule.end), schedule.end, t), x)


def test_answers_follow_the_dtype_of_x(dtype, device):
    schedule, t = VariancePreserving(), 0.3
    some = mixture(schedule)
    models = [
        GaussianMixtureDenoiser(some.weights.to(device), some.means.to(device), some.covariances.to(device), schedule),
        GaussianDenoiser(some.means[0].to(device), 0.3, schedule),
        EmpiricalDenoiser(some.means.to(device, dtype), schedule),
    ]
    x = randn(4, 3).to(device, dtype)
    for model in models:
        assert model(x, t).dtype == model.log_prob(x, t).dtype == dtype
        assert model(x, t).device.type == device.type
        torch.testing.assert_close(model(x, t).double(), model(x.double(), t), rtol=1e-5, atol=1e-5)


def test_draws_have_the_stated_moments():
    """4·10⁵ draws: means within 5σ/√N and second moments within 5 of their standard errors."""
    count = 400_000
    some = mixture(VariancePreserving())
    mean = some.weights @ some.means
    second = (some.weights[:, None, None] * (some.covariances + some.means[:, :, None] * some.means[:, None])).sum(0)
    for draws, m, s in (
        (some.sample(count, seeded(1)), mean, second),
        (
            GaussianDenoiser(some.means[1], some.covariances[1], some.schedule).sample(count, seeded(1)),
            some.means[1],
            some.covariances[1] + torch.outer(some.means[1], some.means[1]),
        ),
    ):
        assert ((draws.mean(0) - m).abs() <= 5 * draws.std(0) / count**0.5).all()
        products = draws[:, :, None] * draws[:, None]
        assert ((products.mean(0) - s).abs() <= 5 * products.std(0) / count**0.5).all()


def test_given_is_the_class_by_itself():
    some, x, t = mixture(VariancePreserving(), k=4), randn(5, 3), 0.4
    share = some.responsibilities(x, t)
    parts = [some.given(k) for k in range(4)]
    close(sum(share[:, k, None] * parts[k](x, t) for k in range(4)), some(x, t))
    pair = some.given([1, 3])
    close(pair.log_prob(x, t) + some.weights[[1, 3]].sum().log(), some.log_prob(x, t) + share[:, [1, 3]].sum(1).log())


def test_bad_input_is_refused_at_the_door():
    schedule, half = VariancePreserving(), torch.tensor([0.5, 0.5], dtype=F64)
    means, mean = torch.zeros(2, 3, dtype=F64), torch.zeros(3, dtype=F64)
    lopsided = torch.eye(3, dtype=F64)
    lopsided[0, 2] = 0.5
    negative = torch.diag(torch.tensor([1.0, -0.25, 1.0], dtype=F64))
    for covariance, words in (
        (lopsided, r"covariance is not symmetric: \[0, 2\] is 0.5 and \[2, 0\] 0"),
        (negative, "covariance has the eigenvalue -0.25"),
        (torch.ones(2, dtype=F64), r"covariance has shape \(2,\) for 3 numbers"),
        (float("nan"), "covariance.* is nan"),
        (-1.0, "covariance has the eigenvalue -1"),
    ):
        with pytest.raises(ValueError, match=words):
            GaussianDenoiser(mean, covariance, schedule)
    with pytest.raises(ValueError, match=r"weights sums to 0.9"):
        GaussianMixtureDenoiser(torch.tensor([0.5, 0.4], dtype=F64), means, 1.0, schedule)
    with pytest.raises(ValueError, match=r"weights has shape \(2,\), not \(3\)"):
        GaussianMixtureDenoiser(half, torch.zeros(3, 3, dtype=F64), 1.0, schedule)
    with pytest.raises(ValueError, match=r"covariances\[1\] has the eigenvalue -0.25"):
        GaussianMixtureDenoiser(half, means, torch.stack([lopsided.diag().diag(), negative]), schedule)
    with pytest.raises(ValueError, match=r"covariances has shape \(3, 3\) for 2 components"):
        GaussianMixtureDenoiser(half, means, torch.eye(3, dtype=F64), schedule)
    both = GaussianMixtureDenoiser(half, means, 0.0, schedule)
    with pytest.raises(ValueError, match=r"xt has shape \(4, 2\), not \(any, 3\)"):
        both(torch.zeros(4, 2, dtype=F64), 0.5)
    with pytest.raises(ValueError, match="no density at t = 0"):
        both.log_prob(torch.zeros(4, 3, dtype=F64), 0.0)
    with pytest.raises(ValueError, match="outside the schedule"):
        both(torch.zeros(4, 3, dtype=F64), 1.5)
    with pytest.raises(ValueError, match=r"components is \[2\]; name some of 0 … 1"):
        both.given(2)
    with pytest.raises(ValueError, match="have no weight"):
        GaussianMixtureDenoiser(torch.tensor([1.0, 0.0], dtype=F64), means, 1.0, schedule).given(1)
    with pytest.raises(ValueError, match=r"data\[0, 1\] is inf"):
        EmpiricalDenoiser(torch.tensor([[0.0, math.inf]]), schedule)
    with pytest.raises(ValueError, match="data is empty"):
        EmpiricalDenoiser(torch.zeros(0, 2), schedule)
    points = EmpiricalDenoiser(means, schedule)
    with pytest.raises(ValueError, match=r"xt has shape \(4, 2\), not \(any, 3\)"):
        points(torch.zeros(4, 2, dtype=F64), 0.5)
    with pytest.raises(ValueError, match="no density at t = 0"):
        points.log_prob(means, 0.0)
