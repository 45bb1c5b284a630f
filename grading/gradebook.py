"""nbgrader's gradebook: what the checks gave is entered as automatic scores, what a teacher marks is left alone."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from grading.batch import Result, shown
from grading.grade import Assignment
from grading.reports import unwritten

__all__ = ["Entry", "autograded", "record"]

LONGEST = 2**18  # characters of one answer
WIDTH = 100  # of its lines, as formgrader shows them
LOOSE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "expand_tabs": False}
LOOSE |= {"replace_whitespace": False, "drop_whitespace": False}


@dataclass(frozen=True)
class Entry:
    """A result with what else the gradebook takes: when it was handed in, and the answers whose text has changed."""

    result: Result
    when: datetime | None = None
    reworded: frozenset[str] = frozenset()


def record(path: Path, entries: Iterable[Entry], assignments: dict[str, Assignment]) -> None:
    """Enters every verdict. The assignments and their cells stand in the gradebook already (`release.load`)."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{path}") as book:
        for entry in entries:
            result = entry.result
            book.update_or_create_student(shown(result.student))
            if result.verdict is not None:
                enter(book, entry, unwritten(result, assignments[result.assignment]))
            book.db.commit()


def enter(book: Any, entry: Entry, empty: set[str]) -> None:
    """A written answer waits for the teacher, but one that is as it was released, or is not there, is worth nothing."""
    result = entry.result
    assert result.verdict is not None
    name, student = result.assignment, shown(result.student)
    stamp = {"timestamp": entry.when} if entry.when else {}
    with book.db.no_autoflush:  # else it is warned of a submission that is not yet whole
        book.update_or_create_submission(name, student, **stamp)
    for grade in book.find_submission_notebook(name, name, student).grades:
        mark = result.verdict.marks.get(grade.name)
        without = 0.0 if grade.name in empty else None
        score = without if mark is None else mark.points
        # nbgrader's own rule: what changed below a manual score is looked at again
        if grade.auto_score != score or (grade.name in entry.reworded and grade.manual_score is not None):
            grade.auto_score = score
            grade.needs_manual_grade = score is None or grade.manual_score is not None


def autograded(result: Result, assignment: Assignment) -> bytes:
    """The released notebook with the student's answers in it: what nbgrader's formgrader shows for marking by hand.

    A written answer stands in it as text between fences, so that no browser takes it for more than text;
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
    """As text, in lines that need not be scrolled: in a notebook a paragraph is one line."""
    answer = "\n".join(part for line in answer.split("\n") for part in textwrap.wrap(line, WIDTH, **LOOSE) or [""])
    longest = max(map(len, re.findall("~+", answer)), default=0)
    fence = "~" * max(3, longest + 1)
    return f"{fence}text\n{answer}\n{fence}"
