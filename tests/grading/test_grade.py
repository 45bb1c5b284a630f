"""One submission from its bytes to its verdict; the hostile ones are in test_hostile."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys

import numpy as np
import pytest
import torch
from demo import DEMO, HONEST, RELEASE, STARTER, cell, cells, notebook
from inside import MIB, both, fresh_uid, sandboxed

from grading import grade
from grading.grade import Assignment, Unavailable, grade_one, replies
from grading.judge import Case, Failure, Question
from grading.limits import Limits

pytestmark = sandboxed

LIMITS = Limits(seconds=120, memory=1024 * MIB, processes=32, output=MIB, files=500, file_size=16 * MIB)


@both
def test_the_solution_gets_all_points_and_the_starter_none(watch):
    right = grade_one(HONEST, DEMO, fresh_uid(), LIMITS, watch)
    assert (right.status, right.score, right.maximum, right.remarks) == ("graded", 3.0, 3.0, ())
    assert [mark.reason for mark in right.marks.values()] == ["right", "right"]
    starter = grade_one(RELEASE, DEMO, fresh_uid(), LIMITS, watch)
    assert (starter.status, starter.score, starter.maximum) == ("graded", 0.0, 3.0)
    assert starter.remarks == ("2 cells ended with an error",)


@pytest.mark.parametrize(
    ("name", "source", "score"),
    [
        ("normalise", "def normalise(weights):\n    return weights / weights.sum()", 2.0),
        ("normalise", "def normalise(weights):\n    return weights / weights.sum(axis=0)", 2.0),
        ("normalise", "def normalise(weights):\n    return -weights / weights.sum(axis=-1, keepdims=True)", 2.0),
        ("free_energy", "def free_energy(e, b):\n    return np.log(np.exp(-b * e).sum()) / b", 1.0),
        ("free_energy", "def free_energy(e, b):\n    return -np.log(np.exp(-b * e).sum())", 1.0),
        ("free_energy", "def free_energy(e, b):\n    return -np.log(np.exp(-b * e).mean()) / b", 1.0),
        ("free_energy", "def free_energy(e, b):\n    return -np.log(np.exp(-b * e).sum()) / b", 1.0),
    ],
    ids=["sum over all", "axis", "sign", "sign of F", "factor", "mean", "underflow"],
)
def test_a_plausible_wrong_answer_loses_its_points(name, source, score):
    verdict = grade_one(notebook(cells(**{name: source})), DEMO, fresh_uid(), LIMITS)
    assert (verdict.status, verdict.score) == ("graded", score)


def test_global_generators_draw_the_same_at_every_run():
    source = "import random\ndef normalise(w):\n    return [np.random.random(), random.random()]\n"
    expected = [np.random.RandomState(0).random_sample(), random.Random(0).random()]
    assignment = asked("normalise(1)", Case({}, expected), Case({"unused": 1}, expected), tolerance=0)
    assert grade_one(notebook(cells(normalise=source)), assignment, fresh_uid(), LIMITS).score == 1.0


def asked(ask: str, *cases: Case, name: str = "normalise-check", **facts) -> Assignment:
    return Assignment("demonstration", RELEASE, (Question(name, ask, cases, **facts),))


def test_questions_may_ask_for_more_than_a_call():
    helper = "[normalise(x) for x in rows] + [(lambda a: 2 * a)(1.0), 'text', None, {'a': normalise(rows[0])}]"
    rows = [np.array([1.0, 3.0]), np.array([2.0, 2.0])]
    expected = [np.array([0.25, 0.75]), np.array([0.5, 0.5]), 2.0, "text", None, {"a": np.array([0.25, 0.75])}]
    assert grade_one(HONEST, asked(helper, Case({"rows": rows}, expected)), fresh_uid(), LIMITS).score == 1.0


def test_tensors_go_in_and_come_out():
    solution = "import torch\ndef normalise(w):\n    return torch.softmax(w.log().requires_grad_(), -1)\n"
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assignment = asked("normalise(w)", Case({"w": weights}, weights / 4))
    verdict = grade_one(notebook(cells(normalise=solution)), assignment, fresh_uid(), Limits())
    assert (verdict.status, verdict.score) == ("graded", 1.0)


def test_the_package_can_be_imported_and_nothing_beside_it():
    source = """
