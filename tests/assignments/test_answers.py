"""Every number that the model answers quote is one that the notebook prints, or follows from what it computes.

The solution notebook runs once. `NUMBERS` has for each number of an answer, as it is quoted, the expression that gives
it, and `WORDS` has phrases with an expression that is true; both know all names of the notebook. `row("push 0.9")` has
the numbers that were printed after these words. What is left must stand in the question.
"""

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import pytest

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"[-+−]?\d+(?:,\d{3})*(?:\.\d+)?")
QUOTED = re.compile(r"−?(?<![\d.])\d+(?:,\d{3})*(?:\.\d+)?")
INDEX = re.compile(r"_(?:\{[^}]*\}|\w)")
FRACTION = re.compile(r"\\t?frac(\d)(\w)")
LONG = 6000  # steps of learning-a-machine, ten times as many as in its cell

HOP = "(lambda T: T[1, 0] + T[-1, 0] - (T[1, 0] - T[-1, 0]) ** 2)(ring(12, {}))"
FIRST = "math.exp(2 * float(rates(S, noise['same'], 1.0, 8)[0]))"
TOP = "zero(lambda b: b * math.tanh(b) - 1, 1, 2)"

NUMBERS: dict[str, dict[str, str]] = {
    "divergences": {
        "1.17": "seen(1 / 2.2)[0]",
        "0.455": "1 / 2.2",
        "1.15": "row('mean time')[0]",
    },
    "a-small-magnet": {
        "1.20": TOP,
        "0.44": f"(lambda b: (b / math.cosh(b)) ** 2)({TOP})",
    },
    "learning-a-machine": {
        "2.294": "row('2 hidden units, CD-1')[1]",
        "2.389": "row('2 hidden units, CD-1')[2]",
        "6,000": "LONG",
        "2.289": "longer(2, 25)[1]",
        "2.254": "longer(2, 0)[1]",
        "2.265": "row('2 hidden units, exact')[2]",
        "0.47": "row('2 hidden units, exact')[2] - math.log(6)",
        "1.795": "row('3 hidden units, exact')[2]",
        "0.003": "row('3 hidden units, exact')[2] - math.log(6)",
        "0.01": "row('3 hidden units, CD-1')[2] - row('3 hidden units, exact')[2]",
    },
    "the-bound-by-hand": {
        "4.48": "counts.mean()",
        "−3.271": "row('three, alike, round 400')[0]",
        "−2.5372": "row('three, apart, round 400')[0]",
        "−2.5507": "row('two, apart  , round 400')[0]",
        "0.0135": "row('three, apart, round 400')[0] - row('two, apart  , round 400')[0]",
        "2.0": "150 * (row('three, apart, round 400')[0] - row('two, apart  , round 400')[0])",
        "0.0133": "2 / len(counts)",
    },
    "a-linear-vae": {
        "100": "gain[9] ** 2",
        "3.39": "row('weight 1, same noise, other units')[0]",
        "0.35": "math.log(2) / 2",
        "1.28": "row('weight 1, same noise, as it was')[0]",
        "2.56": "2 * row('weight 1, same noise, as it was')[0]",
        "13": FIRST,
    },
    "a-chain-forgets": {
        "10.0": "row('push 0.0')[1]",
        "16.9": "row('push 0.9')[1]",
        "0.5": HOP.format(0.0),
        "0.2975": HOP.format(0.9),
        "1.68": HOP.format(0.0) + "/" + HOP.format(0.9),
        "1.69": "halving(ring(12, 0.9)) / halving(ring(12, 0.0))",
        "0.0929": "row('push 0.3')[0]",
        "6.9": "math.log(1000)",
        "74": "math.log(1000) / row('push 0.3')[0]",
    },
    "drawing-a-magnet": {
        "0.011": "row('J = 0.3')[5]",
        "0.0109": "row('J = 0.3')[5]",
        "0.0048": "row('J = 0.3')[1]",
        "0.978": "row('J = 1.0')[0]",
        "0.002": "row('J = 1.0')[5]",
        "616,000": "1e4 * row('K =  1')[1]",
        "1,800": "1e4 * row('K = 64')[1]",
        "114,000": "64 * 1e4 * row('K = 64')[1]",
        "0.178": "row('K = 64')[1]",
        "0.089": "row('K = 64')[1] / 2",
        "0.083": "row('K = 64')[0]",
    },
    "noise-and-back": {
        "2.0": "row('64 steps')[0] / row('128 steps')[0]",
        "0.073": "row('16 steps')[0]",
        "0.116": "row('8 steps')[2]",
        "0.0011": "row('64 steps')[2]",
        "0.0088": "row('128 steps')[0]",
        "400": "grid(4)[0] / grid(4)[-1]",
        "4.5": "grid(4)[0] / grid(4)[1]",
    },
}

