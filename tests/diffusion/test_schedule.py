"""Schedules and grids against the published formulas, in many digits; their inverses, rates and doors."""

import math

import mpmath
import numpy as np
import pytest
import torch

from lecturecode.diffusion import (
    EDM,
    Cosine,
    FromBetas,
    Linear,
    Schedule,
    VarianceExploding,
    VariancePreserving,
    karras_grid,
    log_snr_grid,
    terminal_snr,
    uniform_grid,
)

F64 = torch.float64
ALL = {
    "linear": Linear(),
    "linear 300": Linear(300),
    "cosine": Cosine(),
    "zero terminal": Linear(50, 1e-3, 0.2).zero_terminal(),
    "preserving": VariancePreserving(),
    "exploding": VarianceExploding(),
    "edm": EDM(),
}
PRESERVING = [name for name in ALL if name not in ("exploding", "edm")]


def inner(schedule, count=37):
    """Times inside the schedule, whole steps and parts of steps, away from its two ends."""
    return torch.linspace(0.003, 0.997, count, dtype=F64) * schedule.end


def test_hos_table_in_many_digits():
    with mpmath.workdps(40):
        signal = mpmath.mpf(1)
        betas = [mpmath.mpf("1e-4") + (mpmath.mpf("0.02") - mpmath.mpf("1e-4")) * k / 999 for k in range(1000)]
        wanted = [(signal := signal * (1 - beta)) for beta in betas]
    alpha, sigma = Linear()(torch.arange(1.0, 1001, dtype=F64))
    for k in (0, 1, 9, 499, 998, 999):
        assert float(alpha[k]) == pytest.approx(float(mpmath.sqrt(wanted[k])), rel=1e-13)
        assert float(sigma[k]) == pytest.approx(float(mpmath.sqrt(1 - wanted[k])), rel=1e-12)
    assert terminal_snr(Linear()) == pytest.approx(float(wanted[-1] / (1 - wanted[-1])), rel=1e-11)


def test_three_hundred_of_hos_steps_are_no_standard_normal():
    """The lecture's material runs from 1e-4 to 0.02 over 300 steps: 4.8 % of the variance is still data."""
    betas = np.linspace(1e-4, 0.02, 300)
    assert Linear(300)(300)[0].square().item() == pytest.approx(np.prod(1 - betas), rel=1e-12)
    assert 0.047 < np.prod(1 - betas) < 0.049
    assert terminal_snr(Linear(300)) > 1000 * terminal_snr(Linear(1000))


def test_the_cosine_table_in_many_digits():
    steps = 50
    with mpmath.workdps(40):
        s = mpmath.mpf(0.008)

        def f(t):
            return mpmath.cos((mpmath.mpf(t) / steps + s) / (1 + s) * mpmath.pi / 2) ** 2

        betas = [min(1 - f(t) / f(t - 1), mpmath.mpf(0.999)) for t in range(1, steps + 1)]
    found = Cosine(steps).betas
    assert found[-1] == 0.999  # Nichol & Dhariwal's cut: else the last β is 1
    for k, beta in enumerate(betas):
        assert float(found[k]) == pytest.approx(float(beta), rel=1e-10)


@pytest.mark.parametrize("t", [1e-6, 0.1, 0.5, 1.0])
def test_the_variance_preserving_process_in_many_digits(t):
    with mpmath.workdps(40):
        u = mpmath.mpf(t)
        log_alpha = -(u**2) * (20 - mpmath.mpf(0.1)) / 4 - u * mpmath.mpf(0.1) / 2
        alpha, sigma = mpmath.exp(log_alpha), mpmath.sqrt(1 - mpmath.exp(2 * log_alpha))
        snr = 2 * (mpmath.log(alpha) - mpmath.log(sigma))
    found = VariancePreserving()(t)
    assert found[0].item() == pytest.approx(float(alpha), rel=1e-14)
    assert found[1].item() == pytest.approx(float(sigma), rel=1e-13)
    assert VariancePreserving().log_snr(t).item() == pytest.approx(float(snr), rel=1e-13)


@pytest.mark.parametrize("t", [1e-6, 0.1, 0.5, 1.0])
def test_the_variance_exploding_process_in_many_digits(t):
    with mpmath.workdps(40):
        low, high = mpmath.mpf(0.01), mpmath.mpf(50)
        sigma = mpmath.sqrt((low * (high / low) ** mpmath.mpf(t)) ** 2 - low**2)
    alpha, found = VarianceExploding()(t)
    assert alpha == 1
    assert found.item() == pytest.approx(float(sigma), rel=1e-11)


