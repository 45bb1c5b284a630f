"""The samplers' coefficients against the papers' formulas, written out in 40 digits from β and ᾱ."""

import mpmath
import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    Cosine,
    FromBetas,
    GaussianMixtureDenoiser,
    Linear,
    Table,
    VarianceExploding,
    VariancePreserving,
    ancestral,
    ddim,
    euler,
    karras_grid,
    log_snr_grid,
    sample,
    uniform_grid,
)
from lecturecode.rng import normal

F64 = torch.float64
LIKE = torch.zeros((), dtype=F64)
BETAS = {
    "Ho's 1000": (Linear(), list(range(1000, -1, -1))),
    "Ho's, every 37th": (Linear(), [*range(999, 0, -37), 0]),
    "few and strong": (FromBetas([0.1, 0.5, 0.9, 0.99]), [4, 3, 2, 1, 0]),
    "cosine": (Cosine(50), [*range(50, -1, -5)]),
}
SMOOTH = {"preserving": VariancePreserving(), "exploding": VarianceExploding(), "edm": EDM(), "cosine": Cosine(50)}


def signals(schedule):
    """ᾱ_0 … ᾱ_T, the products of 1 − β."""
    bars = [mpmath.mpf(1)]
    for beta in schedule.betas.tolist():
        bars.append(bars[-1] * (1 - mpmath.mpf(beta)))
    return bars


def rows_of(table):
    return zip(table.a.tolist(), table.b[:, 0].tolist(), table.noise.tolist(), strict=True)


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("variance", ["posterior", "step"])
def test_ancestral_is_hos_algorithm(name, variance):
    """Eq. 7 for one step of β; algorithm 2 with x̂_0 written as a noise; both with β_t = 1 − ᾱ_t/ᾱ_r of the grid."""
    schedule, grid = BETAS[name]
    with mpmath.workdps(40):
        bars = signals(schedule)
        table = ancestral(schedule, [float(t) for t in grid], variance)
        assert table.calls == len(grid) - 1
        for (a, b, n), t, r in zip(rows_of(table), grid, grid[1:], strict=False):
            beta = 1 - bars[t] / bars[r]
            eq7_x = mpmath.sqrt(1 - beta) * (1 - bars[r]) / (1 - bars[t])
            eq7_x0 = mpmath.sqrt(bars[r]) * beta / (1 - bars[t])
            assert a == pytest.approx(float(eq7_x), abs=1e-12, rel=1e-10)
            assert b == pytest.approx(float(eq7_x0), abs=1e-12, rel=1e-10)
            # algorithm 2 at (x, ε) = (1, 0) and (0, 1), with x̂_0 = (x − √(1−ᾱ_t) ε)/√ᾱ_t
            by_x = mpmath.mpf(a) + b / mpmath.sqrt(bars[t])
            by_eps = -b * mpmath.sqrt((1 - bars[t]) / bars[t])
            scale = float(1 / mpmath.sqrt(bars[t]))
            assert float(by_x) == pytest.approx(float(1 / mpmath.sqrt(1 - beta)), abs=1e-12 * scale)
            algorithm = -beta / mpmath.sqrt(1 - bars[t]) / mpmath.sqrt(1 - beta)
            assert float(by_eps) == pytest.approx(float(algorithm), abs=1e-12 * scale)
            wanted = beta if variance == "step" else beta * (1 - bars[r]) / (1 - bars[t])
            assert n == pytest.approx(0 if r == 0 else float(mpmath.sqrt(wanted)), abs=1e-12, rel=1e-10)


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_songs_equations(name, eta):
    """Eqs. 12 and 16, with ε as what is left of x_t."""
    schedule, grid = BETAS[name]
    with mpmath.workdps(40):
        bars = signals(schedule)
        for (a, b, n), t, r in zip(rows_of(ddim(schedule, grid, eta)), grid, grid[1:], strict=False):
            drawn = eta * mpmath.sqrt((1 - bars[r]) / (1 - bars[t])) * mpmath.sqrt(1 - bars[t] / bars[r])
            along = mpmath.sqrt(1 - bars[r] - drawn**2)
            assert a == pytest.approx(float(along / mpmath.sqrt(1 - bars[t])), abs=1e-12, rel=1e-10)
            right = mpmath.sqrt(bars[r]) - along * mpmath.sqrt(bars[t] / (1 - bars[t]))
            assert b == pytest.approx(float(right), abs=1e-12, rel=1e-10)
            assert n == pytest.approx(float(drawn), abs=1e-12, rel=1e-10)