WORDS: dict[str, dict[str, str]] = {
    "divergences": {
        "nearest to the recorded density in $\\mathrm{KL}(p\\,\\Vert\\,\\cdot)$, data first": (
            "(lambda mean: all(abs(math.log(1 / mean) - 1) < abs(math.log(r) - r * mean) for r in (0.8, 0.9)))"
            "(seen(1 / 2.2)[0])"
        ),
        "The second derivative of the mean log-likelihood is $-\\operatorname{Var}[t]$": (
            "abs(score(rate + 1e-3, times, 3.0) - score(rate - 1e-3, times, 3.0) + 2e-3 * seen(rate)[1]) < 1e-8"
        ),
        "lies well within one error of the fitted rate": "abs(rate - 1 / 2.2) < error / 2",
        "the error is large and lopsided": "rate / (rate - error) - 1 > 1.3 * (1 - rate / (rate + error))",
        "a window of little more than one lifetime": "1 < 3 / 2.2 < 1.5",
        "$(1-\\mathrm e^{-1.5\\lambda})/(1-\\mathrm e^{-3\\lambda})=1/(1+\\mathrm e^{-1.5\\lambda})$": (
            "all(abs(math.expm1(-1.5 * r) / math.expm1(-3 * r) - 1 / (1 + math.exp(-1.5 * r))) < 1e-12"
            " for r in (0.2, 2))"
        ),
        "The error of the rate grows": (
            "(lambda early: 1.5**2 * early * (1 - early) < seen(rate)[1])(1 / (1 + math.exp(-1.5 * rate)))"
        ),
    },
    "a-small-magnet": {
        "the shape does not change, only the factor $(L-1)/L$": (
            "all(torch.allclose(curves[f'1 × {L}'], (L - 1) / L * (betas / betas.cosh()) ** 2) for L in (4, 16))"
        ),
        "The top rises with the size and moves to smaller $\\beta$, towards $\\beta_c$ from above": (
            "row('2 ×  2')[0] < row('3 ×  3')[0] < row('4 ×  4')[0] and "
            "row('2 ×  2')[1] > row('3 ×  3')[1] > row('4 ×  4')[1] > math.log(1 + math.sqrt(2)) / 2"
        ),
        "at most $\\beta^2$ times a quarter of the squared width of the spectrum": (
            "all((n * n * curves[f'{n} × {n}'] <= betas**2 * (2 * n * (n - 1)) ** 2).all() for n in (2, 3, 4))"
        ),
        "costs one bond, energy 2": "(levels(1, 8)[0][1] - levels(1, 8)[0][0], levels(1, 8)[1][1]) == (2, 14)",
    },
    "learning-a-machine": {
        "first improves": "row('2 hidden units, CD-1')[0] > row('2 hidden units, CD-1')[1]",
        "and then gets worse": "row('2 hidden units, CD-1')[1] < row('2 hidden units, CD-1')[2]",
        "nats and rising": "longer(2, 25)[0] < longer(2, 25)[1]",
        "and so does CD-25": "abs(row('2 hidden units, CD-25')[2] - row('2 hidden units, exact')[2]) < 0.002",
        "Three others end near 2.254": "all(abs(longer(2, 0, seed)[1] - 2.254) < 5e-4 for seed in (2, 3, 4))",
    },
    "the-bound-by-hand": {
        "every kind explains every flash equally well": "len(set(row('three, alike, round 400')[1:])) == 1",
        "the mean over flashes of $\\mathrm{KL}(p(h)\\Vert p(h\\mid x))$": (
            "abs(float((prior * (prior / best_q(prior, rates, counts, 1.0)).log()).sum(-1).mean())"
            " - row('two, apart  , round 400')[0] + row('two, apart, with the prior as q')[0]) < 2e-4"
        ),
        "rounding breaks the symmetry after some dozens of rounds": "broken(5) < 1e-6 < 1 < broken(100)",
    },
    "a-linear-vae": {
        "Those with the same noise for all.": (
            "all((row(f'weight {w}, {name} noise, as it was') == row(f'weight {w}, {name} noise, other units'))"
            " == (name == 'own ') for w in (1, 2, 4) for name in ('same', 'own '))"
        ),
        "a copy of that one detector": (
            "float(torch.linalg.eigh(gain[:, None] * S * gain).eigenvectors[9, -1] ** 2) > 0.98"
        ),
        "so their rates are near the old ones": (
            "all(abs(new - old) < 0.06 for new, old in zip(row('weight 1, same noise, other units')[1:],"
            " row('weight 1, same noise, as it was')[1:]))"
        ),
        "A weight of 4 is the ordinary bound with noise $4\\Psi$": (
            "torch.allclose(rates(S, noise['own'], 4.0, 8), rates(S, 4 * noise['own'], 1.0, 8))"
        ),
        "anything from 12 to 14": f"12 < {FIRST} < 14",
    },
    "a-chain-forgets": {
        "a late sight says more about the start": "row('push 0.0')[3] < row('push 0.3')[3] < row('push 0.9')[3]",
        "has the mean push/2": (
            "all(abs(float(ring(12, a)[1, 0] - ring(12, a)[-1, 0]) - a / 2) < 1e-12 for a in (0, 0.6))"
        ),
        "the variance $\\frac12-\\frac14\\,\\text{push}^2$": (
            "all(abs(float(" + HOP.format("a") + ") - 0.5 + a**2 / 4) < 1e-12 for a in (0.3, 0.6))"
        ),
        "$|\\mu|\\approx1-\\frac12\\omega^2\\operatorname{Var}$": (
            "abs((1 - 2 ** (-1 / halving(ring(400, 0.9)))) / ((2 * math.pi / 400) ** 2 * 0.2975 / 2) - 1) < 1e-3"
        ),
        "the mean of $\\log T_{ij}/T_{ji}$ over the hops": (
            "all(abs(float(arrow(ring(12, a))) - a / 2 * math.log((1 + a) / (1 - a))) < 1e-9 for a in (0.3, 0.9))"
        ),
        "any number from 70 to 80": "70 < math.log(1000) / row('push 0.3')[0] < 80",
    },
    "drawing-a-magnet": {
        "The naive error is too small by $\\sqrt{\\tau_m}$": "round((row('J = 0.3')[5] / row('J = 0.3')[1]) ** 2) == 5",
        "hundreds of errors away": "200 < row('J = 1.0')[0] / row('J = 1.0')[5] < 1000",
        "in 2,048 sweeps none went over to the other": "len(m) == 2048 and float(m.min()) > -0.5",
        "$M$ is $10^4$ times the relative variance": "abs(10**4 * 0.01**2 - 1) < 1e-12",
        "cheaper by a factor of five": "round(row('K =  1')[1] / row('K = 64')[1] / 64) == 5",
        "scatters by several nats": "float(energy.std()) > 2",
    },
    "noise-and-back": {
        "Heun's by 4": "abs(row('64 steps')[2] / row('128 steps')[2] - 4) < 0.1",
        "by a factor of eight": "round(row('128 steps')[0] / row('64 steps')[2]) == 8",
        "twice the steps, half the excess": "abs(row('64 steps')[4] / row('128 steps')[4] - 2) < 0.1",
        "a quarter of the slope of the mmse times the square of the step in SNR": (
            "abs(float(excess(2 * torch.ones(1, dtype=f64), torch.tensor([3.001, 3.0], dtype=f64)))"
            " / (0.25 * (2 / 7) ** 2 * 0.001**2) - 1) < 1e-3"
        ),
        "$\\frac14(R-1)^2$ for each eigenvalue": (
            "abs(float(excess(2 * torch.ones(1, dtype=f64), torch.tensor([3.001, 3.0], dtype=f64)))"
            " / (0.25 * (7.002 / 7 - 1) ** 2) - 1) < 1e-3"
        ),
    },
}


