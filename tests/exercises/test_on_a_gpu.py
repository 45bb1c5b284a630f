"""The answers, the plausible wrong answers and the solutions' claims of the page on GPUs and long runs."""

import math
import tomllib
from importlib.resources import files

import pytest
import torch
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/on_a_gpu.toml").read_text(encoding="utf-8"))


def stalls(kind: torch.dtype, start: float = 0.0) -> float:
    """The first total that adding one leaves as it is, every total rounded to the format."""
    total, one = torch.tensor(start, dtype=kind), torch.tensor(1.0, dtype=kind)
    while (following := total + one) != total:
        total = following
    return float(total)


JOINT = (96 * 20 + 32 * 24) / (96 + 32)
D = 0.999
AGES = torch.arange(60_000, dtype=torch.float64)
SHARES = (1 - D) * D**AGES

COMPUTED = {
    "gpu-stall": (stalls(torch.bfloat16), [stalls(torch.bfloat16) / 2, stalls(torch.float32, 2.0**24 - 9)]),
    "gpu-parts": ((20 + 24) / 2 - JOINT, [(20 + 24) / 2, JOINT - (20 + 24) / 2]),
    "gpu-ema": (float((AGES * SHARES).sum()), [float((AGES * SHARES).sum()) + 1, math.log(0.5) / math.log(D)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name], rel=1e-9)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_parts_the_joint_mean_and_the_weights():
    assert JOINT == 21
    assert (1 / 2 / 32) / (1 / 2 / 96) == 3


def test_solution_of_the_average_has_forgotten_its_start():
    weights = torch.tensor([(1 - D) * D ** (500 - j) / (1 - D**500) for j in range(1, 501)], dtype=torch.float64)
    assert float(weights.sum()) == pytest.approx(1, rel=1e-12)
