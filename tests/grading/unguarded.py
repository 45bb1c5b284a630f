"""A class before plain nbgrader: a throw-away course folder, graded inside a jail of its own, where plain.py runs."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo import LOCKED, ORDER, SOLUTIONS, cell, notebook

from grading.batch import uids
from grading.jail import jail
from grading.limits import Limits
from grading.release import convert, prepared

__all__ = ["SECRET", "course", "graded"]

PROGRAM = Path(__file__).with_name("plain.py")
SECRET = Path("/tmp/teacher/course/source/demonstration/demonstration.ipynb")
HIDDEN = {
    "normalise-check": """import numpy.testing
rng = np.random.default_rng(2024)
for weights in (rng.random(7), rng.random((3, 5))):
    np.testing.assert_allclose(normalise(weights), weights / weights.sum(axis=-1, keepdims=True), rtol=1e-9)
""",
    "free-energy-check": """rng = np.random.default_rng(2025)
for energies, beta in ((rng.normal(size=6), 0.7), (900 + rng.normal(size=9), 2.0)):
    expected = -np.logaddexp.reduce(-beta * energies) / beta
    np.testing.assert_allclose(free_energy(energies, beta), expected, rtol=1e-9)
""",
}
KILLED = 128 + 9
MIB = 2**20
LIMITS = Limits(seconds=240, memory=1536 * MIB, processes=200, output=8 * MIB, files=5000, file_size=256 * MIB)


@functools.cache
def numbers() -> Iterator[int]:
    return itertools.cycle(uids())


@functools.cache
def course() -> dict[str, bytes]:
    """The files of the course folder before anybody handed in; `nbgrader generate_assignment` made the release."""
    from traitlets.config import Config

    marked = {name: f"### BEGIN SOLUTION\n{source}### END SOLUTION\n" for name, source in SOLUTIONS.items()}
    checks = {f: f"{LOCKED[f]}### BEGIN HIDDEN TESTS\n{lines}### END HIDDEN TESTS\n" for f, lines in HIDDEN.items()}
    texts = {**LOCKED, **marked, **checks}
    teachers = notebook([cell(texts[name], name, id=name) for name in ORDER])
    with tempfile.TemporaryDirectory(prefix="lecturecode-control-") as name:
        root, config = Path(name), Config()
        (root / "source/demonstration").mkdir(parents=True)
        (root / "source/demonstration/demonstration.ipynb").write_bytes(teachers)
        config.CourseDirectory.root = name
        config.CourseDirectory.db_url = f"sqlite:///{prepared(root / 'gradebook.db')}"
        convert("GenerateAssignment", "demonstration", config)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def packed(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            facts = tarfile.TarInfo(name)
            facts.size, facts.mode = len(content), 0o644
            archive.addfile(facts, io.BytesIO(content))
    return data.getvalue()


def graded(submissions: Mapping[str, bytes], limits: Limits = LIMITS) -> tuple[str, dict[str, Any]]:
    """The limit that was reached, if any, and what plain.py said; nothing where it did not live to say it.

    The kernel bounds nothing in here but the number of processes, and all calls are allowed, as for every teacher: what
    a control takes too much of is counted, and the whole jail ended.

    Raises: RuntimeError where it ended otherwise.
    """
    handed_in = {f"submitted/{name}/demonstration/demonstration.ipynb": data for name, data in submissions.items()}
    shown = {"/control/plain.py": PROGRAM, f"{sys.prefix}/share/jupyter": Path(sys.prefix, "share/jupyter")}
    jailed = jail([], shown, replace(limits, memory=2**35), next(numbers()))
    command = [*jailed, sys.executable, "-P", "-s", "/control/plain.py"]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as errors:
        given.write(packed({**course(), **handed_in}))
        given.seek(0)
        path = {"PATH": os.environ.get("PATH", os.defpath)}
        with subprocess.Popen(command, stdin=given, stdout=answer, stderr=errors, env=path) as process:
            status, start = "", time.monotonic()
            while not status and process.poll() is None:
                time.sleep(0.05)
                late = time.monotonic() - start > limits.seconds
                status = "timed out" if late else reached(limits, process.pid)
            process.kill()  # the jail dies with it
        answer.seek(0)
        errors.seek(0)
        if status or process.returncode == KILLED:
            return status, {}
        if process.returncode:
            raise RuntimeError(f"the control ended with {process.returncode}: {errors.read(2000).decode()}")
        return status, json.loads(answer.read())


def reached(limits: Limits, jailer: int) -> str:
    """The limit that the jail has reached, or "": its /tmp, in which the course lies, and its /proc tell."""
    try:
        first = Path(f"/proc/{jailer}/task/{jailer}/children").read_text().split()[0]
        root = Path(f"/proc/{first}/root")
        if os.stat(root / "tmp").st_dev == os.stat("/tmp").st_dev:  # not yet its own
            return ""
        disk = os.statvfs(root / "tmp")
        processes = [root / "proc" / name for name in os.listdir(root / "proc") if name.isdigit()]
    except (OSError, IndexError):  # the jail just begins or ends
        return ""
    used = {
        "processes": sum(len(told(process / "task", os.listdir, [])) for process in processes),
        "files": disk.f_files - disk.f_ffree,
        "file_size": limits.file_size if disk.f_bfree < 2 else 0,
        "memory": (disk.f_blocks - disk.f_bfree) * disk.f_frsize + sum(told(p, resident, 0) for p in processes),
    }
    if used["memory"] >= limits.memory:  # shared pages were counted once for each that shares them
        used["memory"] = sum(told(process, proportional, 0) for process in processes)
    return next((name for name, number in used.items() if number >= getattr(limits, name)), "")


def told(process: Path, ask: Callable[[Path], Any], otherwise: Any) -> Any:
    try:
        return ask(process)
    except (OSError, IndexError, StopIteration):  # it has ended meanwhile
        return otherwise


def resident(process: Path) -> int:
    return os.sysconf("SC_PAGE_SIZE") * int((process / "statm").read_text().split()[1])


def proportional(process: Path) -> int:
    """A shared page divided by the number of processes that share it."""
    lines = (process / "smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