@cache
def cells(name: str) -> list[Any]:
    return jupytext.read(ROOT / "assignments" / name / f"{name}.md").cells


def hand_graded(name: str) -> list[tuple[str, str, str]]:
    """Of each question that is graded by hand: what is asked (prose and code), the model answer, the rubric."""
    found, asked = [], ""
    for cell in cells(name):
        facts = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and facts.get("grade"):
            answer, rubric = cell.source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0].split("Rubric: ")
            found.append((asked, answer, f"{facts['points']}: {rubric}"))
        else:
            asked = cell.source if cell.source.startswith("## ") else f"{asked}\n{cell.source}"
    return found


def interpretation(name: str) -> tuple[set[str], list[str], str]:
    """The numbers of the question, those of the answer and its rubric that no phrase of WORDS holds, and their text."""
    asked, answer, rubric = hand_graded(name)[-1]
    asked = re.sub(r"tensor\(\s*\[.*?\]", "", asked, flags=re.DOTALL)
    points = {f"{n / 4:g}" for n in range(1, 17)}
    text = answer + rubric.split(": ", 1)[1]
    for phrase in WORDS[name]:
        answer, rubric = answer.replace(phrase, ""), rubric.replace(phrase, "")
    quoted = [*numbers(answer), *(number for number in numbers(rubric) if number not in points)]
    return {number.replace(",", "") for number in numbers(asked)}, quoted, text


