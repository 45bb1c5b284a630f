"""One suite over all members of each family: likelihoods, machines, data sets, divergences, parts of a diffusion."""

# pyright: reportAttributeAccessIssue=false

import inspect
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lecturecode import boltzmann, diffusion, js, kl, seeded, tv
from lecturecode.boltzmann import (
    BIT,
    SPIN,
    BoltzmannMachine,
    FreeEnergy,
    GaussianRestrictedBoltzmannMachine,
    RestrictedBoltzmannMachine,
    contrastive_loss,
    states,
)
from lecturecode.data import bars_and_stripes, digits
from lecturecode.rng import draw, normal
from lecturecode.training import Batches
from lecturecode.vae import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretisedGaussian,
    DiscretisedLogistic,
    Gaussian,
    PixelGaussian,
    grey,
    likelihoods,
)
from lecturecode.vae.likelihoods import Likelihood

F64 = torch.float64

BITS = torch.tensor([0.0, 1.0], dtype=F64)
LINE = torch.linspace(-60, 60, 24001, dtype=F64)

# A likelihood, the points of its support with their weights, and an x outside it.
LIKELIHOODS = {
    "Bernoulli": (Bernoulli(), BITS, torch.ones(2, dtype=F64), 0.5),
    "Gaussian": (Gaussian(0.7, dtype=F64), LINE, torch.full_like(LINE, 0.005), math.nan),
    "Gaussian, learned": (Gaussian(1.9, learned=True, dtype=F64), LINE, torch.full_like(LINE, 0.005), math.inf),
}
LEVELS, EACH = torch.arange(17, dtype=F64) / 16, torch.ones(17, dtype=F64)
NODES, NODE_WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(60))
UNIT = ((NODES + 1) / 2, NODE_WEIGHTS / 2)  # Gauss–Legendre on [0, 1]
LIKELIHOODS |= {
    "continuous Bernoulli": (ContinuousBernoulli(), *UNIT, 1.01),
    "discretised Gaussian": (DiscretisedGaussian(0.1, dtype=F64), LEVELS, EACH, 0.3),
    "discretised Gaussian, learned": (DiscretisedGaussian(0.4, learned=True, dtype=F64), LEVELS, EACH, 0.3),
    "discretised logistic": (DiscretisedLogistic(0.1, dtype=F64), LEVELS, EACH, 1.0625),
    "discretised logistic, learned": (DiscretisedLogistic(0.4, learned=True, dtype=F64), LEVELS, EACH, -0.0625),
}
# PixelGaussian takes two numbers for each x_i: with the second held it is a family of the same form.


class HeldVariance(nn.Module):
    """y ↦ PixelGaussian()((y, 0.3)): one number in, as the suite gives it."""

    def __init__(self):
        super().__init__()
        self.inner = PixelGaussian()

    def forward(self, output):
        both = torch.stack([output, torch.full_like(output, 0.3)], -1)
        normal = self.inner(both)
        return torch.distributions.Normal(normal.loc[..., 0], normal.scale[..., 0], validate_args=False)

    def check(self, x):
        self.inner.check(x)


LIKELIHOODS["Gaussian with a σ for each pixel"] = (HeldVariance(), LINE, torch.full_like(LINE, 0.005), math.nan)
OUTPUTS = torch.tensor([-3.0, -0.2, 0.0, 1.0, 5.0], dtype=F64)