def test_ddim_at_one_is_ancestral():
    for schedule in SMOOTH.values():
        for grid in (uniform_grid(schedule, 7), log_snr_grid(schedule, 9), torch.tensor([0.7, 0.2]) * schedule.end):
            one, other = ddim(schedule, grid, 1.0), ancestral(schedule, grid)
            for left, right in zip((one.a, one.b, one.noise), (other.a, other.b, other.noise), strict=True):
                torch.testing.assert_close(left, right, rtol=1e-13, atol=1e-15)
            assert one.end == other.end == grid[-1].item()


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_subtracts_the_variance_under_the_root(name, eta):
    """With x̂_0 = x_0 the law of x_r is q(x_r|x_0): mean α_r x_0 and variance a²σ_t² + n² = σ_r², for every η.

    With the drawn variance added under the root it is σ_r² + 2σ_η².
    """
    schedule = SMOOTH[name]
    grid = uniform_grid(schedule, 8)
    table, (alpha, sigma) = ddim(schedule, grid, eta), schedule(grid)
    mean = table.a * alpha[:-1] + table.b[:, 0]
    variance = (table.a * sigma[:-1]).square() + table.noise.square()
    torch.testing.assert_close(mean, alpha[1:], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(variance, sigma[1:].square(), rtol=1e-12, atol=1e-14)
    added = sigma[1:].square() + table.noise.square() + table.noise.square()
    if eta:
        assert (added[:-1] > 1.001 * sigma[1:-1].square()).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_the_last_step_goes_to_x0(name):
    """Every method ends at x̂_0 itself, without noise. A grid that stops at its last t > 0 leaves noise of σ_t."""
    schedule = SMOOTH[name]
    grid = uniform_grid(schedule, 5)
    rules = {
        "ddim": lambda g: ddim(schedule, g),
        "ddim, half": lambda g: ddim(schedule, g, 0.5),
        "ddim, one": lambda g: ddim(schedule, g, 1.0),
        "posterior": lambda g: ancestral(schedule, g),
        "step": lambda g: ancestral(schedule, g, "step"),
        "euler": lambda g: euler(schedule, g),
    }
    for rule in rules.values():
        table = rule(grid)
        assert (table.a[-1].item(), table.b[-1].tolist(), table.noise[-1].item()) == (0, [1], 0)
        assert table.end == 0

    class Point:
        """Data in one point: x̂_0 is known, so all that is left of the noise is the sampler's."""

        def __init__(self):
            self.schedule = schedule

        def __call__(self, xt, t):
            return torch.full_like(xt, 3.0)

    x = normal((4000, 1), seeded(1), LIKE) * (schedule(schedule.end)[1] ** 2 + schedule(schedule.end)[0] ** 2).sqrt()
    for rule in (ddim, ancestral):
        assert torch.equal(sample(Point(), rule, x, grid, seeded(2)), torch.full_like(x, 3.0))
        short = sample(Point(), rule, x, grid[:-1], seeded(2))
        alpha, sigma = schedule(grid[-2])
        assert (short - alpha * 3).std().item() == pytest.approx(sigma.item(), rel=0.2)


def test_euler_is_the_slope_of_the_flow():
    """Song's β form for the preserving process, Karras's (x − D)/σ for EDM."""
    preserving, grid = VariancePreserving(), torch.tensor([1.0, 0.6, 0.25, 0.05], dtype=F64)
    for (a, b, n), t, r in zip(rows_of(euler(preserving, grid)), grid.tolist(), grid[1:].tolist(), strict=False):
        beta, integral = mpmath.mpf("0.1") + 19.9 * mpmath.mpf(t), mpmath.mpf("0.1") * t + 19.9 * mpmath.mpf(t) ** 2 / 2
        signal = mpmath.exp(-integral)
        # dx/dt = −½β (x + score), score = (√ᾱ D − x)/(1 − ᾱ)
        assert a == pytest.approx(float(1 - (r - t) * beta / 2 * (1 - 1 / (1 - signal))), rel=1e-12)
        assert b == pytest.approx(float(-(r - t) * beta / 2 * mpmath.sqrt(signal) / (1 - signal)), rel=1e-12)
        assert n == 0
    for (a, b, _), t, r in zip(rows_of(euler(EDM(), grid)), grid.tolist(), grid[1:].tolist(), strict=False):
        assert a == pytest.approx(1 + (r - t) / t, rel=1e-14)
        assert b == pytest.approx(-(r - t) / t, rel=1e-14)


def test_pure_noise_is_no_special_case():
    """α_T = 0: all of x_T is noise, x_r = α_r x̂_0 + √(σ_r² − σ_η²) x_T + σ_η ε with σ_η = ησ_r."""
    schedule = Cosine(20).zero_terminal()
    assert schedule(20)[0].item() == 0
    alpha, sigma = schedule(15)
    for eta in (0.0, 0.6, 1.0):
        table = ddim(schedule, [20, 15, 0], eta)
        assert table.b[0, 0].item() == pytest.approx(alpha.item(), rel=1e-12)
        assert table.a[0].item() == pytest.approx(sigma.item() * (1 - eta**2) ** 0.5, abs=1e-15)
        assert table.noise[0].item() == pytest.approx(eta * sigma.item(), abs=1e-15)
    assert ancestral(schedule, [20, 15, 0], "step").noise[0].item() == 1
    with pytest.raises(ValueError, match="rates are infinite at t = 20"):
        euler(schedule, [20, 15, 0])


def test_a_short_step_keeps_its_digits():
    """From t to t(1 − 1e-7), in 40 digits from the schedule's own formula."""
    schedule, t, r = VariancePreserving(), 0.5, 0.5 * (1 - 1e-7)
    with mpmath.workdps(40):

        def signal(s):
            return mpmath.exp(-(mpmath.mpf(0.1) * s + (mpmath.mpf(20.0) - mpmath.mpf(0.1)) * mpmath.mpf(s) ** 2 / 2))

        lost = 1 - signal(t) / signal(r) * (1 - signal(r)) / (1 - signal(t))
        table = ancestral(schedule, [t, r])
        assert table.b.item() == pytest.approx(float(mpmath.sqrt(signal(r)) * lost), rel=1e-8)
        half = 1 - mpmath.sqrt(signal(t) / signal(r) * (1 - signal(r)) / (1 - signal(t)))
        assert ddim(schedule, [t, r]).b.item() == pytest.approx(float(mpmath.sqrt(signal(r)) * half), rel=1e-8)


def test_heun_is_a_table():
    """Two rows a step hold Karras et al.'s algorithm 1 (γ = 0), with Euler's last step, as the module says."""
    grid = karras_grid(EDM(10.0), 6)
    a, b, times = [], [], []
    for t, r in zip(grid.tolist(), grid[1:].tolist(), strict=False):
        ahead, h = r / t, r - t
        times.append(t)
        a.append(ahead)
        b.append([1 - ahead, 0.0])
        if r > 0:  # x + h/2 [(x − D_0)/t + (x' − D_1)/r] with x = (x' − (1 − ahead) D_0)/ahead
            keep = (1 + h / (2 * t)) / ahead
            times.append(r)
            a.append(keep + h / (2 * r))
            b.append([-h / (2 * r), -keep * (1 - ahead) - h / (2 * t)])
    rows = [torch.tensor(part, dtype=F64) for part in (times, a, b)]
    heun = Table(rows[0], rows[1], rows[2], torch.zeros(len(a), dtype=F64))
    assert heun.calls == 11
    model = GaussianMixtureDenoiser(
        torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=F64), 0.05, EDM(10.0)
    )
    x = 10 * normal((5, 2), seeded(3), LIKE)
    plain = x.clone()
    for t, r in zip(grid.tolist(), grid[1:].tolist(), strict=False):
        slope = (plain - model(plain, t)) / t
        ahead = plain + (r - t) * slope
        plain = ahead if r == 0 else plain + (r - t) * (slope + (ahead - model(ahead, r)) / r) / 2
    torch.testing.assert_close(sample(model, heun, x), plain, rtol=1e-12, atol=1e-12)


