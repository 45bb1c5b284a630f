"""What the two pages on assignments say is so: numbers, names and words are the grader's, and their examples run."""

import csv
import importlib.util
import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import fresh_uid, sandboxed

from grading import notebooks
from grading.grade import OVER, grade_one
from grading.judge import Case, Question, compare, failed
from grading.limits import DEFAULT, MIB
from grading.release import ASSIGNMENTS, load
from grading.reports import EMPTY, NOTHING, SAID, WAITING, scores
from lecturecode import exercises

ROOT = Path(__file__).resolve().parents[2]
STUDENTS, TEACHERS = ((ROOT / "book" / "course" / f"{name}.md").read_text("utf-8") for name in ("students", "teachers"))
BLOCK = re.compile(r"^(?P<fence>`{3,})(?P<kind>[^`\n]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


def blocks(page: str, kind: str) -> list[str]:
    return [found["text"] for found in BLOCK.finditer(page) if found["kind"] == kind]


def rows(page: str, heading: str) -> list[list[str]]:
    """The table that begins with this first column's name."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def test_the_students_page_states_the_limits():
    said = dict(rows(STUDENTS, "what"))
    numbers = {what.split(",")[0]: [int(n) for n in re.findall(r"\d+", limit)] for what, limit in said.items()}
    assert numbers == {
        "time": [DEFAULT.seconds],
        "memory": [DEFAULT.memory // MIB],
        "processes and threads together": [DEFAULT.processes],
        "printed text": [DEFAULT.output // MIB],
        "files": [DEFAULT.files, DEFAULT.file_size // MIB],
        "the notebook itself": [notebooks.MOST // MIB, notebooks.CELLS, notebooks.SOURCE],
    }
    units = {
        what: re.findall(r"[A-Za-z]+", limit)[0] for what, limit in said.items() if "MiB" in limit or "sec" in limit
    }
    assert set(units.values()) <= {"seconds", "MiB", "together"}


def test_the_students_page_lists_every_status():
    listed = [name for row in rows(STUDENTS, "status") for name in row[0].split(", ")]
    assert sorted(listed) == sorted([*SAID, NOTHING])


def test_the_students_page_quotes_the_judge():
    array, nan = np.ones((3, 4)), np.array([np.nan, 1.0])
    given = {
        "right",
        compare(2.0, 1.0, 0.0),
        compare(np.ones(3), array, 0.0),
        compare("text", 1.0, 0.0),
        compare(np.array([np.nan, 1.0]), np.ones(2), 0.0),
        compare(np.ones(2), nan, 0.0),
        compare([1.0], [1.0, 2.0], 0.0),
        *(failed(name).reason for name in ("ValueError", "NotImplementedError", "NameError")),
        OVER["timed out"],
        OVER["crashed"],
        "no answer: timed out",
        EMPTY,
        WAITING,
    }
    assert {row[0] for row in rows(STUDENTS, "reason")} == given
    assert f"$10^{{{np.log10(Question('q', 'q', (Case({}, 1.0),)).tolerance):.0f}}}$ unless" in STUDENTS


def test_the_students_page_shows_a_self_check_as_it_is(capsys):
    (block,) = (text for text in blocks(STUDENTS, "python") if ">>>" in text)
    name, answer = re.findall(r'check\("([^"]+)", ([\d.]+)\)', block)[0]
    assert exercises.check(name, float(answer)) is False
    assert block.splitlines()[-2:] == [*capsys.readouterr().out.splitlines(), "False"]


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> tuple[str, Any]:
    """The assignment of the teachers' page, copied to the letter, and the tests of all assignments, looking at it."""
    (name,) = set(re.findall(r"`assignments/([\w-]+)/checks\.py`", TEACHERS))
    assert f"`assignments/{name}/{name}.md`" in TEACHERS
    (notebook,) = blocks(TEACHERS, "text")
    (judging,) = (text for text in blocks(TEACHERS, "python") if "QUESTIONS" in text)
    root = tmp_path_factory.mktemp("repository")
    folder = root / "assignments" / name
    folder.mkdir(parents=True)
    (folder / f"{name}.md").write_text(notebook, "utf-8")
    (folder / "checks.py").write_text(judging, "utf-8")
    shutil.copytree(ROOT / "book", root / "book", ignore=lambda *found: {n for n in found[1] if n[0] == "_"})
    spec = importlib.util.spec_from_file_location("demands", ROOT / "tests" / "assignments" / "test_assignments.py")
    assert spec is not None
    assert spec.loader is not None
    demands: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demands)
    demands.ROOT = root
    return name, demands


