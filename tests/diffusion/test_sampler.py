"""The executor against matrices, exact flows and plain loops; what it counts, and what it refuses."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lecturecode import checks, seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    Counted,
    EmpiricalDenoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Guided,
    Linear,
    Table,
    VariancePreserving,
    ancestral,
    ddim,
    euler,
    log_snr_grid,
    noise_end,
    sample,
    uniform_grid,
    walk,
)
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
EYE = torch.eye(3, dtype=F64)


def randn(*shape, seed=0):
    return normal(shape, seeded(seed), LIKE)


def gaussian(schedule):
    half = randn(3, 3, seed=1)
    return GaussianDenoiser(randn(3, seed=2), half @ half.mT / 3 + 0.1 * EYE, schedule)


def two_bells(schedule, d=2):
    means = torch.stack([torch.ones(d, dtype=F64), -torch.ones(d, dtype=F64)])
    variances = torch.stack([0.1 + 0.2 * torch.rand(d, generator=seeded(k), dtype=F64) for k in (1, 2)])
    return GaussianMixtureDenoiser(torch.tensor([0.3, 0.7], dtype=F64), means, variances, schedule)


def moments(model, table, mean, covariance):
    """Mean and covariance of x after each row, for a denoiser K x + k that is linear in x."""
    schedule, m = model.schedule, model.mean
    c = model.covariance if isinstance(model.covariance, torch.Tensor) else model.covariance * EYE
    for a, b, n, t in zip(table.a, table.b[:, 0], table.noise, table.times, strict=True):
        alpha, sigma = schedule(t)
        gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * EYE)
        step = a * EYE + b * gain
        mean = step @ mean + b * (m - alpha * gain @ m)
        covariance = step @ covariance @ step.mT + n**2 * EYE
    return mean, covariance


RULES = {
    "ddim": ddim,
    "ddim, half": partial(ddim, eta=0.5),
    "posterior": ancestral,
    "step": partial(ancestral, variance="step"),
    "euler": euler,
}


@pytest.mark.parametrize("rule", ["ddim", "euler"])
def test_without_noise_it_is_a_product_of_matrices(rule):
    """The images of 0 and of the unit vectors give the sampler's own matrix."""
    schedule = VariancePreserving()
    model, grid = gaussian(schedule), uniform_grid(schedule, 9)
    images = sample(model, RULES[rule], torch.cat([torch.zeros(1, 3, dtype=F64), EYE]), grid)
    matrix = (images[1:] - images[0]).mT
    mean, covariance = moments(model, RULES[rule](schedule, grid), torch.zeros(3, dtype=F64), EYE)
    torch.testing.assert_close(images[0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(matrix @ matrix.mT, covariance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_draws_have_the_propagated_moments(rule):
    """10⁵ draws in 10 steps: means within 5σ/√N, second moments within 5 of their standard errors."""
    schedule, count = VariancePreserving(), 100_000
    model, grid = gaussian(schedule), uniform_grid(schedule, 10)
    start = noise_end(schedule, (count, 3), LIKE).sample(seeded(1))
    x = sample(model, RULES[rule], start, grid, seeded(2))
    mean, covariance = moments(model, RULES[rule](schedule, grid), torch.zeros(3, dtype=F64), EYE)
    assert ((x.mean(0) - mean).abs() <= 5 * covariance.diagonal().sqrt() / count**0.5).all()
    products = (x - mean)[:, :, None] * (x - mean)[:, None]
    assert ((products.mean(0) - covariance).abs() <= 5 * products.std(0) / count**0.5).all()


def test_each_variance_is_right_for_its_data():
    """In three steps: "step" keeps N(0, I), "posterior" keeps one point's marginal; each fails the other."""
    schedule, grid = VariancePreserving(), [1.0, 0.7, 0.4, 0.2]
    sigma = schedule(0.2)[1]
    (first, spread), zero = schedule(1.0), torch.zeros(3, dtype=F64)
    unit, point = GaussianDenoiser(zero, 1.0, schedule), GaussianDenoiser(zero + 2, 0.0, schedule)
    ends = {}
    for variance in ("step", "posterior"):
        table = ancestral(schedule, grid, variance)
        ends[variance] = (
            moments(unit, table, zero, EYE)[1][0, 0].item(),
            moments(point, table, first * point.mean, spread**2 * EYE)[1][0, 0].item(),
        )
    assert ends["step"][0] == pytest.approx(1, abs=1e-12)
    assert ends["posterior"][1] == pytest.approx(sigma.item() ** 2, abs=1e-12)
    assert ends["posterior"][0] < 0.9
    assert ends["step"][1] > 1.1 * sigma.item() ** 2


def test_euler_in_edms_time_is_ddim():
    """With α = 1 and t = σ the flow is dx/dσ = (x − x̂_0)/σ, and Euler's step is exact for a fixed x̂_0."""
    schedule = EDM(10.0)
    one, other = (rule(schedule, [10.0, 3.0, 0.5, 0.0]) for rule in (euler, ddim))
    torch.testing.assert_close(one.a, other.a, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(one.b, other.b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_variance_in_the_limit(eta):
    """The exact moments of the output go to the data's as 1/steps, for every η: slope −1 of the error.

    With σ_η² added under the root the covariance runs away as the steps grow finer.
    """
    schedule = VariancePreserving()
    model, errors, added = gaussian(schedule), [], []
    alpha, sigma = schedule(1.0)
    first = alpha**2 * model.covariance + sigma**2 * EYE
    for count in (200, 800):
        grid = log_snr_grid(schedule, count, high=16.0)
        table = ddim(schedule, grid, eta)
        mean, covariance = moments(model, table, alpha * model.mean, first)
        errors.append((covariance - model.covariance).abs().max().item())
        assert (mean - model.mean).abs().max() < 1e-10
        (alpha_t, sigma_t), (alpha_r, sigma_r) = schedule(grid[:-1]), schedule(grid[1:])
        along = (sigma_r**2 + table.noise**2).sqrt() / sigma_t
        wrong = Table(table.times, along, (alpha_r - along * alpha_t)[:, None], table.noise)
        added.append((moments(model, wrong, alpha * model.mean, first)[1] - model.covariance).abs().max().item())
    assert errors[1] < 0.03
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(1, abs=0.1)
    if eta:
        assert added[1] > 20 * errors[1]


@pytest.mark.parametrize("schedule", [VariancePreserving(), EDM(20.0)], ids=["preserving", "edm"])
@pytest.mark.parametrize("rule", ["ddim", "euler"])
def test_order_one(rule, schedule):
    """The median error to the exact flow of a mixture falls as 1/calls, on an interval that ends at σ > 0."""
    model = two_bells(schedule)
    high, low = schedule.time(-4.0).item(), schedule.time(3.0).item()
    alpha, sigma = schedule(high)
    x = randn(32, 2, seed=5) * (alpha**2 + sigma**2).sqrt()

    def slope(t, flat):
        f, g2 = schedule.rates(t)
        here = torch.from_numpy(flat).reshape(32, 2)
        return (f * here - g2 / 2 * model.score(here, t)).flatten().numpy()

    solved = solve_ivp(slope, (high, low), x.flatten().numpy(), method="DOP853", rtol=1e-7, atol=1e-9)
    exact = torch.from_numpy(solved.y[:, -1]).reshape(32, 2)
    calls, errors = (50, 100, 200), []
    for count in calls:
        grid = schedule.time(torch.linspace(-4.0, 3.0, count + 1, dtype=F64))
        errors.append((sample(model, RULES[rule], x, grid) - exact).norm(dim=1).median().item())
    order = -np.polyfit(np.log(calls), np.log(errors), 1)[0]
    assert order == pytest.approx(1, abs=0.1)


def test_the_flow_of_a_gaussian_is_reached():
    """DDIM on two grids, their first-order error taken out by Richardson's rule, against the closed form."""
    schedule = VariancePreserving()
    model, x = gaussian(schedule), randn(6, 3)
    low, high = schedule.log_snr(0.9).item(), schedule.log_snr(0.1).item()
    coarse, fine = (
        sample(model, ddim, x, schedule.time(torch.linspace(low, high, n + 1, dtype=F64))) for n in (500, 1000)
    )
    torch.testing.assert_close(2 * fine - coarse, model.flow(x, 0.9, 0.1), rtol=1e-5, atol=1e-5)


def test_one_step_of_two_times():
    schedule = VariancePreserving()
    model, x, t, r = gaussian(schedule), randn(4, 3), 0.6, 0.4
    (alpha_t, sigma_t), (alpha_r, sigma_r) = schedule(t), schedule(r)
    clean = model(x, t)
    right = alpha_r * clean + sigma_r * (x - alpha_t * clean) / sigma_t
    torch.testing.assert_close(sample(model, ddim, x, [t, r]), right, rtol=1e-13, atol=1e-13)


def test_a_memory_of_three_is_the_plain_loop():
    """Answers of earlier calls, noise, and coefficients at random, against the recursion written out."""
    schedule, calls = VariancePreserving(), 6
    model, x = two_bells(schedule, 3), randn(5, 3)
    times = torch.linspace(1, 0.2, calls, dtype=F64)
    a, b, noise = randn(calls, seed=1), randn(calls, 3, seed=2).tril(), randn(calls, seed=3).abs()
    noise[2] = 0
    right, answers, rng = x.clone(), [], seeded(4)
    for k in range(calls):
        answers.append(model(right, times[k].item()))
        right = a[k] * right + sum(b[k, j] * answers[k - j] for j in range(min(3, k + 1)))
        if noise[k]:
            right = right + noise[k] * normal((5, 3), rng, x)
    left = sample(model, Table(times, a, b, noise), x, rng=seeded(4))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_a_walk_is_the_sample_on_its_way():
    schedule = VariancePreserving()
    model, x, grid = two_bells(schedule), randn(4, 2), uniform_grid(schedule, 5)
    kept = x.clone()
    seen = list(walk(model, ancestral, x, grid, seeded(1)))
    assert [time for time, *_ in seen] == grid[1:].tolist()
    assert torch.equal(seen[-1][1], sample(model, ancestral, x, grid, seeded(1)))
    assert torch.equal(x, kept)
    before = [x, *(here for _, here, _ in seen)]
    for (_, _, clean), here, t in zip(seen, before, grid.tolist(), strict=False):
        torch.testing.assert_close(clean, model(here, t), rtol=1e-13, atol=1e-13)
    assert torch.equal(seen[-1][1], seen[-1][2])


def test_gradients_are_left_as_they_were():
    """None is recorded on the way; the mode is restored between the steps of a walk; what comes out can be used."""
    schedule = VariancePreserving()
    model, x = two_bells(schedule), randn(4, 2).requires_grad_()
    for _, here, clean in walk(model, ddim, x, [1.0, 0.5, 0.0]):
        assert torch.is_grad_enabled()
        assert not here.requires_grad
        assert not clean.requires_grad
    out = sample(model, ddim, x, [1.0, 0.5, 0.0])
    out.requires_grad_().square().sum().backward()
    assert torch.equal(out.grad, 2 * out)


def test_a_denoiser_may_answer_x_itself():
    class Same:
        schedule = VariancePreserving()

        def __call__(self, xt, t):
            return xt

    x, table = randn(3, 2), ddim(Same.schedule, [1.0, 0.5])
    torch.testing.assert_close(sample(Same(), table, x), (table.a + table.b[:, 0]) * x, rtol=1e-14, atol=0)


def test_calls_are_counted():
    """One for each row; two with guidance, which asks both of its denoisers."""
    schedule = VariancePreserving()
    bells, x = two_bells(schedule), randn(4, 2)
    counted = Counted(bells)
    sample(counted, ddim, x, uniform_grid(schedule, 7))
    assert counted.calls == 7
    assert counted.schedule is schedule
    inner = Counted(bells.given(0)), Counted(bells)
    guided = Counted(Guided(*inner, scale=2.0))
    sample(guided, partial(ddim, eta=0.5), x, uniform_grid(schedule, 7), seeded(1))
    assert (guided.calls, inner[0].calls, inner[1].calls) == (7, 7, 7)


def test_noise_is_the_generators(device, dtype):
    """A CPU seed gives the same draws on each device; shapes, dtype and device are those of x_noise."""
    schedule = Linear(50)
    data = randn(5, 1, 2, 2, seed=3).to(device, dtype)
    x = randn(8, 1, 2, 2, seed=4).to(device, dtype)
    model, grid = EmpiricalDenoiser(data, schedule), [50.0, 40.0, 20.0]
    out = sample(model, ancestral, x, grid, seeded(1))
    assert (out.shape, out.dtype, out.device) == (x.shape, x.dtype, x.device)
    assert torch.equal(out, sample(model, ancestral, x, grid, seeded(1)))
    assert not torch.equal(out, sample(model, ancestral, x, grid, seeded(2)))
    slow = EmpiricalDenoiser(data.cpu().double(), schedule)
    table, plain, rng = ancestral(schedule, grid), x.cpu().double(), seeded(1)
    for k in range(2):
        draw = normal(tuple(x.shape), rng, x.cpu()).double()
        plain = table.a[k] * plain + table.b[k, 0] * slow(plain, grid[k]) + table.noise[k] * draw
    tolerance = 1e-12 if dtype == F64 else 1e-4
    torch.testing.assert_close(out.cpu().double(), plain, rtol=tolerance, atol=tolerance)


def test_zero_terminal_snr_starts_from_pure_noise():
    """With the exact denoiser the draws are the data: the propagated Gaussian is within 1e-3 nats of it."""
    schedule = Cosine(400).zero_terminal()
    model = gaussian(schedule)
    for rule in (ddim, ancestral):
        mean, covariance = moments(model, rule(schedule, uniform_grid(schedule, 400)), torch.zeros(3, dtype=F64), EYE)
        solved = torch.linalg.solve(model.covariance, covariance)
        off = mean - model.mean
        kl = (solved.trace() - 3 - solved.det().log() + off @ torch.linalg.solve(model.covariance, off)) / 2
        assert 0 <= kl.item() < 1e-3


class Broken:
    """Answers NaN at its third call and after."""

    def __init__(self, value, schedule=None):
        self.value, self.calls, self.schedule = value, 0, schedule or VariancePreserving()

    def __call__(self, xt, t):
        self.calls += 1
        out = xt.clone()
        if self.calls >= 3:
            out[1, 0] = self.value
        return out


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_not_finite_is_named(value, device):
    x, grid = torch.zeros(4, 2).to(device), uniform_grid(VariancePreserving(), 5)
    with pytest.raises(FloatingPointError, match=r"not finite in call 3, at t = 0\.6"):
        sample(Broken(value), ddim, x, grid)
    with pytest.raises(FloatingPointError, match=r"not finite in call 3, at t = 0\.6"):
        list(walk(Broken(value), ddim, x, grid))


def test_on_an_accelerator_the_answers_are_read_once(monkeypatch):
    """There the error comes after the last call, and still names the first bad one."""
    monkeypatch.setattr(checks, "is_free", lambda x: False)
    broken = Broken(math.inf)
    with pytest.raises(FloatingPointError, match=r"not finite in call 3, at t = 0\.6"):
        sample(broken, ddim, torch.zeros(4, 2), uniform_grid(VariancePreserving(), 5))
    assert broken.calls == 5


def test_large_answers_are_no_error():
    """The sum overflows, the numbers do not."""

    class Large:
        schedule = VariancePreserving()

        def __call__(self, xt, t):
            return torch.full_like(xt, 3e38)

    assert torch.isfinite(sample(Large(), ddim, torch.zeros(4, 2), [1.0, 0.5, 0.0])).all()


def test_bad_input_is_refused_at_the_door():
    schedule = VariancePreserving()
    model, x = Counted(two_bells(schedule)), randn(4, 2)
    nan = x.clone()
    nan[2, 1] = math.nan
    for run in (sample, walk):
        for arguments, words in (
            ((ddim, x), "times are missing"),
            ((ddim, x, [0.0, 1.0]), "is followed by 1"),
            ((ddim, x, [2.0, 1.0]), "outside the schedule"),
            ((ddim(schedule, [1.0, 0.0]), x, [1.0, 0.0]), "a Table has its own times"),
            ((ddim, nan, [1.0, 0.0]), r"x_noise\[2, 1\] is nan"),
            ((ddim, x[0], [1.0, 0.0]), r"x_noise has shape \(2,\)"),
            ((ancestral, x, [1.0, 0.5, 0.0]), "rng is missing"),
            ((partial(ddim, eta=0.1), x, [1.0, 0.5]), "rng is missing"),
        ):
            with pytest.raises(ValueError, match=words):
                run(model, *arguments)
    assert model.calls == 0
    with pytest.raises(ValueError, match=r"the denoiser gives shape \(4, 1\) for x of \(4, 2\)"):
        sample(Narrow(), ddim, x, [1.0, 0.0])


class Narrow:
    schedule = VariancePreserving()

    def __call__(self, xt, t):
        return xt[:, :1]
