"""A class: verdicts that are kept, tables and pages that are harmless, a gradebook for the teacher."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from course import answer, assignments, hand_in
from demo import DEMO, HONEST, RELEASE, SOLUTIONS, cell, cells, notebook
from inside import MIB, fresh_uid, sandboxed

from grading import batch
from grading.__main__ import grade, main
from grading.batch import Result, alone, grade_class, recall, shown, uids
from grading.grade import Unavailable, Verdict
from grading.gradebook import fenced
from grading.handed import fetch, find, strangers
from grading.judge import Mark
from grading.limits import Limits
from grading.notebooks import MOST, Cell, NotANotebook
from grading.reports import feedback, row, scores

pytestmark = sandboxed

LIMITS = Limits(seconds=60, memory=1024 * MIB, processes=32, output=MIB, files=500, file_size=16 * MIB)
WRONG = "def normalise(weights):\n    return weights\n"


def demo_class(folder: Path, **submissions: bytes) -> Path:
    for student, data in submissions.items():
        (folder / student).mkdir(parents=True)
        (folder / student / "demonstration.ipynb").write_bytes(data)
    return folder


def run(submissions: Path, out: Path, **facts) -> list[Result]:
    numbers = [fresh_uid() for _ in range(20)]
    return list(grade_class(submissions, {"demonstration": DEMO}, out, LIMITS, facts.pop("workers", 2), numbers))


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> tuple[Path, Path, list[Result]]:
    """A small class, graded by the same function as `make grade` calls."""
    folder = tmp_path_factory.mktemp("a class")
    html = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    loud = f"print({html!r})\n{SOLUTIONS['normalise']}"
    submissions = hand_in(
        folder / "submissions",
        **{
            "ann": answer(),
            "bobx": answer(WRONG, words=""),
            "=HYPERLINK(1)": answer(),
            "<b>eve<": answer(loud, words=html),
            "fay": b"not a notebook " + html.encode(),
            "gus": answer("import os\nos._exit(0)\n"),
        },
    )
    (submissions / "hal").mkdir()
    (submissions / "hal" / "Small (1).ipynb").write_bytes(answer())
    (submissions / ".git").mkdir()
    (submissions / "list.txt").write_text("of the class")
    (submissions / "ivy").mkdir()
    (submissions / "ivy" / "small.ipynb").symlink_to(submissions / "ann" / "small" / "small.ipynb")
    out = folder / "grades"
    return submissions, out, grade(submissions, out, assignments(folder / "assignments"), LIMITS)


EXPECTED = {
    "ann": ("graded", 2.0),
    "bobx": ("graded", 0.0),
    "=HYPERLINK(1)": ("graded", 2.0),
    "<b>eve<": ("graded", 2.0),
    "fay": ("refused", 0.0),
    "gus": ("crashed", 0.0),
    "hal": None,
    "ivy": ("refused", 0.0),
}


def test_each_submission_gets_its_score_and_status(graded):
    _, out, results = graded
    found = {r.student: r.verdict and (r.verdict.status, r.verdict.score) for r in results}
    assert found == EXPECTED
    kept = json.loads((out / "students" / "ann" / "small.json").read_text())
    assert (kept["student"], kept["verdict"]["score"]) == ("ann", 2.0)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()} == {0o600}
    assert not list(out.rglob(".writing-*"))


def test_a_second_run_takes_every_verdict_again(graded, monkeypatch):
    submissions, out, results = graded
    before = (out / "scores.csv").read_bytes()
    monkeypatch.setattr(batch, "grade_one", lambda *_: pytest.fail("a submission was run again"))
    again = grade(submissions, out, out.parent / "assignments", LIMITS)
    assert [r.verdict for r in again] == [r.verdict for r in results]
    assert [r.again for r in again] == [bool(r.verdict) and r.student != "ivy" for r in again]
    assert (out / "scores.csv").read_bytes() == before


def test_the_table_is_no_formula(graded):
    _, out, _ = graded
    rows = list(csv.DictReader((out / "scores.csv").read_text("utf-8-sig").splitlines()))
    assert len(rows) == len(EXPECTED)
    by_name = {row["student"]: row for row in rows}
    assert "'=HYPERLINK(1)" in by_name
    assert by_name["ann"] | {"remarks": ""} == {
        "student": "ann",
        "assignment": "small",
        "status": "graded",
        "total": "2",
        "maximum": "2",
        "to mark": "3",
        "remarks": "",
        "small: normalise-check": "2",
    }
    assert by_name["bobx"]["to mark"] == "0"  # no word was written
    assert (by_name["hal"]["status"], by_name["hal"]["total"]) == ("not handed in", "")


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", " =1", "\r=1", "＝1", '=cmd|"/c calc"!A1', "\n@x"]
)
def test_no_name_becomes_a_formula(name):
    result = Result(name, "demonstration", Verdict("graded", 3.0, 3.0, {}, (name,)))
    course = {"demonstration": DEMO}
    table = scores([row(result, course)], course).decode("utf-8-sig")
    (found,) = csv.DictReader(io.StringIO(table, newline=""))
    for value in (found["student"], found["remarks"]):
        assert value.strip()[0] in "'?", value


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: bytes):
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words += data


TAGS = "html head meta title style body main h1 h2 h3 p ul li table tr th td pre"
ALLOWED = frozenset(TAGS.split(" "))


def test_a_page_shows_what_was_handed_in_and_runs_nothing_of_it(graded):
    _, out, _ = graded
    for student, expected in EXPECTED.items():
        if expected:
            page = Tags((out / "students" / student / "small.html").read_bytes())
            assert set(page.tags) <= ALLOWED
            assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "scope"}
            assert student in page.words
            assert expected[0] in page.words
    eve = Tags((out / "students" / "<b>eve<" / "small.html").read_bytes())
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in eve.words
    assert "2 of 2" in eve.words
    assert "– of 3" in eve.words
    bob = Tags((out / "students" / "bobx" / "small.html").read_bytes())
    assert "0 of 3" in bob.words
    assert "nothing was written here" in bob.words
    assert "Small" in bob.words
    fay = (out / "students" / "fay" / "small.html").read_text()
    assert "the file is not JSON" in fay
    assert "alert" not in fay


HOSTILE = [
    "</pre><script>x</script>",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "\x00\x1b[31m\u202e",
    "' onload=x '",
    '"',
    "</title>",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_a_page_is_made_of_texts(words):
    said = Verdict("graded", 1.0, 3.0, {"normalise-check": Mark(1.0, words)}, (words,))
    result = Result(words, "demonstration", said, (Cell(words), Cell(words, words), Cell("x" * 3 * MIB), Cell("late")))
    page = Tags(feedback(result, DEMO))
    assert set(page.tags) <= ALLOWED
    assert page.tags["pre"] == 3
    assert "The rest is too long" in page.words
    seen = "".join(c if c.isprintable() else "\ufffd" for c in words)
    assert page.words.count(seen) >= 4
    assert "\u202e" not in page.words


def test_the_gradebook_holds_the_checked_scores_and_leaves_the_rest_to_the_teacher(graded):
    from nbgrader.api import Gradebook

    submissions, out, _ = graded
    address = f"sqlite:///{out / 'gradebook.db'}"

    def grades() -> dict:
        with Gradebook(address) as book:
            return {
                submission.student.id: {
                    grade.name: (grade.auto_score, grade.manual_score, bool(grade.needs_manual_grade))
                    for grade in submission.notebooks[0].grades
                }
                for submission in book.assignment_submissions("small")
            }

    first = grades()
    assert set(first) == {name for name, expected in EXPECTED.items() if expected}
    assert first["ann"] == {"normalise-check": (2.0, None, False), "why": (None, None, True)}
    assert first["bobx"] == {"normalise-check": (0.0, None, False), "why": (0.0, None, False)}
    with Gradebook(address) as book:
        assert (book.find_assignment("small").max_score, len(book.students)) == (5.0, len(EXPECTED))
        marked: Any = book.find_grade("why", "small", "small", "ann")
        marked.manual_score, marked.needs_manual_grade = 2.5, False
        book.db.commit()
    grade(submissions, out, out.parent / "assignments", LIMITS)
    assert grades() == first | {"ann": first["ann"] | {"why": (None, 2.5, False)}}


def test_what_a_teacher_marks_by_hand_is_inert_too(graded):
    from nbconvert import HTMLExporter

    _, out, _ = graded
    words = [
        "<script>alert(1)</script><img src=x onerror=alert(2)>",
        "~~~~\n<script>alert(1)</script>\n~~~",
        "$\\href{x}{y}$",
    ]
    page = out / "autograded" / "<b>eve<" / "small" / "small.ipynb"
    shown_page = HTMLExporter(template_name="basic").from_filename(str(page))[0]
    assert "alert(1)" in shown_page
    assert "<script>alert" not in shown_page
    assert "<img" not in shown_page
    assert "2 points: right" in shown_page
    for text in words:
        first, *middle, last = fenced(text).split("\n")
        assert first == last + "text"
        assert "\n".join(middle) == text
        assert not any(line.strip().startswith(last) for line in middle)


def test_a_paragraph_typed_as_one_line_needs_no_scrolling():
    paragraph = "Since $a-b$ is never negative, " * 20
    middle = fenced(f"(a) Yes.\n\n{paragraph}\n").split("\n")[1:-1]
    assert max(map(len, middle)) <= 100
    assert len(middle) > 6
    assert "".join(middle) == f"(a) Yes.{paragraph}"


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from demo import DEMO
from test_batch import LIMITS
from grading.batch import grade_class
submissions, out = map(Path, sys.argv[1:])
list(grade_class(submissions, {{"demonstration": DEMO}}, out, LIMITS, 1, range(140_000, 140_009)))
"""


