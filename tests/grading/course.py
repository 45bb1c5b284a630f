"""A course of one small assignment as a teacher writes it, and a class that hands it in; for the tests of a batch."""

from __future__ import annotations

import json
from pathlib import Path

from demo import SOLUTIONS, cell, notebook

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""
WHY = {"grade": True, "grade_id": "why", "solution": True, "locked": False, "points": 3, "task": False}
WHY["schema_version"] = 3
NOTEBOOK = (
    HEADER
    + """
# Small

Write `normalise(weights)`.

```{code-cell} ipython3
---
nbgrader: {grade: false, grade_id: set-up, locked: true, schema_version: 3, solution: false, task: false}
---
import numpy as np
```

```{code-cell} ipython3
---
nbgrader: {grade: false, grade_id: normalise, locked: false, schema_version: 3, solution: true, task: false}
---
def normalise(weights):
    ### BEGIN SOLUTION
    return weights / weights.sum(axis=-1, keepdims=True)
    ### END SOLUTION
```

```{code-cell} ipython3
---
nbgrader: {grade: true, grade_id: normalise-check, locked: true, points: 2, schema_version: 3, solution: false,
  task: false}
---
assert np.allclose(normalise(np.ones(4)), 0.25)
### BEGIN HIDDEN TESTS
assert np.allclose(normalise(np.ones((5, 2))), 0.5)
### END HIDDEN TESTS
```

Why does the sum stand below?

+++ {"nbgrader": WHY}

### BEGIN SOLUTION
Probabilities add up to one.

Rubric: 3 points for that.
### END SOLUTION
"""
).replace("WHY", json.dumps(WHY))
CHECKS = """
import numpy as np
from grading.judge import Case, Question

w = np.random.default_rng(5).random((4, 3))
QUESTIONS = (Question("normalise-check", "normalise(w)", (Case({"w": w}, w / w.sum(-1, keepdims=True)),), points=2.0),)
"""


def assignments(folder: Path) -> Path:
    """assignments/ with "small" in it."""
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "small.md").write_text(NOTEBOOK)
    (folder / "small" / "checks.py").write_text(CHECKS)
    return folder


def answer(code: str = SOLUTIONS["normalise"], words: str = "They add up to one.") -> bytes:
    """A submission of "small"."""
    written = cell(words, cell_type="markdown", metadata={"nbgrader": WHY})
    return notebook([cell("import numpy as np", "set-up"), cell(code, "normalise"), written])


def hand_in(folder: Path, **submissions: bytes) -> Path:
    """submissions/<student>/small/small.ipynb, but without its folder for students whose name ends with an x."""
    for student, data in submissions.items():
        target = folder / student / ("small.ipynb" if student.endswith("x") else "small/small.ipynb")
        target.parent.mkdir(parents=True)
        target.write_bytes(data)
    return folder
