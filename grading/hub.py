"""What nbgrader's exchange and formgrader look for in a course folder, beside the gradebook and the notebooks.

The exchange of a JupyterHub puts two receipts into each submission that it collects. nbgrader's own grading copies
them; without them feedback does not find back to its student, and formgrader takes a submission for ungraded.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from grading.batch import Result, shown, write
from grading.handed import Handed, fetch
from grading.notebooks import NotANotebook

__all__ = ["listed", "receipts", "reworded"]

MOST = 1024  # bytes of a receipt
STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,6})? UTC")


def receipts(submissions: Path, out: Path, result: Result) -> datetime | None:
    """Copies the two receipts of a collected submission into autograded/, where they are there as plain small files.

    Returns when it was handed in, or None where no time in UTC is to be read: a student may have written anything.
    """
    when = None
    for name in ("timestamp.txt", "submission_secret.txt"):
        place = Handed(result.student, result.assignment, (result.student, result.assignment, name))
        with suppress(NotANotebook):
            data = fetch(submissions, place, MOST)
            write(out / "autograded" / shown(result.student) / result.assignment / name, data)
            if name == "timestamp.txt":
                when = time_of(data)
    return when


def time_of(data: bytes) -> datetime | None:
    stamp = STAMP.fullmatch(data.decode(errors="replace").strip())
    with suppress(ValueError):  # the 31st of June
        if stamp:
            return datetime.fromisoformat(stamp[1] + (stamp[2] or ".0").ljust(7, "0"))
    return None


def reworded(path: Path, new: bytes) -> frozenset[str]:
    """The written answers whose text is another one than in the notebook that lies at `path`, by grade_id."""

    def written(data: bytes) -> dict[str, str]:
        facts = [(cell, cell["metadata"].get("nbgrader", {})) for cell in json.loads(data)["cells"]]
        return {f["grade_id"]: "".join(c["source"]) for c, f in facts if f.get("grade") and f.get("solution")}

    try:
        before = written(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or it was cut short
        return frozenset()
    return frozenset(name for name, text in written(new).items() if before.get(name, text) != text)


def listed(out: Path, names: list[str]) -> None:
    """Formgrader lists the assignments that have a folder in source/, were it an empty one."""
    for name in names:
        (out / "source" / name).mkdir(mode=0o700, parents=True, exist_ok=True)