def test_the_example_assignment_meets_every_demand(example):
    name, demands = example
    done = 0
    for title, demand in vars(demands).items():
        wanted = inspect.signature(demand).parameters if title.startswith("test_") else {}
        marks = {mark.name for mark in getattr(demand, "pytestmark", ())}
        if [*wanted] == ["name"] and not marks & {"skipif", "verify"}:  # the sandbox is asked below
            demand(name)
            done += 1
    assert done >= 8
    for question, slips in demands.checks(name).WRONG.items():
        for slip in slips:
            demands.test_a_slip_loses_its_question_and_no_other(name, question, slip)


@sandboxed
def test_the_sandbox_gives_the_example_what_the_students_page_says(example):
    name, demands = example
    assignment = load(demands.ROOT / "assignments")[name]
    _, _, first, second = (text for text in blocks(STUDENTS, "python") if ">>>" not in text)
    said = []
    for answer in (first, second):
        notebook = json.loads(assignment.release)
        (cell,) = (c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == "log-mean")
        cell["source"] = answer
        verdict = grade_one(json.dumps(notebook).encode(), assignment, fresh_uid())
        mark = verdict.marks["log-mean-check"]
        said.append((verdict.status, f"{mark.points:g} of 8", mark.reason))
    assert said == [("graded", "0 of 8", "case 2 of 3: not finite"), ("graded", "8 of 8", "right")]
    assert all(f"{points}" in STUDENTS and f"`{reason}`" in STUDENTS for _, points, reason in said)


def test_the_answers_on_the_students_page_get_what_it_says(example):
    name, demands = example
    starter, check, first, second = (text.strip() for text in blocks(STUDENTS, "python") if ">>>" not in text)
    released, judging = demands.starter(name), demands.checks(name)
    question, *_ = judging.QUESTIONS
    assert (released[name], released[question.name]) == (starter, check)
    for source, points in ((first, 0), (second, question.points)):
        cells = {**released, name: source}
        above = [*cells.values()][: [*cells].index(question.name) + 1]
        exec("\n".join(above), {"__name__": "cells"})  # the visible check passes
        mark = demands.run(cells, judging, strict=False)[question.name]
        assert mark.points == points
        assert f"`{mark.reason}`" in STUDENTS
        assert f"{points:g} of {question.points:g}" in STUDENTS


def test_the_columns_of_the_scores_are_named():
    header = next(csv.reader([scores([], {}).decode("utf-8-sig").splitlines()[0]]))
    (said,) = re.findall(r"The columns of `scores\.csv` are ((?:`[^`]+`(?:, )?)+)", TEACHERS)
    assert re.findall("`([^`]+)`", said) == header


def test_commands_and_files_on_the_pages_exist():
    import make

    for page in (STUDENTS, TEACHERS):
        assert set(re.findall(r"\bmake ([a-z]+)\b(?= SUB|`|  )", page)) <= set(make.TARGETS)
    for path in re.findall(r"`((?:tests|assignments)/[\w/.-]*)`", TEACHERS):
        assert "log-mean" in path or (ROOT / path).exists(), path
    assert "`make grade`" in TEACHERS
    for name in set(re.findall(r"\b(divergences|a-linear-vae)\b", STUDENTS + TEACHERS)):
        assert (ASSIGNMENTS / name / f"{name}.md").is_file()
