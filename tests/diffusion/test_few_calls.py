"""Pilots, shortest paths, fitted tables and the choice among them, on mixtures in two dimensions."""

import itertools
import math

import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    DirectionTable,
    FewCalls,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Pilot,
    Table,
    VariancePreserving,
    decode,
    dynamic_grid,
    exponential,
    few_calls,
    fitted,
    follow,
    gaussian_exponential,
    sample,
)
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
SCHEDULES = {"preserving": VariancePreserving(), "edm": EDM(20.0), "cosine": Cosine(40).zero_terminal()}


def randn(*shape, seed=0):
    return normal(shape, seeded(seed), LIKE)


def bells(schedule):
    means = torch.tensor([[1.0, 1.0], [-1.0, -0.5]], dtype=F64)
    variances = torch.tensor([[0.1, 0.3], [0.2, 0.15]], dtype=F64)
    return GaussianMixtureDenoiser(torch.tensor([0.3, 0.7], dtype=F64), means, variances, schedule)


def noise(schedule, count, seed=0):
    alpha, sigma = schedule(schedule.end)
    return (alpha**2 + sigma**2).sqrt() * randn(count, 2, seed=seed)


@pytest.fixture(scope="module")
def pilot():
    schedule = EDM(20.0)
    return Pilot.run(bells(schedule), noise(schedule, 64), candidates=16)


def median(model, table, x, exact):
    return (sample(model, table, x) - exact).norm(dim=1).median().item()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_pilot_keeps_the_paths(name):
    """x at the candidates against `follow`, and the denoiser's answers there."""
    schedule = SCHEDULES[name]
    model, x = bells(schedule), noise(schedule, 6)
    whole = Pilot.run(model, x, candidates=30)
    assert (whole.times[0].item(), whole.times[-1].item()) == (schedule.end, 0)
    assert len(whole.times) == len(whole.x) == len(whole.answers) + 1 == 31 + (name == "cosine")
    gaps = schedule.log_snr(whole.times[1 + (name == "cosine") : -1]).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=1e-6, atol=0)
    assert torch.equal(whole.x[0], x)
    for k in (1, 9, 20, len(whole.times) - 1):
        there = follow(model, x, schedule.end, whole.times[k].item(), 1e-9)
        torch.testing.assert_close(whole.x[k], there, rtol=0, atol=2e-4)
    for k in (0, 5, 20):
        torch.testing.assert_close(whole.answers[k], model(whole.x[k], whole.times[k].item()))
    few = Pilot.run(model, x[:5], candidates=30)  # fewer than three for each direction: from the ends
    torch.testing.assert_close(few.mean, few.x[-1].mean(0))
    torch.testing.assert_close((few.basis * few.variances) @ few.basis.mT, few.x[-1].mT.cov())
    many = Pilot.run(model, noise(schedule, 64), candidates=4)  # from the first answers: near the mixture's own
    weights, means = model.weights, model.means
    mean = weights @ means
    covariance = (weights[:, None] * model.covariances).sum(0).diag() + (means - mean).mT * weights @ (means - mean)
    torch.testing.assert_close(many.mean, mean, rtol=0, atol=0.05)
    torch.testing.assert_close((many.basis * many.variances) @ many.basis.mT, covariance, rtol=0, atol=0.1)
    part = whole.rows(slice(1, None, 2))
    assert torch.equal(part.x, whole.x[:, [1, 3, 5]])
    assert torch.equal(part.x_noise, x[[1, 3, 5]])