import importlib.util, pathlib

def has(name):
    return importlib.util.find_spec(name) is not None

package = pathlib.Path(importlib.util.find_spec("lecturecode").origin).parent
beside = sorted(path.name for path in package.parent.iterdir())
runner = sorted(path.name for path in (package.parent / "grading").iterdir())
"""
    expected = [["grading", "lecturecode"], ["__init__.py", "exchange.py", "runner.py"], False, False]
    assignment = asked("[beside, runner, has('make'), has('assignments')]", Case({}, expected))
    verdict = grade_one(notebook(cells(normalise=source)), assignment, fresh_uid(), LIMITS)
    assert verdict.score == 1.0, verdict


def test_what_a_question_changes_is_gone_for_the_next():
    source = "calls = []\ndef normalise(w):\n    calls.append(w)\n    return len(calls)\n"
    questions = (
        Question("normalise-check", "normalise(1)", (Case({}, 1),)),
        Question("free-energy-check", "normalise(1)", (Case({}, 1), Case({}, 2))),
    )
    verdict = grade_one(notebook(cells(normalise=source)), Assignment("d", RELEASE, questions), fresh_uid(), LIMITS)
    assert verdict.score == 2.0


def test_what_is_printed_is_no_answer():
    line = '{"dict":{"question":"normalise-check","case":0,"value":0.0}}'
    data = notebook([cells()[0], cell(f"print({line!r}, flush=True)"), *cells()[1:]])
    verdict = grade_one(data, DEMO, fresh_uid(), LIMITS)
    assert (verdict.status, verdict.score, verdict.remarks) == ("graded", 3.0, ())


def test_an_error_in_one_cell_leaves_the_others():
    data = notebook([cells()[0], cell("1 / 0"), cell("for"), *cells()[1:], cell("undefined")])
    verdict = grade_one(data, DEMO, fresh_uid(), LIMITS)
    assert (verdict.status, verdict.score) == ("graded", 3.0)
    assert verdict.remarks == ("3 cells ended with an error",)


def test_magics_are_left_out_and_told():
    own = "%matplotlib inline\n!pip install x\nfor k in range(2):\n    %time k\nlen?\nnp = numpy = k\n"
    kept = "text = '''\n%kept\n'''\nassert '%' in text\n"
    data = notebook([cell(own), cell(kept), *cells()])
    verdict = grade_one(data, DEMO, fresh_uid(), LIMITS)
    assert verdict.score == 3.0
    assert verdict.remarks == ("in 1 cells the lines for IPython or the shell were left out",)


def test_a_sandbox_that_does_not_start_is_nobody_s_fault(monkeypatch):
    monkeypatch.setattr(grade, "COMMAND", (os.path.abspath(sys.executable), "-c", "raise SystemExit('no such thing')"))
    with pytest.raises(Unavailable, match=r"does not start.*no such thing"):
        grade_one(HONEST, DEMO, fresh_uid(), LIMITS)


def test_no_descriptor_is_left_open():
    grade_one(HONEST, DEMO, fresh_uid(), LIMITS)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        grade_one(HONEST, DEMO, fresh_uid(), LIMITS)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    ("questions", "release", "said"),
    [
        (("bonus",), RELEASE, "no cell of the released notebook has the grade_id ..bonus"),
        (("normalise-check",) * 2, RELEASE, "a question stands twice"),
        (("normalise-check",), notebook([*cells(), *cells()]), "a grade_id stands twice"),
        (("normalise-check",), b"", "not JSON"),
    ],
)
def test_doors_of_an_assignment(questions, release, said):
    with pytest.raises(ValueError, match=said):
        Assignment("a", release, tuple(Question(name, "1", (Case({}, 1),)) for name in questions))


def test_a_remark_about_a_strange_notebook_is_short_and_ours():
    verdict = grade_one(b"<script>", DEMO, fresh_uid(), LIMITS)
    assert dataclasses.astuple(verdict)[0] == "refused"
    assert verdict.remarks == ("the file is not JSON",)
    assert {mark.reason for mark in verdict.marks.values()} == {"case 1 of 2: the notebook was refused"}


LINE = b'{"dict":{"question":"normalise-check","case":0,"value":1}}\n'
END = b'{"dict":{"end":{"dict":{"errors":1,"cut":0,"magics":0}}}}\n'
EMPTY = LINE.replace(b":1}", b':{"array":["<f8",[4194304,4194304,4194304,0],""]}}')


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (b"", ({}, None, True)),
        (LINE + END, ({0: 1}, {"errors": 1, "cut": 0, "magics": 0}, True)),
        (LINE + END + END.replace(b"1", b"9"), ({0: 1}, {"errors": 1, "cut": 0, "magics": 0}, True)),
        (LINE + LINE, ({0: Failure("answered more than once")}, None, True)),
        (b"garbage\n" + LINE, ({0: 1}, None, False)),
        (EMPTY + LINE, ({0: 1}, None, False)),
        (LINE + LINE[:-9], ({0: 1}, None, False)),
        (LINE.replace(b"case", b"Case"), ({-1: Failure("no answer")}, None, True)),
        (LINE.replace(b":0,", b":2,"), ({}, None, True)),
        (LINE.replace(b":0,", b":0.0,"), ({}, None, True)),
        (LINE.replace(b'"value":1', b'"error":5'), ({0: Failure("raised an exception")}, None, True)),
        (b"\n" * 10**6 + LINE, ({}, None, False)),
        (END.replace(b"1", b"1e9").replace(b'"cut":0', b'"cut":-5'), ({}, {"magics": 0}, True)),
    ],
)
def test_replies(stdout, expected):
    answers, facts, clean = replies(stdout, DEMO.questions)
    assert (answers["normalise-check"], facts, clean) == expected
    assert answers["free-energy-check"] == {}


def test_what_says_no_greeting_is_nobody_s_fault(monkeypatch):
    """Not even where answers come: the task went to nobody, so it is not the student who sent them."""
    forged = f"import os; os.write(1, {LINE + END!r})"
    monkeypatch.setattr(grade, "COMMAND", (os.path.abspath(sys.executable), "-I", "-S", "-c", forged))
    with pytest.raises(Unavailable, match="does not start"):
        grade_one(HONEST, DEMO, fresh_uid(), LIMITS)


def test_a_starter_left_as_it_is_raises():
    verdict = grade_one(notebook(cells(normalise=STARTER)), DEMO, fresh_uid(), LIMITS)
    assert verdict.marks["normalise-check"].reason == "case 1 of 2: raised NameError"


def test_where_the_package_cannot_be_imported_nobody_is_graded(monkeypatch):
    monkeypatch.setattr(grade, "RESERVED", [])
    monkeypatch.setattr(grade, "TRIAL", "import torch_that_is_not_there")
    with pytest.raises(Unavailable, match=r"(?s)cannot be imported in the sandbox \(ended\).*torch_that_is_not_there"):
        grade_one(RELEASE, DEMO, fresh_uid())


def test_what_libraries_reserve_and_do_not_use_is_allowed_on_top(monkeypatch):
    """A library of 4 GiB of which nothing is used, beside the package."""
    library = "import mmap\nlibrary = mmap.mmap(-1, 2**32, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    own = notebook([cell(library), *cells()])
    monkeypatch.setattr(grade, "RESERVED", [0])
    assert grade_one(own, DEMO, fresh_uid()).remarks
    monkeypatch.setattr(grade, "RESERVED", [])
    monkeypatch.setattr(grade, "TRIAL", library + grade.TRIAL)
    assert not grade_one(own, DEMO, fresh_uid()).remarks
    assert grade.RESERVED[0] > 3 * 2**30


def test_a_grader_in_the_background_gives_the_same_verdict():
    """There a shell has signals ignored, or they are blocked, and a submission would inherit that."""
    kills = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport nowhere\n"
    own = notebook([cell(kills), *cells(free_energy="import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")])
    usual = grade_one(own, DEMO, fresh_uid(), LIMITS)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        assert grade_one(own, DEMO, fresh_uid(), LIMITS) == usual
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert (usual.status, usual.score) == ("crashed", 1.0)
