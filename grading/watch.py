"""What the processes of a sandbox use, counted in /proc: where no control group is writable (grading/groups.py).

Both answer the same question in the same words, so that a submission gets the same status from either.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from grading.limits import Limits

__all__ = ["MEMORY", "PROCESSES", "Tree", "Watch"]

MEMORY, PROCESSES = "out of memory", "too many processes"


class Watch(Protocol):
    processes: int  # the most seen so far
    memory: int

    def look(self, inside: int) -> str:
        """The status of a limit that is reached, or "". `inside` are bytes of the temporary folder."""
        ...

    def close(self) -> None: ...


class Tree:
    """Counts in the sandbox's own /proc, where all its processes stand; the first, bubblewrap's, is not counted.

    What is swapped out counts, and for each socket the most that the kernel may keep in it. A process whose first
    thread has ended shows its memory under another.

    Raises: OSError where the sandbox's files are not to be seen.
    """

    def __init__(self, root: int, limits: Limits):
        self.place, self.limits = Path(f"/proc/{root}/root/proc"), limits
        self.processes = self.memory = 0
        os.listdir(self.place.parent)
        try:
            self.socket = 2 * int(Path("/proc/sys/net/core/wmem_max").read_text())
        except OSError:  # a container with a network of its own need not know
            self.socket = 2**23

    def look(self, inside: int) -> str:
        pids: dict[str, int] = {}  # how many tasks each has
        for _ in range(3):  # one may have forked and ended meanwhile
            fresh = self._pids() - pids.keys()
            for pid in fresh:
                with contextlib.suppress(OSError):
                    pids[pid] = len(os.listdir(self.place / pid / "task"))
            if pids.keys() >= fresh:
                break
        tasks = sum(pids.values())
        inside += self._sockets() * self.socket if self._mounted() else 0
        memory = inside + sum(map(self._resident, pids))
        for _ in range(2):  # the share of one that ends just now may be counted twice
            if memory >= self.limits.memory:  # shared pages were counted once for each that shares them
                memory = min(memory, inside + sum(map(self._proportional, pids)))
        self.processes = max(self.processes, tasks)
        self.memory = max(self.memory, memory)
        if tasks >= self.limits.processes:
            return PROCESSES
        return MEMORY if memory >= self.limits.memory else ""

    def _pids(self) -> set[str]:
        with contextlib.suppress(OSError):  # it may just be ending
            if self._mounted():
                return {name for name in os.listdir(self.place) if name.isdigit()} - {"1"}
        return set()

    def _mounted(self) -> bool:
        """At first the machine's own stands there."""
        with contextlib.suppress(OSError):
            return os.stat(self.place).st_dev != os.stat("/proc").st_dev
        return False

    def _sockets(self) -> int:
        try:
            lines = (self.place / "1/net/sockstat").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("sockets:")).split()[2])
        except (OSError, StopIteration):
            return 0

    def _resident(self, pid: str) -> int:
        status = kibibytes(self.place / pid / "status", "VmRSS", "VmSwap")
        try:
            others = os.listdir(self.place / pid / "task") if status is None else ()
        except OSError:
            others = ()
        for task in others:
            status = status or kibibytes(self.place / pid / "task" / task / "status", "VmRSS", "VmSwap")
        return status or 0

    def _proportional(self, pid: str) -> int:
        """A shared page divided by the number of processes that share it."""
        found = kibibytes(self.place / pid / "smaps_rollup", "Pss", "SwapPss")
        return self._resident(pid) if found is None else found

    def close(self) -> None:
        """Nothing was made."""


def kibibytes(path: Path, *names: str) -> int | None:
    """The sum of these lines of a file in /proc, in bytes; None where it has none of them, or is gone."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    except OSError:
        return None
    found = [1024 * int(lines[name].split()[0]) for name in names if name in lines]
    return sum(found) if found else None
