"""A started bubblewrap, halted before its command; then read and watched until it ends or reaches a limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from grading.limits import Limits
from grading.talk import Talk

__all__ = ["Held", "Unavailable"]

PAUSE = 0.02  # seconds between two looks
MISSING = (
    "submissions run only inside bubblewrap, and there is no program bwrap here; on Debian and Ubuntu: "
    "sudo apt-get install bubblewrap; on other systems grade in a Linux machine or container"
)
HELP = (
    "; version 0.8 or newer is needed, and either root or the right to make user namespaces (on Ubuntu from 23.10 on "
    "only root has it); a container gives neither by itself (the options that it must be "
    "started with are on the page Assigning and grading)"
)


class Unavailable(RuntimeError):
    """This machine cannot hold a submission; the message says what to do."""


class Held:
    """`first` is the first process of the sandbox's namespace, by its number out here."""

    def __init__(self, jail: Callable[[list[str]], list[str]], rules: bytes | None):
        if sys.platform != "linux" or shutil.which("bwrap") is None:
            raise Unavailable(MISSING)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            status, told = os.pipe()
            held, self.release = os.pipe()
            table = os.memfd_create("rules")
            for descriptor in (told, held, table):
                theirs.callback(os.close, descriptor)
            ours.callback(os.close, self.release)
            said = ours.enter_context(open(status, "rb"))
            os.write(table, rules or b"")
            os.lseek(table, 0, os.SEEK_SET)
            control = ["--json-status-fd", str(told), "--block-fd", str(held)]
            control += ["--seccomp", str(table)] if rules is not None else []
            self.process = ours.enter_context(
                subprocess.Popen(
                    jail(control),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(told, held, table),
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                )
            )
            ours.callback(self.process.kill)
            theirs.close()
            line = said.readline()  # {"child-pid": 123, ...}, before anything of the command runs
            try:
                self.first = int(line.split(b":")[1].split(b",")[0].strip(b" }\n"))
                self.handle = os.pidfd_open(self.first)
            except (IndexError, ValueError, OSError):
                self.process.kill()
                assert self.process.stderr
                why = self.process.stderr.read().decode(errors="replace").strip()
                raise Unavailable(f"bubblewrap cannot start here: {why}{HELP}") from None
            ours.callback(os.close, self.handle)
            self.opened = ours.pop_all()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        self.opened.close()

    def kill(self) -> None:
        """Kills the first process and waits until it is gone, which is when every other of its namespace is."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        with selectors.DefaultSelector() as gone:
            gone.register(self.handle, selectors.EVENT_READ)
            if not gone.select(timeout=60):
                raise Unavailable(f"process {self.first} of a submission does not die")
        self.process.wait()

    def inside(self) -> tuple[int, int]:
        """Bytes and number of files in the temporary folder, which is a file system of its own."""
        place, own = f"/proc/{self.first}/root/tmp", os.stat("/tmp").st_dev
        try:
            with contextlib.ExitStack() as opened:
                folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)  # one look: it may be mounted over meanwhile
                opened.callback(os.close, folder)
                if os.fstat(folder).st_dev == own:  # bubblewrap has not made it yet: this is the machine's
                    return 0, 0
                facts = os.statvfs(folder)
        except OSError:  # it is just ending
            return 0, 0
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize, facts.f_files - facts.f_ffree

    def watched(
        self, stdin: bytes, limits: Limits, look: Callable[[int], str], greeting: bytes = b""
    ) -> tuple[str, bytes, bytes, float]:
        """Lets the command run; (status, standard output, standard error, seconds) when all is over."""
        talk = Talk(self.process, stdin, limits.output, greeting)
        start = looked = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            os.write(self.release, b"1")
        status = ""
        with contextlib.closing(talk):
            while not status and not talk.over:
                talk.listen(PAUSE)
                now = time.monotonic()
                if talk.flood:
                    status = "too much output"
                elif now - start >= limits.seconds:
                    status = "timed out"
                elif now - looked >= PAUSE or talk.over:
                    used, files = self.inside()
                    status = look(used) or ("too many files" if files > limits.files else "")
                    looked = time.monotonic()
            seconds = time.monotonic() - start
            self.kill()
            while not talk.flood and talk.listen(0):  # what the pipes still hold
                pass
        return status or ("too much output" if talk.flood else ""), bytes(talk.stdout), bytes(talk.stderr), seconds
