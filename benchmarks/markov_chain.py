"""Stationary vectors and simulated chains beside the usual ways and, where it can be imported, QuantEcon.

    python benchmarks/markov_chain.py               # prints the ratios, writes benchmarks/results/markov_chain.json

All in float64, on one CPU thread. Stationary vectors of dense random chains of n states:

ours        MarkovChain(T).stationary(): the checks at the door, the closed classes, elimination in blocks of 32;
elimination the last of these three alone;
plain       the same elimination one state at a time (n up to 1000);
eig         numpy.linalg.eig, the eigenvector of the eigenvalue nearest to 1 (n up to 500);
quantecon   quantecon.markov.gth_solve, compiled by numba.

Transitions of 10,000 chains over 1,000 steps:

ours        MarkovChain.sample, its tables made before;
choice      numpy: cumulative columns, one uniform number and one search for each chain and step;
quantecon   MarkovChain.simulate_indices with 10,000 starts.

Before any timing every side's stationary vector is held against one in rational form (reversible chains of symmetric
weights, whose stationary vector is known), its largest relative error is kept, and each side's simulated frequencies of
transition must lie within six standard deviations. Then the sides alternate, round by round; CPU time of the process,
minimum and median, ratios of the minima and of the medians. `nearly decomposable` gives the largest relative error on
nine states in three groups joined by rates of 1e-15, against rational arithmetic.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import asked, processor
from torch import Tensor

from lecturecode import __version__, seeded
from lecturecode.markov import MarkovChain, stationary

try:
    import quantecon as qe
except ImportError:
    qe = None

SIZES, STATES = (100, 200, 500, 1000, 2000), (10, 100, 1000)
CHAINS, STEPS = 10_000, 1_000
RESULTS = Path(__file__).parent / "results" / "markov_chain.json"
f64 = torch.float64


def reversible(n: int) -> tuple[Tensor, Tensor]:
    """T and its stationary vector, from symmetric weights."""
    W = torch.rand(n, n, generator=seeded(n), dtype=f64).pow(6)
    W = W + W.mT
    return W / W.sum(0), W.sum(0) / W.sum()


def plain(T: Tensor) -> Tensor:
    before, stationary.PLAIN = stationary.PLAIN, len(T)
    try:
        return stationary.gth(T)
    finally:
        stationary.PLAIN = before


def eig(T: Tensor) -> Tensor:
    values, vectors = np.linalg.eig(T.numpy())
    p = vectors[:, np.abs(values - 1).argmin()].real
    return torch.from_numpy(p / p.sum())


def gth_quantecon(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(qe.markov.gth_solve(rows))


def solvers(T: Tensor) -> dict[str, Callable[[], Tensor]]:
    found: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: MarkovChain(T).stationary(),
        "elimination": lambda: stationary.gth(T),
    }
    if len(T) <= 1000:
        found["plain"] = lambda: plain(T)
    if len(T) <= 500:
        found["eig"] = lambda: eig(T)
    if qe is not None:
        rows = np.ascontiguousarray(T.mT.numpy())  # its convention: rows sum to one
        found["quantecon"] = lambda: gth_quantecon(rows)
    return found


def choice(columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One search among the cumulative numbers of all states, each state's shifted by its own number."""
    n = columns.shape[1]
    levels = (columns.cumsum(0).clip(max=1) + np.arange(n)).T.ravel()
    levels[n - 1 :: n] = np.arange(1, n + 1)
    x = np.zeros((STEPS + 1, CHAINS), dtype=np.int64)
    for t in range(STEPS):
        x[t + 1] = np.searchsorted(levels, rng.random(CHAINS) + x[t], side="right") - n * x[t]
    return x


def simulators(T: Tensor) -> dict[str, Callable[[], Any]]:
    chain, start = MarkovChain(T), torch.zeros(CHAINS, dtype=torch.long)
    rng, other = seeded(1), np.random.default_rng(1)
    columns = T.numpy()
    found: dict[str, Callable[[], Any]] = {
        "ours": lambda: chain.sample(start, STEPS, rng),
        "choice": lambda: choice(columns, other),
    }
    if qe is not None:
        theirs = qe.MarkovChain(np.ascontiguousarray(T.mT.numpy()))
        at_zero = np.zeros(CHAINS, dtype=np.int64)
        found["quantecon"] = lambda: theirs.simulate_indices(STEPS + 1, init=at_zero, random_state=other).T
    return found