def test_every_likelihood_is_here():
    here = vars(likelihoods) | vars(grey)
    classes = {c for c in here.values() if isinstance(c, type) and issubclass(c, nn.Module)}
    held = {
        type(likelihood.inner if isinstance(likelihood, HeldVariance) else likelihood)
        for likelihood, *_ in LIKELIHOODS.values()
    }
    assert classes - {nn.Module} == held


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihood:
    def test_is_one(self, name):
        assert isinstance(LIKELIHOODS[name][0], Likelihood)

    def test_sums_to_one(self, name):
        """A sum over the support; for densities the trapezoid rule on a grid that is fine beside σ."""
        likelihood, points, weights, _ = LIKELIHOODS[name]
        total = (likelihood(OUTPUTS[:, None]).log_prob(points).exp() * weights).sum(-1)
        torch.testing.assert_close(total, torch.ones_like(OUTPUTS), rtol=1e-12, atol=1e-12)

    def test_has_the_mean_that_it_states(self, name):
        likelihood, points, weights, _ = LIKELIHOODS[name]
        mean = (likelihood(OUTPUTS[:, None]).log_prob(points).exp() * weights * points).sum(-1)
        torch.testing.assert_close(mean, likelihood(OUTPUTS).mean, rtol=1e-11, atol=1e-12)

    def test_has_the_right_gradient(self, name):
        likelihood, points, *_ = LIKELIHOODS[name]
        x = points[[0, -1]] / points.abs().max()
        y = OUTPUTS.clone().requires_grad_()
        parameters = tuple(likelihood.parameters())

        def log_prob(y, *_):
            return likelihood(y).log_prob(x[:, None])

        assert torch.autograd.gradcheck(log_prob, (y, *parameters))

    def test_the_score_has_mean_zero(self, name):
        """E[∂ log p/∂y] = 0, since p sums to one for every y."""
        likelihood, points, weights, _ = LIKELIHOODS[name]
        y = OUTPUTS.clone().requires_grad_()
        log = likelihood(y[:, None]).log_prob(points)
        (score,) = torch.autograd.grad((log.exp().detach() * weights * log).sum(), y)
        torch.testing.assert_close(score, torch.zeros_like(y), rtol=0, atol=1e-12)

    def test_takes_its_own_draws_and_refuses_what_is_outside(self, name):
        likelihood, *_, outside = LIKELIHOODS[name]
        x = draw(likelihood(OUTPUTS), 100, seeded(1))
        likelihood.check(x)
        x = x.detach().clone()
        x[17, 2] = outside
        with pytest.raises(ValueError, match=r"x\[17, 2\] is"):
            likelihood.check(x)

    def test_follows_the_dtype_of_the_network(self, name, dtype):
        family = type(LIKELIHOODS[name][0])
        likelihood = family(*([0.7] if "sigma" in inspect.signature(family).parameters else []))
        assert likelihood.to(dtype)(OUTPUTS.to(dtype)).log_prob(torch.ones(5, dtype=dtype)).dtype == dtype


def _filled(machine):
    with torch.no_grad():
        for k, p in enumerate(machine.parameters()):
            p.copy_(0.7 * torch.randn(p.shape, generator=seeded(k), dtype=F64))
    return machine


def _pairs(n):
    draws = torch.randn(n, n, generator=seeded(9), dtype=F64)
    return (draws + draws.mT).fill_diagonal_(0) / 2


# A machine, the points of its visible layer with their weights, and an x that it cannot be asked about.
FINE = LINE[::20, None]
MACHINES = {
    f"{kind}, {name}": (machine, states(4, alphabet), torch.ones(16, dtype=F64), 0.5)
    for name, alphabet in (("bits", BIT), ("spins", SPIN))
    for kind, machine in (
        ("full", BoltzmannMachine(_pairs(4), _pairs(4)[0], alphabet)),
        ("restricted, more visible", _filled(RestrictedBoltzmannMachine(4, 3, alphabet=alphabet, dtype=F64))),
        ("restricted, more hidden", _filled(RestrictedBoltzmannMachine(4, 6, alphabet=alphabet, dtype=F64))),
    )
}
MACHINES |= {
    f"Gaussian, {name}": (
        _filled(GaussianRestrictedBoltzmannMachine(1, 3, alphabet=alphabet, dtype=F64)),
        FINE,
        torch.full((len(FINE),), 0.1, dtype=F64),
        math.nan,
    )
    for name, alphabet in (("bits", BIT), ("spins", SPIN))
}


def test_every_machine_is_here():
    classes = {c for c in vars(boltzmann).values() if isinstance(c, type) and hasattr(c, "log_partition")}
    assert classes == {type(machine) for machine, *_ in MACHINES.values()}


