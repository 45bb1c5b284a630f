"""Flow matching against quadrature and closed forms: velocities, the continuity equation, both losses, straightness."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad

from lecturecode import seeded
from lecturecode.diffusion import (
    CLEAN,
    EDM,
    FLOW,
    NOISE,
    SCORE,
    VELOCITY,
    Cosine,
    Denoise,
    Denoiser,
    GaussianData,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Linear,
    Straight,
    UniformTimes,
    VarianceExploding,
    VariancePreserving,
    decode,
    elbo,
    encode,
    flow_matching_loss,
    flow_velocity,
    levels,
    rectified_pairs,
    sample,
    score,
    slopes,
    straightness,
    terminal_snr,
    uniform_grid,
    velocity,
)
from lecturecode.diffusion.tables import ddim
from lecturecode.rng import normal

F64 = torch.float64
ALL = {
    "straight": Straight(),
    "preserving": VariancePreserving(),
    "exploding": VarianceExploding(0.01, 5.0),
    "edm": EDM(5.0),
    "linear": Linear(),
    "zero terminal": Cosine(50).zero_terminal(),
}
WEIGHTS, MEANS, VARIANCES = (0.3, 0.7), (-1.0, 1.0), (0.05, 0.3)


def line(schedule):
    return GaussianMixtureDenoiser(
        torch.tensor(WEIGHTS, dtype=F64),
        torch.tensor(MEANS, dtype=F64)[:, None],
        torch.tensor(VARIANCES, dtype=F64),
        schedule,
    )


def density(x, alpha, sigma):
    """p_t of the two bells, in NumPy."""
    return sum(
        w * np.exp(-((x - alpha * m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
        for w, m, v in zip(WEIGHTS, MEANS, (alpha**2 * c + sigma**2 for c in VARIANCES), strict=True)
    )


def differences(f, x, h):
    """f' by central differences of the fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


# --- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1e-9, 0.1, 0.5, 0.9, 1 - 1e-9])
def test_the_straight_schedule_in_many_digits(t):
    schedule = Straight()
    alpha, sigma = schedule(t)
    with mpmath.workdps(40):
        u = mpmath.mpf(t)
        snr, f, g2 = 2 * mpmath.log((1 - u) / u), -1 / (1 - u), 2 * u / (1 - u)
    assert (alpha.item(), sigma.item()) == (1 - t, t)
    assert schedule.log_snr(t).item() == pytest.approx(float(snr), rel=1e-13, abs=1e-15)
    assert schedule.time(schedule.log_snr(t)).item() == pytest.approx(t, rel=1e-12)
    assert [v.item() for v in schedule.rates(t)] == pytest.approx([float(f), float(g2)], rel=1e-12)


def test_the_ends_of_the_straight_schedule():
    schedule = Straight()
    assert schedule.log_snr(0.0) == math.inf
    assert schedule.log_snr(1.0) == -math.inf
    assert terminal_snr(schedule) == 0
    assert (schedule.time(math.inf), schedule.time(-math.inf)) == (0, 1)
    assert [v.item() for v in schedule(1 + 1e-16)] == [0, 1]
    for asked in (NOISE, SCORE):
        with pytest.raises(ValueError, match="says nothing about x_0 where the SNR is zero"):
            Denoiser(torch.nn.Identity(), schedule, asked)
    for asked in (FLOW, VELOCITY, CLEAN, flow_velocity(schedule)):
        assert isinstance(Denoiser(torch.nn.Identity(), schedule, asked), Denoise)


@pytest.mark.parametrize("name", ALL)
def test_slopes_are_those_of_the_levels(name):
    schedule = ALL[name]
    t = torch.tensor([0.11037, 0.49313, 0.83091], dtype=F64) * schedule.end
    found = slopes(schedule, t)
    for k in range(2):
        wanted = differences(lambda t, k=k: schedule(t)[k], t, 1e-4 * schedule.end / getattr(schedule, "steps", 1))
        torch.testing.assert_close(found[k], wanted, rtol=1e-8, atol=1e-9)


def test_slopes_at_the_ends_are_limits():
    """0·∞ and 0/0 in f α and g²/2σ, numbers in truth; infinite where σ starts as a root."""
    one = torch.ones(3, dtype=F64)
    for schedule, wanted in ((Straight(), -one), (EDM(2.0), 0 * one)):
        found = slopes(schedule, torch.tensor([0.0, 0.5, 1.0], dtype=F64))
        assert torch.equal(found[0], wanted)
        assert torch.equal(found[1], one)
    assert slopes(Straight(), 1)[0].dtype == F64
    for name in ("preserving", "exploding", "linear"):
        assert slopes(ALL[name], 0.0)[1] == math.inf
        assert torch.isfinite(slopes(ALL[name], ALL[name].end)[1])
    assert not slopes(Straight(), torch.ones(2))[0].requires_grad


