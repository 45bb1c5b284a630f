"""The contract itself: every displayed equation has a test, every test an equation, and the harness can fail."""

import harness
import labels
import pytest
import torch
from harness import TooWide, assert_at_most, assert_close, assert_zero, equation


def test_every_display_has_a_label():
    assert labels.unlabelled() == []


def test_every_label_is_defined_once():
    twice = {label: where for label, where in labels.displayed().items() if len(where) > 1}
    assert twice == {}


def test_every_label_has_a_test():
    assert sorted(set(labels.displayed()) - set(labels.held_by_tests())) == []


def test_every_test_has_a_label():
    assert sorted(set(labels.held_by_tests()) - set(labels.displayed())) == []


@pytest.mark.parametrize(
    "body",
    [
        lambda: None,
        lambda: assert_close(1.0, 1.0, tol=1e-3),
        lambda: assert_close([], []),
        lambda: assert_at_most(0.0, 1.0),
        lambda: assert_at_most(torch.tensor([0.0, 0.5]), 1.0),
    ],
    ids=["asserts nothing", "tolerance too wide", "empty", "bound not tight", "bound nowhere tight"],
)
def test_a_test_that_cannot_fail_is_refused(body):
    with pytest.raises(TooWide):
        equation("no-such-label")(body)()
    assert "no-such-label" not in harness.RESULTS


@pytest.mark.parametrize(
    "body",
    [
        lambda: assert_close(1.0, 1.0 + 1e-11),
        lambda: assert_close(float("nan"), float("nan")),
        lambda: assert_close(1e-20, 2e-20, relative=True),
        lambda: assert_at_most(1.0 + 1e-11, 1.0),
        lambda: assert_zero(1),
    ],
    ids=["beyond the tolerance", "nan", "relative", "above the bound", "symbolic"],
)
def test_a_wrong_equation_is_refused(body):
    with pytest.raises(AssertionError):
        equation("no-such-label")(body)()
    assert "no-such-label" not in harness.RESULTS


def test_infinities_and_tight_bounds_pass():
    assert_close(float("inf"), float("inf"))
    assert_at_most(torch.tensor([0.0, 1.0]), 1.0)
