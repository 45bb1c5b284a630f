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

__all__ = ["Held", "Unavailable"]

PAUSE = 0.02  # seconds between two looks
CHUNK = 2**16
KEPT = 2**16  # bytes of the standard error that are kept; all are counted
MISSING = (
    "submissions run only inside bubblewrap, and there is no program bwrap here; on Debian and Ubuntu: "
    "sudo apt-get install bubblewrap; on other systems grade in a Linux machine or container"
)
HELP = "; version 0.8 or newer is needed, and either root or the right to make user namespaces"


class Unavailable(RuntimeError):
    """This machine cannot hold a submission; the message says what to do."""


class Held:
    """`first` is the first process of the sandbox's namespace, by its number out here."""

    def __init__(self, jail: Callable[[list[str]], list[str]], rules: bytes | None):
        if sys.platform != "linux" or shutil.which("bwrap") is None:
            raise Unavailable(MISSING)
        status, told = os.pipe()
        held, self.release = os.pipe()
        table = os.memfd_create("rules")
        os.write(table, rules or b"")
        os.lseek(table, 0, os.SEEK_SET)
        control = ["--json-status-fd", str(told), "--block-fd", str(held)]
        control += ["--seccomp", str(table)] if rules is not None else []
        try:
            self.process = subprocess.Popen(
                jail(control),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(told, held, table),
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        finally:
            for descriptor in (told, held, table):
                os.close(descriptor)
        self.told = open(status, "rb")  # noqa: SIM115 - open to the end: bubblewrap writes there once more
        line = self.told.readline()  # {"child-pid": 123, ...}, before anything of the command runs
        try:
            self.first = int(line.split(b":")[1].split(b",")[0].strip(b" }\n"))
            self.handle = os.pidfd_open(self.first)
        except (IndexError, ValueError, OSError):
            os.close(self.release)
            self.told.close()
            self.process.kill()
            _, said = self.process.communicate()
            raise Unavailable(f"bubblewrap cannot start here: {said.decode(errors='replace').strip()}{HELP}") from None

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        os.close(self.handle)
        if self.release >= 0:
            os.close(self.release)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr, self.told):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

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
            if os.stat(place).st_dev == own:  # bubblewrap has not made it yet: this is the machine's
                return 0, 0
            facts = os.statvfs(place)
        except OSError:  # it is just ending
            return 0, 0
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize, facts.f_files - facts.f_ffree

    def watched(self, stdin: bytes, limits: Limits, look: Callable[[int], str]) -> tuple[str, bytes, bytes, float]:
        """Lets the command run; (status, standard output, standard error, seconds) when all is over."""
        talk = Talk(self.process, stdin, limits.output)
        start = looked = time.monotonic()
        os.write(self.release, b"1")
        os.close(self.release)
        self.release = -1
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


class Talk:
    """The three pipes without waiting. `over` when the command ended, `flood` when it said more than it may."""

    def __init__(self, process: subprocess.Popen, stdin: bytes, most: int):
        self.input, self.stdin, self.most = process.stdin, memoryview(stdin), most
        self.stdout, self.stderr, self.errors = bytearray(), bytearray(), 0
        self.over = self.flood = False
        self.ready = selectors.DefaultSelector()
        self.end = os.pidfd_open(process.pid)
        self.ready.register(self.end, selectors.EVENT_READ, self.ended)
        for pipe, event, action in (
            (process.stdin, selectors.EVENT_WRITE, self.write),
            (process.stdout, selectors.EVENT_READ, self.answer),
            (process.stderr, selectors.EVENT_READ, self.remark),
        ):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self.ready.register(pipe, event, action)

    def listen(self, wait: float) -> bool:
        """Handles what is ready within `wait` seconds; whether anything was."""
        events = self.ready.select(wait)
        for key, _ in events:
            try:
                goes_on = key.data(key.fd)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:  # nobody reads our side any more
                goes_on = False
            if not goes_on:
                self.ready.unregister(key.fileobj)
                if key.data == self.write and self.input:
                    self.input.close()  # the command reads to the end
        return bool(events)

    def ended(self, _: int) -> bool:
        self.over = True
        return False

    def write(self, pipe: int) -> bool:
        if self.stdin:
            self.stdin = self.stdin[os.write(pipe, self.stdin[:CHUNK]) :]
        return bool(self.stdin)

    def answer(self, pipe: int) -> bool:
        chunk = os.read(pipe, CHUNK)
        self.stdout += chunk
        self.flood |= len(self.stdout) > self.most
        return bool(chunk)

    def remark(self, pipe: int) -> bool:
        chunk = os.read(pipe, CHUNK)
        self.errors += len(chunk)
        self.stderr += chunk[: KEPT - len(self.stderr)]
        self.flood |= self.errors > self.most
        return bool(chunk)

    def close(self) -> None:
        self.ready.close()
        os.close(self.end)
