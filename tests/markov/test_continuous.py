"""Langevin, MALA and HMC: detailed balance point by point, quadrature on a grid, the bias of the uncorrected step.

The densities of proposals and momenta are written out here; only the acceptances and the paths are the library's.
"""

import math

import pytest
import torch

from lecturecode import seeded
from lecturecode.markov import hmc, langevin, mala, run, standard_error
from lecturecode.rng import normal

f64 = torch.float64
LINE = torch.linspace(-5, 5, 1001, dtype=f64)[:, None]
WIDTH = 0.01


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wells(x):
    """Two wells along the first coordinate, coupled to the others: no Gaussian."""
    return -(x[..., 0] ** 2 - 1).square() - 0.5 * x[..., 1:].square().sum(-1) + 0.3 * x.sum(-1) * x[..., 0]


def slope_of_wells(x):
    first = -4 * x[..., 0] * (x[..., 0] ** 2 - 1) + 0.3 * (x.sum(-1) + x[..., 0])
    return torch.cat([first[..., None], -x[..., 1:] + 0.3 * x[..., :1]], -1)


def round_one(x):
    return -0.5 * x.square().sum(-1)


def log_normal(x, mean, variance):
    return (-0.5 * (x - mean).square() / variance - 0.5 * (2 * math.pi * variance).log()).sum(-1)


def points(count, n, seed=1):
    return 1.2 * torch.randn(count, n, generator=seeded(seed), dtype=f64)


# --- Langevin --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.01, 0.5, 1.0, 1.9])
def test_langevin_has_its_known_bias(tau):
    """On N(0, 1) a step is x ↦ ax + cξ, a and c read off the kernel; v ↦ a²v + c² has the fixed point 1/(1 − τ/2)."""
    kernel = langevin(lambda x: -x, tau)
    x = points(50, 1)
    still = kernel(torch.zeros_like(x), seeded(2))
    a = (kernel(x, seeded(2)) - still) / x
    c = still / normal((50, 1), seeded(2), x)
    assert (a - a[0]).abs().max() < 1e-13
    assert (c - c[0]).abs().max() < 1e-13
    fixed = (c[0] ** 2 / (1 - a[0] ** 2)).item()
    assert fixed == pytest.approx(1 / (1 - tau / 2), rel=1e-12)
    assert fixed > 1


def test_langevin_draws_have_that_variance():
    """50,000 chains after 40 steps of τ = 0.5: variance 4/3 within five of its standard errors, and not 1."""
    kernel = langevin(lambda x: -x, 0.5)
    for x in run(kernel, torch.zeros(50_000, 1, dtype=f64), 40, seeded(3), thin=40):
        error = 4 / 3 * math.sqrt(2 / 50_000)
        assert abs(x.var() - 4 / 3) < 5 * error
        assert abs(x.var() - 1) > 5 * error
        assert abs(x.mean()) < 5 * math.sqrt(4 / 3 / 50_000)


def test_the_density_of_langevin_on_a_grid():
    """The kernel's Gaussian step as a matrix by the trapezium rule: its stationary variance is 1/(1 − τ/2) to 1e-9,
    and on the wells it is not p's."""
    tau = 0.4
    grid = 2 * LINE
    T = 2 * WIDTH * log_normal(grid[:, None], grid * (1 - tau), torch.tensor(2 * tau, dtype=f64)).exp()
    p = torch.linalg.matrix_power(T, 256)[:, 500]
    assert (p @ grid[:, 0] ** 2 / p.sum()).item() == pytest.approx(1 / (1 - tau / 2), rel=1e-9)
    tau = 0.05
    T = WIDTH * log_normal(LINE[:, None], LINE + tau * slope_of_wells(LINE), torch.tensor(2 * tau, dtype=f64)).exp()
    p = wells(LINE).softmax(0)
    assert (T @ p - p).abs().sum() > 0.01


def test_langevin_runs_away_beyond_two():
    for x in run(langevin(lambda x: -x, 2.5), torch.ones(100, 1, dtype=f64), 100, seeded(1), thin=100):
        assert x.abs().min() > 1e6


