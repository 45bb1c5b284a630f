"""What a caller may hand over by mistake, at the edges of the schedules, the denoisers and the discrete process."""

import math
from inspect import unwrap as bare  # without the test run's own checks of shapes

import pytest
import torch
from torch import nn

from lecturecode.diffusion import (
    CLEAN,
    EDM,
    Denoiser,
    DiscreteDenoiser,
    DiscreteProcess,
    EnumeratedDiffusion,
    FromBetas,
    GaussianData,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Given,
    Guided,
    LogNormalTimes,
    UniformTimes,
    VariancePreserving,
    bound_terms,
    ddim,
    forward,
    karras_grid,
    log_snr_grid,
    posterior,
    sample,
    sample_sites,
    transition,
)
from lecturecode.rng import seeded

f64 = torch.float64


class Told(nn.Module):
    """A network whose answer is the number of the label."""

    def forward(self, x, level, labels=None):
        return torch.zeros_like(x) if labels is None else labels[:, None].to(x).expand_as(x)


def test_the_last_float32_time_is_inside_for_exact_denoisers_and_samplers():
    schedule = EDM(0.1)  # 0.1 in float32 is 1.5e-9 above 0.1
    x = torch.linspace(-1, 1, 6, dtype=f64).reshape(3, 2)
    denoiser = GaussianDenoiser(torch.zeros(2), 1.0, schedule)
    torch.testing.assert_close(denoiser(x, torch.full((3,), 0.1)), x / 1.01, rtol=1e-12, atol=0)
    assert sample(denoiser, ddim, x, torch.tensor([0.1, 0.05, 0.0])).isfinite().all()
    with pytest.raises(ValueError, match="outside the schedule"):
        denoiser(x, torch.full((3,), 0.101))


def test_a_falling_rate_has_times_for_every_level():
    times = LogNormalTimes(3.0, 3.0)(VariancePreserving(20.0, 0.1), 64, seeded(0), torch.zeros(1, dtype=f64))
    assert ((times > 0) & (times <= 1)).all()
    assert (times == 1).any()  # levels beyond the end are moved to it


def test_whole_steps_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="VariancePreserving has no steps"):
        UniformTimes(steps=True)(VariancePreserving(), 4, seeded(0), torch.zeros(1))


def test_rates_at_a_step_are_those_of_the_step_below():
    betas = torch.tensor([0.1, 0.4, 0.7], dtype=f64)
    t = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0], dtype=f64)
    rates = FromBetas(betas).rates(t)[1]
    torch.testing.assert_close(rates, -(1 - betas[[0, 0, 1, 1, 2]]).log(), rtol=1e-13, atol=0)


def test_a_schedule_keeps_its_own_betas():
    betas = torch.full((3,), 0.1, dtype=f64)
    schedule = FromBetas(betas)
    betas[0] = 0.9
    assert schedule == FromBetas([0.1] * 3)


