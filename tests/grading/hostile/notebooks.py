"""Hostile files, as the bytes that are handed in: name -> (what it does, status, score, the bytes)."""

from __future__ import annotations

import io
import json
import zipfile

from demo import LOCKED, ORDER, SOLUTIONS, cell, cells, notebook

WRONG = "def normalise(weights):\n    return weights\n"
WRONG_CELLS = cells(normalise=WRONG)
CHEAT = "normalise = lambda weights: 'right'\nfree_energy = normalise\n"
SCRIPT = {"output_type": "display_data", "metadata": {}, "data": {"text/html": ["<script>alert(1)</script>"]}}


def changed(name: str, **facts: object) -> bytes:
    """The right submission, one of whose cells has other facts."""
    return notebook([{**one, **facts} if ORDER[k] == name else one for k, one in enumerate(cells())])


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("notebook.ipynb", bytes(10**7))
    return data.getvalue()


def stripped() -> list[dict]:
    return [{**one, "metadata": {}} for one in cells()]


FILES: dict[str, tuple[str, str, float, bytes]] = {
    "empty": ("no byte at all", "refused", 0, b""),
    "no-json": ("a picture", "refused", 0, b"\x89PNG\r\n\x1a\n" + bytes(1000)),
    "zip-bomb": ("an archive that unpacks to a notebook", "refused", 0, archive()),
    "pickle": ("a pickle that would run a command", "refused", 0, b"cos\nsystem\n(S'touch /tmp/here'\ntR."),
    "list": ("JSON, and no notebook", "refused", 0, b"[1, 2, 3]"),
    "cells-in-braces": ("cells that are no list", "refused", 0, b'{"nbformat": 4, "cells": {"0": 1}}'),
    "old-format": ("a notebook of format 3", "refused", 0, b'{"nbformat": 3, "worksheets": [{"cells": []}]}'),
    "nested": ("brackets in brackets", "refused", 0, b"[" * 100_000 + b"]" * 100_000),
    "nested-metadata": (
        "a right notebook with brackets in brackets",
        "refused",
        0,
        notebook(cells()).replace(b'"metadata": {}', b'"metadata": {"x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", 1),
    ),
    "many-parts": ("millions of empty lists", "refused", 0, b'{"nbformat": 4, "cells": [' + b"[]," * 10**6 + b"[]]}"),
    "large": ("forty megabytes of output", "refused", 0, notebook(cells(), x="x" * 40 * 2**20)),
    "many-cells": ("five thousand cells", "refused", 0, notebook([cell("pass")] * 5000)),
    "utf-16": ("another encoding", "refused", 0, notebook(cells()).decode().encode("utf-16")),
    "long-number": ("a number of a million digits", "refused", 0, b'{"nbformat": ' + b"4" * 10**6 + b', "cells": []}'),
    "byte-order-mark": (
        "a mark at the beginning, as some editors write it",
        "graded",
        3,
        b"\xef\xbb\xbf" + notebook(cells()),
    ),
    "no-cells": ("no cells", "graded", 0, notebook([])),
    "strange-cells": (
        "cells that are numbers, lists and nothing",
        "graded",
        3,
        notebook([1, None, [], {}, *cells(), "x"]),
    ),
    "strange-metadata": (
        "metadata of other types, and a kernel of another language",
        "graded",
        3,
        notebook(
            [{**cell("pass"), "metadata": m} for m in (None, 3, [], {"nbgrader": 5}, {"nbgrader": {"grade_id": []}})]
            + cells(),
            metadata={"kernelspec": {"name": "bash", "argv": ["false"]}},
        ),
    ),
    "numbers-that-are-none": ("NaN and Infinity in metadata", "graded", 3, notebook(cells(), x=[float("nan"), 1e999])),
    "number-as-source": ("a source that is a number", "graded", 2, changed("normalise", source=5)),
    "nothing-as-source": ("a source that is null", "graded", 2, changed("normalise", source=None)),
    "mixed-source": ("a source of lines and numbers", "graded", 2, changed("normalise", source=["x = 1\n", 2])),
    "lines-as-source": (
        "a source as a list of lines, which is right",
        "graded",
        3,
        changed("normalise", source=SOLUTIONS["normalise"].splitlines(keepends=True)),
    ),
    "giant-cell": ("a cell of 300 000 characters", "graded", 2, changed("normalise", source="#" * 300_000)),
    "half-characters": (
        "halves of surrogate pairs in a comment",
        "graded",
        3,
        changed("normalise", source="# \ud800\udfff\udfff\n" + SOLUTIONS["normalise"]),
    ),
    "half-names": ("halves of surrogate pairs in the code", "graded", 2, changed("normalise", source="\ud800 = 1\n")),
    "zero-character": (
        "a zero character",
        "graded",
        2,
        changed("normalise", source="x = 1\0\n" + SOLUTIONS["normalise"]),
    ),
    "parser-bomb": ("parentheses in parentheses", "graded", 2, changed("normalise", source="(" * 10**5 + ")" * 10**5)),
    "operator-bomb": ("a sum of signs", "graded", 2, changed("normalise", source="-" * 200_000 + "1")),
    "indentation-bomb": (
        "blocks in blocks",
        "graded",
        2,
        changed("normalise", source="".join(" " * k + "if 1:\n" for k in range(600))),
    ),
    "constant-bomb": (
        "a constant expression that a compiler might compute",
        "graded",
        3,
        changed("normalise", source="lambda: (9**9**9**9, 'x' * 2**60)\n" + SOLUTIONS["normalise"]),
    ),
    "two-alike": (
        "two cells with one grade_id, the second of which is right",
        "graded",
        3,
        notebook([cells()[0], cell(WRONG, "normalise"), *cells()[1:]]),
    ),
    "two-alike-reversed": (
        "two cells with one grade_id, the second of which is wrong",
        "graded",
        2,
        notebook([*cells()[:2], cell(WRONG, "normalise"), *cells()[2:]]),
    ),
    "many-alike": ("each cell ten times", "graded", 3, notebook([one for one in cells() for _ in range(10)])),
    "edited-checks": (
        "locked cells that define the functions anew",
        "graded",
        2,
        notebook(
            [
                cell(CHEAT if name in LOCKED else one["source"], name)
                for name, one in zip(ORDER, WRONG_CELLS, strict=True)
            ]
        ),
    ),
    "no-locked-cells": ("only the answers, without set-up and checks", "graded", 3, notebook([cells()[1], cells()[3]])),
    "no-answer": ("one answer deleted", "graded", 2, notebook([cells()[0], *cells()[2:]])),
    "reordered": ("all cells the other way round", "graded", 3, notebook(cells()[::-1])),
    "no-metadata": ("metadata lost, as some editors do", "graded", 3, notebook(stripped())),
    "no-ids": (
        "answers in cells without grade_ids",
        "graded",
        3,
        notebook([cells()[0], cell(SOLUTIONS["normalise"]), cells()[2], cell(SOLUTIONS["free-energy"]), cells()[4]]),
    ),
    "own-points": (
        "awards itself a thousand points for what is wrong",
        "graded",
        2,
        changed(
            "normalise",
            source=WRONG,
            metadata={"nbgrader": {"grade_id": "normalise", "solution": True, "grade": True, "points": 1000}},
        ),
    ),
    "own-questions": (
        "adds a check of its own",
        "graded",
        3,
        notebook(
            [
                *cells(),
                {**cell("assert True"), "metadata": {"nbgrader": {"grade_id": "bonus", "grade": True, "points": 9}}},
            ]
        ),
    ),
    "own-locks": (
        "locks its answer",
        "graded",
        3,
        changed("normalise", metadata={"nbgrader": {"grade_id": "normalise", "locked": True, "solution": False}}),
    ),
    "not-code": ("an answer turned into text", "graded", 2, changed("normalise", cell_type="markdown")),
    "scripts": (
        "outputs and attachments with scripts",
        "graded",
        3,
        changed("normalise", outputs=[SCRIPT] * 50, attachments={"x.svg": {"image/svg+xml": "<svg onload=alert(1)>"}}),
    ),
    "strange-outputs": (
        "outputs of other types",
        "graded",
        3,
        changed("normalise", outputs="<script>", execution_count={}),
    ),
    "later-redefinition": (
        "redefines both functions after the last check, where nothing is asked any more",
        "graded",
        3,
        notebook([*cells(), cell(CHEAT)]),
    ),
    "duplicated-keys": (
        "a second list of cells under the same key",
        "graded",
        3,
        b'{"cells": [], ' + json.dumps(json.loads(notebook(cells()))).encode()[1:],
    ),
}