def edge(pilot, rule, h, i, j):
    """The last row of a table through τ_h, τ_i, τ_j, from what the path knows, against x at τ_j, as a length at 0."""
    schedule, last = pilot.schedule, len(pilot.times) - 1
    nodes = [i, j] if h is None or j == last else [h, i, j]
    table = rule(schedule, pilot.times[nodes])
    basis = torch.eye(2, dtype=F64) if not isinstance(table, DirectionTable) or table.basis is None else table.basis
    if isinstance(table, DirectionTable):
        mean, gain, (a, b) = table.mean, table.gain, (table.a[-1], table.b[-1])
    else:
        mean, gain, (a, b) = (
            torch.zeros(2, dtype=F64),
            torch.zeros(2, 1, dtype=F64),
            (table.a[-1], table.b[-1, :, None]),
        )
    alpha = schedule(pilot.times)[0]
    z = [(pilot.x[k] - alpha[k] * mean) @ basis for k in nodes]
    rest = [(pilot.answers[k] - mean) @ basis - gain[n] * z[n] for n, k in enumerate(nodes[:-1])]
    made = a * z[-2] + sum(b[n] * rest[-1 - n] for n in range(min(len(b), len(rest))))
    gap = (made - z[-1]) @ basis.mT
    if j == last:
        return gap.norm(dim=1).mean().item()
    alpha_j, sigma_j = (v.item() for v in schedule(pilot.times[j]))
    covariance = (pilot.basis * pilot.variances) @ pilot.basis.mT
    values, vectors = torch.linalg.eigh(covariance)
    return (gap @ vectors * (values / (alpha_j**2 * values + sigma_j**2)).sqrt()).norm(dim=1).mean().item()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("order", [1, 2])
def test_the_shortest_path_is_that_of_all_paths(name, gaussian, order):
    """Each choice of calls out of nine candidates, with lengths from the tables' own rows."""
    schedule = SCHEDULES[name]
    pilot = Pilot.run(bells(schedule), noise(schedule, 8), candidates=9, high=8.0)
    covariance = (pilot.basis * pilot.variances) @ pilot.basis.mT
    mean = pilot.mean

    def rule(schedule, times):
        p = min(order, len(times) - 1)
        if gaussian:
            return gaussian_exponential(schedule, times, mean, covariance, p, corrected=False)
        return exponential(schedule, times, p, corrected=False)

    last = len(pilot.times) - 1
    known = {}

    def length(path):
        total = 0.0
        for k, (i, j) in enumerate(itertools.pairwise(path)):
            h = path[k - 1] if k and order == 2 and torch.isfinite(schedule.log_snr(pilot.times[path[k - 1]])) else None
            if (h, i, j) not in known:
                known[h, i, j] = edge(pilot, rule, h, i, j)
            total += known[h, i, j]
        return total

    for calls in (1, 2, 3, 5):
        grid = dynamic_grid(pilot, calls, order, gaussian)
        paths = [[0, *inner, last] for inner in itertools.combinations(range(1, last), calls - 1)]
        lengths = [length(path) for path in paths]
        found = [int((pilot.times == t).nonzero()) for t in grid]
        assert found in paths
        assert length(found) == pytest.approx(min(lengths), rel=1e-9)


@pytest.mark.parametrize("gaussian", [True, False])
def test_nothing_fitted_is_the_analytic_table(gaussian, pilot):
    grid = dynamic_grid(pilot, 5, gaussian=gaussian)
    covariance = (pilot.basis * pilot.variances) @ pilot.basis.mT
    table = fitted(pilot, grid, 2, gaussian, rounds=0)
    if gaussian:
        plain = gaussian_exponential(EDM(20.0), grid, pilot.mean, covariance, 2, corrected=False)
    else:
        plain = exponential(EDM(20.0), grid, 2, corrected=False)
    assert type(table) is type(plain)
    x = noise(EDM(20.0), 5, seed=3)
    torch.testing.assert_close(sample(pilot.denoiser, table, x), sample(pilot.denoiser, plain, x), rtol=1e-9, atol=1e-9)
    assert table.b[:, 2:].abs().max() == 0


@pytest.mark.parametrize("gaussian", [True, False])
def test_fitting_lowers_the_error_also_of_other_noise(gaussian, pilot):
    """Times alone, then coefficients: each is nearer than what it began with, on the pilot and on 200 other starts."""
    model, grid = pilot.denoiser, dynamic_grid(pilot, 4, gaussian=gaussian)
    x = noise(EDM(20.0), 200, seed=7)
    exact = decode(model, x, 1e-9)
    tables = [fitted(pilot, grid, 2, gaussian, rounds=0), fitted(pilot, grid, 2, gaussian, memory=0)]
    tables.append(fitted(pilot, [*tables[1].times.tolist(), 0.0], 2, gaussian))
    on_pilot = [(sample(model, t, pilot.x_noise) - pilot.x[-1]).norm(dim=1).log().mean().exp().item() for t in tables]
    others = [median(model, t, x, exact) for t in tables]
    assert on_pilot[0] > on_pilot[1] > on_pilot[2]
    assert others[2] < others[0] / 2
    assert isinstance(tables[2], DirectionTable if gaussian else Table)
    again = fitted(pilot, [*tables[1].times.tolist(), 0.0], 2, gaussian)
    assert torch.equal(again.b, tables[2].b)
    assert torch.equal(again.times, tables[2].times)


