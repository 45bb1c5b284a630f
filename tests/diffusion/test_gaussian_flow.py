"""Tables about a Gaussian's flow: weights against quadrature, exact on Gaussian data, orders, limits, the executor."""

import math
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    DirectionTable,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Straight,
    VariancePreserving,
    ddim,
    exponential,
    gaussian_exponential,
    log_snr_grid,
    noise_exponential,
    sample,
    uniform_grid,
    walk,
)
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
SCHEDULES = {
    "preserving": VariancePreserving(),
    "edm": EDM(20.0),
    "straight": Straight(),
    "cosine": Cosine(40).zero_terminal(),
}
PARTS = [1.0, 0.5, 0.2, 0.15, 0.03]  # of the way


def randn(*shape, seed=0):
    return normal(shape, seeded(seed), LIKE)


def singular(d=5, rank=3, seed=1):
    """A covariance with d − rank directions without variance."""
    root = randn(d, rank, seed=seed)
    return root @ root.mT


def flowed(schedule, x, t, r, mean, covariance):
    """α_r m + (α_r² C + σ_r²)^{1/2} (α_t² C + σ_t²)^{−1/2} (x − α_t m), by numpy."""
    (alpha_t, sigma_t), (alpha_r, sigma_r) = ([v.item() for v in schedule(u)] for u in (t, r))
    values, vectors = np.linalg.eigh(covariance.numpy())
    values = values.clip(0)
    scale = np.sqrt((alpha_r**2 * values + sigma_r**2) / (alpha_t**2 * values + sigma_t**2))
    moved = (x.numpy() - alpha_t * mean.numpy()) @ vectors * scale @ vectors.T
    return torch.from_numpy(alpha_r * mean.numpy() + moved)


