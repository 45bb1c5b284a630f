"""Heun with churn against Karras's algorithm written plainly, the reverse equation against its laws, correctors."""

import math
from functools import partial
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Churn,
    Cosine,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Table,
    VariancePreserving,
    ancestral,
    ddim,
    dpm_solver,
    euler,
    euler_maruyama,
    exponential,
    heun,
    karras_grid,
    log_snr_grid,
    sample,
    uniform_grid,
    walk,
)
from lecturecode.markov import in_turn, mala
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
CHURNS = {
    "none": None,
    "all": Churn(2.0),
    "at the cap": Churn(80.0, scale=1.01),
    "some": Churn(3.0, low=0.1, high=5.0, scale=1.003),
}


def randn(*shape, seed=0):
    return normal(shape, seeded(seed), LIKE)


def bells(schedule):
    means = torch.tensor([[1.0, 1.0], [-1.0, -0.5]], dtype=F64)
    return GaussianMixtureDenoiser(torch.tensor([0.3, 0.7], dtype=F64), means, 0.1, schedule)


def karras(model, x, grid, churn, rng):
    """Algorithm 2 of Karras et al. (2022) for y = x/α and σ̃ = σ/α, line by line; with γ = 0 it is algorithm 1."""
    schedule, steps = model.schedule, len(grid) - 1
    y = x / schedule(grid[0])[0]

    def denoised(y, relative):
        t = schedule.time(-2 * math.log(relative)).item()
        return model(y * schedule(t)[0], t)

    relatives = (schedule(grid)[1] / schedule(grid)[0]).tolist()
    for now, after in pairwise(relatives):
        lifted = now
        if churn is not None and churn.low <= now <= churn.high:
            lifted = now + min(churn.amount / steps, math.sqrt(2) - 1) * now
            y = y + math.sqrt(lifted**2 - now**2) * churn.scale * normal(tuple(y.shape), rng, y)
        slope = (y - denoised(y, lifted)) / lifted
        ahead = y + (after - lifted) * slope
        if after:
            slope_ahead = (ahead - denoised(ahead, after)) / after
            ahead = y + (after - lifted) * (slope + slope_ahead) / 2
        y = ahead
    return y * schedule(grid[-1])[0]


@pytest.mark.parametrize("churn", CHURNS)
@pytest.mark.parametrize("name", ["edm", "preserving", "to σ > 0"])
def test_heun_is_karras_algorithm(name, churn):
    schedule = VariancePreserving() if name == "preserving" else EDM(30.0)
    model, churn = bells(schedule), CHURNS[churn]
    grid = karras_grid(schedule, 9, 0.02, 20.0)
    grid = grid[:-1] if name == "to σ > 0" else grid
    x = randn(4, 2) * (20 if name != "preserving" else 1)
    ours = sample(model, partial(heun, churn=churn), x, grid, seeded(4))
    torch.testing.assert_close(ours, karras(model, x, grid, churn, seeded(4)), rtol=1e-10, atol=1e-10)
    table = heun(schedule, grid, churn)
    assert table.calls == 2 * (len(grid) - 1) - int(grid[-1] == 0)
    assert (table.opening[1] > 0) == (churn is not None and churn.high >= 20)


