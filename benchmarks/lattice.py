"""log Z of Ising lattices with random bonds and fields, beside the transfer matrix as it is usually written.

    python benchmarks/lattice.py                    # prints the ratios, writes benchmarks/results/lattice.json

Free boundaries, every bond and field a standard normal number, float64, one CPU thread:

ours      lecturecode.boltzmann.lattice_log_partition: rows in blocks of up to six sites, by matrix products;
site      NumPy, a vector of 2^L numbers, one new spin at a time, in place, scaled once a row;
dense     NumPy, a 2^L × 2^L matrix for each row times that vector (8 × 8 and 10 × 10 only).

All three must agree within 1e-12 before any of them is timed. Then they alternate, round by round; CPU time of the
process, minimum and median, and the ratios of the minima.
"""

import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from report import asked, processor

from lecturecode import __version__, seeded
from lecturecode.boltzmann import lattice_log_partition

SIDES = (8, 10, 12, 14, 16, 18, 20)
DENSE = 10  # the widest lattice for which a dense matrix is made
RESULTS = Path(__file__).parent / "results" / "lattice.json"


def magnet(side: int) -> tuple[torch.Tensor, ...]:
    rng = seeded(side)
    sizes = ((side, side - 1), (side - 1, side), (side, side))
    return tuple(torch.randn(size, generator=rng, dtype=torch.float64) for size in sizes)


def site_by_site(horizontal: np.ndarray, vertical: np.ndarray, fields: np.ndarray) -> float:
    """The vector w over the states of a row, its axes the sites; each new site takes the place of the one above it."""
    rows, columns = fields.shape
    w, log_scale = np.ones(1), 0.0
    for c in range(columns):
        w = (w.reshape(-1, 2, 1) if c else w.reshape(1, 1, 1)) * new_site(horizontal, fields, 0, c)
    w = w.ravel()
    for r in range(1, rows):
        for c in range(columns):
            stay, flip = math.exp(vertical[r - 1, c]), math.exp(-vertical[r - 1, c])
            view = w.reshape(2**c, 2, -1)
            lower = stay * view[:, 0] + flip * view[:, 1]
            view[:, 1] *= stay
            view[:, 1] += flip * view[:, 0]
            view[:, 0] = lower
            pair = w.reshape(-1, 2 if c else 1, 2, 2 ** (columns - 1 - c))
            pair *= new_site(horizontal, fields, r, c)[..., None]
        largest = w.max()
        w /= largest
        log_scale += math.log(largest)
    return log_scale + math.log(w.sum())


def new_site(horizontal: np.ndarray, fields: np.ndarray, r: int, c: int) -> np.ndarray:
    """exp(b s + H s s′) over the spin to the left (none for the first site) and the new one."""
    s = np.array([-1.0, 1.0])
    left = horizontal[r, c - 1] * s[:, None] if c else np.zeros((1, 1))
    return np.exp(s * (left + fields[r, c]))


def dense(horizontal: np.ndarray, vertical: np.ndarray, fields: np.ndarray) -> float:
    rows, columns = fields.shape
    s = 2.0 * (np.arange(2**columns)[:, None] >> np.arange(columns) & 1) - 1
    own = fields @ s.T + horizontal @ (s[:, 1:] * s[:, :-1]).T
    w, log_scale = np.exp(own[0]), 0.0
    for r in range(1, rows):
        w = np.exp((s * vertical[r - 1]) @ s.T + own[r][:, None]) @ w
        largest = w.max()
        w /= largest
        log_scale += math.log(largest)
    return log_scale + math.log(w.sum())


def contestants(side: int) -> dict[str, Callable[[], float]]:
    horizontal, vertical, fields = magnet(side)
    arrays = [part.numpy() for part in (horizontal, vertical, fields)]
    found: dict[str, Callable[[], float]] = {
        "ours": lambda: lattice_log_partition(horizontal, vertical, fields).item(),
        "site": partial(site_by_site, *arrays),
    }
    if side <= DENSE:
        found["dense"] = partial(dense, *arrays)
    return found


def gate(side: int, run: dict[str, Callable[[], float]]) -> float:
    """The largest relative difference between any two answers."""
    answers = [function() for function in run.values()]
    apart = (max(answers) - min(answers)) / abs(answers[0])
    if not apart < 1e-12:
        raise SystemExit(f"{side} × {side}: {dict(zip(run, answers, strict=True))} differ; nothing was timed")
    return apart


def timed(function: Callable[[], float], count: int) -> float:
    """CPU milliseconds a call."""
    start = time.process_time()
    for _ in range(count):
        function()
    return 1e3 * (time.process_time() - start) / count


def measure(side: int, rounds: int) -> dict:
    run = contestants(side)
    apart = gate(side, run)
    times: dict[str, list[float]] = {name: [] for name in run}
    counts = {name: max(1, round(20 / timed(function, 1))) for name, function in run.items()}
    for _ in range(rounds):
        for name, function in run.items():
            times[name].append(timed(function, counts[name]))
    least = {name: min(t) for name, t in times.items()}
    return {
        "gate": apart,
        "milliseconds": {
            name: {"minimum": round(min(t), 3), "median": round(statistics.median(t), 3)} for name, t in times.items()
        },
        "over ours": {name: round(t / least["ours"], 2) for name, t in least.items() if name != "ours"},
    }


def main() -> None:
    options = asked(__doc__, 7, RESULTS)
    torch.set_num_threads(1)
    report = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        | {"lecturecode": __version__},
        "setting": {"dtype": "float64", "rounds": options.rounds, "clock": "CPU time"},
        "sides": {},
    }
    for side in SIDES:
        report["sides"][str(side)] = result = measure(side, options.rounds)
        print(f"{side} × {side}", json.dumps(result, indent=1))
    options.keep.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
