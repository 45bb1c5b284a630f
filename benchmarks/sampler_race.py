"""The race of `samplers.py`, run in the environment that it makes: our samplers beside the peers' own code."""

import ast
import contextlib
import json
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sampler_peers as theirs
import torch
from report import processor
from scipy.optimize import minimize
from torch import Tensor

from lecturecode import __version__, seeded
from lecturecode.data import digits
from lecturecode.diffusion import (
    EDM,
    Counted,
    Denoiser,
    GaussianMixtureDenoiser,
    LogNormalTimes,
    Schedule,
    ddim,
    dpm_solver,
    exponential,
    few_calls,
    follow,
    gaussian_exponential,
    noise_exponential,
    preconditioned,
    sample,
)
from lecturecode.nn import ConditionalMLP
from lecturecode.training import Batches, Ema, adam, fit

CALLS = (5, 7, 10, 15, 20, 30, 50)
PILOT, TEST, LOOK = 256, 512, 32
F64 = torch.float64
TRAINING = Path(__file__).parents[1] / "book" / "diffusion" / "training.md"
BROKEN = ValueError, ZeroDivisionError, FloatingPointError, IndexError, RuntimeError  # on a grid to σ = 0
RATES = 0.1, 20.0  # of the variance-preserving process whose clock is one family of grids


@dataclass
class Problem:
    """A denoiser of (x, σ) in float64, starts at `first`, and where the flow leads them at σ = 0."""

    name: str
    denoiser: Any
    first: float
    draw: Callable[[int, int], Tensor]
    x: Tensor = field(init=False)
    ends: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.draw(TEST, 1)
        self.ends = follow(self.denoiser, self.x, self.first, 0.0, 1e-9)


def errors(x: Tensor, ends: Tensor) -> tuple[float, float]:
    """Median and root mean square of the distance."""
    gap = (x - ends).norm(dim=1)
    return gap.median().item(), gap.square().mean().sqrt().item()


def mixture() -> Problem:
    """Ten Gaussians: the digits' classes, with a tenth of each covariance replaced by its mean variance."""
    part = digits("training")
    pixels = 2 * part.grey.double() - 1
    pieces = [pixels[part.labels == k] for k in range(10)]
    covariances = torch.stack([piece.mT.cov() for piece in pieces])
    level = covariances.diagonal(dim1=1, dim2=2).mean(1)
    covariances = 0.9 * covariances + 0.1 * level[:, None, None] * torch.eye(64, dtype=F64)
    weights = torch.tensor([len(piece) / len(pixels) for piece in pieces], dtype=F64)
    means = torch.stack([piece.mean(0) for piece in pieces])
    model = GaussianMixtureDenoiser(weights, means, covariances, EDM(80.0))
    return Problem("mixture", model, 80.0, lambda count, seed: 80 * normals(count, seed))


