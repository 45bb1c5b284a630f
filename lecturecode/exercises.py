"""Answers to the book's exercises, checked by the reader: `check("name", answer)` says right, or hints at the error.

The tables lie in `answers/`, one file for each part of the book. An entry holds the answer, its tolerance, and the
plausible wrong answers with what leads to them; the tests compute every one of these numbers anew.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

__all__ = ["check", "names"]

GENERAL = "Not yet. Check units (nats), signs and what the sum runs over, then try again."


def names() -> list[str]:
    """The names of all exercises that can be checked."""
    return sorted(_tables())


def check(name: str, answer: float | int | Tensor) -> bool:
    """Compares an answer with the exercise's own, prints the verdict or a hint, and returns whether it is right.

    Raises: ValueError where there is no such exercise, or the answer has another shape.
    """
    if name not in _tables():
        raise ValueError(f"no exercise is called {name!r}; there are {', '.join(names())}")
    entry = _tables()[name]
    given = torch.as_tensor(answer, dtype=torch.float64).detach().cpu()
    wanted = _tensor(entry["answer"])
    if given.shape != wanted.shape:
        raise ValueError(f"the answer has shape {tuple(given.shape)}; {name!r} asks for {tuple(wanted.shape)}")
    tolerance = entry.get("tolerance", 1e-6)
    right = _near(given, wanted, tolerance)
    hints = [w["hint"] for w in entry.get("wrong", []) if _near(given, _tensor(w["answer"]), tolerance)]
    print("Right." if right else (hints or [GENERAL])[0])
    return right


def _tensor(entry: Any) -> Tensor:
    return torch.tensor(entry, dtype=torch.float64)


def _near(given: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return given.shape == wanted.shape and torch.allclose(given, wanted, rtol=tolerance, atol=tolerance)


@cache
def _tables() -> dict[str, dict]:
    entries: dict[str, dict] = {}
    for table in sorted(files("lecturecode").joinpath("answers").iterdir(), key=lambda file: file.name):
        if table.name.endswith(".toml"):
            entries |= tomllib.loads(table.read_text(encoding="utf-8"))
    return entries
