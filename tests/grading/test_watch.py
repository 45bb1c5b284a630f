"""Control groups of both versions, as far as files can tell; what they hold is tested in test_sandbox."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from inside import fresh_uid, sandboxed

from grading.groups import PREFIX, Groups, parents, sweep
from grading.held import Held
from grading.jail import jail
from grading.limits import Limits
from grading.syscalls import filter_program
from grading.watch import Tree, kibibytes

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
    (group,) = groups.made.values()
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


def test_version_1_holds_memory_processes_and_shares_of_processors(tmp_path):
    mounts = ONE + "34 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    own = "8:pids:/\n4:memory:/\n3:cpu,cpuacct:/\n0::/\n"
    groups = Groups(4321, LIMITS, *machine(tmp_path, mounts, own, {"memory": "", "pids": "", "cpu": ""}))
    told = {kind: {path.name: path.read_text() for path in group.iterdir()} for kind, group in groups.made.items()}
    assert told == {
        "memory": {"memory.limit_in_bytes": str(2**30), "memory.oom_control": "1", "cgroup.procs": "4321"},
        "pids": {"pids.max": "11", "cgroup.procs": "4321"},
        "cpu": {"cgroup.procs": "4321"},
    }


def test_swapping_that_no_group_counts_is_refused(tmp_path):
    where = machine(tmp_path, TWO.format(top="/"), "0::/\n", {"": "memory pids"})
    heading = "Filename\tType\tSize\n"
    (tmp_path / "swaps").write_text(heading)
    Groups(4321, LIMITS, *where)
    (tmp_path / "swaps").write_text(heading + "/swap file 1000\n")
    with pytest.raises(OSError, match="this machine swaps"):
        Groups(4321, LIMITS, *where)


def test_lines_of_a_file_in_proc_are_summed(tmp_path):
    (tmp_path / "status").write_text("Name:\tx: y\nVmRSS:\t   12 kB\nVmSwap:\t    3 kB\n")
    assert kibibytes(tmp_path / "status", "VmRSS", "VmSwap") == 15 * 1024
    assert kibibytes(tmp_path / "status", "VmRSS") == 12 * 1024
    assert kibibytes(tmp_path / "status", "Pss") is None
    assert kibibytes(tmp_path / "gone", "VmRSS") is None


@sandboxed
def test_a_tree_counts_in_the_sandbox_s_own_proc():
    """Descendants of any depth, whoever their parent is; what is not mounted yet, or is the machine's, is nothing."""
    limits, uid, looks = Limits(seconds=60, memory=2**28, processes=8), fresh_uid(), []
    program = "sleep 600 & (sleep 600 & sleep 600 &) ; echo ready; sleep 600"

    def arguments(control: list[str]) -> list[str]:
        return [*jail(control, {}, limits, uid), "/usr/bin/sh", "-c", program]

    with Held(arguments, filter_program()) as held:
        tree = Tree(held.first, limits)

        def look(inside: int) -> str:
            looks.append((tree.look(inside), tree.processes))
            return "seen" if tree.processes == 5 else ""

        assert Tree(os.getpid(), limits).look(0) == ""
        assert Tree(os.getpid(), limits)._pids() == set()
        assert held.watched(b"", limits, look)[0] == "seen"
    assert {said for said, _ in looks} == {""}
    assert tree.memory > 0
    assert tree.look(0) == ""
    assert tree.look(2**28) == "out of memory"
