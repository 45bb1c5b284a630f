"""The exercises of probability/entropy-and-divergence: every number in the table anew, from plain Python floats."""

import itertools
import math
import re
import tomllib
from pathlib import Path

import pytest
import torch

import lecturecode
from lecturecode import exercises, plot

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "book/probability/entropy-and-divergence.md").read_text(encoding="utf-8")
TABLE = tomllib.loads((ROOT / "lecturecode/answers/entropy_and_divergence.toml").read_text(encoding="utf-8"))
SOLUTION = re.compile(r"^````\{solution\} ex:(\S+)\n(.*?)^````$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOLUTIONS = dict(SOLUTION.findall(CHAPTER))

FAIR, LOADED, NO_SIX = [1 / 6] * 6, [w / 12 for w in (1, 2, 2, 2, 2, 3)], [0.2] * 5 + [0.0]
BIT = math.log(2)


def divergence(p, q):
    return math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def coin(a):
    return [a, 1 - a]


def throws(direction, odds):
    """By adding up throw after throw."""
    evidence, count = 0.0, 0
    while evidence < odds:
        evidence, count = evidence + direction, count + 1
    return count


def missing_face():
    middle = [(a + b) / 2 for a, b in zip(NO_SIX, FAIR, strict=True)]
    both = divergence(NO_SIX, middle) + divergence(FAIR, middle)
    return divergence(NO_SIX, FAIR), both / 2, max(a - b for a, b in zip(FAIR, NO_SIX, strict=True))


def sequences(a, tosses=3):
    return [math.prod(coin(a)[face] for face in faces) for faces in itertools.product((0, 1), repeat=tosses)]


def numbers(a, tosses=3):
    chance = [0.0] * (tosses + 1)
    for faces, p in zip(itertools.product((0, 1), repeat=tosses), sequences(a, tosses), strict=True):
        chance[faces.count(0)] += p
    return chance


def information(flip):
    """Σ p(x,y) log p(x,y)/(p(x)p(y)) for a uniform bit."""
    return math.fsum(p / 2 * math.log((p / 2) / (1 / 4)) for p in (flip, 1 - flip) for _ in range(2))


def expected():
    """name -> (answer, wrong answers), in the order of the table."""
    to_fair, to_loaded = divergence(LOADED, FAIR), divergence(FAIR, LOADED)
    kl, js, tv = missing_face()
    h = 1 + math.log(2.2)
    first = numbers(0.7), numbers(0.5)
    odd_p, odd_q = (n[1] + n[3] for n in first)
    parity, three = divergence(coin(odd_p), coin(odd_q)), divergence(sequences(0.7), sequences(0.5))
    back = divergence(sequences(0.5), sequences(0.7))
    one = divergence(coin(0.7), coin(0.5))
    exactly_one = divergence(coin(first[0][1]), coin(first[1][1]))
    once, twice = information(0.1), information(0.1 * 0.9 + 0.9 * 0.1)
    return {
        "throws-to-notice": (
            throws(to_fair, math.log(1000)),
            [throws(to_loaded, math.log(1000)), throws(to_fair, math.log2(1000)), math.floor(math.log(1000) / to_fair)],
        ),
        "missing-face": ([kl, js, tv], [[kl / BIT, js / BIT, tv], [kl, 2 * js, tv], [kl, js, 2 * tv]]),
        "lifetime-entropy": (
            [h, 1 + math.log(2200)],
            [[h, 1000 * h], [h, 1 + math.log(0.0022)], [math.log(2.2), math.log(2200)], [h, h]],
        ),
        "parity-forgets": (
            [three, divergence(*first), parity],
            [[one, one, parity], [three, three, exactly_one], [back, back, divergence(coin(odd_q), coin(odd_p))]],
        ),
        "noisy-channel": (
            [once, twice],
            [[once, information(0.2)], [once, information(1 - 0.9**2)], [once / BIT, twice / BIT]],
        ),
    }


@pytest.mark.parametrize("name", TABLE)
def test_the_table_holds_what_the_exercise_asks_for(name):
    answer, wrong = expected()[name]
    assert TABLE[name]["answer"] == pytest.approx(answer, rel=1e-12, abs=1e-14)
    assert [entry["answer"] for entry in TABLE[name]["wrong"]] == [pytest.approx(w, rel=1e-12) for w in wrong]


@pytest.mark.parametrize("name", TABLE)
def test_right_and_wrong_answers_are_told_apart(name, capsys):
    answer, wrong = expected()[name]
    assert exercises.check(name, torch.tensor(answer, dtype=torch.float64))
    for entry, number in zip(TABLE[name]["wrong"], wrong, strict=True):
        capsys.readouterr()
        assert not exercises.check(name, torch.tensor(number, dtype=torch.float64))
        assert capsys.readouterr().out.strip() == entry["hint"]


def test_every_exercise_has_a_solution_and_an_entry():
    asked = re.findall(r"^:label: ex:(\S+)$", CHAPTER, re.MULTILINE)
    assert sorted(asked) == sorted(SOLUTIONS) == sorted(TABLE) == sorted(expected())


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_as_printed_is_right(name, capsys):
    """Runs the code of the solution with the chapter's names."""
    (code,) = PYTHON.findall(SOLUTIONS[name])
    scope = {"math": math, "torch": torch, "plot": plot, "exercises": exercises}
    scope |= {key: getattr(lecturecode, key) for key in ("entropy", "js", "kl", "tv")}
    scope |= {key: torch.tensor(p, dtype=torch.float64) for key, p in (("fair", FAIR), ("loaded", LOADED))}
    exec(code, scope)
    assert capsys.readouterr().out == "Right.\n"


def test_what_the_solutions_say():
    """The numbers in their prose: 11/60 and 1/12, 0.532, 0.18, a hundredth, the infinite direction, the orders."""
    middle = [(a + b) / 2 for a, b in zip(NO_SIX, FAIR, strict=True)]
    assert middle == pytest.approx([11 / 60] * 5 + [1 / 12])
    assert numbers(0.7)[1] + numbers(0.7)[3] == pytest.approx(0.532)
    assert numbers(0.5)[1] + numbers(0.5)[3] == pytest.approx(0.5)
    assert information(0.18) == pytest.approx(expected()["noisy-channel"][0][1])
    three, heads, parity = expected()["parity-forgets"][0]
    assert three == pytest.approx(heads, rel=1e-14)
    assert parity < three / 100
    assert lecturecode.kl(*(torch.tensor(p, dtype=torch.float64) for p in (FAIR, NO_SIX))) == math.inf
    once, twice = expected()["noisy-channel"][0]
    assert 0 < twice < once < BIT
