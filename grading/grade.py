"""One submission from its bytes to its verdict: `grade_one`. Nothing of the submission runs in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grading.exchange import Refused, dumps, loads
from grading.judge import Failure, Mark, Question, failed, judge
from grading.limits import DEFAULT, MIB, Limits
from grading.notebooks import NotANotebook, read, skeleton
from grading.runner import HELLO, TASK
from grading.sandbox import Outcome, Unavailable, run

__all__ = ["Assignment", "Verdict", "grade_one"]

HERE = Path(__file__).resolve().parent
COMMAND = (os.path.abspath(sys.executable), "-P", "-s", "-m", "grading.runner")
TRIAL = """
import lecturecode.boltzmann, lecturecode.diffusion, lecturecode.markov, lecturecode.vae
facts = dict(line.split(":") for line in open("/proc/self/status"))
print(facts["VmPeak"].split()[0], facts["VmHWM"].split()[0])
"""
RESERVED: list[int] = []  # what the trial found, once a process
OVER = {
    "timed out": "took too long",
    "crashed": "its process was ended",
    "no process left": "no process was left to answer in",
}


@dataclass(frozen=True)
class Assignment:
    """The released notebook, and what is asked. Raises: ValueError where a question has no cell there."""

    name: str
    release: bytes
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        names = [question.name for question in self.questions]
        if len(set(names)) != len(names):
            raise ValueError(f"assignment {self.name}: a question stands twice among {names}")
        cells, _ = read(self.release)
        known = [cell.grade_id for cell in cells if cell.grade_id]
        if len(set(known)) != len(known):
            raise ValueError(f"assignment {self.name}: a grade_id stands twice in the released notebook")
        if missing := sorted(set(names) - set(known)):
            raise ValueError(f"assignment {self.name}: no cell of the released notebook has the grade_id {missing}")


@dataclass(frozen=True)
class Verdict:
    """status: graded, refused, timed out, out of memory, too many processes, too many files, too much output, crashed.

    The same submission has the same verdict again, up to its `seconds`.
    """

    status: str
    score: float
    maximum: float
    marks: Mapping[str, Mark]
    remarks: tuple[str, ...]
    seconds: float = field(default=0.0, compare=False)


def grade_one(
    notebook: bytes, assignment: Assignment, uid: int, limits: Limits = DEFAULT, watch: str = "best"
) -> Verdict:
    """Runs a handed-in notebook in a sandbox under a uid that is nobody's, asks, and judges what it answers.

    Raises: Unavailable where this machine cannot hold submissions: that is never the student's fault.
    """
    try:
        cells, remarks = read(notebook)
    except NotANotebook as error:
        return verdict("refused", assignment, {}, "the notebook was refused", (str(error),), 0.0)
    steps, more = skeleton(read(assignment.release)[0], cells)
    outcome = run(COMMAND, task(steps, assignment, limits), limits, uid, readable(), watch, HELLO, reserved(uid))
    if not outcome.stdout.startswith(HELLO):
        said = outcome.stderr.decode(errors="replace").strip()[-1000:]
        raise Unavailable(f"the sandbox's Python does not start ({outcome.status}): {said}")
    answers, facts, readable_all = replies(outcome.stdout.removeprefix(HELLO), assignment.questions)
    status = state(outcome, facts)
    remarks = [*remarks, *more]
    for name, what in (("errors", "cells ended with an error"), ("cut", "steps took too long")):
        if facts and facts.get(name):
            remarks.append(f"{facts[name]} {what}")
    if facts and facts.get("magics"):
        remarks.append(f"in {facts['magics']} cells the lines for IPython or the shell were left out")
    if not readable_all:
        remarks.append("not every answer could be read")
    without = "no answer" if status == "graded" else f"no answer: {status}"
    return verdict(status, assignment, answers, without, tuple(remarks), outcome.seconds)


def state(outcome: Outcome, facts: dict[str, int] | None) -> str:
    if outcome.status != "ended":
        return outcome.status
    if facts is None:
        return "crashed"
    return "timed out" if facts.get("cut") else "graded"


def verdict(
    status: str, assignment: Assignment, answers: Mapping[str, dict[int, Any]], without: str, remarks, seconds: float
) -> Verdict:
    marks = {}
    for question in assignment.questions:
        own = answers.get(question.name, {})
        over = own.get(-1)
        marks[question.name] = judge(question, own, over.reason if isinstance(over, Failure) else without)
    score = float(sum(mark.points for mark in marks.values()))
    maximum = float(sum(question.points for question in assignment.questions))
    return Verdict(status, score, maximum, marks, remarks, seconds)


def reserved(uid: int) -> int:
    """Addresses beyond the limit on memory: what torch and the package reserve and do not use, but for 512 MiB.

    0 for a torch without CUDA, over 2 GiB for one with it. So it is in addresses that one greedy process comes to its
    end, by a MemoryError that its next cell survives.

    Raises: Unavailable where they cannot be imported in the sandbox, which would be every student's zero.
    """
    if RESERVED:
        return RESERVED[0]
    command = (*COMMAND[:3], "-c", TRIAL)
    outcome = run(command, b"", replace(DEFAULT, seconds=600.0), uid, readable(), addresses=2**40)
    try:
        most, used = map(int, outcome.stdout.split())
    except ValueError:
        said = outcome.stderr.decode(errors="replace").strip()[-1000:]
        raise Unavailable(f"lecturecode cannot be imported in the sandbox ({outcome.status}): {said}") from None
    RESERVED[:] = [max(0, 1024 * (most - used) - 512 * MIB)]
    return RESERVED[0]


def readable() -> dict[str, Path]:
    """What of the repository the sandbox shows: the runner, and the package that notebooks import."""
    shown = {f"/grading/grading/{name}": HERE / name for name in ("__init__.py", "runner.py", "exchange.py")}
    caches = (os.environ.get("MPLCONFIGDIR", ""), os.path.expanduser("~/.cache/matplotlib"))
    fonts = [path for cache in caches if cache for path in sorted(Path(cache).glob("fontlist-*.json"))]
    shown |= {f"/tmp/matplotlib/{path.name}": path for path in reversed(fonts)}  # else matplotlib makes it each time
    return {**shown, "/grading/lecturecode": HERE.parent / "lecturecode"}


def task(steps: list[tuple[str, list[str]]], assignment: Assignment, limits: Limits) -> bytes:
    """The lines that the runner reads; a question's hidden inputs are in them, its answers are not."""
    questions = {question.name: question for question in assignment.questions}
    lines = [dumps({"seconds": 0.9 * limits.seconds})]
    for name, sources in steps:
        lines += [dumps({"cell": source}, TASK) for source in sources]
        if name in questions:
            cases = [dict(case.inputs) for case in questions[name].cases]
            lines.append(dumps({"question": name, "expression": questions[name].ask, "cases": cases}, TASK))
    return b"".join(lines)