def test_a_killed_batch_goes_on_where_it_stopped(tmp_path):
    slow = notebook([*cells(), cell("import time\ntime.sleep(3)")])
    submissions = demo_class(tmp_path / "in", a=HONEST, b=RELEASE, c=slow, d=notebook(cells(normalise=WRONG)))
    out, here = tmp_path / "out", Path(__file__).resolve().parent
    code = SCRIPT.format(root=str(here.parents[1]), tests=str(here))
    process = subprocess.Popen([sys.executable, "-c", code, submissions, out])
    try:
        limit = time.monotonic() + 60
        while not (out / "b" / "demonstration.json").exists():
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)  # the third one is in its sandbox
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "c").exists()
    results = run(submissions, out)
    assert [r.again for r in results] == [True, True, False, False]
    assert [r.verdict and r.verdict.score for r in results] == [3.0, 0.0, 3.0, 2.0]
    assert [r.verdict for r in run(submissions, tmp_path / "afresh")] == [r.verdict for r in results]


def test_what_changed_is_graded_again_and_a_spoiled_verdict_is_none(tmp_path, monkeypatch):
    submissions, out = demo_class(tmp_path / "in", a=HONEST, b=HONEST), tmp_path / "out"
    ran = []
    said = Verdict("graded", 3.0, 3.0, {"normalise-check": Mark(1.0, "right")}, ("a remark",), 0.5)
    monkeypatch.setattr(batch, "grade_one", lambda data, *rest: ran.append(data) or said)

    def times(assignment=DEMO, limits=LIMITS) -> int:
        ran.clear()
        results = list(grade_class(submissions, {"demonstration": assignment}, out, limits, 1, [fresh_uid()]))
        assert [r.verdict for r in results] == [said, said]
        return len(ran)

    assert (times(), times()) == (2, 0)
    (submissions / "a" / "demonstration.ipynb").write_bytes(RELEASE)
    assert (times(), times()) == (1, 0)
    assert (times(replace(DEMO, questions=DEMO.questions[:1])), times(limits=replace(LIMITS, seconds=21.0))) == (2, 2)
    assert (times(), times()) == (2, 0)
    path = out / "b" / "demonstration.json"
    whole = path.read_bytes()
    for spoiled in (b"", whole[:-5], b"[]", whole.replace(b'"marks"', b'"mark"'), b"\xff", b'{"verdict": 1}'):
        path.write_bytes(spoiled)
        assert recall(path, "", "") is None
        assert times() == 1
        assert json.loads(path.read_bytes())["verdict"]["score"] == 3.0


