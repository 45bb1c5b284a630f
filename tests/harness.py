"""The equation contract: a test for each labelled equation, with a residual that nobody typed and that can fail.

`@equation("label")` runs its test once to record every assertion, and then once more for each of them with the left
side of that one moved by 1e-6 (relative above one, absolute below). Each such run must fail at that assertion: a test
whose tolerance is too wide, whose sides are NaN or empty, or which never reaches its assertion is refused.

A residual is max |left − right| / max(1, |right|), or |left − right| / |right| with `relative=True`.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

SHIFT = 1e-6
RESULTS: dict[str, dict] = {}  # label -> what is written to build/equations.json


class TooWide(AssertionError):
    """An equation test that cannot fail."""


@dataclass
class _Run:
    """One pass through a test: which assertion is moved (None: none), and what was seen."""

    moved: int | None = None
    seen: list[tuple[float, float]] = field(default_factory=list)

    @property
    def moves_now(self) -> bool:
        return self.moved == len(self.seen)


class _Moved(AssertionError):
    """The moved assertion failed, as it must."""


_run: _Run | None = None


def equation(label: str) -> Callable:
    """Marks the one test that holds the equation with this label."""

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def held(*args, **kwargs):
            recorded = _pass(test, args, kwargs, _Run())
            if not recorded.seen:
                raise TooWide(f"{test.__name__} holds {label!r} but asserts nothing through the harness")
            for k in range(len(recorded.seen)):
                _demand_failure(test, args, kwargs, label, k)
            _keep(label, test, recorded.seen)

        return held

    return decorate


def assert_close(left, right, tol: float = 1e-12, relative: bool = False) -> None:
    """left = right within `tol`, elementwise with broadcasting; infinities are equal to themselves."""
    left, right = _tensor(left), _tensor(right)
    if tol > SHIFT / 2:
        raise TooWide(f"tolerance {tol:g} is wider than half the shift {SHIFT:g} that a test must notice")
    if left.numel() == 0 or right.numel() == 0:
        raise TooWide("nothing is compared: one side is empty")
    if _run is not None and _run.moves_now:
        left = left + SHIFT * (left.abs() if relative else left.abs().clamp(min=1.0))
    scale = right.abs() if relative else right.abs().clamp(min=1.0)
    residual = torch.where(left == right, 0.0, (left - right).abs() / scale)
    _judge(float(residual.nan_to_num(nan=math.inf).max()), tol, f"{left} is not {right}")


def assert_at_most(small, large, tol: float = 1e-12) -> None:
    """small ≤ large within `tol`, everywhere, and equal somewhere: a bound is tested where it is tight."""
    small, large = _tensor(small), _tensor(large)
    if small.numel() == 0 or large.numel() == 0:
        raise TooWide("nothing is compared: one side is empty")
    if _run is not None and _run.moves_now:
        small = small + SHIFT * small.abs().clamp(min=1.0)
    excess = torch.where(small <= large, 0.0, (small - large) / large.abs().clamp(min=1.0))
    _judge(float(excess.nan_to_num(nan=math.inf).max()), tol, f"{small} is above {large}")


def assert_zero(expression) -> None:
    """A SymPy expression (or a list of them) simplifies to zero exactly."""
    import sympy

    expressions = expression if isinstance(expression, list | tuple) else [expression]
    moved = sympy.Integer(1) if _run is not None and _run.moves_now else sympy.Integer(0)
    left = [sympy.simplify(e + moved) for e in expressions]
    _judge(0.0 if left and all(e == 0 for e in left) else math.inf, 0.0, f"{left} is not zero")


def _judge(residual: float, tol: float, words: str) -> None:
    moved = _run is not None and _run.moves_now
    if _run is not None:
        _run.seen.append((residual, tol))
    if residual > tol:
        raise (_Moved if moved else AssertionError)(f"residual {residual:.3g} above {tol:.3g}: {words}")
    if moved:
        raise TooWide(f"an assertion still holds when its left side is moved by {SHIFT:g}: {words}")


def _pass(test, args, kwargs, run: _Run) -> _Run:
    global _run
    _run = run
    try:
        test(*args, **kwargs)
    finally:
        _run = None
    return run


def _demand_failure(test, args, kwargs, label: str, k: int) -> None:
    try:
        _pass(test, args, kwargs, _Run(moved=k))
    except _Moved:
        return
    raise TooWide(f"{test.__name__} ({label!r}) never reached assertion {k} when it was moved")


def _keep(label: str, test: Callable, seen: list[tuple[float, float]]) -> None:
    lines, start = inspect.getsourcelines(test)
    path = Path(inspect.getsourcefile(test) or "").resolve()
    root = Path(__file__).resolve().parents[1]
    worst = max(seen, key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    entry = {
        "test": f"{path.relative_to(root).as_posix()}::{test.__name__}",
        "line": start,
        "end_line": start + len(lines) - 1,
        "residual": worst[0],
        "tolerance": worst[1],
        "checks": len(seen),
    }
    before = RESULTS.get(label)
    if before is not None and before["test"] != entry["test"]:
        raise TooWide(f"two tests hold {label!r}: {before['test']} and {entry['test']}")
    if before is not None:  # a parametrised test: keep its worst case
        entry["checks"] += before["checks"]
        if before["residual"] > entry["residual"]:
            entry["residual"], entry["tolerance"] = before["residual"], before["tolerance"]
    RESULTS[label] = entry


def _tensor(x) -> torch.Tensor:
    return torch.as_tensor(x, dtype=torch.float64).detach().cpu()
