"""What the processes of a sandbox use, held by control groups of either version, where these are writable."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from grading.limits import Limits
from grading.watch import MEMORY, PROCESSES

__all__ = ["Groups", "parents", "sweep"]

PREFIX = "lecturecode-grading-"


class Groups:
    """One new control group (version 2), or one for each controller (version 1).

    Where processors are shared out by groups, a submission of many processes gets no more of them than one of one.

    Raises: OSError where they cannot be made or do not hold these limits.
    """

    def __init__(self, root: int, limits: Limits, proc: Path = Path("/proc/self"), files: Path = Path("/")):
        self.limits = limits
        self.processes = self.memory = 0
        self.made: dict[str, Path] = {}
        try:
            found = parents(proc, files)
            self.two = "unified" in found
            for kind, parent in found.items():
                self._make(kind, parent, root)
            self._hold_swap(proc.parent / "swaps")
            for group in self.made.values():
                (group / "cgroup.procs").write_text(str(root))
        except BaseException:
            self.close()
            raise

    def _make(self, kind: str, parent: Path, root: int) -> None:
        sweep(parent)
        group = parent / f"{PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        group.mkdir()
        self.made[kind] = group
        allowed = self.limits.processes + 1  # the namespace's first process is in the group too
        rules = {
            "unified": {"memory.max": self.limits.memory, "memory.oom.group": 1, "pids.max": allowed},
            "memory": {"memory.limit_in_bytes": self.limits.memory, "memory.oom_control": 1},
            "pids": {"pids.max": allowed},
            "cpu": {},
        }
        for name, value in rules[kind].items():
            (group / name).write_text(str(value))

    def _hold_swap(self, swaps: Path) -> None:
        """Where there is any, it has to be counted, or what is swapped out would be free."""
        group, name = next(iter(self.made.values())), "memory.swap.max" if self.two else "memory.memsw.limit_in_bytes"
        if (group / name).exists():
            (group / name).write_text("0" if self.two else str(self.limits.memory))
        elif swaps.exists() and len(swaps.read_text().splitlines()) > 1:
            raise OSError("this machine swaps, and its control groups do not count that")

    def look(self, inside: int) -> str:
        memory, pids = (self.made["unified" if self.two else kind] for kind in ("memory", "pids"))
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
        for group in self.made.values():
            for _ in range(100):
                with contextlib.suppress(OSError):
                    group.rmdir()
                if not group.exists():
                    break
                time.sleep(0.01)  # the last process is dead, its bookkeeping not yet


def parents(proc: Path, files: Path) -> dict[str, Path]:
    """Where groups can be made: {"memory": ..., "pids": ..., perhaps "cpu": ...} or {"unified": ...}.

    Raises: OSError where nowhere.
    """
    own = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, Path] = {}
    for line in (proc / "mountinfo").read_text().splitlines():
        before, after = (half.split() for half in line.split(" - ", 1))
        folder, top, kind, options = files / before[4].lstrip("/"), before[3], after[0], after[2].split(",")
        for name in ("memory", "pids", "cpu"):
            if kind == "cgroup" and name in options and name in own:
                found[name] = folder / os.path.relpath(own[name], top)
        if kind == "cgroup2" and "" in own:
            here = folder / os.path.relpath(own[""], top)
            for place in [here, here.parent] if here != folder else [here]:
                control = place / "cgroup.subtree_control"
                if control.exists() and {"memory", "pids"} <= set(control.read_text().split()):
                    found.setdefault("unified", place)
    chosen = ("memory", "pids") if found.keys() >= {"memory", "pids"} else ("unified",)
    if not set(chosen) <= set(found) or not all(os.access(found[name], os.W_OK) for name in chosen):
        raise OSError("no writable control groups with memory and pids")
    if chosen != ("unified",) and "cpu" in found and os.access(found["cpu"], os.W_OK):
        chosen = (*chosen, "cpu")
    return {name: found[name] for name in chosen}


def sweep(parent: Path) -> None:
    """Removes groups that a grader left which is no more."""
    for group in parent.glob(PREFIX + "*"):
        owner = group.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                group.rmdir()
