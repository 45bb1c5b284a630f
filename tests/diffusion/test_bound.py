"""The bound term by term: Gaussian data against conditioned covariances, other data against quadrature, the doors."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    Denoise,
    DiffusionElbo,
    Gaussian,
    GaussianData,
    Linear,
    Schedule,
    VarianceExploding,
    VariancePreserving,
    bound,
    continuous_elbo,
    elbo,
    forward,
    marginal,
    noise_end,
    posterior,
    transition,
    uniform_grid,
)
from lecturecode.vae import DiscretisedGaussian

F64 = torch.float64
SCHEDULES = {
    "linear": (Linear(12, 0.02, 0.6), [0.0, 1.0, 2.0, 5.0, 9.0, 12.0]),
    "between steps": (Linear(4, 0.1, 0.5), [0.0, 0.5, 1.25, 4.0]),
    "cosine": (Cosine(50), [0.0, 3.0, 20.0, 49.0, 50.0]),
    "zero terminal": (Linear(6, 0.05, 0.4).zero_terminal(), [0.0, 1.0, 4.0, 5.0, 6.0]),
    "variance preserving": (VariancePreserving(), [0.0, 0.03, 0.2, 0.5, 1.0]),
    "variance exploding": (VarianceExploding(0.05, 7.0), [0.0, 0.1, 0.5, 0.6, 1.0]),
    "EDM": (EDM(5.0), [0.0, 0.2, 1.0, 2.5, 5.0]),
}
VARIANCES = ("posterior", "step")
EACH = pytest.mark.parametrize(("schedule", "times"), SCHEDULES.values(), ids=SCHEDULES)


@dataclass(frozen=True)
class Made:
    """A denoiser from a function of (x_t, α, σ), written out with the levels' own shapes."""

    schedule: Schedule
    answer: Callable[..., torch.Tensor]

    def __call__(self, xt, t):
        alpha, sigma = self.schedule(t)
        shape = (-1,) + (1,) * (xt.ndim - 1)
        return self.answer(xt, *(v.to(xt).reshape(shape) if v.ndim else v.to(xt) for v in (alpha, sigma)))


def coin(schedule):
    """The exact denoiser of x_0 = ±1 with equal odds."""
    return Made(schedule, lambda x, alpha, sigma: torch.tanh(alpha * x / sigma**2))


def normal_likelihood(variance):
    def log_prob(x0_hat, x0):
        return scipy_like(x0, x0_hat, variance).flatten(1).sum(1)

    return log_prob


def scipy_like(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))


def gaussian_data(n=3, seed=1):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    return rng.normal(size=n), root @ root.T + 0.1 * np.eye(n)


def data():
    mean, covariance = gaussian_data()
    return GaussianData(torch.from_numpy(mean), torch.from_numpy(covariance))


class Joint:
    """(x_0, x_r, x_t) of Gaussian data as one Gaussian, put together from its independent noises."""

    def __init__(self, mean, covariance, schedule, r, t):
        n = len(mean)
        (ar, sr), (at, st) = ((float(a), float(s)) for a, s in (schedule(r), schedule(t)))
        step, kept = at / ar, math.sqrt(max(st**2 - (at / ar * sr) ** 2, 0.0))
        root, one, zero = np.linalg.cholesky(covariance), np.eye(n), np.zeros((n, n))
        rows = [[root, zero, zero], [ar * root, sr * one, zero], [at * root, step * sr * one, kept * one]]
        noises = np.block(rows)
        self.n, self.covariance = n, noises @ noises.T
        self.mean = np.concatenate([mean, ar * mean, at * mean])
        self.kept = kept**2

    def part(self, *blocks):
        return np.concatenate([np.arange(self.n) + b * self.n for b in blocks])

    def given(self, i, j):
        """Slope, offset and covariance of block i given the blocks j."""
        a, b = self.part(i), self.part(*j)
        slope = np.linalg.solve(self.covariance[np.ix_(b, b)], self.covariance[np.ix_(b, a)]).T
        left = self.covariance[np.ix_(a, a)] - slope @ self.covariance[np.ix_(b, a)]
        return slope, self.mean[a] - slope @ self.mean[b], left

    def mean_square(self, matrix, offset, blocks):
        """E|matrix z + offset|² over the blocks z."""
        b = self.part(*blocks)
        return (
            np.trace(matrix @ self.covariance[np.ix_(b, b)] @ matrix.T) + ((matrix @ self.mean[b] + offset) ** 2).sum()
        )


