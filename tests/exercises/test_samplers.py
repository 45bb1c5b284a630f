"""The answers, the plausible wrong answers and the solutions' claims of the page on samplers."""

import math
import tomllib
from importlib.resources import files

import pytest
import scipy.integrate
import torch
from answers import assert_computed, assert_hints

from lecturecode.diffusion import EDM, dpm_solver, exponential, sample

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/samplers.toml").read_text(encoding="utf-8"))


def calls(order, calls=20, error=0.01, wanted=0.0001):
    return round(calls * (error / wanted) ** (1 / order))


def moment(k, h=1.0):
    return scipy.integrate.quad(lambda v: math.exp(v - h) * v**k, 0, h, epsabs=1e-13)[0]


class Straight:
    """x̂_0 = ℓ."""

    schedule = EDM(20.0)

    def __call__(self, xt, t):
        return torch.full_like(xt, -math.log(float(t)))


def first_error(count):
    """The package's sampler of order 4 from ℓ = 0 to 2, against the integral of ℓ e^ℓ."""
    times = [math.exp(-2 * k / count) for k in range(count + 1)]
    table = exponential(EDM(20.0), times, order=4, corrected=False)
    made = sample(Straight(), table, torch.zeros(1, 1, dtype=torch.float64)).item()
    return abs(made - (math.exp(2) + 1) * math.exp(-2))


def lowest(error, power):
    """σ with 1 − q^power = error, for c = 0.25."""
    return math.sqrt(0.25 * ((1 - error) ** (-1 / power) - 1))


def least(power):
    return next(n for n in range(2, 1000) if math.cos(math.pi / 2 / n) ** (power * n) >= 0.99)


def constant_rest(c):
    """The integral of a rest of 1 from u = 1/20 to 100, by quadrature in log u."""
    ends = math.log(0.05), math.log(100)
    return scipy.integrate.quad(lambda v: math.exp(v) / math.sqrt(1 + c * math.exp(2 * v)), *ends, epsabs=1e-12)[0]


COMPUTED = {
    "dsamp-order": (calls(2), [calls(1), calls(2, wanted=0.0025)]),
    "dsamp-older": (-moment(1), [moment(1), -moment(0) / 2, -1 / 2]),
    "dsamp-first": (first_error(8), [first_error(8) * math.e**2, first_error(8) / math.exp(0.25)]),
    "dsamp-floor": (lowest(1e-3, 0.5), [lowest(1e-3, 1), lowest(1e-3, 0.5) ** 2]),
    "dsamp-constant-rest": (constant_rest(0.25), [constant_rest(0), constant_rest(0.25) / 2]),
    "dsamp-angles": (least(2), [math.ceil(math.pi**2 / 4 / 0.01), least(1)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_order():
    assert [calls(1), calls(4)] == [2000, 63]


def test_solution_of_the_older_answer():
    """The package's rows on the grid of the exercise, whose last α is 1."""
    times = [math.exp(-k) for k in range(3)]
    assert exponential(EDM(20.0), times, 2).b[-1].tolist() == pytest.approx([1, -1 / math.e], rel=1e-12)
    half = -(1 - 1 / math.e) / 2
    assert dpm_solver(EDM(20.0), times).b[-1, 1].item() == pytest.approx(half, rel=1e-12)
    assert [1 / math.e, half] == pytest.approx([0.368, -0.316], abs=5e-4)


def test_solution_of_the_first_step():
    m1 = 0.25 - 1 + math.exp(-0.25)
    assert [m1, math.exp(0.25) * m1] == pytest.approx([0.0288, 0.0370], abs=5e-5)
    assert first_error(8) == pytest.approx(math.exp(0.25 - 2) * m1, rel=1e-10)
    assert first_error(8) == pytest.approx(0.0050, abs=5e-5)
    assert 4 < first_error(8) / first_error(16) < 4.5


def test_solution_of_the_floor():
    sigma = lowest(1e-3, 0.5)
    assert 1 - math.sqrt(0.25 / (0.25 + sigma**2)) == pytest.approx(1e-3, rel=1e-9)
    assert [sigma, math.sqrt(2 * 0.25 * 1e-3)] == pytest.approx([0.0224, 0.0224], abs=5e-5)


def test_solution_of_the_angles():
    assert math.pi**2 / 4 / 0.01 == pytest.approx(247, abs=0.5)
    assert math.ceil(-(math.pi**2) / 4 / math.log(0.99)) == least(2) == 246
    assert math.cos(math.pi / 20) ** 20 == pytest.approx(0.78, abs=5e-3)


def test_solution_of_the_constant_rest():
    closed = 2 * (math.asinh(50) - math.asinh(0.025))
    assert [closed, 1 / 0.01 - 1 / 20] == pytest.approx([constant_rest(0.25), constant_rest(0)], rel=1e-9)
    last = [math.sqrt(c + 0.01**2) for c in (0.25, 0)]
    assert last == pytest.approx([0.5001, 0.01], abs=5e-5)
    counted = [s * constant_rest(c) for s, c in zip(last, (0.25, 0), strict=True)]
    assert [closed, *counted] == pytest.approx([9.16, 4.58, 1.00], abs=5e-3)
