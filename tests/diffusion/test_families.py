"""Families of grids and the search in them; where a pilot's paths end."""

import math

import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import EDM, Cosine, GaussianDenoiser, Pilot, VariancePreserving
from lecturecode.diffusion.families import Family, begun, coarse, refined
from lecturecode.rng import normal

F64 = torch.float64
SCHEDULES = {"preserving": VariancePreserving(), "edm": EDM(20.0), "cosine": Cosine(40).zero_terminal()}


def pilot(schedule):
    alpha, sigma = schedule(schedule.end)
    x = (alpha**2 + sigma**2).sqrt() * normal((8, 2), seeded(0), torch.zeros((), dtype=F64))
    model = GaussianDenoiser(torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([0.04, 0.5], dtype=F64), schedule)
    return model, Pilot.run(model, x, model.mean, torch.tensor([0.04, 0.5], dtype=F64), candidates=24)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "family",
    [Family("q", 0.5, 0.02), Family("q", 1.0, 0.1, True), Family("rho", 7.0, 0.02), Family("uniform")],
    ids=str,
)
def test_grids_fall_from_the_end(name, family):
    schedule = SCHEDULES[name]
    times = family.times(pilot(schedule)[1], 6)
    assert len(times) == 7
    assert (times.diff() < 0).all()
    assert times[0] == schedule.end
    assert (times[-1].item() > 0) == family.is_open


def test_the_levels_are_those_of_the_formulas():
    """In EDM's schedule t = σ: log σ is a power of i between its ends, or σ^{1/ρ} is straight; the data's deviation is
    the root of the mean variance."""
    _, whole = pilot(EDM(20.0))
    last = 0.02 * math.sqrt((0.04 + 0.5) / 2)
    u = [i / 4 for i in range(5)]
    jumps = [20 * (last / 20) ** (v**0.5) for v in u]
    assert Family("q", 0.5, 0.02).times(whole, 5).tolist() == pytest.approx([*jumps, 0.0], rel=1e-9)
    karras = [(20 ** (1 / 3) + v * (last ** (1 / 3) - 20 ** (1 / 3))) ** 3 for v in u]
    assert Family("rho", 3.0, 0.02).times(whole, 5).tolist() == pytest.approx([*karras, 0.0], rel=1e-9)
    assert Family("rho", 3.0, 0.02, True).times(whole, 4).tolist() == pytest.approx(karras, rel=1e-9)


def bowl(family):
    """Least at q = 0.62 and low = 0.033; "rho" lies higher everywhere."""
    if family.kind == "uniform" or family.is_open:
        return math.inf
    away = math.log(family.number / 0.62) ** 2 + math.log(family.low / 0.033) ** 2
    return away + 10 * (family.kind == "rho")


def test_the_search_goes_down_a_bowl():
    first = begun(bowl)
    assert (first.kind, first.number, first.low) == ("q", 1.0, 0.04)
    best = coarse(bowl, first)
    assert (best.kind, best.number, best.low) == ("q", 0.7, 0.04)
    fine = refined(bowl, best)
    assert fine.kind == "q"
    assert fine.number == pytest.approx(0.62, rel=0.05)
    assert fine.low == pytest.approx(0.033, rel=0.1)
    assert refined(bowl, best, halvings=0) == best


def test_an_open_or_straight_grid_is_found():
    assert coarse(lambda f: 0.0 if f.is_open else 1.0, Family("q", 1.0, 0.04)).is_open
    assert coarse(lambda f: float(f.kind != "uniform"), Family("q", 1.0, 0.04)) == Family("uniform")
    assert refined(lambda f: 1.0, Family("uniform")) == Family("uniform")


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_stretch_of_a_pilot_is_the_flow(name):
    """From the last candidate to t = 0 against the closed form: one step of any table would be off by σ²/2c."""
    model, whole = pilot(SCHEDULES[name])
    exact = model.flow(whole.x[-2], whole.times[-2].item(), 0.0)
    torch.testing.assert_close(whole.x[-1], exact, rtol=0, atol=1e-9)
