"""Step by step beside diffusers' and k-diffusion's solvers, from vectors that benchmarks/solver_reference.py made."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import EDM, Churn, VariancePreserving, ddim, dpm_solver, heun, sample, walk
from lecturecode.diffusion import sampler as sampler_module

F64 = torch.float64
FACTS = json.loads(Path(__file__).with_name("solvers.json").read_text(encoding="utf-8"))
THEIR_3M = partial(dpm_solver, order=3, curvature=0.5)
RULES = {
    "dpm 2M": partial(dpm_solver, settled=True),
    "dpm 2M, to the last σ": dpm_solver,
    "dpm 3M": partial(THEIR_3M, settled=True),
    "dpm 3M, to the last σ": THEIR_3M,
    "edm 2M": partial(dpm_solver, settled=True),
    "edm 3M": partial(THEIR_3M, settled=True),
    "edm 3M, long": THEIR_3M,
    "heun": heun,
    "euler": ddim,
    "k heun": heun,
    "k heun, churned": heun,
    "k 2M": dpm_solver,
    "k euler": ddim,
}
IN_FLOAT32 = ("dpm", "euler")  # these cast x to float32 in each step


class Clean:
    """The closed form that the reference was made with."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, xt, t):
        return 0.8 * torch.tanh(xt) / (1 + torch.exp(-self.schedule.log_snr(t) / 2)) + 0.1


def setting(run):
    sigmas = torch.tensor(run["sigmas"], dtype=F64)
    schedule = VariancePreserving(rate_end=25.0) if run.get("preserving") else EDM(2 * sigmas[0].item())
    levels = sigmas.unique_consecutive()
    times = torch.where(levels > 0, schedule.time(-2 * levels.log()), 0)
    return schedule, times, torch.tensor(run["start"], dtype=F64)


def test_the_reference_is_what_it_says():
    assert FACTS["versions"] == {"diffusers": "0.42.1", "k-diffusion": "0.1.1.post1", "torch": "2.13.0"}
    assert {*FACTS["diffusers"], *FACTS["k-diffusion"]} == set(RULES)
    assert sum(len(run["after"]) for run in FACTS["diffusers"].values()) == 111


@pytest.mark.parametrize("name", FACTS["diffusers"])
def test_every_call_agrees_with_diffusers(name):
    """x after each row of one table. Heun's first rows are there as well."""
    run = FACTS["diffusers"][name]
    schedule, times, x = setting(run)
    tolerance = 1e-6 if name.startswith(IN_FLOAT32) else 1e-9
    ours = [here for _, here, _ in walk(Clean(schedule), RULES[name], x, times)]
    scale = x.abs().max().item()
    for here, there in zip(ours, run["after"], strict=True):
        torch.testing.assert_close(here, torch.tensor(there, dtype=F64), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("name", FACTS["k-diffusion"])
def test_every_step_agrees_with_k_diffusion(name, monkeypatch):
    """x at each first call, its noise included, and at the end, to 1e-9."""
    run = FACTS["k-diffusion"][name]
    schedule, times, x = setting(run)
    rule, churn = RULES[name], run["churn"]
    if churn:
        rule = partial(heun, churn=Churn(churn["s_churn"], churn["s_tmin"], churn["s_tmax"], churn["s_noise"]))
    noises = iter(torch.tensor(noise, dtype=F64) for noise in run["noises"])
    monkeypatch.setattr(sampler_module, "normal", lambda shape, rng, like: next(noises))
    asked = []

    class Watched(Clean):
        def __call__(self, xt, t):
            asked.append(xt.clone())
            return super().__call__(xt, t)

    end = sample(Watched(schedule), rule, x, times, seeded(0))
    firsts = asked[::2] if "heun" in name else asked
    for here, there in zip(firsts, run["before"], strict=True):
        torch.testing.assert_close(here, torch.tensor(there, dtype=F64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(end, torch.tensor(run["end"], dtype=F64), rtol=1e-9, atol=1e-9)
    assert next(noises, None) is None
    assert len(run["noises"]) == (7 if churn else 0)


def test_the_curvature_that_they_leave_out():
    """With the integral's own D″ the third order method is another one: the reference tells them apart."""
    run = FACTS["diffusers"]["edm 3M, long"]
    schedule, times, x = setting(run)
    end = torch.tensor(run["after"][-1], dtype=F64)
    ours = sample(Clean(schedule), partial(dpm_solver, order=3), x, times)
    assert (ours - end).abs().max() > 1e-5
