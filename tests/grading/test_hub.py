"""A course folder of nbgrader's exchange: receipts go along, and an answer that changed below a mark waits again."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from course import answer, assignments, hand_in
from inside import sandboxed
from nbgrader.api import Gradebook
from test_batch import LIMITS

from grading.__main__ import grade

pytestmark = sandboxed
STAMP = "2026-04-24 09:15:30.250000 UTC"


def receive(folder: Path, stamp: str, secret: str = "s3cret") -> None:
    (folder / "timestamp.txt").write_text(stamp)
    (folder / "submission_secret.txt").write_text(secret)


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> tuple[Path, Path, Path]:
    root = tmp_path_factory.mktemp("hub")
    submissions = hand_in(root / "submitted", ann=answer(), bob=answer(), cid=answer(), dee=answer())
    receive(submissions / "ann" / "small", STAMP)
    (root / "gradebook-of-another").write_text("secret of another")
    os.symlink(root / "gradebook-of-another", submissions / "bob" / "small" / "submission_secret.txt")
    (submissions / "bob" / "small" / "timestamp.txt").write_text("2026-06-31 09:15:30 UTC")
    receive(submissions / "cid" / "small", "x" * 5000, "y" * 5000)
    source, out = assignments(root / "assignments"), root / "grades"
    grade(submissions, out, source, LIMITS)
    return submissions, source, out


def when(out: Path) -> dict[str, Any]:
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as book:
        return {found.student.id: found.timestamp for found in book.assignment_submissions("small")}


def test_receipts_are_copied_and_the_time_is_entered(collected):
    _, _, out = collected
    ann = out / "autograded" / "ann" / "small"
    assert (ann / "timestamp.txt").read_text() == STAMP
    assert (ann / "submission_secret.txt").read_text() == "s3cret"
    assert when(out)["ann"] == datetime(2026, 4, 24, 9, 15, 30, 250000)


def test_links_and_large_files_are_no_receipts_and_no_day_is_made_up(collected):
    _, _, out = collected
    found = {path.relative_to(out / "autograded").as_posix() for path in (out / "autograded").rglob("*.txt")}
    assert found == {"ann/small/timestamp.txt", "ann/small/submission_secret.txt", "bob/small/timestamp.txt"}
    assert when(out) == {"ann": datetime(2026, 4, 24, 9, 15, 30, 250000), "bob": None, "cid": None, "dee": None}


def test_formgrader_finds_the_assignment(collected):
    assert (collected[2] / "source" / "small").is_dir()


def test_an_answer_that_changed_below_a_mark_waits_again(collected):
    submissions, source, out = collected

    def marks() -> dict[str, Any]:
        with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as book:
            found = {name: book.find_grade("why", "small", "small", name) for name in ("ann", "bob")}
            return {name: (mark.manual_score, bool(mark.needs_manual_grade)) for name, mark in found.items()}

    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as book:
        for name in ("ann", "bob"):
            mark: Any = book.find_grade("why", "small", "small", name)
            mark.manual_score, mark.needs_manual_grade = 2.5, False
        book.db.commit()
    (submissions / "ann" / "small" / "small.ipynb").write_bytes(answer(words="They add up to one, by the third axiom."))
    grade(submissions, out, source, LIMITS)
    assert marks() == {"ann": (2.5, True), "bob": (2.5, False)}