@pytest.mark.parametrize("name", MACHINES)
class TestMachine:
    def test_is_one(self, name):
        machine = MACHINES[name][0]
        assert isinstance(machine, nn.Module)
        assert isinstance(machine, FreeEnergy)

    def test_sums_to_one(self, name):
        """A sum over all configurations; for densities over a grid that is fine beside σ = 1."""
        machine, points, weights, _ = MACHINES[name]
        assert (machine.log_prob(points).exp() @ weights).item() == pytest.approx(1, abs=1e-12)

    def test_log_prob_is_the_free_energy_less_log_z(self, name):
        machine, points, *_ = MACHINES[name]
        left = machine.log_prob(points) + machine.free_energy(points)
        torch.testing.assert_close(left, -machine.log_partition().expand(len(points)), rtol=1e-12, atol=1e-12)

    def test_the_score_has_mean_zero(self, name):
        """E[∂ log p/∂θ] = 0 for every parameter: the gradient of log Z is an average over the model."""
        machine, points, weights, _ = MACHINES[name]
        log = machine.log_prob(points)
        for slope in torch.autograd.grad((log.exp().detach() * weights) @ log, list(machine.parameters())):
            torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)

    def test_takes_its_own_draws_and_refuses_what_is_outside(self, name):
        machine, _, _, outside = MACHINES[name]
        x = machine.sample(20, seeded(1))
        assert machine.free_energy(x).shape == (20,)
        x[17, 0] = outside
        with pytest.raises(ValueError, match=r"x\[17, 0\] is"):
            machine.free_energy(x)
        with pytest.raises(ValueError, match=r"x\[17, 0\] is"):
            contrastive_loss(machine, x, x[:3])

    def test_a_loss_is_zero_where_data_and_model_rows_are_the_same(self, name):
        machine, *_ = MACHINES[name]
        x = machine.sample(20, seeded(1))
        assert contrastive_loss(machine, x, x).item() == 0


DATA = {
    f"digits, {p}, {k}": getattr(digits(p), k) for p in ("training", "validation", "test") for k in ("grey", "binary")
}
DATA |= {f"bars and stripes, {k}": bars_and_stripes(k) for k in (1, 2, 3, 4)}


@pytest.mark.parametrize("name", DATA)
class TestData:
    def test_is_float32_rows_in_the_unit_interval(self, name):
        x = DATA[name]
        assert (x.dtype, x.ndim, x.device.type) == (torch.float32, 2, "cpu")
        assert not x.requires_grad
        assert 0 <= x.min() < x.max() <= 1
        assert math.isqrt(x.shape[1]) ** 2 == x.shape[1]

    def test_fits_its_likelihood(self, name):
        if "grey" in name:
            Gaussian(1.0).check(DATA[name])
            with pytest.raises(ValueError, match="binarise"):
                Bernoulli().check(DATA[name])
        else:
            Bernoulli().check(DATA[name])

    def test_can_be_batched(self, name):
        x = DATA[name]
        (batch,) = Batches(x, 2, seeded(1), steps=1)
        assert batch.shape == (2, x.shape[1])


VECTORS = [torch.tensor(v, dtype=F64) for v in ([0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0])]


@pytest.mark.parametrize("divergence", [kl, js, tv], ids=lambda d: d.__name__)
class TestDivergence:
    def test_is_zero_at_equality_only(self, divergence):
        for (i, p), (j, q) in itertools.product(enumerate(VECTORS), repeat=2):
            assert divergence(p, q).item() == 0 if i == j else divergence(p, q).item() > 0.05

    def test_does_not_depend_on_the_order_of_outcomes(self, divergence):
        order = torch.tensor([2, 0, 1])
        for p, q in itertools.product(VECTORS, repeat=2):
            torch.testing.assert_close(divergence(p[order], q[order]), divergence(p, q), rtol=1e-14, atol=0)

    def test_does_not_rise_under_a_channel(self, divergence):
        """Data processing: the same random map applied to both sides brings them no further apart."""
        channel = torch.rand(3, 4, generator=seeded(1), dtype=F64).softmax(-1)
        for p, q in itertools.product(VECTORS, repeat=2):
            assert divergence(p @ channel, q @ channel) <= divergence(p, q) + 1e-15

    def test_is_convex_in_the_pair(self, divergence):
        for p, q, r, s in itertools.product(VECTORS[:3], repeat=4):
            mixed = divergence((p + r) / 2, (q + s) / 2)
            assert mixed <= (divergence(p, q) + divergence(r, s)) / 2 + 1e-15

    def test_leaves_its_arguments_as_they_are(self, divergence):
        p, q = VECTORS[0].clone(), VECTORS[2].clone()
        divergence(p, q)
        assert torch.equal(p, VECTORS[0])
        assert torch.equal(q, VECTORS[2])


@pytest.mark.parametrize("divergence", [js, tv], ids=lambda d: d.__name__)
def test_symmetric_divergences(divergence):
    for p, q in itertools.product(VECTORS, repeat=2):
        torch.testing.assert_close(divergence(p, q), divergence(q, p), rtol=1e-15, atol=0)


