"""The doors of the limits."""

from __future__ import annotations

import pytest

from grading.limits import DEFAULT, Limits


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seconds", 0, "seconds = 0 is out of range"),
        ("seconds", float("nan"), "seconds = nan is out of range"),
        ("seconds", "60", "'60' is not a number"),
        ("memory", 2.0e9, "is not a whole number"),
        ("memory", 1000, "memory = 1000 is out of range; it may be from 67108864"),
        ("processes", True, "True is not a whole number"),
        ("processes", 3, "processes = 3 is out of range"),
        ("output", 0, "output = 0 is out of range"),
        ("files", -1, "files = -1 is out of range"),
        ("file_size", 2**60, "file_size = .* is out of range"),
    ],
)
def test_a_wrong_limit_is_refused(name, value, said):
    with pytest.raises(ValueError, match=said):
        Limits(**{name: value})


def test_limits_are_values():
    assert Limits() == DEFAULT
    assert Limits(5).seconds == 5
    with pytest.raises(AttributeError):
        DEFAULT.seconds = 1  # pyright: ignore[reportAttributeAccessIssue]
