"""The checker itself, on a table of its own; the numbers of the book's tables are computed in tests/exercises."""

import math
import tomllib
from pathlib import Path

import pytest
import torch

from lecturecode import exercises

TABLE = """
["number"]
answer = 0.5
tolerance = 1e-9
[["number".wrong]]
answer = 0.1
hint = "That is the answer in decits."

["vector"]
answer = [1.0, 2.0]
[["vector".wrong]]
answer = [2.0, 1.0]
hint = "The two are exchanged."
[["vector".wrong]]
answer = 3.0
hint = "never seen: it has another shape"
"""


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(exercises, "_tables", lambda: tomllib.loads(TABLE))


@pytest.mark.parametrize("answer", [0.5, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64), 0.5 + 1e-10])
def test_right(table, capsys, answer):
    assert exercises.check("number", answer) is True
    assert capsys.readouterr().out == "Right.\n"


def test_right_with_a_gradient_attached(table):
    assert exercises.check("vector", torch.tensor([1.0, 2.0], requires_grad=True))


@pytest.mark.parametrize("answer", [0.1, torch.tensor(0.1, dtype=torch.float64)])
def test_a_known_error_is_explained_within_its_own_tolerance(table, capsys, answer):
    assert exercises.check("number", answer) is False
    assert capsys.readouterr().out == "That is the answer in decits.\n"


@pytest.mark.parametrize("answer", [0.5 + 1e-6, 0.2, math.nan, math.inf, -0.5])
def test_another_error_gets_the_general_hint(table, capsys, answer):
    assert exercises.check("number", answer) is False
    assert capsys.readouterr().out == exercises.GENERAL + "\n"


def test_vectors(table, capsys):
    assert exercises.check("vector", torch.tensor([1.0, 2.0]))
    assert not exercises.check("vector", torch.tensor([2.0, 1.0]))
    assert capsys.readouterr().out == "Right.\nThe two are exchanged.\n"


def test_what_is_refused(table):
    with pytest.raises(ValueError, match=r"no exercise is called 'nmber'; there are number, vector"):
        exercises.check("nmber", 1.0)
    with pytest.raises(ValueError, match=r"the answer has shape \(3,\); 'vector' asks for \(2,\)"):
        exercises.check("vector", torch.zeros(3))
    with pytest.raises(ValueError, match=r"the answer has shape \(1,\); 'number' asks for \(\)"):
        exercises.check("number", torch.zeros(1))


def test_the_books_own_tables_are_well_formed():
    """Every entry has an answer; a wrong answer has a hint, differs from the right one, and no name is used twice."""
    seen: set[str] = set()
    for path in sorted((Path(exercises.__file__).parent / "answers").glob("*.toml")):
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
        assert not seen & set(entries), f"{path.name} repeats {seen & set(entries)}"
        seen |= set(entries)
        for name, entry in entries.items():
            assert set(entry) <= {"answer", "tolerance", "wrong"}, name
            right = torch.tensor(entry["answer"], dtype=torch.float64)
            assert right.isfinite().all(), name
            for wrong in entry.get("wrong", []):
                assert set(wrong) == {"answer", "hint"}, name
                other = torch.tensor(wrong["answer"], dtype=torch.float64)
                tolerance = entry.get("tolerance", 1e-6)
                same = other.shape == right.shape and torch.allclose(other, right, rtol=tolerance, atol=tolerance)
                assert not same, f"{name}: a wrong answer is right"
    assert exercises.names() == sorted(seen)


def test_every_answer_of_the_book_is_right_and_every_wrong_one_is_explained(capsys):
    for name in exercises.names():
        entry = exercises._tables()[name]
        assert exercises.check(name, torch.tensor(entry["answer"], dtype=torch.float64))
        for wrong in entry.get("wrong", []):
            other = torch.tensor(wrong["answer"], dtype=torch.float64)
            if other.shape == torch.tensor(entry["answer"]).shape:
                capsys.readouterr()
                assert not exercises.check(name, other)
                assert capsys.readouterr().out == wrong["hint"] + "\n"