def step_by_conditioning(joint, variance):
    """E KL(q(x_r|x_t,x_0) ‖ N(the same mean at x̂_0, w)), every conditional found by conditioning one joint Gaussian."""
    slope, _, spread = joint.given(1, (0, 2))
    to_clean, clean_offset, _ = joint.given(0, (2,))
    n = joint.n
    difference = slope[:, :n] @ np.hstack([np.eye(n), -to_clean])
    shift = -slope[:, :n] @ clean_offset
    w = spread[0, 0] if variance == "posterior" else joint.kept
    square = joint.mean_square(difference, shift, (0, 2))
    return 0.5 * (np.trace(spread) / w - n + n * math.log(w) - np.linalg.slogdet(spread)[1] + square / w)


@EACH
@pytest.mark.parametrize("variance", VARIANCES)
def test_every_step_of_gaussian_data(schedule, times, variance):
    mean, covariance = gaussian_data()
    mine = data().elbo(schedule, torch.tensor(times, dtype=F64), variance)
    wanted = [
        step_by_conditioning(Joint(mean, covariance, schedule, r, t), variance)
        for r, t in itertools.pairwise(times[1:])
    ]
    np.testing.assert_allclose(mine.steps, wanted, rtol=1e-10, atol=1e-10)


@EACH
@pytest.mark.parametrize("decoder", [None, 0.3])
def test_the_two_ends_of_gaussian_data(schedule, times, decoder):
    mean, covariance = gaussian_data()
    mine = data().elbo(schedule, torch.tensor(times, dtype=F64), decoder=decoder)
    joint = Joint(mean, covariance, schedule, times[1], times[-1])
    slope, offset, left = joint.given(0, (1,))
    if decoder is None:
        log_prob = -scipy.stats.multivariate_normal(np.zeros(3), left).entropy()
    else:
        square = joint.mean_square(np.hstack([np.eye(3), -slope]), -offset, (0, 1))
        log_prob = -0.5 * (square / decoder + 3 * math.log(2 * math.pi * decoder))
    alpha, sigma = (float(v) for v in schedule(schedule.end))
    total = alpha**2 + sigma**2
    end = 0.5 * (
        3 * (sigma**2 / total - 1 - math.log(sigma**2 / total))
        + alpha**2 / total * (mean @ mean + np.trace(covariance))
    )
    assert float(mine.reconstruction) == pytest.approx(log_prob, rel=1e-10, abs=1e-10)
    assert float(mine.end) == pytest.approx(end, rel=1e-10, abs=1e-12)


@EACH
def test_gaussian_entropy_and_error(schedule, times):
    mean, covariance = gaussian_data()
    assert float(data().entropy()) == pytest.approx(
        scipy.stats.multivariate_normal(mean, covariance).entropy(), rel=1e-12
    )
    for t in times[1:]:
        _, _, left = Joint(mean, covariance, schedule, times[1] / 2, t).given(0, (2,))
        assert float(data().error(schedule, t)) == pytest.approx(np.trace(left), rel=1e-10)
    assert data().error(schedule, torch.tensor(times, dtype=F64)).shape == (len(times),)
    assert float(data().error(schedule, 0)) == 0


@EACH
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("decoder", [None, 0.3])
def test_the_gap_of_gaussian_data_is_what_the_bound_misses(schedule, times, variance, decoder):
    times = torch.tensor(times, dtype=F64)
    gap = data().gap(schedule, times, variance, decoder)
    missing = -data().entropy() - data().elbo(schedule, times, variance, decoder).value
    assert float(gap.value) == pytest.approx(float(missing), rel=1e-10, abs=1e-10)
    assert float(gap.decoder) >= 0
    assert float(gap.end) >= 0
    assert (gap.steps >= 0).all()