def test_fitted_times_keep_analytic_coefficients(pilot):
    table = fitted(pilot, dynamic_grid(pilot, 4), 2, memory=0, rounds=3)
    times = [*table.times.tolist(), 0.0]
    plain = gaussian_exponential(
        EDM(20.0), times, pilot.mean, (pilot.basis * pilot.variances) @ pilot.basis.mT, 2, corrected=False
    )
    x = noise(EDM(20.0), 5, seed=3)
    torch.testing.assert_close(sample(pilot.denoiser, table, x), sample(pilot.denoiser, plain, x), rtol=1e-9, atol=1e-9)


def test_a_step_of_the_fit_is_gauss_and_newtons():
    """One unknown, θ of a single call: the answer of one round against the weighted least squares written out."""
    schedule = VariancePreserving()
    model, x = bells(schedule), noise(schedule, 40)
    pilot = Pilot.run(model, x, candidates=16)
    table = fitted(pilot, [schedule.end, 0.0], 1, gaussian=False, rounds=1)
    answer = model(x, schedule.end)  # the analytic table: x_0 = x̂_0
    gap = answer - pilot.x[-1]
    weights = 1 / (gap.norm(dim=1) + gap.norm(dim=1).median() / 2)
    curve = (weights[:, None] * answer * answer).sum()
    ridge = 1e-7 * (weights[:, None] * gap * gap).sum()
    step = (weights[:, None] * answer * gap).sum() / (curve * 1.01 + ridge)
    assert table.b[0, 0].item() == pytest.approx(1 - step.item(), rel=1e-6)
    assert table.a[0].item() == 0


def test_gaussian_data_need_one_call():
    """The Gaussian's own table has no error left, so it is chosen."""
    schedule, mean = VariancePreserving(), randn(2, seed=5)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.4]], dtype=F64)
    model = GaussianDenoiser(mean, covariance, schedule)
    chosen = few_calls(model, randn(64, 2), 1, mean, covariance)
    assert chosen.name.startswith("gaussian")
    x = randn(9, 2, seed=6)
    exact = model.flow(x, schedule.end, 0.0)
    torch.testing.assert_close(sample(model, chosen.table, x), exact, rtol=1e-10, atol=1e-10)
    estimated = few_calls(model, randn(64, 2), 1)  # from the pilot's ends
    assert estimated.name.startswith("gaussian")
    assert (sample(model, estimated.table, x) - exact).norm(dim=1).median() < 0.1


@pytest.fixture(scope="module")
def chosen():
    schedule = EDM(20.0)
    return {calls: few_calls(bells(schedule), noise(schedule, 64), calls) for calls in (4, 12)}


def test_the_choice_is_the_least_median_of_the_odd_rows(chosen):
    model = bells(EDM(20.0))
    x = noise(EDM(20.0), 64)
    exact = decode(model, x, 1e-9)
    for calls, few in chosen.items():
        assert isinstance(few, FewCalls)
        assert few.table is few.tables[few.name]
        assert few.errors.keys() == few.tables.keys()
        assert all(table.calls <= calls for table in few.tables.values())
        assert min(few.errors.values())[0] == few.errors[few.name][0]
        for name in list(few.tables)[::5]:
            gap = (sample(model, few.tables[name], x[1::2]) - exact[1::2]).norm(dim=1)
            assert few.errors[name][0] == pytest.approx(gap.median().item(), abs=1e-4)
            assert few.errors[name][1] == pytest.approx(gap.square().mean().sqrt().item(), abs=1e-3)