def test_a_table_knows_its_rows():
    table = Table(
        torch.tensor([2.0, 1.0], dtype=F64),
        torch.tensor([0.5, 0.25], dtype=F64),
        torch.tensor([[0.5, 0.0], [1.0, -0.25]], dtype=F64),
        torch.tensor([0.1, 0.0], dtype=F64),
        end=0.5,
    )
    assert table.rows == [(2.0, 1.0, [(0, 0.5)], 0.1), (1.0, 0.5, [(0, 1.0), (1, -0.25)], 0.0)]


def test_bad_input_is_refused_at_the_door():
    schedule = VariancePreserving()
    for rule in (ancestral, ddim, euler):
        for times, words in (
            ([0.0, 0.5, 1.0], r"times\[0\] = 0 is followed by 0.5.*flip"),
            ([1.0, 0.5, 0.5, 0.0], r"times\[1\] = 0.5 is followed by 0.5"),
            ([1.0, -0.5], "time -0.5 is outside the schedule"),
            ([1.5, 0.5], "time 1.5 is outside the schedule"),
            ([1.0, float("nan")], r"times\[1\] is nan"),
            ([1.0], "too few calls for the method, which needs 1; give at least 2"),
            (torch.ones(2, 2), r"times has shape \(2, 2\)"),
        ):
            with pytest.raises(ValueError, match=words):
                rule(schedule, times)
    for eta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="choose it from 0"):
            ddim(schedule, [1.0, 0.0], eta)
    with pytest.raises(ValueError, match="variance is 'other'"):
        ancestral(schedule, [1.0, 0.0], "other")  # type: ignore[arg-type]
    one, two = torch.ones(1, dtype=F64), torch.ones(2, dtype=F64)
    with pytest.raises(ValueError, match="not negative"):
        Table(one, one, one[:, None], -one)
    with pytest.raises(ValueError, match=r"b\[0, 1\] asks call 1 for an answer 1 calls back"):
        Table(two, two, torch.ones(2, 2, dtype=F64), two)
    with pytest.raises(ValueError, match=r"a\[0\] is inf"):
        Table(one, one * float("inf"), one[:, None], one)
