"""Multistep tables against quadrature, the papers' updates and plain loops; their orders against exact flows."""

import math
from functools import partial
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    VariancePreserving,
    ddim,
    dpm_solver,
    euler,
    exponential,
    heun,
    karras_grid,
    log_snr_grid,
    sample,
    uniform_grid,
)
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
LOW, HIGH = -4.0, 3.0  # log SNRs of the interval on which orders are read
SCHEDULES = {"preserving": VariancePreserving(), "edm": EDM(20.0)}


def randn(*shape, seed=0):
    return normal(shape, seeded(seed), LIKE)


def bells(schedule):
    means = torch.tensor([[1.0, 1.0], [-1.0, -0.5]], dtype=F64)
    variances = torch.tensor([[0.1, 0.3], [0.2, 0.15]], dtype=F64)
    return GaussianMixtureDenoiser(torch.tensor([0.3, 0.7], dtype=F64), means, variances, schedule)


def uneven(schedule, calls):
    """A grid whose steps in λ differ by a factor of 3, smoothly."""
    line = torch.linspace(0, 1, calls + 1, dtype=F64)
    return schedule.time(LOW + (HIGH - LOW) * (line + line.square()) / 2)


def levels_in_40_digits(schedule, t):
    """ℓ = log α/σ, α and σ, from the schedules' own formulas."""
    t = mpmath.mpf(t)
    if isinstance(schedule, EDM):
        return -mpmath.log(t), mpmath.mpf(1), t
    loss = mpmath.mpf(schedule.rate_start) * t + (mpmath.mpf(schedule.rate_end) - schedule.rate_start) * t**2 / 2
    alpha, sigma = mpmath.exp(-loss / 2), mpmath.sqrt(1 - mpmath.exp(-loss))
    return mpmath.log(alpha / sigma), alpha, sigma


def lagrange(nodes, j, at):
    return math.prod((at - other) / (nodes[j] - other) for i, other in enumerate(nodes) if i != j)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", ["short", "long"])
def test_each_coefficient_is_its_integral(order, schedule, steps):
    """α_r ∫ e^{ℓ−ℓ_r} Π (ℓ−ℓ_i)/(ℓ_j−ℓ_i) dℓ by quadrature in 40 digits, for steps of 0.01 to 4 in ℓ."""
    width = 0.01 if steps == "short" else 1.0
    path = -2.0 + width * torch.tensor([0.0, 1.0, 2.5, 3.0, 3.4, 4.1, 5.0, 5.3], dtype=F64)
    if steps == "long":
        path[-1] = 7.0
    grid = schedule.time(2 * path).clamp(max=schedule.end)
    table = exponential(schedule, grid, order, corrected=False)
    assert table.calls == 7
    assert torch.equal(table.times, grid[:-1])
    with mpmath.workdps(40):
        ell, alpha, sigma = zip(*(levels_in_40_digits(schedule, t) for t in grid.tolist()), strict=True)
        for k, (a, row) in enumerate(zip(table.a.tolist(), table.b.tolist(), strict=True)):
            assert a == pytest.approx(float(sigma[k + 1] / sigma[k]), rel=1e-12)
            count = min(order, k + 1)
            nodes = [ell[k - j] for j in range(count)]
            for j in range(count):

                def integrand(at, end=ell[k + 1], nodes=nodes, j=j):
                    return mpmath.exp(at - end) * lagrange(nodes, j, at)

                exact = float(alpha[k + 1] * mpmath.quad(integrand, [ell[k], ell[k + 1]]))
                assert row[j] == pytest.approx(exact, rel=1e-12 if steps == "long" else 1e-11)
            assert not any(row[count:])


def test_a_short_step_keeps_its_digits():
    """Steps of 1e-7 in ℓ, where 1 − e^{−h} − h e^{−h} has lost all of them: 9 digits, as many as ℓ_r − ℓ_t has."""
    grid = [1.0 - k * 1e-7 for k in range(6)]
    with mpmath.workdps(40):
        ell = [-mpmath.log(mpmath.mpf(t)) for t in grid]
        for order in (2, 3, 4):
            row = exponential(EDM(), grid, order, corrected=False).b[-1].tolist()
            nodes = [ell[4 - j] for j in range(order)]
            for j, b in enumerate(row):

                def integrand(at, nodes=nodes, j=j):
                    return mpmath.exp(at - ell[5]) * lagrange(nodes, j, at)

                exact = mpmath.quad(integrand, [ell[4], ell[5]])
                assert b == pytest.approx(float(exact), rel=2e-8)