def test_float32_times_are_refined_before_the_levels_are_taken():
    schedule = VariancePreserving()
    x, t = torch.ones(1, 1, dtype=f64), torch.tensor([1e-3])
    alpha, sigma = schedule(t.double())
    answer = GaussianDenoiser(torch.zeros(1), 1e-4, schedule)(x, t)
    torch.testing.assert_close(answer[0], alpha * 1e-4 / (alpha**2 * 1e-4 + sigma**2), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_snr_grid(EDM(80.0), 4, high=math.inf), "which is finite too"),
        (lambda: log_snr_grid(EDM(1e4), 5, high=1e4), "have one time, 0"),
        (lambda: karras_grid(EDM(80.0), 4, rho=0.0), "rho has the value 0"),
        (lambda: bare(forward)(EDM(), torch.zeros(4, 3), torch.zeros(1, 3), 1), r"\(4, 3\) and eps \(1, 3\)"),
        (lambda: bare(posterior)(EDM(), torch.zeros(1, 3), torch.zeros(4, 3), 1, 2), "x0 has shape"),
        (lambda: transition(EDM(), torch.zeros(2, 1), torch.tensor([1.0, 5.0]), torch.tensor([2.0, 4.0])),
         "r = 5 is not before t = 4"),
        (lambda: posterior(EDM(), torch.zeros(2, 3), torch.zeros(2, 3), 0, 2).log_prob(torch.zeros(2, 3)), "a point"),
        (lambda: GaussianDenoiser(torch.zeros(2), 0.0, EDM()).score(torch.zeros(1, 2), 0), "no density at t = 0"),
        (lambda: GaussianMixtureDenoiser(torch.ones(1), torch.zeros(1, 2), 0.0, EDM()).score(torch.zeros(1, 2), 0),
         "no density at t = 0"),
        (lambda: GaussianData(torch.zeros(1), torch.eye(1)).continuous_elbo(EDM(), 0.0), "start is 0; choose"),
        (lambda: DiscreteProcess(torch.ones(2, 1, 1, dtype=f64)), "K ≥ 2|two categories"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_labels_are_one_for_each_row():
    denoiser, x = Denoiser(Told(), EDM(), CLEAN, classes=3, drop=0.0), torch.zeros(4, 2)
    pair = [x, torch.tensor([0, 1, 2, 1])]  # a list, as a DataLoader gives it
    torch.testing.assert_close(denoiser.loss(pair, seeded(0)), torch.tensor(1.5))
    with pytest.raises(ValueError, match="for 4 examples"):
        denoiser.loss((x, torch.tensor([1])), seeded(0))
    with pytest.raises(ValueError, match="2 labels for 4 rows"):
        Given(denoiser, torch.tensor([0, 1]))(x, 1.0)
    with pytest.raises(ValueError, match="not finite"):
        Guided(denoiser, denoiser, math.nan)


class Half:
    """A denoiser whose answers are all 1."""

    schedule = EDM()

    def __call__(self, xt, t):
        return torch.ones_like(xt)


def test_a_sum_of_halves_that_overflows_is_no_error():
    x = sample(Half(), ddim, torch.zeros(300, 300, dtype=torch.float16), [1.0, 0.5, 0.0])
    assert (x == 1).all()


def test_the_signal_of_blocks_that_never_mix_is_one_at_most():
    for k in range(30):
        block = torch.rand(3, 3, dtype=f64, generator=seeded(k))
        block = block / block.sum(0)
        signal = DiscreteProcess(torch.block_diag(block, block).expand(9, -1, -1).clone()).signal
        assert signal.max() <= 1
        torch.testing.assert_close(signal, torch.ones(10, dtype=f64))


def test_discrete_doors():
    process, x = DiscreteProcess.flips([0.1, 0.2, 0.3]), torch.zeros(2, 3, dtype=torch.long)
    denoiser = DiscreteDenoiser(Told(), process)
    for t in (-1, 4):
        with pytest.raises(ValueError, match=r"the steps are 0 … 3"):
            denoiser(x, t)
    with pytest.raises(ValueError, match="categories from 7 to 7"):
        denoiser(x + 7, 1)
    with pytest.raises(ValueError, match=r"predicted has shape \(1, 3, 2\)"):
        bare(DiscreteProcess.reverse)(process, torch.full((1, 3, 2), 0.5), x, 1)
    exact = EnumeratedDiffusion(process, torch.full((8,), 0.125, dtype=f64))
    for t in (0, 5):
        with pytest.raises(ValueError, match="the steps are"):
            exact.posterior_entropy(t)
    with pytest.raises(ValueError, match=r"prior sums to 1\.4"):
        bound_terms(exact, exact.reverse, torch.tensor([0.5, 0.9], dtype=f64))


def test_sampling_takes_every_step_from_the_last_to_the_first():
    process, asked = DiscreteProcess.flips([0.1, 0.2, 0.3]), []

    def reverse(x, t):
        asked.append(t)
        return torch.full((*x.shape, 2), 0.5, dtype=f64)

    sample_sites(process, reverse, (2, 3), seeded(0))
    assert asked == [3, 2, 1]


def test_a_state_never_reached_is_answered_by_the_data_of_its_site():
    # both bits are equal and nothing is noised: (1, 0) is never reached, and each bit alone is known
    data = torch.tensor([0.2, 0.0, 0.0, 0.8], dtype=f64)
    exact = EnumeratedDiffusion(DiscreteProcess.flips([0.0]), data)
    torch.testing.assert_close(exact.site_clean(1)[1], torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=f64))
    # three categories, the first two merged: x = (0, 2) is never reached; site 0 is 0 or 1 as its own data say
    merge = torch.tensor([[[1.0, 1, 0], [0, 0, 0], [0, 0, 1]]], dtype=f64)
    table = torch.zeros(9, dtype=f64)
    table[0], table[1], table[8] = 0.1, 0.3, 0.6  # (0, 0), (1, 0), (2, 2)
    answer = EnumeratedDiffusion(DiscreteProcess(merge), table).site_clean(1)
    torch.testing.assert_close(answer[6, 0], torch.tensor([0.25, 0.75, 0.0], dtype=f64))
