"""Exact log Z of a Boltzmann machine beside the other ways to add up 2^n states, and beside the matrix product alone.

    python benchmarks/enumeration.py                # prints the ratios, writes benchmarks/results/enumeration.json

three groups    BoltzmannMachine.log_partition() in float64 and in float32, and .moments() in float64
table           numpy: the 2^n × n table of all states, its energies, one logsumexp
Gray code       numba: one spin turned at a time, compiled
dimod           ExactSolver of the D-Wave package, then logsumexp of its energies
product alone   torch.mm of the very blocks that the three groups multiply, and nothing else: the limit

Peers that are not installed are left out and named (pip install ".[bench]" brings them). Every contestant's log Z is
compared with the table's before any timing. Then they alternate, round by round: CPU time of the process on one thread,
minimum and median. Peak memory is that of a fresh process.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import asked, processor

from lecturecode import __version__, seeded
from lecturecode.boltzmann import SPIN, BoltzmannMachine
from lecturecode.boltzmann.groups import Groups

RESULTS = Path(__file__).parent / "results" / "enumeration.json"
FIGURE = Path(__file__).parents[1] / "lecturecode" / "data" / "enumeration.json"  # the book draws from this copy
TOLERANCE = {"three groups, float32": 1e-6}
LARGEST = {"table": 22, "Gray code": 26, "dimod": 20}  # beyond, one call takes longer than the others together
MEMORY = """
import sys; sys.path.insert(0, {folder!r})
import torch, enumeration
torch.set_num_threads(1)
enumeration.machine({n}, torch.float64).{call}
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def machine(n: int, dtype: torch.dtype) -> BoltzmannMachine:
    """Couplings N(0, 0.3²) and biases N(0, 0.3²) between spins; the same numbers in each dtype."""
    rng = seeded(n)
    couplings = 0.3 * torch.randn(n, n, generator=rng).triu(1).to(dtype)
    return BoltzmannMachine(couplings + couplings.mT, 0.3 * torch.randn(n, generator=rng).to(dtype), SPIN)


def table(model: BoltzmannMachine) -> Callable[[], float]:
    couplings, biases = (x.detach().double().numpy() for x in (model.couplings, model.biases))

    def run() -> float:
        s = 2.0 * ((np.arange(2**model.n)[:, None] >> np.arange(model.n)) & 1) - 1
        w = ((s @ couplings) * s).sum(1) / 2 + s @ biases
        top = w.max()
        return float(top + np.log(np.exp(w - top).sum()))

    return run


def gray(model: BoltzmannMachine) -> Callable[[], float]:
    from numba import njit

    couplings, biases = (x.detach().double().numpy() for x in (model.couplings, model.biases))

    @njit(cache=False)
    def run(couplings, biases):
        n = len(biases)
        s = -np.ones(n)
        field = biases - couplings.sum(1)
        w = couplings.sum() / 2 - biases.sum()
        top, total = w, 1.0
        for k in range(1, 2**n):
            i = 0
            while not (k >> i) & 1:
                i += 1
            w -= 2 * s[i] * field[i]
            field -= 2 * s[i] * couplings[:, i]
            s[i] = -s[i]
            if w > top:
                total = total * np.exp(top - w) + 1.0
                top = w
            else:
                total += np.exp(w - top)
        return top + np.log(total)

    run(couplings[:2, :2].copy(), biases[:2].copy())
    return lambda: float(run(couplings, biases))


def dimod(model: BoltzmannMachine) -> Callable[[], float]:
    from dimod import BinaryQuadraticModel, ExactSolver

    couplings, biases = (x.detach().double().numpy() for x in (model.couplings, model.biases))
    pairs = {(i, j): -couplings[i, j] for i in range(model.n) for j in range(i)}
    problem = BinaryQuadraticModel.from_ising(dict(enumerate(-biases)), pairs)

    def run() -> float:
        energies = ExactSolver().sample(problem).record.energy
        return float(np.logaddexp.reduce(-energies))

    return run