def replies(
    stdout: bytes, questions: tuple[Question, ...]
) -> tuple[dict[str, dict[int, Any]], dict[str, int] | None, bool]:
    """By question and case what was answered (-1: why it ended); the runner's facts; all was readable."""
    counts = {question.name: len(question.cases) for question in questions}
    answers: dict[str, dict[int, Any]] = {name: {} for name in counts}
    facts, clean = None, stdout[-1:] in (b"", b"\n")
    most = 1000 + 2 * sum(counts.values())
    lines = stdout.split(b"\n", most)
    for line in lines[:most]:
        try:
            said = loads(line) if line else {}
        except Refused:
            said = None
        if not isinstance(said, dict):
            clean = False
            continue
        name, case = said.get("question"), said.get("case", -1)
        if isinstance(name, str) and name in counts and type(case) is int and -1 <= case < counts[name]:
            if case == -1:
                over = said.get("over")
                answer = Failure(OVER.get(over, "no answer") if isinstance(over, str) else "no answer")
            else:
                answer = said["value"] if "value" in said else failed(said.get("error"))
            answers[name][case] = Failure("answered more than once") if case in answers[name] else answer
        end = said.get("end")
        if isinstance(end, dict) and facts is None:
            known = ("errors", "cut", "magics")
            facts = {key: n for key, n in end.items() if key in known and type(n) is int and 0 <= n <= 10_000}
    return answers, facts, clean and len(lines) <= most
