"""nbgrader's gradebook: what the checks gave is entered as automatic scores, what a teacher marks is left alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grading.batch import Result, shown
from grading.grade import Assignment
from grading.notebooks import read

__all__ = ["autograded", "record"]

LONGEST = 2**18  # characters of one answer


def record(path: Path, results: Iterable[Result], assignments: dict[str, Assignment]) -> None:
    """Enters every verdict. The assignments and their cells stand in the gradebook already (`release.load`)."""
    from nbgrader.api import Gradebook

    blank = {name: {cell.grade_id: cell.source for cell in read(assignments[name].release)[0]} for name in assignments}
    with Gradebook(f"sqlite:///{path}") as book:
        for result in results:
            book.update_or_create_student(shown(result.student))
            if result.verdict is not None:
                enter(book, result, blank[result.assignment])
        book.db.commit()


def enter(book: Any, result: Result, blank: dict[str, str]) -> None:
    """A written answer waits for the teacher, but one that is as it was released, or is not there, is worth nothing."""
    assert result.verdict is not None
    name, student = result.assignment, shown(result.student)
    with book.db.no_autoflush:  # else it is warned of a submission that is not yet whole
        book.update_or_create_submission(name, student)
    written: dict[str, list[str]] = {}
    for cell in result.cells:
        written.setdefault(cell.grade_id, []).append(cell.source)
    for grade in book.find_submission_notebook(name, name, student).grades:
        mark = result.verdict.marks.get(grade.name)
        if mark is not None:
            score = mark.points
        else:
            empty = all(text.strip() in ("", blank[grade.name].strip()) for text in written.get(grade.name, []))
            score = 0.0 if empty else None
        if grade.auto_score != score:  # nbgrader's own rule: what changed below a manual score is looked at again
            grade.auto_score = score
            grade.needs_manual_grade = score is None or grade.manual_score is not None


def autograded(result: Result, assignment: Assignment) -> bytes:
    """The released notebook with the student's answers in it: what nbgrader's formgrader shows for marking by hand.

    A written answer stands in it as it was typed, between fences, so that no browser takes it for more than text;
    below a check stands what was found.
    """
    assert result.verdict is not None
    written: dict[str, list[str]] = {}
    for cell in result.cells:
        written.setdefault(cell.grade_id, []).append(cell.source)
    notebook = json.loads(assignment.release)
    for cell in notebook["cells"]:
        facts = cell["metadata"].get("nbgrader", {})
        if facts.get("solution"):
            answer = "\n\n".join(written.get(facts["grade_id"], []))[:LONGEST]
            cell["source"] = answer if cell["cell_type"] == "code" else fenced(answer)
        mark = result.verdict.marks.get(facts.get("grade_id"))
        if mark is not None:
            said = f"{mark.points:g} points: {mark.reason}\n"
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": said}]
    return json.dumps(notebook, indent=1).encode()


def fenced(answer: str) -> str:
    longest = max(map(len, re.findall("~+", answer)), default=0)
    fence = "~" * max(3, longest + 1)
    return f"{fence}text\n{answer}\n{fence}"