def test_a_machine_that_cannot_hold_submissions_stops_the_batch(tmp_path, monkeypatch):
    submissions, out = demo_class(tmp_path / "in", a=HONEST, b=HONEST, c=HONEST), tmp_path / "out"

    def unavailable(*_):
        raise Unavailable("install bubblewrap")

    monkeypatch.setattr(batch, "grade_one", unavailable)
    with pytest.raises(Unavailable, match="install bubblewrap") as caught:
        run(submissions, out)
    assert caught.value.__notes__ == ["while grading a, demonstration"]
    assert not list(out.rglob("*.json"))


def other_things(folder: Path) -> dict[str, Path]:
    secret = folder / "secret.ipynb"
    secret.write_bytes(HONEST)
    made = {name: folder / "in" / name / "demonstration.ipynb" for name in ("link", "pipe", "folder", "second", "huge")}
    for path in made.values():
        path.parent.mkdir(parents=True)
    made["link"].symlink_to(secret)
    os.mkfifo(made["pipe"])
    made["folder"].mkdir()
    (folder / "other.ipynb").write_bytes(HONEST)
    os.link(folder / "other.ipynb", made["second"])
    with open(made["huge"], "wb") as file:
        file.truncate(MOST + 1)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "demonstration.ipynb").write_bytes(HONEST)
    (folder / "in" / "whole").symlink_to(folder / "elsewhere")
    (folder / "in" / "inner").mkdir()
    (folder / "in" / "inner" / "demonstration").symlink_to(folder / "elsewhere")
    return made