def test_each_reverse_variance_is_best_for_its_own_data():
    """σ²_{t|r} for unit variance on a variance-preserving schedule, the posterior's for data that hardly vary."""
    schedule, times = Linear(12, 0.02, 0.6), torch.arange(13.0)
    zero = torch.zeros(3)
    unit, still = GaussianData(zero, torch.eye(3)), GaussianData(zero, 1e-9 * torch.eye(3))
    assert float(unit.gap(schedule, times, "step").value) == pytest.approx(0, abs=1e-14)
    assert float(unit.gap(schedule, times).value) > 0.1
    assert float(still.gap(schedule, times).steps.sum()) == pytest.approx(0, abs=1e-14)
    assert float(still.gap(schedule, times, "step").steps.sum()) > 0.1


def test_the_continuous_bound_of_gaussian_data():
    """Its integral by quadrature over SNR; the limit of many steps, at the rate 1/N; only the top is lost."""
    schedule, c = VariancePreserving(), data().spectrum.numpy()
    start = 0.02
    high, low = (math.exp(float(schedule.log_snr(t))) for t in (start, 1.0))
    wanted, _ = scipy.integrate.quad(
        lambda y: 0.5 * (c / (1 + c * math.exp(y))).sum() * math.exp(y), math.log(low), math.log(high), epsabs=1e-12
    )
    mine = data().continuous_elbo(schedule, start)
    assert float(mine.steps) == pytest.approx(wanted, rel=1e-10)
    lost = []
    for steps in (400, 800, 1600):
        times = torch.cat([torch.zeros(1), torch.linspace(start, 1, steps, dtype=F64)])
        fine = data().elbo(schedule, times)
        lost.append(float(fine.steps.sum() - mine.steps.sum()))
        assert float(fine.end) == float(mine.end)
        assert float(fine.reconstruction) == pytest.approx(float(mine.reconstruction), rel=1e-12)
    assert lost[0] / lost[1] == pytest.approx(2, rel=0.03)
    assert lost[1] / lost[2] == pytest.approx(2, rel=0.015)
    gap = -data().entropy() - mine.value
    assert float(gap) == pytest.approx(float(data().gap(schedule, torch.tensor([0.0, 1.0])).end), rel=1e-9)


# --- the estimators --------------------------------------------------------------------------------------------------


def test_each_term_of_each_draw_is_a_divergence_of_gaussians():
    """Term by term for the very x_t that were drawn, by the general formula of `Gaussian.kl`."""
    x0 = torch.randn(4, 2, 3, generator=seeded(1), dtype=F64)
    for schedule, times in SCHEDULES.values():
        denoiser = coin(schedule)
        for variance in VARIANCES:
            mine = elbo(denoiser, x0, torch.tensor(times, dtype=F64), normal_likelihood(0.2), seeded(2), variance)
            rng = seeded(2)
            noises = [torch.randn(4, 2, 3, generator=rng, dtype=F64) for _ in times[1:]]
            for k, (r, t) in enumerate(itertools.pairwise(times[1:])):
                xt = forward(schedule, x0, noises[k + 1], t)
                q, p = posterior(schedule, x0, xt, r, t), posterior(schedule, denoiser(xt, t), xt, r, t)
                if variance == "step":
                    p = Gaussian(p.mean, transition(schedule, x0, r, t).variance)
                torch.testing.assert_close(mine.steps[k], q.kl(p), rtol=1e-10, atol=1e-10)
            x1 = forward(schedule, x0, noises[0], times[1])
            wanted = scipy_like(x0, denoiser(x1, times[1]), 0.2).sum((1, 2))
            torch.testing.assert_close(mine.reconstruction, wanted, rtol=1e-12, atol=1e-12)
            end = marginal(schedule, x0, schedule.end).kl(noise_end(schedule, (4, 2, 3), x0))
            torch.testing.assert_close(mine.end, end, rtol=1e-10, atol=1e-12)
            total = mine.reconstruction - mine.steps.sum(0) - mine.end
            torch.testing.assert_close(mine.value, total, rtol=0, atol=0)


