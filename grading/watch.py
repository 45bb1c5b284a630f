"""What a tree of processes uses: asked of control groups where they are writable, else counted in /proc.

Both answer the same question in the same words, so that a submission gets the same status from either. The tree's
root is the first process of a PID namespace: whatever is forked there stays its descendant.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Protocol

from grading.limits import Limits

__all__ = ["Groups", "Tree", "Watch"]

MEMORY, PROCESSES = "out of memory", "too many processes"
PREFIX = "lecturecode-grading-"


class Watch(Protocol):
    processes: int  # the most seen so far
    memory: int

    def look(self, inside: int) -> str:
        """The status of a limit that is reached, or "". `inside` are bytes of the temporary folder."""
        ...

    def close(self) -> None: ...


class Tree:
    """Walks from the namespace's first process over its descendants; that first one itself is not counted."""

    def __init__(self, root: int, limits: Limits):
        self.root, self.limits = root, limits
        self.processes = self.memory = 0
        self.page = os.sysconf("SC_PAGE_SIZE")
        if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
            raise OSError("this kernel lists no children in /proc, so only writable control groups can hold limits")

    def look(self, inside: int) -> str:
        tasks, pids = 0, []
        todo = [self.root]
        while todo:
            pid = todo.pop()
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                for task in os.listdir(f"/proc/{pid}/task"):
                    tasks += 1
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
                pids.append(pid)
        memory = inside + sum(map(self._resident, pids))
        if memory >= self.limits.memory:  # shared pages were counted once for each that shares them
            memory = inside + sum(map(self._proportional, pids))
        self.processes = max(self.processes, tasks - 1)
        self.memory = max(self.memory, memory)
        if tasks - 1 >= self.limits.processes:
            return PROCESSES
        return MEMORY if memory >= self.limits.memory else ""

    def _resident(self, pid: int) -> int:
        try:
            return self.page * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0

    def _proportional(self, pid: int) -> int:
        """A shared page divided by the number of processes that share it."""
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        except (OSError, StopIteration):
            return self._resident(pid)

    def close(self) -> None:
        """Nothing was made."""


class Groups:
    """One new control group (version 2), or one for memory and one for processes (version 1).

    Raises: OSError where they cannot be made or do not hold these limits.
    """

    def __init__(self, root: int, limits: Limits, proc: Path = Path("/proc/self"), files: Path = Path("/")):
        self.limits = limits
        self.processes = self.memory = 0
        self.made: list[Path] = []
        try:
            found = parents(proc, files)
            self.two = "unified" in found
            for kind, parent in found.items():
                self._make(kind, parent, root)
        except BaseException:
            self.close()
            raise

    def _make(self, kind: str, parent: Path, root: int) -> None:
        sweep(parent)
        group = parent / f"{PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        group.mkdir()
        self.made.append(group)
        allowed = self.limits.processes + 1  # the namespace's first process is in the group too
        rules = {
            "unified": {"memory.max": self.limits.memory, "memory.oom.group": 1, "pids.max": allowed},
            "memory": {"memory.limit_in_bytes": self.limits.memory, "memory.oom_control": 1},
            "pids": {"pids.max": allowed},
        }
        for name, value in rules[kind].items():
            (group / name).write_text(str(value))
        for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):  # there only where swapping is counted
            if (group / name).exists():
                (group / name).write_text("0" if kind == "unified" else str(self.limits.memory))
        (group / "cgroup.procs").write_text(str(root))

    def look(self, inside: int) -> str:
        memory, pids = self.made[0], self.made[-1]
        current = memory / ("memory.current" if self.two else "memory.usage_in_bytes")
        self.memory = max(self.memory, int(current.read_text()))
        tasks = int((pids / "pids.current").read_text()) - 1
        self.processes = max(self.processes, tasks)
        if tasks >= self.limits.processes:
            return PROCESSES
        # version 1 is told not to kill but to halt, version 2 to kill all: never one process of several
        facts = (memory / ("memory.events" if self.two else "memory.oom_control")).read_text().split()
        table = dict(zip(facts[::2], facts[1::2], strict=False))
        return MEMORY if int(table.get("oom_kill", 0)) or int(table.get("under_oom", 0)) else ""

    def close(self) -> None:
        for group in self.made:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    group.rmdir()
                if not group.exists():
                    break
                time.sleep(0.01)  # the last process is dead, its bookkeeping not yet


def parents(proc: Path, files: Path) -> dict[str, Path]:
    """Where groups can be made: {"memory": ..., "pids": ...} or {"unified": ...}. Raises: OSError where nowhere."""
    own = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, Path] = {}
    for line in (proc / "mountinfo").read_text().splitlines():
        before, after = (half.split() for half in line.split(" - ", 1))
        folder, top, kind, options = files / before[4].lstrip("/"), before[3], after[0], after[2].split(",")
        for name in ("memory", "pids"):
            if kind == "cgroup" and name in options and name in own:
                found[name] = folder / os.path.relpath(own[name], top)
        if kind == "cgroup2" and "" in own:
            here = folder / os.path.relpath(own[""], top)
            for place in [here, here.parent] if here != folder else [here]:
                control = place / "cgroup.subtree_control"
                if control.exists() and {"memory", "pids"} <= set(control.read_text().split()):
                    found.setdefault("unified", place)
    chosen = ("memory", "pids") if {"memory", "pids"} <= set(found) else ("unified",)
    if not set(chosen) <= set(found) or not all(os.access(found[name], os.W_OK) for name in chosen):
        raise OSError("no writable control groups with memory and pids")
    return {name: found[name] for name in chosen}


def sweep(parent: Path) -> None:
    """Removes groups that a grader left which is no more."""
    for group in parent.glob(PREFIX + "*"):
        owner = group.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                group.rmdir()