def test_what_is_no_file_of_its_own_is_refused_unread(tmp_path):
    other_things(tmp_path)
    found = find(tmp_path / "in", ["demonstration"])
    assert [one.student for one in found] == ["folder", "huge", "inner", "link", "pipe", "second", "whole"]
    for one in found:
        with pytest.raises(NotANotebook, match=r"link|plain file|at most"):
            fetch(tmp_path / "in", one)
    results = run(tmp_path / "in", tmp_path / "out")
    assert {r.verdict and (r.verdict.status, r.verdict.score) for r in results} == {("refused", 0.0)}
    assert all(not r.cells for r in results)


def test_both_places_of_a_notebook_and_names_that_no_assignment_has(tmp_path):
    folder = hand_in(tmp_path / "in", ann=answer(), bobx=answer())
    (folder / "ann" / "small.ipynb").write_bytes(b"the older form, passed over")
    (folder / "bobx" / "smal.ipynb").write_bytes(b"")
    (folder / "bobx" / "Small").mkdir()
    (folder / "bobx" / ".ipynb_checkpoints").mkdir()
    parts = [one.parts for one in find(folder, ["small", "other"])]
    assert parts == [(), ("ann", "small", "small.ipynb"), (), ("bobx", "small.ipynb")]
    assert strangers(folder, ["small", "other"]) == ["bobx/Small", "bobx/smal.ipynb"]
    for nowhere in (tmp_path / "missing", tmp_path / "in" / "ann" / "small"):
        with pytest.raises(ValueError, match="one folder for each student"):
            find(nowhere, ["small"])
    with pytest.raises(ValueError, match="may not lie in"):
        run(folder, folder / "grades")


