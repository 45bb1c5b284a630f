"""The checks at the door: what passes in silence, and the three parts of each error."""

import math

import pytest
import torch

from lecturecode import checks


def test_what_passes():
    here = torch.zeros(2, 3)
    checks.same_device(x=here)
    checks.same_device(x=here, y=here + 1, z=here)
    checks.shape("x", here, (2, 3))
    checks.shape("x", here, (None, 3))
    checks.finite("x", here)
    checks.finite("x", torch.zeros(0))
    checks.positive("x", 1e-30)
    checks.positive("x", torch.tensor([1.0, 2.0]))
    checks.probabilities("p", torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    assert checks.is_free(here)
    assert not checks.is_free(torch.empty(1, device="meta"))


def test_two_devices_are_named():
    here, there = torch.zeros(1), torch.empty(1, device="meta")
    with pytest.raises(ValueError, match=r"^x is on cpu and z on meta; move one of them: z\.to\(x\.device\)$"):
        checks.same_device(x=here, y=here, z=there)


@pytest.mark.parametrize(
    ("x", "wanted", "what"),
    [
        (torch.zeros(2), (2, 3), r"^x has shape \(2,\), not \(2, 3\); reshape it, one row an example$"),
        (torch.zeros(2, 4), (None, 3), r"^x has shape \(2, 4\), not \(any, 3\); reshape it"),
        (torch.zeros(()), (None,), r"^x has shape \(\), not \(any\)"),
        (torch.zeros(0, 3), (None, 3), r"^x is empty: shape \(0, 3\); pass at least one example$"),
    ],
)
def test_shapes(x, wanted, what):
    with pytest.raises(ValueError, match=what):
        checks.shape("x", x, wanted)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_value_that_is_not_finite_is_named(bad):
    x = torch.zeros(3, 4)
    x[1, 2] = x[2, 0] = bad
    with pytest.raises(ValueError, match=rf"^x\[1, 2\] is {bad}: 2 of 12 values are not finite; remove or replace"):
        checks.finite("x", x)
    with pytest.raises(ValueError, match=rf"^y\[\] is {bad}: 1 of 1 values"):
        checks.finite("y", torch.tensor(bad))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (0.0, r"^sigma has the value 0; it must be above zero$"),
        (-0.5, r"^sigma has the value -0\.5; it must be above zero$"),
        (torch.tensor([1.0, -2.0]), r"^sigma has the value -2; it must be above zero$"),
        (math.nan, r"^sigma\[\] is nan"),
        (math.inf, r"^sigma\[\] is inf"),
    ],
)
def test_what_is_not_positive(value, what):
    with pytest.raises(ValueError, match=what):
        checks.positive("sigma", value)


@pytest.mark.parametrize(
    ("p", "what"),
    [
        (torch.tensor(1.0), r"^p has shape \(\); pass probabilities along the last axis$"),
        (torch.zeros(2, 0), r"^p has shape \(2, 0\)"),
        (torch.tensor([0.5, math.nan]), r"^p\[1\] is nan: 1 of 2"),
        (torch.tensor([[0.5, 0.5], [1.25, -0.25]]), r"^p\[1, 1\] is -0\.25; probabilities are not negative$"),
        (torch.tensor([0.25, 0.25]), r"^p sums to 0\.5, not 1; divide by p\.sum\(-1, keepdim=True\)$"),
        (torch.tensor([[1.0, 0.0], [1.0, 0.4]]), r"^p sums to 1\.4 in row \[1\], not 1"),
    ],
)
def test_what_are_no_probabilities(p, what):
    with pytest.raises(ValueError, match=what):
        checks.probabilities("p", p)


def test_the_cure_in_the_message_works():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.4]])
    checks.probabilities("p", p / p.sum(-1, keepdim=True))