NODES = torch.linspace(-10, 10, 401, dtype=F64)  # the trapezoid rule, whose error falls faster than any power
WEIGHTS = torch.exp(-(NODES**2) / 2) / math.sqrt(2 * math.pi) * 0.05


@pytest.fixture
def on_nodes(monkeypatch):
    """Nodes in place of draws of ε, the same for each x_0: a weighted sum over rows is an expectation."""
    monkeypatch.setattr(bound, "normal", lambda shape, rng, like: NODES.repeat(shape[0] // len(NODES))[:, None])


@EACH
def test_terms_of_a_coin_by_quadrature(on_nodes, schedule, times):
    """x_0 = 1: each term's mean over ε, against the KL integrated over x_r and x_t with SciPy."""
    x0 = torch.ones(len(NODES), 1, dtype=F64)
    mine = elbo(coin(schedule), x0, torch.tensor(times, dtype=F64), normal_likelihood(0.2), seeded(1))
    for k, (r, t) in enumerate(itertools.pairwise(times[1:])):
        (ar, sr), (at, st) = ((float(a), float(s)) for a, s in (schedule(r), schedule(t)))
        kept = st**2 - (at / ar * sr) ** 2
        spread = kept * sr**2 / st**2

        def integrand(e, at=at, st=st, factor=ar * kept / st**2, spread=spread):
            x = at + st * e
            shift = factor * (1 - math.tanh(at * x / st**2))
            return scipy.stats.norm.pdf(e) * shift**2 / (2 * spread)

        wanted, _ = scipy.integrate.quad(integrand, -12, 12, epsabs=1e-12, epsrel=1e-12, limit=400)
        assert float(WEIGHTS @ mine.steps[k]) == pytest.approx(wanted, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_random_steps_have_the_mean_of_all_steps(monkeypatch, variance):
    """Evenly spaced shifts in place of the uniform one meet each step equally often: then the mean is the sum."""
    schedule, _ = SCHEDULES["linear"]
    grid = torch.linspace(0, 12, 8, dtype=F64)
    x0 = torch.tensor([[0.3], [-1.0], [1.7]], dtype=F64)
    monkeypatch.setattr(bound, "normal", lambda shape, rng, like: torch.full(shape, 0.4, dtype=F64))
    arguments = coin(schedule), x0, grid, normal_likelihood(0.2), seeded(1), variance
    whole = elbo(*arguments)
    found = []
    for shift in (torch.arange(36, dtype=F64) + 0.5) / 36:
        monkeypatch.setattr(bound, "uniform", lambda shape, rng, like, shift=shift: shift.expand(shape))
        part = elbo(*arguments, draws=2)
        assert part.steps.shape == (2, 3)
        found.append(part.steps.sum(0))
        torch.testing.assert_close(part.reconstruction, whole.reconstruction, rtol=0, atol=0)
        torch.testing.assert_close(part.end, whole.end, rtol=0, atol=0)
    torch.testing.assert_close(torch.stack(found).mean(0), whole.steps.sum(0), rtol=1e-12, atol=1e-12)
    assert torch.stack(found).std(0).min() > 0.01


def test_the_draws_are_spread_evenly():
    run = bound._Run(coin(EDM()), torch.zeros(5, 1, dtype=F64), seeded(3), 4)
    u = run.spread(4)
    assert u.shape == (4, 5)
    assert ((u >= 0) & (u < 1)).all()
    torch.testing.assert_close(u.flatten().sort().values.diff(), torch.full((19,), 0.05, dtype=F64))
    torch.testing.assert_close(u.sort(0).values.diff(dim=0), torch.full((3, 5), 0.25, dtype=F64))


@pytest.mark.parametrize("variable", ["log_snr", "t"])
@pytest.mark.parametrize("name", ["variance preserving", "EDM", "cosine"])
def test_the_continuous_bound_in_both_variables(monkeypatch, variable, name):
    """Gauss–Legendre nodes in place of the times, Gauss–Hermite ones in place of x_0 and ε: then it is exact."""
    schedule, _ = SCHEDULES[name]
    if name == "cosine":
        schedule = Linear(1, 0.9, 0.9)  # smooth between its two ends
    c, mean, start = 0.7, 0.4, 0.1 * schedule.end
    exact = GaussianData(torch.tensor([mean], dtype=F64), torch.tensor([[c]], dtype=F64))
    e, v = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(4))
    x0 = (mean + math.sqrt(c) * e).repeat_interleave(4)[:, None]
    weights = (v[:, None] * v).flatten() / v.sum() ** 2
    monkeypatch.setattr(bound, "normal", lambda shape, rng, like: e.repeat(4)[:, None])
    denoiser = Made(schedule, lambda x, a, s: mean + c * a / (a**2 * c + s**2) * (x - a * mean))
    u, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    monkeypatch.setattr(bound._Run, "spread", lambda self, draws: ((u + 1) / 2)[:, None].expand(40, len(x0)))
    mine = continuous_elbo(denoiser, x0, start, normal_likelihood(0.3), seeded(1), variable, draws=40)
    wanted = exact.continuous_elbo(schedule, start, decoder=0.3)
    assert float(40 * (w / 2) @ (mine.steps @ weights)) == pytest.approx(float(wanted.steps), rel=1e-10)
    assert float(mine.reconstruction @ weights) == pytest.approx(float(wanted.reconstruction), rel=1e-10)
    assert float(mine.end @ weights) == pytest.approx(float(wanted.end), rel=1e-10)


@pytest.mark.parametrize("draws", [None, 3])
def test_draws_agree_with_the_exact_mean(draws):
    """2,000 examples of Gaussian data: 5 standard errors, the grid of 13 times and the integral."""
    schedule = Linear(12, 0.02, 0.6)
    exact, rng = data(), seeded(5)
    x0 = exact.mean + torch.randn(2000, 3, generator=rng, dtype=F64) @ torch.linalg.cholesky(exact.covariance).mT
    gain = exact.covariance

    def answer(x, alpha, sigma):
        alpha, sigma = (v.reshape(-1, 1, 1) for v in (alpha, sigma))
        total = alpha**2 * gain + sigma**2 * torch.eye(3, dtype=F64)
        slope = torch.linalg.solve(total, alpha * gain)
        return exact.mean + ((x[:, None] - alpha * exact.mean) @ slope)[:, 0]

    denoiser, likelihood = Made(schedule, answer), normal_likelihood(0.3)
    mine = elbo(denoiser, x0, torch.arange(13.0), likelihood, rng, draws=draws).value
    wanted = exact.elbo(schedule, torch.arange(13.0), decoder=0.3).value
    assert abs(float(mine.mean() - wanted)) < 5 * float(mine.std()) / 2000**0.5
    for variable in ("log_snr", "t"):
        mine = continuous_elbo(denoiser, x0, 1.0, likelihood, rng, variable, draws or 1).value
        wanted = exact.continuous_elbo(schedule, 1.0, decoder=0.3).value
        assert abs(float(mine.mean() - wanted)) < 5 * float(mine.std()) / 2000**0.5


# --- the 17 grey levels ----------------------------------------------------------------------------------------------

LEVELS = torch.arange(17, dtype=F64) / 16


def grey(sigma):
    def log_prob(x0_hat, x0):
        return DiscretisedGaussian(sigma, dtype=F64)(x0_hat).log_prob(x0).flatten(1).sum(1)

    return log_prob


def of_levels(probabilities, schedule):
    """The exact denoiser of one pixel on the 17 levels."""

    def answer(x, alpha, sigma):
        log = probabilities.log() - (x - alpha * LEVELS) ** 2 / (2 * sigma**2)
        return (log.softmax(-1) * LEVELS).sum(-1, keepdim=True)

    return Made(schedule, answer)


@pytest.mark.parametrize("sigma", [0.02, 0.3])
def test_the_first_term_is_a_probability_of_levels(on_nodes, sigma):
    """For each x_{t_1} the seventeen e^{−L_0} sum to one."""
    schedule, times = SCHEDULES["variance preserving"]
    x1 = torch.full((401, 1), 0.5, dtype=F64)
    x0_hat = of_levels(torch.full((17,), 1 / 17, dtype=F64), schedule)(
        forward(schedule, x1, NODES[:, None], times[1]), 0.03
    )
    total = sum(grey(sigma)(x0_hat, torch.full_like(x0_hat, float(level))).exp() for level in LEVELS)
    torch.testing.assert_close(total, torch.ones(401, dtype=F64), rtol=0, atol=1e-12)


def test_the_bound_of_a_pixel_lies_above_its_entropy(on_nodes):
    """Exact denoiser, mean over the levels and over ε by quadrature: −ELBO ≥ H, and close to it for many steps."""
    p = torch.linspace(1, 4, 17, dtype=F64)
    p = p / p.sum()
    entropy = float(-(p * p.log()).sum())
    schedule = VariancePreserving()
    weights = (p[:, None] * WEIGHTS).flatten()
    x0 = LEVELS.repeat_interleave(len(NODES))[:, None]
    lost = []
    for steps in (5, 50, 500):
        times = schedule.time(torch.linspace(9.2, float(schedule.log_snr(1.0)), steps, dtype=F64))
        times = torch.cat([torch.zeros(1, dtype=F64), times[:-1], torch.ones(1, dtype=F64)])
        sigma = float(schedule(times[1])[1])
        bound_value = elbo(of_levels(p, schedule), x0, times, grey(sigma), seeded(1)).value
        lost.append(float(-(weights @ bound_value)) - entropy)
    assert lost[0] > lost[1] > lost[2] > 0
    assert lost[1] / lost[2] == pytest.approx(10, rel=0.1)


# --- the doors -------------------------------------------------------------------------------------------------------

X0 = torch.zeros(3, 2)
VP = VariancePreserving()


def call(times=(0.0, 0.5, 1.0), x0=X0, denoiser=None, likelihood=None, variance="posterior", draws=None):
    rows = torch.tensor(times, dtype=F64) if isinstance(times, tuple) else times
    return elbo(denoiser or coin(VP), x0, rows, likelihood or normal_likelihood(1.0), seeded(1), variance, draws)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((1.0, 0.5, 0.0), r"times\[1\] is 0.5 after 1; .* times.flip\(0\)"),
        ((0.0, 0.5, 0.5, 1.0), r"times\[2\] is 0.5 after 0.5"),
        ((0.0, float("nan"), 1.0), "is nan after 0"),
        ((0.1, 0.5, 1.0), "goes from 0.1 to 1; the bound needs all of the schedule, 0 to 1"),
        ((0.0, 0.5), "goes from 0 to 0.5"),
        ((0.0, 0.5, 1.5), "goes from 0 to 1.5"),
        ((0.0,), "at least two: 0 and 1"),
    ],
)
def test_a_grid_that_is_none(times, words):
    with pytest.raises(ValueError, match=words):
        call(times)
    with pytest.raises(ValueError, match=words):
        data().elbo(VP, torch.tensor(times, dtype=F64))
    with pytest.raises(ValueError, match=words):
        data().gap(VP, torch.tensor(times, dtype=F64))


