"""What people read of a graded class: one table for the teacher, a page for each student and assignment.

Both show the student's own words as text and nothing else: a page has no script, loads nothing, and forbids both; a
cell of the table that a spreadsheet would take for a formula starts with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from grading.batch import Result, shown
from grading.grade import Assignment
from grading.notebooks import Cell, read

__all__ = ["feedback", "row", "safe", "scores", "unwritten", "written"]

LONGEST = 2**20  # characters of sources on a page
NOTHING = "not handed in"
EMPTY, WAITING = "nothing was written here", "your teacher reads this"  # of an answer in words
HEADING = re.compile(r"^(#{1,2}) (.+?)(?: \([\d.]+ points?\))?$", re.MULTILINE)
SAID = {
    "graded": "The notebook ran to its end.",
    "refused": "Nothing of the file was run.",
    "timed out": "Something took too long and was stopped.",
    "out of memory": "It took more memory than it may and was ended there.",
    "too many processes": "It started more processes than it may and was ended there.",
    "too many files": "It made more files than it may and was ended there.",
    "too much output": "It wrote more than it may and was ended there.",
    "crashed": "Its Python ended before the notebook did.",
}
STYLE = (
    ":root{color-scheme:light dark}"
    "body{max-width:46em;margin:2em auto;padding:0 1em;font:1rem/1.55 system-ui,sans-serif;overflow-wrap:break-word}"
    "h1{line-height:1.2}h2{margin-top:2em}h3{margin:1.6em 0 .4em}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{padding:.35em 1em .35em 0;text-align:left;vertical-align:top;border-bottom:1px solid #8886;font-weight:400}"
    "tr:first-child th{font-weight:700}td:nth-child(2){white-space:nowrap}h1,p,li{overflow-wrap:anywhere}"
    "pre{margin:0;padding:.6em .8em;border:1px solid #8888;border-radius:.3em;font-size:.9rem;white-space:pre-wrap;"
    "overflow-wrap:anywhere}"
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
<main>
<h1>{heading}</h1>
{body}
</main>
</body>
</html>
"""


def written(release: bytes) -> dict[str, float]:
    """The points of each answer that a teacher marks, by the grade_id of its cell in the released notebook."""
    facts = [cell["metadata"].get("nbgrader", {}) for cell in json.loads(release)["cells"]]
    return {fact["grade_id"]: float(fact["points"]) for fact in facts if fact.get("grade") and fact.get("solution")}


def unwritten(result: Result, assignment: Assignment) -> set[str]:
    """The written answers that are as they were released, or are not there."""
    released = {cell.grade_id: cell.source.strip() for cell in read(assignment.release)[0]}
    words = {(cell.grade_id, cell.source.strip()) for cell in result.cells}
    done = {name for name, source in words if source and source != released.get(name)}
    return set(written(assignment.release)) - done


def row(result: Result, assignments: Mapping[str, Assignment]) -> list[str]:
    """`total` is of what was checked, `to mark` what a teacher may give."""
    assignment, said = assignments[result.assignment], result.verdict
    start = [safe(shown(result.student)), safe(result.assignment)]
    if said is None:
        return [*start, NOTHING, "", "", "", ""] + [""] * len(columns(assignments))
    empty = unwritten(result, assignment)
    to_mark = sum(points for name, points in written(assignment.release).items() if name not in empty)
    start += [said.status, number(said.score), number(said.maximum), number(to_mark), safe("; ".join(said.remarks))]
    marks = {(result.assignment, name): mark.points for name, mark in said.marks.items()}
    return [*start, *(number(marks[name]) if name in marks else "" for name in columns(assignments))]


def columns(assignments: Mapping[str, Assignment]) -> list[tuple[str, str]]:
    return [(name, question.name) for name in sorted(assignments) for question in assignments[name].questions]


def scores(rows: Iterable[Sequence[str]], assignments: Mapping[str, Assignment]) -> bytes:
    """scores.csv: a `row` for each student and assignment."""
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    names = [safe(f"{name}: {question}") for name, question in columns(assignments)]
    lines.writerow(["student", "assignment", "status", "total", "maximum", "to mark", "remarks", *names])
    lines.writerows(rows)
    return ("\ufeff" + table.getvalue()).encode()  # with the mark by which spreadsheets know UTF-8


