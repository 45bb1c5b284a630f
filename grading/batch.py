"""A class: every submission is graded in its own sandbox under its own uid, and its verdict kept as JSON at once.

A verdict that was kept is taken again where the notebook, the assignment, the limits and the code that graded are the
same, so a batch that was killed goes on where it stopped, and a second run gives the same scores.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from grading.exchange import MOST, dumps
from grading.grade import Assignment, Verdict, grade_one, verdict
from grading.handed import Handed, apart, fetch, find
from grading.judge import Mark
from grading.limits import DEFAULT, Limits
from grading.notebooks import Cell, NotANotebook, read

__all__ = ["Result", "alone", "grade_class", "shown", "uids", "write"]

FIRST, COUNT = 2_100_000_000, 40_000  # above what systems and directories of users give out
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """`verdict` is None where nothing was handed in. The cells are the student's, as texts."""

    student: str
    assignment: str
    verdict: Verdict | None = None
    cells: tuple[Cell, ...] = ()
    again: bool = False  # taken from an earlier run


def grade_class(
    submissions: Path,
    assignments: Mapping[str, Assignment],
    out: Path,
    limits: Limits = DEFAULT,
    workers: int | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[Result]:
    """One result for each student and assignment, in the order of `find`, as they come; kept under out/<student>/.

    Raises: Unavailable where this machine cannot hold submissions; ValueError where there are none or `out` lies there.
    """
    apart(submissions, out)
    found = find(submissions, assignments)
    for name, raw in alike(handed.student for handed in found).items():
        raise ValueError(f"{len(raw)} folders of students are all shown as {name!r}; rename them")
    os.makedirs(out, mode=0o700, exist_ok=True)
    fresh = itertools.cycle(numbers or uids())
    facts = {name: identity(assignment, limits) for name, assignment in assignments.items()}

    def grade(handed: Handed) -> Result:
        assignment = assignments[handed.assignment]
        try:
            return graded(submissions, handed, assignment, out, limits, next(fresh), facts[handed.assignment])
        except Exception as error:
            error.add_note(f"while grading {shown(handed.student)}, {handed.assignment}")
            raise

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            yield from pool.map(grade, found)
        finally:
            pool.shutdown(cancel_futures=True)


def graded(
    submissions: Path, handed: Handed, assignment: Assignment, out: Path, limits: Limits, uid: int, asked: str
) -> Result:
    if not handed.parts:
        return Result(handed.student, handed.assignment)
    kept = out / handed.student / f"{handed.assignment}.json"
    cells: tuple[Cell, ...] = ()
    try:
        data = fetch(submissions, handed)
        content = hashlib.sha256(data).hexdigest()
    except NotANotebook as error:
        said = verdict("refused", assignment, {}, "the notebook was refused", (str(error),), 0.0)
        again, content = False, ""
    else:
        earlier = recall(kept, content, asked)
        said, again = earlier or grade_one(data, assignment, uid, limits), earlier is not None
        if said.status != "refused":
            cells = tuple(read(data)[0])
    if not again:
        facts = {"student": shown(handed.student), "assignment": assignment.name, "notebook": content, "asked": asked}
        write(kept, json.dumps({**facts, "verdict": asdict(said)}, indent=1).encode())
    return Result(handed.student, handed.assignment, said, cells, again)


def recall(path: Path, notebook: str, asked: str) -> Verdict | None:
    """The kept verdict, where it is whole and on the same notebook, assignment, limits and code."""
    try:
        facts = json.loads(path.read_bytes())
        if (facts["notebook"], facts["asked"]) != (notebook, asked):
            return None
        marks = {name: Mark(**mark) for name, mark in facts["verdict"]["marks"].items()}
        return Verdict(**{**facts["verdict"], "marks": marks, "remarks": tuple(facts["verdict"]["remarks"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps every other batch out of it. The system frees it when this process ends, however.

    Raises: ValueError where another is at work there.
    """
    import fcntl  # not there on Windows, where nothing is graded

    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run is grading into {folder}; wait until it has ended, or end it") from None
        yield
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """All of it or nothing, also where the power fails; for the teacher's eyes."""
    os.makedirs(path.parent, mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def identity(assignment: Assignment, limits: Limits) -> str:
    """A hash of all that a verdict follows from besides the notebook."""
    total = hashlib.sha256(code() + repr(limits).encode() + assignment.release)
    for question in assignment.questions:
        total.update(repr((question.name, question.ask, question.points, question.tolerance)).encode())
        for case in question.cases:
            total.update(dumps([dict(case.inputs), case.answer], 64 * MOST))
    return total.hexdigest()


@cache
def code() -> bytes:
    """The grader's, and the package's that notebooks import."""
    total = hashlib.sha256()
    for folder in ("grading", "lecturecode"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            total.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return total.digest()


def uids(table: Path = Path("/proc/self/uid_map")) -> Sequence[int]:
    """Numbers that are nobody's, a new one for each submission: high ones, or the highest that a container has."""
    try:
        rows = [list(map(int, line.split())) for line in table.read_text().splitlines()]
    except OSError:
        rows = []
    ends = [(first, first + count) for first, _, count in rows] or [(0, 2**32)]
    if os.geteuid() == 0 and not any(first <= FIRST and end >= FIRST + COUNT for first, end in ends):
        first, end = max(ends, key=lambda pair: pair[1] - pair[0])
        numbers: Sequence[int] = range(max(first, 1000, end - COUNT // 10), end)
    else:
        numbers = range(FIRST, FIRST + COUNT)
    import pwd  # not there on Windows, where nothing is graded

    taken = {user.pw_uid for user in pwd.getpwall()}
    free = [number for number in numbers if number not in taken]
    start = 101 * os.getpid() % len(free)  # two batches at once should not share them
    return free[start:] + free[:start]


def alike(names: Iterable[str]) -> dict[str, set[str]]:
    """Names that a table or a gradebook could not tell apart."""
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(shown(name), set()).add(name)
    return {name: raw for name, raw in found.items() if len(raw) > 1}


def shown(name: str) -> str:
    """The name of a folder as text: what is no character becomes a question mark."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
