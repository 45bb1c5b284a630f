"""In each chapter a reader can check an answer alone: a hint on what is wrong comes back, and never the answer."""

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lecturecode import exercises

BOOK = Path(__file__).resolve().parents[2] / "book"
EXERCISE = re.compile(r"^(`{3,})\{exercise\}.*?^\1$", re.MULTILINE | re.DOTALL)
CHECK = re.compile(r"exercises\.check\(\s*\"([^\"]+)\"")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?:/\d+)?")
CALLS = re.compile(r"\b(log|sqrt|exp)\(?\s?(\d+(?:\.\d+)?)")


def numbered() -> list[str]:
    """The chapters: documents in the numbered parts of the book."""
    parts = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    return [entry["file"] for part in parts if part.get("numbered") for entry in part["chapters"]]


def asked(document: str) -> set[str]:
    """What the chapter's exercises, not their solutions, ask the reader to check."""
    text = (BOOK / f"{document}.md").read_text(encoding="utf-8")
    return {name for exercise in EXERCISE.finditer(text) for name in CHECK.findall(exercise[0])}


def entry(name: str) -> dict[str, Any]:
    return exercises._tables()[name]


def values(given: Any) -> list[float]:
    return torch.tensor(given, dtype=torch.float64).flatten().tolist()


def numbers(text: str) -> list[float]:
    """The numbers in a text: decimals, fractions, and log 2, sqrt(3) and the like by their values."""
    found = [float(Fraction(number)) for number in NUMBER.findall(text) if not number.endswith("/0")]
    return found + [getattr(math, what)(float(number)) for what, number in CALLS.findall(text)]


def gives_away(text: str, answer: Any) -> list[float]:
    """Those parts of the answer that stand in the text to three digits."""
    stated = {f"{abs(number):.2e}" for number in numbers(text)}
    return [value for value in values(answer) if f"{abs(value):.2e}" in stated]


def test_chapters_are_numbered():
    assert len(numbered()) >= 19


@pytest.mark.parametrize("document", numbered())
def test_each_chapter_has_exercises_that_the_reader_can_check(document):
    text = (BOOK / f"{document}.md").read_text(encoding="utf-8")
    assert asked(document), "no exercise of this chapter asks for exercises.check"
    assert set(CHECK.findall(text)) <= set(exercises.names())


def test_every_answer_of_the_tables_is_asked_for_somewhere():
    everywhere = set().union(
        *(asked(path.relative_to(BOOK).with_suffix("").as_posix()) for path in BOOK.glob("*/*.md"))
    )
    assert everywhere == set(exercises.names())


@pytest.mark.parametrize("name", exercises.names())
def test_a_hint_never_gives_the_answer_away(name, capsys):
    """Whatever is tried: the right answer, each known slip, and what is neither."""
    answer = torch.tensor(entry(name)["answer"], dtype=torch.float64)
    slips = [torch.tensor(wrong["answer"], dtype=torch.float64) for wrong in entry(name)["wrong"]]
    assert slips, "no slip is known"
    strange = [torch.full_like(answer, value) for value in (math.nan, math.inf, -1e300)]
    strange += [answer * (1 + 1e-2) + 1e-2, -answer + 1e-3]
    said = set()
    for given in [*slips, *strange]:
        if given.shape == answer.shape:
            assert not exercises.check(name, given)
            said.add(capsys.readouterr().out)
    assert len(said) >= 2, "a slip and a guess get the same words"
    for words in said:
        assert len(words.split()) >= 3
        assert gives_away(words, answer.tolist()) == [], words
    assert exercises.check(name, answer)
    assert capsys.readouterr().out == "Right.\n"
    with pytest.raises(ValueError, match="has shape") as refused:
        exercises.check(name, torch.zeros(*answer.shape, 7))
    shapes = {str(size) for size in (*answer.shape, 7)}
    said_of_it = " ".join(
        word for word in re.findall(r"[\w.]+", str(refused.value).replace(name, "")) if word not in shapes
    )
    assert gives_away(said_of_it, answer.tolist()) == []


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("It is not 0.693.", -0.69314),
        ("Half of log 2, not log 2", math.log(2)),
        ("Take 1/3 of it", [0.5, 1 / 3]),
        ("1e-3?", 1e-3),
    ],
)
def test_words_that_give_an_answer_away_are_noticed(words, answer):
    assert gives_away(words, answer)
    assert not gives_away("That is 0.5123 nats; divide by log(7) for another base.", answer)
