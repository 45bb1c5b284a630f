"""Hostile submissions: each gets its status and its score, and nothing outside its sandbox changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attacks import Attack, attacks
from demo import DEMO, HONEST
from inside import MIB, ROOT, both, fresh_uid, owned_by, sandboxed

from grading.grade import Verdict, grade_one
from grading.limits import Limits

pytestmark = sandboxed

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SECRET = Path(f"/tmp/lecturecode-secret-{os.getpid()}") / "solution.ipynb"
ATTACKS = attacks(SECRET)


def limits(seconds: float = 120.0) -> Limits:
    return Limits(seconds, memory=1024 * MIB, processes=32, output=6 * MIB, files=500, file_size=16 * MIB)


@pytest.fixture(scope="module")
def class_folder() -> Iterator[Path]:
    """What a grader has lying around, open to everybody: only the sandbox stands before it."""
    SECRET.parent.mkdir()
    SECRET.parent.chmod(0o777)
    for name in (SECRET.name, "gradebook.db", "checks.py", "alice.ipynb"):
        (SECRET.parent / name).write_text("THE ANSWER")
        (SECRET.parent / name).chmod(0o666)
    yield SECRET.parent
    for path in SECRET.parent.iterdir():
        path.unlink()
    SECRET.parent.rmdir()


def fingerprint(*folders: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, owner and content of every file."""
    found = {}
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            if "__pycache__" not in path.parts:
                facts = path.lstat()
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                found[str(path)] = (facts.st_mode, facts.st_uid, content)
    return found


def paced(attack: Attack, honest: Verdict) -> Limits:
    """A busy machine is given more time, by what an honest submission just took: only attacks may run out of it."""
    return limits(max(attack.seconds, 12 * honest.seconds))


def checked(attack: Attack, watch: str, folder: Path) -> Verdict:
    uid = fresh_uid()
    canary = ["/usr/bin/sleep", "600"]
    if ROOT:
        canary = ["/usr/bin/setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *canary]
    places = (folder, REPOSITORY / "grading", REPOSITORY / "tests" / "grading")
    before = fingerprint(*places)
    honest = grade_one(HONEST, DEMO, fresh_uid(), limits(), watch)
    with subprocess.Popen(canary) as process:
        try:
            while ROOT and owned_by(uid) != [str(process.pid)]:  # setpriv changes the uid a little later
                time.sleep(0.01)
            verdict = grade_one(attack.data, DEMO, uid, paced(attack, honest), watch)
            assert process.poll() is None
            assert owned_by(uid) == [str(process.pid)] if ROOT else True
        finally:
            process.kill()
    assert (honest.status, honest.score, honest.maximum) == ("graded", 3.0, 3.0)
    assert grade_one(HONEST, DEMO, fresh_uid(), limits(), watch) == honest
    assert not os.path.lexists("/tmp/lecturecode-was-here")  # what answers/ would make, were it unpickled out here
    assert fingerprint(*places) == before
    return verdict


@both
@pytest.mark.parametrize(
    "attack",
    [pytest.param(a, id=a.name, marks=[] if a.quick else [pytest.mark.verify]) for a in ATTACKS if ROOT or not a.root],
)
def test_a_hostile_submission_changes_nothing_but_its_own_score(attack, watch, class_folder):
    verdict = checked(attack, watch, class_folder)
    assert (verdict.status, verdict.score) == (attack.status, attack.score), verdict
    assert verdict.maximum == 3.0
    said = repr(verdict)
    assert "<" not in said
    assert "THE ANSWER" not in said


@pytest.mark.verify
@pytest.mark.parametrize("attack", [pytest.param(a, id=a.name) for a in ATTACKS])
def test_a_second_run_gives_the_same_verdict(attack, class_folder):
    honest = grade_one(HONEST, DEMO, fresh_uid(), limits())
    first, second = (grade_one(attack.data, DEMO, fresh_uid(), paced(attack, honest)) for _ in range(2))
    assert (first.status, first.score, first.marks) == (second.status, second.score, second.marks)


def test_at_the_same_time_nobody_disturbs_anybody():
    """Honest submissions between the greediest ones, two at once: every honest verdict is the same."""
    greedy = ("fork-bomb-later", "allocation-by-many", "flood", "many-files", "busy-by-many", "kill-all")
    chosen = [attack for attack in ATTACKS if attack.name.split("/")[1] in greedy]
    assert len(chosen) == len(greedy)
    honest = grade_one(HONEST, DEMO, fresh_uid(), limits())
    work = [one for attack in chosen for one in ((HONEST, limits()), (attack.data, paced(attack, honest)))]
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(grade_one, data, DEMO, fresh_uid(), allowed) for data, allowed in work]
        verdicts = [future.result() for future in started]
    expected = [said for attack in chosen for said in (("graded", 3.0), (attack.status, attack.score))]
    assert [(one.status, one.score) for one in verdicts] == expected


def test_there_are_enough():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 100
    assert all(attack.what for attack in ATTACKS)