def whole(schedule, x0, grid, k, answers):
    """x at grid[k] from x0 at grid[0]: the whole way with the polynomial through (time, answer), by quadrature."""
    ell = {t: schedule.log_snr(t).item() / 2 for t in grid}
    (_, first), (alpha, sigma) = schedule(grid[0]), schedule(grid[k])
    nodes, out = [ell[t] for t, _ in answers], sigma / first * x0
    for j, (_, answer) in enumerate(answers):
        end = ell[grid[k]]

        def integrand(at, j=j, end=end):
            return math.exp(at - end) * lagrange(nodes, j, at)

        weight, _ = quad(integrand, ell[grid[0]], end, epsabs=1e-14)
        out = out + alpha * weight * answer
    return out


@pytest.mark.parametrize("order", [3, 4])
def test_the_start_takes_the_whole_way_anew(order):
    """The first steps written as the module says: every x from x_0, with all answers that are known."""
    schedule = VariancePreserving()
    model, x = bells(schedule), randn(4, 2)
    grid = [0.9, 0.7, 0.55, 0.4]
    d0 = model(x, grid[0])
    x1 = whole(schedule, x, grid, 1, [(grid[0], d0)])
    d1 = model(x1, grid[1])
    if order == 4:
        x1 = whole(schedule, x, grid, 1, [(grid[0], d0), (grid[1], d1)])
        d1 = model(x1, grid[1])
    x2 = whole(schedule, x, grid, 2, [(grid[0], d0), (grid[1], d1)])
    d2 = model(x2, grid[2])
    answers = [(grid[0], d0), (grid[1], d1), (grid[2], d2)]
    if order == 4:
        x3 = whole(schedule, x, grid, 3, answers)
    else:  # past its start: from x_2 on
        both = [schedule.log_snr(t).item() / 2 for t in grid]
        (_, sigma), (alpha, after) = schedule(grid[2]), schedule(grid[3])
        weights = [
            quad(lambda at, j=j: math.exp(at - both[3]) * lagrange(both[:3], j, at), both[2], both[3])[0]
            for j in range(3)
        ]
        x3 = after / sigma * x2 + alpha * sum(w * d for w, (_, d) in zip(weights, answers, strict=True))
    table = exponential(schedule, [*grid, 0.3], order)
    assert table.times.tolist() == ([0.9, 0.7, 0.7, 0.55, 0.4] if order == 4 else grid)
    torch.testing.assert_close(stopped(model, table, x, order), x3, rtol=1e-12, atol=1e-12)


def stopped(model, table, x, rows):
    """x after some rows of a table, by the recursion written out."""
    answers = []
    for k in range(rows):
        answers.append(model(x, table.times[k].item()))
        x = table.a[k] * x + sum(table.b[k, j] * answers[k - j] for j in range(min(k + 1, table.b.shape[1])))
    return x


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(("order", "curvature"), [(2, 1.0), (3, 0.5), (3, 1.0)])
def test_dpm_solver_is_the_authors_update(order, curvature, settled):
    """Lu et al.'s h, r_0, r_1, D_1 and D_2, with the factor before D_2 as in their code (½) or as in the integral."""
    schedule = VariancePreserving()
    model, x = bells(schedule), randn(5, 2)
    grid = log_snr_grid(schedule, 9, high=6.0)
    grid[4] = (grid[3] + 2 * grid[5]) / 3
    ours = sample(model, partial(dpm_solver, order=order, curvature=curvature, settled=settled), x, grid)
    lam = (schedule.log_snr(grid) / 2).tolist()
    answers = []
    for k, (t, r) in enumerate(pairwise(grid.tolist())):
        answers.insert(0, model(x, t))
        (_, sigma_t), (alpha, sigma) = schedule(t), schedule(r)
        h = lam[k + 1] - lam[k]
        if k == 0 or r == 0:
            x = sigma / sigma_t * x - alpha * math.expm1(-h) * answers[0]
            continue
        r0 = (lam[k] - lam[k - 1]) / h
        first = (answers[0] - answers[1]) / r0
        if order == 2 or k == 1 or (settled and k == 7):
            x = sigma / sigma_t * x - alpha * math.expm1(-h) * (answers[0] + first / 2)
            continue
        r1 = (lam[k - 1] - lam[k - 2]) / h
        d1 = first + r0 / (r0 + r1) * (first - (answers[1] - answers[2]) / r1)
        d2 = (first - (answers[1] - answers[2]) / r1) / (r0 + r1)
        phi2 = math.expm1(-h) / h + 1
        phi3 = (math.expm1(-h) + h) / h**2 - 0.5
        x = sigma / sigma_t * x - alpha * math.expm1(-h) * answers[0] + alpha * phi2 * d1
        x = x - alpha * phi3 * d2 * (2 * curvature)
    torch.testing.assert_close(ours, x, rtol=1e-11, atol=1e-11)