def number(value: float) -> str:
    return f"{value:g}"


def safe(text: str) -> str:
    """Text in one line that no spreadsheet takes for a formula."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return "'" + text if text.lstrip()[:1] in tuple("=+-@|%＝＋－＠") else text


def sections(release: bytes) -> tuple[str, dict[str, str]]:
    """The title of the released notebook, and for each of its cells the heading under which it stands."""
    title, here, places = "", "", {}
    for cell in json.loads(release)["cells"]:
        if cell["cell_type"] == "markdown":
            for mark, words in HEADING.findall("".join(cell["source"])):
                title, here = (title or words, here) if mark == "#" else (title, words)
        if name := cell["metadata"].get("nbgrader", {}).get("grade_id"):
            places[name] = here
    return title, places


def feedback(result: Result, assignment: Assignment) -> bytes:
    """The page of a submission: points, reasons, remarks, and the student's sources as text."""
    said = result.verdict
    if said is None:
        raise ValueError(f"{shown(result.student)} handed in nothing for {result.assignment}")
    title, places = sections(assignment.release)
    most = {question.name: question.points for question in assignment.questions}
    by_teacher = written(assignment.release)
    rows = {name: (f"{number(mark.points)} of {number(most[name])}", mark.reason) for name, mark in said.marks.items()}
    empty = unwritten(result, assignment)
    for name, points in by_teacher.items():
        nothing = (f"0 of {number(points)}", EMPTY)
        rows[name] = nothing if name in empty else (f"– of {number(points)}", WAITING)
    words = f"{shown(result.student)}: {number(said.score)} of {number(said.maximum)} points for what was checked"
    open_points = sum(points for name, points in by_teacher.items() if name not in empty)
    more = f"; up to {number(open_points)} more are given by your teacher" if open_points else ""
    body = [
        f"<p>{text(words + more)}.</p>",
        f"<p>Status: {text(said.status)}. {SAID.get(said.status, '')}</p>",
    ]
    body += ["<ul>", *(f"<li>{text(remark)}</li>" for remark in said.remarks), "</ul>"] if said.remarks else []
    body += ["<h2>Question by question</h2>", "<table>"]
    body += ["<tr>" + "".join(f'<th scope="col">{name}</th>' for name in ("question", "points", "found")) + "</tr>"]
    for name in (name for name in places if name in rows):
        first = f'<th scope="row">{text(places[name] or name)}</th>'
        body.append(f"<tr>{first}{''.join(f'<td>{text(part)}</td>' for part in rows[name])}</tr>")
    body += ["</table>"]
    given = {cell.source for cell in read(assignment.release)[0] if not cell.grade_id}
    own = [cell for cell in result.cells if cell.own and (cell.grade_id or cell.source not in given)]
    body += sources(own, places)
    facts = {"title": text(f"{assignment.name}: {shown(result.student)}"), "heading": text(title or assignment.name)}
    return PAGE.format(**facts, style=STYLE, body="\n".join(body)).encode("utf-8", "replace")


def sources(cells: Iterable[Cell], places: Mapping[str, str]) -> list[str]:
    parts, left = [], LONGEST
    for cell in cells:
        if left > 0:
            heading = places.get(cell.grade_id) or cell.grade_id[:100] or "A cell of your own"
            parts.append(f"<h3>{text(heading)}</h3>\n<pre>{text(cell.source[:left])}</pre>")
            left -= len(cell.source)
    parts += ["<p>The rest is too long to be shown.</p>"] if left <= 0 else []
    return ["<h2>What you handed in</h2>", *parts] if parts else []


def text(words: str) -> str:
    """Words as a page shows them: no tag, no entity, no character that is not seen but a line's end and a tab."""
    kept = "".join(letter if letter in "\n\t" or letter.isprintable() else "\ufffd" for letter in words)
    return escape(kept)
