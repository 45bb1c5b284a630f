"""Two moons: on their arcs without noise, with the moments that follow from the arcs."""

import math

import pytest
import torch

from lecturecode import seeded
from lecturecode.data import moons


def test_without_noise_each_point_lies_on_one_of_the_two_arcs():
    x, y = moons(500, seeded(1), noise=0.0).unbind(1)
    upper = (x.square() + y.square() - 1).abs() < 1e-5
    lower = ((x - 1).square() + (y - 0.5).square() - 1).abs() < 1e-5
    assert (upper | lower).all()
    assert (y[upper & ~lower] >= -1e-6).all()
    assert (y[lower & ~upper] <= 0.5 + 1e-6).all()
    assert abs(int(upper.sum()) - 250) < 5 * math.sqrt(500) / 2


def test_noise_is_of_the_size_that_was_asked_for():
    """One seed gives the same angles with any noise, so the difference of two draws is the noise itself."""
    clean, noisy = moons(4000, seeded(2), noise=0.0), moons(4000, seeded(2), noise=0.3)
    noise = noisy - clean
    assert (noise.mean(0).abs() < 5 * 0.3 / math.sqrt(4000)).all()
    assert ((noise.std(0) / 0.3 - 1).abs() < 5 / math.sqrt(8000)).all()


def test_mean_and_covariance():
    """By symmetry the mean is (½, ¼). Var x = ½ + ¼, Var y = ½ − 4/π² + (2/π − ¼)², Cov = −½(2/π − ¼), plus noise²."""
    drawn = moons(20_000, seeded(3), noise=0.2).double()
    c = 2 / math.pi - 0.25  # the arcs' centres of mass lie at (0, 2/π) and (1, ½ − 2/π)
    variance = torch.tensor([0.75 + 0.04, 0.5 - 4 / math.pi**2 + c**2 + 0.04])
    assert ((drawn.mean(0) - torch.tensor([0.5, 0.25])).abs() < 5 * (variance / 20_000).sqrt()).all()
    assert ((drawn.var(0) / variance - 1).abs() < 0.05).all()
    assert abs(float(drawn.mT.cov()[0, 1]) + 0.5 * c) < 0.02


def test_one_seed_gives_one_set():
    assert torch.equal(moons(50, seeded(1)), moons(50, seeded(1)))
    assert not torch.equal(moons(50, seeded(1)), moons(50, seeded(2)))
    assert moons(7, seeded(1)).shape == (7, 2)
    assert moons(7, seeded(1)).dtype == torch.float32


@pytest.mark.parametrize(("count", "noise"), [(0, 0.1), (-3, 0.1), (5, -0.1), (5, math.inf), (5, math.nan)])
def test_what_is_refused(count, noise):
    with pytest.raises(ValueError, match="ask for at least one point, and noise ≥ 0"):
        moons(count, seeded(1), noise)