def test_pinsker():
    """TV ≤ √(KL/2), tight in the limit p → q."""
    for p, q in itertools.product(VECTORS, repeat=2):
        assert tv(p, q) <= (kl(p, q) / 2).sqrt() + 1e-15
    p, q = torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([0.5 + 1e-6, 0.5 - 1e-6], dtype=F64)
    assert (tv(p, q) / (kl(p, q) / 2).sqrt()).item() == pytest.approx(1, abs=1e-9)


SCHEDULES = {
    "linear": diffusion.Linear(),
    "cosine": diffusion.Cosine(100),
    "from betas": diffusion.FromBetas([0.1, 0.4, 0.2, 0.9]),
    "zero terminal": diffusion.Linear(50, 1e-3, 0.2).zero_terminal(),
    "preserving": diffusion.VariancePreserving(),
    "exploding": diffusion.VarianceExploding(),
    "edm": diffusion.EDM(),
    "straight": diffusion.Straight(),
}


def test_every_schedule_is_here():
    classes = {c for c in vars(diffusion).values() if isinstance(c, type) and hasattr(c, "log_snr")}
    assert classes - {diffusion.Schedule} == {type(schedule) for schedule in SCHEDULES.values()}


@pytest.mark.parametrize("name", SCHEDULES)
class TestSchedule:
    def test_goes_from_data_to_noise(self, name):
        schedule = SCHEDULES[name]
        assert isinstance(schedule, diffusion.Schedule)
        assert [v.item() for v in schedule(0.0)] == [1, 0]
        alpha, sigma = schedule(schedule.end)
        assert alpha < 0.5 or sigma > 10

    def test_its_log_snr_falls_and_can_be_inverted(self, name):
        schedule = SCHEDULES[name]
        t = torch.linspace(0.01, 0.99, 50, dtype=F64) * schedule.end
        alpha, sigma = schedule(t)
        snr = schedule.log_snr(t)
        assert (snr.diff() < 0).all()
        torch.testing.assert_close(snr, 2 * (alpha / sigma).log(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(schedule.time(snr), t, rtol=1e-11, atol=0)

    def test_keeps_the_variance_the_signal_or_their_sum(self, name):
        alpha, sigma = SCHEDULES[name](torch.linspace(0, 1, 50, dtype=F64) * SCHEDULES[name].end)
        whole = alpha if name in ("exploding", "edm") else alpha + sigma if name == "straight" else alpha**2 + sigma**2
        torch.testing.assert_close(whole, torch.ones_like(whole), rtol=1e-14, atol=0)

    def test_its_rates_carry_the_moments(self, name):
        """dα/dt = f α and dσ²/dt = 2 f σ² + g², by central differences of 10⁻⁵ of a step."""
        schedule = SCHEDULES[name]
        unit = 1.0 if hasattr(schedule, "steps") else schedule.end
        t = torch.tensor([0.3, 0.55, 0.8], dtype=F64) * unit
        (up, more), (down, less) = schedule(t + 1e-5 * unit), schedule(t - 1e-5 * unit)
        (alpha, sigma), (f, g2) = schedule(t), schedule.rates(t)
        torch.testing.assert_close((up - down) / (2e-5 * unit), f * alpha, rtol=1e-6, atol=1e-10)
        slope = (more**2 - less**2) / (2e-5 * unit)
        torch.testing.assert_close(slope, 2 * f * sigma**2 + g2, rtol=1e-6, atol=1e-10)

    def test_refuses_times_that_it_does_not_have(self, name):
        for t in (-0.01, 1.01 * SCHEDULES[name].end, math.nan):
            with pytest.raises(ValueError, match="outside the schedule"):
                SCHEDULES[name](t)

    def test_has_an_exact_member_that_its_noise_belongs_to(self, name):
        """p_t of Gaussian data, and of the marginal: one Gaussian after the noise q(x_t|x_0) of another."""
        schedule = SCHEDULES[name]
        exact = diffusion.GaussianDenoiser(torch.zeros(1, dtype=F64), 2.0, schedule)
        x, t = torch.tensor([[0.7]], dtype=F64), 0.6 * schedule.end
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(80))
        x0 = 2**0.5 * nodes[:, None]
        log = diffusion.marginal(schedule, x0, t).log_prob(x.expand_as(x0)) + (weights / weights.sum()).log()
        torch.testing.assert_close(log.logsumexp(0), exact.log_prob(x, t)[0], rtol=1e-8, atol=1e-8)


PREDICTIONS = {p.name: p for p in vars(diffusion).values() if isinstance(p, diffusion.Prediction)}
PREDICTIONS["preconditioned"] = diffusion.preconditioned(0.7)
PREDICTIONS["flow velocity"] = diffusion.flow_velocity(diffusion.Straight())


def _asked(prediction, schedule):
    """A velocity belongs to one schedule; the others are for all."""
    return diffusion.flow_velocity(schedule) if prediction == "flow velocity" else PREDICTIONS[prediction]


class Answering(nn.Module):
    """A network that knows the exact answer: it finds t from the level, and x_t from what it is shown."""

    def __init__(self, exact, prediction):
        super().__init__()
        self.exact, self.prediction = exact, prediction

    def forward(self, x, level):
        t = self.exact.schedule.time(level)
        alpha, sigma = diffusion.levels(self.exact.schedule, t, x)
        xt = x / self.prediction.scale(alpha, sigma)
        return self.prediction.of(self.exact(xt, t), xt, alpha, sigma)


@pytest.mark.parametrize("schedule", ["linear", "preserving", "edm", "straight"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_exact_member_back(prediction, schedule):
    """A network that answers as the exact denoiser does, asked in each of the ways."""
    data = normal((6, 3), seeded(1), BITS)
    exact = diffusion.EmpiricalDenoiser(data, SCHEDULES[schedule])
    way = _asked(prediction, exact.schedule)
    if not way.answers_pure_noise and diffusion.terminal_snr(exact.schedule) == 0:
        with pytest.raises(ValueError, match="says nothing about x_0"):
            diffusion.Denoiser(Answering(exact, way), exact.schedule, way)
        return
    asked = diffusion.Denoiser(Answering(exact, way), exact.schedule, way)
    for t in (0.05, 0.4, 0.9):
        x = normal((4, 3), seeded(2), BITS)
        t = t * exact.schedule.end
        torch.testing.assert_close(asked(x, t), exact(x, t), rtol=1e-8, atol=1e-8)


def _mixture(schedule):
    return diffusion.GaussianMixtureDenoiser(
        torch.tensor([0.25, 0.75], dtype=F64),
        torch.tensor([[-1.0], [0.5]], dtype=F64),
        torch.tensor([0.2, 0.05], dtype=F64),
        schedule,
    )


# A denoiser of one number, with the points of its data and their weights.
GRID = torch.linspace(-4, 4, 8001, dtype=F64)[:, None]
POINTS = torch.tensor([[-1.0], [0.25], [0.5]], dtype=F64)


def _dense(log_density):
    return GRID, log_density.softmax(0)


def _denoisers(schedule):
    bells = _mixture(schedule)
    yield "Gaussian", diffusion.GaussianDenoiser(POINTS[0], 0.2, schedule), *_dense(-((GRID[:, 0] + 1) ** 2) / 0.4)
    yield "mixture", bells, *_dense(bells.log_prob(GRID, 0.0))
    yield "a class", bells.given(1), *_dense(-((GRID[:, 0] - 0.5) ** 2) / 0.1)
    yield "empirical", diffusion.EmpiricalDenoiser(POINTS, schedule), POINTS, torch.full((3,), 1 / 3, dtype=F64)
    yield "guided by 1", diffusion.Guided(bells.given(1), bells, 1.0), *_dense(-((GRID[:, 0] - 0.5) ** 2) / 0.1)
    yield "guided by 0", diffusion.Guided(bells.given(1), bells, 0.0), *_dense(bells.log_prob(GRID, 0.0))
    yield "counted", diffusion.Counted(bells), *_dense(bells.log_prob(GRID, 0.0))


@pytest.mark.parametrize("schedule", ["cosine", "preserving", "exploding", "straight"])
def test_every_denoiser_is_the_posterior_mean(schedule):
    """Σ x_0 p(x_0) q(x_t|x_0) / Σ p(x_0) q(x_t|x_0) over the data's own points."""
    for name, denoiser, points, weights in _denoisers(SCHEDULES[schedule]):
        for t in (0.3, 0.6, 1.0):
            t = t * denoiser.schedule.end
            x = torch.tensor([[-1.5], [0.1], [2.0]], dtype=F64)
            rows = [diffusion.marginal(denoiser.schedule, points, t).log_prob(v.expand_as(points)) for v in x]
            share = (torch.stack(rows) + weights.log()).softmax(1)
            torch.testing.assert_close(denoiser(x, t), share @ points, rtol=1e-8, atol=1e-8, msg=name)


def test_every_exact_denoiser_is_here():
    names = {name for name in vars(diffusion) if name.endswith("Denoiser")} - {"Denoiser", "DiscreteDenoiser"}
    held = {type(denoiser).__name__ for _, denoiser, *_ in _denoisers(diffusion.VariancePreserving())}
    assert names == held - {"Guided", "Counted"}


RULES = {
    "ancestral": diffusion.ancestral,
    "ancestral, step": partial(diffusion.ancestral, variance="step"),
    "ddim": diffusion.ddim,
    "ddim, half": partial(diffusion.ddim, eta=0.5),
    "euler": diffusion.euler,
    "euler_maruyama": diffusion.euler_maruyama,
    "exponential": diffusion.exponential,
    "exponential, 4": partial(diffusion.exponential, order=4),
    "dpm_solver": diffusion.dpm_solver,
    "dpm_solver, 3": partial(diffusion.dpm_solver, order=3),
    "heun": diffusion.heun,
    "heun, churned": partial(diffusion.heun, churn=diffusion.Churn(400.0, high=4.0)),
}


def test_every_rule_is_here():
    """A rule is what makes a Table of a schedule and times."""
    rules = set()
    for name, member in vars(diffusion).items():
        if inspect.isfunction(member) and inspect.signature(member).return_annotation in (diffusion.Table, "Table"):
            rules.add(name)
    assert rules == {name.split(",")[0] for name in RULES}


@pytest.mark.parametrize("schedule", ["cosine", "preserving", "exploding", "edm"])
@pytest.mark.parametrize("rule", RULES)
class TestRule:
    def test_a_call_for_each_time_and_the_last_is_x0(self, rule, schedule):
        """The times of the grid, each of them at least once; Heun's stages and order 4 ask at some of them twice."""
        schedule = SCHEDULES[schedule]
        grid = diffusion.uniform_grid(schedule, 6)
        table = RULES[rule](schedule, grid)
        assert (table.calls, table.end) == (6 + {"heun": 5, "exponential, 4": 1}.get(rule.split(", c")[0], 0), 0)
        if "churned" not in rule:
            assert torch.equal(table.times.unique_consecutive(), grid[:-1])
        assert (table.a[-1], table.b[-1, 0], table.b[-1, 1:].any(), table.noise[-1]) == (0, 1, False, 0)

    def test_draws_go_to_the_exact_member(self, rule, schedule):
        """One number, Gaussian: the exact moments of what the table draws, as its steps grow finer."""
        schedule = SCHEDULES[schedule]
        exact = diffusion.GaussianDenoiser(torch.tensor([0.5], dtype=F64), 0.3, schedule)
        grid = schedule.time(torch.linspace(-3, 12, 1000, dtype=F64))
        grid = torch.cat([grid[grid > 0], torch.zeros(1, dtype=F64)])
        table = RULES[rule](schedule, grid)
        (alpha, sigma), probe = schedule(grid[0]), torch.tensor([[0.0], [1.0]], dtype=F64)
        scale, kick = table.opening
        # x and each D_k by their means and their weights on the independent x_noise, ε_0, ε_1 …
        mean, weights = scale * alpha * 0.5, torch.zeros(table.calls + 2, dtype=F64)
        weights[:2] = torch.tensor([scale * (alpha**2 * 0.3 + sigma**2).sqrt(), kick])
        past = []
        for k, (t, a, row, n) in enumerate(zip(table.times.tolist(), table.a, table.b, table.noise, strict=True)):
            zero, one = exact(probe, t)[:, 0]
            past = [(zero + (one - zero) * mean, (one - zero) * weights), *past[: len(row) - 1]]
            mean = a * mean + sum(b * m for b, (m, _) in zip(row, past, strict=False))
            weights = a * weights + sum(b * w for b, (_, w) in zip(row, past, strict=False))
            weights[k + 2] = n
        variance = weights.square().sum()
        assert mean.item() == pytest.approx(0.5, abs=0.01)
        assert variance.item() == pytest.approx(0.3, rel=0.04)
