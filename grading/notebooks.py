"""A handed-in notebook as untrusted JSON: out of it come texts of code, in the order of the released notebook.

Of the handed-in file only the sources of code cells are used; outputs, metadata beyond nbgrader's grade_id, and
everything else are dropped. Locked cells run as they were released, whatever became of them, but checks do not: they
would call the student's functions in the process that has the later questions still to ask. A cell of the student's
own runs after the released cell that it follows; several with one grade_id run one after the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "NotANotebook", "read", "skeleton"]

MOST = 32 * 2**20  # bytes of a notebook, with its figures
PARTS = 2_000_000  # brackets, braces, commas and colons: what a parser would make objects of
CELLS = 1000
SOURCE = 2**18  # characters of one cell


class NotANotebook(ValueError):
    """The file is refused as a whole."""


@dataclass(frozen=True)
class Cell:
    source: str
    grade_id: str = ""
    code: bool = True
    own: bool = True  # what the student may write: a solution, or a cell without nbgrader's metadata
    check: bool = False  # asserts of the released notebook


def read(data: bytes) -> tuple[list[Cell], list[str]]:
    """The cells, and remarks on those that could not be used. Raises: NotANotebook."""
    if len(data) > MOST:
        raise NotANotebook(f"the file has {len(data)} bytes; at most {MOST} are read")
    if sum(map(data.count, (b"[", b"{", b",", b":"))) > PARTS:
        raise NotANotebook("the file has too many parts to be a notebook")
    try:
        notebook = json.loads(data.decode("utf-8-sig"), parse_int=float)
    except (ValueError, RecursionError):
        raise NotANotebook("the file is not JSON") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list) or notebook.get("nbformat") != 4:
        raise NotANotebook("the file is not a notebook of format 4")
    if len(notebook["cells"]) > CELLS:
        raise NotANotebook(f"the notebook has more than {CELLS} cells")
    cells, remarks = [], []
    for number, raw in enumerate(notebook["cells"], 1):
        source = text(raw.get("source")) if isinstance(raw, dict) else None
        if source is None:
            remarks.append(f"cell {number} has no readable source and was left out")
        elif len(source) > SOURCE:
            remarks.append(f"cell {number} is longer than {SOURCE} characters and was left out")
        else:
            facts = nbgrader(raw)
            name = facts.get("grade_id")
            own = not facts or facts.get("solution") is True
            check = facts.get("grade") is True and not own
            name = name if isinstance(name, str) else ""
            cells.append(Cell(source, name, raw.get("cell_type") == "code", own, check))
    return cells, remarks


def text(source: Any) -> str | None:
    """A string or a list of strings; halves of surrogate pairs, which no file can hold, become question marks."""
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    return source.encode("utf-8", "replace").decode() if isinstance(source, str) else None


def nbgrader(cell: dict[str, Any]) -> dict[str, Any]:
    metadata = cell.get("metadata")
    facts = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return facts if isinstance(facts, dict) else {}


def skeleton(release: list[Cell], handed_in: list[Cell]) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """For each released cell its grade_id and the sources to run there, the student's before all under ""; remarks.

    A cell whose metadata were lost is known by its released source.
    """
    places = {cell.grade_id: cell for cell in release if cell.grade_id}
    by_source = {cell.source: cell.grade_id for cell in release if cell.grade_id and cell.source.strip()}
    solutions: dict[str, list[str]] = {name: [] for name in places}
    others: dict[str, list[str]] = {name: [] for name in ["", *places]}
    here, remarks = "", []
    for cell in handed_in:
        name = cell.grade_id if cell.grade_id in places else by_source.get(cell.source, "")
        if not name:
            if cell.code:
                others[here].append(cell.source)
            continue
        here = name
        if places[name].own and places[name].code and cell.code:
            solutions[name].append(cell.source)
    steps = [("", others[""])]
    for name, cell in places.items():
        if not cell.code or cell.check:
            sources = []
        elif cell.own:
            sources = solutions[name]
            if len(sources) != 1:
                remarks.append(f"the code cell {name} is there {len(sources)} times")
        else:
            sources = [cell.source]
        steps += [(name, sources), ("", others[name])]
    return steps, remarks
