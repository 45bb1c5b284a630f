"""Every assignment under assignments/: the solution earns all points, the starter none, a wrong answer loses its own.

The cells run in this process, as a student's notebook would from top to bottom, and a question is asked where its check
stands; inputs and answers cross as they do on the way into the sandbox and out of it.
"""

import ast
import importlib.util
import itertools
import json
import re
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jupytext
import numpy as np
import pytest
import torch
from inside import sandboxed

from grading.batch import uids
from grading.exchange import Refused, dumps, loads
from grading.grade import Assignment, Verdict, grade_one
from grading.judge import Failure, Mark, failed, judge
from grading.release import load

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "assignments").glob("*/checks.py"))
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@cache
def source(name: str) -> Any:
    return jupytext.read(ROOT / "assignments" / name / f"{name}.md")


@cache
def checks(name: str) -> ModuleType:
    return fresh(name)


def fresh(name: str) -> ModuleType:
    path = ROOT / "assignments" / name / "checks.py"
    spec = importlib.util.spec_from_file_location(f"checks_of_{name.replace('-', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(cell: Any) -> dict[str, Any]:
    return cell.metadata.get("nbgrader", {})


@cache
def sources(name: str) -> dict[str, str]:
    """The code of the solution notebook in its order, by grade_id (a number where a cell has none)."""
    cells = [cell for cell in source(name).cells if cell.cell_type == "code"]
    return {facts(cell).get("grade_id", f"cell {k}"): cell.source for k, cell in enumerate(cells)}


@cache
def starter(name: str) -> dict[str, str]:
    """The same as released: solutions are replaced by nbgrader's own stub, by nbgrader's own code."""
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

    notebook = jupytext.read(ROOT / "assignments" / name / f"{name}.md")
    for step in (ClearSolutions(), ClearHiddenTests()):
        notebook, _ = step.preprocess(notebook, {})
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    left = [cell for cell in notebook.cells if "SOLUTION" in cell.source or "HIDDEN TESTS" in cell.source]
    assert not left, "a solution was left in the starter"
    return {facts(cell).get("grade_id", f"cell {k}"): cell.source for k, cell in enumerate(cells)}


def run(cells: dict[str, str], module: ModuleType, strict: bool) -> dict[str, Mark]:
    """The mark of every question. Where `strict`, a cell that fails is an error; else it defines nothing more."""
    names: dict[str, Any] = {"__name__": "__main__", "display": lambda *values, **options: None}
    questions = {question.name: question for question in module.QUESTIONS}
    marks = {}
    for grade_id, text in cells.items():
        if not strict and len(marks) == len(questions):
            break  # what follows is for the reader's eyes
        try:
            exec(compile(text, f"<{grade_id}>", "exec"), names)
        except Exception:
            if strict:
                raise
        if grade_id in questions:
            marks[grade_id] = ask(questions[grade_id], names)
    return marks


def ask(question: Any, names: dict[str, Any]) -> Mark:
    answers: dict[int, Any] = {}
    for number, case in enumerate(question.cases):
        inputs = loads(dumps(dict(case.inputs)), torch.from_numpy)
        torch.manual_seed(0)
        try:
            answers[number] = loads(dumps(eval(question.ask, {**names, **inputs})))
        except Refused:
            answers[number] = failed("Refused")
        except Exception as error:
            answers[number] = failed(type(error).__name__)
    return judge(question, answers, "no answer")


@cache
def full(name: str) -> dict[str, Mark]:
    return run(sources(name), checks(name), strict=True)


def slips() -> list[Any]:
    return [
        pytest.param(name, question, slip, id=f"{name}: {question}: {slip}")
        for name in NAMES
        for question, answers in checks(name).WRONG.items()
        for slip in answers
    ]


def test_there_are_assignments():
    assert {"divergences", "a-small-magnet", "learning-a-machine", "the-bound-by-hand"} <= set(NAMES)
    assert sorted(path.parent.name for path in (ROOT / "assignments").glob("*/*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_scores_full_marks(name):
    marks = full(name)
    assert set(marks) == {question.name for question in checks(name).QUESTIONS}
    for question in checks(name).QUESTIONS:
        assert marks[question.name] == Mark(question.points, "right"), question.name


@pytest.mark.parametrize("name", NAMES)
def test_the_starter_scores_zero(name):
    assert list(starter(name)) == list(sources(name))
    marks = run(starter(name), checks(name), strict=False)
    assert {mark.points for mark in marks.values()} == {0.0}
    assert {mark.reason.rsplit(": ")[-1] for mark in marks.values()} <= {
        "raised NotImplementedError",
        "raised NameError",
    }


@pytest.mark.parametrize(("name", "question", "slip"), slips())
def test_a_slip_loses_its_question_and_no_other(name, question, slip):
    solution = question.removesuffix("-check")
    assert solution in sources(name)
    wrong = checks(name).WRONG[question][slip]
    marks = run({**sources(name), solution: wrong}, checks(name), strict=False)
    assert marks[question].points == 0, "the slip went unseen"
    assert not marks[question].reason.endswith(("raised NameError", "raised SyntaxError")), marks[question].reason
    assert {k: m for k, m in marks.items() if k != question} == {k: m for k, m in full(name).items() if k != question}


@pytest.mark.parametrize("name", NAMES)
def test_each_checked_question_has_two_slips(name):
    wrong = checks(name).WRONG
    assert set(wrong) == {question.name for question in checks(name).QUESTIONS}
    for question, answers in wrong.items():
        assert len(set(answers.values())) >= 2, question


@pytest.mark.parametrize("name", NAMES)
def test_the_visible_checks_help_and_do_not_suffice(name):
    """Each stops one of the slips at least, before anything is handed in, and some slips are left to grading."""
    seen = {
        question: [stopped(name, question, text) for text in answers.values()]
        for question, answers in checks(name).WRONG.items()
    }
    assert all(any(answers) for answers in seen.values()), seen
    assert not all(all(answers) for answers in seen.values())


def stopped(name: str, question: str, wrong: str) -> bool:
    """Whether the check that the student sees fails on a wrong answer."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for grade_id, text in {**sources(name), question.removesuffix("-check"): wrong}.items():
        try:
            exec(compile(text, f"<{grade_id}>", "exec"), names)
        except Exception:
            return True
        if grade_id == question:
            break
    return False


@pytest.mark.parametrize("name", NAMES)
def test_metadata_and_points_agree(name):
    from nbgrader.nbgraderformat import SCHEMA_VERSION, MetadataValidator

    notebook = source(name)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"nbgrader", "tags"}
        if facts(cell):
            assert facts(cell)["schema_version"] == SCHEMA_VERSION == 3
    MetadataValidator().validate_nb(notebook)
    given = [facts(cell) for cell in notebook.cells if facts(cell)]
    ids = [fact["grade_id"] for fact in given]
    assert len(set(ids)) == len(ids)
    graded = {fact["grade_id"]: fact for fact in given if fact["grade"]}
    checked = {key: fact["points"] for key, fact in graded.items() if not fact["solution"]}
    assert checked == {question.name: question.points for question in checks(name).QUESTIONS}
    assert all(key.removesuffix("-check") in ids and fact["locked"] for key, fact in graded.items() if key in checked)
    assert 3 <= len(graded) <= 6
    assert sum(fact["points"] for fact in graded.values()) == 20


@pytest.mark.parametrize("name", NAMES)
def test_solutions_stand_between_marks(name):
    """Every cell to be filled in has one pair of marks, no other cell has any, and no check carries an answer."""
    for cell in source(name).cells:
        begins, ends = cell.source.count("### BEGIN SOLUTION"), cell.source.count("### END SOLUTION")
        assert begins == ends == (1 if facts(cell).get("solution") else 0), cell.source
        if cell.cell_type == "code":
            assert facts(cell), "a code cell without nbgrader's metadata"
            assert facts(cell)["solution"] or facts(cell)["locked"]
        elif facts(cell).get("grade"):
            assert "Rubric: " in cell.source


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_the_book_it_builds_on_exist(name):
    pages = [HEADING.findall(path.read_text(encoding="utf-8")) for path in (ROOT / "book").glob("*/*.md")]
    titles = {headings[0]: set(headings) for headings in pages if headings}
    text = "\n".join(cell.source for cell in source(name).cells if cell.cell_type == "markdown")
    (line,) = (line for line in text.split("\n") if line.startswith("**Builds on**"))
    here, named = [], 0
    for section, page in re.findall(r"“([^”]+)”|on the page \*([^*]+)\*", line):
        if section:
            here.append(section)
            continue
        assert page in titles, page
        assert set(here) <= titles[page], (page, set(here) - titles[page])
        named, here = named + len(here), []
    assert named
    assert not here


@pytest.mark.parametrize("name", NAMES)
def test_references_are_independent_finite_and_the_same_again(name):
    """checks.py takes no formula from the package or the notebook; inputs and references come out the same again."""
    module, again = checks(name), fresh(name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    taken = {
        part.module if isinstance(part, ast.ImportFrom) else alias.name
        for part in ast.walk(tree)
        if isinstance(part, ast.Import | ast.ImportFrom)
        for alias in part.names
    }
    assert all(str(name).split(".")[0] in {*ALLOWED} for name in taken), taken
    assert not any(isinstance(part, ast.Name) and part.id in {"open", "exec", "eval"} for part in ast.walk(tree))
    for question, other in zip(module.QUESTIONS, again.QUESTIONS, strict=True):
        for case, same in zip(question.cases, other.cases, strict=True):
            assert dumps([dict(case.inputs), case.answer]) == dumps([dict(same.inputs), same.answer])
            assert all(np.isfinite(part).all() for part in leaves(loads(dumps(case.answer))))
        answers = {dumps(case.answer) for case in question.cases}
        assert len(answers) >= 2, f"{question.name}: one answer serves all cases"


ALLOWED = ("collections", "decimal", "fractions", "functools", "grading", "itertools", "math", "numpy", "torch")


@pytest.mark.parametrize("name", NAMES)
def test_another_reference_would_be_seen(name):
    """A reference that is off by ten times the tolerance no longer equals the solution's answer."""
    module = checks(name)
    for question in module.QUESTIONS:
        answers = {n: nudged(case.answer, 10 * question.tolerance) for n, case in enumerate(question.cases)}
        assert isinstance(judge(question, answers, "none").points, float)
        assert judge(question, answers, "none").points == 0, question.name
        assert judge(question, {}, "none").points == 0
        assert judge(question, {0: Failure("raised ValueError")}, "none").points == 0


def leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [np.asarray(value)] if not isinstance(value, str) else []


def nudged(answer: Any, by: float) -> Any:
    value = loads(dumps(answer))
    if isinstance(value, dict):
        return {key: nudged(part, by) for key, part in value.items()}
    if isinstance(value, list):
        return [nudged(part, by) for part in value]
    if isinstance(value, str):
        return value + "?"
    array = np.asarray(value)
    return ~array if array.dtype.kind == "b" else array + (by or 1e-3) * (np.abs(array).max(initial=0.0) or 1.0)


@cache
def released() -> dict[str, Assignment]:
    return load()


@cache
def numbers() -> Any:
    return itertools.cycle(uids())


def handed_in(name: str, filled: dict[str, str]) -> Verdict:
    """The verdict of the sandbox on the released notebook with some of its cells filled in."""
    notebook = json.loads(released()[name].release)
    places = {facts(SimpleNamespace(**cell)).get("grade_id"): cell for cell in notebook["cells"]}
    for grade_id, text in filled.items():
        places[grade_id]["source"] = text
    return grade_one(json.dumps(notebook).encode(), released()[name], next(numbers()))


def tasks(name: str) -> list[str]:
    return [question.name for question in checks(name).QUESTIONS]


@sandboxed
@pytest.mark.parametrize("name", NAMES)
def test_the_sandbox_says_the_same(name):
    """One notebook with a right cell, a slip and a cell that was left empty: each question has its own fate."""
    right, slip, *rest = tasks(name)
    filled = {question.removesuffix("-check"): sources(name)[question.removesuffix("-check")] for question in rest[1:]}
    filled[right.removesuffix("-check")] = sources(name)[right.removesuffix("-check")]
    filled[slip.removesuffix("-check")] = next(iter(checks(name).WRONG[slip].values()))
    said = handed_in(name, filled)
    assert said.status == "graded"
    assert {question for question, mark in said.marks.items() if mark.points} == {right, *rest[1:]}
    assert all(said.marks[question] == full(name)[question] for question in (right, *rest[1:]))
    assert all(said.marks[question].reason.endswith("raised NotImplementedError") for question in rest[:1])
    assert said.marks[slip].points == 0


@sandboxed
@pytest.mark.verify
@pytest.mark.parametrize("name", NAMES)
def test_every_slip_in_the_sandbox(name):
    """The solution has all points, the starter none, and none has a notebook with a slip in each of its questions."""
    solutions = {question.removesuffix("-check"): question for question in tasks(name)}
    said = handed_in(name, {cell: sources(name)[cell] for cell in solutions})
    assert (said.status, said.score, said.remarks) == ("graded", said.maximum, ())
    said = handed_in(name, {})
    assert (said.status, said.score) == ("graded", 0)
    wrong = {cell: list(checks(name).WRONG[question].values()) for cell, question in solutions.items()}
    for number in range(max(map(len, wrong.values()))):
        said = handed_in(name, {cell: slips[number % len(slips)] for cell, slips in wrong.items()})
        assert (said.status, said.score) == ("graded", 0), number