def product(model: BoltzmannMachine) -> Callable[[], None]:
    groups = Groups(model.couplings.detach(), model.biases.detach(), SPIN)
    rows = groups.rows
    x, w = (
        torch.rand(shape, generator=seeded(1), dtype=torch.float64) for shape in ((rows, 2**groups.k_c), groups.w.shape)
    )
    m = torch.empty(rows, w.shape[1], dtype=torch.float64)

    def run() -> None:
        for _ in range(2**groups.k_a // rows):
            torch.mm(x, w, out=m)

    return run


def contestants(n: int) -> tuple[dict[str, Callable], list[str]]:
    wide, narrow = machine(n, torch.float64), machine(n, torch.float32)
    found: dict[str, Callable] = {
        "three groups, float64": torch.no_grad()(wide.log_partition),
        "three groups, float32": torch.no_grad()(narrow.log_partition),
        "moments, float64": wide.moments,
        "product alone": product(wide),
    }
    missing = []
    for name, make in {"table": table, "Gray code": gray, "dimod": dimod}.items():
        if n <= LARGEST[name]:
            try:
                found[name] = make(wide)
            except ImportError:
                missing.append(name)
    return found, missing


def gate(n: int) -> dict[str, float]:
    """|log Z − the table's| / |log Z| of every contestant at a size that all can reach."""
    found, _ = contestants(n)
    wanted = found.pop("table")()
    differences = {}
    for name, run in found.items():
        if name not in ("moments, float64", "product alone"):
            differences[name] = abs(float(run()) - wanted) / abs(wanted)
            if not differences[name] < TOLERANCE.get(name, 1e-12):
                raise SystemExit(f"{name}: log Z is off by {differences[name]:.1e} at n = {n}; nothing was timed")
    return differences


def measure(n: int, rounds: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    found, missing = contestants(n)
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 1):  # the first warms up
        for name, run in found.items():
            calls = 1 if n > 22 else 5
            start = time.process_time()
            for _ in range(calls):
                run()
            if turn:
                times[name].append((time.process_time() - start) / calls)
    return {name: {"minimum": min(t), "median": statistics.median(t)} for name, t in times.items()}, missing


def peak(n: int, call: str) -> float:
    """MB of a fresh process that makes this one call, as Linux counts its resident pages."""
    code = MEMORY.format(folder=str(Path(__file__).parent), n=n, call=call)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) / 1024


def main() -> None:
    options = asked(
        __doc__, 7, RESULTS, sizes=dict(type=int, nargs="+", default=[12, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36])
    )
    torch.set_num_threads(1)
    report: dict = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "lecturecode": __version__},
        "setting": {"rounds": options.rounds, "clock": "CPU seconds of one call"},
        "gate": {"n": 18, "relative difference of log Z from the table's": gate(18)},
        "seconds": {},
        "ratios": {},
    }
    missing: set[str] = set()
    for n in options.sizes:
        times, absent = measure(n, options.rounds)
        missing |= set(absent)
        ours = times["three groups, float64"]["minimum"]
        ratios = {f"{name} over three groups": t["minimum"] / ours for name, t in times.items() if name in LARGEST}
        ratios["moments over log Z"] = times["moments, float64"]["minimum"] / ours
        ratios["share of the product's rate"] = times["product alone"]["minimum"] / ours
        report["seconds"][str(n)] = {name: {k: float(f"{v:.4g}") for k, v in t.items()} for name, t in times.items()}
        report["ratios"][str(n)] = {name: float(f"{ratio:.3g}") for name, ratio in ratios.items()}
        print(n, f"{ours:.4g} s", report["ratios"][str(n)])
    report["not installed"] = sorted(missing)
    if Path("/proc/self/status").exists():
        calls = {
            "import only": (2, "n"),
            "log Z, n = 36": (36, "log_partition()"),
            "moments, n = 32": (32, "moments()"),
        }
        report["peak MB of a fresh process"] = {name: round(peak(*call)) for name, call in calls.items()}
        print(report["peak MB of a fresh process"])
    for path in {options.keep, FIGURE if options.keep == RESULTS else options.keep}:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