# --- MALA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("tau", [0.02, 0.3, 2.0])
def test_mala_is_in_detailed_balance_point_by_point(tau, n):
    """p(x) q(y|x) a(x, y) = p(y) q(x|y) a(y, x) to 1e-12 of the logarithm, and one of the two acceptances is 1."""
    x, y = points(200, n), points(200, n, 2)
    kernel = mala(wells, tau)
    there, back = kernel.acceptance(x, y), kernel.acceptance(y, x)
    assert torch.equal(torch.maximum(there, back), torch.ones(200, dtype=f64))
    variance = torch.tensor(2 * tau, dtype=f64)
    left = wells(x) + log_normal(y, x + tau * slope_of_wells(x), variance) + there.log()
    right = wells(y) + log_normal(x, y + tau * slope_of_wells(y), variance) + back.log()
    seen = (there > 1e-290) & (back > 1e-290)
    assert seen.sum() > 100
    assert ((left - right)[seen].abs() <= 1e-12 * left[seen].abs().clamp(min=1)).all()


@pytest.mark.parametrize("tau", [0.05, 0.3])
def test_mala_leaves_p_invariant_by_quadrature(tau):
    """∫ p(x) K(x → y) dx = p(y) on a grid of 1001 points, to 1e-12: K = q a, and what is refused stays."""
    kernel = mala(wells, tau)
    x = LINE[None].expand(1001, -1, -1)
    density = log_normal(LINE[:, None], LINE + tau * slope_of_wells(LINE), torch.tensor(2 * tau, dtype=f64)).exp()
    T = WIDTH * density * kernel.acceptance(x, LINE[:, None].expand(-1, 1001, -1))
    T = T + torch.diag(1 - T.sum(0))
    p = wells(LINE).softmax(0)
    assert (T.sum(0) - 1).abs().max() < 1e-12
    assert (T @ p - p).abs().max() < 1e-12
    assert T.diagonal()[400:600].min() > 0  # refusals, not errors of the rule, where p is not negligible


def test_mala_takes_what_its_acceptance_says():
    """100,000 steps from one point: the share that moves, and the mean of where they go, within 5 standard errors."""
    tau, count = 0.4, 100_000
    x = torch.tensor([[0.9]], dtype=f64)
    moved = mala(wells, tau)(x.expand(count, 1), seeded(4))
    weight = WIDTH * log_normal(LINE, x + tau * slope_of_wells(x), torch.tensor(2 * tau, dtype=f64)).exp()
    taken = weight * mala(wells, tau).acceptance(x.expand(1001, 1), LINE)
    share, mean = taken.sum().item(), ((1 - taken.sum()) * x + taken @ LINE).item()
    assert abs((moved != x).double().mean() - share) < 5 * math.sqrt(share * (1 - share) / count)
    assert abs(moved.mean() - mean) < 5 * moved.std() / math.sqrt(count)


# --- HMC -------------------------------------------------------------------------------------------------------------

MASS = torch.tensor([0.5, 2.0, 1.3], dtype=f64)


@pytest.mark.parametrize("leaps", [1, 5])
@pytest.mark.parametrize("mass", [1.0, MASS])
def test_hmc_is_in_detailed_balance_point_by_point(mass, leaps):
    """(x, π) ↦ (x′, −π′) undoes itself, and p(x) N(π; M) a = p(x′) N(π′; M) a′, each to 1e-11."""
    x, momentum, size = 0.5 * points(200, 3), points(200, 3, 2), torch.full((1,), 0.2, dtype=f64)
    kernel = hmc(wells, 0.2, leaps, mass)
    x_end, momentum_end, there = kernel.path(x, momentum, size)
    x_back, momentum_back, back = kernel.path(x_end, -momentum_end, size)
    assert (x_back - x).abs().max() < 1e-11
    assert (momentum_back + momentum).abs().max() < 1e-11
    variance = torch.as_tensor(mass, dtype=f64)
    left = wells(x) + log_normal(momentum, 0, variance) + there.log()
    right = wells(x_end) + log_normal(momentum_end, 0, variance) + back.log()
    assert ((left - right).abs() <= 1e-11 * left.abs().clamp(min=1)).all()
    assert torch.equal(torch.maximum(there, back), torch.ones(200, dtype=f64))


def test_a_path_keeps_the_volume():
    """The determinant of its Jacobian in (x, π), by central differences of 1e-5: 1 within 1e-7."""
    kernel, size = hmc(wells, 0.2, 4, MASS), torch.full((1,), 0.2, dtype=f64)
    start = torch.cat([points(1, 3), points(1, 3, 2)], -1)

    def end(state):
        return torch.cat(kernel.path(state[:, :3], state[:, 3:], size)[:2], -1)

    steps = 1e-5 * torch.eye(6, dtype=f64)
    jacobian = (end(start + steps) - end(start - steps)).mT / 2e-5
    assert torch.linalg.det(jacobian).item() == pytest.approx(1, abs=1e-7)