def test_churn_keeps_the_marginals():
    """Data in one point: before every first call and at the end, x has the mean α c and the variance σ² exactly.

    With a scale of the noise other than 1 it has not.
    """
    for schedule in (VariancePreserving(), EDM(80.0)):
        grid = karras_grid(schedule, 8, 0.05, 25.0)[:-1]
        for scale in (1.0, 1.1):
            table = heun(schedule, grid, Churn(1.6, low=0.1, high=10.0, scale=scale))
            alpha, sigma = (level.item() for level in schedule(grid[0]))
            mean, variance = table.opening[0] * alpha, (table.opening[0] * sigma) ** 2 + table.opening[1] ** 2
            ends = [*table.times[2::2].tolist(), table.end]
            begun = torch.isclose(table.times[::2], grid[:-1], rtol=1e-6, atol=0)
            relative = (-schedule.log_snr(grid[:-1]) / 2).exp()
            assert torch.equal(~begun, (relative >= 0.1) & (relative <= 10))
            for k, (a, b, n) in enumerate(zip(table.a.tolist(), table.b.sum(1).tolist(), table.noise, strict=True)):
                mean, variance = a * mean + b, a**2 * variance + n.item() ** 2
                if k % 2:
                    alpha, sigma = (level.item() for level in schedule(ends[k // 2]))
                    assert mean == pytest.approx(alpha, rel=1e-10, abs=1e-12)
                    if scale == 1:
                        assert variance == pytest.approx(sigma**2, rel=1e-10)
            assert scale == 1 or variance > 1.001 * sigma**2


def test_churn_that_is_not_there_changes_nothing():
    schedule = EDM(20.0)
    grid = karras_grid(schedule, 6)
    plain = heun(schedule, grid)
    for churn in (Churn(0.0), Churn(5.0, low=30.0)):
        table = heun(schedule, grid, churn)
        assert table.opening == plain.opening == (1.0, 0.0)
        for part in ("times", "a", "b", "noise"):
            assert torch.equal(getattr(table, part), getattr(plain, part))


def test_an_opening_comes_before_the_first_call():
    """x ← 2 x + 3 ε, then the row; without noise no generator is asked for."""
    schedule, x = VariancePreserving(), randn(3, 2)
    model, plain = bells(schedule), ddim(schedule, [0.8, 0.5])
    table = Table(plain.times, plain.a, plain.b, plain.noise, plain.end, opening=(2.0, 3.0))
    begun = 2 * x + 3 * normal((3, 2), seeded(1), x)
    torch.testing.assert_close(sample(model, table, x, rng=seeded(1)), sample(model, plain, begun), rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="rng is missing"):
        sample(model, table, x)
    quiet = Table(plain.times, plain.a, plain.b, plain.noise, plain.end, opening=(2.0, 0.0))
    torch.testing.assert_close(sample(model, quiet, x), sample(model, plain, 2 * x), rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="not negative"):
        Table(plain.times, plain.a, plain.b, plain.noise, opening=(1.0, -1.0))
    with pytest.raises(ValueError, match=r"opening\[0\] is inf"):
        Table(plain.times, plain.a, plain.b, plain.noise, opening=(math.inf, 0.0))


def test_the_reverse_equation_in_songs_form():
    """dx = −½β x dt − β score dt + √β dw in 40 digits, with score = (√ᾱ D − x)/(1 − ᾱ)."""
    grid = [1.0, 0.6, 0.25, 0.05, 0.0]
    table = euler_maruyama(VariancePreserving(), grid)
    assert (table.a[-1].item(), table.b[-1].item(), table.noise[-1].item()) == (0, 1, 0)
    rows = zip(table.a.tolist(), table.b[:, 0].tolist(), table.noise.tolist(), strict=True)
    for (a, b, n), (t, r) in zip(list(rows)[:-1], list(pairwise(grid))[:-1], strict=True):
        beta, integral = mpmath.mpf("0.1") + 19.9 * mpmath.mpf(t), mpmath.mpf("0.1") * t + 19.9 * mpmath.mpf(t) ** 2 / 2
        signal = mpmath.exp(-integral)
        assert a == pytest.approx(float(1 + (r - t) * (-beta / 2 + beta / (1 - signal))), rel=1e-12)
        assert b == pytest.approx(float(-(r - t) * beta * mpmath.sqrt(signal) / (1 - signal)), rel=1e-12)
        assert n == pytest.approx(float(mpmath.sqrt((t - r) * beta)), rel=1e-12)


def moments(model, table):
    """Mean and variance of x for data of one dimension, carried through the rows from those of p_t exactly."""
    alpha, sigma = (level.item() for level in model.schedule(table.times[0]))
    mean, variance = alpha * model.mean.item(), alpha**2 * model.covariance + sigma**2
    probe = torch.tensor([[0.0], [1.0]], dtype=F64)
    for t, a, b, n in zip(table.times.tolist(), table.a, table.b[:, 0], table.noise, strict=True):
        zero, one = (a * probe + b * model(probe, t))[:, 0].tolist()
        mean, variance = zero + (one - zero) * mean, (one - zero) ** 2 * variance + n.item() ** 2
    return mean, variance


def test_the_variance_has_an_error_of_first_order():
    """One number, Gaussian: the law at t = 0.1 of what the table draws, exactly; mean and variance, slope −1."""
    schedule, counts = VariancePreserving(), (200, 400, 800)
    model = GaussianDenoiser(torch.tensor([0.5], dtype=F64), 0.3, schedule)
    alpha, sigma = (level.item() for level in schedule(0.1))
    errors = []
    for count in counts:
        mean, variance = moments(model, euler_maruyama(schedule, torch.linspace(0.9, 0.1, count + 1, dtype=F64)))
        errors.append([abs(mean - alpha * 0.5), abs(variance - alpha**2 * 0.3 - sigma**2)])
    for column in np.array(errors).T:
        assert -np.polyfit(np.log(counts), np.log(column), 1)[0] == pytest.approx(1, abs=0.1)
        assert column[-1] < 0.01


def test_its_draws_have_these_moments():
    """10⁵ draws: mean and variance within five standard errors."""
    schedule, count = VariancePreserving(), 100_000
    model = GaussianDenoiser(torch.tensor([0.5], dtype=F64), 0.3, schedule)
    grid = torch.linspace(0.9, 0.1, 13, dtype=F64)
    alpha, sigma = schedule(0.9)
    x = alpha * 0.5 + (alpha**2 * 0.3 + sigma**2).sqrt() * randn(count, 1, seed=1)
    out = sample(model, euler_maruyama, x, grid, seeded(2))
    mean, variance = moments(model, euler_maruyama(schedule, grid))
    assert abs(out.mean().item() - mean) <= 5 * math.sqrt(variance / count)
    assert abs(out.var().item() - variance) <= 5 * variance * math.sqrt(2 / count)


class Redraw:
    """Kernels that draw from p_t of a Gaussian anew, with a list of the times they were made for and used at."""

    def __init__(self, model):
        self.model, self.made, self.used = model, [], []

    def __call__(self, t):
        self.made.append(t)
        alpha, sigma = self.model.schedule(t)
        scale = (alpha**2 * self.model.covariance + sigma**2).sqrt()

        def kernel(x, rng):
            self.used.append(t)
            return alpha * self.model.mean + scale * normal(tuple(x.shape), rng, x)

        return kernel


@pytest.mark.parametrize("rule", [euler, heun, ancestral], ids=["euler", "heun", "ancestral"])
def test_a_corrector_acts_where_a_step_ends(rule):
    """At each time that is reached but 0, and not between the two calls of Heun's step."""
    schedule = VariancePreserving()
    model = GaussianDenoiser(torch.tensor([0.5], dtype=F64), 0.3, schedule)
    redraw, grid = Redraw(model), uniform_grid(schedule, 4)
    sample(model, rule, randn(5, 1), grid, seeded(1), corrector=redraw)
    assert redraw.made == redraw.used == grid[1:-1].tolist()
    seen = list(walk(model, rule, randn(5, 1), grid, seeded(1), corrector=Redraw(model)))
    assert torch.equal(seen[-1][1], sample(model, rule, randn(5, 1), grid, seeded(1), Redraw(model)))


def test_a_corrector_takes_the_steps_error_away():
    """Two crude steps from a wrong law, with exact draws as the corrector: the law at the end is p_t (10⁵ draws)."""
    schedule, count = VariancePreserving(), 100_000
    model = GaussianDenoiser(torch.tensor([0.5], dtype=F64), 0.3, schedule)
    alpha, sigma = (level.item() for level in schedule(0.2))
    variance, ends = alpha**2 * 0.3 + sigma**2, []
    for corrector in (None, Redraw(model)):
        x = sample(model, euler, 3 + randn(count, 1, seed=3), [1.0, 0.5, 0.2], seeded(4), corrector)
        ends.append(abs(x.mean().item() - alpha * 0.5))
    assert ends[1] <= 5 * math.sqrt(variance / count) < ends[0]


def test_a_kernel_of_the_markov_part_is_a_corrector():
    """Thirty Metropolis-adjusted Langevin steps on log p_t after a crude step: nine tenths of its error are gone."""
    schedule = VariancePreserving()
    model = GaussianDenoiser(torch.tensor([0.5], dtype=F64), 0.3, schedule)

    def corrector(t):
        kernel = in_turn([mala(lambda x: model.log_prob(x, t), 0.5, lambda x: model.score(x, t))] * 30)
        return lambda x, rng: kernel(x, rng)

    mean = schedule(0.4)[0].item() * 0.5
    off = [
        abs(sample(model, euler, 3 + randn(4000, 1), [0.8, 0.4], seeded(1), kernels).mean().item() - mean)
        for kernels in (None, corrector)
    ]
    assert off[1] < off[0] / 10


def test_bad_input_is_refused_at_the_door():
    schedule, edm = VariancePreserving(), EDM(20.0)
    for words, arguments in (
        ("amount is -1", {"amount": -1.0}),
        ("amount is nan", {"amount": math.nan}),
        ("scale is inf", {"amount": 1.0, "scale": math.inf}),
        ("low is 2 and high 1", {"amount": 1.0, "low": 2.0, "high": 1.0}),
    ):
        with pytest.raises(ValueError, match=words):
            Churn(**arguments)
    with pytest.raises(ValueError, match="churn lifts the time 20 beyond the schedule's end, 20"):
        heun(edm, karras_grid(edm, 5), Churn(1.0))
    assert heun(edm, karras_grid(edm, 5), Churn(1.0, high=19.0)).opening == (1.0, 0.0)
    with pytest.raises(ValueError, match="too few calls"):
        heun(schedule, [1.0])
    with pytest.raises(ValueError, match=r"times\[0\] = 0.2 is followed by 0.5"):
        euler_maruyama(schedule, [0.2, 0.5])
    with pytest.raises(ValueError, match="rates are infinite at t = 20"):
        euler_maruyama(Cosine(20).zero_terminal(), [20, 10, 0])

    model, x, grid = bells(schedule), randn(4, 2), log_snr_grid(schedule, 6)

    def still(t):
        return lambda x, rng: x

    for rule in (dpm_solver, partial(exponential, order=3)):
        with pytest.raises(ValueError, match="ask for answers from before the move"):
            sample(model, rule, x, grid, seeded(0), corrector=still)
    with pytest.raises(ValueError, match="rng is missing"):
        sample(model, ddim, x, grid, corrector=still)
    with pytest.raises(ValueError, match=r"the corrector gives shape \(2, 4\) for x of \(4, 2\)"):
        sample(model, ddim, x, grid, seeded(0), corrector=lambda t: lambda x, rng: x.mT)
