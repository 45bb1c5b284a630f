"""The input, the output and the standard error of a command, written and read without ever waiting for it."""

from __future__ import annotations

import os
import selectors
import subprocess

__all__ = ["CHUNK", "KEPT", "Talk"]

CHUNK = 2**16
KEPT = 2**16  # bytes of the standard error that are kept; all are counted


class Talk:
    """The three pipes without waiting. `over` when the command ended, `flood` when it said more than it may.

    The input is held back until the output begins with the greeting: nothing of the input can have written that.
    """

    def __init__(self, process: subprocess.Popen, stdin: bytes, most: int, greeting: bytes):
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.input, self.stdin, self.most, self.greeting = process.stdin, memoryview(stdin), most, greeting
        self.stdout, self.stderr, self.errors = bytearray(), bytearray(), 0
        self.over = self.flood = self.writing = False
        self.ready = selectors.DefaultSelector()
        self.end = os.pidfd_open(process.pid)
        self.ready.register(self.end, selectors.EVENT_READ, self.ended)
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        self.ready.register(process.stdout, selectors.EVENT_READ, self.answer)
        self.ready.register(process.stderr, selectors.EVENT_READ, self.remark)
        self.greeted()

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
                if key.data == self.write:
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
        self.greeted()
        return bool(chunk)

    def greeted(self) -> None:
        if not self.writing and self.stdout.startswith(self.greeting):
            self.writing = True
            self.ready.register(self.input, selectors.EVENT_WRITE, self.write)

    def remark(self, pipe: int) -> bool:
        chunk = os.read(pipe, CHUNK)
        self.errors += len(chunk)
        self.stderr += chunk[: KEPT - len(self.stderr)]
        self.flood |= self.errors > self.most
        return bool(chunk)

    def close(self) -> None:
        self.ready.close()
        os.close(self.end)