def test_what_is_the_same_by_two_names():
    schedule = VariancePreserving()
    for grid in (uniform_grid(schedule, 8), karras_grid(schedule, 8, 0.01, 50.0), uneven(schedule, 8)):
        for one, other in (
            (exponential(schedule, grid, 1), ddim(schedule, grid)),
            (dpm_solver(schedule, grid, 3, corrected=True), exponential(schedule, grid, 3)),
            (exponential(schedule, grid, 2), exponential(schedule, grid, 2, corrected=False)),
            (dpm_solver(schedule, grid), dpm_solver(schedule, grid, corrected=True)),
        ):
            for part in ("times", "a", "b"):
                torch.testing.assert_close(getattr(one, part), getattr(other, part), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_answers_on_a_polynomial_are_integrated_exactly(order):
    """x̂_0 = ℓ^q whatever x is: nothing is lost where q < order − 1, and with q = order − 1 only in the start."""
    schedule = EDM(20.0)
    grid = uneven(schedule, 7)
    ell = (schedule.log_snr(grid) / 2).tolist()
    for power in range(order):

        class Power:
            """A denoiser that knows only the time."""

            def __init__(self, power):
                self.schedule, self.power = schedule, power

            def __call__(self, xt, t):
                return torch.full_like(xt, (schedule.log_snr(t).item() / 2) ** self.power)

        x = randn(2, 3)
        begin = 0 if power <= max(order - 2, 0) else order - 1
        table = exponential(schedule, grid, order)
        offset = begin + (order == 4 and begin > 0)
        x_begin = stopped(Power(power), table, x, offset)

        def integrand(at, power=power):
            return math.exp(at - ell[-1]) * at**power

        integral, _ = quad(integrand, ell[begin], ell[-1], epsabs=1e-14)
        exact = grid[-1] / grid[begin] * x_begin + integral
        torch.testing.assert_close(sample(Power(power), table, x), exact, rtol=1e-11, atol=1e-12)


RULES = {
    "euler": (euler, 1),
    "ddim": (ddim, 1),
    "heun": (heun, 2),
    "2M": (dpm_solver, 2),
    "3M": (partial(dpm_solver, order=3, corrected=True), 3),
    **{f"exponential {p}": (partial(exponential, order=p), p) for p in (1, 2, 3, 4)},
}


@pytest.fixture(scope="module", params=SCHEDULES)
def flow(request):
    """Sixteen points at λ = −4, and where the flow of a mixture has taken them at λ = 3: d(x/σ)/dℓ = e^ℓ x̂_0."""
    schedule = SCHEDULES[request.param]
    model = bells(schedule)
    (alpha, sigma), (_, last) = schedule(schedule.time(LOW)), schedule(schedule.time(HIGH))
    x = randn(16, 2, seed=5) * (alpha**2 + sigma**2).sqrt()

    def slope(ell, flat):
        t = schedule.time(2 * ell).item()
        clean = model(torch.from_numpy(flat).reshape(16, 2) * schedule(t)[1], t)
        return math.exp(ell) * clean.flatten().numpy()

    start = (x / sigma).flatten().numpy()
    solved = solve_ivp(slope, (LOW / 2, HIGH / 2), start, method="DOP853", rtol=1e-13, atol=1e-13)
    return model, x, torch.from_numpy(solved.y[:, -1]).reshape(16, 2) * last


def order_of(model, x, exact, rule, grid=None, steps=(80, 160, 320)):
    """Minus the slope of the median error against the steps."""
    errors = []
    for count in steps:
        times = model.schedule.time(torch.linspace(LOW, HIGH, count + 1, dtype=F64))
        times = times if grid is None else grid(model.schedule, count)
        errors.append((sample(model, rule, x, times) - exact).norm(dim=1).median().item())
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("name", RULES)
def test_the_order_on_a_mixture(name, flow):
    rule, order = RULES[name]
    assert order_of(*flow, rule=rule) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", [name for name, (_, order) in RULES.items() if order > 2])
def test_the_order_on_an_uneven_grid(name, flow):
    rule, order = RULES[name]
    assert order_of(*flow, rule=rule, grid=uneven, steps=(160, 320, 640)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", RULES)
def test_the_order_on_a_gaussian(name):
    """Against the closed form of the flow."""
    rule, order = RULES[name]
    schedule = VariancePreserving()
    model = GaussianDenoiser(torch.tensor([1.0, -0.5], dtype=F64), torch.tensor([0.3, 0.1], dtype=F64), schedule)
    x = randn(16, 2, seed=3)
    exact = model.flow(x, schedule.time(LOW).item(), schedule.time(HIGH).item())
    assert order_of(model, x, exact, rule, steps=(100, 200, 400)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    "rule",
    [
        partial(exponential, order=3, corrected=False),
        partial(exponential, order=4, corrected=False),
        partial(dpm_solver, order=3),
        partial(dpm_solver, order=3, corrected=True, curvature=0.5),
    ],
    ids=["3, led up to", "4, led up to", "3M, led up to", "3M, half the curvature"],
)
def test_what_has_order_two_after_all(rule, flow):
    """A start of order 1 and then 2 leaves an error of h² in the whole; so does half of D″ in each step."""
    assert order_of(*flow, rule=rule, steps=(160, 320, 640)) == pytest.approx(2, abs=0.1)


def test_calls_are_one_a_step_but_for_order_four():
    schedule = VariancePreserving()
    for count in (4, 5, 9):
        grid = uniform_grid(schedule, count)
        for rule, extra in (
            (partial(exponential, order=3), 0),
            (partial(exponential, order=4), 1),
            (partial(exponential, order=4, corrected=False), 0),
            (partial(dpm_solver, order=3, corrected=True, settled=True), 0),
            (dpm_solver, 0),
        ):
            table = rule(schedule, grid)
            assert table.calls == count + extra
            assert (table.a[-1].item(), table.b[-1, 0].item(), table.b[-1, 1:].any().item()) == (0, 1, False)


def test_both_ends_are_ddims_steps():
    """From α = 0, where h is infinite, and to t = 0; in between the polynomials go through the finite ones alone."""
    schedule = Cosine(40).zero_terminal()
    grid = [40, 30, 22, 15, 9, 4, 0]
    plain = ddim(schedule, grid)
    for rule in (partial(exponential, order=4), partial(exponential, order=3), partial(dpm_solver, order=3), heun):
        table = rule(schedule, grid)
        for row in (0, -1):
            assert table.a[row].item() == pytest.approx(plain.a[row].item(), abs=1e-15)
            assert table.b[row, 0].item() == pytest.approx(plain.b[row, 0].item(), abs=1e-15)
            assert not table.b[row, 1:].any()
        inner = rule(schedule, grid[1:])
        torch.testing.assert_close(table.b[1:, : inner.b.shape[1]], inner.b, rtol=1e-13, atol=1e-15)
    assert exponential(schedule, [40, 0], 1).calls == 1


def test_the_levels_are_kept():
    """With x̂_0 = c, x = α c + σ z at every time: the coefficients of a row add up to α_r − a α_t."""
    schedule = VariancePreserving()
    grid = uneven(schedule, 12)
    alpha, sigma = schedule(grid)
    for order in (1, 2, 3):
        for corrected in (False, True):
            table = exponential(schedule, grid, order, corrected)
            torch.testing.assert_close(table.a, sigma[1:] / sigma[:-1], rtol=1e-13, atol=0)
            added = alpha[1:] - table.a * alpha[:-1]
            torch.testing.assert_close(table.b.sum(1), added, rtol=1e-11, atol=1e-13)


def test_bad_input_is_refused_at_the_door():
    schedule = VariancePreserving()
    for order in (2, 3, 4):
        few = uniform_grid(schedule, order - 1)
        with pytest.raises(ValueError, match=f"too few calls for the method, which needs {order}; give at least"):
            exponential(schedule, few, order)
        if order < 4:
            with pytest.raises(ValueError, match=f"too few calls for the method, which needs {order}"):
                dpm_solver(schedule, few, order)
    for order in (0, 5):
        with pytest.raises(ValueError, match=f"order is {order}; choose it from 1 to 4"):
            exponential(schedule, [1.0, 0.5], order)
    for order in (1, 4):
        with pytest.raises(ValueError, match=f"order is {order}; choose 2"):
            dpm_solver(schedule, [1.0, 0.5], order)
    with pytest.raises(ValueError, match="curvature is nan"):
        dpm_solver(schedule, [1.0, 0.5, 0.2], curvature=math.nan)
    with pytest.raises(ValueError, match=r"times\[0\] = 0.2 is followed by 0.5"):
        exponential(schedule, [0.2, 0.5, 0.7, 0.8])
    near = math.nextafter(1e-3, 0)
    assert VariancePreserving().log_snr(near) == VariancePreserving().log_snr(1e-3)
    with pytest.raises(ValueError, match=r"times\[1\] and times\[2\] have one log SNR"):
        dpm_solver(schedule, [0.5, 1e-3, near])
