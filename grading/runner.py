"""Inside the sandbox: runs a notebook's cells and answers the questions where they stand.

The task comes by standard input, the answers leave by standard output, one line each; what the cells print goes
to the standard error. Each question is answered in a fork of its own, so that one that crashes or never ends takes
nothing from the others, and what it changes is gone. A step may take half of the time that is left. Nothing here
guards against the cells, which share this process: the sandbox does.
"""

from __future__ import annotations

import linecache
import os
import random
import signal
import sys
import time
import types
from contextlib import suppress
from os import getpid
from time import monotonic
from typing import Any

from grading.exchange import Refused, dumps, loads

__all__ = ["main"]

MAGIC = ("%", "!", "?")
TASK = 2**30  # bytes of a step: it comes from the trusted side
HELLO = b"ready\n"  # the task comes only after it


class TooLong(BaseException):
    """The alarm of a step's time."""


class Run:
    def __init__(self, seconds: float, answers: int):
        self.end, self.answers, self.pid = monotonic() + seconds, answers, getpid()
        self.facts = {"errors": 0, "cut": 0, "magics": 0}
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.names = module.__dict__
        self.names["display"] = lambda *values, **options: None

    def tell(self, **facts: Any) -> None:
        line = dumps(facts)
        while line:
            line = line[os.write(self.answers, line) :]

    def share(self) -> float:
        return max(0.01, (self.end - monotonic()) / 2)

    def cell(self, source: str, number: int) -> None:
        """A cell that fails changes nothing for the next ones but what it did not define."""
        try:
            signal.signal(signal.SIGALRM, alarm)
            signal.setitimer(signal.ITIMER_REAL, self.share(), 1.0)
            exec(self.compiled(source, f"<cell {number}>"), self.names)
        except TooLong:
            self.facts["cut"] += 1
        except BaseException:  # a SystemExit too
            self.facts["errors"] += 1
        finally:
            for _ in range(2):  # the alarm may come even now
                with suppress(TooLong):
                    signal.setitimer(signal.ITIMER_REAL, 0)
            leave_unless(self.pid)

    def compiled(self, source: str, name: str) -> types.CodeType:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            return compile(source, name, "exec")
        except SyntaxError:
            kept = without_magics(source)
            if kept == source:
                raise
            self.facts["magics"] += 1
            return compile(kept, name, "exec")

    def ask(self, question: str, expression: str, cases: list[dict[str, Any]]) -> None:
        limit = monotonic() + self.share()
        while True:
            try:
                child = os.fork()
                break
            except OSError:  # no process is left: the cells made too many
                if monotonic() > limit:
                    return self.tell(question=question, over="no process left")
                time.sleep(0.05)
        if child == 0:
            try:
                self.answer(question, expression, cases)
            finally:
                os._exit(0)
        while monotonic() < limit:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return None if status == 0 else self.tell(question=question, over="crashed")
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.facts["cut"] += 1
        self.tell(question=question, over="timed out")

    def answer(self, question: str, expression: str, cases: list[dict[str, Any]]) -> None:
        code, pid = compile(expression, "<question>", "eval"), getpid()
        for number, inputs in enumerate(cases):
            seed()
            try:
                value = dumps({"question": question, "case": number, "value": eval(code, {**self.names, **inputs})})
            except Refused:
                value = dumps({"question": question, "case": number, "error": "Refused"})
            except BaseException as error:
                value = dumps({"question": question, "case": number, "error": type(error).__name__})
            leave_unless(pid)
            while value:
                value = value[os.write(self.answers, value) :]


def without_magics(source: str) -> str:
    """Where a cell is no Python, its lines for IPython and for the shell do nothing."""
    lines = []
    for line in source.split("\n"):
        code = line.strip()
        magic = code.startswith(MAGIC) or code.endswith("?")
        lines.append(line[: len(line) - len(line.lstrip())] + "pass" if magic else line)
    return "\n".join(lines)


def alarm(*_: Any) -> None:
    raise TooLong


def leave_unless(pid: int) -> None:
    """A fork that a cell made and forgot would run the rest of the notebook once more."""
    if getpid() != pid:
        os._exit(1)


def seed() -> None:
    """The same draws at every run, for those who draw from the global generators."""
    random.seed(0)
    for name, function in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            with suppress(Exception):
                target: Any = sys.modules[name]
                for part in function.split("."):
                    target = getattr(target, part)
                target(0)


def tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def usual_signals() -> None:
    """A grader that was started in the background ignores some signals, and hands that down."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):  # Python's own
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    usual_signals()
    answers = os.dup(1)
    os.dup2(2, 1)
    os.write(answers, HELLO)
    first, *lines = sys.stdin.buffer.readlines()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    run = Run(loads(first)["seconds"], answers)
    number = 0
    for line in lines:
        step = loads(line, tensor, most=TASK)
        if "cell" in step:
            number += 1
            run.cell(step["cell"], number)
        else:
            run.ask(step["question"], step["expression"], step["cases"])
    if len([name for name in os.listdir("/proc") if name.isdigit()]) > 2:
        time.sleep(0.1)  # others are left behind: they are still to be counted
    run.tell(end=run.facts)
    os._exit(0)


if __name__ == "__main__":
    main()
