"""The example class: handed in as the recipe class.toml says, graded, and compared with what the recipe demands.

Points follow from the assignments' questions; none is typed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handing_in import hand_in

from grading.__main__ import grade, summary
from grading.batch import alone
from grading.held import Unavailable
from grading.limits import DEFAULT
from grading.release import ASSIGNMENTS, checks, generate, names
from grading.reports import NOTHING, safe

__all__ = ["Demand", "compare", "demands", "fingerprint", "recipe", "run"]

ROOT = ASSIGNMENTS.parent


@dataclass(frozen=True)
class Demand:
    """What a submission must get; `points` by question."""

    status: str
    points: Mapping[str, float]


def recipe() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("class.toml").read_text(encoding="utf-8"))


def demands(students: Mapping[str, Any], folder: Path = ASSIGNMENTS) -> dict[tuple[str, str], Demand | None]:
    """By student and assignment; None where nothing is handed in. Raises: ValueError for names that are nowhere."""
    found: dict[tuple[str, str], Demand | None] = {}
    worth = {name: {q.name: q.points for q in checks(name, folder).QUESTIONS} for name in names(folder)}
    for student, name in ((student, name) for student in students for name in worth):
        facts = students[student].get(name)
        if facts is None or "under" in facts:
            found[student, name] = None
            continue
        points = worth[name]
        left, status = facts.get("left", []), facts.get("status", "graded")
        cells = [*facts.get("slips", ()), *facts.get("lost", ())]
        cells += [cell for cell in left if not cell.endswith("-answer")] if left != "all" else []
        lost = set(points) if left == "all" or status == "refused" else {f"{cell}-check" for cell in cells}
        if strange := sorted(lost - set(points)):
            raise ValueError(f"{student}, {name}: there is no question {strange}")
        found[student, name] = Demand(status, {key: 0.0 if key in lost else most for key, most in points.items()})
    return found


def compare(out: Path, wanted: Mapping[tuple[str, str], Demand | None]) -> list[str]:
    """A line for each submission whose row in scores.csv or in the gradebook is another than it must be."""
    rows = list(csv.DictReader((out / "scores.csv").read_text("utf-8-sig").splitlines()))
    table = {(row["student"], row["assignment"]): row for row in rows}
    entered = gradebook(out / "gradebook.db")
    lines = []
    for (student, name), demand in wanted.items():
        row = table.get((safe(student), name), {})
        found = (row.get("status", "no row"), {k: row.get(f"{name}: {k}") for k in demand.points} if demand else {})
        must = (demand.status, {k: f"{v:g}" for k, v in demand.points.items()}) if demand else (NOTHING, {})
        if found != must or row.get("total") != (f"{sum(demand.points.values()):g}" if demand else ""):
            lines.append(f"{student}, {name}: must be {must}, is {found} with the total {row.get('total')!r}")
        if entered.get((student, name)) != (demand and dict(demand.points)):
            lines.append(f"{student}, {name}: the gradebook has {entered.get((student, name))}")
    if more := sorted(set(table) - {(safe(student), name) for student, name in wanted}):
        lines.append(f"rows of nobody: {more}")
    return lines


def gradebook(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """The scores of checks, by student and assignment."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{path}") as book:
        return {
            (handed.student.id, handed.name): {
                grade.name: grade.auto_score for grade in handed.notebooks[0].grades if grade.name.endswith("-check")
            }
            for assignment in book.assignments
            for handed in assignment.submissions
        }


def fingerprint(*folders: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, owner and content of every file and link."""
    found = {}
    for path in (path for folder in folders for path in [folder, *folder.rglob("*")]):
        if "__pycache__" not in path.parts:
            facts = path.lstat()
            data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path)] = (facts.st_mode, facts.st_uid, hashlib.sha256(data).hexdigest())
    return found


def run(submissions: Path, out: Path, workers: int | None = None) -> list[str]:
    """Makes, grades and compares; a line for whatever is not as it must be."""
    facts = recipe()
    wanted, limits = demands(facts["student"]), replace(DEFAULT, seconds=float(facts["seconds"]))
    with alone(submissions):
        for path in submissions.iterdir():
            if not path.name.startswith("."):
                shutil.rmtree(path)
        (out / "gradebook.db").unlink(missing_ok=True)  # one of another version of the class would be in the way
        hand_in(submissions, facts, out, generate())
        kept = (submissions, *(ROOT / name for name in ("assignments", "grading", "lecturecode", "tests/grading")))
        before, start = fingerprint(*kept), time.monotonic()
        results = grade(submissions, out, limits=limits, workers=workers)
        seconds, after = time.monotonic() - start, fingerprint(*kept)
    print(summary(results, out))
    wrong = compare(out, wanted)
    wrong += [f"changed meanwhile: {path}" for path in differing(before, after)]
    handed = sum(demand is not None for demand in wanted.values())
    said = f"{len(wrong)} differences from the recipe" if wrong else "all as the recipe says, and nothing else changed"
    print(f"{len(facts['student'])} students, {handed} submissions, {seconds:.0f} s: {said}")
    return wrong


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="makes, grades and compares the example class")
    parser.add_argument("submissions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args(arguments)
    try:
        wrong = run(options.submissions.resolve(), options.out.resolve(), options.workers)
    except (ValueError, Unavailable) as error:
        print(f"{type(error).__name__ if isinstance(error, Unavailable) else 'grading'}: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