def test_a_path_is_of_second_order():
    """Over a time of 1 the error of H falls with ε²: a log-log slope of 2 within 0.05."""
    x, momentum = points(50, 3), points(50, 3, 2)
    sizes = [1 / 64, 1 / 128, 1 / 256]
    errors = []
    for size in sizes:
        kernel = hmc(wells, size, round(1 / size))
        x_end, momentum_end, _ = kernel.path(x, momentum, torch.full((1,), size, dtype=f64))
        before = -wells(x) + momentum.square().sum(-1) / 2
        after = -wells(x_end) + momentum_end.square().sum(-1) / 2
        errors.append((after - before).abs().median().log2().item())
    assert errors[0] - errors[2] == pytest.approx(4, abs=0.1)


def test_hmc_leaves_p_invariant_by_quadrature():
    """∫∫ p(x) N(π) a (g(x′) − g(x)) dx dπ = 0 for g = x² and a bump, on 1001 × 801 points: to 2e-6, as the kink of
    min(1, ·) allows the trapezium rule; without the refusals it is off by more than 0.01."""
    x, momentum = torch.meshgrid(
        torch.linspace(-4, 4, 1001, dtype=f64), torch.linspace(-7, 7, 801, dtype=f64), indexing="ij"
    )
    x, momentum = x.reshape(-1, 1), momentum.reshape(-1, 1)
    weight = (wells(x) - momentum[:, 0].square() / 2).softmax(0)
    x_end, _, taken = hmc(wells, 0.45, 2).path(x, momentum, torch.full((1,), 0.45, dtype=f64))
    for g in (lambda x: x[:, 0] ** 2, lambda x: (-3 * (x[:, 0] - 0.5) ** 2).exp()):
        change = g(x_end) - g(x)
        assert abs(weight @ (taken * change)) < 2e-6
        assert abs(weight @ change) > 0.01


def test_one_leap_is_mala():
    """τ = ε²/2, draw by draw: within 1e-13 where both take or both refuse, and they do in all of 1000 chains."""
    x = points(1000, 3)
    one, other = hmc(wells, 0.7, 1)(x, seeded(5)), mala(wells, 0.7**2 / 2)(x, seeded(5))
    assert (one - other).abs().max() < 1e-13
    assert 100 < (one != x).any(-1).sum() < 900


def test_jitter_is_uniform_and_each_chain_draws_its_own():
    """With a flat density x′ − x = ε π: over 20,000 chains ε/step lies in [0.6, 1.4), mean and variance as they are."""
    count = 20_000
    x = torch.zeros(count, 1, dtype=f64)
    momentum = normal((count, 1), seeded(6), x)
    size = hmc(lambda x: 0 * x.sum(-1), 0.5, 1, jitter=0.4)(x, seeded(6)) / momentum / 0.5
    assert (size.min() >= 0.6 - 1e-12).item()
    assert (size.max() <= 1.4 + 1e-12).item()
    assert abs(size.mean() - 1) < 5 * 0.4 / math.sqrt(3 * count)
    assert size.var().item() == pytest.approx(0.16 / 3, rel=5 * math.sqrt(0.8 / count))


# --- all of them -----------------------------------------------------------------------------------------------------

CORRECTED = {
    "mala": mala(wells, 0.15),
    "mala, its gradient given": mala(wells, 0.15, slope_of_wells),
    "hmc": hmc(wells, 0.3, 4),
    "hmc, jitter and masses": hmc(wells, 0.3, 4, torch.tensor([1.5, 0.8], dtype=f64), 0.3, slope_of_wells),
}


@pytest.mark.parametrize("name", CORRECTED)
def test_averages_are_those_of_quadrature(name):
    """200 chains of 400 steps: ⟨x⟩, ⟨x²⟩, ⟨xy⟩ within 5 of the run's standard errors."""
    axis = torch.linspace(-7, 7, 701, dtype=f64)
    grid = torch.cartesian_prod(axis, axis)
    p = wells(grid).softmax(0)
    walk = run(CORRECTED[name], points(200, 2), 400, seeded(7), burn_in=100)
    x = torch.stack(list(walk))

    def seen(x):
        return torch.stack([x[..., 0], x[..., 0] ** 2, x[..., 0] * x[..., 1]], -1)

    error = standard_error(seen(x))
    assert (error < 0.2).all()
    assert ((seen(x).mean((0, 1)) - p @ seen(grid)).abs() < 5 * error).all()