def test_coefficients_are_fitted_for_few_calls_only(chosen):
    assert any("fitted" in name for name in chosen[4].tables)
    assert not any("fitted" in name for name in chosen[12].tables)
    for few in chosen.values():
        for method in ("ddim", "heun", "2M", "3M", "exponential 2", "exponential 3", "gaussian 1", "noise 3"):
            assert any(name.startswith(method) for name in few.tables)


def test_it_is_better_than_any_usual_table_and_deterministic(chosen):
    """At 4 calls at least 3 times nearer to the exact ends of 200 other starts than any table that is not fitted."""
    schedule = EDM(20.0)
    model, x = bells(schedule), noise(schedule, 200, seed=11)
    exact = decode(model, x, 1e-9)
    few = chosen[4]
    usual = [t for n, t in few.tables.items() if not n.startswith("gaussian") and "fitted" not in n]
    assert median(model, few.table, x, exact) < min(median(model, t, x, exact) for t in usual) / 3
    again = few_calls(model, noise(schedule, 64), 4)
    assert again.name == few.name
    assert again.errors == few.errors
    assert torch.equal(again.table.b, few.table.b)


def test_images_in_single_precision():
    """Rows of any shape; the table is for them too."""

    class Square:
        schedule = VariancePreserving()

        def __call__(self, xt, t):
            return bells(self.schedule)(xt.flatten(1), t).reshape(xt.shape)

    x = noise(Square.schedule, 32).float().reshape(32, 1, 1, 2)
    few = few_calls(Square(), x, 3)
    made = sample(Square(), few.table, x)
    assert made.shape == x.shape
    assert made.dtype == torch.float32
    exact = decode(bells(Square.schedule), x.flatten(1).double(), 1e-9)
    assert (made.flatten(1) - exact).norm(dim=1).median() < 0.15


def test_bad_input_is_refused_at_the_door(pilot):
    model, x = pilot.denoiser, noise(EDM(20.0), 32)
    with pytest.raises(ValueError, match="calls is 0 and x_noise has 32 rows; give one call or more"):
        few_calls(model, x, 0)
    with pytest.raises(ValueError, match="x_noise has 8 rows; give one call or more, and 16 rows"):
        few_calls(model, x[:8], 5)
    with pytest.raises(ValueError, match="give both mean and covariance of the data, or neither"):
        few_calls(model, x, 5, mean=torch.zeros(2, dtype=F64))
    with pytest.raises(ValueError, match=r"mean has shape \(3,\), not \(2\)"):
        few_calls(model, x, 5, mean=torch.zeros(3, dtype=F64), covariance=torch.eye(2, dtype=F64))
    with pytest.raises(ValueError, match="two or more rows of noise and four or more candidates"):
        Pilot.run(model, x, candidates=3)
    with pytest.raises(ValueError, match="high is -20; give a finite log SNR above"):
        Pilot.run(model, x, high=-20.0)
    with pytest.raises(ValueError, match="values are not finite"):
        Pilot.run(model, x * math.nan)
    with pytest.raises(ValueError, match="choose 1 to 16 calls and order 1 or 2"):
        dynamic_grid(pilot, 17)
    with pytest.raises(ValueError, match="choose 1 to 16 calls and order 1 or 2"):
        dynamic_grid(pilot, 5, order=3)
    with pytest.raises(ValueError, match="end at 0, with memory ≥ 0"):
        fitted(pilot, [20.0, 1.0])
    with pytest.raises(ValueError, match="end at 0, with memory ≥ 0"):
        fitted(pilot, [20.0, 1.0, 0.0], memory=-1)
    with pytest.raises(ValueError, match="rounds is -1"):
        fitted(pilot, [20.0, 1.0, 0.0], rounds=-1)
    with pytest.raises(ValueError, match=r"closer than 0\.04 in log SNR"):
        fitted(pilot, [20.0, 1.0, 0.99, 0.0])
    with pytest.raises(ValueError, match="order is 5; choose it from 1 to 4"):
        fitted(pilot, [20.0, 1.0, 0.5, 0.2, 0.1, 0.0], order=5)
