"""What every table of answers must pass: each number computed anew, each wrong answer led to its own hint."""

from collections.abc import Mapping
from typing import Any

import pytest

from lecturecode import exercises


def assert_computed(entry: Mapping[str, Any], answer: float, wrong: list[float], rel: float = 1e-6) -> None:
    """The entry's answer and its wrong answers, in their order, are the computed ones."""
    assert entry["answer"] == pytest.approx(answer, rel=rel)
    assert [given["answer"] for given in entry["wrong"]] == pytest.approx(wrong, rel=rel)


def assert_hints(name: str, entry: Mapping[str, Any], answer: float, wrong: list[float], capsys) -> None:
    """The right answer is called right, and each wrong one gets the hint beside it."""
    assert exercises.check(name, float(answer))
    assert capsys.readouterr().out == "Right.\n"
    for value, given in zip(wrong, entry["wrong"], strict=True):
        assert not exercises.check(name, float(value))
        assert capsys.readouterr().out == given["hint"] + "\n"
