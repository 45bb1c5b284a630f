"""A wall that is taken down is missed by a test: each hole here makes the named test fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from inside import ROOT, sandboxed

REPOSITORY = Path(__file__).resolve().parent.parent.parent

pytestmark = sandboxed


@dataclass(frozen=True)
class Hole:
    """In `file`, which holds `right` exactly once, stands `wrong` in its place: then the tests of `test` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


HOLES = (
    Hole("network", "jail.py", '"--unshare-net", ', "", "test_sandbox.py::test_no_network"),
    Hole(
        "processes",
        "jail.py",
        "limits.processes + 1",
        "limits.processes + 500",
        "test_sandbox.py::test_the_kernel_alone_holds",
    ),
    Hole("address space", "jail.py", '"as": limits.memory', '"as": -1', "test_sandbox.py::test_one_process_cannot"),
    Hole("core files", "jail.py", '"nofile": 256', '"nofile": 50', "test_sandbox.py::test_deleted_files_that_are_open"),
    Hole(
        "size of files",
        "jail.py",
        '"--size", str(limits.file_size)',
        '"--size", str(2**30)',
        "test_sandbox.py::test_files_have_a_size",
    ),
    Hole(
        "whole system",
        "jail.py",
        'SYSTEM = ("/usr/bin"',
        'SYSTEM = ("/etc/passwd", "/usr/bin"',
        "test_sandbox.py::test_nothing_else_can_be_read",
    ),
    Hole(
        "whole Python",
        "jail.py",
        '("bin", "lib", "lib64", "pyvenv.cfg")',
        '("bin", "lib", "lib64", "..")',
        "test_sandbox.py::test_every_path_is_known",
    ),
    Hole(
        "writable programs",
        "jail.py",
        'words += ["--ro-bind", str(path), place]',
        'words += ["--bind", str(path), place]',
        "test_sandbox.py::test_nothing_else_can_be_written",
    ),
    Hole("writable root", "jail.py", ' "--remount-ro", "/",', "", "test_sandbox.py::test_nothing_else_can_be_written"),
    Hole("own uid", "jail.py", "*(setpriv(uid) if root else []),", "", "test_sandbox.py::test_the_uid"),
    Hole("rights", "jail.py", '"--bounding-set=-all"', '"--keep-groups"', "test_sandbox.py::test_the_uid_is_its_own"),
    Hole("die with the grader", "jail.py", '"--die-with-parent", ', "", "test_sandbox.py::test_a_killed_grader"),
    Hole("namespace of processes", "jail.py", '"--unshare-pid", ', "", "test_sandbox.py::test_nothing_outlives"),
    Hole("filter", "syscalls.py", "ERRNO | error)]", "ALLOW)]", "test_sandbox.py::test_no_memory_where_nobody"),
    Hole("namespaces", "syscalls.py", '"unshare": (272, 97),', "", "test_sandbox.py::test_doors_of_the_kernel"),
    Hole("time", "held.py", 'status = "timed out"', "pass", "test_sandbox.py::test_an_endless_loop"),
    Hole("output", "talk.py", "self.flood |= len(self.stdout) > self.most", "", "test_sandbox.py::test_gigabytes"),
    Hole("errors", "talk.py", "self.flood |= self.errors > self.most", "", "test_sandbox.py::test_gigabytes"),
    Hole("files", "held.py", "if files > limits.files", "if files < 0", "test_sandbox.py::test_many_files"),
    Hole("shared pages", "watch.py", "if memory >= self.limits.memory:", "if False:", "test_sandbox.py::test_shared"),
    Hole("threads", "watch.py", 'len(os.listdir(self.place / pid / "task"))', "1", "test_sandbox.py::test_threads_are"),
    Hole("first threads", "watch.py", "if status is None else ()", "if False else ()", "test_sandbox.py::test_memory"),
    Hole("sockets", "watch.py", "self._sockets() * self.socket", "0", "test_sandbox.py::test_memory_in_sockets"),
    Hole("the machine's /proc", "watch.py", 'os.stat("/proc").st_dev', "0", "test_watch.py::test_a_tree_counts"),
    Hole("the machine's /tmp", "held.py", "if os.fstat(folder).st_dev == own:", "if False:", "test_held.py"),
    Hole("swapping", "groups.py", "len(swaps.read_text().splitlines()) > 1", "False", "test_watch.py::test_swapping"),
    Hole("shares", "groups.py", '(*chosen, "cpu")', "chosen", "test_watch.py::test_version_1_holds"),
    Hole(
        "leaving no groups",
        "groups.py",
        "group.rmdir()\n                if not",
        "pass\n                if not",
        "test_sandbox.py::test_no_group_is_left",
    ),
    Hole("sweeping", "groups.py", "sweep(parent)", "pass", "test_sandbox.py::test_a_killed_grader"),
    Hole("one core", "sandbox.py", "os.sched_setaffinity(first, cores[:1])", "pass", "test_sandbox.py::test_each_has"),
    Hole("the greeting", "talk.py", " and self.stdout.startswith(self.greeting)", "", "test_sandbox.py::test_the_i"),
    Hole(
        "families of sockets",
        "syscalls.py",
        "(EQUAL, 1, 0, AF_UNIX)",
        "(EQUAL, 1, 1, AF_UNIX)",
        "test_sandbox.py::test_what_the_filter",
    ),
    Hole("core of a crash", "syscalls.py", "(PRLIMIT, 1, core),", "", "test_sandbox.py::test_what_the_filter"),
    Hole(
        "huge pages", "syscalls.py", "(MMAP, 3, refuse(ANY_BIT, HUGE_PAGES, EPERM)),", "", "test_sandbox.py::test_wha"
    ),
    Hole("empty giants", "exchange.py", "if 0 in shape and", "if 0 and", "test_exchange.py"),
    Hole("bytes as said", "exchange.py", "if len(data) != ", "if 0 and len(data) != ", "test_exchange.py"),
    Hole("objects", "exchange.py", 'DTYPES += ("<f2"', 'DTYPES += ("|O", "<f2"', "test_exchange.py"),
    Hole(
        "length of a line",
        "exchange.py",
        'len(line) > most:\n        raise Refused(f"a line',
        'len(line) < 0:\n        raise Refused(f"a line',
        "test_exchange.py",
    ),
    Hole("not finite", "judge.py", "if not np.isfinite(array[finite]).all():", "if False:", "test_judge.py"),
    Hole("shapes", "judge.py", "if array.shape != reference.shape:", "if False:", "test_judge.py"),
    Hole("names", "judge.py", "and name in ERRORS", "", "test_judge.py"),
    Hole("checks", "notebooks.py", "if not cell.code or cell.check:", "if not cell.code:", "test_notebooks.py"),
    Hole(
        "twice",
        "grade.py",
        "if case in answers[name] else answer",
        "if False else answer",
        "test_grade.py::test_replies",
    ),
)


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.name)
def test_a_hole_has_one_place(hole):
    assert (REPOSITORY / "grading" / hole.file).read_text(encoding="utf-8").count(hole.right) == 1
    name = hole.test.partition("::")[2] or "test_"
    assert f"\ndef {name}" in (Path(__file__).parent / hole.test.partition("::")[0]).read_text(encoding="utf-8")


@pytest.mark.verify
@pytest.mark.skipif(not ROOT, reason="some of the walls stand only where root grades")
@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.name)
def test_a_hole_is_noticed(hole, tmp_path):
    nothing_built = shutil.ignore_patterns("__pycache__")
    for name in ("grading", "tests/grading"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=nothing_built)
    (tmp_path / "lecturecode").symlink_to(REPOSITORY / "lecturecode")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = verify\npythonpath = tests/grading\n")
    path = tmp_path / "grading" / hole.file
    path.write_text(path.read_text(encoding="utf-8").replace(hole.right, hole.wrong), encoding="utf-8")
    module, _, name = hole.test.partition("::")
    chosen = ["-k", name] if name else []
    program = "import sys; sys.path.insert(0, sys.argv[1]); import pytest; sys.exit(pytest.main(sys.argv[2:]))"
    options = [
        "-q",
        "-x",
        "--tb=no",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        *chosen,
        f"tests/grading/{module}",
    ]
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == 1, said.stdout
