"""Step by step beside diffusers' DDPM and DDIM schedulers, from vectors that benchmarks/diffusers_reference.py made."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import Cosine, FromBetas, Linear, ancestral, ddim, sample
from lecturecode.diffusion import sampler as sampler_module

F64 = torch.float64
FACTS = json.loads(Path(__file__).with_name("diffusers.json").read_text(encoding="utf-8"))
BETAS = {name: torch.tensor(values, dtype=torch.float32).double() for name, values in FACTS["betas"].items()}


class Clean:
    """The closed form that the reference was made with."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, xt, t):
        return 0.8 * torch.tanh(xt) + 0.1


def setting(name):
    run = FACTS["runs"][name]
    schedule = FromBetas(BETAS[run["betas"]])
    schedule = schedule.zero_terminal() if run["zero_terminal"] else schedule
    if run["eta"] is not None:
        return run, schedule, partial(ddim, eta=run["eta"])
    return (
        run,
        schedule,
        partial(ancestral, variance={"fixed_small": "posterior", "fixed_large": "step"}[run["variance"]]),
    )


def test_the_reference_is_what_it_says():
    assert FACTS["versions"]["torch"] == "2.13.0"
    assert len(FACTS["runs"]) == 12
    assert sum(len(run["steps"]) for run in FACTS["runs"].values()) == 177


@pytest.mark.parametrize("name", FACTS["runs"])
def test_every_step_agrees(name, monkeypatch):
    """Each step by itself from diffusers' own x, with its noise, to 1e-9."""
    run, schedule, rule = setting(name)
    x = torch.tensor(run["start"], dtype=F64)
    for step in run["steps"]:
        noise, after = torch.tensor(step["noise"], dtype=F64), torch.tensor(step["after"], dtype=F64)
        monkeypatch.setattr(sampler_module, "normal", lambda shape, rng, like, noise=noise: noise)
        ours = sample(Clean(schedule), rule, x, [step["t"], step["r"]], seeded(0))
        if step["r"] == 0 and step["t"] > 1 and run["variance"] == "fixed_large":
            # with this spacing diffusers adds the step's noise to x_0 itself; Ho's algorithm 2 ends without noise
            ours = ours + schedule(step["t"])[1] * noise
        torch.testing.assert_close(ours, after, rtol=1e-9, atol=1e-9)
        x = after


@pytest.mark.parametrize("name", [n for n, run in FACTS["runs"].items() if "linspace" not in n and "large, t" not in n])
def test_the_whole_walk_agrees(name, monkeypatch):
    """One table for the grid, from the first x to the last."""
    run, schedule, rule = setting(name)
    grid = [run["steps"][0]["t"], *(step["r"] for step in run["steps"])]
    assert grid[1:-1] == [step["t"] for step in run["steps"]][1:]
    noises = iter(torch.tensor(step["noise"], dtype=F64) for step in run["steps"])
    monkeypatch.setattr(sampler_module, "normal", lambda shape, rng, like: next(noises))
    x = sample(Clean(schedule), rule, torch.tensor(run["start"], dtype=F64), grid, seeded(0))
    torch.testing.assert_close(x, torch.tensor(run["steps"][-1]["after"], dtype=F64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "schedule"), [("linear", Linear()), ("cosine", Cosine()), ("short", Linear(40, 1e-4, 0.2))]
)
def test_betas_agree(name, schedule):
    """diffusers' are float32: a part in 10⁶, and of one where 1 − β is what was rounded."""
    torch.testing.assert_close(schedule.betas, BETAS[name], rtol=1e-6, atol=1e-8)
