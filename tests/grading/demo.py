"""A small assignment for the tests of grading: two questions, three points."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from grading.grade import Assignment
from grading.judge import Case, Question

UID = 61_000  # nobody's; each test that runs several at once takes the following ones
SOLUTIONS = {
    "normalise": "def normalise(weights):\n    return weights / weights.sum(axis=-1, keepdims=True)\n",
    "free-energy": (
        "def free_energy(energies, beta):\n"
        "    least = energies.min()\n"
        "    return least - np.log(np.exp(-beta * (energies - least)).sum()) / beta\n"
    ),
}
STARTER = "# BEGIN YOUR CODE\nraise NotImplementedError\n"
LOCKED = {
    "set-up": "import numpy as np\n",
    "normalise-check": "assert np.allclose(normalise(np.ones(4)), 0.25)\n",
    "free-energy-check": "assert abs(free_energy(np.zeros(2), 1.0) + np.log(2)) < 1e-9\n",
}
POINTS = {"normalise-check": 1, "free-energy-check": 2}
ORDER = ("set-up", "normalise", "normalise-check", "free-energy", "free-energy-check")


def cell(source: Any, grade_id: str = "", **facts: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if grade_id:
        own = grade_id in SOLUTIONS
        kind: dict[str, Any] = {"solution": own, "locked": not own, "grade": grade_id in POINTS, "task": False}
        kind |= {"points": POINTS[grade_id]} if grade_id in POINTS else {}
        metadata = {"nbgrader": {"grade_id": grade_id, "schema_version": 3, **kind}}
    empty = {"cell_type": "code", "metadata": metadata, "source": source, "outputs": [], "execution_count": None}
    return {**empty, **facts}


def notebook(cells: list[Any], **facts: Any) -> bytes:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells, **facts}).encode()


def cells(**sources: str) -> list[dict[str, Any]]:
    """The cells of a right submission, with some sources replaced (an underscore stands for a hyphen)."""
    changed = {name.replace("_", "-"): source for name, source in sources.items()}
    return [cell({**LOCKED, **SOLUTIONS, **changed}[name], name) for name in ORDER]


def references() -> tuple[Question, ...]:
    """The hidden inputs are drawn from a seed, so that every run asks the same."""
    rng = np.random.default_rng(2024)
    weights = [rng.random(7), rng.random((3, 5))]
    levels = [(rng.normal(size=6), 0.7), (900 + rng.normal(size=9), 2.0)]
    return (
        Question(
            "normalise-check",
            "normalise(weights)",
            tuple(Case({"weights": w}, w / w.sum(-1, keepdims=True)) for w in weights),
            points=1.0,
        ),
        Question(
            "free-energy-check",
            "free_energy(energies, beta)",
            tuple(Case({"energies": e, "beta": b}, -np.logaddexp.reduce(-b * e) / b) for e, b in levels),
            points=2.0,
            tolerance=1e-9,
        ),
    )


HONEST = notebook(cells())
RELEASE = notebook(cells(normalise=STARTER, free_energy=STARTER))
DEMO = Assignment("demonstration", RELEASE, references())
