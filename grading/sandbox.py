"""One command in a sandbox: no network, nothing to read but the system and Python, bounded in every direction.

Debian's bubblewrap makes the namespaces and the file system. As root it makes no user namespace: in one, a process
limit would not hold, since the kernel never refuses a fork to the real root; setpriv gives the command a real uid of
its own. As an ordinary user there is only the user namespace, and submissions share that user's uid, whatever number
they see. The command reads its standard input and answers on its standard output; nothing is ever read from a file it
made, so links, pipes and devices in the place of files are nothing to this side. When it ends, or a limit is reached,
the namespace's first process is killed and all others die.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grading.groups import Groups
from grading.held import Held, Unavailable
from grading.jail import jail
from grading.limits import Limits
from grading.syscalls import filter_program
from grading.watch import Tree, Watch

__all__ = ["Outcome", "Unavailable", "run"]

BUSY: dict[int, int] = {}  # how many sandboxes of this process each core has
TURN = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """status: "ended", "timed out", "out of memory", "too many processes", "too many files", "too much output"."""

    status: str
    code: int | None  # bubblewrap's: the command's exit code, or 128 + its signal; None where it was killed from here
    stdout: bytes
    stderr: bytes  # its beginning
    seconds: float
    processes: int  # the most seen at once, and the most memory
    memory: int


def run(
    command: Sequence[str | Path],
    stdin: bytes,
    limits: Limits,
    uid: int,
    readable: Mapping[str, Path] | None = None,
    watch: str = "best",
    greeting: bytes = b"",
    addresses: int = 0,
) -> Outcome:
    """Runs the command until it ends or reaches a limit. `readable` shows files or folders (values) at paths (keys).

    It gets its input when its output has begun with the greeting. Each process may reserve as many addresses as the
    limit on memory, and `addresses` more.

    `watch` is "groups" (control groups), "tree" (counting in /proc) or "best" (the first that works here).

    Raises: ValueError for a uid that is somebody's; Unavailable where this machine cannot hold the limits.
    """
    if isinstance(uid, bool) or not isinstance(uid, int) or not 1000 <= uid < 2**31:
        raise ValueError(f"uid = {uid!r} is not a whole number from 1000 to 2^31 - 1")
    if name := owner(uid):
        raise ValueError(f"uid {uid} belongs to {name}; a submission needs one that is nobody's")
    if watch not in ("best", "groups", "tree"):
        raise ValueError(f"watch = {watch!r} is none of 'best', 'groups', 'tree'")

    def arguments(control: list[str]) -> list[str]:
        return [*jail(control, readable or {}, limits, uid, addresses), *map(str, command)]

    with Held(arguments, filter_program()) as held, settled(held.first):
        guard = guardian(held.first, limits, watch)
        try:
            status, stdout, stderr, seconds = held.watched(stdin, limits, guard.look, greeting)
        finally:
            held.kill()
            guard.close()
    code = None if status else held.process.returncode
    return Outcome(status or "ended", code, stdout, stderr, seconds, guard.processes, guard.memory)


def owner(uid: int) -> str:
    """Whose it is, or ""."""
    import pwd  # not there on Windows, where nothing is graded

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""


@contextlib.contextmanager
def settled(first: int) -> Iterator[None]:
    """One core, the least busy, for all that this process starts: however many those are, others have theirs.

    Where the machine itself runs out of memory, it is they that the kernel ends. They leave no cores: one byte is none,
    and at 0 the kernel would still start the program that collects cores, outside and as root.
    """
    import resource  # not there on Windows

    with TURN:
        cores = sorted(os.sched_getaffinity(0), key=lambda number: BUSY.get(number, 0))
        BUSY[cores[0]] = BUSY.get(cores[0], 0) + 1
    try:
        most = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
        with contextlib.suppress(OSError):
            resource.prlimit(first, resource.RLIMIT_CORE, (most, most))
        with contextlib.suppress(OSError):
            Path(f"/proc/{first}/oom_score_adj").write_text("1000")
        with contextlib.suppress(OSError):
            os.sched_setaffinity(first, cores[:1])
        yield
    finally:
        with TURN:
            BUSY[cores[0]] -= 1


def guardian(first: int, limits: Limits, watch: str) -> Watch:
    try:
        if watch != "tree":
            return Groups(first, limits)
    except OSError as error:
        if watch == "groups":
            raise Unavailable(f"no control group holds these limits here: {error}") from None
    if filter_program() is None:
        raise Unavailable(f"on {os.uname().machine} memory is bounded by control groups alone, and none is writable")
    try:
        return Tree(first, limits)
    except OSError as error:
        raise Unavailable(f"the limits cannot be held here: {error}") from None