def numbers(text: str) -> list[str]:
    """All but single digits, which count and name."""
    plain = INDEX.sub("", FRACTION.sub(r" \1/\2", text))
    return [number for number in QUOTED.findall(plain) if len(number) > 1]


def agrees(quoted: str, value: float) -> bool:
    """Whether the value, rounded to the digits quoted, is the number. Whole numbers may end in zeros of rounding."""
    digits = quoted.replace(",", "").replace("−", "-")
    whole, _, decimals = digits.partition(".")
    zeros = 0 if decimals else len(whole) - len(whole.rstrip("0"))
    unit = 10.0 ** (zeros - len(decimals))
    return abs(value - float(digits)) <= unit / 2 * (1 + 1e-9)


@cache
def ran(name: str) -> dict[str, Any]:
    """The names that the solution notebook leaves, and with them what expressions may use."""
    known: dict[str, Any] = {"__name__": "__main__"}
    code = [cell.source for cell in cells(name) if cell.cell_type == "code"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for number, text in enumerate(code):
            exec(compile(text, f"<cell {number}>", "exec"), known)
    lines = out.getvalue().splitlines()

    def row(start: str) -> list[float]:
        (line,) = (line.strip() for line in lines if line.strip().startswith(start))
        return [float(number) for number in NUMBER.findall(line[len(start) :])]

    helpers = {"row": row, "zero": zero, "LONG": LONG, "longer": longer(code[-1], known), "broken": broken(known)}
    return {**known, **helpers}


def zero(f: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < 0 else (low, middle)
    return low


def longer(cell: str, known: dict[str, Any]) -> Callable[..., list[float]]:
    """`learn` of learning-a-machine, told to go on for LONG steps: nats after nine tenths of them, and after all."""

    @cache
    def run(*asked: Any) -> list[float]:
        text = cell.split("\nfor m in")[0]
        for right, other in (
            ("range(1, 601)", f"range(1, {LONG + 1})"),
            ("(100, 300, 600)", f"({LONG * 9 // 10}, {LONG})"),
        ):
            assert right in text
            text = text.replace(right, other)
        there = dict(known)
        exec(compile(text, "<longer>", "exec"), there)
        return there["learn"](*asked)

    return run


def broken(known: dict[str, Any]) -> Callable[[int], float]:
    """How far apart EM has driven three kinds that began with one rate and different shares."""

    def run(rounds: int) -> float:
        torch = known["torch"]
        prior, rates = (torch.tensor(values, dtype=torch.float64) for values in ([0.1, 0.6, 0.3], [4.0, 4.0, 4.0]))
        for _ in range(rounds):
            prior, rates = known["em_step"](prior, rates, known["counts"])
        return float(rates.max() - rates.min())

    return run


NAMES = sorted(NUMBERS)
SLOW = {"learning-a-machine"}  # its machines learn for LONG steps
assignments = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.verify if name in SLOW else ()) for name in NAMES]
)


