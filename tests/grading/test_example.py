"""The example class: a few of its students in `make test`, all of them, with honest neighbours, in `make verify`."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import example
import pytest
from example import compare, demands, differing, fingerprint, recipe
from handing_in import FORMS, grafted, hand_in, hostile, wrong
from inside import sandboxed

from grading.__main__ import grade
from grading.batch import Result
from grading.limits import DEFAULT
from grading.release import ASSIGNMENTS, checks, generate, load, names

pytestmark = sandboxed

CLASS = recipe()
STUDENTS = CLASS["student"]
LIMITS = replace(DEFAULT, seconds=float(CLASS["seconds"]))
FEW = ("honest-01", "half-01", "starter-01", "missing-02", "slip-sign-01", "hostile-08", "hostile-09", "hostile-10")


@dataclass
class Graded:
    submissions: Path
    out: Path
    assignments: Path
    students: dict[str, Any]
    results: list[Result]
    changed: list[str]

    def again(self) -> list[Result]:
        return grade(self.submissions, self.out, self.assignments, LIMITS)


def graded(folder: Path, students: dict[str, Any], assignments: Path, before: tuple[Path, ...] = ()) -> Graded:
    submissions, out = folder / "submissions", folder / "grades"
    hand_in(submissions, {**CLASS, "student": students}, out, generate(assignments))
    places = (submissions, *before)
    first = fingerprint(*places)
    results = grade(submissions, out, assignments, LIMITS)
    return Graded(submissions, out, assignments, students, results, differing(first, fingerprint(*places)))


def only(student: dict[str, Any], assignment: str) -> dict[str, Any]:
    return {key: value for key, value in student.items() if key in ("what", assignment)}


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Graded:
    """Those of some students who have to do with one assignment."""
    folder = tmp_path_factory.mktemp("a few")
    shutil.copytree(ASSIGNMENTS / "divergences", folder / "assignments" / "divergences")
    students = {name: only(STUDENTS[name], "divergences") for name in FEW}
    return graded(folder, students, folder / "assignments", (folder / "assignments",))


def test_a_few_get_what_the_recipe_says(few):
    assert compare(few.out, demands(few.students, few.assignments)) == []
    assert few.changed == []
    scores = [result.verdict.score for result in few.results if result.verdict]
    assert max(scores) == sum(question.points for question in checks("divergences", few.assignments).QUESTIONS)
    assert len(set(scores)) >= 4


def test_a_second_run_gives_the_same_scores_from_the_first(few):
    before = (few.out / "scores.csv").read_bytes()
    again = few.again()
    assert [result.verdict for result in again] == [result.verdict for result in few.results]
    ran = {result.student for result in again if result.verdict and not result.again}
    assert ran == {"hostile-10"}  # a link is never opened, so nobody knows whether it still leads to the same
    assert (few.out / "scores.csv").read_bytes() == before
    assert compare(few.out, demands(few.students, few.assignments)) == []


def test_a_difference_is_named(few, tmp_path):
    wanted = demands(few.students, few.assignments)
    honest, missing = ("honest-01", "divergences"), ("missing-02", "divergences")
    right = wanted[honest]
    assert right is not None
    for change, student in (
        ({honest: replace(right, status="crashed")}, honest[0]),
        ({honest: replace(right, points={**right.points, "fit-check": 0.0})}, honest[0]),
        ({honest: None}, honest[0]),
        ({missing: right}, missing[0]),
    ):
        lines = compare(few.out, {**wanted, **change})
        assert lines
        assert all(line.startswith(f"{student}, divergences: ") for line in lines)
    (line,) = compare(few.out, {key: demand for key, demand in wanted.items() if key != missing})
    assert line == f"rows of nobody: [{missing!r}]"
    for name in ("scores.csv", "gradebook.db"):
        shutil.copy(few.out / name, tmp_path)
    with closing(sqlite3.connect(tmp_path / "gradebook.db")) as book, book:
        book.execute("UPDATE grade SET auto_score = 100 WHERE auto_score = 0")
    assert "half-01, divergences: the gradebook has" in "\n".join(compare(tmp_path, wanted))


def test_the_same_class_is_made_again(few, tmp_path):
    before = fingerprint(few.submissions)
    shutil.rmtree(few.submissions)
    hand_in(few.submissions, {**CLASS, "student": few.students}, few.out, generate(few.assignments))
    assert fingerprint(few.submissions) == before


KEYS = {"slips", "left", "attack", "at", "form", "file", "link", "flat", "under", "status", "lost"}


def test_the_recipe_has_what_a_class_has():
    kinds: dict[str, set[str]] = {name: set() for name in names()}
    for student, own in STUDENTS.items():
        for name, entry in ((name, own[name]) for name in kinds if name in own):
            kinds[name].add("right" if not entry else student.split("-")[0].strip("="))
            assert set(entry) <= KEYS, (student, name)
            for cell, slip in entry.get("slips", {}).items():
                assert slip in wrong(name)[f"{cell}-check"], (student, name, cell)
            assert entry.get("form", "") in FORMS
            attack = entry.get("attack", "class/writes")
            assert attack in hostile() or attack.removeprefix("class/") in CLASS["attack"], attack
        assert set(own) <= {"what", *kinds}, student
        assert own["what"]
    wanted = demands(STUDENTS)
    assert all({"right", "slip", "starter", "hostile"} <= found for found in kinds.values()), kinds
    assert len(STUDENTS) >= 20
    assert len({demand.status for demand in wanted.values() if demand}) == 8
    assert {name for (_, name), demand in wanted.items() if demand} == set(names())
    for change in ({"lost": ["no such question"]}, {"slips": {"no-such-question": "sign"}}):
        with pytest.raises(ValueError, match="there is no question"):
            demands({"x": {"divergences": change}})


ANSWER = "def fit(times, window):\n    return 'the answer'\n"


def test_an_attack_takes_the_place_of_an_answer():
    """One that was written for the demonstration defines, and answers, the question that it stands in."""
    kept = grafted(hostile()["processes/kill-all"], ANSWER, {})
    assert ANSWER in kept
    assert "SIGKILL" in kept
    instead = grafted(hostile()["ending/exit-when-asked"], ANSWER, {})
    assert "def fit(weights, *rest):" in instead
    assert ANSWER not in instead
    with pytest.raises(ValueError, match="attacks nothing here"):
        grafted("print(normalise(1))\n", ANSWER, {})


def outside(attack: str, folder: Path) -> subprocess.CompletedProcess:
    """The same source as in the class, with nothing around it but a folder of its own."""
    places = {name: str(folder / name) for name in ("repository", "grades", "submissions")}
    source = grafted(CLASS["attack"][attack]["source"], ANSWER, places) + "\nprint(fit(1, 2))\n"
    command = [sys.executable, "-I", "-c", source]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_without_walls_the_search_finds_the_answer_and_the_writer_writes(tmp_path):
    """Both attacks do what they say where nothing holds them: in the class it is the sandbox that does."""
    found = tmp_path / "submissions" / "ann" / "divergences.md"
    found.parent.mkdir(parents=True)
    found.write_text(f"# Notes\n\n{ANSWER}\n")
    assert outside("searches", tmp_path).stdout == "the answer\n"
    (tmp_path / "grades").mkdir()
    with closing(sqlite3.connect(tmp_path / "grades" / "gradebook.db")) as book, book:
        book.execute("CREATE TABLE grade (auto_score, manual_score)")
        book.execute("INSERT INTO grade VALUES (0, 0)")
    assert outside("writes", tmp_path).stdout == "0.0\n"
    with closing(sqlite3.connect(tmp_path / "grades" / "gradebook.db")) as book:
        assert book.execute("SELECT * FROM grade").fetchall() == [(100, 100)]
    assert (tmp_path / "repository" / "assignments" / "hostile-was-here.py").read_text() == "hostile"


def test_the_program_says_what_differs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(example, "run", lambda *_: ["honest-01, divergences: must be so"])
    assert example.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "honest-01, divergences: must be so\n"
    monkeypatch.setattr(example, "run", lambda *_: [])
    assert example.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0


def neighbours() -> dict[str, Any]:
    """All students, and after each hostile one somebody who solves the same assignment and is graded beside it."""
    found = dict(STUDENTS)
    for student, own in STUDENTS.items():
        if "hostile" in student:
            name = next(name for name in own if name != "what")
            found[f"{student}-neighbour"] = {"what": "is graded beside the one before", name: {}}
    return found


ROWS = """
SELECT * FROM student s JOIN submitted_assignment a ON a.student_id = s.id JOIN submitted_notebook n
ON n.assignment_id = a.id JOIN grade g ON g.notebook_id = n.id WHERE s.id = ? ORDER BY g.cell_id
"""


def rows(out: Path, student: str) -> list[tuple]:
    with closing(sqlite3.connect(out / "gradebook.db")) as book:
        return book.execute(ROWS, (student,)).fetchall()


@pytest.fixture(scope="module")
def everyone(tmp_path_factory) -> tuple[Graded, list[tuple]]:
    """All of them, into a gradebook in which another student's work stands already, marked by hand."""
    from nbgrader.api import Gradebook

    folder = tmp_path_factory.mktemp("everyone")
    (folder / "grades").mkdir()
    load(gradebook=folder / "grades" / "gradebook.db")
    with Gradebook(f"sqlite:///{folder / 'grades' / 'gradebook.db'}") as book:
        book.add_student("earlier-01", last_name="of another year")
        with book.db.no_autoflush:
            book.add_submission("divergences", "earlier-01")
        marked: Any = book.find_grade("merging", "divergences", "divergences", "earlier-01")
        marked.manual_score, marked.needs_manual_grade = 2.5, False
        book.db.commit()
    earlier, root = rows(folder / "grades", "earlier-01"), ASSIGNMENTS.parent
    places = tuple(root / name for name in ("assignments", "grading", "lecturecode", "tests/grading"))
    return graded(folder, neighbours(), ASSIGNMENTS, places), earlier