# --- velocities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_velocity_is_the_mean_of_those_that_pass(name):
    """E[α̇ x_0 + σ̇ ε | x_t] by the trapezoid rule over x_0, with the slopes by central differences."""
    schedule, bells = ALL[name], line(ALL[name])
    x0 = np.linspace(-7, 7, 28001)
    for share in (0.31037, 0.77013):
        t = share * schedule.end
        alpha, sigma = (v.item() for v in schedule(t))
        h = 1e-4 * schedule.end / getattr(schedule, "steps", 1)
        alpha_dot, sigma_dot = (differences(lambda t, k=k: schedule(t)[k].item(), t, h) for k in range(2))
        x = np.array([-2.0, 0.1, 1.3])
        eps = (x[:, None] - alpha * x0) / sigma
        weight = np.exp(-(eps**2) / 2) * density(x0, 1.0, 0.0)
        wanted = (weight * (alpha_dot * x0 + sigma_dot * eps)).sum(1) / weight.sum(1)
        found = velocity(bells, torch.from_numpy(x)[:, None], t)[:, 0].numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-7 * abs(sigma_dot))


@pytest.mark.parametrize("name", ALL)
def test_velocity_score_and_denoiser_are_one_thing(name):
    """u = f x − ½ g² score, with the score that the mixture computes by itself; both ways back to x̂_0."""
    schedule, bells = ALL[name], line(ALL[name])
    x = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    t = torch.tensor([0.05037, 0.20013, 0.41037, 0.61091, 0.91013], dtype=F64) * schedule.end
    f, g2 = (v[:, None] for v in schedule.rates(t))
    u = velocity(bells, x, t)
    torch.testing.assert_close(score(bells, x, t), bells.score(x, t), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(u, f * x - g2 * bells.score(x, t) / 2, rtol=1e-8, atol=1e-10)
    alpha, sigma = (v[:, None] for v in schedule(t))
    x0_hat = bells(x, t)
    asked = flow_velocity(schedule)
    torch.testing.assert_close(asked.clean(u, x, alpha, sigma), x0_hat, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(asked.of(x0_hat, x, alpha, sigma), u, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(SCORE.clean(score(bells, x, t), x, alpha, sigma), x0_hat, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["straight", "preserving", "exploding", "edm"])
def test_the_continuity_equation(name):
    """∂p/∂t + ∂(p u)/∂x = 0 by differences of the fourth order, p from the closed form in NumPy."""
    schedule, bells = ALL[name], line(ALL[name])
    x = torch.linspace(-2.5, 2.5, 41, dtype=F64)[:, None]

    def p(x, t):
        return torch.from_numpy(density(x.numpy(), *(v.item() for v in schedule(t))))

    for share in (0.3, 0.6, 0.9):
        t = share * schedule.end
        change = differences(lambda t: p(x, t), t, 1e-3 * schedule.end)
        flux = differences(lambda x, t=t: p(x, t) * velocity(bells, x, t), x, 1e-3)
        size = change.abs().max()
        assert size > 0.01
        assert (change + flux).abs().max() < 1e-7 * max(size, 1)


def test_the_velocity_at_pure_noise_is_known():
    """u_1 = E[ε − x_0 | ε] = x − E[x_0]: no 0·∞ is left."""
    x = torch.tensor([[-1.0], [2.0]], dtype=F64)
    mean = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))
    torch.testing.assert_close(velocity(line(Straight()), x, 1.0), x - mean, rtol=1e-14, atol=1e-14)


# --- what a network is asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_prediction_of_the_velocity_is_the_paths_own(name):
    """target = d(α x_0 + σ ε)/dt; clean inverts it at fixed x_t; error is |dy/dx̂_0|, by differences."""
    schedule, asked = ALL[name], flow_velocity(ALL[name])
    x0, eps = (normal((4, 3), seeded(k), torch.zeros((), dtype=F64)) for k in (1, 2))
    t = torch.tensor([0.06137, 0.35313, 0.62013, 0.97037], dtype=F64) * schedule.end
    alpha, sigma = (v[:, None] for v in schedule(t))
    xt = alpha * x0 + sigma * eps
    y = asked.target(x0, eps, alpha, sigma)
    h = 1e-4 * schedule.end / getattr(schedule, "steps", 1)
    path = differences(lambda t: schedule(t)[0][:, None] * x0 + schedule(t)[1][:, None] * eps, t, h)
    torch.testing.assert_close(y, path, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(asked.clean(y, xt, alpha, sigma), x0, rtol=1e-8, atol=1e-8)
    moved = asked.of(x0 + 1, xt, alpha, sigma) - asked.of(x0, xt, alpha, sigma)
    torch.testing.assert_close(moved.abs(), asked.error(alpha, sigma).expand_as(moved), rtol=1e-8, atol=1e-12)
    assert asked.answers_pure_noise == (name != "zero terminal")


def test_flow_is_the_velocity_of_the_straight_path():
    asked, schedule = flow_velocity(Straight()), Straight()
    x0, eps, y = (normal((5, 2), seeded(k), torch.zeros((), dtype=F64)) for k in (1, 2, 3))
    for t in (0.001, 0.4, 1.0):
        alpha, sigma = schedule(t)
        xt = alpha * x0 + sigma * eps
        for one, two in (
            (FLOW.target(x0, eps, alpha, sigma), asked.target(x0, eps, alpha, sigma)),
            (FLOW.clean(y, xt, alpha, sigma), asked.clean(y, xt, alpha, sigma)),
            (FLOW.error(alpha, sigma), asked.error(alpha, sigma)),
        ):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(FLOW.clean(eps - x0, xt, alpha, sigma), x0, rtol=1e-12, atol=1e-12)


class Plain(torch.nn.Module):
    """(x, level) ↦ a x + b tanh(level/5) + c: three numbers to learn."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=F64))

    def forward(self, x, level):
        a, b, c = self.theta
        return a * x + b * (level / 5).tanh()[:, None] + c


@pytest.mark.parametrize(("name", "asked"), [("straight", FLOW), ("preserving", None), ("exploding", None)])
def test_a_networks_answer_is_the_velocity(name, asked):
    schedule = ALL[name]
    model = Denoiser(Plain(), schedule, asked or flow_velocity(schedule))
    x, t = normal((6, 2), seeded(1), torch.zeros((), dtype=F64)), torch.linspace(0.1, 0.9, 6, dtype=F64)
    wanted = model.net(x, schedule.log_snr(t).clamp(-20, 20))
    torch.testing.assert_close(velocity(model, x, t), wanted, rtol=1e-9, atol=1e-9)


def test_the_denoisers_loss_is_conditional_flow_matching():
    """The same draws, taken by hand: mean |ε − x_0 − û|²; and its gradient."""
    model = Denoiser(Plain(), Straight(), FLOW, times=UniformTimes(0.01))
    x0 = normal((32, 2), seeded(1), torch.zeros((), dtype=F64))
    loss = model.loss(x0, seeded(2))
    draws = seeded(2)
    t = UniformTimes(0.01)(Straight(), 32, draws, x0)
    eps = normal((32, 2), draws, x0)
    xt = (1 - t)[:, None] * x0 + t[:, None] * eps
    by_hand = (eps - x0 - model.net(xt, (2 * ((1 - t) / t).log()).clamp(-20, 20))).square().mean()
    given = flow_matching_loss(model, x0, eps, t)
    for other in (by_hand, given):
        torch.testing.assert_close(loss, other, rtol=1e-10, atol=0)
        one, two = (torch.autograd.grad(v, list(model.parameters()), retain_graph=True)[0] for v in (loss, other))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["straight", "preserving", "exploding"])
def test_both_objectives_have_one_gradient(name):
    """Conditional: Gauss–Hermite over (x_0, ε). Marginal: the trapezoid rule over x_t. û = a + b x + c sin x."""
    schedule, bells, t = ALL[name], line(ALL[name]), 0.4
    alpha, sigma = (v.item() for v in schedule(t))
    alpha_dot, sigma_dot = (differences(lambda t, k=k: schedule(t)[k].item(), t, 1e-4) for k in range(2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(70)
    weights = weights / weights.sum()
    x = torch.linspace(-12, 12, 12001, dtype=F64)
    p = torch.from_numpy(density(x.numpy(), alpha, sigma)) * 0.002
    u = velocity(bells, x[:, None], t)[:, 0]

    def answer(theta, x):
        return theta[0] + theta[1] * x + theta[2] * x.sin()

    def conditional(theta):
        total = torch.zeros((), dtype=F64)
        for w, m, c in zip(WEIGHTS, MEANS, VARIANCES, strict=True):
            x0, eps = (torch.from_numpy(v) for v in np.meshgrid(m + c**0.5 * nodes, nodes, indexing="ij"))
            error = (alpha_dot * x0 + sigma_dot * eps - answer(theta, alpha * x0 + sigma * eps)).square()
            total = total + w * (torch.from_numpy(np.outer(weights, weights)) * error).sum()
        return total

    def marginal(theta):
        return (p * (u - answer(theta, x)).square()).sum()

    apart = []
    for start in ([0.0, 0.0, 0.0], [0.4, -1.0, 2.0]):
        theta = torch.tensor(start, dtype=F64, requires_grad=True)
        one, two = conditional(theta), marginal(theta)
        (left,), (right,) = (torch.autograd.grad(v, theta) for v in (one, two))
        assert left.abs().max() > 0.05
        torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-8)
        apart.append((one - two).item())
    assert apart[0] == pytest.approx(apart[1], rel=1e-8)
    assert apart[0] > 0.05  # E Var[ẋ | x_t], which no network can take away


# --- samplers and bounds on the straight path ------------------------------------------------------------------------


def test_eulers_step_is_ddims():
    """x + (r − t) u_t(x), step by step, from pure noise to the data."""
    bells, x = line(Straight()), normal((7, 1), seeded(1), torch.zeros((), dtype=F64))
    grid = uniform_grid(Straight(), 8)
    plain = x
    for t, r in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        plain = plain + (r - t) * velocity(bells, plain, t)
    torch.testing.assert_close(sample(bells, ddim, x, grid), plain, rtol=1e-12, atol=1e-12)


def test_a_sampler_goes_where_the_flow_goes():
    bells, x = line(Straight()), normal((50, 1), seeded(1), torch.zeros((), dtype=F64))
    wanted = decode(bells, x)
    errors = [(sample(bells, ddim, x, uniform_grid(Straight(), n)) - wanted).abs().median() for n in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert (coarse / fine).log2().item() == pytest.approx(1, abs=0.15)


def test_the_bound_holds_on_the_straight_path():
    """L_T = 0 there, and what the exact denoiser's bound loses is the closed form's sum."""
    model = GaussianDenoiser(torch.zeros(1, dtype=F64), 0.5, Straight())
    x0 = model.sample(20_000, seeded(1))
    inner = Straight().time(torch.linspace(9, -9, 200, dtype=F64))
    times = torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])
    (alpha, sigma), c = Straight()(times[1]), 0.5
    left = (c * sigma**2 / (alpha**2 * c + sigma**2)).item()

    def likelihood(x0_hat, x0):
        return (-(x0 - x0_hat).square() / (2 * left) - math.log(2 * math.pi * left) / 2).sum(1)

    found = elbo(model, x0, times, likelihood, seeded(2))
    assert found.end.abs().max() == 0
    gap = model.log_prob(x0, 0.0) - found.value
    wanted = GaussianData(torch.zeros(1, dtype=F64), torch.full((1, 1), 0.5, dtype=F64)).gap(Straight(), times).value
    assert 0 < wanted < 0.2
    assert abs(gap.mean() - wanted) < 4 * gap.std() / len(gap) ** 0.5


# --- straightness and rectification ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["straight", "preserving", "exploding", "edm"])
def test_straightness_of_a_gaussian(name):
    """x(s) = x_T k(s)/k(1) with k² = α²c + σ² in each direction: ∫(k'/k(1))² ds − (1 − k(0)/k(1))², by quadrature."""
    schedule, variances = ALL[name], (0.05, 1.0, 3.0)
    model = GaussianDenoiser(torch.zeros(3, dtype=F64), torch.tensor(variances, dtype=F64), schedule)
    x = normal((4, 3), seeded(1), torch.zeros((), dtype=F64))
    wanted = 0
    for i, c in enumerate(variances):

        def level(s, c=c):
            alpha, sigma = (v.item() for v in schedule(s * schedule.end))
            return math.sqrt(alpha**2 * c + sigma**2)

        def squared(s, c=c, level=level):
            (alpha, sigma), (down, up) = (
                [v.item() for v in f] for f in (schedule(s * schedule.end), slopes(schedule, s * schedule.end))
            )
            return ((alpha * down * c + sigma * up) * schedule.end / level(s)) ** 2

        whole = quad(squared, 1e-9, 1, epsabs=1e-11, epsrel=1e-11, limit=400)[0] / level(1) ** 2
        wanted = wanted + x[:, i].numpy() ** 2 * (whole - (1 - level(0) / level(1)) ** 2)
    np.testing.assert_allclose(straightness(model, x, 1e-8).numpy(), wanted, rtol=1e-5, atol=1e-6)


class Rectified:
    """The flow of the pairs (√c ε, ε): x_t = k_t ε with k_t = (1 − t)√c + t, whose paths are straight."""

    schedule = Straight()

    def __call__(self, xt, t):
        alpha, sigma = levels(self.schedule, t, xt)
        return 0.2 * xt / (alpha * 0.2 + sigma)


def test_rectified_gaussian_pairs_are_straight():
    """The first flow's pairs are (√c ε, ε): the second flow, trained on them, has no loss and no bend."""
    schedule = Straight()
    model = GaussianDenoiser(torch.zeros(2, dtype=F64), 0.04, schedule)
    eps = normal((30, 2), seeded(1), torch.zeros((), dtype=F64))
    x0, same = rectified_pairs(model, eps)
    assert torch.equal(same, eps)
    torch.testing.assert_close(x0, 0.2 * eps, rtol=1e-5, atol=1e-6)
    t = torch.linspace(0.01, 1, 30, dtype=F64)
    assert flow_matching_loss(Rectified(), x0, eps, t) < 1e-9
    assert flow_matching_loss(model, x0, eps, t) > 1e-3
    assert straightness(Rectified(), eps).max() < 1e-9
    assert straightness(model, eps).mean() > 1e-3
    torch.testing.assert_close(sample(Rectified(), ddim, eps, [1.0, 0.0]), x0, rtol=1e-5, atol=1e-6)


def test_the_flows_own_pairs_lie_nearer():
    """E|x_T − x_0|² is no larger than over independent pairs, 1 + E|x_0|². Where noise is larger, x_T = r ε."""
    bells = line(Straight())
    x0, eps = rectified_pairs(bells, normal((4000, 1), seeded(1), torch.zeros((), dtype=F64)), 1e-4)
    independent = 1 + sum(w * (m**2 + c) for w, m, c in zip(WEIGHTS, MEANS, VARIANCES, strict=True))
    assert (eps - x0).square().mean() < independent / 4
    exploding = line(ALL["edm"])
    made, eps = rectified_pairs(exploding, eps[:10])
    torch.testing.assert_close(encode(exploding, made), eps * math.sqrt(26), rtol=0, atol=1e-4)


def test_follows_dtype_and_device(device, dtype):
    x = normal((5, 1), seeded(1), torch.zeros((), dtype=F64))
    exact = line(Straight())
    weights, means, variances = (
        v.to(device, dtype) for v in (exact.weights, exact.means, torch.tensor(VARIANCES, dtype=F64))
    )
    model = GaussianMixtureDenoiser(weights, means, variances, Straight())
    t = torch.linspace(0.2, 1, 5, dtype=F64)
    for f in (velocity, score):
        found = f(model, x.to(device, dtype), t.to(device))
        assert (found.dtype, found.device.type) == (dtype, device.type)
        torch.testing.assert_close(found.cpu().double(), f(exact, x, t), rtol=1e-4, atol=1e-5)
    bent = straightness(model, x.to(device, dtype), 1e-4)
    assert (bent.dtype, bent.device.type) == (dtype, device.type)
    torch.testing.assert_close(bent.cpu().double(), straightness(exact, x, 1e-6), rtol=1e-2, atol=1e-3)


def test_bad_input_is_refused_at_the_door():
    bells, x = line(VariancePreserving()), torch.zeros(3, 1, dtype=F64)
    with pytest.raises(ValueError, match="the velocity is 0/0 at t = 0"):
        velocity(bells, x, 0.0)
    with pytest.raises(ValueError, match="the score is 0/0 at t = 0"):
        score(bells, x, 0.0)
    with pytest.raises(ValueError, match="outside the schedule"):
        slopes(Straight(), 1.1)
    with pytest.raises(ValueError, match="no number where"):
        velocity(line(Cosine(50).zero_terminal()), x, 50.0)
    with pytest.raises(ValueError, match="take a smooth schedule"):
        straightness(line(Cosine(50).zero_terminal()), x)
    with pytest.raises(ValueError, match=r"x0 has shape \(3, 1\) and eps \(2, 1\)"):
        flow_matching_loss(bells, x, x[:2], 0.5)
    with pytest.raises(ValueError, match="tolerance has the value -1"):
        straightness(bells, x, -1.0)