def test_edms_time_is_its_noise():
    t = torch.tensor([0.0, 0.002, 1.0, 80.0], dtype=F64)
    alpha, sigma = EDM()(t)
    assert torch.equal(alpha, torch.ones(4, dtype=F64))
    assert torch.equal(sigma, t)


def test_lins_shift_ends_in_pure_noise_and_keeps_the_first_step():
    """Lin et al. (2024), algorithm 1, line by line in NumPy."""
    plain = Linear(20, 1e-3, 0.3)
    root = np.sqrt(np.cumprod(1 - plain.betas.numpy()))
    first, last = root[0], root[-1]
    moved = (root - last) * first / (first - last)
    alphas_bar = moved**2
    betas = 1 - np.concatenate([alphas_bar[:1], alphas_bar[1:] / alphas_bar[:-1]])
    found = plain.zero_terminal()
    np.testing.assert_allclose(found.betas.numpy(), betas, rtol=1e-12)
    assert terminal_snr(found) == 0
    assert found(20)[0] == 0
    assert found(20)[1] == 1
    torch.testing.assert_close(found(1.0)[0], plain(1.0)[0], rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_a_schedule_is_one_and_starts_at_the_data(name):
    schedule = ALL[name]
    assert isinstance(schedule, Schedule)
    alpha, sigma = schedule(0)
    assert alpha == 1
    assert sigma == 0
    assert schedule.log_snr(0.0) == math.inf
    assert schedule.time(math.inf) == 0


@pytest.mark.parametrize("name", ALL)
def test_the_log_snr_falls_and_has_its_inverse(name):
    schedule, t = ALL[name], inner(ALL[name])
    alpha, sigma = schedule(t)
    snr = schedule.log_snr(t)
    assert (snr.diff() < 0).all()
    torch.testing.assert_close(snr, 2 * (alpha / sigma).log(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(schedule.time(snr), t, rtol=1e-10, atol=0)
    if name in PRESERVING:
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_the_rates_belong_to_the_levels(name):
    """f = d log α/dt and g² = dσ²/dt − 2 f σ² by central differences inside a step; their error is O(h²)."""
    schedule = ALL[name]
    last = schedule.steps - 1 if hasattr(schedule, "steps") else schedule.end
    t = (torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=F64) * last * 0.9 + 0.05 * last).clamp(
        min=0.01
    )
    t = t.floor() + 0.5 if hasattr(schedule, "steps") else t
    h = 1e-5 * schedule.end if not hasattr(schedule, "steps") else 1e-3
    (a, s), (b, u) = schedule(t - h), schedule(t + h)
    f, g2 = schedule.rates(t)
    slope = (b.log() - a.log()) / (2 * h)
    torch.testing.assert_close(f, slope, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(g2, (u**2 - s**2) / (2 * h) - 2 * f * schedule(t)[1] ** 2, rtol=2e-5, atol=1e-8)


def test_the_last_step_to_pure_noise_has_the_rates_of_a_straight_line():
    """α² = α_{T−1}² (T − t) there: f = −1/2(T − t), and g² by central differences."""
    schedule, t, h = Linear(20, 1e-3, 0.3).zero_terminal(), torch.tensor([19.2, 19.5, 19.9], dtype=F64), 1e-4
    (a, s), (b, u) = schedule(t - h), schedule(t + h)
    f, g2 = schedule.rates(t)
    torch.testing.assert_close(f, -0.5 / (20 - t), rtol=1e-12, atol=0)
    torch.testing.assert_close(f, (b.log() - a.log()) / (2 * h), rtol=1e-5, atol=0)
    torch.testing.assert_close(g2, (u**2 - s**2) / (2 * h) - 2 * f * schedule(t)[1] ** 2, rtol=1e-5, atol=0)
    assert schedule.rates(20.0)[1].isinf()


@pytest.mark.parametrize("name", ["linear", "preserving", "exploding", "edm"])
def test_tensors_keep_their_precision_and_numbers_are_exact(name, device, dtype):
    schedule = ALL[name]
    t = torch.tensor([0.25, 0.5], dtype=dtype, device=device) * schedule.end
    alpha, sigma = schedule(t)
    assert alpha.dtype == sigma.dtype == schedule.log_snr(t).dtype == dtype
    assert alpha.device.type == device.type
    exact = schedule(torch.tensor([0.25, 0.5], dtype=F64) * schedule.end)
    tol = 1e-12 if dtype == F64 else 3e-6
    torch.testing.assert_close(alpha.cpu().double(), exact[0], rtol=tol, atol=0)
    torch.testing.assert_close(sigma.cpu().double(), exact[1], rtol=tol, atol=0)
    assert schedule(1)[0].dtype == F64


def test_the_exact_levels_survive_the_smallest_noise():
    """σ² = 1 − α² would be 0 at t = 1e-18; the SNR is not read off rounded levels."""
    schedule = VariancePreserving()
    assert schedule(1e-18)[1].item() == pytest.approx(math.sqrt(1e-19), rel=1e-12)
    assert schedule.log_snr(1e-18).item() == pytest.approx(-math.log(1e-19), rel=1e-12)


@pytest.mark.parametrize("bad", [[0.0, 0.1], [0.1, 1.0], [0.1, -0.2], [0.1, 1.5], [0.1, math.nan]])
def test_a_beta_outside_its_range_is_refused(bad):
    with pytest.raises(ValueError, match=r"betas\[\d\] is .* between 0 .* and 1"):
        FromBetas(bad)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        FromBetas([])
    with pytest.raises(ValueError, match="one rate for each step"):
        FromBetas(torch.full((2, 2), 0.1))
    with pytest.raises(ValueError, match="at least one"):
        Linear(0)
    with pytest.raises(ValueError, match="offset"):
        Cosine(10, offset=-0.1)
    with pytest.raises(ValueError, match="largest"):
        Cosine(10, largest=1.0)
    with pytest.raises(ValueError, match="two betas"):
        FromBetas([0.5]).zero_terminal()
    with pytest.raises(ValueError, match="above zero"):
        VariancePreserving(rate_start=0.0)
    with pytest.raises(ValueError, match="swap them"):
        VarianceExploding(2.0, 1.0)
    with pytest.raises(ValueError, match="above zero"):
        EDM(-1.0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan])
def test_a_time_outside_the_schedule_is_refused(name, share):
    schedule = ALL[name]
    with pytest.raises(ValueError, match="outside the schedule, which goes from 0"):
        schedule(share * schedule.end)
    with pytest.raises(ValueError, match="outside the schedule"):
        schedule.log_snr(torch.tensor([0.0, share * schedule.end]))


def test_equal_tables_are_equal():
    assert Linear(10) == FromBetas(torch.linspace(1e-4, 0.02, 10, dtype=F64))
    assert hash(Linear(10)) == hash(Linear(10))
    assert Linear(10) != Linear(11)
    assert VariancePreserving() == VariancePreserving()


def test_karras_grid_is_equation_5():
    """σ_i = (σ_max^{1/ρ} + i/(N−1)(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ, σ_N = 0; on EDM's clock the times are the σ."""
    i = np.arange(18)
    wanted = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = karras_grid(EDM(), 18)
    np.testing.assert_allclose(times[:-1].numpy(), wanted, rtol=1e-12)
    assert times[-1] == 0
    vp = karras_grid(VariancePreserving(), 18, high=80.0)  # the same levels of σ/α on another clock
    alpha, sigma = VariancePreserving()(vp[:-1])
    np.testing.assert_allclose((sigma / alpha).numpy(), wanted, rtol=1e-10)


def test_the_other_grids():
    assert torch.equal(uniform_grid(Linear(4), 4), torch.tensor([4.0, 3, 2, 1, 0], dtype=F64))
    times = log_snr_grid(VariancePreserving(), 11, high=8.0)
    steps = VariancePreserving().log_snr(times[:-1]).diff()
    torch.testing.assert_close(steps, steps[0].expand(10), rtol=1e-9, atol=0)
    assert times[0] == 1
    assert times[-1] == 0


def test_bad_grids_are_refused():
    for grid in (uniform_grid, karras_grid, log_snr_grid):
        with pytest.raises(ValueError, match="at least one"):
            grid(EDM(), 0)
    with pytest.raises(ValueError, match="0 < low < high"):
        karras_grid(EDM(), 5, low=1.0, high=0.5)
    with pytest.raises(ValueError, match="at most 80"):
        karras_grid(EDM(), 5, high=100.0)
    with pytest.raises(ValueError, match="finite"):
        karras_grid(Linear(10).zero_terminal(), 5)
    with pytest.raises(ValueError, match="finite low"):
        log_snr_grid(Linear(10).zero_terminal(), 5)
    with pytest.raises(ValueError, match="below high"):
        log_snr_grid(EDM(), 5, low=3.0, high=2.0)