@pytest.mark.verify
def test_everyone_gets_what_the_recipe_says_and_nothing_else_changes(everyone):
    found, earlier = everyone
    assert compare(found.out, demands(found.students)) == []
    assert found.changed == []
    assert len(earlier) == 6
    assert any(2.5 in row for row in earlier)
    assert rows(found.out, "earlier-01") == earlier
    pages = [path.read_text(encoding="utf-8") for path in found.out.rglob("*.html")]
    assert len(pages) == sum(result.verdict is not None for result in found.results)
    assert all("<script" not in page and "default-src 'none'" in page for page in pages)


@pytest.mark.verify
def test_everyone_gets_the_same_again(everyone):
    found, earlier = everyone
    before = (found.out / "scores.csv").read_bytes()
    again = found.again()
    assert [result.verdict for result in again] == [result.verdict for result in found.results]
    assert {result.student for result in again if result.verdict and not result.again} == {"hostile-10"}
    assert (found.out / "scores.csv").read_bytes() == before
    assert rows(found.out, "earlier-01") == earlier


@pytest.mark.verify
def test_who_is_honest_gets_the_same_without_the_hostile_ones(everyone, tmp_path):
    found, _ = everyone
    honest = {name: own for name, own in STUDENTS.items() if "hostile" not in name}
    assert len(honest) >= 15
    alone = graded(tmp_path, honest, ASSIGNMENTS)
    marks = {(r.student, r.assignment): r.verdict for r in alone.results}
    assert marks == {(r.student, r.assignment): r.verdict for r in found.results if r.student in honest}
    assert not any(result.again for result in alone.results)


@pytest.mark.verify
def test_the_program_makes_grades_and_compares(tmp_path, monkeypatch, capsys):
    students = {name: only(STUDENTS[name], "divergences") for name in ("honest-01", "slip-sign-01", "hostile-10")}
    monkeypatch.setattr(example, "recipe", lambda: {**CLASS, "student": students})
    places = [str(tmp_path / "in"), str(tmp_path / "out")]
    for earlier in (0, 2):
        assert example.main(places) == 0
        said = capsys.readouterr().out
        assert f"{earlier} of them as in an earlier run" in said
        assert said.splitlines()[-1].startswith("3 students, 3 submissions, ")
        assert said.splitlines()[-1].endswith("all as the recipe says, and nothing else changed")
    students["slip-sign-01"] = {"divergences": {"lost": ["fit"]}}  # a demand that its notebook does not meet
    assert example.main(places) == 1
    told = capsys.readouterr()
    assert told.err.startswith("slip-sign-01, divergences: must be ")
    assert "2 differences from the recipe" in told.out