def network() -> Problem:
    """The network of book/diffusion/training.md, by that page's own function; its averaged weights, in float64."""
    part = digits("training")
    used = [seeded, EDM, Denoiser, LogNormalTimes, preconditioned, ConditionalMLP, Batches, Ema, adam, fit, partial]
    space = {thing.__name__: thing for thing in used}
    space |= {"math": math, "x": 2 * part.grey - 1, "labels": part.labels.long()}
    text = TRAINING.read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\} ipython3\n(?:---\n.*?^---\n)?(.*?)^```", text, re.M | re.S)
    for node in (node for cell in cells for node in ast.parse(cell).body):
        if isinstance(node, ast.FunctionDef) and node.name == "train_denoiser":
            exec(ast.unparse(node), space)
    model, ema = space["train_denoiser"](1)
    with ema.weights():
        kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    model.double().requires_grad_(False)
    assert isinstance(model, Denoiser)
    end = float(model.schedule.end)
    return Problem("network", ByRow(model), end, lambda count, seed: end * normals(count, seed))


def normals(count: int, seed: int) -> Tensor:
    return torch.randn(count, 64, generator=seeded(seed), dtype=F64)


@dataclass(frozen=True)
class ByRow:
    """Labels 0 to 9 in turn. The pilot's rows come in pairs of one label: its half that makes and its half that chooses
    have the same ones, in the same places."""

    denoiser: Denoiser

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, xt: Tensor, t: Any) -> Tensor:
        rows = torch.arange(len(xt))
        return self.denoiser(xt, t, (rows // 2 if len(xt) == PILOT else rows) % 10)


@dataclass(frozen=True)
class Grid:
    """n steps from σ `first` to `last`, and on to 0 or not: Karras' with ρ = 1/bend, log σ (bend 0), or VP's clock."""

    first: float
    last: float
    bend: float | None
    to_zero: bool

    def __call__(self, n: int) -> Tensor:
        line = torch.linspace(0, 1, n + (not self.to_zero), dtype=F64)
        if self.bend is None:
            low, high = RATES
            ends = [math.log1p(value**2) for value in (self.first, self.last)]
            first, last = ((math.sqrt(low**2 + 2 * (high - low) * end) - low) / (high - low) for end in ends)
            t = first + line * (last - first)
            sigma = torch.expm1(low * t + (high - low) * t.square() / 2).sqrt()
        elif self.bend < 1e-3:
            sigma = (math.log(self.first) + line * math.log(self.last / self.first)).exp()
        else:
            first, last = self.first**self.bend, self.last**self.bend
            sigma = (first + line * (last - first)) ** (1 / self.bend)
        sigma[0] = self.first
        return torch.cat([sigma, sigma.new_zeros(1)]) if self.to_zero else sigma

    def about(self) -> dict:
        return {
            "sigma": [round(self.first, 4), float(f"{self.last:.3g}")],
            "rho": "VP clock" if self.bend is None else "log" if self.bend < 1e-3 else float(f"{1 / self.bend:.3g}"),
            "to zero": self.to_zero,
        }


class Tried:
    """What a sampler did on each grid tried, on a few starts; `best` by the median or the root mean square."""

    def __init__(self, error: Callable[[Grid], tuple[float, float]]):
        self.error, self.found = error, {}

    def __call__(self, grid: Grid) -> float:
        if grid not in self.found:
            try:
                both = self.error(grid)
            except BROKEN:
                both = math.inf, math.inf
            self.found[grid] = tuple(value if math.isfinite(value) else math.inf for value in both)
        return self.found[grid][0]

    def best(self, count: int, by: int = 0) -> list[Grid]:
        return sorted(self.found, key=lambda grid: self.found[grid][by])[:count]


def looked(tried: Tried, first: float, to_zero: bool, wider: bool) -> None:
    """The common grids: three of them, or five more."""
    if not wider:
        grids = [(first, 0.02, 1 / 7), (first, 0.06, 0.0), (first / 5, 0.05, 1 / 7)]
    else:
        lasts = (0.1, 0.3) if to_zero else (0.005, 0.02)
        grids = [(first, last, bend) for last in lasts for bend in (1 / 7, 0.0)] + [(first, 0.04, None)]
    for begin, last, bend in grids:
        tried(Grid(begin, last, bend, to_zero))


def refined(tried: Tried, top: float, to_zero: bool, tries: int) -> None:
    """Nelder and Mead's search in log σ_last, 1/ρ and log σ_first from the best so far with this end."""
    mine = [grid for grid in tried.best(len(tried.found)) if grid.to_zero == to_zero and grid.bend is not None]
    if not mine or not math.isfinite(tried(mine[0])):
        return
    start = mine[0]

    def grid(p: Any) -> Grid:
        first = top * math.exp(min(0.0, p[2]))
        last = min(max(math.exp(p[0]), 1e-6), first / 4)
        return Grid(first, last, min(max(p[1], 0.0), 1.5), to_zero)

    p = [math.log(start.last), start.bend, math.log(start.first / top)]
    simplex = [p, [p[0] + 0.7, *p[1:]], [p[0], p[1] + 0.08, p[2]], [*p[:2], p[2] - 0.7]]
    options = {"maxfev": tries, "initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-5}
    minimize(lambda p: min(tried(grid(p)), 1e3), p, method="Nelder-Mead", options=options)


def runs(problem: Problem, peer: theirs.Peer, calls: int, grid: Grid, rows: int) -> tuple[float, float]:
    """The peer's error on the first rows, its calls counted."""
    made = 0

    def counted(x: Tensor, sigma: float) -> Tensor:
        nonlocal made
        made += 1
        return problem.denoiser(x, sigma)

    # a grid that begins lower is begun by what its user would draw there
    start = problem.x[:rows] * (grid.first / problem.first)
    x = peer.run(counted, start, grid(peer.steps(calls, grid.to_zero)))
    if made > calls:
        raise SystemExit(f"a peer makes {made} calls where {calls} were asked for")
    return errors(x.to(F64), problem.ends[:rows])


def same(problem: Problem, found: dict[str, theirs.Peer]) -> dict[str, list[str]]:
    """Peers that make the same numbers, under the first of their names."""
    groups: dict[str, list[str]] = {}
    marks: dict[str, Tensor] = {}
    for name, peer in found.items():
        probes = []
        for calls in (5, 16):
            for to_zero in (True, False):
                row = torch.full((4, 64), math.nan, dtype=F64)
                if to_zero in peer.ends:
                    grid = Grid(problem.first, 0.1, 1 / 5, to_zero)(peer.steps(calls, to_zero))
                    with contextlib.suppress(*BROKEN):
                        row = peer.run(problem.denoiser, problem.x[:4], grid).to(F64)
                probes.append(torch.nan_to_num(row, nan=1e6))
        mark = torch.stack(probes)
        twin = next((other for other, seen in marks.items() if (seen - mark).abs().max() < 1e-4), None)
        if twin is None:
            marks[name], groups[name] = mark, [name]
        else:
            groups[twin].append(name)
    return groups


def race(
    problem: Problem, calls: int, groups: dict[str, list[str]], found: dict[str, theirs.Peer], before: dict
) -> dict:
    """The peers' best errors over the grids, looking at the very starts they are judged on."""
    tried = {name: Tried(partial(runs, problem, found[name], calls, rows=LOOK)) for name in groups}

    def value(name: str) -> float:
        return tried[name](tried[name].best(1)[0])

    for name, each in tried.items():
        for grid in before.get(name, []):
            each(grid)
        for to_zero in found[name].ends:
            looked(each, problem.first, to_zero, wider=False)
    for wider in (True, False):
        leader = min(map(value, tried))
        for name in [name for name in tried if value(name) < (3 if wider else 2) * leader]:
            if not wider:
                refined(tried[name], problem.first, tried[name].best(1)[0].to_zero, 20)
                continue
            for to_zero in found[name].ends:
                looked(tried[name], problem.first, to_zero, wider=True)
    for name in sorted(tried, key=value)[:5]:
        for to_zero in found[name].ends:
            refined(tried[name], problem.first, to_zero, 30)
    out = {}
    steady = sorted(tried, key=lambda name: min(both[1] for both in tried[name].found.values()))[:3]
    for name in dict.fromkeys([*sorted(tried, key=value)[:10], *steady]):
        each = tried[name]
        finalists = {*each.best(3), *each.best(1, by=1)}
        results = [(runs(problem, found[name], calls, grid, TEST), grid) for grid in finalists]
        (median, _), grid = min(results, key=lambda pair: pair[0][0])
        out[name] = {"median": median, "rms": min(both[1] for both, _ in results), "grid": grid.about()}
    before |= {name: each.best(2) for name, each in tried.items()}
    return {
        "peers": dict(sorted(out.items(), key=lambda pair: pair[1]["median"])),
        "the others' least median": min(value(name) for name in tried if name not in out),
        "grids tried": sum(len(each.found) for each in tried.values()),
    }


def measure_ours(problem: Problem, calls: int) -> dict:
    """What `few_calls` chooses on a pilot of other starts, on the starts that are judged."""
    begun = time.process_time()
    chosen = few_calls(problem.denoiser, problem.draw(PILOT, 2), calls)
    spent = time.process_time() - begun
    counted = Counted(problem.denoiser)
    x = sample(counted, chosen.table, problem.x)
    if counted.calls > calls:
        raise SystemExit(f"{chosen.name} makes {counted.calls} calls where {calls} were asked for")
    median, rms = errors(x, problem.ends)
    return {"chosen": chosen.name, "median": median, "rms": rms, "seconds to choose": round(spent, 1)}


def overhead(rounds: int) -> dict:
    """Microseconds of CPU time a call at batch 1 around a denoiser that does nothing."""
    n = 50
    x, answer = torch.randn(1, 64, generator=seeded(0)), torch.zeros(1, 64)
    sigmas = Grid(80.0, 0.05, 1 / 7, True)(n)
    schedule = EDM(80.0)

    @dataclass(frozen=True)
    class Nothing:
        schedule: EDM

        def __call__(self, xt: Tensor, t: Any) -> Tensor:
            return answer

    nothing = Nothing(schedule)

    def none(x: Tensor, sigma: float) -> Tensor:
        return answer

    sides: dict[str, Callable[[], Any]] = {}
    wide = partial(gaussian_exponential, mean=torch.zeros(64, dtype=F64), covariance=torch.eye(64, dtype=F64))
    rules = {
        "ddim": ddim,
        "2M": dpm_solver,
        "exponential 3": exponential,
        "noise 3": noise_exponential,
        "by direction": wide,
    }
    for name, rule in rules.items():
        sides[f"ours {name}"] = partial(sample, nothing, rule(schedule, sigmas), x)
    found = theirs.peers()
    for name in (
        "k-diffusion euler",
        "k-diffusion dpmpp_2m",
        "diffusers DDIM",
        "diffusers EDM DPM-Solver 2",
        "diffusers UniPC 2 bh2 x0",
        "azula xEAB 3",
        "azula zAB 3",
    ):
        grid = sigmas if True in found[name].ends else Grid(80.0, 0.05, 1 / 7, False)(n)
        sides[name] = partial(found[name].run, none, x, grid)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()
    for _ in range(rounds):
        for name, work in sides.items():
            start = time.process_time()
            for _ in range(20 if name.startswith("ours") else 3):
                work()
            spent = time.process_time() - start
            times[name].append(1e6 * spent / n / (20 if name.startswith("ours") else 3))
    return {name: {"minimum": round(min(t), 2), "median": round(statistics.median(t), 2)} for name, t in times.items()}


def compare(problem: Problem, kept: dict) -> dict:
    """Both sides; `kept` are the peers' numbers of an earlier run, where only ours are wanted anew."""
    found = theirs.peers()
    before: dict[str, list[Grid]] = {}
    out: dict[str, Any] = {"calls": {}}
    if kept:
        out["one and the same"], groups = kept["one and the same"], {}
    else:
        groups = same(problem, found)
        out["one and the same"] = [names for names in groups.values() if len(names) > 1]
    for calls in CALLS:
        begun = time.time()
        line = kept["calls"][str(calls)] if kept else race(problem, calls, groups, found, before)
        line["ours"] = mine = measure_ours(problem, calls)
        name, best = next(iter(line["peers"].items()))
        steadiest = min(each["rms"] for each in line["peers"].values())
        line["ratio"], line["ratio of rms"] = (
            round(best["median"] / mine["median"], 3),
            round(steadiest / mine["rms"], 3),
        )
        out["calls"][str(calls)] = line
        print(
            f"{problem.name} {calls:2d}: ours {mine['median']:.5f} ({mine['chosen']}), best peer {best['median']:.5f} "
            f"({name} {best['grid']}), ratio {line['ratio']:.2f}, of rms {line['ratio of rms']:.2f}; "
            f"{time.time() - begun:.0f} s",
            flush=True,
        )
    return out


def main() -> None:
    rounds, keep, anew = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    kept = json.loads(keep.read_text(encoding="utf-8")) if anew and keep.exists() else {}
    result = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | theirs.versions()
        | {"lecturecode": __version__},
        "setting": {"starts": TEST, "pilot": PILOT, "rounds": rounds, "dtype": "float64", "clock": "CPU time"},
        "microseconds a call": overhead(rounds),
    }
    print(json.dumps(result["microseconds a call"]), flush=True)
    for make in (mixture, network):
        result[make.__name__] = compare(make(), kept.get(make.__name__, {}))
    keep.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
