"""Runs a few lines of Python in the sandbox, without packages: what one limit or one wall does."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from grading.limits import Limits
from grading.sandbox import Outcome, Unavailable, run

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
MIB = 2**20
SMALL = Limits(seconds=20, memory=256 * MIB, processes=20, output=MIB, files=100, file_size=8 * MIB)
numbers = itertools.count(62_000 + 20 * (os.getpid() % 1000))


def fresh_uid() -> int:
    """A uid that no other test uses, also where several run at once."""
    return next(numbers)


def missing() -> str:
    """Why no sandbox can be had here, or ""; where one is required, that is for the tests to say, by failing."""
    if sys.platform != "linux":
        return "bubblewrap is a Linux program"
    if os.environ.get("LECTURECODE_REQUIRE_SANDBOX") == "1":
        return ""
    try:
        outcome = run(["/usr/bin/true"], b"", SMALL, fresh_uid())
    except Unavailable as error:
        return str(error)
    said = outcome.stderr.decode(errors="replace").strip()
    return "" if outcome.code == 0 else f"a sandbox does not start here: {outcome.status} {said}"


REASON = missing()
sandboxed = pytest.mark.skipif(bool(REASON), reason=REASON or "there is a sandbox here")


def watches() -> list[str]:
    """Counting in /proc everywhere, control groups where they are writable."""
    if not REASON:
        with contextlib.suppress(Unavailable):
            run(["/usr/bin/true"], b"", SMALL, fresh_uid(), watch="groups")
            return ["groups", "tree"]
    return ["tree"]


WATCHES = watches()
both = pytest.mark.parametrize("watch", WATCHES)


def python(code: str, limits: Limits = SMALL, watch: str = "best", stdin: bytes = b"", **rest: Any) -> Outcome:
    command = [os.path.abspath(sys.executable), "-I", "-S", "-c", textwrap.dedent(code)]
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