def test_every_assignment_is_held():
    assert sorted(path.parent.name for path in (ROOT / "assignments").glob("*/checks.py")) == NAMES == sorted(WORDS)


@pytest.mark.parametrize("name", NAMES)
def test_no_number_is_quoted_but_those_held(name):
    question, quoted, text = interpretation(name)
    assert quoted
    assert [
        number for number in quoted if number not in NUMBERS[name] and number.replace(",", "") not in question
    ] == []
    assert set(NUMBERS[name]) <= set(quoted), "an expression for a number that nobody quotes"
    assert [phrase for phrase in WORDS[name] if phrase not in text] == []


@assignments
def test_the_numbers_quoted_are_those_computed(name):
    values = {quoted: float(eval(text, ran(name))) for quoted, text in NUMBERS[name].items()}
    assert {quoted: value for quoted, value in values.items() if not agrees(quoted, value)} == {}
    for quoted, value in values.items():
        assert not any(agrees(other, value) for other in neighbours(quoted)), f"{quoted}: another would pass too"


def neighbours(quoted: str) -> Iterator[str]:
    """The number with its last digit that is not a zero of a whole number one higher and one lower."""
    decimals = len(quoted.partition(".")[2])
    bare = quoted.replace(",", "").replace("−", "-")
    zeros = 0 if decimals else len(bare) - len(bare.rstrip("0"))
    for change in (-1, 1):
        yield f"{float(bare) + change * 10.0 ** (zeros - decimals):.{decimals}f}".replace("-", "−")


@assignments
def test_what_the_words_say_holds(name):
    assert [phrase for phrase, text in WORDS[name].items() if not eval(text, ran(name))] == []


LETTERED = re.compile(r"\((\w)\) ([\d.]+?)(?: points?)?[:.,](?=\s)")
LISTED = re.compile(r"(?:^|; )([\d.]+)(?: points?)? for ([^;]*)")
SHARE = re.compile(r"\((\d(?:\.\d+)?)( each)?[;)]")


@pytest.mark.parametrize(("name", "which"), [(name, which) for name in NAMES for which in (0, -1)])
def test_the_rubric_adds_up_to_the_points(name, which):
    """The parts to the question's points, and the shares of a part to the part."""
    asked, _, text = hand_graded(name)[which]
    points, rubric = text.split(": ", 1)
    rubric = re.split(r"Part(?:ial)? credit", rubric)[0]
    if rubric.startswith("1 point for each part."):
        letters = set(re.findall(r"\(([a-d])\)", asked))
        parts = dict.fromkeys(letters, 1.0)
    else:
        parts = {letter: float(worth) for letter, worth in LETTERED.findall(rubric)}
    if not parts:
        worths = [float(worth) * (1 + ("each limit" in what)) for worth, what in LISTED.findall(rubric)]
        assert len(worths) >= 3
        assert sum(worths) == float(points)
        return
    assert sum(parts.values()) == float(points)
    for letter, *_ in parts.items():
        said = re.split(r"\([a-d]\) ", rubric.split(f"({letter}) ", 1)[1])[0]
        shares = [float(share) * (1 + bool(each)) for share, each in SHARE.findall(said)]
        assert not shares or sum(shares) == parts[letter], (letter, said)


def test_numbers_are_found_and_compared():
    """Of the tools above: what counts as a number, and how far a number reaches."""
    assert numbers("a 4.48, −3.271 nats, 616,000 in 64 parts; $\\frac12x_{99}$, $\\mathrm e^{-1.5}$") == [
        "4.48",
        "−3.271",
        "616,000",
        "64",
        "1.5",
    ]
    assert agrees("616,000", 615_710)
    assert not agrees("616,000", 615_400)
    assert agrees("−3.271", -3.2710)
    assert not agrees("3.271", -3.2710)
    assert not agrees("0.0109", 0.0110)
    assert math.isclose(zero(lambda x: x**2 - 2, 1, 2), math.sqrt(2))