@pytest.mark.parametrize("name", ["preserving", "edm"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", ["short", "long"])
def test_each_coefficient_is_its_integral(name, order, steps):
    """s_r ∫ (c + e^{−2ℓ})^{−1/2} Π (ℓ−ℓ_i)/(ℓ_j−ℓ_i) dℓ by quadrature in 40 digits, for steps of 0.01 to 4 in ℓ."""
    schedule = SCHEDULES[name]
    path = -2.0 + (0.01 if steps == "short" else 1.0) * torch.tensor([0.0, 1.0, 2.5, 3.0, 3.4, 4.1, 5.3], dtype=F64)
    if steps == "long":
        path[-1] = 6.0
    grid = schedule.time(2 * path).clamp(max=schedule.end)
    variances = [0.0, 1e-4, 0.3, 20.0]
    table = gaussian_exponential(
        schedule, grid, torch.zeros(4, dtype=F64), torch.tensor(variances, dtype=F64), order, corrected=False
    )
    assert (table.calls, table.basis) == (6, None)
    with mpmath.workdps(40):
        ell = [mpmath.mpf(v) for v in (schedule.log_snr(grid) / 2).tolist()]
        alpha = [mpmath.mpf(v) for v in schedule(grid)[0].tolist()]
        for i, c in enumerate(variances):
            spread = [a * mpmath.sqrt(c + mpmath.exp(-2 * v)) for a, v in zip(alpha, ell, strict=True)]
            for k in range(6):
                assert table.a[k, i].item() == pytest.approx(float(spread[k + 1] / spread[k]), rel=1e-12)
                assert table.gain[k, i].item() == pytest.approx(float(alpha[k] * c / spread[k] ** 2), rel=1e-12)
                nodes = [ell[k - j] for j in range(min(order, k + 1))]
                for j, here in enumerate(nodes):

                    def integrand(at, c=c, nodes=nodes, j=j, here=here):
                        others = (o for n, o in enumerate(nodes) if n != j)
                        return mpmath.fprod((at - o) / (here - o) for o in others) / mpmath.sqrt(
                            c + mpmath.exp(-2 * at)
                        )

                    exact = spread[k + 1] * mpmath.quad(integrand, mpmath.linspace(ell[k], ell[k + 1], 5))
                    assert table.b[k, j, i].item() == pytest.approx(
                        float(exact), rel=1e-12 if steps == "long" else 1e-11
                    )
                assert not table.b[k, len(nodes) :, i].any()


COVARIANCES = {
    "full": singular(rank=5),
    "a singular diagonal": torch.tensor([0.0, 2.0, 0.0, 0.3, 1e-3], dtype=F64),
    "a singular matrix": singular(),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("last", [0.0, 0.01], ids=["to data", "on the way"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_gaussian_data_are_exact_on_any_grid(name, kind, last, order):
    """Also with a singular covariance, from α = 0, to t = 0, and in one step.

    At t = 0 a singular matrix is known to √(machine precision) only: its zeros are eigenvalues of 1e-16.
    """
    schedule, mean, covariance = SCHEDULES[name], randn(5, seed=2), COVARIANCES[kind]
    model = GaussianDenoiser(mean, covariance, schedule)
    x = randn(7, 5, seed=3) * schedule.end ** (name == "edm")
    rule = partial(gaussian_exponential, mean=mean, covariance=covariance, order=order)
    grids = [[part * schedule.end for part in (*PARTS, last)]]
    if order == 1:
        grids += [[schedule.end, last * schedule.end], [0.7 * schedule.end, last * schedule.end]]
    for grid in grids:
        matrix = covariance if covariance.ndim == 2 else covariance.diag()
        exact = flowed(schedule, x, grid[0], grid[-1], mean, matrix)
        atol = 1e-6 if kind == "a singular matrix" and last == 0 else 1e-12
        torch.testing.assert_close(sample(model, rule, x, grid), exact, rtol=1e-11, atol=atol)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_step_is_exact_for_another_mean(name):
    """E is then (σ²/s²) Uᵀ(m′ − m): the step to t = 0 does not need the true mean, only the covariance."""
    schedule, covariance = SCHEDULES[name], singular(rank=5)
    model = GaussianDenoiser(randn(5, seed=4), covariance, schedule)
    x, start = randn(7, 5, seed=3), 0.4 * schedule.end
    rule = partial(gaussian_exponential, mean=randn(5, seed=2), covariance=covariance, order=1)
    exact = flowed(schedule, x, start, 0.0, model.mean, covariance)
    torch.testing.assert_close(sample(model, rule, x, [start, 0.0]), exact, rtol=1e-11, atol=1e-12)
    assert (sample(model, ddim, x, [start, 0.0]) - exact).abs().max() > 0.01


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("corrected", [False, True])
def test_without_variance_it_is_the_exponential_table(name, corrected):
    """c = 0, whatever the mean; and c → 0 leads there."""
    schedule = SCHEDULES[name]
    grid = [part * schedule.end for part in (*PARTS, 0.0)]
    for order in (1, 2, 3, 4):
        plain = exponential(schedule, grid, order, corrected)
        for c, tolerance in ((0.0, 1e-13), (1e-13, 1e-7)):
            table = gaussian_exponential(schedule, grid, randn(3, seed=6), c, order, corrected)
            assert torch.equal(table.times, plain.times)
            for i in range(3):
                torch.testing.assert_close(table.a[:, i], plain.a, rtol=tolerance, atol=1e-4 if c else 1e-13)
                torch.testing.assert_close(table.b[..., i], plain.b, rtol=tolerance, atol=1e-4 if c else 1e-13)
            assert table.gain.abs().max() <= 1e6 * c
        x, model = randn(4, 3, seed=7), GaussianDenoiser(randn(3, seed=8), 0.4, schedule)
        table = gaussian_exponential(schedule, grid, randn(3, seed=6), 0.0, order, corrected)
        torch.testing.assert_close(sample(model, table, x), sample(model, plain, x), rtol=1e-12, atol=1e-13)


LOW, HIGH = -4.0, 3.0  # log SNRs of the interval on which orders are read


@pytest.fixture(scope="module", params=["preserving", "edm"])
def flow(request):
    """Sixteen points at λ = −4, and where the flow of a mixture has taken them at λ = 3: d(x/σ)/dℓ = e^ℓ x̂_0."""
    schedule = SCHEDULES[request.param]
    means = torch.tensor([[1.0, 1.0], [-1.0, -0.5]], dtype=F64)
    variances = torch.tensor([[0.1, 0.3], [0.2, 0.15]], dtype=F64)
    model = GaussianMixtureDenoiser(torch.tensor([0.3, 0.7], dtype=F64), means, variances, schedule)
    (alpha, sigma), (_, last) = schedule(schedule.time(LOW)), schedule(schedule.time(HIGH))
    x = randn(16, 2, seed=5) * (alpha**2 + sigma**2).sqrt()

    def slope(ell, flat):
        t = schedule.time(2 * ell).item()
        clean = model(torch.from_numpy(flat).reshape(16, 2) * schedule(t)[1], t)
        return math.exp(ell) * clean.flatten().numpy()

    start = (x / sigma).flatten().numpy()
    solved = solve_ivp(slope, (LOW / 2, HIGH / 2), start, method="DOP853", rtol=1e-13, atol=1e-13)
    return model, x, torch.from_numpy(solved.y[:, -1]).reshape(16, 2) * last


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_order_on_a_mixture(order, flow):
    """About a Gaussian that is not the mixture's, in skew directions."""
    model, x, exact = flow
    covariance = torch.tensor([[0.8, 0.5], [0.5, 0.9]], dtype=F64)
    rule = partial(gaussian_exponential, mean=torch.tensor([-0.3, 0.2], dtype=F64), covariance=covariance, order=order)
    steps, errors = ((160, 320, 640) if order > 2 else (80, 160, 320)), []
    for count in steps:
        times = model.schedule.time(torch.linspace(LOW, HIGH, count + 1, dtype=F64))
        errors.append((sample(model, rule, x, times) - exact).norm(dim=1).median().item())
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_order_for_the_noise(order, flow):
    model, x, exact = flow
    steps, errors = ((160, 320, 640) if order > 2 else (80, 160, 320)), []
    for count in steps:
        times = model.schedule.time(torch.linspace(LOW, HIGH, count + 1, dtype=F64))
        errors.append((sample(model, partial(noise_exponential, order=order), x, times) - exact).norm(dim=1).median())
    errors = torch.stack(errors).tolist()
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_noise_tables_are_the_recursion_for_the_noise(name, order):
    """x_r = (α_r/α_t) x_t − α_r Σ ε̂_j ∫ e^{−ℓ} L_j dℓ, led up to, with integrals by quad; DDIM at both ends."""
    schedule = SCHEDULES[name]
    model, x = GaussianDenoiser(randn(3, seed=8), 0.4, schedule), randn(4, 3, seed=7)
    grid = [part * schedule.end for part in (*PARTS, 0.0)]
    table = noise_exponential(schedule, grid, order, corrected=False)
    ell = (schedule.log_snr(torch.tensor(grid, dtype=F64)) / 2).tolist()
    alpha, sigma = schedule(torch.tensor(grid, dtype=F64))
    here, nodes, noises = x, [], []
    for k in range(5):
        answer = model(here, grid[k])
        noises.insert(0, (here - alpha[k] * answer) / sigma[k])
        nodes.insert(0, ell[k])
        if math.isinf(ell[k]) or math.isinf(ell[k + 1]):
            here = alpha[k + 1] * answer + sigma[k + 1] * noises[0]
            if math.isinf(ell[k]):
                nodes, noises = [], []
            continue
        used = nodes[:order]
        moved = torch.zeros_like(x)
        for j, node in enumerate(used):

            def integrand(at, j=j, node=node, used=used):
                others = (other for i, other in enumerate(used) if i != j)
                return math.exp(-at) * math.prod((at - other) / (node - other) for other in others)

            moved += quad(integrand, ell[k], ell[k + 1], epsabs=1e-14, epsrel=1e-13)[0] * noises[j]
        here = alpha[k + 1] / alpha[k] * here - alpha[k + 1] * moved
    torch.testing.assert_close(sample(model, table, x), here, rtol=1e-11, atol=1e-11)
    if order == 1:
        torch.testing.assert_close(here, sample(model, ddim, x, grid), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_steps_retaken_gain_an_order(order, noise, flow):
    """Order 1 becomes 2 and 2 becomes 3, by the answers that are there already: no call more."""
    model, x, exact = flow
    mean, covariance = torch.tensor([-0.3, 0.2], dtype=F64), torch.tensor([[0.8, 0.5], [0.5, 0.9]], dtype=F64)
    rule = partial(gaussian_exponential, mean=mean, covariance=covariance) if not noise else noise_exponential
    steps, errors = (160, 320, 640), []
    for count in steps:
        times = model.schedule.time(torch.linspace(LOW, HIGH, count + 1, dtype=F64))
        table = rule(model.schedule, times, order=order, retaken=True)
        assert table.calls == count
        errors.append((sample(model, table, x) - exact).norm(dim=1).median().item())
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order + 1, abs=0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_retaken_step_is_taken_with_its_own_answer(name):
    """Written out: x_1 anew from x_0 with E_1 and E_0, and from there with the same two to x_2; then to t = 0."""
    schedule, mean, c = SCHEDULES[name], randn(3, seed=6), 0.4
    model, x = GaussianDenoiser(randn(3, seed=8), 0.9, schedule), randn(4, 3, seed=7)
    grid = [part * schedule.end for part in (0.8, 0.5, 0.3, 0.0)]
    ell, (alpha, sigma) = (
        (schedule.log_snr(torch.tensor(grid, dtype=F64)) / 2).tolist(),
        schedule(torch.tensor(grid, dtype=F64)),
    )
    s = (alpha**2 * c + sigma**2).sqrt()

    def moved(z, k, answers):
        total = s[k + 1] / s[k] * z
        for j, (node, rest) in enumerate(answers):

            def integrand(at, j=j, node=node):
                others = (other for i, (other, _) in enumerate(answers) if i != j)
                return math.prod((at - o) / (node - o) for o in others) / math.sqrt(c + math.exp(-2 * at))

            total = total + s[k + 1] * quad(integrand, ell[k], ell[k + 1], epsabs=1e-13)[0] * rest
        return total

    def rest(z, k):
        return model(z + alpha[k] * mean, grid[k]) - mean - alpha[k] * c / s[k] ** 2 * z

    z0 = x - alpha[0] * mean
    e0 = (ell[0], rest(z0, 0))
    z1 = moved(z0, 0, [e0])
    e1 = (ell[1], rest(z1, 1))
    z1 = moved(z0, 0, [e1, e0])
    z2 = moved(z1, 1, [e1, e0])
    e2 = (ell[2], rest(z2, 2))
    z2 = moved(z1, 1, [e2, e1, e0])
    made = mean + math.sqrt(c) / s[2] * z2 + s[2] / (s[2] + alpha[2] * math.sqrt(c)) * e2[1]
    table = gaussian_exponential(schedule, grid, mean, c, 2, retaken=True)
    torch.testing.assert_close(sample(model, table, x), made, rtol=1e-10, atol=1e-11)


def test_led_up_to_has_order_two_at_most(flow):
    model, x, exact = flow
    rule = partial(gaussian_exponential, mean=torch.zeros(2, dtype=F64), covariance=0.9, order=4, corrected=False)
    steps, errors = (160, 320, 640), []
    for count in steps:
        times = model.schedule.time(torch.linspace(LOW, HIGH, count + 1, dtype=F64))
        errors.append((sample(model, rule, x, times) - exact).norm(dim=1).median().item())
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


class Bent:
    """A denoiser without a covariance."""

    schedule = VariancePreserving()

    def __call__(self, xt, t):
        return (xt + float(t)).tanh()


def test_the_executor_does_what_its_docstring_says():
    """The recursion written out with matrices, on images in float32 and float64."""
    schedule, mean, covariance = Bent.schedule, randn(4, seed=2), singular(4, 4)
    table = gaussian_exponential(schedule, log_snr_grid(schedule, 6), mean, covariance, 3)
    assert table.basis is not None
    x = randn(3, 1, 2, 2, seed=9)
    u, here, past = table.basis, x.flatten(1), []
    z = (here - table.alpha[0] * mean) @ u
    seen = list(walk(Bent(), table, x))
    kept = x.clone()
    for k, t in enumerate(table.times.tolist()):
        answer = Bent()(here, t)
        past.insert(0, (answer - mean) @ u - table.gain[k] * z)
        z = table.a[k] * z + sum(table.b[k, j] * past[j] for j in range(min(k + 1, table.b.shape[1])))
        here = table.alpha[k + 1] * mean + z @ u.mT
        reached, seen_x, seen_answer = seen[k]
        assert reached == (table.times[k + 1].item() if k + 1 < table.calls else table.end)
        torch.testing.assert_close(seen_x.flatten(1), here, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(seen_answer.flatten(1), answer, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(sample(Bent(), table, x).flatten(1), here, rtol=1e-12, atol=1e-13)
    assert torch.equal(x, kept)
    short = sample(Bent(), table, x.float())
    assert short.dtype == torch.float32
    torch.testing.assert_close(short.double().flatten(1), here, rtol=1e-4, atol=1e-5)
    turned = x.permute(0, 3, 1, 2)  # not contiguous
    torch.testing.assert_close(sample(Bent(), table, turned), sample(Bent(), table, turned.contiguous()))


def test_a_denoiser_that_answers_x_itself():
    schedule = Bent.schedule

    class Same:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, xt, t):
            return xt

    class Copy(Same):
        def __call__(self, xt, t):
            return xt.clone()

    x = randn(3, 2)
    rule = partial(gaussian_exponential, mean=torch.ones(2, dtype=F64), covariance=0.5)
    grid = uniform_grid(schedule, 4)
    for one, other in zip(walk(Same(), rule, x, grid), walk(Copy(), rule, x, grid), strict=True):
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])


def test_bad_input_is_refused_at_the_door():
    schedule, mean = VariancePreserving(), torch.zeros(2, dtype=F64)
    grid = uniform_grid(schedule, 4)
    rule = partial(gaussian_exponential, schedule, mean=mean, covariance=1.0)
    with pytest.raises(ValueError, match="order is 5; choose it from 1 to 4"):
        rule(grid, order=5)
    with pytest.raises(ValueError, match="too few calls for the method, which needs 4"):
        rule([1.0, 0.5, 0.0], order=4)
    near = math.nextafter(1e-3, 0)
    with pytest.raises(ValueError, match=r"times\[1\] and times\[2\] have one log SNR"):
        rule([0.5, 1e-3, near])
    with pytest.raises(ValueError, match="has the eigenvalue -1; variances are not negative"):
        gaussian_exponential(schedule, grid, mean, -1.0)
    with pytest.raises(ValueError, match="covariance is not symmetric"):
        gaussian_exponential(schedule, grid, mean, torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=F64))
    with pytest.raises(ValueError, match=r"covariance has shape \(3,\) for 2 numbers"):
        gaussian_exponential(schedule, grid, mean, torch.ones(3, dtype=F64))
    with pytest.raises(ValueError, match="values are not finite"):
        gaussian_exponential(schedule, grid, mean * math.nan, 1.0)
    table = rule(grid)
    model = GaussianDenoiser(torch.zeros(3, dtype=F64), 1.0, schedule)
    with pytest.raises(ValueError, match="rows of 3 numbers and the table 2 directions"):
        sample(model, table, randn(4, 3))
    with pytest.raises(ValueError, match="a table of directions takes no corrector"):
        sample(model, table, randn(4, 2), rng=seeded(0), corrector=lambda t: lambda x, rng: x)
    with pytest.raises(ValueError, match="a Table has its own times"):
        sample(model, table, randn(4, 2), grid)


def test_a_table_is_checked():
    good = gaussian_exponential(VariancePreserving(), [1.0, 0.5, 0.0], randn(2), singular(2, 2))
    assert good.basis is not None
    parts = {name: getattr(good, name) for name in ("times", "a", "b", "gain", "alpha", "mean", "basis")}
    assert DirectionTable(**parts).calls == 2
    with pytest.raises(ValueError, match="alpha has shape"):
        DirectionTable(**parts | {"alpha": good.alpha[:2]})
    with pytest.raises(ValueError, match="1 of 4 values are not finite"):
        DirectionTable(**parts | {"a": torch.tensor([[1.0, math.inf], [0.0, 0.0]], dtype=F64)})
    with pytest.raises(ValueError, match="away from the unit matrix; give orthonormal columns"):
        DirectionTable(**parts | {"basis": 2 * good.basis})
    early = torch.ones(2, 2, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"b\[0, 1\] asks call 1 for an answer 1 calls back"):
        DirectionTable(**parts | {"b": early})


def test_an_answer_that_is_no_number_or_has_another_shape_is_named():
    schedule = VariancePreserving()

    class Broken:
        def __init__(self, answer):
            self.schedule, self.answer = schedule, answer

        def __call__(self, xt, t):
            return self.answer(xt) if t < 0.6 else xt * 0

    rule = partial(gaussian_exponential, mean=torch.zeros(2, dtype=F64), covariance=1.0)
    with pytest.raises(FloatingPointError, match=r"not finite in call 2, at t = 0\.5"):
        sample(Broken(lambda x: x / 0), rule, randn(4, 2), uniform_grid(schedule, 2))
    with pytest.raises(ValueError, match=r"the denoiser gives shape \(4, 1\) for x of \(4, 2\)"):
        sample(Broken(lambda x: x[:, :1]), rule, randn(4, 2), uniform_grid(schedule, 2))