def test_a_samplers_grid_turned_round_is_one():
    steps = call(uniform_grid(VP, 4).flip(0)).steps
    assert steps.shape == (3, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"x0": torch.zeros(3)}, r"x0 has shape \(3,\)"),
        ({"x0": torch.zeros(0, 2)}, "one row an example"),
        ({"x0": torch.full((3, 2), math.nan)}, r"x0\[0, 0\] is nan"),
        ({"variance": "learned"}, "variance is 'learned'"),
        ({"draws": 0}, "draws is 0"),
        ({"likelihood": lambda x0_hat, x0: x0_hat}, r"likelihood gives shape \(3, 2\) for 3 examples; sum"),
        ({"denoiser": Made(VP, lambda x, a, s: x[:, :1])}, r"shape \(3, 1\) for x of \(3, 2\)"),
    ],
)
def test_what_is_refused(given, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(**given)


def test_an_answer_that_is_not_finite_is_named_with_its_step():
    def broken(x, alpha, sigma):
        return torch.where((alpha < 0.1) & (torch.arange(3)[:, None] == 2), math.inf, x)

    with pytest.raises(ValueError, match=r"answer at t = 0.75 \(call 3 of 4, row 2\) is not finite"):
        call((0.0, 0.25, 0.5, 0.75, 1.0), denoiser=Made(VP, broken))
    with pytest.raises(ValueError, match=r"answer at t = 0.*row 2\) is not finite"):
        continuous_elbo(Made(VP, broken), X0, 0.1, normal_likelihood(1.0), seeded(1), draws=9)


@pytest.mark.parametrize(
    ("start", "schedule", "variable", "words"),
    [
        (0.0, VP, "t", "start is 0.0; choose one time between 0 and 1"),
        (1.0, VP, "t", "both excluded"),
        (torch.tensor([0.1, 0.2]), VP, "t", "choose one time"),
        (0.1, VP, "snr", "variable is 'snr'"),
        (0.1, Linear(6, 0.05, 0.4).zero_terminal(), "t", "SNR at the schedule's end is zero"),
    ],
)
def test_an_integral_that_is_none(start, schedule, variable, words):
    with pytest.raises(ValueError, match=words):
        continuous_elbo(coin(schedule), X0, start, normal_likelihood(1.0), seeded(1), variable)


@pytest.mark.parametrize(
    ("covariance", "words"),
    [
        (torch.eye(3), r"covariance has shape \(3, 3\)"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0]]), "no density"),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), "finite"),
    ],
)
def test_data_that_are_not_gaussian(covariance, words):
    with pytest.raises(ValueError, match=words):
        GaussianData(torch.zeros(2), covariance)