def test_names_of_folders_that_are_no_text():
    assert shown(os.fsdecode(b"M\xc3\xbcller")) == "Müller"
    assert shown(os.fsdecode(b"a\xffb\nc")) == "a\ufffdb?c"


def test_two_students_who_are_shown_alike_do_not_share_a_row(tmp_path):
    submissions = demo_class(tmp_path / "in", **{"a?": HONEST, "a\n": HONEST})
    with pytest.raises(ValueError, match=r"2 folders of students are all shown as 'a\?'"):
        run(submissions, tmp_path / "out")


def test_uids_are_fresh_and_within_what_a_container_has(tmp_path):
    table = tmp_path / "uid_map"
    for line, low, high in [
        ("0 0 4294967295\n", 2_100_000_000, 2_100_040_000),
        ("0 100000 65536\n", 61_000, 65_536),
    ]:
        table.write_text(line)
        numbers = uids(table)
        if os.geteuid() == 0:
            assert set(numbers) <= set(range(low, high))
        assert len(set(numbers)) == len(numbers) > 3000
        assert 65_534 not in numbers  # nobody
    assert len(set(itertools.islice(uids(), 100))) == 100


HOLDING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from grading.batch import alone
with alone(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(600)
"""


def test_two_runs_do_not_grade_into_one_folder(graded, tmp_path, capsys):
    submissions, out = graded[0], tmp_path / "grades"
    code = HOLDING.format(root=str(Path(__file__).resolve().parents[2]))
    with subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == b"here\n"
            assert main(["grade", str(out), "--submissions", str(submissions)]) == 1
            said = capsys.readouterr().err
            assert said == f"grading: another run is grading into {out}; wait until it has ended, or end it\n"
            assert [path.name for path in out.iterdir()] == [".lock"]
        finally:
            other.kill()
    with alone(out):  # a killed run leaves the file, and nothing that holds it
        assert stat.S_IMODE((out / ".lock").stat().st_mode) == 0o600
        with pytest.raises(ValueError, match="another run is grading into"), alone(out):
            pytest.fail("two at once")


def test_where_nothing_can_be_graded_nothing_is_begun(tmp_path, monkeypatch, capsys):
    submissions, out = demo_class(tmp_path / "in", a=HONEST), tmp_path / "out"
    assert main(["grade", str(out), "--submissions", str(tmp_path / "nowhere")]) == 1
    assert main(["grade", str(submissions / "grades"), "--submissions", str(submissions)]) == 1
    assert [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()] == ["grading"] * 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["grade", str(out), "--submissions", str(submissions)]) == 1
    assert capsys.readouterr().err.startswith("Unavailable: submissions run only inside bubblewrap")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "demonstration.ipynb", "in"]


WINDOWS = """
import os, pkgutil, sys
sys.path.insert(0, {root!r})
import concurrent.futures, ctypes, json, numpy, subprocess, tempfile  # what is not ours knows where it is
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
for name in ("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "geteuid", "getuid", "pidfd_open", "memfd_create"):
    delattr(os, name)
sys.platform = "win32"
import grading
for module in pkgutil.iter_modules(grading.__path__):
    __import__("grading." + module.name)
from grading.__main__ import main
sys.exit(main(["grade", sys.argv[1], "--submissions", sys.argv[2]]))
"""


def test_on_windows_all_can_be_imported_and_grading_is_refused(tmp_path):
    submissions, out = demo_class(tmp_path / "in", a=HONEST), tmp_path / "out"
    code = WINDOWS.format(root=str(Path(__file__).resolve().parents[2]))
    ended = subprocess.run([sys.executable, "-c", code, out, submissions], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith("Unavailable: submissions run only inside bubblewrap")
    assert not out.exists()
