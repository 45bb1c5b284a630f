"""What a class handed in: a folder for each student, in it <assignment>/<assignment>.ipynb or <assignment>.ipynb.

The first form is nbgrader's own, and is taken where both are there. Names starting with a dot and files beside the
students' folders are passed over. Nothing is followed: a link, a pipe, a device or a second name of another file in
the place of a folder or a notebook is refused, for it might show one student's work, or the teacher's, to another.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from grading.notebooks import MOST, NotANotebook

__all__ = ["Handed", "apart", "fetch", "find", "strangers"]


@dataclass(frozen=True)
class Handed:
    """`parts` lead to the file from the folder of submissions; none where nothing was handed in."""

    student: str
    assignment: str
    parts: tuple[str, ...]


def apart(submissions: Path, out: Path) -> None:
    """Raises: ValueError where nothing can be handed in, or where results would lie among what was."""
    students(submissions)
    if out.resolve().is_relative_to(submissions.resolve()):
        raise ValueError(f"the results may not lie in {submissions}, where the submissions are")


def students(submissions: Path) -> list[str]:
    """Raises: ValueError where there is no folder or nobody in it."""
    if not submissions.is_dir():
        raise ValueError(f"{submissions} is no folder; it should hold one folder for each student")
    found = [entry.name for entry in os.scandir(submissions) if not entry.name.startswith(".")]
    found = [name for name in found if (submissions / name).is_symlink() or (submissions / name).is_dir()]
    if not found:
        raise ValueError(f"{submissions} holds no folder; it should hold one folder for each student")
    return sorted(found)


def find(submissions: Path, assignments: Iterable[str]) -> list[Handed]:
    """Each student with each assignment, in the order of their names."""
    found = []
    for student in students(submissions):
        for name in sorted(assignments):
            forms = ((student, name, f"{name}.ipynb"), (student, f"{name}.ipynb"))
            if (submissions / student).is_symlink():
                found.append(Handed(student, name, forms[0]))
                continue
            there = (form for form in forms if os.path.lexists(submissions.joinpath(*form[:2])))
            found.append(Handed(student, name, next(there, ())))
    return found


def strangers(submissions: Path, assignments: Iterable[str]) -> list[str]:
    """Notebooks and folders under a name that no assignment has, in a student's folder: a teacher will want to know."""
    known = {*assignments, *(f"{name}.ipynb" for name in assignments)}
    found = []
    for student in students(submissions):
        if not (submissions / student).is_symlink():
            inside = [entry for entry in os.scandir(submissions / student) if not entry.name.startswith(".")]
            inside = [entry for entry in inside if entry.name.endswith(".ipynb") or entry.is_dir(follow_symlinks=False)]
            found += [f"{student}/{entry.name}" for entry in inside if entry.name not in known]
    return sorted(found)


def fetch(submissions: Path, handed: Handed, most: int = MOST) -> bytes:
    """The bytes of the file. Raises: NotANotebook where it is no file of its own, or too large."""
    plain = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC  # flags that Windows has not
    with ExitStack() as opened:

        def step(part: str | Path, flags: int, above: int | None) -> int:
            try:
                here = os.open(part, flags, dir_fd=above)
            except OSError as error:
                what = "folder" if flags & os.O_DIRECTORY else "file"
                raise NotANotebook(f"there is no plain {what} there (it may be a link): {error.strerror}") from None
            opened.callback(os.close, here)
            return here

        place = step(submissions, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY, None)
        for part in handed.parts[:-1]:
            place = step(part, plain | os.O_DIRECTORY, place)
        file = step(handed.parts[-1], plain | os.O_NONBLOCK, place)
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise NotANotebook("what was handed in is no plain file")
        if facts.st_nlink != 1:
            raise NotANotebook("the file has a second name elsewhere (a hard link); copy the folder of submissions")
        if facts.st_size > most:
            raise NotANotebook(f"the file has {facts.st_size} bytes; at most {most} are read")
        with open(file, "rb", closefd=False) as stream:
            return stream.read(most + 1)  # one more than `read` takes, should it grow meanwhile
