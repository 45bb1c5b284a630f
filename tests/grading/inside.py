"""Runs a few lines of Python in the sandbox, without packages: what one limit or one wall does."""

from __future__ import annotations

import itertools
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from grading.limits import Limits
from grading.sandbox import Outcome, run

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
MIB = 2**20
SMALL = Limits(seconds=10, memory=256 * MIB, processes=20, output=MIB, files=100, file_size=8 * MIB)
numbers = itertools.count(62_000 + 20 * (os.getpid() % 1000))


def fresh_uid() -> int:
    """A uid that no other test uses, also where several run at once."""
    return next(numbers)


def watches() -> list[str]:
    """Counting in /proc everywhere, control groups where they are writable."""
    try:
        run(["/usr/bin/true"], b"", SMALL, fresh_uid(), watch="groups")
    except (OSError, RuntimeError):
        return ["tree"]
    return ["groups", "tree"]


both = pytest.mark.parametrize("watch", watches())


def python(code: str, limits: Limits = SMALL, watch: str = "best", stdin: bytes = b"", **rest: Any) -> Outcome:
    command = [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]
    return run(command, stdin, limits, rest.pop("uid", None) or fresh_uid(), watch=watch, **rest)


def owned_by(uid: int) -> list[str]:
    """The processes of a uid, dead ones not counted."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                facts = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            except OSError:
                continue
            if facts["Uid"].split()[0] == str(uid) and not facts["State"].strip().startswith(("Z", "X")):
                found.append(folder.name)
    return found