def test_a_given_gradient_is_the_derived_one():
    x = points(100, 3)
    for made in (lambda g: mala(wells, 0.2, g), lambda g: hmc(wells, 0.3, 4, 1.0, 0.2, g)):
        assert (made(None)(x, seeded(8)) - made(slope_of_wells)(x, seeded(8))).abs().max() < 1e-12


def test_a_wall_is_not_crossed():
    """p(x) = e^{−x} for x > 0, −∞ or NaN beyond: no chain enters, and the mean is 1 within 5 standard errors."""
    for beyond in (-math.inf, math.nan):

        def log_prob(x, beyond=beyond):
            return torch.where(x[..., 0] > 0, -x[..., 0], beyond)

        for kernel in (mala(log_prob, 0.5), hmc(log_prob, 0.4, 3, jitter=0.2)):
            x = torch.stack(list(run(kernel, torch.ones(100, 1, dtype=f64), 300, seeded(9), burn_in=50)))
            assert x.min() > 0
            assert mala(log_prob, 0.5).acceptance(x[-1], -x[-1]).max() == 0
            assert abs(x.mean() - 1) < 5 * standard_error(x)[0]


def test_a_path_that_runs_off_is_refused():
    """A step far too long for x⁴: the path overflows, the chain stays, and nothing is raised."""
    x = torch.full((10, 1), 3.0, dtype=f64)
    kernel = hmc(lambda x: -x.pow(4).sum(-1), 5.0, 20)
    assert torch.equal(kernel(x, seeded(1)), x)
    assert torch.equal(mala(lambda x: -x.pow(8).sum(-1), 1e60)(x, seeded(1)), x)


KERNELS = {
    "langevin": langevin(lambda x: -x, 0.3),
    "mala": mala(round_one, 0.3),
    "hmc": hmc(round_one, 0.3, 3, jitter=0.1),
    "hmc, masses": hmc(round_one, 0.3, 3, torch.tensor([1.0, 2.0])),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_pure_and_take_any_leading_axes(name, device, dtype):
    """The same generator, the same step; x is left as it was; dtype and device follow x; no gradient is kept."""
    x = torch.ones(2, 4, 2, dtype=dtype, device=device)
    before = x.clone()
    first = KERNELS[name](x, seeded(5))
    assert torch.equal(first, KERNELS[name](x, seeded(5)))
    assert torch.equal(x, before)
    assert (first.shape, first.dtype, first.device.type) == (x.shape, dtype, device.type)
    assert not first.requires_grad
    assert KERNELS[name](x[0, 0], seeded(5)).shape == (2,)
    with torch.no_grad():
        assert torch.equal(first, KERNELS[name](x, seeded(5)))


def spoiled(x):
    """A gradient that is NaN in the last chain."""
    return torch.where(torch.arange(len(x))[:, None] == len(x) - 1, math.nan, -x)


X = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: langevin(torch.neg, 0.0), "step is 0; give a finite number above zero"),
        (lambda: langevin(torch.neg, math.nan), "step is nan; give a finite number"),
        (lambda: mala(round_one, -1.0), "step is -1"),
        (lambda: hmc(round_one, 0.0, 3), "step is 0"),
        (lambda: hmc(round_one, 0.1, 0), "leaps is 0; take at least one"),
        (lambda: hmc(round_one, 0.1, 3, jitter=1.0), r"jitter is 1; give a share of the step within \[0, 1\)"),
        (lambda: hmc(round_one, 0.1, 3, jitter=-0.1), "jitter is -0.1"),
        (lambda: hmc(round_one, 0.1, 3, torch.tensor([1.0, 0.0])), "mass has the value 0; it must be above zero"),
        (
            lambda: langevin(lambda x: x * math.nan, 0.1)(X, seeded(1)),
            r"the gradient of log p is NaN in chain \[0, 0\]",
        ),
        (lambda: mala(round_one, 0.1, spoiled)(X, seeded(1)), r"the gradient of log p is NaN in chain \[2, 0\]"),
        (
            lambda: hmc(round_one, 0.1, 2, gradient=spoiled)(X, seeded(1)),
            r"the gradient of log p is NaN in chain \[2, 0\]",
        ),
        (lambda: hmc(lambda x: x.sum(-1) * math.nan, 0.1, 2)(X, seeded(1)), r"log p is NaN in chain \[0\]"),
        (lambda: mala(lambda x: x, 0.1)(X, seeded(1)), r"log_prob\(x\) has shape \(3, 2\), not \(3,\)"),
    ],
)
def test_errors_at_the_door(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
