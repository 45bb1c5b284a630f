"""Control groups of both versions, as far as files can tell; what they hold is tested in test_sandbox."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from grading.limits import Limits
from grading.watch import PREFIX, Groups, Tree, parents, sweep

LIMITS = Limits(memory=2**30, processes=10)
ONE = """30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
TWO = "30 25 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def machine(folder: Path, mounts: str, own: str, groups: dict[str, str]) -> tuple[Path, Path]:
    """A false /proc/self and a false /: `groups` are folders with what their subtree_control says."""
    (folder / "self").mkdir()
    (folder / "self" / "mountinfo").write_text(mounts)
    (folder / "self" / "cgroup").write_text(own)
    for name, control in groups.items():
        (folder / "sys/fs/cgroup" / name).mkdir(parents=True, exist_ok=True)
        (folder / "sys/fs/cgroup" / name / "cgroup.subtree_control").write_text(control)
    return folder / "self", folder


def test_version_1_makes_one_group_for_each(tmp_path):
    where = machine(tmp_path, ONE, "8:pids:/\n4:memory:/a/b\n0::/\n", {"memory/a/b": "", "pids": ""})
    found = parents(*where)
    base = tmp_path / "sys/fs/cgroup"
    expected = {"memory": base / "memory/a/b", "pids": base / "pids"}
    assert {name: path.resolve() for name, path in found.items()} == expected


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        ("/user/one", {"": "memory pids", "user": "cpu memory pids", "user/one": ""}, "user"),
        ("/user/one", {"": "memory pids", "user": "cpu memory pids", "user/one": "memory pids"}, "user/one"),
        ("/", {"": "cpu memory pids"}, ""),
    ],
)
def test_version_2_is_made_where_the_controllers_are(tmp_path, own, groups, expected):
    found = parents(*machine(tmp_path, TWO.format(top="/"), f"0::{own}\n", groups))
    assert {name: path.resolve() for name, path in found.items()} == {"unified": tmp_path / "sys/fs/cgroup" / expected}


@pytest.mark.parametrize(
    ("mounts", "own", "groups"),
    [
        ("", "0::/\n", {}),
        (TWO.format(top="/"), "0::/\n", {"": ""}),
        (TWO.format(top="/"), "0::/user/session\n", {"": "memory pids", "user": "memory", "user/session": ""}),
        (ONE, "8:pids:/\n0::/\n", {"pids": "", "unified": ""}),
        (ONE, "8:pids:/\n4:memory:/gone\n0::/\n", {"pids": "", "memory": ""}),
    ],
)
def test_without_controllers_there_are_no_groups(tmp_path, mounts, own, groups):
    with pytest.raises(OSError, match="no writable control groups"):
        parents(*machine(tmp_path, mounts, own, groups))


def test_version_2_is_told_the_limits_and_believed(tmp_path):
    where = machine(tmp_path, TWO.format(top="/"), "0::/\n", {"": "memory pids"})
    groups = Groups(4321, LIMITS, *where)
    (group,) = groups.made
    told = {path.name: path.read_text() for path in group.iterdir()}
    assert told == {"memory.max": str(2**30), "memory.oom.group": "1", "pids.max": "11", "cgroup.procs": "4321"}
    answers = {"memory.current": "1000", "pids.current": "4", "memory.events": "low 0\nmax 3\noom 0\noom_kill 0\n"}
    for change, expected in (
        ({}, ""),
        ({"pids.current": "10"}, ""),
        ({"pids.current": "11"}, "too many processes"),
        ({"memory.events": "low 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 1\n"}, "out of memory"),
    ):
        for name, text in {**answers, **change}.items():
            (group / name).write_text(text)
        assert groups.look(0) == expected
    assert (groups.memory, groups.processes) == (1000, 10)
    for path in group.iterdir():
        path.unlink()
    groups.close()
    assert not group.exists()


def test_groups_of_dead_graders_are_swept(tmp_path):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    for owner in (process.pid, os.getpid()):
        (tmp_path / f"{PREFIX}{owner}-1").mkdir()
    (tmp_path / "another").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{PREFIX}{os.getpid()}-1", "another"}


def test_a_tree_counts_descendants_of_any_depth():
    """A shell, its two children and a grandchild: the first process is not counted."""
    program = "sleep 9 & sh -c 'sleep 9 & echo ready; wait' & wait"
    with subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        tree = Tree(process.pid, LIMITS)
        assert tree.look(100) == ""
        assert tree.processes == 3
        assert tree.memory > 100
        assert tree.look(2**30) == "out of memory"
        assert Tree(process.pid, Limits(processes=4)).look(0) == ""
        os.killpg(process.pid, 9)
    assert tree.look(0) == ""
