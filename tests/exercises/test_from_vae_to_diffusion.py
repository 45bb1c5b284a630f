"""The answers, the plausible wrong answers and the solutions' claims of the page from the VAE to diffusion."""

import itertools
import math
import tomllib
from fractions import Fraction
from importlib.resources import files

import pytest
import torch
from answers import assert_computed, assert_hints

from lecturecode import kl
from lecturecode.diffusion import (
    DiscreteProcess,
    EnumeratedDiffusion,
    FromBetas,
    Linear,
    all_states,
    bound_terms,
    model_distribution,
    tabulated,
    terminal_snr,
)

f64 = torch.float64
TABLE = tomllib.loads(files("lecturecode").joinpath("answers/from_vae_to_diffusion.toml").read_text(encoding="utf-8"))


def first(enough):
    """The least T for which α_T² of the straight line of rates is enough, by plain products."""
    T = 1
    while True:
        step = 0.0199 / (T - 1) if T > 1 else 0.0
        left = math.prod(1 - (1e-4 + k * step) for k in range(T))
        if enough(left):
            return float(T)
        T += 1


SIGNAL = 1e-4 / (1 + 1e-4)
FLIP, STAY = Fraction(1, 10) * Fraction(8, 10), Fraction(9, 10) * Fraction(2, 10)
COMPUTED = {
    "diffusion-steps": (
        first(lambda left: -0.5 * math.log1p(-left) < 1e-3),
        [
            first(lambda left: -math.log1p(-left) < 1e-3),
            first(lambda left: -0.5 * math.log1p(-math.sqrt(left)) < 1e-3),
            float(math.ceil(-2 * math.log(1 - math.exp(-2e-3)) / 0.0201)),
        ],
    ),
    "diffusion-constant": (
        1 - SIGNAL**0.01,
        [1 - SIGNAL**0.005, -math.log(SIGNAL) / 100, 1 - SIGNAL**0.02],
    ),
    "diffusion-skip": (1 - 0.5**2, [(1 - 0.4**2) - (1 - 0.8**2), 1 - 0.4**2, 0.5**2]),
    "diffusion-flip": (
        float(FLIP / (FLIP + STAY)),
        [1 / 3, 0.1, float(STAY / (FLIP + STAY))],
    ),
    "diffusion-mask": (
        math.log(2) / 10,
        [math.log(2), math.log(2) / 100, -math.log(1 - 1 / 20)],
    ),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_steps_as_it_is_written():
    found = next(T for T in range(1, 1000) if -math.log1p(-(float(Linear(T)(T)[0]) ** 2)) < 0.002)
    assert found == COMPUTED["diffusion-steps"][0] == 615
    assert 1 - math.exp(-0.002) == pytest.approx(0.001998, abs=5e-7)
    assert -2 * math.log(0.001998) / 0.0201 == pytest.approx(618.4, abs=0.1)


def test_solution_of_the_constant_rate_by_the_library():
    beta = COMPUTED["diffusion-constant"][0]
    assert terminal_snr(FromBetas([beta] * 100)) == pytest.approx(1e-4, rel=1e-10)
    assert beta == pytest.approx(0.0880, abs=5e-5)


def test_solution_of_the_flip_by_the_library():
    one, zero = torch.ones(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
    posterior = DiscreteProcess.flips([0.1, 0.2]).posterior(zero, one, 2)
    assert posterior[0, 0, 1].item() == pytest.approx(4 / 13, rel=1e-12)


def test_solution_of_the_mask_bound_and_truth():
    T = 10
    process = DiscreteProcess.absorbing([1 / (T - t) for t in range(T)])
    p0 = torch.zeros(9, dtype=f64)
    p0[0] = p0[4] = 0.5
    exact = EnumeratedDiffusion(process, p0)
    masked = [1 - process.signal[t].item() for t in range(T + 1)]
    assert [b - a for a, b in itertools.pairwise(masked)] == pytest.approx([1 / T] * T)
    assert (bound_terms(exact, exact.site_reverse).sum() - math.log(2)).item() == pytest.approx(0.0693, abs=5e-5)
    rule = tabulated(lambda x, t: process.reverse(exact.site_clean(t), x, t), all_states(2, 3))
    for model in (rule, exact.site_reverse):
        assert kl(p0, model_distribution(process, 2, model)).item() == pytest.approx(0.0513, abs=5e-5)


def test_under_a_mask_the_mean_and_the_joint_agree():
    """Two unequal pairs of bits, every state that is reached: there the evidence of x_{t,i} changes nothing."""
    process = DiscreteProcess.absorbing([0.3, 0.5, 1.0])
    p0 = torch.zeros(9, dtype=f64)
    p0[[0, 1, 3, 4]] = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=f64)
    exact, states = EnumeratedDiffusion(process, p0), all_states(2, 3)
    for t in (1, 2, 3):
        clean, reached = exact.site_clean(t), exact.marginal(t) > 0
        mean = process.reverse(clean, states, t)
        joint = process.reverse(process.posterior_of(clean, states, t), states, t)
        torch.testing.assert_close(joint[reached], mean[reached], rtol=0, atol=1e-12)
