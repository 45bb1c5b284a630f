"""log Z of a restricted machine, exact through its smaller layer, beside the usual product and softplus.

    python benchmarks/restricted.py                 # prints the ratios, writes benchmarks/results/restricted.json

Both sides sum over the same 2^m states of the hidden layer in float64, in blocks, on one CPU thread:

plain     for a block of states h the fields h @ Wᵀ + b, torch.nn.functional.softplus, the sum over visible units, and
          a logsumexp;
ours      RestrictedBoltzmannMachine.log_partition(): three factors as one thin product;
limit     the thin products of ours alone (as many, as large, into the same buffer), with the product entry by entry;
moments   RestrictedBoltzmannMachine.moments(): log Z and all ⟨x_i⟩, ⟨h_j⟩, ⟨x_i h_j⟩.

Before any timing log Z of both is compared, and the moments with those of the plain sum on a machine with fewer hidden
units. Then the contestants alternate, round by round; CPU time of the process, minimum and median, ratio of the minima
and of the medians. The plain side's block is the fastest of a few sizes, tried once before. Peak memory is that of a
fresh process which computes log Z and the moments once.
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from report import asked, processor
from torch import Tensor
from torch.nn import functional as F

from lecturecode import __version__, seeded
from lecturecode.boltzmann import BIT, RestrictedBoltzmannMachine, states
from lecturecode.boltzmann.bipartite import RIGHT, TILE

SHAPES = {"784-20": (784, 20), "784-16": (784, 16), "64-20": (64, 20)}
RESULTS = Path(__file__).parent / "results" / "restricted.json"


def machine(n: int, m: int) -> RestrictedBoltzmannMachine:
    """Weights N(0, 0.3²), visible biases around −1, as of a machine that has learned strokes on a dark ground."""
    rbm, rng = RestrictedBoltzmannMachine(n, m, dtype=torch.float64), seeded(1)
    with torch.no_grad():
        rbm.weights.copy_(0.3 * torch.randn(n, m, generator=rng, dtype=torch.float64))
        rbm.visible_bias.copy_(torch.randn(n, generator=rng, dtype=torch.float64) - 1)
        rbm.hidden_bias.copy_(torch.randn(m, generator=rng, dtype=torch.float64))
    return rbm


@torch.no_grad()
def plain(rbm: RestrictedBoltzmannMachine, block: int) -> Tensor:
    """log Σ_h exp(b_h·h + Σ_i softplus(b_x + W h)_i) block by block."""
    parts = torch.empty(2**rbm.m // block, dtype=torch.float64)
    for number, rows in enumerate(torch.arange(2**rbm.m).split(block)):
        h = ((rows[:, None] >> torch.arange(rbm.m)) & 1).to(torch.float64)
        field = torch.addmm(rbm.visible_bias, h, rbm.weights.mT)
        parts[number] = (h @ rbm.hidden_bias + F.softplus(field).sum(1)).logsumexp(0)
    return parts.logsumexp(0)


@torch.no_grad()
def limit(rbm: RestrictedBoltzmannMachine) -> None:
    """The products of `ours` and nothing else."""
    columns = 2 ** min(rbm.m // 2, RIGHT)
    rows, groups = TILE // columns, -(-rbm.n // 3)
    u, v = (
        torch.rand(groups, rows, 8, generator=seeded(1)).double(),
        torch.rand(8, columns, generator=seeded(1)).double(),
    )
    v = v.expand(groups, 8, columns).contiguous()
    buffer, product = torch.empty(rows, columns, dtype=torch.float64), torch.empty(rows, columns, dtype=torch.float64)
    for _ in range(2**rbm.m // (rows * columns)):
        product.fill_(1)
        for g in range(groups):
            product.mul_(torch.mm(u[g], v[g], out=buffer))


def gate(rbm: RestrictedBoltzmannMachine) -> dict[str, float]:
    """Relative difference of log Z, and the largest difference of a moment for 10 of the hidden units."""
    apart = abs(rbm.log_partition().item() / plain(rbm, 1024).item() - 1)
    small = RestrictedBoltzmannMachine(rbm.n, 10, dtype=torch.float64)
    with torch.no_grad():
        small.weights.copy_(rbm.weights[:, :10])
        small.visible_bias.copy_(rbm.visible_bias)
        small.hidden_bias.copy_(rbm.hidden_bias[:10])
        h = states(10, BIT)
        p = h @ small.hidden_bias + torch.logaddexp(
            torch.zeros(1, dtype=torch.float64), small.visible_bias + h @ small.weights.mT
        ).sum(1)
        p = p.softmax(0)
        product = small.visible(h).mT @ (p[:, None] * h)
    difference = {"log Z": apart, "moments": float((small.moments().product - product).abs().max())}
    # softplus returns its argument above 20, which costs the plain side up to 2e-9 a unit
    if not (difference["log Z"] < 1e-9 and difference["moments"] < 1e-12):
        raise SystemExit(f"the two sides differ: {difference}; nothing was timed")
    return difference


def timed(work: Callable[[], object]) -> float:
    """CPU seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(shape: str, rounds: int) -> dict:
    rbm = machine(*SHAPES[shape])
    difference = gate(rbm)
    block = min((256, 1024, 4096), key=lambda size: timed(lambda: plain(rbm, size)))
    contestants: dict[str, Callable[[], object]] = {
        "ours": lambda: rbm.log_partition().detach(),
        "plain": lambda: plain(rbm, block),
        "limit": lambda: limit(rbm),
        "moments": rbm.moments,
    }
    for work in contestants.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(timed(work))

    def ratio(above: str, below: str) -> dict[str, float]:
        return {
            f.__name__.replace("min", "minimum"): round(f(times[above]) / f(times[below]), 2)
            for f in (min, statistics.median)
        }

    return {
        "gate": difference,
        "block of the plain side": block,
        "seconds": {
            name: {"minimum": round(min(t), 4), "median": round(statistics.median(t), 4)} for name, t in times.items()
        },
        "plain over ours": ratio("plain", "ours"),
        "ours over limit": ratio("ours", "limit"),
        "moments over ours": ratio("moments", "ours"),
    }


def peak(shape: str) -> dict[str, float]:
    """MB of a fresh process before and after."""
    code = f"from restricted import alone; alone({shape!r})"
    here = Path(__file__).parent
    out = subprocess.run([sys.executable, "-c", code], cwd=here, check=True, capture_output=True, text=True).stdout
    before, after = map(float, out.split())
    return {"after the imports": before, "after log Z and moments": after}


def alone(shape: str) -> None:
    """What `peak` runs."""
    torch.set_num_threads(1)
    before = high_water()
    machine(*SHAPES[shape]).moments()
    print(round(before), round(high_water()))


def high_water() -> float:
    """The largest resident size so far, in MB; on Linux not by getrusage, which a new process inherits."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        scale = 2**20 if platform.system() == "Darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def main() -> None:
    options = asked(__doc__, 7, RESULTS)
    torch.set_num_threads(1)
    report = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "lecturecode": __version__},
        "setting": {"rounds": options.rounds, "dtype": "float64", "clock": "CPU time"},
        "shapes": {},
    }
    for shape in SHAPES:
        report["shapes"][shape] = result = measure(shape, options.rounds)
        result["peak memory in MB"] = peak(shape)
        print(shape, json.dumps(result, indent=1), flush=True)
    options.keep.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