def test_a_decoder_without_variance():
    with pytest.raises(ValueError, match="decoder has the value 0; it must be above zero"):
        data().elbo(VP, torch.tensor([0.0, 1.0]), decoder=0.0)
    with pytest.raises(ValueError, match="decoder has the value 0; it must be above zero"):
        data().gap(VP, torch.tensor([0.0, 1.0]), decoder=0.0)


def test_one_step_has_two_terms():
    """The grid (0, end) has no step between: L_0 and L_T alone, drawn or not."""
    for draws in (None, 2):
        whole = call((0.0, 1.0), draws=draws)
        assert isinstance(whole, DiffusionElbo)
        assert whole.steps.shape == (0, 3)
        torch.testing.assert_close(whole.value, whole.reconstruction - whole.end)


def test_float32_is_as_good_as_its_digits():
    x0 = torch.randn(4, 5, generator=seeded(4), dtype=F64)
    schedule = Linear(1000)
    times = torch.arange(1001.0)
    noise = torch.randn(4, 5, generator=seeded(6), dtype=F64)
    linear = Made(schedule, lambda x, a, s: a / (a**2 + s**2) * x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bound, "normal", lambda shape, rng, like: noise.to(like))
        fine, coarse = (elbo(linear, x, times, normal_likelihood(0.1), seeded(1)) for x in (x0, x0.float()))
    assert coarse.value.dtype == torch.float32
    torch.testing.assert_close(coarse.steps.double(), fine.steps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(coarse.end.double(), fine.end, rtol=1e-5, atol=0)


def test_the_bound_has_a_gradient():
    """∂/∂w of the bound of x̂_0 = w x_t, by a difference."""
    w = torch.tensor(0.4, dtype=F64, requires_grad=True)

    def value(w):
        denoiser: Denoise = Made(VP, lambda x, a, s: w * x)
        x0 = torch.ones(2, 3, dtype=F64)
        return elbo(denoiser, x0, torch.tensor([0.0, 0.3, 1.0]), normal_likelihood(0.5), seeded(1), draws=2).value.sum()

    (slope,) = torch.autograd.grad(value(w), w)
    with torch.no_grad():
        wanted = (value(w + 1e-4) - value(w - 1e-4)) / 2e-4
    torch.testing.assert_close(slope, wanted, rtol=1e-8, atol=1e-8)