def standard_deviations(x: Any, T: Tensor) -> float:
    """The largest deviation of a count of j → i from visits(j)·T_ij, in its standard deviations, among well-filled."""
    x, n = torch.as_tensor(np.ascontiguousarray(x)).long(), len(T)
    seen = torch.bincount((x[1:] * n + x[:-1]).flatten(), minlength=n * n).view(n, n).to(f64)
    visits = seen.sum(0)
    spread = (visits * T * (1 - T)).sqrt()
    return float(((seen - visits * T).abs() / spread)[spread > 5].max())


def exact(T: Tensor) -> list[Fraction]:
    """The same elimination in rational numbers."""
    n = len(T)
    A, s = [[Fraction(float(v)) for v in row] for row in T], [Fraction(1)] * n
    for k in range(n - 1, 0, -1):
        s[k] = sum((A[i][k] for i in range(k)), Fraction(0))
        for i in range(k):
            for j in range(k):
                A[i][j] += A[i][k] * A[k][j] / s[k]
    p = [Fraction(1)]
    for k in range(1, n):
        p.append(sum((A[k][j] * p[j] for j in range(k)), Fraction(0)) / s[k])
    return [v / sum(p) for v in p]


def nearly_decomposable() -> dict[str, float]:
    T = torch.rand(9, 9, generator=seeded(2), dtype=f64)
    group = torch.arange(9) // 3
    T = torch.where(group[:, None] == group, T, 1e-15 * T)
    T = T / T.sum(0)
    wanted = exact(T)
    return {
        name: max(float(abs(Fraction(float(x)) - y) / y) for x, y in zip(solve(), wanted, strict=True))
        for name, solve in solvers(T).items()
    }


def alternate(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    return times


def report(times: dict[str, list[float]]) -> dict:
    names = {"minimum": min, "median": statistics.median}
    return {
        "seconds": {name: {w: round(f(t), 6) for w, f in names.items()} for name, t in times.items()},
        "over ours": {
            name: {w: round(f(t) / f(times["ours"]), 2) for w, f in names.items()}
            for name, t in times.items()
            if name != "ours"
        },
    }


def measure_stationary(n: int, rounds: int) -> dict:
    T, p = reversible(n)
    sides = solvers(T)
    errors = {name: float((solve() / p - 1).abs().max()) for name, solve in sides.items()}
    if not (errors["ours"] < 1e-14 and max(errors.values()) < 1e-8):
        raise SystemExit(f"a stationary vector of {n} states is wrong: {errors}; nothing was timed")
    return {"gate: relative error": errors, **report(alternate(sides, rounds))}


def measure_simulation(n: int, rounds: int) -> dict:
    T, _ = reversible(n)
    sides = simulators(T)
    apart = {name: round(standard_deviations(walk(), T), 2) for name, walk in sides.items()}
    if max(apart.values()) > 6:
        raise SystemExit(f"simulated transitions of {n} states are off: {apart}; nothing was timed")
    times = alternate(sides, rounds)
    rate = {name: round(CHAINS * STEPS / min(t) / 1e6, 1) for name, t in times.items()}
    return {"gate: standard deviations": apart, "million transitions a second": rate, **report(times)}


def main() -> None:
    options = asked(__doc__, 7, RESULTS)
    torch.set_num_threads(1)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    if qe is not None:
        versions["quantecon"] = qe.__version__
    result = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": versions | {"lecturecode": __version__},
        "setting": {"rounds": options.rounds, "dtype": "float64", "clock": "CPU time"},
        "nearly decomposable: relative error": nearly_decomposable(),
        "stationary": {},
        "simulation": {},
    }
    print(json.dumps(result["nearly decomposable: relative error"]), flush=True)
    for name, sizes, measure in (("stationary", SIZES, measure_stationary), ("simulation", STATES, measure_simulation)):
        for n in sizes:
            result[name][str(n)] = found = measure(n, options.rounds)
            print(name, n, json.dumps(found), flush=True)
    options.keep.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
