"""What people read of a graded class: one table for the teacher, a page for each student and assignment.

Both show the student's own words as text and nothing else: a page has no script, loads nothing, and forbids both; a
cell of the table that a spreadsheet would take for a formula starts with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from html import escape

from grading.batch import Result, shown
from grading.grade import Assignment
from grading.notebooks import Cell, read

__all__ = ["feedback", "scores", "written"]

LONGEST = 2**20  # characters of sources on a page
NOTHING = "not handed in"
STYLE = (
    "body{max-width:50em;margin:2em auto;padding:0 1em;font:16px/1.5 sans-serif}"
    "pre{overflow-x:auto;padding:.6em;border:1px solid #bbb;white-space:pre-wrap;overflow-wrap:anywhere}"
    "td,th{padding:.2em 1em .2em 0;text-align:left;vertical-align:top}"
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def written(release: bytes) -> dict[str, float]:
    """The points of each answer that a teacher marks, by the grade_id of its cell in the released notebook."""
    facts = [cell["metadata"].get("nbgrader", {}) for cell in json.loads(release)["cells"]]
    return {fact["grade_id"]: float(fact["points"]) for fact in facts if fact.get("grade") and fact.get("solution")}


def scores(results: Iterable[Result], assignments: Mapping[str, Assignment]) -> bytes:
    """scores.csv: a row for each student and assignment; `total` is of what was checked, the rest is `to mark`."""
    names = [(name, question.name) for name in sorted(assignments) for question in assignments[name].questions]
    columns = [f"{name}: {question}" for name, question in names]
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["student", "assignment", "status", "total", "maximum", "to mark", "remarks", *map(safe, columns)])
    for result in results:
        by_teacher = sum(written(assignments[result.assignment].release).values())
        row = [safe(shown(result.student)), safe(result.assignment)]
        said = result.verdict
        if said is None:
            lines.writerow([*row, NOTHING, "", "", "", ""] + [""] * len(names))
            continue
        row += [
            said.status,
            number(said.score),
            number(said.maximum),
            number(by_teacher),
            safe("; ".join(said.remarks)),
        ]
        marks = {(result.assignment, name): mark.points for name, mark in said.marks.items()}
        lines.writerow([*row, *(number(marks[name]) if name in marks else "" for name in names)])
    return ("\ufeff" + table.getvalue()).encode()  # with the mark by which spreadsheets know UTF-8


def number(value: float) -> str:
    return f"{value:g}"


def safe(text: str) -> str:
    """Text in one line that no spreadsheet takes for a formula."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return "'" + text if text.lstrip()[:1] in tuple("=+-@|%＝＋－＠") else text


def feedback(result: Result, assignment: Assignment) -> bytes:
    """The page of a submission: points, reasons, remarks, and the student's sources as text."""
    said = result.verdict
    if said is None:
        raise ValueError(f"{shown(result.student)} handed in nothing for {result.assignment}")
    most = {question.name: question.points for question in assignment.questions}
    rows = [(name, f"{number(mark.points)} of {number(most[name])}", mark.reason) for name, mark in said.marks.items()]
    by_teacher = written(assignment.release)
    rows += [(name, f"– of {number(points)}", "your teacher reads this") for name, points in by_teacher.items()]
    body = [
        f"<p>{text(shown(result.student))}: {number(said.score)} of {number(said.maximum)} points "
        f"for what was checked; status: {text(said.status)}.</p>"
    ]
    body += ["<ul>", *(f"<li>{text(remark)}</li>" for remark in said.remarks), "</ul>"] if said.remarks else []
    body += ["<table>", "<tr><th>question</th><th>points</th><th>what was found</th></tr>"]
    body += ["<tr>" + "".join(f"<td>{text(part)}</td>" for part in row) + "</tr>" for row in rows] + ["</table>"]
    given = {cell.source for cell in read(assignment.release)[0] if not cell.grade_id}
    body += sources(cell for cell in result.cells if cell.own and (cell.grade_id or cell.source not in given))
    return PAGE.format(title=text(assignment.name), style=STYLE, body="\n".join(body)).encode("utf-8", "replace")


def sources(cells: Iterable[Cell]) -> list[str]:
    parts, left = [], LONGEST
    for cell in cells:
        if left > 0:
            heading = cell.grade_id[:100] or "a cell of your own"
            parts.append(f"<h3>{text(heading)}</h3><pre>{text(cell.source[:left])}</pre>")
            left -= len(cell.source)
    parts += ["<p>The rest is too long to be shown.</p>"] if left <= 0 else []
    return ["<h2>What you handed in</h2>", *parts] if parts else []


def text(words: str) -> str:
    """Words as a page shows them: no tag, no entity, no character that is not seen but a line's end and a tab."""
    kept = "".join(letter if letter in "\n\t" or letter.isprintable() else "\ufffd" for letter in words)
    return escape(kept)
